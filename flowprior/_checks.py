"""Checks of arguments, with messages for the caller."""

from numbers import Integral

import torch
from torch import Tensor

__all__ = ["require_count", "require_like", "require_tensor", "require_width"]


def require_tensor(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        is_array = isinstance(value, list | tuple) or hasattr(value, "__array__")
        hint = "; torch.as_tensor converts arrays and lists" if is_array else ""
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}{hint}")


def require_width(name: str, value: Tensor, width: int) -> None:
    """Raise ValueError unless ``value`` is (..., width)."""
    require_tensor(name, value)
    if value.ndim == 0 or value.shape[-1] != width:
        raise ValueError(f"{name} must have shape (..., {width}), got {tuple(value.shape)}")


def require_like(name: str, value: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Convert to ``dtype``; ValueError for a wider dtype, integers, or another device."""
    if value.device != device:
        raise ValueError(
            f"{name} is on {value.device}, but the weights are on {device}: move one of them "
            f"({name}.to({str(device)!r}) or model.to({str(value.device)!r}))"
        )
    if not value.is_floating_point():
        raise ValueError(
            f"{name} must be floating point, got {value.dtype}: {name}.to({dtype}) converts it"
        )
    if torch.promote_types(value.dtype, dtype) != dtype:
        raise ValueError(
            f"{name} is {value.dtype}, but the model computes in {dtype}: convert one of them "
            f"({name}.float() or model.double())"
        )
    return value.to(dtype)


def require_count(name: str, value: object, least: int = 0) -> None:
    """Raise ValueError unless ``value`` is an integer (Python or NumPy) of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
