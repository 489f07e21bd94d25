"""The command of the contest: resumable runs, tables and the page."""

import json

import numpy as np
import pytest
import torch

from benchmarks.priors import __main__ as command
from benchmarks.priors.data import JOINTS, load
from benchmarks.priors.tables import fill_page, read_results, tables
from examples.data.augment import mirror_rotvecs
from flowprior import rotations
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "pose-priors.md"


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "poses.npz"
    np.savez(
        path,
        poses=0.2 * rng.standard_normal((60, 72)).astype(np.float32),
        split=np.repeat(np.array([0, 1, 2], np.int8), (40, 10, 10)),
        subject=np.repeat(np.array([4, 5, 6], np.int16), (40, 10, 10)),
    )
    return path


def test_the_training_part_has_mirror_images(data):
    parts = load(data)
    assert {name: len(part) for name, part in parts.items()} == {"train": 80, "val": 10, "test": 10}
    with np.load(data) as file:
        rotvecs = torch.from_numpy(file["poses"]).reshape(-1, 24, 3)
    first, mirrored = parts["train"].matrix[0], parts["train"].matrix[40]
    for found, whole in ((first, rotvecs[0]), (mirrored, mirror_rotvecs(rotvecs[0]))):
        torch.testing.assert_close(found, rotations.rotvec_to_matrix(whole[1 : 1 + JOINTS]))
    assert set(parts["val"].subject.tolist()) == {5}


def arguments(data, out, *more):
    sizes = ("--poses", "3", "--generated", "8", "--budget", "0.2", "--methods", "mixture")
    return ["--data", str(data), "--out", str(out), *sizes, *more]


def test_an_interrupted_command_continues(data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    quick = ("mixture.components=2", "mixture.iterations=3", "mixture.candidates=2")
    more = ("--seeds", "0", "1", "--set", *quick)
    command.main(arguments(data, out, *more))
    files = {path.name for path in out.iterdir()}
    assert files == {
        *("test-data-0.json", "test-mixture-0.json", "test-mixture-1.json"),
        *("model-mixture-0.pt", "model-mixture-1.pt"),
    }
    printed = capsys.readouterr().out
    assert printed.count("trained 0 s") == 2
    assert "## completion" in printed
    before = json.loads((out / "test-mixture-0.json").read_text(encoding="utf-8"))

    # A lost result is judged again without training.
    (out / "test-mixture-0.json").unlink()
    monkeypatch.setattr("benchmarks.priors.methods.Mixture.fit", None)
    command.main(arguments(data, out, *more))
    after = json.loads((out / "test-mixture-0.json").read_text(encoding="utf-8"))
    timed = {name for name in before if name.endswith(("_ms", "_s"))}
    assert {k: v for k, v in before.items() if k not in timed} == pytest.approx(
        {k: v for k, v in after.items() if k not in timed}
    )


def test_the_shipped_model_runs_once_and_last():
    plan = command.planned(["shipped", "vae", "ours"], [3, 4])
    assert plan == [("vae", 3), ("ours", 3), ("vae", 4), ("ours", 4), ("shipped", 3)]


def test_tables():
    results = {
        "data": [{"apd_mm": 200.0}],
        "vae": [{"apd_mm": 100.0, "left_leg_min_mm": 1.0}, {"apd_mm": 120.0}],
        "flow": [{"nll": -3.0, "parameters": 12_345.0}],
    }
    made = tables(results)
    generation = made["generation"].splitlines()
    assert generation[2].startswith("| training poses |  | 200 |")
    assert generation[3].startswith("| VAE | 2 | 110 ± 14 |")
    assert generation[4].endswith("| -3.0 |")
    assert "training poses" not in made["completion"]
    assert "1.0 / -" in made["completion"]
    assert "| 12 |" in made["cost"]


def test_the_page_is_filled(tmp_path):
    (tmp_path / "test-vae-0.json").write_text('{"apd_mm": 123.0}', encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    fill_page(page, read_results(tmp_path, "test"))
    text = page.read_text(encoding="utf-8")
    assert "| VAE | 1 | 123 |" in text
    fill_page(page, read_results(tmp_path, "test"))
    assert page.read_text(encoding="utf-8") == text
    page.write_text("no place", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for the table 'generation'"):
        fill_page(page, {})
