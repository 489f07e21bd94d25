"""Balls around normal vectors: the radius of a probability, and the probability of a radius.

The squared length of a normal vector is approximately a scaled chi-square variable with the same
mean and variance, and the cube root of that approximately normal.

References:
    Wilson and Hilferty, *The distribution of chi-square*, 1931.
"""

import torch
from torch import Tensor

__all__ = ["ball_radius", "ball_share"]


def ball_radius(covariance: Tensor, level: float) -> Tensor:
    """Radii (...) of balls that contain a normal vector with a probability.

    Args:
        covariance: (..., 3, 3), in squared units of the radius.
        level: The probability.

    Raises:
        ValueError: If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    mean, part = _moments(covariance)
    normal = torch.special.ndtri(torch.tensor(level, dtype=torch.float64)).to(mean)
    square = mean * (1 - part + normal * part.sqrt()).clamp(min=0).pow(3)
    return square.sqrt()


def ball_share(covariance: Tensor, radius: float) -> Tensor:
    """Probabilities (...) with which normal vectors are shorter than a radius.

    Args:
        covariance: (..., 3, 3), in squared units of the radius.
        radius: The radius, above 0.
    """
    mean, part = _moments(covariance)
    root = (radius**2 / mean.clamp(min=1e-30)).pow(1 / 3)
    share = torch.special.ndtr((root - 1 + part) / part.sqrt())
    return torch.where(mean > 0, share, 1.0)


def _moments(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the squared length, and 2 / (9 n) for n degrees of freedom."""
    mean = covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    variance = 2 * covariance.square().sum(dim=(-2, -1))
    degrees = 2 * mean.square() / variance.clamp(min=1e-30)
    return mean, 2 / (9 * degrees.clamp(min=1e-6))
