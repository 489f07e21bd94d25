"""FrozenFlow: a trained flow, fused into few matrix products for inference and fitting."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.base import Base
from flowprior.flow.conditioner import Affine, Conditioner, ResidualBlock
from flowprior.flow.coupling import Coupling
from flowprior.flow.lu_linear import LULinear
from flowprior.flow.projected_context import StepContext
from flowprior.flow.stack import FlowStack

__all__ = ["FrozenFlow", "FrozenStep"]


class FrozenFlow(FlowStack):
    """A copy of a flow with constant, fused weights.

    It has the methods of the flow and is always in evaluation mode. Batch norm is folded into the
    linear layers. ActNorm and LULinear become one matrix per direction, inverted once in float64.
    Between steps, the two halves of the features are contiguous. Gradients reach x, z and the
    context, but not the weights.

    Args:
        features: Number of features D.
        context_features: Width C of the context; 0 for none.
        steps: The fused steps, data side first.
        temperature: Temperature of the flow, shape ().
        base: Density of the latents; standard normal if None.
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        steps: Sequence[nn.Module],
        temperature: Tensor,
        base: Base | None = None,
    ) -> None:
        super().__init__(features, context_features, steps, base)
        self.temperature = temperature.detach().clone()
        self.eval()

    def train(self, mode: bool = True) -> "FrozenFlow":
        """Does nothing: a frozen flow stays in evaluation mode. Train the original flow instead."""
        return super().train(False)

    @property
    def _weight(self) -> Tensor:
        # There are no parameters, and looking for them takes longer than a small product.
        return next(self.steps.buffers())


