"""Augmentation of poses: mirror images and varied proportions."""

import torch
from torch import Tensor

from flowprior.skeleton import H36M_17, SMPL_24

__all__ = ["mirror", "mirror_rotvecs", "vary_bones"]


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
