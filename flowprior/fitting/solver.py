"""Minimisation of many independent problems at once, on one device.

`minimize` takes an objective that maps n points to n values and solves each problem independently,
with its own step length, curvature, line search and termination. One evaluation of the objective
serves all problems. Finished problems leave the batch and cost no more time. A problem that meets
NaN or infinity steps back; if that fails, it alone stops at its best point.

    solution = minimize(lambda x, rows: (x - target[rows]).square().sum(-1), torch.zeros(64, 10))
    solution.x, solution.value, solution.status

As of November 2026, we found no maintained PyTorch library that does this for general objectives:
``torch.optim.LBFGS`` and ``torchmin`` solve a single problem; ``torchimize`` and ``theseus`` need
residuals and their Jacobians; BoTorch passes the batch to SciPy on the CPU as one problem; NVIDIA's
batched L-BFGS has no line search and targets atomic systems.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from flowprior._precision import without_autocast
from flowprior.fitting.adam import Adam
from flowprior.fitting.lbfgs import Lbfgs
from flowprior.fitting.status import Status, Stopping

__all__ = ["METHODS", "Objective", "Solution", "Status", "minimize", "with_spare"]

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Type of an objective: points (n, D) and the indices (n,) of their problems -> values (n,).

Each value may depend on its own point only. As long as the same problems are evaluated, the tensor
of indices is the same object, so an objective can cache the data selected by it.
"""

METHODS = ("lbfgs", "adam")

# The path of a problem does not depend on the others, bit by bit, if every operation rounds its row
# in the same way. On a CPU, BLAS sums fewer rows than these in another order (up to 7 with AVX2, up
# to 15 with AVX-512), and other instructions may compute the last numbers of a batch; hence the
# spare row at its end.
LEAST_ROWS = 16
SPARE_ROWS = 1
FINISHED_SHARE = 8  # the batch is compacted once one in so many problems has finished


@dataclass(frozen=True)
class Solution:
    """Solutions of P problems.

    Args:
        x: (P, D) best point of each problem.
        value: (P,) objective at that point.
        gradient_norm: (P,) largest absolute entry of the gradient at that point.
        status: (P,) int64, values of `Status`.
        iterations: (P,) int64, number of steps.
        evaluations: (P,) int64, number of evaluations of the objective.
    """

    x: Tensor
    value: Tensor
    gradient_norm: Tensor
    status: Tensor
    iterations: Tensor
    evaluations: Tensor

    @property
    def converged(self) -> Tensor:
        """(P,) bool, whether the problem converged."""
        return (self.status == Status.CONVERGED_GRADIENT) | (self.status == Status.CONVERGED_VALUE)

    def labels(self) -> list[str]:
        """The status of each problem as text."""
        return [Status(code).label for code in self.status.tolist()]

    def counts(self) -> dict[str, int]:
        """Number of problems with each status."""
        return dict(Counter(self.labels()))


