"""Mirrored poses."""

import torch
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior.skeleton import Skeleton

__all__ = ["mirror_pose"]


def mirror_pose(theta: Tensor, skeleton: Skeleton) -> Tensor:
    """The pose of the mirror image, left and right exchanged.

    For bodies whose rest frames are the axes of the world and that are symmetric in x, as those of
    the SMPL family are. A pose of MANO's right hand becomes one of its left hand: the joints of a
    single hand have no other side, so they keep their places. To copy rotation vectors from one
    hand to the other instead bends the fingers backwards.

    Args:
        theta: Rotation vectors (..., J, 3) or matrices (..., J, 3, 3).
        skeleton: The J joints.

    Returns:
        The same form.

    Raises:
        TypeError: If theta is not a tensor.
        ValueError: If it has another shape.
    """
    require_tensor("theta", theta)
    flip, joints = list(skeleton.flip), skeleton.num_joints
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=theta.dtype, device=theta.device)
    if theta.shape[-3:] == (joints, 3, 3):
        return sign[:, None] * theta[..., flip, :, :] * sign
    if theta.shape[-2:] == (joints, 3):
        return -sign * theta[..., flip, :]
    raise ValueError(
        f"theta has shape {tuple(theta.shape)}; accepted for {skeleton.name} are rotation vectors "
        f"(..., {joints}, 3) and matrices (..., {joints}, 3, 3)"
    )
