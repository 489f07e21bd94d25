"""Small model files that every later version of the library must read, with what they compute.

    python -m tools.reference_models

Writes the missing files of ``tests/data/models``: for each case a small trained prior and a JSON
file of inputs and the values that this version computes from them in float64. An existing file is
never changed: it stands for the version that wrote it. Takes a few seconds.
"""

import argparse
import hashlib
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.whole_files import write_text
from flowprior import ConditionalPosePrior, __version__
from flowprior.body import BodyModel

__all__ = ["CASES", "FOLDER", "Case", "computed", "main", "write_case"]

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "models"
STEPS = 30
POSES = 64
ROWS = 2
JOINTS = 3
SMALL: dict[str, Any] = {"hidden_features": 6, "num_steps": 2, "num_blocks": 1}


@dataclass(frozen=True)
class Case:
    """A prior to store.

    Attributes:
        options: Arguments of the constructor.
        dtype: Dtype of the stored weights.
        centre: Whether a regressor's answer is passed as the centre.
        as_folder: Whether it is stored by ``save_pretrained``, not ``save``.
        groups: Number of people for the factors of the joints; 0 for none.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    centre: bool = False
    as_folder: bool = False
    groups: int = 0


def _with(**options: Any) -> Mapping[str, Any]:
    return {"context_features": 3, "joints": JOINTS, "head_features": 4, **SMALL, **options}


def _given(*kinds: str, **options: Any) -> Mapping[str, Any]:
    small = {"hidden_features": 4, "num_steps": 1}
    given = {"context_features": None, "evidence": kinds, "encoder_features": 4}
    return _with(**{**small, **given, **options})


CASES: dict[str, Case] = {
    "so3": Case(_with()),
    "so3-normal": Case(_with(base="normal")),
    "so3-contracting": Case(_with(coupling="contracting")),
    "so3-linear": Case(_with(coupling="none")),
    "so3-without-anchor": Case(_with(anchored=False, head_features=0)),
    "so3-without-context": Case(_with(context_features=0, head_features=0)),
    "so3-encoder": Case(_with(encoder_features=4)),
    "so3-centre": Case(_with(head_features=0), centre=True),
    "so3-float64": Case(_with(), dtype=torch.float64),
    "so3-float16": Case(_with(), dtype=torch.float16),
    "so3-folder": Case(_with(), as_folder=True),
    "rot6d": Case(_with(space="rot6d")),
    "rot6d-interleaved": Case(_with(space="rot6d", layout="interleaved")),
    "rot6d-rows": Case(_with(space="rot6d", layout="rows")),
    "rot6d-affine": Case(_with(space="rot6d", coupling="affine", head_features=0)),
    "rot6d-spline": Case(_with(space="rot6d", coupling="spline", head_features=0)),
    "points": Case(_with(space="points")),
    "points-without-context": Case(_with(space="points", context_features=0, head_features=0)),
    "prohmr": Case(_with(preset="prohmr", head_features=0)),
    "prohmr-legacy": Case(_with(preset="prohmr", head_features=0, lu_forward="legacy")),
    "prohmr-so3": Case(_with(preset="prohmr", head_features=0, space="so3")),
    "given-keypoints": Case(_given("keypoints_2d")),
    "given-rotations": Case(_given("rotations")),
    "given-joints": Case(_given("joints_3d", joints=23, encoder_skip=False)),
    "given-rotations-factors": Case(_given("rotations", joints=24, encoder_skip=False), groups=8),
    "given-all": Case(
        _given(
            *("keypoints_2d", "joints_3d", "rotations"),
            joints=24,
            rest_joints=(22, 23),
            encoder_skip=False,
        )
    ),
}


def computed(prior: ConditionalPosePrior, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a prior computes from the inputs of a case, in its own dtype.

    Args:
        prior: The prior.
        inputs: ``theta`` (n, J, k) and ``z`` (n, D), with ``context`` (n, C), ``centre``
            (n, J, k), or the arguments of ``given``, as nested lists.

    Returns:
        ``log_prob`` (n,); ``decoded`` (n, J, k); ``mode`` (n, J, k) where it is exact; the
        tensors of the joints' factors, if it has them.
    """
    dtype = prior.flow.dtype
    given = {
        name: torch.tensor(value, dtype=None if name == "known" else dtype)
        for name, value in inputs.items()
    }
    theta, z = given.pop("theta"), given.pop("z")
    with torch.no_grad():
        if prior.evidence is not None:
            posterior = prior.given(**given)
        else:
            posterior = prior(given.get("context"), centre=given.get("centre"))
        result = {
            "log_prob": posterior.log_prob(theta),
            "decoded": posterior.decode(z if posterior.batch_shape else z[0]),
        }
        if prior.config["coupling"] not in ("affine", "spline"):  # others optimise numerically
            result["mode"] = posterior.mode()
        if prior.joint_factors is not None:
            result |= prior.joint_factors.state_dict()
    return result


