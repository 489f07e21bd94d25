"""Full precision under autocast and for half-precision input."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["at_least_float32", "in_full_precision", "without_autocast"]

P = ParamSpec("P")
T = TypeVar("T")


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast for this type of device."""
    # torch 2.5 cannot compile is_autocast_available; all devices that compile have autocast.
    if torch.compiler.is_compiling() or torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def at_least_float32(value: Tensor) -> Tensor:
    """Convert to float32, unless the tensor is float64. Integers become float32."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def in_full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: compute a function of tensors in float32 or better, also under autocast.

    The function receives all tensors in one dtype; half precision and integers become float32. If
    it returns a tensor, the result is converted to the dtype of the input: the widest
    floating-point dtype among the arguments, float32 if all are integers.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        if not tensors:
            return function(*args, **kwargs)
        dtypes = {each.dtype for each in tensors if each.is_floating_point()}
        dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else torch.float32
        wide = torch.promote_types(dtype, torch.float32)
        raised: Any = [_raised(each, wide) for each in args]
        named: Any = {name: _raised(each, wide) for name, each in kwargs.items()}
        with without_autocast(tensors[0].device):
            result = function(*raised, **named)
        return cast(T, result.to(dtype)) if isinstance(result, Tensor) else result

    return wrapped


def _raised(value: object, dtype: torch.dtype) -> object:
    return value.to(dtype) if isinstance(value, Tensor) and not value.is_complex() else value
