from dataclasses import dataclass

import pytest

from examples.training.folder import CONFIG_FILE, claim_folder


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    pause: int = 5


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_a_new_folder_gets_the_settings(tmp_path):
    claim_folder(tmp_path / "a" / "b", Config())
    assert (tmp_path / "a" / "b" / "checkpoints").is_dir()
    assert "rate: 0.1" in (tmp_path / "a" / "b" / CONFIG_FILE).read_text()


def test_other_settings_are_refused_once_there_is_a_checkpoint(tmp_path):
    claim_folder(tmp_path, Config())
    claim_folder(tmp_path, Config(rate=0.2))
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"other settings \(rate 0\.2 -> 0\.3\)"):
        claim_folder(tmp_path, Config(rate=0.3))
    claim_folder(tmp_path, Config(rate=0.2, pause=9), free=["pause"])
    assert "pause: 9" in (tmp_path / CONFIG_FILE).read_text()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_only_the_first_process_writes(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    claim_folder(tmp_path / "a", Config())
    assert not (tmp_path / "a").exists()
