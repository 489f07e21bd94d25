"""States of the problems of a solver, and its stopping criteria."""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

__all__ = ["Status", "Stopping"]


class Status(IntEnum):
    """State of a problem.

    Attributes:
        RUNNING: Not finished.
        CONVERGED_GRADIENT: No entry of the gradient exceeds the tolerance.
        CONVERGED_VALUE: A step reduced the objective by less than the tolerance, and the slope
            predicted no more either.
        MAX_ITERATIONS: The maximum number of iterations was reached.
        LINE_SEARCH_FAILED: No step reduced the objective, not even along the negative gradient.
        NON_FINITE: The objective or its gradient is NaN or infinite at the start, or at every
            point that could be reached.
        NO_KEYPOINTS: No keypoint of the person counts, so the start was returned (set by
            `fit_keypoints`, never by `minimize`).
    """

    RUNNING = 0
    CONVERGED_GRADIENT = 1
    CONVERGED_VALUE = 2
    MAX_ITERATIONS = 3
    LINE_SEARCH_FAILED = 4
    NON_FINITE = 5
    NO_KEYPOINTS = 6

    @property
    def label(self) -> str:
        """The name in lower case, for reports."""
        return self.name.lower()


@dataclass(frozen=True)
class Stopping:
    """Stopping criteria.

    Args:
        max_iterations: Maximum number of iterations.
        tolerance_gradient: A problem has converged when no entry of its gradient is larger.
        tolerance_value: A problem has converged when one step reduces its objective by no more
            than this, relative to max(|before|, |after|, 1).

    Raises:
        ValueError: A number is negative or NaN.
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
        """Status (n,) of problems at their starts, from values (n,) and gradients (n, D)."""
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
            promised: (n,) decrease predicted by the slope. It keeps a decrease that is lost to
                rounding from counting as convergence.
            gradient: (n, D).
        """
        size = torch.maximum(before.abs(), after.abs()).clamp(min=1)
        still = torch.maximum(before - after, promised) <= self.tolerance_value * size
        flat = gradient.abs().amax(dim=-1) <= self.tolerance_gradient
        status = torch.where(still, Status.CONVERGED_VALUE, Status.RUNNING)
        return torch.where(flat, Status.CONVERGED_GRADIENT, status)

    def out_of_iterations(self, status: Tensor, iterations: Tensor) -> Tensor:
        """Status (n,) after problems without iterations left have been stopped."""
        over = (status == Status.RUNNING) & (iterations >= self.max_iterations)
        return torch.where(over, Status.MAX_ITERATIONS, status)
