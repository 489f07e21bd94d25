"""The network that computes coupling terms which vanish at the origin."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprior.flow.conditioner import OUTPUT_INIT

__all__ = ["AnchoredConditioner"]


class AnchoredConditioner(nn.Module):
    r"""Residual network m(x, c) with m(0, c) = 0, exactly, for every context.

    Each layer adds :math:`\mathrm{relu}(A h + p(c)) - \mathrm{relu}(p(c))`, which is 0 at h = 0.
    The thresholds p(c) are linear in the context. No other layer has a bias.

    Args:
        in_features: Width of x.
        out_features: Width of the output.
        context_features: Width C of the context; 0 for none.
        hidden_features: Width H of the network.
        num_blocks: Number of residual layers after the first layer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        context_features: int,
        hidden_features: int,
        num_blocks: int,
    ) -> None:
        super().__init__()
        self.input = nn.Linear(in_features, hidden_features, bias=False)
        self.blocks = nn.ModuleList(
            nn.Linear(hidden_features, hidden_features, bias=False) for _ in range(num_blocks)
        )
        self.output = nn.Linear(hidden_features, out_features, bias=False)
        thresholds = (1 + num_blocks) * hidden_features
        self.threshold = nn.Parameter(torch.empty(thresholds))
        self.context_weight = (
            nn.Parameter(torch.empty(thresholds, context_features)) if context_features else None
        )
        bound = 1 / math.sqrt(max(context_features, 1))
        for part in (self.threshold, self.context_weight):
            if part is not None:
                nn.init.uniform_(part, -bound, bound)
        bound = OUTPUT_INIT / math.sqrt(hidden_features)
        nn.init.uniform_(self.output.weight, -bound, bound)

    def project_context(self, context: Tensor) -> Tensor:
        """Compute the thresholds of all layers.

        Args:
            context: (..., C).

        Returns:
            (..., (1 + num_blocks) H).
        """
        dtype = self.threshold.dtype
        if self.context_weight is None:
            return self.threshold.expand(*context.shape[:-1], -1)
        return F.linear(context.to(dtype), self.context_weight, self.threshold)

    def forward(self, x: Tensor, projected: Tensor) -> Tensor:
        """Compute the coupling terms.

        Args:
            x: (..., in_features).
            projected: From :meth:`project_context`, broadcasting against
                (..., (1 + num_blocks) H).

        Returns:
            (..., out_features), in the dtype of x; exactly 0 where x is 0.
        """
        weights = [cast(nn.Linear, block).weight for block in self.blocks]
        return anchored_network(x, projected, self.input.weight, weights, self.output.weight).to(
            x.dtype
        )


def anchored_network(
    x: Tensor, projected: Tensor, first: Tensor, blocks: list[Tensor], last: Tensor
) -> Tensor:
    """Evaluate the network with the given weights, in their dtype.

    Args:
        x: (..., in_features).
        projected: Thresholds of all layers, broadcasting against (..., (1 + len(blocks)) H).
        first: (H, in_features).
        blocks: Weights (H, H) of the residual layers.
        last: (out_features, H).

    Returns:
        (..., out_features), in the dtype of the weights.
    """
    thresholds = projected.to(first.dtype).chunk(1 + len(blocks), dim=-1)
    hidden = _rise(F.linear(x.to(first.dtype), first), thresholds[0])
    for weight, threshold in zip(blocks, thresholds[1:], strict=True):
        hidden = hidden + _rise(F.linear(hidden, weight), threshold)
    return F.linear(hidden, last)


def _rise(value: Tensor, threshold: Tensor) -> Tensor:
    """relu(value + threshold) - relu(threshold)."""
    return (value + threshold).relu() - threshold.relu()
