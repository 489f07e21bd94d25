"""Pictures are complete or absent, even if the program is interrupted."""

import os

import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.pictures import gallery_picture, save_figure, save_image, write_glb
from examples.whole_files import save_npz

PIXELS = np.full((8, 9, 3), 90, np.uint8)
TRIANGLE = np.eye(3), np.array([[0, 1, 2]])
WRITERS = {
    "image.png": lambda path: save_image(path, PIXELS),
    "image.JPG": lambda path: save_image(path, PIXELS),
    "image": lambda path: save_image(path, PIXELS),
    "figure.png": lambda path: save_figure(path, Figure()),
    "figure.svg": lambda path: save_figure(path, Figure()),
    "gallery.png": lambda path: gallery_picture(path, {"a": PIXELS}, title="b"),
    "bodies.glb": lambda path: write_glb(path, *TRIANGLE),
    "fits.npz": lambda path: save_npz(path, {"theta": np.zeros(3)}),
}
STARTS = {
    ".png": b"\x89PNG", ".jpg": b"\xff\xd8", "": b"\x89PNG", ".svg": b"<?xml",
    ".glb": b"glTF", ".npz": b"PK",
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_an_older_file_stays_until_the_new_one_is_whole(name, tmp_path, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            WRITERS[name](path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [name]
    WRITERS[name](path)
    assert path.read_bytes().startswith(STARTS[path.suffix.lower()])
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_is_missing_is_named(name, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        WRITERS[name](tmp_path / "nowhere" / name)
