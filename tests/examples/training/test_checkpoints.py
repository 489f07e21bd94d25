import os
import time

import pytest
import torch
from torch import nn

from examples.training.checkpoints import WholeFiles, load_weights, save_weights
from flowprior import CheckpointError
from flowprior.files.whole_file import remove_partials
from tools.kill_runs import preloaded


def write_for_ever(path):
    number = 0
    while True:
        number += 1
        content = {"n": number, "x": torch.full((200_000,), number)}
        WholeFiles().save_checkpoint(content, path)


@pytest.mark.slow
def test_a_killed_writer_never_leaves_half_a_checkpoint(tmp_path):
    """Kill a process at several moments while it writes checkpoints."""
    path, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for wait in (0.0, 0.003, 0.011):
        path.unlink(missing_ok=True)
        previous.unlink(missing_ok=True)
        writer = preloaded().Process(target=write_for_ever, args=(path,))
        writer.start()
        try:
            while not previous.exists():
                assert writer.is_alive()
                assert path.exists() or not previous.exists()
                time.sleep(0.001)
            time.sleep(wait)
        finally:
            writer.kill()
            writer.join()
        found = [WholeFiles().load_checkpoint(file) for file in (path, previous)]
        assert all((each["x"] == each["n"]).all() and len(each["x"]) == 200_000 for each in found)
        # Killed between the two renames, both names are of one checkpoint.
        assert found[0]["n"] - found[1]["n"] in (0, 1)
        remove_partials(tmp_path)
        assert {*os.listdir(tmp_path)} == {"last.ckpt", "previous.ckpt"}


@pytest.mark.parametrize("links", [True, False])
def test_the_last_checkpoint_but_one_is_kept(tmp_path, monkeypatch, links):
    if not links:

        def none(*_):
            raise OSError(1, "no hard links on this file system")

        monkeypatch.setattr(os, "link", none)
    for number in range(3):
        WholeFiles().save_checkpoint({"n": number}, tmp_path / "last.ckpt")
        WholeFiles().save_checkpoint({"n": number}, tmp_path / "best.ckpt")
    found = {path.name: WholeFiles().load_checkpoint(path)["n"] for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 2, "previous.ckpt": 1, "best.ckpt": 2}


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
    def test_checkpoint_executes_nothing(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        torch.save({"x": Evil()}, tmp_path / "last.ckpt")
        with pytest.raises(CheckpointError, match=r"last\.ckpt"):
            WholeFiles().load_checkpoint(tmp_path / "last.ckpt")
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("damage", ["empty", "cut short", "other", "a byte", "a list"])
    def test_a_damaged_file_is_named(self, tmp_path, damage):
        path = tmp_path / "last.ckpt"
        WholeFiles().save_checkpoint({"x": torch.arange(1000)}, path)
        data = bytearray(path.read_bytes())
        if damage == "empty":
            data.clear()
        elif damage == "cut short":
            del data[len(data) // 2 :]
        elif damage == "other":
            data = bytearray(b"<!doctype html>")
        elif damage == "a byte":
            data[data.index(torch.arange(1000).numpy().tobytes()[:64])] ^= 255
        path.write_bytes(data)
        if damage == "a list":
            torch.save([1], path)
        with pytest.raises(CheckpointError, match=r"last\.ckpt"):
            WholeFiles().load_checkpoint(path)

    def test_missing_file_is_not_reported_as_damaged(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            WholeFiles().load_checkpoint(tmp_path / "last.ckpt")

    def test_removing(self, tmp_path):
        WholeFiles().save_checkpoint({}, tmp_path / "a" / "b.ckpt")
        for _ in range(2):
            WholeFiles().remove_checkpoint(tmp_path / "a" / "b.ckpt")
        assert list((tmp_path / "a").iterdir()) == []
