"""FlowStack: the density that a stack of bijections defines, and its methods."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from flowprior._checks import require_count, require_like, require_tensor, require_width
from flowprior._precision import without_autocast
from flowprior.flow.base import Base, Normal

__all__ = [
    "FlowStack",
    "ProjectedContext",
    "Step",
    "StepContext",
    "batch_shape_of",
    "free_count",
    "free_of",
]

# Rows mapped at once when no gradient is needed. A CPU keeps the hidden layers of a small block in
# its cache. A GPU needs large blocks, but its memory limits their size.
CPU_BLOCK = 512
GPU_BLOCK = 65536


class StepContext(NamedTuple):
    """A context, projected for one step.

    Attributes:
        hidden: The context's part of the conditioner's layers, (*batch, H), or (*batch, m H) for a
            conditioner that reads the context in m layers.
        norm: The context's terms of the log-scale and shift of ActNorm, (*batch, 2 D), or None;
            (*batch, D) without a shift.
        free: (*batch, D), 1 for features of the density and 0 for those held at 0; None if all are
            free.
    """

    hidden: Tensor
    norm: Tensor | None
    free: Tensor | None = None

    def with_extra_axes(self, count: int) -> "StepContext":
        """As :meth:`ProjectedContext.with_extra_axes`."""
        return self._map(lambda v: v.reshape(*v.shape[:-1], *(1,) * count, v.shape[-1]))

    def rows(self, start: int, stop: int) -> "StepContext":
        """As :meth:`ProjectedContext.rows`."""
        # Not -1, which is ambiguous for a step without a conditioner: its part has width 0.
        return self._map(lambda v: v.reshape(v.shape[:-1].numel(), v.shape[-1])[start:stop])

    def select(self, index: tuple[Any, ...]) -> "StepContext":
        """As :meth:`ProjectedContext.select`."""
        return self._map(lambda v: v[index])

    def expand(self, batch_shape: torch.Size) -> "StepContext":
        """As :meth:`ProjectedContext.expand`."""
        return self._map(lambda v: v.expand(*batch_shape, v.shape[-1]))

    def detached(self) -> "StepContext":
        """Copies without gradients."""
        return self._map(lambda v: v.detach().clone())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "StepContext":
        norm, free = (None if each is None else change(each) for each in (self.norm, self.free))
        return StepContext(change(self.hidden), norm, free)


class ProjectedContext(NamedTuple):
    """A context, projected for every step of a flow: computed once, reused by every call.

    Attributes:
        steps: The projected context of each step, data side first.
    """

    steps: tuple[StepContext, ...]

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of contexts."""
        return batch_shape_of(self)

    @property
    def free(self) -> Tensor | None:
        """(*batch, D), as :attr:`StepContext.free`."""
        return free_of(self)

    def with_extra_axes(self, count: int) -> "ProjectedContext":
        """Insert axes of size 1 between batch and features, for inputs that share a context."""
        return ProjectedContext(tuple(step.with_extra_axes(count) for step in self.steps))

    def rows(self, start: int, stop: int) -> "ProjectedContext":
        """Flatten the batch to one axis and select the contexts ``start`` to ``stop``."""
        return ProjectedContext(tuple(step.rows(start, stop) for step in self.steps))

    def select(self, index: Any) -> "ProjectedContext":  # noqa: ANN401, as tensors are indexed
        """Select contexts by an index into the batch.

        Args:
            index: An int, slice, list, boolean mask or index tensor for the first batch axis, or a
                tuple of these for several axes, as tensors accept it.

        Returns:
            The selected contexts. Views or copies follow the rules of tensors.

        Raises:
            IndexError: If the index has more axes than the batch or is out of range.
        """
        index = index if isinstance(index, tuple) else (index,)
        # The features stay the last axis, whatever the index does to the batch.
        open_end = () if any(each is Ellipsis for each in index) else (Ellipsis,)
        full = (*index, *open_end, slice(None))
        return ProjectedContext(tuple(step.select(full) for step in self.steps))

    def expand(self, batch_shape: torch.Size) -> "ProjectedContext":
        """Broadcast the batch to ``batch_shape`` without copies."""
        return ProjectedContext(tuple(step.expand(batch_shape) for step in self.steps))


