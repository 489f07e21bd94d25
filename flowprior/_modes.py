"""Tensors that outlive the PyTorch mode in which they are created, such as inference mode."""

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["lasting", "outside_inference_mode"]


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
