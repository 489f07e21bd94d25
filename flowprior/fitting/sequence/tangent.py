"""Derivatives of logarithms and charts of rotations with respect to small rotations."""

import torch
from torch import Tensor

from flowprior.rotations import matrix_to_rotvec

__all__ = ["chart_with_jacobian", "cross_matrix", "inverse_right_jacobian"]


def cross_matrix(v: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of the cross product with v (..., 3)."""
    x, y, z = v.unbind(dim=-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))


def inverse_right_jacobian(rotvec: Tensor) -> Tensor:
    """Derivative of log(exp(rotvec) exp(d)) with respect to d at 0.

    Its transpose is that of log(exp(d) exp(rotvec)).

    Args:
        rotvec: (..., 3) radians, of length at most pi.

    Returns:
        (..., 3, 3).

    References:
        Sola, Deray and Atchuthan, *A micro Lie theory for state estimation in robotics*, 2018,
        equation 144.
    """
    square = rotvec.square().sum(dim=-1)
    angle = square.clamp(min=1e-8).sqrt()
    # (1 + cos t) / (2 t sin t) = cot(t / 2) / (2 t), without a division of zeros at t = pi.
    exact = (1 - angle / 2 / torch.tan(angle / 2)) / square.clamp(min=1e-8)
    factor = torch.where(square < 1e-3, 1 / 12 + square / 720, exact)[..., None, None]
    cross = cross_matrix(rotvec)
    identity = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return identity + cross / 2 + factor * (cross @ cross)


def chart_with_jacobian(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Equal-volume chart u (..., 3) of rotations M, and its derivative with respect to M exp(d).

    Args:
        matrix: (..., 3, 3).

    Returns:
        u (..., 3), see :func:`flowprior.rotations.matrix_to_chart`, and (..., 3, 3).
    """
    rotvec = matrix_to_rotvec(matrix)
    square = rotvec.square().sum(dim=-1, keepdim=True)
    angle = square.clamp(min=1e-8).sqrt()
    near = square < 1e-2
    length = (6 * (angle - torch.sin(angle))).clamp(min=1e-20).pow(1 / 3)
    # Series of (6 (t - sin t))^(1/3) / t: the difference cancels.
    series = 1 - square / 60 + square.square() / 25200
    ratio = torch.where(near, series, length / angle)
    slope = 2 * (1 - torch.cos(angle)) / length.square()
    bend = torch.where(near, -1 / 30 + square / 6300, (slope - ratio) / square.clamp(min=1e-8))
    outer = rotvec[..., :, None] * rotvec[..., None, :]
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    derivative = ratio[..., None] * identity + bend[..., None] * outer
    return ratio * rotvec, derivative @ inverse_right_jacobian(rotvec)
