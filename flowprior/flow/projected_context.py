"""Contexts, projected for the steps of a flow."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "ProjectedContext",
    "StepContext",
    "batch_shape_of",
    "free_count",
    "free_like",
    "free_of",
]


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


def free_like(projected: ProjectedContext, z: Tensor) -> Tensor | None:
    """:attr:`ProjectedContext.free` with axes to broadcast against z (*batch, *extra, D)."""
    value = free_of(projected)
    if value is None:
        return None
    return value.reshape(*value.shape[:-1], *(1,) * (z.ndim - value.ndim), value.shape[-1])


def free_count(projected: ProjectedContext, z: Tensor) -> Tensor | None:
    """Number of free features for each z (*batch, *extra, D), broadcasting; None for all."""
    free = free_like(projected, z)
    return None if free is None else free.sum(dim=-1)
