"""Coupling layers: one half of the features is moved by a function of the other half."""

import torch
from torch import Tensor, nn

from flowprior.flow.conditioner import Conditioner

__all__ = ["AdditiveCoupling"]


class AdditiveCoupling(nn.Module):
    """Volume-preserving coupling: the moving half is shifted by m(resting half, context).

    Args:
        features: Number of features D, at least 2.
        context_features: Width C of the context; 0 for none.
        hidden_features: Width H of the conditioner.
        num_blocks: Residual blocks of the conditioner.
        odd_moves: Whether features 1, 3, 5, ... move (and 0, 2, 4, ... rest), or the reverse.
        batch_norm: Batch norm inside the conditioner.
        dropout: Dropout probability inside the conditioner.

    References:
        Dinh et al., *NICE: Non-linear Independent Components Estimation*, 2014;
        https://arxiv.org/abs/1410.8516.
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        hidden_features: int,
        num_blocks: int,
        *,
        odd_moves: bool,
        batch_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.odd_moves = odd_moves
        even, odd = (features + 1) // 2, features // 2
        self.conditioner = Conditioner(
            even if odd_moves else odd,
            odd if odd_moves else even,
            context_features,
            hidden_features,
            num_blocks,
            batch_norm=batch_norm,
            dropout=dropout,
        )

    def forward(self, x: Tensor, projected: Tensor) -> Tensor:
        """Data to latent; the log-determinant is zero.

        Args:
            x: (..., D).
            projected: The conditioner's projected context, broadcasting against (..., H).

        Returns:
            (..., D).
        """
        return self._shift(x, projected, 1)

    def inverse(self, y: Tensor, projected: Tensor) -> Tensor:
        """Latent to data, arguments as in :meth:`forward`."""
        return self._shift(y, projected, -1)

    def _shift(self, x: Tensor, projected: Tensor, sign: int) -> Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        if self.odd_moves:
            odd = odd + sign * self.conditioner(even, projected)
        else:
            even = even + sign * self.conditioner(odd, projected)
        return _interleave(even, odd)


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """(..., ceil(D / 2)) and (..., floor(D / 2)) -> (..., D)."""
    size = odd.shape[-1]
    pairs = torch.stack((even[..., :size], odd), dim=-1).flatten(start_dim=-2)
    return torch.cat((pairs, even[..., size:]), dim=-1) if even.shape[-1] > size else pairs
