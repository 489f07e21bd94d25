"""Frames of a video, one at a time, through the program ffmpeg.

The package ``imageio-ffmpeg`` contains ffmpeg; one on the path serves as well.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from flowprior._optional import import_optional
from flowprior.files.limits import Refusal, require_pixels, require_regular
from flowprior.files.picture_file import Pixels

__all__ = ["VIDEO_SUFFIXES", "read_frames", "video_length", "video_rate"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""Suffixes of video files, in lower case."""

_LONGEST_NUMBER = 20
# No frame twice and none left out, whatever their times. Versions before 5.1 know the first only.
_EVERY_FRAME = {True: ("-vsync", "0"), False: ("-fps_mode", "passthrough")}


def video_length(path: str | os.PathLike[str]) -> int:
    """Number of frames of a video, without decoding them.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: There is no ffmpeg.
        ValueError: The file is no video.
    """
    require_regular(path)
    command = [*_ffmpeg(path), "-map", "0:v:0", "-c", "copy", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    counts = re.findall(r"frame=\s*(\d+)", done.stderr)
    if done.returncode or not counts:
        raise _not_a_video(path, done.stderr)
    return int(counts[-1])


def video_rate(path: str | os.PathLike[str]) -> float:
    """Frames per second of a video: their mean, where the times between them differ.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: There is no ffmpeg.
        ValueError: The file is no video, or does not say.
    """
    require_regular(path)
    command = [*_ffmpeg(path), "-map", "0:v:0", "-c", "copy", "-frames:v", "1", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise _not_a_video(path, done.stderr)
    # "Video: h264, yuv420p, 1280x720, 29.97 fps, 30 tbr": the first is the mean of the file.
    found = re.search(r"Stream #0.*Video:.*?([\d.]+)(k?) (?:fps|tbr)", done.stderr)
    rate = float(found[1]) * (1000 if found[2] else 1) if found else 0.0
    if not rate > 0:
        raise ValueError(f"{Path(path)} does not say how many frames it has per second")
    return rate


def read_frames(path: str | os.PathLike[str], every: int = 1) -> Iterator[Pixels]:
    """Read the frames of a video; only one of them is in memory at a time.

    Args:
        path: The file.
        every: Yields every nth frame, beginning with the first.

    Yields:
        (H, W, 3) red, green and blue, turned as the camera was held.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: There is no ffmpeg.
        ValueError: The file is no video, or its frames are too large.
    """
    require_regular(path)
    # The frames are pictures in the format PPM, each of which begins with its size.
    command = [*_ffmpeg(path), "-map", "0:v:0", *_EVERY_FRAME[_is_old(_program())]]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-"]
    number = 0
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        try:
            while (frame := _read_ppm(process.stdout, path)) is not None:
                if number % every == 0:
                    yield frame
                number += 1
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
        if not number:
            errors.seek(0)
            raise _not_a_video(path, errors.read().decode(errors="replace"))


def _read_ppm(stream: IO[bytes], path: str | os.PathLike[str]) -> Pixels | None:
    """The next picture of a stream; None at its end."""
    if stream.read(2) != b"P6":
        return None
    numbers: list[int] = []
    while len(numbers) < 3:
        digits = b""
        while (byte := stream.read(1)).strip():
            digits += byte
            if len(digits) > _LONGEST_NUMBER:
                return None
        if digits:
            numbers.append(int(digits))
        elif not byte:
            return None
    width, height, _ = numbers
    try:
        require_pixels(width, height, width * height)
    except Refusal as refusal:
        raise ValueError(f"{Path(path)} {refusal}") from None
    content = stream.read(3 * width * height)
    if len(content) < 3 * width * height:
        return None
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def _not_a_video(path: str | os.PathLike[str], message: str) -> ValueError:
    last = message.strip().splitlines()[-1:] or ["no picture in it"]
    return ValueError(f"{Path(path)} is not a video that ffmpeg can read ({last[0]:.200})")


def _ffmpeg(path: str | os.PathLike[str]) -> list[str]:
    """The beginning of a command that reads a video."""
    # A name such as "-x.mp4" or "a:b.mp4" is a file, not an option or a protocol.
    source = f"file:{Path(path).resolve()}"
    return [_program(), "-hide_banner", "-nostdin", "-i", source]


def _program() -> str:
    """The ffmpeg of the package, else that on the path."""
    found = shutil.which("ffmpeg")
    if found is not None and importlib.util.find_spec("imageio_ffmpeg") is None:
        return found
    package = import_optional(
        "imageio_ffmpeg", purpose="Reading videos", package="imageio-ffmpeg", extra="video"
    )
    return str(package.get_ffmpeg_exe())


@functools.cache
def _is_old(program: str) -> bool:
    """Whether ffmpeg is older than version 6."""
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    found = re.match(r"ffmpeg version n?(\d+)\.", said.stdout)
    return found is not None and int(found[1]) < 6
