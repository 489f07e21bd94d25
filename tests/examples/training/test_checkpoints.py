import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from examples.training.checkpoints import WholeFiles, load_weights, save_weights
from examples.whole_files import remove_partials, whole_file, write_text
from flowprior import CheckpointError

WRITER = """
import sys, torch
from examples.training.checkpoints import WholeFiles
number = 0
while True:
    number += 1
    WholeFiles().save_checkpoint({"n": number, "x": torch.full((200_000,), number)}, sys.argv[1])
"""


def test_a_file_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def half():
        with whole_file(path) as partial:
            partial.write_text("new, but not")
            assert path.read_text() == "old"
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        half()
    assert path.read_text() == "old"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_killed_programs_left_is_cleared_away(tmp_path):
    write_text(tmp_path / "kept", "")
    (tmp_path / ".last.ckpt.0123.partial").touch()
    remove_partials(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_killed_writer_never_leaves_half_a_checkpoint(tmp_path):
    """Killed at several moments while it does nothing but write checkpoints."""
    path = tmp_path / "last.ckpt"

    for wait in (0.0, 0.003, 0.011):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(timeout=10) == -signal.SIGKILL
        found = WholeFiles().load_checkpoint(path)
        assert (found["x"] == found["n"]).all()
        assert len(found["x"]) == 200_000

        remove_partials(tmp_path)
    assert os.listdir(tmp_path) == ["last.ckpt"]


class TestWeights:
    def test_round_trip(self, tmp_path):
        first, second = nn.Linear(3, 2), nn.Linear(3, 2)
        save_weights(tmp_path / "w", first)
        load_weights(tmp_path / "w", second)
        assert torch.equal(first.weight, second.weight)

    def test_of_another_network(self, tmp_path):
        save_weights(tmp_path / "w", nn.Linear(3, 2))
        with pytest.raises(CheckpointError, match="weight"):
            load_weights(tmp_path / "w", nn.Linear(4, 2))


class TestWholeFiles:
    def test_nothing_of_a_checkpoint_is_executed(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        torch.save({"x": Evil()}, tmp_path / "last.ckpt")
        with pytest.raises(pickle.UnpicklingError):
            WholeFiles().load_checkpoint(tmp_path / "last.ckpt")
        assert not (tmp_path / "made").exists()

    def test_removing(self, tmp_path):
        WholeFiles().save_checkpoint({}, tmp_path / "a" / "b.ckpt")
        for _ in range(2):
            WholeFiles().remove_checkpoint(tmp_path / "a" / "b.ckpt")
        assert list((tmp_path / "a").iterdir()) == []
