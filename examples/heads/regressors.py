"""Frozen regressors that features are collected from: our ProHMR, or a function of yours."""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from examples.data.images import ImageBatch
from examples.prohmr.judging import crop_batch
from examples.prohmr.model import load_model
from flowprior import rotations
from flowprior.prior.heads import Tap, tap

__all__ = ["FrozenRegressor", "annotated_pose", "fingerprint", "open_regressor"]

JOINTS = 24


def annotated_pose(batch: ImageBatch) -> Tensor:
    """SMPL's annotated rotations (B, 24, 3, 3); NaN where there is no annotation."""
    rotvec = torch.cat((batch.global_orient, batch.body_pose), dim=-1).unflatten(-1, (JOINTS, 3))
    known = batch.valid & batch.has_body_pose
    matrix = rotations.rotvec_to_matrix(torch.where(known[:, None, None], rotvec, 0.0))
    return torch.where(known[:, None, None, None], matrix, torch.nan)


@dataclass(frozen=True, eq=False)
class FrozenRegressor:
    """A regressor and where its features are.

    Attributes:
        model: The network, in evaluation mode on its device.
        layer: Name of the layer whose input is the context, as for `flowprior.prior.heads.tap`;
            `flowprior.prior.heads.REGRESSORS` has that of known ones.
        answer: Runs the model on a batch of B people, once, and returns its answers: rotation
            matrices (B, J, 3, 3), or points (B, J, 3) in metres about the pelvis.
        calls: Which calls of the layer to keep, as for `tap`.
        truth: The ground truth of a batch, in the same form; NaN where there is none.
    """

    model: nn.Module
    layer: str
    answer: Callable[[ImageBatch], Tensor]
    calls: str = "last"
    truth: Callable[[ImageBatch], Tensor] = annotated_pose

    def tap(self) -> Tap:
        """Open a tap at the layer."""
        return tap(self.model, self.layer, calls=self.calls)


def prohmr(checkpoint: Path | None, device: torch.device) -> FrozenRegressor:
    """Our ProHMR, whose answer is its mode. The tapped layer is that of shape and camera."""
    if checkpoint is None:
        raise ValueError("prohmr needs --checkpoint, a model of examples.prohmr.train")
    model = load_model(checkpoint, device).requires_grad_(False)

    def answer(batch: ImageBatch) -> Tensor:
        posterior = model(crop_batch(batch, model.size).images).posterior
        return rotations.rot6d_to_matrix(posterior.mode(), model.prior.config["layout"])

    return FrozenRegressor(model, "head", answer)


def open_regressor(name: str, checkpoint: Path | None, device: torch.device) -> FrozenRegressor:
    """Open a regressor.

    Args:
        name: ``prohmr``, or ``module:function`` with your function that takes the path of
            ``--checkpoint``, or None, and the device, and returns a `FrozenRegressor`.
        checkpoint: Its weights.
        device: Its device.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The name is unknown, or the function returns something else.
    """
    if name == "prohmr":
        return prohmr(checkpoint, device)
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"no regressor {name!r}: there are prohmr and module:function")
    try:
        made = getattr(importlib.import_module(module), function)(checkpoint, device)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"regressor {name}: {error}") from error
    if not isinstance(made, FrozenRegressor):
        raise ValueError(f"regressor {name}: expected a FrozenRegressor, got {type(made).__name__}")
    made.model.eval().requires_grad_(False)
    return made


def fingerprint(name: str, checkpoint: Path | None) -> str:
    """The name of a regressor and a hash of its weights."""
    if checkpoint is None:
        return name
    digest = hashlib.sha256()
    with checkpoint.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return f"{name} {digest.hexdigest()[:16]}"
