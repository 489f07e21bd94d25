"""Coupling layers: half of the features parametrises a map of the other half."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from flowprior.flow.anchored_conditioner import AnchoredConditioner
from flowprior.flow.conditioner import Conditioner
from flowprior.flow.spline import rational_quadratic_spline

__all__ = [
    "COUPLINGS",
    "AdditiveCoupling",
    "AffineCoupling",
    "ContractingCoupling",
    "Coupling",
    "SplineCoupling",
]


class Coupling(nn.Module, ABC):
    """Keeps half of the features and maps the other half, given the first and the context.

    Args:
        features: Number of features D, at least 2.
        context_features: Width C of the context; 0 for none.
        hidden_features: Width H of the conditioner.
        num_blocks: Residual blocks of the conditioner.
        odd_moves: Whether features 1, 3, 5, ... are mapped and 0, 2, 4, ... kept, or the reverse.
        batch_norm: Batch norm inside the conditioner.
        dropout: Dropout probability inside the conditioner.
        anchored: Whether the conditioner is an :class:`AnchoredConditioner`, so that the coupling
            maps the origin to the origin in every context.

    Attributes:
        keeps_volume: Whether the log-determinant is always zero.
        expands: Whether the log-determinant can be positive.

    Raises:
        ValueError: If the conditioner is anchored, and has batch norm or dropout.
    """

    keeps_volume: ClassVar[bool] = False
    expands: ClassVar[bool] = True
    numbers_per_feature: ClassVar[int]

    def __init__(
        self,
        features: int,
        context_features: int,
        hidden_features: int,
        num_blocks: int,
        *,
        odd_moves: bool,
        batch_norm: bool = False,
        dropout: float = 0.0,
        anchored: bool = False,
    ) -> None:
        super().__init__()
        self.odd_moves = odd_moves
        even, odd = (features + 1) // 2, features // 2
        rests, moves = (even, odd) if odd_moves else (odd, even)
        out_features = moves * self.numbers_per_feature
        sizes = (rests, out_features, context_features, hidden_features, num_blocks)
        self.conditioner: Conditioner | AnchoredConditioner
        if not anchored:
            self.conditioner = Conditioner(*sizes, batch_norm=batch_norm, dropout=dropout)
        elif batch_norm or dropout:
            raise ValueError("an anchored conditioner has neither batch norm nor dropout")
        else:
            self.conditioner = AnchoredConditioner(*sizes)

    def forward(
        self, x: Tensor, projected: Tensor, free: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map data to latent.

        Args:
            x: (..., D).
            projected: The conditioner's projected context, broadcasting against (..., H).
            free: 0 for features that are held at 0, 1 for the others, broadcasting against
                (..., D); only with an anchored conditioner.

        Returns:
            ``y`` (..., D) and the log-determinant (...), or () if it is always zero.
        """
        return self._couple(x, projected, free, inverse=False)

    def inverse(
        self, y: Tensor, projected: Tensor, free: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map latent to data: ``x`` (..., D) and the log-determinant of the inverse map."""
        return self._couple(y, projected, free, inverse=True)

    @classmethod
    @abstractmethod
    def move(cls, moving: Tensor, numbers: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map features (..., M) with parameters (..., M, P); also returns the log-determinant."""

    def _couple(
        self, x: Tensor, projected: Tensor, free: Tensor | None, *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        even, odd = x[..., 0::2], x[..., 1::2]
        resting, moving = (even, odd) if self.odd_moves else (odd, even)
        numbers = self.conditioner(resting, projected)
        numbers = numbers.unflatten(-1, (moving.shape[-1], self.numbers_per_feature))
        if free is not None:  # a coupling whose parameters are 0 changes nothing
            numbers = numbers * free[..., int(self.odd_moves) :: 2, None]
        moved, log_abs_det = self.move(moving, numbers, inverse=inverse)
        even, odd = (even, moved) if self.odd_moves else (moved, odd)
        return _interleave(even, odd), log_abs_det


class AdditiveCoupling(Coupling):
    """Shifts the mapped half, which preserves volume.

    References:
        Dinh et al., *NICE: Non-linear Independent Components Estimation*, 2014;
        https://arxiv.org/abs/1410.8516.
    """

    keeps_volume = True
    expands = False
    numbers_per_feature = 1

    @classmethod
    def move(cls, moving: Tensor, numbers: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Shift; the log-determinant is the scalar zero."""
        shift = numbers[..., 0]
        return moving - shift if inverse else moving + shift, moving.new_zeros(())


class AffineCoupling(Coupling):
    """Scales the mapped half by a factor between exp(-2) and exp(2), and shifts it.

    References:
        Dinh et al., *Density estimation using Real NVP*, 2016; https://arxiv.org/abs/1605.08803.
    """

    numbers_per_feature = 2
    max_log_scale = 2.0

    @classmethod
    def move(cls, moving: Tensor, numbers: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        log_scale, shift = numbers.unbind(dim=-1)
        log_scale = cls.max_log_scale * torch.tanh(log_scale / cls.max_log_scale)
        log_abs_det = log_scale.sum(dim=-1)
        if inverse:
            return (moving - shift) * torch.exp(-log_scale), -log_abs_det
        return moving * log_scale.exp() + shift, log_abs_det


class ContractingCoupling(Coupling):
    """Scales the mapped half by a factor between exp(-2) and 1, and shifts it.

    The factor is 1 where the conditioner's output is 0, so with an anchored conditioner the
    log-determinant has its maximum, 0, at the origin.
    """

    expands = False
    numbers_per_feature = 2
    max_log_scale = 2.0

    @classmethod
    def move(cls, moving: Tensor, numbers: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        number, shift = numbers.unbind(dim=-1)
        log_scale = -cls.max_log_scale * torch.tanh(number.square() / cls.max_log_scale)
        log_abs_det = log_scale.sum(dim=-1)
        if inverse:
            return (moving - shift) * torch.exp(-log_scale), -log_abs_det
        return moving * log_scale.exp() + shift, log_abs_det


class SplineCoupling(Coupling):
    """Maps each feature of one half by a monotone rational-quadratic spline.

    References:
        Durkan et al., *Neural Spline Flows*, 2019; https://arxiv.org/abs/1906.04032.
    """

    num_bins = 8
    numbers_per_feature = 3 * num_bins - 1

    @classmethod
    def move(cls, moving: Tensor, numbers: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Apply one spline to each feature."""
        moved, log_derivative = rational_quadratic_spline(moving, numbers, inverse=inverse)
        return moved, log_derivative.sum(dim=-1)


COUPLINGS: dict[str, type[Coupling]] = {
    "additive": AdditiveCoupling,
    "affine": AffineCoupling,
    "contracting": ContractingCoupling,
    "spline": SplineCoupling,
}


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """(..., ceil(D / 2)) and (..., floor(D / 2)) -> (..., D)."""
    size = odd.shape[-1]
    pairs = torch.stack((even[..., :size], odd), dim=-1).flatten(start_dim=-2)
    return torch.cat((pairs, even[..., size:]), dim=-1) if even.shape[-1] > size else pairs
