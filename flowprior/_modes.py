"""PyTorch's global modes: tensors that outlive the mode in which they are made."""

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["lasting", "outside_inference_mode"]


def outside_inference_mode() -> contextlib.AbstractContextManager[object]:
    """A context in which inference mode is off, for calls that keep tensors.

    roma 1.8 keeps a constant from its first call. Made in inference mode, it would prevent every
    later gradient through it.
    """
    inference = torch.is_inference_mode_enabled()
    return torch.inference_mode(False) if inference else contextlib.nullcontext()


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Make tensors that serve later calls, such as loaded weights and caches.

    A tensor made in inference mode can never take part in autograd. What is made here can, whatever
    the mode of the caller. Also a decorator.
    """
    with outside_inference_mode(), torch.no_grad():
        yield
