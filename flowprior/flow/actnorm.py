"""ActNorm: elementwise scale and shift, initialised from the first batch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ActNorm"]

MIN_STD = 1e-3
# Bound of the context's terms: a factor of exp(3) = 20 in scale, 3 standard deviations in shift.
CONTEXT_BOUND = 3.0


class ActNorm(nn.Module):
    r"""Elementwise affine bijection :math:`y = \exp(s) \odot x + t`.

    The first training batch that runs forward (data to latent) sets ``s`` and ``t`` so that its
    output has zero mean and unit variance in every feature. Until then the map is the identity.
    A batch of fewer than two rows has no variance and does not change the map. Evaluation and the
    inverse direction never initialise it.

    With a context, ``s`` and ``t`` each gain a term that is linear in the context, bounded by
    ``CONTEXT_BOUND`` through a hyperbolic tangent, and initially zero. The log-determinant then
    depends on the context, but not on x.

    Without a shift, the map keeps the origin, and the first batch sets ``s`` so that the mean
    square of every feature is one.

    Args:
        features: Number of features D.
        context_features: Width C of the context that moves scale and shift; 0 for none.
        shift: Whether there is a shift.

    Attributes:
        log_scale: s, shape (D,).
        shift: t, shape (D,), or None.
        context_weight: Weight (2 D, C) of the context's terms, log-scales first, or None; (D, C)
            without a shift.
        initialized: Boolean buffer, shape (), saved with the weights.

    References:
        Kingma and Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*, 2018;
        https://arxiv.org/abs/1807.03039. The context's terms are the affine injector of Lugmayr et
        al., *SRFlow: Learning the Super-Resolution Space with Normalizing Flow*, 2020, made linear
        in the context; https://arxiv.org/abs/2006.14200.
    """

    initialized: Tensor

    def __init__(self, features: int, context_features: int = 0, *, shift: bool = True) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features)) if shift else None
        terms = 2 * features if shift else features
        self.context_weight = (
            nn.Parameter(torch.zeros(terms, context_features)) if context_features else None
        )
        self.register_buffer("initialized", torch.tensor(False))
        # Reading the buffer synchronises with the device, so a True is remembered.
        self._seen_initialized = False

    def is_initialized(self) -> bool:
        """Whether scale and shift were initialised, from a batch or from saved weights."""
        if self._seen_initialized or self.initialized.is_meta:
            return self._seen_initialized
        initialized = bool(self.initialized)
        # Weights substituted by functional_call say nothing about the layer's own.
        self._seen_initialized = initialized and self._has_own_weights
        return initialized

    def was_changed(self) -> bool:
        """Whether scale or shift differ from those of a new layer."""
        if self.log_scale.is_meta:
            return False
        return bool(self.log_scale.any()) or (self.shift is not None and bool(self.shift.any()))

    @property
    def _has_own_weights(self) -> bool:
        return isinstance(self.log_scale, nn.Parameter)

    def project_context(self, context: Tensor) -> Tensor | None:
        """The context's terms (..., 2 D), log-scales first; None for a layer without context.

        Without a shift they are (..., D).
        """
        if self.context_weight is None:
            return None
        terms = F.linear(context.to(self.context_weight.dtype), self.context_weight)
        return self.bounded(terms.to(context.dtype))

    @staticmethod
    def bounded(terms: Tensor) -> Tensor:
        """Bound the context's terms to plus or minus ``CONTEXT_BOUND``."""
        return CONTEXT_BOUND * torch.tanh(terms / CONTEXT_BOUND)

    def forward(
        self, x: Tensor, projected: Tensor | None = None, free: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map data to latent.

        Args:
            x: (..., D).
            projected: From :meth:`project_context`, broadcasting against (..., 2 D).
            free: 0 for features that are held at 0, 1 for the others, broadcasting against
                (..., D); only for a layer without a shift.

        Returns:
            ``y`` (..., D) and the log-determinant, () or the leading shape of ``projected``.
        """
        if self.training and not self.is_initialized():
            self._initialize(x, free)
        log_scale, shift = self._scale_and_shift(x.dtype, projected)
        y = x * log_scale.exp()
        return y if shift is None else y + shift, _sum(log_scale, free)

    def inverse(self, y: Tensor, projected: Tensor | None = None) -> Tensor:
        """Map latent to data, y (..., D) -> x (..., D); ``projected`` as in :meth:`forward`."""
        log_scale, shift = self._scale_and_shift(y.dtype, projected)
        return (y if shift is None else y - shift) * torch.exp(-log_scale)

    def log_abs_det(
        self, dtype: torch.dtype, projected: Tensor | None = None, free: Tensor | None = None
    ) -> Tensor:
        """Log-determinant of the forward map, () or the leading shape of ``projected``."""
        return _sum(self._scale_and_shift(dtype, projected)[0], free)

    def _scale_and_shift(
        self, dtype: torch.dtype, projected: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        log_scale = self.log_scale.to(dtype)
        if self.shift is None:
            return log_scale if projected is None else log_scale + projected, None
        shift = self.shift.to(dtype)
        if projected is None:
            return log_scale, shift
        log_scale_term, shift_term = projected.chunk(2, dim=-1)
        return log_scale + log_scale_term, shift + shift_term

    @torch.no_grad()
    def _initialize(self, x: Tensor, free: Tensor | None) -> None:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) < 2 or rows.is_meta:
            return
        if not self._has_own_weights:
            raise RuntimeError(
                "ActNorm cannot be initialised inside torch.func.functional_call, which replaces "
                "its weights: run one training batch through the model itself first"
            )
        if self.shift is None:
            size = rows.square().mean(dim=0)
            if free is not None:
                share = free.expand(x.shape).reshape(rows.shape).mean(dim=0)
                # A feature that is held throughout the batch keeps the scale 1.
                size = torch.where(share > 0, size / share, 1.0)
            self.log_scale.copy_(-size.sqrt().clamp(min=MIN_STD).log())
        else:
            std = rows.std(dim=0).clamp(min=MIN_STD)
            self.log_scale.copy_(-std.log())
            self.shift.copy_(-(rows / std).mean(dim=0))
        self.initialized.fill_(True)
        self._seen_initialized = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super()._load_from_state_dict(*args, **kwargs)
        self._seen_initialized = False


def _sum(log_scale: Tensor, free: Tensor | None) -> Tensor:
    """Sum of the log-scales (..., D) of the features that are not held."""
    return (log_scale if free is None else log_scale * free).sum(dim=-1)
