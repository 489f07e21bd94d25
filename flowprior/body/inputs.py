"""Conversion of the arguments of a body."""

import torch
from torch import Tensor

from flowprior._checks import require_like, require_tensor

__all__ = ["as_model", "spread"]


def as_model(name: str, value: Tensor, like: Tensor) -> Tensor:
    """Convert to the dtype of the model; ValueError for another device or a wider dtype."""
    require_tensor(name, value)
    return require_like(name, value, like.dtype, like.device)


def spread(name: str, value: Tensor, shape: torch.Size, width: int) -> Tensor:
    """Expand (*batch, width) to (*batch, *extra, width) for poses of shape (*batch, *extra)."""
    given = value.shape[:-1]
    fits = value.ndim and value.shape[-1] == width and len(given) <= len(shape)
    if not fits or any(a not in (1, b) for a, b in zip(given, shape, strict=False)):
        batch = ", ".join(map(str, shape))
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; for poses of shape ({batch}) accepted are "
            f"({width},) and leading axes of the poses followed by {width}"
        )
    inserted = value.reshape(*given, *(1,) * (len(shape) - len(given)), width)
    return inserted.expand(*shape, width)
