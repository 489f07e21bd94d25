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
    """Adam for n problems; where they are is the best point so far.

    Args:
        x: (n, D) best points.
        value: (n,) there.
        gradient: (n, D) there.
        status: (n,).
        iterations: (n,).
        current: (n, D) where Adam is.
        mean: (n, D) running mean of the gradient.
        square: (n, D) running mean of its square.
        waited: (n,) int64, steps without a fall of the best value.
        stopping: When to stop.
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
        """Problems at their starts (n, D), with value and gradient there."""
        zero = torch.zeros_like(status)
        adam = cls(x, value, gradient, status, zero, x, 0 * x, 0 * x, zero, stopping, rate)
        adam._step(gradient, torch.ones_like(value, dtype=torch.bool))
        return adam

    def select(self, rows: Tensor) -> "Adam":
        """Only the problems of these rows."""
        return select_rows(self, rows)

    def trial(self) -> Tensor:
        """(n, D) where to evaluate next."""
        running = (self.status == Status.RUNNING)[:, None]
        return torch.where(running, self.current, self.x)

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Take the evaluation of the current points into account, and step."""
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
