"""Model files of earlier versions load and compute what they computed.

``tools/reference_models.py`` wrote them; they are never written again.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from flowprior import ConditionalPosePrior
from flowprior.flow import PRESETS
from flowprior.prior import SPACES
from flowprior.prior.evidence import KINDS

FOLDER = Path(__file__).parents[1] / "data" / "models"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def values(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def load(name):
    if (FOLDER / name).is_dir():
        return ConditionalPosePrior.from_pretrained(FOLDER / name)
    return ConditionalPosePrior.load(FOLDER / f"{name}.safetensors")


@torch.no_grad()
def computed(prior, inputs, quantities):
    """Log-density, decoded latents or mode of the inputs of a stored model."""
    given = {
        name: torch.tensor(value, dtype=None if name == "known" else prior.flow.dtype)
        for name, value in inputs.items()
    }
    theta, z = given.pop("theta"), given.pop("z")
    if prior.evidence is not None:
        posterior = prior.given(**given)
    else:
        posterior = prior(given.get("context"), centre=given.get("centre"))
    compute = {
        "log_prob": lambda: posterior.log_prob(theta),
        "decoded": lambda: posterior.decode(z if posterior.batch_shape else z[0]),
        "mode": posterior.mode,
    }
    stored = prior.joint_factors.state_dict() if prior.joint_factors is not None else {}
    return {
        quantity: compute[quantity]() if quantity in compute else stored[quantity]
        for quantity in quantities
    }


def error(actual, expected):
    """The largest deviation, relative to values above 1."""
    expected = torch.tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape
    return float(((actual.double() - expected).abs() / expected.abs().clamp(min=1)).max())


@pytest.mark.parametrize("name", NAMES)
def test_stored_model_reproduces_float64_results(name):
    stored, prior = values(name), load(name).double()
    actual = computed(prior, stored["inputs"], stored["outputs"])
    # The files have twelve decimals; rounding grows through the flow's steps, by less than 1e4.
    for quantity, expected in stored["outputs"].items():
        assert error(actual[quantity], expected) < 1e-8, quantity


@pytest.mark.parametrize("name", [name for name in NAMES if values(name)["dtype"] == "float32"])
def test_stored_model_reproduces_results_in_its_dtype(name):
    stored = values(name)
    actual = computed(load(name), stored["inputs"], stored["outputs"])
    # float32 has seven digits, of which the flow's steps lose less than four.
    for quantity, expected in stored["outputs"].items():
        assert error(actual[quantity], expected) < 1e-3, quantity


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_model_has_its_dtype_and_is_ready_for_inference(name):
    prior = load(name)
    assert {weight.dtype for weight in prior.parameters()} == {
        getattr(torch, values(name)["dtype"])
    }
    assert not prior.training


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_model_is_saved_with_the_same_weights(name, tmp_path):
    prior = load(name)
    prior.save(tmp_path / "again.safetensors")
    again = ConditionalPosePrior.load(tmp_path / "again.safetensors")
    assert again.config == prior.config
    ours, theirs = prior.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_model_was_never_written_again(name):
    folder = FOLDER / name
    path = folder / "model.safetensors" if folder.is_dir() else FOLDER / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == values(name)["sha256"]


def test_every_stored_model_has_its_values():
    models = {path.stem for path in FOLDER.iterdir() if path.suffix != ".json"}
    assert models == set(NAMES)


def test_every_space_preset_and_kind_of_evidence_is_stored():
    configs = [load(name).config for name in NAMES]
    assert {config["space"] for config in configs} == set(SPACES)
    assert {config["preset"] for config in configs} == set(PRESETS)
    assert {kind for config in configs for kind in config["evidence"]} == set(KINDS)
    assert {config["coupling"] for config in configs} == {
        *("additive", "affine", "spline", "contracting", "none")
    }
    assert {config["base"] for config in configs} == {"normal", "student_t"}
    assert {config["anchored"] for config in configs} == {True, False}
    assert {config["layout"] for config in configs} == {"columns", "interleaved", "rows"}
    assert {config["lu_forward"] for config in configs} == {"exact", "legacy"}


def test_all_stored_models_together_are_small():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2**20
