"""Filters of each coordinate over time, the usual remedies for jitter."""

import math

import torch
from torch import Tensor


def gaussian(x: Tensor, width: float) -> Tensor:
    """Gaussian smoothing of (F, ...) with a standard deviation in frames."""
    time = torch.arange(len(x), dtype=x.dtype)
    weight = torch.exp(-0.5 * ((time[:, None] - time) / width) ** 2)
    return torch.einsum("ts,s...->t...", weight / weight.sum(dim=1, keepdim=True), x)


def savitzky_golay(x: Tensor, window: float) -> Tensor:
    """Local quadratic fits over an odd number of frames; fewer at the ends."""
    reach, frames = int(window) // 2, len(x)
    result = torch.empty_like(x)
    for t in range(frames):
        some = torch.arange(max(0, t - reach), min(frames, t + reach + 1))
        away = (some - t).to(torch.float64)
        basis = torch.stack([away**power for power in range(min(3, len(some)))], dim=1)
        weight = torch.linalg.pinv(basis)[0].to(x.dtype)
        result[t] = torch.einsum("s,s...->...", weight, x[some])
    return result


def one_euro(x: Tensor, cutoff: float, fps: float = 30.0, beta: float = 1.0) -> Tensor:
    """The One-Euro filter (Casiez et al., 2012), causal.

    Args:
        x: (F, ...) metres.
        cutoff: Least cutoff frequency, Hz.
        fps: Frames per second.
        beta: Growth of the cutoff with the speed, Hz per m/s.
    """

    def share(frequency: Tensor | float) -> Tensor:
        rate = 2 * math.pi * torch.as_tensor(frequency) / fps
        return rate / (rate + 1)

    value, speed, result = x[0], torch.zeros_like(x[0]), [x[0]]
    for now in x[1:]:
        step = share(1.0)
        speed = step * (now - value) * fps + (1 - step) * speed
        part = share(cutoff + beta * speed.abs())
        value = part * now + (1 - part) * value
        result.append(value)
    return torch.stack(result)


def interpolated(x: Tensor) -> Tensor:
    """Fill NaN in (F, K, 3) linearly between known frames; the nearest one at the ends."""
    result = x.clone()
    for joint in range(x.shape[1]):
        known = x[:, joint].isfinite().all(dim=-1).nonzero()[:, 0]
        if not len(known) or len(known) == len(x):
            continue
        time = torch.arange(len(x))
        after = torch.searchsorted(known, time).clamp(max=len(known) - 1)
        before = (torch.searchsorted(known, time, right=True) - 1).clamp(min=0)
        a, b = known[before], known[after]
        part = ((time - a).clamp(min=0) / (b - a).clamp(min=1)).clamp(0, 1)[:, None]
        result[:, joint] = (1 - part) * x[a, joint] + part * x[b, joint]
    return result
