"""Adam for many independent problems at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.fitting.line_search import select_rows
from flowprior.fitting.status import Status, Stopping

__all__ = ["Adam"]

PATIENCE = 20  # steps without a decrease after which a problem ends: Adam is not monotonic


@dataclass
class Adam:
    """State of Adam for n problems, and the best point of each so far.

    Args:
        x: (n, D) best points.
        value: (n,) objective at the best points.
        gradient: (n, D) gradients at the best points.
        status: (n,) int64, values of `Status`.
        iterations: (n,) int64, number of steps.
        current: (n, D) current points of Adam.
        mean: (n, D) running mean of the gradient.
        square: (n, D) running mean of the squared gradient.
        waited: (n,) int64, steps since the best value last decreased.
        stopping: Stopping criteria.
        rate: Step length.

    References:
        Kingma and Ba, *Adam: A Method for Stochastic Optimization*, 2015.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    status: Tensor
    iterations: Tensor
    current: Tensor
    mean: Tensor
    square: Tensor
    waited: Tensor
    stopping: Stopping
    rate: float

    @classmethod
    def start(
        cls,
        x: Tensor,
        value: Tensor,
        gradient: Tensor,
        status: Tensor,
        stopping: Stopping,
        rate: float,
    ) -> "Adam":
        """Start from points (n, D) with values (n,) and gradients (n, D)."""
        zero = torch.zeros_like(status)
        adam = cls(x, value, gradient, status, zero, x, 0 * x, 0 * x, zero, stopping, rate)
        adam._step(gradient, torch.ones_like(value, dtype=torch.bool))
        return adam

    def select(self, rows: Tensor) -> "Adam":
        """The state of the problems ``rows``."""
        return select_rows(self, rows)

    def trial(self) -> Tensor:
        """Points (n, D) to evaluate next."""
        running = (self.status == Status.RUNNING)[:, None]
        return torch.where(running, self.current, self.x)

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Process values (n,) and gradients (n, D) at the trial points, and step."""
        running = self.status == Status.RUNNING
        finite = value.isfinite() & gradient.isfinite().all(dim=-1)
        better = running & finite & (value < self.value)
        size = torch.maximum(value.abs(), self.value.abs()).clamp(min=1)
        fell = better & (self.value - value > self.stopping.tolerance_value * size)
        self.waited = torch.where(fell, 0, self.waited + running)
        at_best = running & finite & (value <= self.value)
        self.x = torch.where(at_best[:, None], self.current, self.x)
        self.gradient = torch.where(at_best[:, None], gradient, self.gradient)
        self.value = torch.where(at_best, value, self.value)
        self.iterations = self.iterations + running
        flat = at_best & (gradient.abs().amax(dim=-1) <= self.stopping.tolerance_gradient)
        ended = torch.where(self.waited >= PATIENCE, Status.CONVERGED_VALUE, Status.RUNNING)
        ended = torch.where(flat, Status.CONVERGED_GRADIENT, ended)
        ended = self.stopping.out_of_iterations(ended, self.iterations)
        ended = torch.where(finite, ended, Status.NON_FINITE)
        self.status = torch.where(running, ended, self.status)
        self._step(torch.where(finite[:, None], gradient, 0.0), running)

    def _step(self, gradient: Tensor, where: Tensor) -> None:
        taken = (self.iterations + 1).to(gradient.dtype)[:, None]
        self.mean = torch.lerp(gradient, self.mean, 0.9)
        self.square = torch.lerp(gradient.square(), self.square, 0.999)
        mean, square = self.mean / (1 - 0.9**taken), self.square / (1 - 0.999**taken)
        step = self.rate * mean / (square.sqrt() + 1e-8)
        self.current = torch.where(where[:, None], self.current - step, self.current)