def batch_shape_of(projected: ProjectedContext) -> torch.Size:
    """As :attr:`ProjectedContext.batch_shape`; torch 2.5 cannot compile a property of a tuple."""
    return projected.steps[0].hidden.shape[:-1]


def free_of(projected: ProjectedContext) -> Tensor | None:
    """As :attr:`ProjectedContext.free`."""
    return projected.steps[0].free


class Step(Protocol):
    """One bijection of the stack."""

    @property
    def keeps_volume(self) -> bool:
        """Whether the log-determinant does not depend on x."""

    @property
    def peaks_at_zero(self) -> bool:
        """Whether the log-determinant is largest where the latent is 0, or does not vary."""

    @property
    def keeps_origin(self) -> bool:
        """Whether the origin is mapped to the origin in every context."""

    def project_context(self, context: Tensor) -> StepContext:
        """Project a context (*batch, C) for this step."""

    def __call__(self, x: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map data to latent; return it with the log-determinant."""

    def inverse(self, z: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        """Map latent to data; return it with the log-determinant of the inverse map."""

    def constant_log_abs_det(self, dtype: torch.dtype, context: StepContext) -> Tensor:
        """The part of the forward log-determinant that is independent of x."""


class FlowStack(nn.Module):
    r"""A stack of steps that map data x to a latent z with the base density, given a context c.

    If no step's log-determinant depends on x, as with additive couplings, z = 0 is exactly the mode
    of p(x | c) and the entropy has a closed form, see :attr:`has_exact_mode` and
    :attr:`has_closed_entropy`. With contracting couplings the mode alone is exact. Otherwise
    :meth:`mode` ascends to a local maximum and :meth:`entropy` averages over samples.

    Shapes: a context is (\*batch, C); x and z are (\*batch, \*extra, D). Extra axes stand between
    batch and features and share the context of their row. Without a context the batch is empty
    and every leading axis is extra. Every ``context`` argument also
    accepts the result of :meth:`project_context`, which saves computing it again.

    Dtypes: inputs of lower precision than the weights are converted to the dtype of the weights.
    The bijection itself is computed in float32 or better, also under autocast and with
    half-precision weights.

    Args:
        features: Number of features D.
        context_features: Width C of the context; 0 for none.
        steps: The bijections, data side first.
        base: Density of the latents; standard normal if None.

    Attributes:
        temperature: Scale of the latents before the division by it, shape ().
        base: Density of the latents.
    """

    temperature: Tensor

    def __init__(
        self,
        features: int,
        context_features: int,
        steps: Sequence[nn.Module],
        base: Base | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.context_features = context_features
        self.steps = nn.ModuleList(steps)
        self.base: Base = Normal() if base is None else base
        self.register_buffer("temperature", torch.ones(()))

    @property
    def has_exact_mode(self) -> bool:
        """Whether z = 0 is the mode.

        So it is if the log-determinant is independent of x, or has its maximum at z = 0.
        """
        return all(step.peaks_at_zero for step in self._steps)

    @property
    def has_closed_entropy(self) -> bool:
        """Whether the log-determinant is independent of x, so that the entropy is exact."""
        return all(step.keeps_volume for step in self._steps)

    @property
    def keeps_origin(self) -> bool:
        """Whether every step maps the origin to the origin, so that z = 0 is x = 0."""
        return all(step.keeps_origin for step in self._steps)

    @property
    def depends_on_batch(self) -> bool:
        """Whether the next forward pass computes statistics of the whole batch."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the bijection's arithmetic and results: the weights', but at least float32."""
        return torch.promote_types(self.weight_dtype, torch.float32)

    @property
    def weight_dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self._weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._weight.device

    def project_context(
        self, context: Tensor | None, *, free: Tensor | None = None
    ) -> ProjectedContext:
        """Compute the parts of all steps that depend on the context alone.

        Args:
            context: (*batch, C); None for a flow without context, whose batch is ().
            free: (*batch, D) bool, or broadcasting to it: the features that the density is over.
                The others are held at 0 in x and in z, whatever is passed for them, and belong
                neither to densities nor to entropies. Only a flow that keeps the origin can hold
                features. None if all are free.

        Returns:
            The projected context, accepted by every other method.

        Raises:
            ValueError: If the context has another width, dtype or device than the flow, or
                features cannot be held.
        """
        context = self.checked_context(context)
        with self.full_precision():
            steps = tuple(step.project_context(context) for step in self._steps)
        if free is None:
            return ProjectedContext(steps)
        if not self.keeps_origin:
            raise ValueError("only an anchored flow can hold features at 0")
        require_width("free", free, self.features)
        batch = context.shape[:-1]
        mask = free.to(self.device, self.dtype).broadcast_to(*batch, self.features)
        return ProjectedContext(tuple(step._replace(free=mask) for step in steps))

    def checked_context(self, context: Tensor | None) -> Tensor:
        """Convert a context to the flow's dtype.

        Args:
            context: As for :meth:`project_context`.

        Returns:
            (*batch, C), or (0,) without a context.

        Raises:
            ValueError: As :meth:`project_context`.
        """
        if context is None:
            if self.context_features:
                raise ValueError(
                    f"this flow needs a context of shape (..., {self.context_features}), got None"
                )
            context = self._weight.new_empty((0,))
        require_tensor("context", context)
        if not self.context_features and context.shape[-1:] != (0,):
            raise ValueError(
                "this flow takes no context (context_features=0): leave it out, got one of shape "
                f"{tuple(context.shape)}"
            )
        require_width("context", context, self.context_features)
        return require_like("context", context, self.dtype, self.device)

    def forward(
        self, x: Tensor, context: Tensor | ProjectedContext | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map data to latent. In training mode, the first batch of at least two rows sets ActNorm.

        Args:
            x: (*batch, *extra, D).
            context: (*batch, C), projected or not.

        Returns:
            ``z`` (*batch, *extra, D) and the log-determinant (*batch, *extra) of the map.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        return self._run("x", x, context, self._forward)

    def inverse(
        self, z: Tensor, context: Tensor | ProjectedContext | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map latent to data, the exact inverse of :meth:`forward`.

        Args:
            z: (*batch, *extra, D).
            context: (*batch, C), projected or not.

        Returns:
            ``x`` (*batch, *extra, D) and the log-determinant (*batch, *extra) of the inverse map.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        return self._run("z", z, context, self._inverse)

    def log_prob(self, x: Tensor, context: Tensor | ProjectedContext | None = None) -> Tensor:
        """Log-density of x given the context, in nats.

        Args:
            x: (*batch, *extra, D).
            context: (*batch, C), projected or not.

        Returns:
            (*batch, *extra).

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        projected = self._projected(context)
        z, log_abs_det = self.forward(x, projected)
        return self.base.log_prob(z, free_count(projected, z)) + log_abs_det

    def energy(self, z: Tensor, context: Tensor | ProjectedContext | None = None) -> Tensor:
        """-2 log p of latents under the base, relative to its minimum at z = 0.

        Args:
            z: (*batch, *extra, D).
            context: (*batch, C), projected or not. Only the features that it holds matter.

        Returns:
            (*batch, *extra), at least 0.
        """
        projected = self._projected(context)
        free = _like(free_of(projected), z)
        return self.base.energy(z if free is None else z * free, free_count(projected, z))

    def sample(
        self,
        context: Tensor | ProjectedContext | None = None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw samples. They carry gradients to weights and context.

        Args:
            context: (*batch, C), projected or not.
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the flow's device.

        Returns:
            (*batch, n, D).

        Raises:
            ValueError: If ``num_samples`` is negative or the context does not fit.
        """
        return self.sample_and_log_prob(context, num_samples, generator=generator)[0]

    def sample_and_log_prob(
        self,
        context: Tensor | ProjectedContext | None = None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw samples with their log-densities, at no extra cost.

        Args:
            context: (*batch, C), projected or not.
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the flow's device.

        Returns:
            Samples (*batch, n, D) and their log-densities (*batch, n), in nats.

        Raises:
            ValueError: If ``num_samples`` is negative or the context does not fit.
        """
        require_count("num_samples", num_samples)
        projected = self._projected(context)
        shape = (*batch_shape_of(projected), num_samples, self.features)
        z = self.base.sample(shape, self.dtype, self.device, generator)
        free = _like(free_of(projected), z)
        z = z if free is None else z * free
        x, log_abs_det = self.inverse(z, projected)
        return x, self.base.log_prob(z, free_count(projected, z)) - log_abs_det

    def mode(
        self,
        context: Tensor | ProjectedContext | None = None,
        *,
        max_steps: int = 100,
    ) -> Tensor:
        """Compute the most likely x.

        The decoded z = 0, exactly, if :attr:`has_exact_mode`. Otherwise a local maximum, found by
        gradient ascent in the latent space from z = 0 and at least as likely as its start.
        Gradients to weights and context then treat its z as a constant.

        Args:
            context: (*batch, C), projected or not.
            max_steps: Number of steps of the ascent.

        Returns:
            (*batch, D).
        """
        projected = self._projected(context)
        shape = (*batch_shape_of(projected), self.features)
        z = torch.zeros(shape, dtype=self.dtype, device=self.device)
        if not self.has_exact_mode:
            climb = self._climb
            if torch.compiler.is_compiling():
                # Compiling a graph of a hundred steps takes minutes, for each new shape.
                climb = torch.compiler.disable(climb)
            z = climb(z, projected, max_steps)
        return self.inverse(z, projected)[0]

    def entropy(
        self,
        context: Tensor | ProjectedContext | None = None,
        *,
        num_samples: int = 256,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Differential entropy of p(x | c) in nats.

        In closed form if :attr:`has_closed_entropy`, otherwise averaged over samples.

        Args:
            context: (*batch, C), projected or not.
            num_samples: Number of samples per context without a closed form.
            generator: Source of their noise, on the flow's device.

        Returns:
            (*batch,).
        """
        projected = self._projected(context)
        if not self.has_closed_entropy:
            return -self.sample_and_log_prob(projected, num_samples, generator=generator)[1].mean(
                dim=-1
            )
        free = free_of(projected)
        features = self.features if free is None else free.sum(dim=-1)
        base = self.base.entropy(features, self.dtype).to(self.device)
        log_abs_det = self._temperature_log_abs_det(features)
        for step, step_context in zip(self._steps, projected.steps, strict=True):
            log_abs_det = log_abs_det + step.constant_log_abs_det(self.dtype, step_context)
        return (base - log_abs_det).expand(batch_shape_of(projected))

    @property
    def _steps(self) -> Sequence[Step]:
        return cast(Sequence[Step], self.steps)

    @property
    def _weight(self) -> Tensor:
        """Any of the weights, which share one dtype and device."""
        return next(itertools.chain(self.steps.parameters(), self.steps.buffers()))

    def _temperature_log_abs_det(self, features: int | Tensor | None = None) -> Tensor:
        features = self.features if features is None else features
        return -features * self.temperature.to(self.dtype).log()

    def _climb(
        self,
        z: Tensor,
        projected: ProjectedContext,
        max_steps: int,
    ) -> Tensor:
        """Gradient ascent on the log-density from z; returns the best point of each row."""
        # Tensors made under inference mode cannot enter a graph; copies can.
        with torch.inference_mode(False), torch.enable_grad():
            projected = ProjectedContext(tuple(step.detached() for step in projected.steps))
            z = z.clone().requires_grad_()
            optimizer = torch.optim.Adam([z], lr=0.03)
            best, best_log_prob = z.detach().clone(), torch.full_like(z[..., 0], -math.inf)
            for _ in range(max_steps + 1):
                _, log_abs_det = self.inverse(z, projected)
                log_prob = self.base.log_prob(z, free_count(projected, z)) - log_abs_det
                better = log_prob.detach() > best_log_prob
                best = torch.where(better[..., None], z.detach(), best)
                best_log_prob = torch.where(better, log_prob.detach(), best_log_prob)
                (z.grad,) = torch.autograd.grad(-log_prob.sum(), z)
                optimizer.step()
        return best

    def _projected(self, context: Tensor | ProjectedContext | None) -> ProjectedContext:
        if isinstance(context, ProjectedContext):
            return context
        return self.project_context(context)

    def _forward(self, x: Tensor, projected: ProjectedContext) -> tuple[Tensor, Tensor]:
        x, log_abs_det = self._held(x, projected)
        for step, context in zip(self._steps, projected.steps, strict=True):
            x, step_log_abs_det = step(x, context)
            log_abs_det = log_abs_det + step_log_abs_det
        return x / self.temperature.to(x.dtype), log_abs_det.expand(x.shape[:-1])

    def _inverse(self, z: Tensor, projected: ProjectedContext) -> tuple[Tensor, Tensor]:
        z, log_abs_det = self._held(z * self.temperature.to(z.dtype), projected)
        log_abs_det = -log_abs_det
        for step, context in zip(reversed(self._steps), reversed(projected.steps), strict=True):
            z, step_log_abs_det = step.inverse(z, context)
            log_abs_det = log_abs_det + step_log_abs_det
        return z, log_abs_det.expand(z.shape[:-1])

    def _held(self, x: Tensor, projected: ProjectedContext) -> tuple[Tensor, Tensor]:
        """Set the held features to 0; return x with the log-determinant of the temperature."""
        free = free_of(projected)
        if free is None:
            return x, self._temperature_log_abs_det()
        return x * free, self._temperature_log_abs_det(free.sum(dim=-1))

    def _run(
        self,
        name: str,
        value: Tensor,
        context: Tensor | ProjectedContext | None,
        direction: Callable[[Tensor, ProjectedContext], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Check a (*batch, *extra, D) input and map it, in blocks if no gradient is needed."""
        require_width(name, value, self.features)
        value = require_like(name, value, self.dtype, self.device)
        projected = self._projected(context)
        batch = batch_shape_of(projected)
        leading = value.shape[:-1]
        if leading[: len(batch)] != batch:
            raise ValueError(
                f"{name} has leading shape {tuple(leading)}, but the context has batch shape "
                f"{tuple(batch)}: {name} must be (*batch, *extra, {self.features})"
            )
        with self.full_precision():
            block = CPU_BLOCK if value.device.type == "cpu" else GPU_BLOCK
            if not self._needs_one_pass(value, projected) and leading.numel() > block:
                rows = value.reshape(batch.numel(), -1, self.features)
                parts = [
                    direction(part, few.with_extra_axes(1))
                    for part, few in _blocks(rows, projected, block)
                ]
                mapped = torch.cat([part.flatten(0, 1) for part, _ in parts])
                log_abs_det = torch.cat([part.flatten() for _, part in parts])
                return mapped.reshape(value.shape), log_abs_det.reshape(leading)
            return direction(value, projected.with_extra_axes(len(leading) - len(batch)))

    def _needs_one_pass(self, value: Tensor, projected: ProjectedContext) -> bool:
        """Whether gradients or statistics of the whole batch are needed."""
        if self.training or torch.compiler.is_compiling():
            return True
        tensors = (value, projected.steps[0].hidden, self._weight)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def full_precision(self) -> AbstractContextManager[object]:
        """A context without autocast, which would round the two directions differently."""
        return without_autocast(self.device)


def _like(value: Tensor | None, z: Tensor) -> Tensor | None:
    """Insert axes into (*batch, D) so that it broadcasts against z (*batch, *extra, D)."""
    if value is None:
        return None
    return value.reshape(*value.shape[:-1], *(1,) * (z.ndim - value.ndim), value.shape[-1])


def free_count(projected: ProjectedContext, z: Tensor) -> Tensor | None:
    """Number of free features for each z (*batch, *extra, D), broadcasting; None for all."""
    free = _like(free_of(projected), z)
    return None if free is None else free.sum(dim=-1)


def _blocks(
    rows: Tensor, projected: ProjectedContext, size: int
) -> Iterator[tuple[Tensor, ProjectedContext]]:
    """Blocks of at most ``size`` rows of (batch, extra, D): several contexts or a part of one."""
    batch, extra, _ = rows.shape
    contexts = max(size // extra, 1)
    for start in range(0, batch, contexts):
        few = projected.rows(start, start + contexts)
        for begin in range(0, extra, size):
            yield rows[start : start + contexts, begin : begin + size], few
