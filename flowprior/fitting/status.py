"""How the solving of a problem has ended, and when it ends."""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

__all__ = ["Status", "Stopping"]


class Status(IntEnum):
    """Where a problem stands.

    Attributes:
        RUNNING: It is not finished.
        CONVERGED_GRADIENT: No entry of its gradient is larger than the tolerance.
        CONVERGED_VALUE: Its objective no longer falls by more than the tolerance, nor does the
            slope promise it.
        MAX_ITERATIONS: It has used all of its iterations.
        LINE_SEARCH_FAILED: No step downhill was found, not even against the gradient.
        NON_FINITE: Its objective or gradient is NaN or infinite where it started, or wherever it
            could have gone on to.
    """

    RUNNING = 0
    CONVERGED_GRADIENT = 1
    CONVERGED_VALUE = 2
    MAX_ITERATIONS = 3
    LINE_SEARCH_FAILED = 4
    NON_FINITE = 5

    @property
    def label(self) -> str:
        """In lower case, as reports have it."""
        return self.name.lower()


@dataclass(frozen=True)
class Stopping:
    """When a problem is finished.

    Args:
        max_iterations: Steps it may take.
        tolerance_gradient: Largest entry of a gradient that is zero.
        tolerance_value: Change of the objective over one step that is none, relative to
            max(|before|, |after|, 1).
    """

    max_iterations: int
    tolerance_gradient: float
    tolerance_value: float

    def __post_init__(self) -> None:
        if self.max_iterations < 0:
            raise ValueError(f"max_iterations must be at least 0, got {self.max_iterations}")
        for name in ("tolerance_gradient", "tolerance_value"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def at_start(self, value: Tensor, gradient: Tensor) -> Tensor:
        """Status (n,) of problems at their starts."""
        finite = value.isfinite() & gradient.isfinite().all(dim=-1)
        flat = gradient.abs().amax(dim=-1) <= self.tolerance_gradient
        status = torch.where(flat, Status.CONVERGED_GRADIENT, Status.RUNNING)
        status = self.out_of_iterations(status, torch.zeros_like(status))
        return torch.where(finite, status, Status.NON_FINITE)

    def status_after(
        self, before: Tensor, after: Tensor, promised: Tensor, gradient: Tensor
    ) -> Tensor:
        """Status (n,) of problems after a step.

        Args:
            before: (n,) objective.
            after: (n,) objective.
            promised: (n,) how much the slope let expect. With it, a fall that rounding has hidden
                is not taken for the end.
            gradient: (n, D).
        """
        size = torch.maximum(before.abs(), after.abs()).clamp(min=1)
        still = torch.maximum(before - after, promised) <= self.tolerance_value * size
        flat = gradient.abs().amax(dim=-1) <= self.tolerance_gradient
        status = torch.where(still, Status.CONVERGED_VALUE, Status.RUNNING)
        return torch.where(flat, Status.CONVERGED_GRADIENT, status)

    def out_of_iterations(self, status: Tensor, iterations: Tensor) -> Tensor:
        """The status (n,), where problems that would run on have no iteration left."""
        over = (status == Status.RUNNING) & (iterations >= self.max_iterations)
        return torch.where(over, Status.MAX_ITERATIONS, status)