class FrozenStep(nn.Module):
    """ActNorm, LULinear and a coupling, fused.

    Between steps the features are in the order 0, 2, 4, ..., 1, 3, 5, ..., so that the halves of
    every coupling are slices.

    Args:
        actnorm: ActNorm of the step.
        linear: LULinear of the step.
        coupling: Coupling of the step.
        first: Whether it is the step next to the data, whose input has the original order.
        last: Whether it is the step next to the latent, whose output has the original order.
        conditioner_dtype: Dtype of the conditioner in the inverse direction.
    """

    forward_weight: Tensor
    forward_bias: Tensor
    inverse_weight: Tensor
    inverse_bias: Tensor
    log_scale: Tensor
    shift: Tensor
    norm_weight: Tensor | None
    log_abs_det: Tensor
    context_weight: Tensor | None
    context_bias: Tensor
    order: Tensor
    place: Tensor

    def __init__(
        self,
        actnorm: ActNorm,
        linear: LULinear,
        coupling: Coupling,
        *,
        first: bool,
        last: bool,
        conditioner_dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        conditioner = coupling.conditioner
        assert isinstance(conditioner, Conditioner)
        assert linear.bias is not None
        assert actnorm.shift is not None
        size, device, exact = linear.features, linear.bias.device, torch.float64
        dtype = torch.promote_types(linear.bias.dtype, torch.float32)
        order = torch.cat((torch.arange(0, size, 2), torch.arange(1, size, 2))).to(device)
        outer = torch.arange(size, device=device) if first else order

        lower, upper = linear.factors(exact)
        bias: Tensor = linear.bias.to(exact)
        inverse = torch.linalg.inv(upper) @ torch.linalg.inv(lower)
        inverse_bias = -inverse @ bias
        if linear.legacy_forward:
            matrix, bias = lower.mT @ upper.mT, torch.zeros_like(bias)
        else:
            matrix = lower @ upper
        log_scale, shift = actnorm.log_scale.to(exact), actnorm.shift.to(exact)
        log_abs_det = linear.log_abs_det(exact)
        if actnorm.context_weight is None:
            bias = bias + matrix @ shift
            matrix = matrix * log_scale.exp()
            inverse = torch.exp(-log_scale)[:, None] * inverse
            inverse_bias = torch.exp(-log_scale) * (inverse_bias - shift)
            log_abs_det = log_abs_det + log_scale.sum()
        buffers = {
            "forward_weight": matrix[order][:, outer],
            "forward_bias": bias[order],
            "inverse_weight": inverse[outer][:, order],
            "inverse_bias": inverse_bias[outer],
            "log_scale": log_scale[outer],
            "shift": shift[outer],
            "log_abs_det": log_abs_det,
            "context_bias": conditioner.input.bias,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().to(dtype, copy=True).contiguous())
        both = torch.cat((outer, outer + size))
        optional = {
            "norm_weight": None if actnorm.context_weight is None else actnorm.context_weight[both],
            "context_weight": conditioner.context_weight,
        }
        for name, weight in optional.items():
            copied = None if weight is None else weight.detach().to(dtype, copy=True)
            self.register_buffer(name, copied)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("place", order.argsort(), persistent=False)

        self.last = last
        self.coupling = type(coupling)
        self.odd_moves = coupling.odd_moves
        self.conditioner = _FrozenConditioner(conditioner, dtype)
        self.inverse_conditioner = (
            None
            if conditioner_dtype in (None, dtype)
            else _FrozenConditioner(conditioner, conditioner_dtype)
        )

    @property
    def keeps_volume(self) -> bool:
        """Whether the log-determinant is independent of x."""
        return self.coupling.keeps_volume

    @property
    def peaks_at_zero(self) -> bool:
        """Whether the log-determinant is largest where the latent is 0, or does not vary."""
        return self.coupling.keeps_volume

    @property
    def keeps_origin(self) -> bool:
        """False: shifts move the origin."""
        return False

    def project_context(self, context: Tensor) -> StepContext:
        """Project a context (*batch, C); adds the bias of the conditioner's first layer."""
        batch = context.shape[:-1]
        if self.context_weight is None:
            hidden = self.context_bias.expand(*batch, -1)
        else:
            hidden = F.linear(context, self.context_weight, self.context_bias)
        if self.norm_weight is None:
            return StepContext(hidden, None)
        log_scale, shift = ActNorm.bounded(F.linear(context, self.norm_weight)).chunk(2, dim=-1)
        return StepContext(
            hidden, torch.cat((self.log_scale + log_scale, self.shift + shift), dim=-1)
        )

    def forward(self, x: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map data to latent; return it with the log-determinant."""
        if context.norm is not None:
            log_scale, shift = context.norm.chunk(2, dim=-1)
            x = torch.addcmul(shift, x, log_scale.exp())
        x = F.linear(x, self.forward_weight, self.forward_bias)
        x, log_abs_det = self._couple(x, context.hidden, self.conditioner, inverse=False)
        if self.last:
            x = x.index_select(-1, self.place)
        return x, self.constant_log_abs_det(x.dtype, context) + log_abs_det

    def inverse(self, z: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map latent to data; return it with the log-determinant of the inverse map."""
        if self.last:
            z = z.index_select(-1, self.order)
        conditioner = self.inverse_conditioner or self.conditioner
        z, log_abs_det = self._couple(z, context.hidden, conditioner, inverse=True)
        z = F.linear(z, self.inverse_weight, self.inverse_bias)
        if context.norm is not None:
            log_scale, shift = context.norm.chunk(2, dim=-1)
            z = (z - shift) * torch.exp(-log_scale)
        return z, log_abs_det - self.constant_log_abs_det(z.dtype, context)

    def constant_log_abs_det(self, dtype: torch.dtype, context: StepContext) -> Tensor:
        """The part of the forward log-determinant that is independent of x."""
        if context.norm is None:
            return self.log_abs_det
        return self.log_abs_det + context.norm.chunk(2, dim=-1)[0].sum(dim=-1)

    def _couple(
        self, x: Tensor, projected: Tensor, conditioner: "_FrozenConditioner", *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        size = x.shape[-1]
        even, odd = x.split(((size + 1) // 2, size // 2), dim=-1)
        resting, moving = (even, odd) if self.odd_moves else (odd, even)
        numbers = conditioner(resting, projected)
        numbers = numbers.unflatten(-1, (moving.shape[-1], self.coupling.numbers_per_feature))
        moved, log_abs_det = self.coupling.move(moving, numbers, inverse=inverse)
        halves = (even, moved) if self.odd_moves else (moved, odd)
        return torch.cat(halves, dim=-1), log_abs_det


class _FrozenConditioner(nn.Module):
    """The conditioner with constant weights of one dtype, without its context and first bias.

    The second linear layer of the last block and the output layer are multiplied in advance, since
    no nonlinearity separates them. With two blocks this saves a quarter of the work.
    """

    input: Tensor
    output: Tensor
    output_bias: Tensor

    def __init__(self, conditioner: Conditioner, dtype: torch.dtype) -> None:
        super().__init__()
        output, bias = (
            value.detach().double()
            for value in (conditioner.output.weight, conditioner.output.bias)
        )
        blocks = [cast(ResidualBlock, block).folded() for block in conditioner.blocks]
        if blocks:
            norm, inner, (weight, last_bias) = blocks[-1]
            blocks[-1] = norm, inner, (output @ weight, output @ last_bias)
        self.register_buffer("input", _constant(conditioner.input.weight, dtype))
        fused = [_FrozenBlock(*block, dtype) for block in blocks]
        self.blocks = nn.ModuleList(fused[:-1])
        self.last = fused[-1] if fused else None
        self.register_buffer("output", _constant(output, dtype))
        self.register_buffer("output_bias", _constant(bias, dtype))

    def forward(self, x: Tensor, projected: Tensor) -> Tensor:
        dtype = self.input.dtype
        projected = projected.to(dtype)
        # A dynamic size of an exported program is not an int.
        if all(isinstance(size, int) and size == 1 for size in projected.shape[:-1]):
            hidden = F.linear(x.to(dtype), self.input, projected.flatten())
        else:
            hidden = F.linear(x.to(dtype), self.input).add_(projected)
        rows = hidden.flatten(end_dim=-2) if hidden.ndim > 1 else hidden[None]
        for block in self.blocks:
            rows = block(rows, onto=rows)
        out = F.linear(rows, self.output, self.output_bias)
        if self.last is not None:
            out = self.last(rows, onto=out)
        return out.reshape(*hidden.shape[:-1], out.shape[-1]).to(x.dtype)


class _FrozenBlock(nn.Module):
    """onto + A1 relu(A0 relu(g h + s) + a0) + a1; g and s are None without batch norm."""

    gain: Tensor | None
    shift: Tensor | None
    weight0: Tensor
    bias0: Tensor
    weight1: Tensor
    bias1: Tensor

    def __init__(
        self, norm: Affine | None, inner: Affine, outer: Affine, dtype: torch.dtype
    ) -> None:
        super().__init__()
        gain, shift = norm or (None, None)
        self.register_buffer("gain", None if gain is None else _constant(gain, dtype))
        self.register_buffer("shift", None if shift is None else _constant(shift, dtype))
        for number, (weight, bias) in enumerate((inner, outer)):
            self.register_buffer(f"weight{number}", _constant(weight, dtype))
            self.register_buffer(f"bias{number}", _constant(bias, dtype))

    def forward(self, rows: Tensor, onto: Tensor) -> Tensor:
        if self.gain is None or self.shift is None:
            update = rows.relu()
        else:
            update = torch.addcmul(self.shift, rows, self.gain).relu_()
        update = F.linear(update, self.weight0, self.bias0).relu_()
        # In place on tensors of this network, which autograd allows: relu saves its output.
        return onto.addmm_(update, self.weight1.mT).add_(self.bias1)


def _constant(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype, copy=True)
