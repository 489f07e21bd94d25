"""Augmentation of poses: mirror images and varied proportions."""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.skeleton import H36M_17, SMPL_24

__all__ = ["mirror", "mirror_rotvecs", "turn_segments", "vary_bones"]


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


# Feet, ankles and wrists differ more between capture skeletons than the rest.
_TURN_SIZE = tuple(1.3 if joint in (7, 8, 10, 11, 20, 21) else 0.6 for joint in range(24))
_PARENT = (0, *(parent for parent, _ in sorted(SMPL_24.bones, key=lambda bone: bone[1])))


def turn_segments(
    matrix: Tensor, radians: float, generator: torch.Generator | None = None
) -> Tensor:
    """Turn the frame of every segment at random, as other capture skeletons do.

    Two skeletons disagree on the rest orientation of a segment by a constant turn of some degrees,
    so the same posture has other rotations. The joints stay where they are.

    Args:
        matrix: (B, 24, 3, 3) rotations in SMPL-24 order.
        radians: Standard deviation of the turns about each axis; feet, ankles and wrists turn 1.3
            times as far, other segments 0.6 times.
        generator: Source of randomness, on the device of ``matrix``.

    Returns:
        (B, 24, 3, 3).
    """
    noise = torch.randn(
        matrix.shape[:2] + (3,), generator=generator, device=matrix.device, dtype=matrix.dtype
    )
    turn = rotations.rotvec_to_matrix(radians * noise.new_tensor(_TURN_SIZE)[:, None] * noise)
    before = turn[:, list(_PARENT)].mT
    before = torch.cat((torch.eye(3).to(before).expand_as(before[:, :1]), before[:, 1:]), dim=1)
    return before @ matrix @ turn
