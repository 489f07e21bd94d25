"""The training program, from a features file to a model that from_pretrained loads."""

import json

import pytest
import torch

from examples.heads import train
from examples.heads.features import write_features
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.prior.heads import context_with_answer

QUICK = ["--steps", "20", "--encoder-features", "16", "--hidden-features", "16", "--num-steps", "1"]


@pytest.fixture
def features(people, tmp_path):
    write_features(tmp_path / "f.safetensors", people)
    return tmp_path / "f.safetensors"


def run(features, out, *argv):
    given = ["--features", features, "--out", out, "--samples", "20", "--device", "cpu", *QUICK]
    return train.main([*map(str, given), *argv])


@pytest.mark.parametrize("answer", ["regressor", "own"])
def test_from_features_to_a_model(features, people, tmp_path, capsys, answer):
    out = tmp_path / "out"
    assert run(features, out, "--answer", answer) == 0
    assert "300, 100, 100 people to train, validate, test" in capsys.readouterr().out
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert found["people"] == {"train": 300, "val": 100, "test": 100}
    assert found["overall"]["people"] == 100
    assert found["overall"]["nll_nats"] < found["as_trained"]["nll_nats"] + 1
    assert found["rest_joints"] == [22, 23]
    assert "| all | 100 |" in (out / "report.md").read_text(encoding="utf-8")
    assert (out / "calibration.png").exists()
    prior = ConditionalPosePrior.from_pretrained(out / "head").freeze()
    some = people.take(torch.arange(400, 404))
    with torch.no_grad():
        context = context_with_answer(some.features, some.answer)
        if answer == "own":
            assert prior(context).mode().shape == (4, 24, 6)
            return
        posterior = prior(context, centre=some.answer)
        mode = posterior.mode()
        uncertainty = posterior.joint_uncertainty(BodyModel(), num_samples=20)
    assert torch.equal(mode[:, :22], rotations.matrix_to_rot6d(some.answer)[:, :22])
    assert uncertainty.radius_90_mm.shape == (4, 24)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rate", "0"], "--rate must be positive"),
        (["--turns", "-1"], "--turns at least 0"),
        (["--samples", "1"], "--samples must be at least 2"),
        (["--features", "missing.safetensors"], "examples.heads.collect writes it"),
        (["--body", "missing.pkl"], "missing.pkl"),
    ],
)
def test_bad_arguments(features, tmp_path, capsys, argv, message):
    assert run(features, tmp_path / "out", *argv) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
