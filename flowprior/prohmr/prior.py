"""Conversion between the original's checkpoints and priors."""

import os

import torch
from torch import Tensor

from flowprior._modes import lasting
from flowprior.files.model_file import CheckpointError
from flowprior.prior import ConditionalPosePrior
from flowprior.prior.spaces import Rot6dSpace
from flowprior.prohmr.weights import (
    SPACES,
    flow_config,
    flow_state_from_prohmr,
    flow_state_to_prohmr,
    read_prohmr,
)

__all__ = ["load_prior", "to_state_dict"]


@lasting()
def load_prior(
    path: str | os.PathLike[str],
    *,
    space: str | None = None,
    lu_forward: str = "exact",
    device: torch.device | str = "cpu",
) -> ConditionalPosePrior:
    """Read a prior from a checkpoint of the original, executing nothing from the file.

    The weights determine the sizes. 144 features are SMPL's 24 joints in 6D, layout "columns"; 48
    are the 16 keypoints of the lifting model.

    Args:
        path: A Lightning checkpoint of ProHMR or its lifting model, or a state dict of one of
            them or of the flow alone.
        space: ``"rot6d"`` or ``"points"``; required for any other number of features.
        lu_forward: ``"legacy"`` for weights trained in August 2021, see
            :func:`flowprior.prohmr.latent_calibration`.
        device: Device of the weights.

    Returns:
        The prior, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file cannot be read safely, contains no such flow, or contains
            weights that are missing, unexpected, of the wrong shape or not finite; the message
            lists all of them.
        ValueError: If the space is unknown, or required but missing.
    """
    weights = read_prohmr(path).flow
    try:
        sizes = flow_config(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    features = int(sizes.pop("features"))
    if space is None:
        if features not in SPACES:
            raise ValueError(
                f"{path} has a flow over {features} features: pass space='rot6d' or 'points'"
            )
        space = SPACES[features]
    if space == "so3":
        raise ValueError("the original models 6D vectors or keypoints, not space 'so3'")
    joints, rest = divmod(features, 6 if space == "rot6d" else 3)
    if rest:
        raise ValueError(
            f"{path} has {features} features, not a whole number of joints in space {space!r}"
        )
    with torch.device("meta"):
        prior = ConditionalPosePrior(joints=joints, space=space, lu_forward=lu_forward, **sizes)
    try:
        state = flow_state_from_prohmr(weights, prior.flow)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    prior.flow.load_state_dict(state, assign=True)
    prior.provenance = {"converted_from": os.path.basename(path)}
    return prior.eval().to(device)


def to_state_dict(prior: ConditionalPosePrior) -> dict[str, Tensor]:
    """Convert a prior's weights to the original's names, for its code to load.

    Args:
        prior: A prior of space ``"rot6d"`` or ``"points"``.

    Returns:
        Tensors by name, ``flow.flow._transform...``, as in ProHMR's Lightning module. Load them
        with ``strict=False``: they do not include backbone and heads.

    Raises:
        ValueError: If the original cannot represent the prior: space ``"so3"``, an encoder, another
            6D layout than "columns", or a flow that :func:`flow_state_to_prohmr` rejects.
    """
    space = prior.space
    if space.name == "so3":
        raise ValueError("the original models 6D vectors, this prior has space 'so3'")
    if prior.encoder is not None:
        raise ValueError("the original has no encoder of the context, this prior has one")
    if prior.head is not None:
        raise ValueError("the original has no mean head, this prior has one")
    if isinstance(space, Rot6dSpace) and space.layout != "columns":
        raise ValueError(
            f"the original reads 6D as 'columns', this prior has layout {space.layout!r}"
        )
    return flow_state_to_prohmr(prior.flow, prefix="flow.flow.")
