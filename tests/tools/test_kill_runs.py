"""A few kills of each program; `python -m tools.kill_runs` does many."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.kill_runs import PROGRAMS, differences, kill, start

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_killed_it_ends_with_the_files_of_an_unbroken_run(tmp_path, name):
    outcome = kill(name, 2, seed=1, folder=tmp_path / "a folder")
    assert outcome.kills >= 2
    assert outcome.differing == {}
    assert outcome.left == {}


def write(folder, *, weight=1.0, seconds=1.0, more=()):
    folder.mkdir()
    torch.save({"w": torch.tensor([weight, torch.nan]), "n": [1, 2]}, folder / "last.ckpt")
    (folder / "results.json").write_text(
        json.dumps({"seconds": seconds, "x": float("nan")}), encoding="utf-8"
    )
    np.savez(folder / "a.npz", x=np.array([weight]))
    for name in more:
        (folder / name).touch()


def test_what_differs_is_named(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", seconds=2.0)
    write(tmp_path / "c", weight=2.0, more=["left.partial"])
    assert differences(tmp_path / "a", tmp_path / "b") == []
    found = differences(tmp_path / "a", tmp_path / "c")
    assert found == [
        f"only in {tmp_path / 'c'}: left.partial",
        "a.npz['x']",
        "last.ckpt['w']",
    ]


def test_a_program_is_killed_before_the_write_that_was_chosen(tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    argv = ["--out", str(out), "--images", "50", "--groups", "2", "--size", "32"]
    with start("examples.prohmr.embedded", argv, log, out=out, die_at=3) as process:
        process.join(600)
        assert process.exitcode == -signal.SIGKILL
    assert not list(out.rglob("*.npz"))


def test_a_program_ends_with_its_block(tmp_path):
    def fail():
        with start("examples.prohmr.embedded", ["--help"], tmp_path / "log") as process:
            time.sleep(0)
            raise RuntimeError(process.pid)

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert not Path(f"/proc/{caught.value.args[0]}/environ").exists()
