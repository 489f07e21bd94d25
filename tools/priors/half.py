"""Linear layers that multiply in bfloat16 while they are trained."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprior.flow.anchored_conditioner import AnchoredConditioner

__all__ = ["multiply_in_bfloat16"]


class _Product(torch.autograd.Function):
    """x W^T in bfloat16 with float32 results; sums are in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0].bfloat16()
        below = (grad @ weight).float() if ctx.needs_input_grad[0] else None
        return below, (grad.mT @ x).float()


def _product(x: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = _Product.apply(x, weight)  # type: ignore[no-untyped-call]
    return product


class _HalfLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        product = _product(input, self.weight)
        return product if self.bias is None else product + self.bias


class _HalfConditioner(AnchoredConditioner):
    def project_context(self, context: Tensor) -> Tensor:
        if not self.training or self.context_weight is None:
            return super().project_context(context)
        return _product(context, self.context_weight) + self.threshold


def multiply_in_bfloat16(*modules: nn.Module) -> None:
    """Make linear layers, and those of contexts in a flow, multiply in bfloat16 in training mode.

    Twice as fast where the processor has such products. Weights, sums and evaluation stay in
    float32, and so do the flow's maps of the poses themselves.

    Args:
        modules: Encoder, head and flow, which are changed in place.
    """
    for each in itertools.chain.from_iterable(module.modules() for module in modules):
        if type(each) is nn.Linear:
            each.__class__ = _HalfLinear
        elif type(each) is AnchoredConditioner:
            each.__class__ = _HalfConditioner
