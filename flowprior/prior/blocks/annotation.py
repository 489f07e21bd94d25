"""Poses that a data set repeats, such as those of hands that were not captured."""

import torch
from torch import Tensor

from flowprior._checks import require_count, require_tensor

__all__ = ["repeated_poses"]

# More than the eight cameras of FreiHAND, which see the same pose.
REPEATS = 20
# Captured rotations differ by more than this from frame to frame.
TOLERANCE = 1e-4


def repeated_poses(theta: Tensor, repeats: int = REPEATS) -> Tensor:
    """Poses that occur so often that they are a placeholder, not a capture.

    Motion capture without gloves, such as most of AMASS, has the same hands in every frame: flat
    ones, or the mean pose. A prior that is trained on them learns that hands do not move. Captured
    poses differ in their last digits.

    Args:
        theta: (N, ...), one pose per row, all in the same form. Rows with NaN count as repeated.
        repeats: Number of rows that must agree, to 1e-4; all rows of a data set that has fewer.

    Returns:
        (N,) bool. False for the only pose of a data set of one.

    Raises:
        TypeError: If theta is not a tensor.
        ValueError: If it has no axis of poses, or ``repeats`` is less than 2.

    References:
        Issue 28 of ``nghorbani/amass``: hands that do not move.
    """
    require_tensor("theta", theta)
    require_count("repeats", repeats, 2)
    if theta.ndim < 1:
        raise ValueError(f"theta must be (N, ...), one pose per row, got {tuple(theta.shape)}")
    rows = theta.detach().reshape(len(theta), theta[:1].numel() if len(theta) else 0)
    missing = rows.isnan().any(dim=-1)
    if not rows.shape[-1]:
        return missing
    numbers = (rows.nan_to_num() / TOLERANCE).round().to(torch.int64)
    _, which, counts = numbers.unique(dim=0, return_inverse=True, return_counts=True)
    return missing | (counts[which] >= max(2, min(repeats, len(theta))))
