"""The residual network that computes coupling terms from half of the features and the context."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conditioner", "ResidualBlock"]

BLOCK_INIT = 1e-3
OUTPUT_INIT = 0.01

Affine = tuple[Tensor, Tensor]


class Conditioner(nn.Module):
    """Pre-activation residual network m(x, c) whose context enters once, in the first layer.

    The first layer is linear in ``[x; c]``. Its context part has a separate weight:
    :meth:`project_context` computes it once per context, and every later call with that context
    computes only the part of x.

    Args:
        in_features: Width of x.
        out_features: Width of the output.
        context_features: Width C of the context; 0 for none.
        hidden_features: Width H of the network.
        num_blocks: Number of residual blocks, two linear layers each.
        batch_norm: Batch norm before each activation.
        dropout: Dropout probability before the second linear layer of a block.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, supplement,
        Figures 2 and 3, for architecture and initialisation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        context_features: int,
        hidden_features: int,
        num_blocks: int,
        *,
        batch_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input = nn.Linear(in_features, hidden_features)
        self.context_weight = (
            nn.Parameter(torch.empty(hidden_features, context_features))
            if context_features
            else None
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_features, batch_norm=batch_norm, dropout=dropout)
            for _ in range(num_blocks)
        )
        self.output = nn.Linear(hidden_features, out_features)

        # The two parts of the first layer are initialised like one linear layer on [x; c].
        bound = 1 / math.sqrt(max(in_features + context_features, 1))
        for part in (self.input.weight, self.input.bias, self.context_weight):
            if part is not None:
                nn.init.uniform_(part, -bound, bound)
        bound = OUTPUT_INIT / math.sqrt(hidden_features)
        nn.init.uniform_(self.output.weight, -bound, bound)
        nn.init.uniform_(self.output.bias, -bound, bound)

    def project_context(self, context: Tensor) -> Tensor:
        """Compute the context's part of the first layer.

        Args:
            context: (..., C).

        Returns:
            (..., H), or zeros (..., 1) that broadcast for a network without context.
        """
        if self.context_weight is None:
            return context.new_zeros((*context.shape[:-1], 1))
        return F.linear(context.to(self.context_weight.dtype), self.context_weight)

    def forward(self, x: Tensor, projected: Tensor) -> Tensor:
        """Compute the coupling terms.

        Args:
            x: (..., in_features).
            projected: From :meth:`project_context`, broadcasting against (..., H).

        Returns:
            (..., out_features), in the dtype of x.
        """
        dtype = self.input.weight.dtype
        hidden = self.input(x.to(dtype)) + projected
        # Blocks operate on rows: batch norm computes its statistics over all leading axes.
        rows = hidden.reshape(-1, hidden.shape[-1])
        for block in self.blocks:
            rows = block(rows)
        out = self.output(rows)
        return out.reshape(*hidden.shape[:-1], out.shape[-1]).to(x.dtype)


class ResidualBlock(nn.Module):
    """h + A1 dropout(relu(norm(A0 relu(norm(h)))))."""

    def __init__(self, features: int, *, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            _BatchNorm(features) if batch_norm else nn.Identity() for _ in range(2)
        )
        self.linears = nn.ModuleList(nn.Linear(features, features) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        for parameter in self.linears[1].parameters():
            nn.init.uniform_(parameter, -BLOCK_INIT, BLOCK_INIT)

    def folded(self) -> tuple[Affine | None, Affine, Affine]:
        """Fold batch norm for evaluation, in float64.

        Returns:
            The first norm, elementwise, or None without batch norm; the first linear layer with the
            second norm folded into it; the second linear layer. Each is a weight and a bias.
        """
        linears = [cast(nn.Linear, linear) for linear in self.linears]
        inner, outer = (
            (each.weight.detach().double(), each.bias.detach().double()) for each in linears
        )
        first, second = self.norms
        if isinstance(second, _BatchNorm):
            gain, shift = second.as_affine()
            inner = (gain[:, None] * inner[0], gain * inner[1] + shift)
        return first.as_affine() if isinstance(first, _BatchNorm) else None, inner, outer

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, H) -> (N, H)."""
        update = self.linears[0](self.norms[0](rows).relu())
        update = self.linears[1](self.dropout(self.norms[1](update).relu()))
        return rows + update


class _BatchNorm(nn.BatchNorm1d):
    """Batch norm that uses its running statistics for a batch of fewer than two rows."""

    def as_affine(self) -> Affine:
        """Gain and shift of every feature in evaluation mode, in float64."""
        assert self.running_mean is not None
        assert self.running_var is not None
        gain = self.weight.detach().double() / (self.running_var.double() + self.eps).sqrt()
        return gain, self.bias.detach().double() - gain * self.running_mean.double()

    def forward(self, rows: Tensor) -> Tensor:
        if self.training and len(rows) < 2:
            return F.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(rows)
