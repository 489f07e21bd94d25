"""A flow together with the weights it had at one moment."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flowprior.flow.stack import FlowStack

__all__ = ["HeldFlow"]


class HeldFlow:
    """The methods of a flow, computed with the weight tensors it has when this is created.

    ``torch.func.functional_call`` lends a module other tensors for the duration of one call. An
    object that outlives the call and reads the weights later, as a posterior does, would find the
    module's own again: the context projected with one set of weights, the steps run with another.

    Changes in place, such as those of an optimiser, reach the held tensors too.

    Args:
        flow: The flow.
    """

    def __init__(self, flow: FlowStack) -> None:
        self.flow = flow
        self._tensors = list(_tensors_of(flow))

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
        pairs = zip(self._tensors, _tensors_of(self.flow), strict=True)
        if all(held is own for held, own in pairs):
            return getattr(self.flow, method)(*args, **kwargs)
        lent = {
            f"flow.{prefix}{name}": tensor
            for (prefix, name), tensor in zip(_names_in(self.flow), self._tensors, strict=True)
            if tensor is not None
        }
        return functional_call(_Method(self.flow), lent, (method, *args), kwargs)


class _Method(nn.Module):
    """Any method of a flow as the ``forward`` that ``functional_call`` takes."""

    def __init__(self, flow: FlowStack) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return getattr(self.flow, method)(*args, **kwargs)


# Several times faster than named_parameters and named_buffers, for every call pays for it.


def _tensors_of(flow: FlowStack) -> Iterator[Tensor | None]:
    for module in flow.modules():
        yield from module._parameters.values()
        yield from module._buffers.values()


def _names_in(flow: FlowStack) -> Iterator[tuple[str, str]]:
    """Prefix and name of each tensor, in the same order."""
    for path, module in flow.named_modules():
        for name in (*module._parameters, *module._buffers):
            yield f"{path}." if path else "", name
