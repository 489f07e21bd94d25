"""Frames of videos, written here without loss."""

import numpy as np
import pytest

from flowprior.files import video_file
from flowprior.files.video_file import read_frames, video_length
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


def test_reading_may_end_early(tmp_path):
    reader = read_frames(write_video(tmp_path / "a.mkv", frames(30)))
    np.testing.assert_array_equal(next(reader), frames(1)[0])
    reader.close()


def test_other_files_are_refused(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for read in (video_length, lambda path: next(read_frames(path))):
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
