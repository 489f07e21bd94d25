"""The solver: many independent problems, solved at once on one device.

`minimize` takes an objective of n points that gives n values, each of its own point, and solves
every problem as if it were alone: with its own step length, curvature, line search and end. One
evaluation of the objective serves all of them. Problems that are finished leave the batch, so they
stop costing time; one that meets NaN or infinity backs away from it, and if it cannot, it alone
stops where it was best.

    solution = minimize(lambda x, rows: (x - target[rows]).square().sum(-1), torch.zeros(64, 10))
    solution.x, solution.value, solution.status

No maintained PyTorch library was found that does this for general objectives (November 2026):
``torch.optim.LBFGS`` and ``torchmin`` solve one problem, joined or in a loop; ``torchimize`` and
``theseus`` take residuals with their Jacobians; BoTorch hands the batch to SciPy on the CPU as one
problem; NVIDIA's batched L-BFGS has no line search and is made for atoms.
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
"""Points (n, D) and the numbers (n,) of the problems that they belong to -> values (n,).

Each value may depend on its own point only. The tensor of numbers is the same object as long as the
same problems are asked for, so what belongs to them can be selected once and kept.
"""

METHODS = ("lbfgs", "adam")

# A problem takes the same path alone and in company, bit by bit, if every operation rounds its row
# alike. On a CPU, BLAS sums up fewer rows than these in another order, and other instructions may
# compute the last numbers of a batch: so there is always a spare row at its end.
LEAST_ROWS = 8
SPARE_ROWS = 1
FINISHED_SHARE = 8  # one in so many finished problems are worth copying the others together


@dataclass(frozen=True)
class Solution:
    """What became of P problems.

    Args:
        x: (P, D) the best point of each.
        value: (P,) the objective there.
        gradient_norm: (P,) the largest entry of the gradient there.
        status: (P,) int64 of `Status`.
        iterations: (P,) int64, steps taken.
        evaluations: (P,) int64, evaluations of the objective that the problem was part of.
    """

    x: Tensor
    value: Tensor
    gradient_norm: Tensor
    status: Tensor
    iterations: Tensor
    evaluations: Tensor

    @property
    def converged(self) -> Tensor:
        """(P,) bool, whether a tolerance was met."""
        return (self.status == Status.CONVERGED_GRADIENT) | (self.status == Status.CONVERGED_VALUE)

    def labels(self) -> list[str]:
        """The status of each, in words."""
        return [Status(code).label for code in self.status.tolist()]

    def counts(self) -> dict[str, int]:
        """How many problems ended in each way."""
        return dict(Counter(self.labels()))


class Method(Protocol):
    """n problems in the middle of being solved."""

    x: Tensor
    value: Tensor
    gradient: Tensor
    status: Tensor
    iterations: Tensor

    def trial(self) -> Tensor:
        """(n, D) where to evaluate next."""

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Take the evaluation (n,), (n, D) of the trial into account."""

    def select(self, rows: Tensor) -> "Method":
        """Only the problems of these rows."""


def _evaluate(objective: Objective, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n,) and gradients (n, D)."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value = objective(x, rows)
        if value.shape != rows.shape or value.dtype != x.dtype:
            raise ValueError(
                f"the objective must give {len(rows)} values of {x.dtype} for as many points, got "
                f"{tuple(value.shape)} of {value.dtype}"
            )
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def with_spare(rows: Tensor) -> Tensor:
    """Row numbers (n,), with copies of the last at their end.

    Whatever is computed for these rows is rounded alike in any batch, on a CPU.
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
        objective: Points (n, D) and the numbers (n,) of their problems -> values (n,); see
            `Objective`. It is asked about the problems that are not finished.
        x0: (P, D) starts, floating point, on any device.
        method: "lbfgs": limited-memory BFGS with a line search for the strong Wolfe conditions;
            or "adam".
        max_iterations: Steps a problem may take.
        tolerance_gradient: A problem is solved when no entry of its gradient is larger.
        tolerance_value: Or when over one step its objective fell by no more than this, relative to
            max(|before|, |after|, 1), and its slope did not promise more either.
        memory: Steps that L-BFGS learns curvature from.
        max_line_search: Evaluations one line search may take.
        learning_rate: Of Adam, in units of x.
        compact: Whether finished problems leave the batch. The result is the same.
        check_every: Evaluations between two looks at who is finished, for which the host waits for
            the device; 1 on a CPU and 4 elsewhere if None.

    Returns:
        The best point of each problem, and how it ended. The result of a problem does not depend on
        the others.

    Raises:
        TypeError: If ``x0`` is no tensor of floating point.
        ValueError: If a shape or an option is out of range, or the objective gives other values.
    """
    if not isinstance(x0, Tensor) or not x0.is_floating_point():
        kind = x0.dtype if isinstance(x0, Tensor) else type(x0).__name__
        raise TypeError(f"x0 must be a tensor of floating point, got {kind}")
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

    # Differences of half-precision values say nothing about the slope.
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
        # Of the first ``number`` rows; what follows are copies.
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
