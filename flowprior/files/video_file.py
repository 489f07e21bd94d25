"""Frames of a video, one at a time, through the program ffmpeg that ``imageio-ffmpeg`` contains."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flowprior._optional import import_optional
from flowprior.files.limits import Refusal, require_pixels, require_regular
from flowprior.files.picture_file import Pixels

__all__ = ["VIDEO_SUFFIXES", "read_frames", "video_length"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""Suffixes of video files, in lower case."""


def video_length(path: str | os.PathLike[str]) -> int:
    """Number of frames of a video, counted by ffmpeg.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: ``imageio-ffmpeg`` is not installed.
        ValueError: The file is no video.
    """
    require_regular(path)
    try:
        frames, _ = _ffmpeg().count_frames_and_secs(os.fspath(path))
    except (OSError, RuntimeError) as error:
        raise _not_a_video(path, error) from error
    return int(frames)


def read_frames(path: str | os.PathLike[str], every: int = 1) -> Iterator[Pixels]:
    """Read the frames of a video; only one of them is in memory at a time.

    Args:
        path: The file.
        every: Yields every nth frame, beginning with the first.

    Yields:
        (H, W, 3) red, green and blue.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: ``imageio-ffmpeg`` is not installed.
        ValueError: The file is no video, or its frames are too large.
    """
    size = require_regular(path)
    reader = _ffmpeg().read_frames(os.fspath(path), pix_fmt="rgb24")
    try:
        width, height = next(reader)["size"]
        require_pixels(width, height, max(size, width * height))
        for number, frame in enumerate(reader):
            if number % every == 0:
                yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)
    except Refusal as refusal:
        raise ValueError(f"{Path(path)} {refusal}") from None
    except (OSError, RuntimeError, StopIteration, KeyError) as error:
        raise _not_a_video(path, error) from error
    finally:
        reader.close()


def _not_a_video(path: str | os.PathLike[str], error: Exception) -> ValueError:
    last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return ValueError(f"{Path(path)} is not a video that ffmpeg can read ({last[0]:.200})")


def _ffmpeg() -> Any:  # noqa: ANN401, optional
    return import_optional(
        "imageio_ffmpeg", purpose="Reading videos", package="imageio-ffmpeg", extra="video"
    )
