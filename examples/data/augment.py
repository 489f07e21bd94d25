"""Augmentation of poses: mirror images and varied proportions."""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.skeleton import H36M_17, SMPL_24

__all__ = ["SEGMENT_TURNS", "mirror", "mirror_rotvecs", "turn_segments", "vary_bones"]


def mirror(joints: Tensor) -> Tensor:
    """Mirror images of poses (..., 17, 3) in the world frame: the left side becomes the right."""
    flipped = joints[..., list(H36M_17.flip), :]
    return flipped * flipped.new_tensor([-1.0, 1.0, 1.0])


def mirror_rotvecs(rotvecs: Tensor) -> Tensor:
    """Mirror images of rotations (..., 24, 3) in SMPL-24 order, across the plane x = 0."""
    return rotvecs[..., list(SMPL_24.flip), :] * rotvecs.new_tensor([1.0, -1.0, -1.0])


def vary_bones(
    joints: Tensor,
    generator: torch.Generator | None = None,
    stature: float = 0.03,
    proportions: float = 0.03,
) -> Tensor:
    """Vary the stature and the proportions of people.

    Every bone keeps its direction. Its length is multiplied by a factor of the bone, which the
    opposite bone shares, and by a factor of the whole person.

    Args:
        joints: (B, 17, 3) in H36M-17 order, metres, the root at the origin.
        generator: Source of randomness, on the device of ``joints``.
        stature: Standard deviation of the logarithm of the factor of the whole person.
        proportions: Standard deviation of the logarithm of the factor of each bone.

    Returns:
        (B, 17, 3).
    """
    noise = torch.randn(
        joints.shape[:2], generator=generator, device=joints.device, dtype=joints.dtype
    )
    # Both sides use the draw of the lower joint number. The root's is the person's.
    shared = [min(pair) for pair in enumerate(H36M_17.flip)]
    factor = (stature * noise[:, :1] + proportions * noise[:, shared]).exp()[..., None]
    placed = [joints[:, 0]]
    for parent, child in H36M_17.bones:
        placed.append(placed[parent] + factor[:, child] * (joints[:, child] - joints[:, parent]))
    return torch.stack(placed, dim=1)


LEG = ("hip", "knee", "ankle")


def _segment_turns() -> Tensor:
    sizes = torch.zeros(SMPL_24.num_joints, 3)
    for axes, names in (
        ((5.0, 2.5, 2.5), ["pelvis"]),
        ((1.5, 1.0, 1.0), ["spine1"]),
        ((6.0, 2.0, 2.0), ["left_shoulder", "right_shoulder"]),
        # Knees and toes are hinges about x and stay so: legs turn about x alone.
        ((4.0, 0.0, 0.0), [f"{side}_{part}" for side in ("left", "right") for part in LEG]),
    ):
        rows = [SMPL_24.joint_names.index(name) for name in names]
        sizes[rows] = torch.tensor(axes)
    return sizes


SEGMENT_TURNS = _segment_turns()
"""(24, 3): how far the rest orientations of capture skeletons differ, degrees about each axis.

They are standard deviations between the training subjects of the CMU data, estimated from the
errors that a regressor trained on other subjects makes on each of them, and rounded.
"""

_PARENT = [0, *(parent for parent, _ in sorted(SMPL_24.bones, key=lambda bone: bone[1]))]


def turn_segments(
    matrix: Tensor, multiple: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Turn the frames of segments at random, as other capture skeletons do.

    Two skeletons disagree on the rest orientation of a segment by a constant turn of some degrees,
    so the same posture has other rotations. The joints stay where they are. A model that is not
    told takes such turns to be certain, and is overconfident on new people.

    Args:
        matrix: (B, 24, 3, 3) rotations in SMPL-24 order.
        multiple: Size of the turns, in multiples of `SEGMENT_TURNS`.
        generator: Source of randomness, on the device of ``matrix``.

    Returns:
        (B, 24, 3, 3).
    """
    sizes = (multiple * torch.deg2rad(SEGMENT_TURNS)).to(matrix)
    noise = torch.randn(
        (*matrix.shape[:2], 3), generator=generator, device=matrix.device, dtype=matrix.dtype
    )
    turn = rotations.rotvec_to_matrix(sizes * noise)
    below = turn[:, _PARENT[1:]].mT @ matrix[:, 1:]
    return torch.cat((matrix[:, :1], below), dim=1) @ turn
