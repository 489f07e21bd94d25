"""ActNorm: elementwise scale and shift that start from the statistics of the first batch."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ActNorm"]

MIN_STD = 1e-3


class ActNorm(nn.Module):
    r"""Elementwise affine bijection :math:`y = \exp(s) \odot x + t`.

    The first training batch that runs forward (data to latent) sets ``s`` and ``t`` so that its
    output has zero mean and unit variance in every feature. Until then the map is the identity.
    A batch of fewer than two rows has no variance and leaves the map as it is. Evaluation and the
    inverse direction never initialise anything.

    Args:
        features: Number of features D.

    Attributes:
        log_scale: s, shape (D,).
        shift: t, shape (D,).
        initialized: Boolean buffer, shape (), saved with the weights.

    References:
        Kingma and Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*, 2018;
        https://arxiv.org/abs/1807.03039.
    """

    initialized: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.register_buffer("initialized", torch.tensor(False))
        # Reading the buffer waits for the device; once it was seen True nobody needs to look again.
        self._seen_initialized = False

    def is_initialized(self) -> bool:
        """Whether scale and shift have been set, from a batch or from saved weights."""
        if not self._seen_initialized and not self.initialized.is_meta:
            self._seen_initialized = bool(self.initialized)
        return self._seen_initialized

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent.

        Args:
            x: (..., D).

        Returns:
            ``y`` (..., D) and the log-determinant (), the same for every row.
        """
        if self.training and not self.is_initialized():
            self._initialize(x.detach())
        y = x * self.log_scale.to(x.dtype).exp() + self.shift
        return y, self.log_abs_det(x.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """Latent to data: y (..., D) -> x (..., D)."""
        return (y - self.shift) * torch.exp(-self.log_scale.to(y.dtype))

    def log_abs_det(self, dtype: torch.dtype) -> Tensor:
        """Log-determinant of the forward map, shape ()."""
        return self.log_scale.to(dtype).sum()

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) < 2 or rows.is_meta:
            return
        std = rows.std(dim=0).clamp(min=MIN_STD)
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-(rows / std).mean(dim=0))
        self.initialized.fill_(True)
        self._seen_initialized = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super()._load_from_state_dict(*args, **kwargs)
        self._seen_initialized = False
