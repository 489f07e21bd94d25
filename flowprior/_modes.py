"""PyTorch's modes: tensors that outlive inference mode, and whether a program is exported."""

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["is_exporting", "lasting", "outside_inference_mode"]


def is_exporting() -> bool:
    """Whether a program is exported; before torch 2.7, whether anything is compiled or exported."""
    asked = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(asked())


def outside_inference_mode() -> contextlib.AbstractContextManager[object]:
    """A context without inference mode, for calls that cache tensors.

    roma 1.8 caches a constant in its first call. If it were created in inference mode, it would
    prevent all later gradients through it.
    """
    inference = torch.is_inference_mode_enabled()
    return torch.inference_mode(False) if inference else contextlib.nullcontext()


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """A context for creating tensors that later calls use, such as loaded weights and caches.

    A tensor created in inference mode can never take part in autograd. Tensors created in this
    context can, whatever the mode of the caller. It also works as a decorator.
    """
    with outside_inference_mode(), torch.no_grad():
        yield
