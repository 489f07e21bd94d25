"""Keypoints with fingers in a fit: all detectors' sets become `BODY_67`."""

from functools import cache

import torch
from torch import Tensor

from flowprior.skeleton import BODY_25, BODY_67, Skeleton, shared_joints

__all__ = ["as_body_67", "finger_joints", "sees_hands", "without_hidden_hands"]

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
LEAST_SEEN = 3
"""Fewer keypoints of its fingers do not show a hand."""


@cache
def finger_joints(skeleton: Skeleton, side: str | None = None) -> tuple[int, ...]:
    """Indices of the keypoints of fingers, without the wrists.

    Args:
        skeleton: A joint set. Fingertips without knuckles, as in SMPL-45, do not count.
        side: "left" or "right"; both if None.
    """
    names = {
        f"{each}_{finger}{number}"
        for each in (("left", "right") if side is None else (side,))
        for finger in FINGERS
        for number in ("1", "2", "3", "")
    }
    found = [joint for joint, meaning in enumerate(skeleton.meanings) if meaning in names]
    knuckles = any(skeleton.meanings[joint].endswith("1") for joint in found)
    return tuple(found) if knuckles else ()


def as_body_67(
    keypoints: Tensor, skeleton: Skeleton, missing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Convert keypoints to OpenPose's body with hands, and its body alone.

    Points that a body model does not have, such as those of the face, are left out.

    Args:
        keypoints: (P, K, 3) pixels and confidence.
        skeleton: Their joint set, such as COCO-WholeBody's or MHR's.
        missing: Value of the keypoints that the set lacks.

    Returns:
        (P, 67, 3) and (P, 25, 3), with ``missing`` where the set lacks a keypoint.
    """
    source, target = shared_joints(skeleton, BODY_67)
    # A wrist is not also the root of a hand.
    kept = [
        (ours, theirs)
        for ours, theirs in zip(source, target, strict=True)
        if not BODY_67.joint_names[theirs].endswith("_hand_root")
        or skeleton.joint_names[ours].endswith("_hand_root")
    ]
    placed = keypoints.new_full((len(keypoints), BODY_67.num_joints, 3), missing)
    placed[:, [theirs for _, theirs in kept]] = keypoints[:, [ours for ours, _ in kept]]
    return placed, placed[:, : BODY_25.num_joints].contiguous()


def sees_hands(keypoints: Tensor, skeleton: Skeleton) -> Tensor:
    """(P, 2) bool, whether at least three keypoints of the fingers are seen, left and right.

    Args:
        keypoints: (P, K, 3), confidence zero where unseen.
        skeleton: Their joint set.
    """
    seen = keypoints[..., 2] > 0
    sides = [seen[:, list(finger_joints(skeleton, side))].sum(dim=1) for side in ("left", "right")]
    return torch.stack(sides, dim=1) >= LEAST_SEEN


def without_hidden_hands(keypoints: Tensor, skeleton: Skeleton) -> Tensor:
    """Keypoints (P, K, 3) in which single keypoints of fingers of a hidden hand do not count."""
    seen = sees_hands(keypoints, skeleton)
    kept = keypoints.clone()
    for side, name in enumerate(("left", "right")):
        fingers = list(finger_joints(skeleton, name))
        kept[:, fingers, 2] *= seen[:, side, None]
    return kept
