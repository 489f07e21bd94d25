"""Monotone rational-quadratic splines on an interval, the identity outside it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["rational_quadratic_spline"]

BOUND = 5.0
MIN_BIN = 1e-3
MIN_SLOPE = 1e-3


def rational_quadratic_spline(
    x: Tensor, numbers: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Map each element by its own spline from [-5, 5] onto itself; the identity elsewhere.

    Parameters of zero give the identity.

    Args:
        x: (...).
        numbers: (..., 3 K - 1) unconstrained parameters: K widths, K heights, K - 1 inner slopes.
            The slope at both ends is 1.
        inverse: Apply the inverse map.

    Returns:
        The image (...) and the logarithm (...) of the derivative of the applied map.

    References:
        Durkan et al., *Neural Spline Flows*, 2019, section 3.1; https://arxiv.org/abs/1906.04032.
    """
    bins = (numbers.shape[-1] + 1) // 3
    left, width = _bins(numbers[..., :bins])
    bottom, height = _bins(numbers[..., bins : 2 * bins])
    # softplus(0 + offset) + MIN_SLOPE is 1.
    offset = math.log(math.expm1(1 - MIN_SLOPE))
    slopes = F.pad(F.softplus(numbers[..., 2 * bins :] + offset) + MIN_SLOPE, (1, 1), value=1.0)

    inside = x.abs() < BOUND
    u = torch.where(inside, x, 0.0)
    start = bottom if inverse else left
    index = (u[..., None] >= start[..., 1:]).sum(dim=-1, keepdim=True)

    def pick(values: Tensor) -> Tensor:
        return values.gather(-1, index)[..., 0]

    left, width, bottom, height = map(pick, (left, width, bottom, height))
    slope0, slope1 = pick(slopes[..., :-1]), pick(slopes[..., 1:])
    secant = height / width
    bend = slope0 + slope1 - 2 * secant

    if inverse:
        rise = u - bottom
        a = height * (secant - slope0) + rise * bend
        b = height * slope0 - rise * bend
        c = -secant * rise
        tiny = torch.finfo(x.dtype).tiny
        root = (b.square() - 4 * a * c).clamp(min=tiny).sqrt()
        # This form of the root avoids cancellation where a is near zero; clamp corrects rounding.
        t = (2 * c / (-b - root).clamp(max=-tiny)).clamp(0, 1)
    else:
        t = (u - left) / width
    middle = t * (1 - t)
    below = secant + bend * middle
    slope = slope1 * t.square() + 2 * secant * middle + slope0 * (1 - t).square()
    log_derivative = 2 * secant.log() + slope.log() - 2 * below.log()
    if inverse:
        image, log_derivative = left + t * width, -log_derivative
    else:
        image = bottom + height * (secant * t.square() + slope0 * middle) / below
    return torch.where(inside, image, x), torch.where(inside, log_derivative, 0.0)


def _bins(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Starts and widths (..., K) of bins that partition [-BOUND, BOUND]."""
    bins = numbers.shape[-1]
    size = 2 * BOUND * (MIN_BIN + (1 - MIN_BIN * bins) * numbers.softmax(dim=-1))
    start = F.pad(size.cumsum(dim=-1)[..., :-1], (1, 0)) - BOUND
    return start, size
