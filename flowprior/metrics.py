"""Errors of 3D joints: MPJPE, PA-MPJPE and the best of n samples; and calibration.

Lengths come out in the unit they went in with: metres, everywhere else in this library.
"""

import roma
import torch
from torch import Tensor

from flowprior.calibration import (
    JointCalibration,
    calibration_error,
    coverage,
    energy_score,
    expected_calibration_error,
    latent_pit,
    sample_spread,
)

__all__ = [
    "JointCalibration",
    "best_of_n",
    "calibration_error",
    "coverage",
    "energy_score",
    "expected_calibration_error",
    "latent_pit",
    "mpjpe",
    "pa_mpjpe",
    "sample_spread",
]


def mpjpe(pred: Tensor, target: Tensor) -> Tensor:
    """Mean per-joint position error: the mean over the joints of the Euclidean distance.

    Nothing is aligned here: subtract the root joint first where the protocol says so.

    Args:
        pred: (..., J, 3), in metres.
        target: (..., J, 3), in metres. Each leading axis has the size it has in ``pred``, or 1 on
            either side: samples (B, n, J, 3) are compared with ``target[:, None]``.

    Returns:
        (...), in metres.

    Raises:
        ValueError: The shapes are not (..., J, 3), do not match, or are not of floating point.

    References:
        Ionescu et al., *Human3.6M: Large Scale Datasets and Predictive Methods for 3D Human
        Sensing in Natural Environments*, 2014, equation 8.
    """
    _check_joints(pred, target)
    distance: Tensor = torch.linalg.vector_norm(pred - target, dim=-1)
    return distance.mean(dim=-1)


def pa_mpjpe(pred: Tensor, target: Tensor) -> Tensor:
    """MPJPE after the similarity (rotation, translation, scale) that best aligns the prediction.

    "Best" is in the least-squares sense, so on a rare pose this error can exceed the MPJPE. The
    rotation is proper: a mirrored pose stays mirrored. Where no pose can be aligned because all
    joints of ``pred`` coincide, they are moved to the mean of the target. The registration runs in
    float64 whatever the dtype of the input.

    Args:
        pred: (..., J, 3), in metres.
        target: (..., J, 3), in metres. Leading axes as in ``mpjpe``.

    Returns:
        (...), in metres, in the dtype ```mpjpe``` would give.

    Raises:
        ValueError: The shapes are not (..., J, 3), do not match, or are not of floating point.

    References:
        Umeyama, *Least-Squares Estimation of Transformation Parameters Between Two Point
        Patterns*, 1991; solved by ``roma.rigid_vectors_registration``
        after centring.
    """
    _check_joints(pred, target)
    dtype = torch.promote_types(pred.dtype, target.dtype)
    shape = torch.broadcast_shapes(pred.shape, target.shape)
    x, y = pred.double().expand(shape), target.double().expand(shape)
    if x.numel() == 0:
        return mpjpe(pred, target)
    x = x - x.mean(dim=-2, keepdim=True)
    y = y - y.mean(dim=-2, keepdim=True)
    # Joints that coincide differ by rounding only. Anything may stand in for them below: their
    # place in the result is the mean of the target, and no gradient meets 0 / 0.
    spread = x.square().sum(dim=(-2, -1), keepdim=True)
    coincide = spread <= 1e-24 * pred.double().square().sum(dim=(-2, -1), keepdim=True)
    x = torch.where(coincide, torch.ones_like(x), x)
    rotation, scale = roma.rigid_vectors_registration(x, y, compute_scaling=True)
    aligned = scale[..., None, None] * x @ rotation.mT
    aligned = torch.where(coincide, torch.zeros_like(x), aligned)
    return mpjpe(aligned, y).to(dtype)


def best_of_n(errors: Tensor, n: int) -> Tensor:
    """Smallest error among the first n samples: an oracle, since it takes the truth to pick one.

    Args:
        errors: (..., N) errors of N samples, in any unit.
        n: How many samples to look at, 1 to N.

    Returns:
        (...), in the unit of ``errors``.

    Raises:
        ValueError: ``n`` is outside 1..N, or ``errors`` has no sample axis.
    """
    if errors.ndim == 0:
        raise ValueError("expected errors of shape (..., N) with a sample axis, got a scalar")
    if not 1 <= n <= errors.shape[-1]:
        raise ValueError(f"expected n from 1 to the {errors.shape[-1]} samples given, got {n}")
    return errors[..., :n].amin(dim=-1)


def _check_joints(pred: Tensor, target: Tensor) -> None:
    for name, joints in (("pred", pred), ("target", target)):
        if joints.ndim < 2 or joints.shape[-1] != 3 or joints.shape[-2] == 0:
            raise ValueError(
                f"expected {name} of shape (..., J, 3) with at least one joint, "
                f"got {tuple(joints.shape)}"
            )
        if not joints.is_floating_point():
            raise ValueError(f"expected {name} of a floating-point dtype, got {joints.dtype}")
    # One axis too few would broadcast a batch against itself without a word.
    fits = pred.ndim == target.ndim and pred.shape[-2] == target.shape[-2]
    sizes = zip(pred.shape, target.shape, strict=False)
    if not fits or any(a != b and 1 not in (a, b) for a, b in sizes):
        raise ValueError(
            "expected pred and target of the same shape (..., J, 3), up to leading axes of size "
            f"1, got {tuple(pred.shape)} and {tuple(target.shape)}"
        )