class Method(Protocol):
    """State of n unfinished problems."""

    x: Tensor
    value: Tensor
    gradient: Tensor
    status: Tensor
    iterations: Tensor

    def trial(self) -> Tensor:
        """Points (n, D) to evaluate next."""

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Process values (n,) and gradients (n, D) at the trial points."""

    def select(self, rows: Tensor) -> "Method":
        """The state of the problems ``rows``."""


def _evaluate(objective: Objective, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n,) and gradients (n, D)."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value = objective(x, rows)
        if value.shape != rows.shape or value.dtype != x.dtype:
            raise ValueError(
                f"the objective must return {len(rows)} values of {x.dtype} for as many points, "
                f"got {tuple(value.shape)} of {value.dtype}"
            )
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def with_spare(rows: Tensor) -> Tensor:
    """Append copies of the last row, so that a row is rounded in the same way in any batch.

    Args:
        rows: (n,) row numbers.

    Returns:
        (n + 1,) or more, at least 16. On a CPU, results for the first n rows then do not depend on
        the number of rows.
    """
    if not len(rows):
        return rows
    return torch.cat([rows, rows[-1:].expand(max(LEAST_ROWS - len(rows), SPARE_ROWS))])


def minimize(
    objective: Objective,
    x0: Tensor,
    *,
    method: str = "lbfgs",
    max_iterations: int = 200,
    tolerance_gradient: float = 1e-5,
    tolerance_value: float = 1e-9,
    memory: int = 100,
    max_line_search: int = 25,
    learning_rate: float = 0.02,
    compact: bool = True,
    check_every: int | None = None,
) -> Solution:
    """Minimise P objectives, each over its own D numbers.

    Args:
        objective: Maps points (n, D) and the indices (n,) of their problems to values (n,), see
            `Objective`. It is evaluated for unfinished problems only.
        x0: (P, D) starting points, floating point, on any device.
        method: "lbfgs" (L-BFGS with a line search for the strong Wolfe conditions) or "adam".
        max_iterations: Maximum number of steps of a problem.
        tolerance_gradient: A problem has converged when no entry of its gradient is larger.
        tolerance_value: A problem has also converged when one step reduces its objective by no more
            than this, relative to max(|before|, |after|, 1), and its slope predicted no more.
        memory: Number of steps from which L-BFGS estimates the curvature.
        max_line_search: Maximum number of evaluations of one line search.
        learning_rate: Step length of Adam, in units of x.
        compact: Whether finished problems leave the batch. It does not change the result.
        check_every: Number of evaluations between two checks for finished problems, each of which
            synchronises with the device; if None, 1 on a CPU and 4 elsewhere.

    Returns:
        The best point of each problem, and its status. The solution of a problem does not depend
        on the other problems.

    Raises:
        TypeError: ``x0`` is not a floating-point tensor.
        ValueError: A shape or an option is out of range, or the objective returns another shape or
            dtype.

    References:
        Nocedal and Wright, *Numerical Optimization*, 2006, chapters 3 and 7. Kingma and Ba, *Adam:
        A Method for Stochastic Optimization*, 2015.
    """
    if not isinstance(x0, Tensor) or not x0.is_floating_point():
        kind = x0.dtype if isinstance(x0, Tensor) else type(x0).__name__
        raise TypeError(f"x0 must be a floating-point tensor, got {kind}")
    if x0.ndim != 2:
        raise ValueError(f"x0 must have shape (P, D), got {tuple(x0.shape)}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    for name, number in (("memory", memory), ("max_line_search", max_line_search)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    stopping = Stopping(max_iterations, tolerance_gradient, tolerance_value)
    every = check_every or (1 if x0.device.type == "cpu" else 4)

    def start(x: Tensor, value: Tensor, gradient: Tensor) -> Method:
        status = stopping.at_start(value, gradient)
        if method == "lbfgs":
            return Lbfgs.start(x, value, gradient, status, stopping, memory, max_line_search)
        return Adam.start(x, value, gradient, status, stopping, learning_rate)

    # Half precision is too coarse for differences of values.
    with without_autocast(x0.device):
        return _solve(objective, x0.detach(), start, every, compact=compact)


def _solve(
    objective: Objective,
    x0: Tensor,
    start: Callable[[Tensor, Tensor, Tensor], Method],
    every: int,
    *,
    compact: bool,
) -> Solution:
    problems = len(x0)
    rows = torch.arange(problems, device=x0.device)
    whole = x0.isfinite().all(dim=-1)
    best = x0.clone()
    counts = torch.zeros(4, problems, dtype=torch.int64, device=x0.device)
    numbers = torch.full((2, problems), torch.nan, dtype=x0.dtype, device=x0.device)
    result = Solution(best, numbers[0], numbers[1], counts[0], counts[1], counts[2])
    if not problems:
        return result

    number = problems
    rows = with_spare(rows)
    x = torch.where(whole[:, None], x0, 0.0)[rows]
    value, gradient = _evaluate(objective, x, rows)
    value = torch.where(whole[rows], value, torch.nan)
    state = start(x, value, gradient)
    evaluations = torch.ones_like(rows)

    while True:
        # The rows after the first ``number`` are copies.
        finished = state.status[:number] != Status.RUNNING
        over = int(finished.sum())
        if over == number or (compact and over * FINISHED_SHARE >= number):
            done = finished.nonzero()[:, 0]
            _write(result, rows[done], state.select(done), evaluations[done], whole)
            if over == number:
                return result
            left = with_spare((~finished).nonzero()[:, 0])
            state, rows, evaluations = state.select(left), rows[left], evaluations[left]
            number -= over
        for _ in range(every):
            running = state.status == Status.RUNNING
            state.observe(*_evaluate(objective, state.trial(), rows))
            evaluations = evaluations + running


def _write(
    result: Solution, rows: Tensor, state: Method, evaluations: Tensor, whole: Tensor
) -> None:
    result.x[rows] = torch.where(whole[rows][:, None], state.x, result.x[rows])
    result.value[rows] = state.value
    result.gradient_norm[rows] = state.gradient.abs().amax(dim=-1)
    result.status[rows] = state.status
    result.iterations[rows] = state.iterations
    result.evaluations[rows] = evaluations
