"""The network that diffusion and flow matching train."""

import math

import torch
from torch import Tensor, nn

__all__ = ["TimedNetwork"]

FREQUENCIES = 16


class TimedNetwork(nn.Module):
    """Residual network of vectors and a time.

    Args:
        inputs: Width of the vectors.
        outputs: Width of the result.
        hidden: Width of the layers.
        blocks: Number of residual blocks of two layers.
    """

    frequencies: Tensor

    def __init__(self, inputs: int, outputs: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2 ** torch.linspace(-1, 6, FREQUENCIES))
        self.input = nn.Linear(inputs, hidden)
        self.times = nn.Linear(2 * FREQUENCIES, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(blocks))
        self.first = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.moments = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Vectors (n, inputs) and times (n, 1) from 0 to 1 -> (n, outputs)."""
        phase = time * self.frequencies
        when = self.times(torch.cat((phase.sin(), phase.cos()), dim=-1))
        when = nn.functional.silu(when)
        h = self.input(x) + when
        for norm, first, moment, second in zip(
            self.norms, self.first, self.moments, self.second, strict=True
        ):
            inner = nn.functional.silu(first(norm(h)) + moment(when))
            h = h + second(inner)
        out: Tensor = self.output(nn.functional.silu(h))
        return out