def write_case(name: str, folder: Path = FOLDER) -> bool:
    """Write the model and the values of a case, unless they exist.

    Args:
        name: Key of :data:`CASES`.
        folder: Where to write.

    Returns:
        Whether they were written.

    Raises:
        FileExistsError: If only one of the two files exists.
    """
    case = CASES[name]
    model = folder / (name if case.as_folder else f"{name}.safetensors")
    values = folder / f"{name}.json"
    if model.exists() or values.exists():
        if model.exists() and values.exists():
            return False
        raise FileExistsError(f"{folder} has one of {model.name} and {values.name}, not both")
    folder.mkdir(parents=True, exist_ok=True)
    prior, inputs = _trained(case, seed=zlib.crc32(name.encode()))
    if case.as_folder:
        prior.save_pretrained(model)
        prior = ConditionalPosePrior.from_pretrained(model)
    else:
        prior.save(model)
        prior = ConditionalPosePrior.load(model)
    weights = model / "model.safetensors" if case.as_folder else model
    outputs = computed(prior.double(), inputs)
    content = {
        "version": __version__,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "dtype": str(case.dtype).removeprefix("torch."),
        "inputs": inputs,
        "outputs": {key: _rounded(value, 12) for key, value in outputs.items()},
    }
    write_text(values, json.dumps(content, separators=(",", ":")) + "\n")
    return True


def _trained(case: Case, seed: int) -> tuple[ConditionalPosePrior, dict[str, Any]]:
    """A prior after a few steps on random poses, and inputs to compare with."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    prior = ConditionalPosePrior(**case.options)
    theta = 0.4 * torch.randn(POSES, prior.config["joints"], 3, generator=generator)
    evidence: dict[str, Tensor] = {}
    if prior.evidence is not None:
        evidence = _evidence(prior.evidence.kinds, theta, generator)
        context: Tensor | None = prior.evidence.context(**evidence)
    elif prior.config["context_features"]:
        context = torch.randn(POSES, prior.config["context_features"], generator=generator)
    else:
        context = None
    centre = (theta + 0.1 * torch.randn(theta.shape, generator=generator)) if case.centre else None
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.01)
    prior.train()
    for _ in range(STEPS):
        loss = prior.nll(theta, context, centre=centre, known=evidence.get("known"))
        if prior.head is not None:
            loss = loss + prior.mode_loss(theta, context, known=evidence.get("known"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prior.eval()
    prior.calibrate(theta, context, centre=centre, known=evidence.get("known"))
    if case.groups:
        groups = torch.arange(POSES) % case.groups
        known = evidence.get("known")
        prior.calibrate_joints(
            *(theta, context), groups=groups, body=BodyModel(), known=known, num_samples=20
        )
    inputs: dict[str, Any] = {"theta": _rounded(theta[:ROWS], 4)}
    z = torch.randn(ROWS, prior.space.features, generator=generator)
    inputs["z"] = _rounded(z, 4)
    if prior.evidence is not None:
        inputs |= {
            name: value[:ROWS].tolist() if name == "known" else _rounded(value[:ROWS], 4)
            for name, value in evidence.items()
        }
    elif context is not None:
        inputs["context"] = _rounded(context[:ROWS], 4)
    if centre is not None:
        inputs["centre"] = _rounded(centre[:ROWS], 4)
    return prior.to(case.dtype), inputs


def _evidence(kinds: Sequence[str], theta: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Random evidence (n, ...) of the given kinds; every third joint is known."""
    number, joints = theta.shape[:2]
    found: dict[str, Tensor] = {}
    if "keypoints_2d" in kinds:
        xy = 500 + 150 * torch.randn(number, 17, 2, generator=generator)
        conf = torch.rand(number, 17, 1, generator=generator)
        found["keypoints_2d"] = torch.cat((xy, conf), dim=-1)
    if "joints_3d" in kinds:
        found["joints_3d"] = 0.3 * torch.randn(number, 24, 3, generator=generator)
    if "rotations" in kinds:
        found["rotations"] = theta
        found["known"] = (torch.arange(joints) % 3 == 1).expand(number, joints).clone()
    return found


def _rounded(value: Tensor, digits: int) -> Any:
    """Nested lists of numbers, so that the file is short and exact."""
    rows = value.double().tolist()

    def shorten(item: Any) -> Any:
        return [shorten(each) for each in item] if isinstance(item, list) else round(item, digits)

    return shorten(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the missing files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference_models", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the files")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in CASES:
        print(f"{name}: {'written' if write_case(name, options.out) else 'exists'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
