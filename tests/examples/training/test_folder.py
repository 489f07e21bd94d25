import copy
from dataclasses import dataclass

import pytest

from examples.training.checkpoints import WholeFiles
from examples.training.folder import CONFIG_FILE, checkpoint_of, claim_folder
from examples.training.resuming import SETTINGS
from examples.training.settings import as_yaml
from flowprior import CheckpointError


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    pause: int = 5


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def train(out, config, *steps):
    """Write the checkpoints of a training."""
    for step in steps:
        content = {"global_step": step, "state_dict": {}, SETTINGS: as_yaml(config)}
        WholeFiles().save_checkpoint(content, out / "checkpoints" / "last.ckpt")


def test_a_new_folder_gets_the_settings(tmp_path):
    claim_folder(tmp_path / "a" / "b", Config())
    assert (tmp_path / "a" / "b" / "checkpoints").is_dir()
    assert "rate: 0.1" in (tmp_path / "a" / "b" / CONFIG_FILE).read_text(encoding="utf-8")
    assert checkpoint_of(tmp_path / "a" / "b") is None


@pytest.mark.parametrize("config", ["there", "lost", "damaged"])
def test_other_settings_are_refused_once_there_is_a_checkpoint(tmp_path, config):
    claim_folder(tmp_path, Config())
    claim_folder(tmp_path, Config(rate=0.2))
    train(tmp_path, Config(rate=0.2), 1)
    # The checkpoint contains its settings.
    if config == "lost":
        (tmp_path / CONFIG_FILE).unlink()
    elif config == "damaged":
        (tmp_path / CONFIG_FILE).write_text("rate: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other settings \(rate 0\.2 -> 0\.3\)"):
        claim_folder(tmp_path, Config(rate=0.3))
    assert claim_folder(tmp_path, Config(rate=0.2, pause=9), free=["pause"]) is None
    assert "pause: 9" in (tmp_path / CONFIG_FILE).read_text(encoding="utf-8")
    assert checkpoint_of(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("damage", ["empty", "cut short", "other", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_takes_its_place(tmp_path, damage):
    train(tmp_path, Config(), 1, 2)
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    changed = {"empty": b"", "cut short": content[: len(content) // 2], "other": b"<html>"}
    last.unlink() if damage == "missing" else last.write_bytes(changed[damage])
    assert checkpoint_of(tmp_path) == last
    message = claim_folder(tmp_path, Config())
    assert str(last) in message
    assert "step 1" in message
    assert WholeFiles().load_checkpoint(last)["global_step"] == 1
    assert claim_folder(tmp_path, Config()) is None
    assert not (last.parent / "previous.ckpt").exists()
    # Now there is none before it.
    last.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt.*no checkpoint before it.*step 0"):
        claim_folder(tmp_path, Config())


def test_two_damaged_checkpoints_are_both_named(tmp_path):
    train(tmp_path, Config(), 1, 2)
    for name in ("last", "previous"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt.*previous\.ckpt.*delete both"):
        claim_folder(tmp_path, Config())


def test_a_checkpoint_of_another_program_is_not_resumed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    WholeFiles().save_checkpoint({"global_step": 1}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        claim_folder(tmp_path, copy.copy(Config()))


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_only_the_first_process_writes(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    claim_folder(tmp_path / "a", Config())
    assert not (tmp_path / "a").exists()
