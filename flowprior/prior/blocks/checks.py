"""Checks of the priors that blocks are made of, and of their arguments."""

import torch
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior.prior.blocks.layout import ARM_FEATURES, BLOCKS, Block
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePrior
from flowprior.prior.spaces import RotationSpace
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = [
    "annotation_flags",
    "facts",
    "layout_of",
    "own_context",
    "reads_body",
    "require_body",
    "require_hand",
    "require_trainable",
]

# Joints of SMPL's hands, which SMPL-H does not have, by the number of joints.
SMPL_HANDS = {24: (22, 23), 23: (21, 22)}


def reads_body(hand: PosePrior) -> bool:
    """Whether a hand depends on the body."""
    return hand.evidence is None and hand.context_features >= ARM_FEATURES


def facts(hand: PosePrior | None) -> str:
    """What a hand depends on, for error messages."""
    if hand is None:
        return "it is missing"
    if hand.evidence is not None:
        return "its prior takes evidence"
    return f"its prior has context_features={hand.context_features}"


def layout_of(prior: PosePrior) -> str:
    """The order of the six numbers of a rotation."""
    assert isinstance(prior.space, RotationSpace)
    return prior.space.layout


def require_body(body: object) -> int:
    """The number of joints that the body shares with SMPL-H; an error if it is no such body."""
    if not isinstance(body, PosePrior):
        raise TypeError(f"body must be a ConditionalPosePrior or None, got {type(body).__name__}")
    joints = body.space.joints
    if not isinstance(body.space, RotationSpace) or not 21 <= joints <= 24:
        raise ValueError(
            "body must be a prior over 24 or 22 joint rotations of SMPL, or 23 or 21 without the "
            f"root, got {body.space.name!r} over {joints} joints"
        )
    hands = SMPL_HANDS.get(joints, ())
    if body.rest_joints != hands:
        advice = f"rest_joints={hands}" if hands else "no rest_joints"
        raise ValueError(
            f"a body of {joints} joints needs {advice}, because hands of SMPL are two joints that "
            f"SMPL-H does not have; this prior has rest_joints={body.rest_joints}"
        )
    return joints - len(hands)


def require_hand(name: str, hand: object, layout: str | None) -> None:
    """Raise an error if a prior is not over hands, in this layout if there is one."""
    if not isinstance(hand, PosePrior):
        raise TypeError(f"{name} must be a ConditionalPosePrior, got {type(hand).__name__}")
    space = hand.space
    if not isinstance(space, RotationSpace) or space.joints != HAND_JOINTS or hand.rest_joints:
        raise ValueError(
            f"{name} must be a prior over {HAND_JOINTS} joint rotations of MANO without "
            f"rest_joints, got {space.name!r} over {space.joints} joints"
        )
    if layout is not None and space.layout != layout:
        raise ValueError(f"{name} has layout {space.layout!r}, the other blocks {layout!r}")
    if hand.evidence is None and 0 < hand.context_features < ARM_FEATURES:
        raise ValueError(
            f"{name} has context_features={hand.context_features}; expected 0, or the width of its "
            f"context plus {ARM_FEATURES} numbers of elbow and wrist"
        )


def require_trainable(name: str, prior: PosePrior) -> ConditionalPosePrior:
    """The prior of a block that is trained or saved; TypeError if it is frozen."""
    if not isinstance(prior, ConditionalPosePrior):
        raise TypeError(f"{name} is frozen: only a ConditionalPosePrior is trained and saved")
    return prior


def own_context(name: str, hand: PosePrior, context: Tensor | None) -> Tensor | None:
    """The context (*batch, C) that a hand reads beside the body; None if it reads no other."""
    width = hand.context_features - ARM_FEATURES
    if not width:
        return None
    if context is None or context.shape[-1:] != (width,):
        got = "none" if context is None else tuple(context.shape)
        raise ValueError(
            f"{name} needs a context (..., {width}), beside {ARM_FEATURES} numbers of elbow "
            f"and wrist that the body supplies; got {got}"
        )
    return context


def annotation_flags(valid: Tensor | None, theta: Tensor) -> dict[Block, Tensor]:
    """``valid`` of ``BlockPrior.nll`` by block, (*batch,) bool each."""
    batch = theta.shape[:-2]
    if valid is None:
        valid = torch.ones(batch, dtype=torch.bool, device=theta.device)
    require_tensor("valid", valid)
    if valid.shape == batch:
        valid = valid[..., None].expand(*batch, len(BLOCKS))
    if valid.shape != (*batch, len(BLOCKS)):
        raise ValueError(
            f"valid must be {tuple(batch)} or {(*batch, len(BLOCKS))}, one flag for each of "
            f"{', '.join(BLOCKS)}, got {tuple(valid.shape)}"
        )
    return dict(zip(BLOCKS, valid.bool().unbind(dim=-1), strict=True))
