"""The files of the examples are complete or absent, even if the writer is stopped."""

import os

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from examples.data.lifting_pairs import LiftingStats
from examples.fitting.priors import KeypointPrior
from examples.pictures import save_image, write_glb
from examples.pictures.saving import save_figure
from examples.training.checkpoints import WholeFiles, save_weights
from examples.whole_files import prepare_folder, save_npz, write_json, write_text
from flowprior.files.whole_file import remove_partials, whole_file
from flowprior.fitting.mixture import PoseMixture

IMAGE = np.zeros((4, 4, 3), np.uint8)
TRIANGLE = np.eye(3)[None], np.arange(3)[None]
MIXTURE = PoseMixture(torch.ones(1), torch.ones(1, 69), torch.eye(69)[None], torch.ones(69))

WRITERS = {
    "text.txt": lambda path: write_text(path, "new"),
    "content.json": lambda path: write_json(path, {"new": 1}),
    "arrays.npz": lambda path: save_npz(path, {"x": np.zeros(3)}),
    "image.png": lambda path: save_image(path, IMAGE),
    "image.jpg": lambda path: save_image(path, IMAGE),
    "figure.png": lambda path: save_figure(path, Figure()),
    "figure.svg": lambda path: save_figure(path, Figure()),
    "bodies.glb": lambda path: write_glb(path, *TRIANGLE),
    "mixture.npz": MIXTURE.save,
    "stats.npz": LiftingStats(np.zeros((17, 2)), np.ones((17, 2))).save,
    "weights.safetensors": lambda path: save_weights(path, nn.Linear(2, 2)),
    "model.safetensors": lambda path: KeypointPrior(8).save(path.parent),
    "best.ckpt": lambda path: WholeFiles().save_checkpoint({"x": 1}, path),
    "last.ckpt": lambda path: WholeFiles().save_checkpoint({"x": 1}, path),
}


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("name", WRITERS)
def test_a_stopped_writer_leaves_the_old_file(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(b"old")

    def stop(first, second):
        # All of the new file has been written by now, and none of it under its name.
        assert path.read_bytes() == b"old"
        assert os.path.getsize(first) > 0
        if os.fspath(second) == os.fspath(path):
            raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(PowerCut):
            WRITERS[name](path)
    assert path.read_bytes() == b"old"
    remove_partials(tmp_path)
    assert os.listdir(tmp_path) == [name]
    WRITERS[name](path)
    assert path.read_bytes() != b"old"
    assert {*os.listdir(tmp_path)} <= {name, "previous.ckpt"}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_follows_links_and_keeps_permissions(tmp_path, name):
    if name == "last.ckpt":
        pytest.skip("it becomes previous.ckpt first, link or not")
    target, path = tmp_path / "elsewhere", tmp_path / name
    target.write_bytes(b"old")
    target.chmod(0o640)
    path.symlink_to(target.name)
    WRITERS[name](path)
    assert path.is_symlink()
    assert target.read_bytes() != b"old"
    assert target.stat().st_mode & 0o777 == 0o640
    target.write_bytes(b"precious")
    target.chmod(0o444)
    with pytest.raises(PermissionError, match=f"write-protected: .*{name}'"):
        WRITERS[name](path)
    assert target.read_bytes() == b"precious"
    assert {*os.listdir(tmp_path)} == {name, "elsewhere"}


def test_old_file_is_replaced_by_a_complete_one(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def half():
        with whole_file(path) as partial:
            partial.write_text("new, but not", encoding="utf-8")
            assert path.read_text(encoding="utf-8") == "old"
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        half()
    assert path.read_text(encoding="utf-8") == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_error_names_the_requested_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "nowhere" / "file", "")
    assert caught.value.filename == str(tmp_path / "nowhere" / "file")


def test_only_leftovers_of_killed_programs_are_removed(tmp_path):
    kept = {"kept", ".hidden", "own.partial", ".own.partial", "deep"}
    (tmp_path / "deep").mkdir()
    for name in (*kept - {"deep"}, ".a.npz.0123abcd.partial", "deep/.last.ckpt.00000000.partial"):
        (tmp_path / name).touch()
    prepare_folder(tmp_path)
    assert {*os.listdir(tmp_path)} == kept
    assert not os.listdir(tmp_path / "deep")
    prepare_folder(tmp_path / "made" / "here")
    assert (tmp_path / "made" / "here").is_dir()
