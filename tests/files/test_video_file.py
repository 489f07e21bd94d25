"""Frames of videos, written here without loss."""

import subprocess

import numpy as np
import pytest

from flowprior.files import video_file
from flowprior.files.video_file import read_frames, video_length, video_rate
from tests.files.videos import write_video


def frames(number, height=36, width=64):
    return [
        np.full((height, width, 3), (7 * row, 100, 255 - row), np.uint8) for row in range(number)
    ]


def test_frames_are_read_in_order(tmp_path):
    path = write_video(tmp_path / "a.mkv", frames(7))
    assert video_length(path) == 7
    found = list(read_frames(path))
    np.testing.assert_array_equal(found, frames(7))
    np.testing.assert_array_equal(list(read_frames(path, every=3)), frames(7)[::3])


def test_the_rate_is_that_of_the_file(tmp_path):
    assert video_rate(write_video(tmp_path / "a.mkv", frames(7))) == pytest.approx(10)


@pytest.mark.parametrize(
    ("line", "rate"),
    [
        ("Video: h264 (High), yuv420p, 1280x720, 2500 kb/s, 29.97 fps, 30 tbr, 90k tbn", 29.97),
        ("Video: vp9, yuv420p, 640x480, SAR 1:1 DAR 4:3, 1k tbr, 1k tbn", 1000),
        ("Video: mjpeg, gray, 640x480", None),
    ],
)
def test_what_ffmpeg_says_of_the_rate(tmp_path, monkeypatch, line, rate):
    said = subprocess.CompletedProcess([], 0, "", f"  Stream #0:0(und): {line}\n")
    monkeypatch.setattr(video_file, "_program", lambda: "ffmpeg")
    monkeypatch.setattr(video_file.subprocess, "run", lambda *_, **__: said)
    (tmp_path / "a.mp4").write_bytes(b"")
    if rate is not None:
        assert video_rate(tmp_path / "a.mp4") == pytest.approx(rate)
        return
    with pytest.raises(ValueError, match="does not say how many frames it has per second"):
        video_rate(tmp_path / "a.mp4")


def test_reading_may_end_early(tmp_path):
    reader = read_frames(write_video(tmp_path / "a.mkv", frames(30)))
    np.testing.assert_array_equal(next(reader), frames(1)[0])
    reader.close()


def test_other_files_are_refused(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for read in (video_length, video_rate, lambda path: next(read_frames(path))):
        with pytest.raises(ValueError, match=r"a\.mp4 is not a video"):
            read(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError):
        video_length(tmp_path / "nothing.mp4")


@pytest.mark.parametrize(
    ("version", "old"),
    [("4.4.2-0ubuntu0.22.04.1", True), ("n5.1", True), ("7.0.2-static", False), ("N-117", False)],
)
def test_the_version_of_ffmpeg_selects_an_option(tmp_path, version, old):
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho 'ffmpeg version {version} Copyright'\n", encoding="utf-8")
    program.chmod(0o755)
    assert video_file._is_old(str(program)) is old
