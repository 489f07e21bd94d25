"""Anchored steps: bijections that map the origin to the origin in every context."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.anchored_conditioner import AnchoredConditioner, anchored_network
from flowprior.flow.coupling import Coupling
from flowprior.flow.lu_linear import LULinear, held_product, held_solution
from flowprior.flow.stack import StepContext

__all__ = ["AnchoredStep", "FrozenAnchoredStep"]


class _Anchored(nn.Module):
    """What anchored steps have in common, frozen or not.

    Attributes:
        kind: Class of the coupling; None for a linear step.
    """

    kind: type[Coupling] | None

    @property
    def keeps_volume(self) -> bool:
        """Whether the log-determinant does not depend on x."""
        return self.kind is None or self.kind.keeps_volume

    @property
    def peaks_at_zero(self) -> bool:
        """Whether the log-determinant is largest at the origin."""
        return self.kind is None or not self.kind.expands

    @property
    def keeps_origin(self) -> bool:
        """True: no part shifts the origin."""
        return True


class AnchoredStep(_Anchored):
    """Scales from the context, a linear map, and a coupling that vanishes at the origin.

    Args:
        actnorm: ActNorm without a shift.
        linear: LULinear without a bias.
        coupling: Coupling with an anchored conditioner, or None for a linear step.

    Raises:
        ValueError: If a part does not keep the origin.
    """

    def __init__(self, actnorm: ActNorm, linear: LULinear, coupling: Coupling | None) -> None:
        super().__init__()
        anchored = coupling is None or isinstance(coupling.conditioner, AnchoredConditioner)
        if actnorm.shift is not None or linear.bias is not None or not anchored:
            raise ValueError(
                "an anchored step needs ActNorm without a shift, LULinear without a bias and an "
                "anchored conditioner"
            )
        self.actnorm = actnorm
        self.linear = linear
        self.coupling = coupling
        self.kind = None if coupling is None else type(coupling)

    def project_context(self, context: Tensor) -> StepContext:
        """Project a context (*batch, C) for this step."""
        if self.coupling is None:
            hidden = context[..., :0]
        else:
            hidden = self.coupling.conditioner.project_context(context)
        return StepContext(hidden, self.actnorm.project_context(context))

    def forward(self, x: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map data to latent; return it with the log-determinant."""
        x, log_abs_det = self.actnorm(x, context.norm, context.free)
        x, linear_log_abs_det = self.linear(x, context.free)
        log_abs_det = log_abs_det + linear_log_abs_det
        if self.coupling is None:
            return x, log_abs_det
        x, coupling_log_abs_det = self.coupling(x, context.hidden, context.free)
        return x, log_abs_det + coupling_log_abs_det

    def inverse(self, z: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map latent to data; return it with the log-determinant of the inverse map."""
        log_abs_det = -self.constant_log_abs_det(z.dtype, context)
        if self.coupling is not None:
            z, coupling_log_abs_det = self.coupling.inverse(z, context.hidden, context.free)
            log_abs_det = log_abs_det + coupling_log_abs_det
        return self.actnorm.inverse(self.linear.inverse(z, context.free), context.norm), log_abs_det

    def constant_log_abs_det(self, dtype: torch.dtype, context: StepContext) -> Tensor:
        """The part of the forward log-determinant that does not depend on x."""
        free = context.free
        norm = self.actnorm.log_abs_det(dtype, context.norm, free)
        return norm + self.linear.log_abs_det(dtype, free)


class FrozenAnchoredStep(_Anchored):
    """An anchored step with constant weights, for inference.

    LULinear is one matrix per direction, inverted in float64. Between steps the features are in the
    order 0, 2, 4, ..., 1, 3, 5, ..., so that the halves of every coupling are slices.

    Args:
        step: The step.
        first: Whether it is the step next to the data, whose input has the original order.
        last: Whether it is the step next to the latent, whose output has the original order.
        conditioner_dtype: Dtype of the conditioner in the inverse direction; the step's if None.
    """

    forward_weight: Tensor
    inverse_weight: Tensor
    lower: Tensor
    upper: Tensor
    log_scale: Tensor
    scale_weight: Tensor | None
    log_abs_det: Tensor
    threshold: Tensor | None
    threshold_weight: Tensor | None
    order: Tensor
    place: Tensor

    def __init__(
        self,
        step: AnchoredStep,
        *,
        first: bool,
        last: bool,
        conditioner_dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        linear, actnorm, exact = step.linear, step.actnorm, torch.float64
        size, device = linear.features, linear.lower_entries.device
        dtype = torch.promote_types(linear.lower_entries.dtype, torch.float32)
        order = torch.cat((torch.arange(0, size, 2), torch.arange(1, size, 2))).to(device)
        outer = torch.arange(size, device=device) if first else order

        lower, upper = linear.factors(exact)
        inverse = torch.linalg.inv(upper) @ torch.linalg.inv(lower)
        # Without couplings, no half is ever moved alone.
        inner = torch.arange(size, device=device) if last and step.coupling is None else order
        scale_weight, network = actnorm.context_weight, None
        if step.coupling is not None:
            network = cast(AnchoredConditioner, step.coupling.conditioner)
        buffers = {
            "forward_weight": (lower @ upper)[inner][:, outer],
            "inverse_weight": inverse[outer][:, inner],
            "lower": lower,
            "upper": upper,
            "log_scale": actnorm.log_scale[outer],
            "scale_weight": None if scale_weight is None else scale_weight[outer],
            "log_abs_det": linear.log_abs_det(exact),
            "threshold": None if network is None else network.threshold,
            "threshold_weight": None if network is None else network.context_weight,
        }
        for name, value in buffers.items():
            copied = None if value is None else value.detach().to(dtype, copy=True).contiguous()
            self.register_buffer(name, copied)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("place", order.argsort(), persistent=False)
        self.outer_is_ordered, self.inner_is_ordered = outer is order, inner is order
        self.kind = None if step.coupling is None else type(step.coupling)
        self.odd_moves = step.coupling is not None and step.coupling.odd_moves
        self.last = last and step.coupling is not None
        self.conditioner = None if network is None else _FrozenNetwork(network, dtype)
        self.inverse_conditioner = self.conditioner
        if network is not None and conditioner_dtype not in (None, dtype):
            self.inverse_conditioner = _FrozenNetwork(network, conditioner_dtype)

    def project_context(self, context: Tensor) -> StepContext:
        """Project a context (*batch, C) for this step."""
        batch = context.shape[:-1]
        if self.threshold is None:
            hidden = context[..., :0]
        elif self.threshold_weight is None:
            hidden = self.threshold.expand(*batch, -1)
        else:
            hidden = F.linear(context, self.threshold_weight, self.threshold)
        log_scale = self.log_scale
        if self.scale_weight is not None:
            log_scale = log_scale + ActNorm.bounded(F.linear(context, self.scale_weight))
        return StepContext(hidden, log_scale.expand(*batch, -1))

    def forward(self, x: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map data to latent; return it with the log-determinant."""
        log_abs_det = self.constant_log_abs_det(x.dtype, context)
        x = x * _norm(context).exp()
        if context.free is None:
            x = F.linear(x, self.forward_weight)
        else:
            x = x[..., self.place] if self.outer_is_ordered else x
            x = held_product(x, self.lower, self.upper, context.free)
            x = x[..., self.order] if self.inner_is_ordered else x
        if self.conditioner is None:
            return x, log_abs_det
        x, coupling_log_abs_det = self._couple(x, context, self.conditioner, inverse=False)
        if self.last:
            x = x.index_select(-1, self.place)
        return x, log_abs_det + coupling_log_abs_det

    def inverse(self, z: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map latent to data; return it with the log-determinant of the inverse map."""
        log_abs_det = -self.constant_log_abs_det(z.dtype, context)
        if self.last:
            z = z.index_select(-1, self.order)
        if self.inverse_conditioner is not None:
            z, coupling_log_abs_det = self._couple(
                z, context, self.inverse_conditioner, inverse=True
            )
            log_abs_det = log_abs_det + coupling_log_abs_det
        if context.free is None:
            z = F.linear(z, self.inverse_weight)
        else:
            z = z[..., self.place] if self.inner_is_ordered else z
            z = held_solution(z, self.lower, self.upper, context.free)
            z = z[..., self.order] if self.outer_is_ordered else z
        return z * (-_norm(context)).exp(), log_abs_det

    def constant_log_abs_det(self, dtype: torch.dtype, context: StepContext) -> Tensor:
        """The part of the forward log-determinant that does not depend on x."""
        if context.free is None:
            return self.log_abs_det + _norm(context).sum(dim=-1)
        free = context.free
        outer = free[..., self.order] if self.outer_is_ordered else free
        logs = self.upper.diagonal().log()
        return (free * logs).sum(dim=-1) + (outer * _norm(context)).sum(dim=-1)

    def _couple(
        self, x: Tensor, context: StepContext, network: "_FrozenNetwork", *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        assert self.kind is not None
        size = x.shape[-1]
        even, odd = x.split(((size + 1) // 2, size // 2), dim=-1)
        resting, moving = (even, odd) if self.odd_moves else (odd, even)
        numbers = network(resting, context.hidden)
        numbers = numbers.unflatten(-1, (moving.shape[-1], self.kind.numbers_per_feature))
        if context.free is not None:
            numbers = numbers * context.free[..., int(self.odd_moves) :: 2, None]
        moved, log_abs_det = self.kind.move(moving, numbers, inverse=inverse)
        halves = (even, moved) if self.odd_moves else (moved, odd)
        return torch.cat(halves, dim=-1), log_abs_det


class _FrozenNetwork(nn.Module):
    """The anchored conditioner with constant weights of one dtype."""

    first: Tensor
    last: Tensor

    def __init__(self, network: AnchoredConditioner, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("first", network.input.weight.detach().to(dtype, copy=True))
        self.num_blocks = len(network.blocks)
        for number, block in enumerate(network.blocks):
            weight = cast(nn.Linear, block).weight
            self.register_buffer(f"block{number}", weight.detach().to(dtype, copy=True))
        self.register_buffer("last", network.output.weight.detach().to(dtype, copy=True))

    def forward(self, x: Tensor, projected: Tensor) -> Tensor:
        blocks = [cast(Tensor, getattr(self, f"block{n}")) for n in range(self.num_blocks)]
        return anchored_network(x, projected, self.first, blocks, self.last).to(x.dtype)


def _norm(context: StepContext) -> Tensor:
    assert context.norm is not None
    return context.norm
