"""A flow bound to the weight tensors it has at one moment."""

import itertools
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flowprior.flow.stack import FlowStack

__all__ = ["HeldFlow"]


class HeldFlow:
    """Calls methods of a flow with the weight tensors that the flow has now.

    ``torch.func.functional_call`` substitutes a module's tensors during one call. A posterior
    outlives that call. Without this class it would project the context with the substituted weights
    and later run the steps with the module's own.

    In-place changes, such as those of an optimiser, also change the held tensors.

    Args:
        flow: The flow.
    """

    def __init__(self, flow: FlowStack) -> None:
        self.flow = flow
        # The dictionaries stay, whatever is put into them: walking the modules takes longer.
        self._homes = [
            home for module in flow.modules() for home in (module._parameters, module._buffers)
        ]
        self._tensors = list(self._own_tensors())

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the flow's arithmetic and results with these weights."""
        return torch.promote_types(self._weight.dtype, torch.float32)

    @property
    def _weight(self) -> Tensor:
        # Those of the steps share one dtype; the temperature, which comes first, may have another.
        found = (each for each in reversed(self._tensors) if each is not None)
        return next(each for each in found if each.is_floating_point())

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Call a method of the flow."""
        if all(map(operator.is_, self._tensors, self._own_tensors())):
            return getattr(self.flow, method)(*args, **kwargs)
        substitutes = {
            f"flow.{prefix}{name}": tensor
            for (prefix, name), tensor in zip(_names_in(self.flow), self._tensors, strict=True)
            if tensor is not None
        }
        return functional_call(_Method(self.flow), substitutes, (method, *args), kwargs)

    def _own_tensors(self) -> Iterator[Tensor | None]:
        """The tensors that the flow has at the moment."""
        return itertools.chain.from_iterable(home.values() for home in self._homes)


class _Method(nn.Module):
    """Exposes any method of a flow as ``forward``, which ``functional_call`` requires."""

    def __init__(self, flow: FlowStack) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return getattr(self.flow, method)(*args, **kwargs)


def _names_in(flow: FlowStack) -> Iterator[tuple[str, str]]:
    """Prefix and name of each tensor, in the same order."""
    for path, module in flow.named_modules():
        for name in (*module._parameters, *module._buffers):
            yield f"{path}." if path else "", name
