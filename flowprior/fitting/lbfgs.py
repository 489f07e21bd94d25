"""L-BFGS for many problems at once, each with its own curvature, step and termination.

One call of `Lbfgs.observe` processes one evaluation of all problems: some continue their line
search; others have found a step, update their curvature and choose a new direction.

The inverse Hessian of the last m steps is applied in compact form, by products with two (n, m, D)
arrays and triangular solves of (n, m, m): a fixed number of operations for all problems instead of
a loop over the m steps. Steps are scaled so that s^T y = 1, which does not change the update and
keeps the triangles well conditioned in float32.

References:
    Byrd, Nocedal and Schnabel, *Representations of quasi-Newton matrices and their use in limited
    memory methods*, 1994, theorem 2.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.fitting.line_search import LineSearch, select_rows
from flowprior.fitting.status import Status, Stopping

__all__ = ["Curvature", "Lbfgs"]

LEAST_COSINE = 10.0  # between a step and its change of gradient, in units of rounding
ROUNDING = 8.0  # smallest predicted decrease that rounding leaves visible, in units of rounding


@dataclass
class Curvature:
    """Curvature of n problems, estimated from their last m steps.

    Step k is stored in row k mod m; empty rows are zero.

    Args:
        s: (n, m, D) steps.
        y: (n, m, D) changes of the gradient over them.
        sy: (n, m, m) products s_i^T y_j.
        yy: (n, m, m) products y_i^T y_j.
        count: (n,) int64, number of steps stored so far.
        scale: (n,) scale of the initial inverse Hessian.
    """

    s: Tensor
    y: Tensor
    sy: Tensor
    yy: Tensor
    count: Tensor
    scale: Tensor

    @classmethod
    def none(cls, gradient: Tensor, memory: int) -> "Curvature":
        """Empty curvature of problems with gradients (n, D)."""
        n, features = gradient.shape
        pairs, square = (gradient.new_zeros(n, memory, width) for width in (features, memory))
        count = torch.zeros(n, dtype=torch.int64, device=gradient.device)
        return cls(pairs, pairs.clone(), square, square.clone(), count, gradient.new_ones(n))

    def learn(self, where: Tensor, s: Tensor, y: Tensor) -> None:
        """Store steps s and changes of the gradient y, both (n, D), where a mask (n,) is true.

        Steps with negative or negligible curvature are skipped.
        """
        product = (s * y).sum(dim=-1)
        least = LEAST_COSINE * torch.finfo(s.dtype).eps * s.norm(dim=-1) * y.norm(dim=-1)
        where = where & (product > least) & y.isfinite().all(dim=-1)
        root = 1 / torch.where(where, product, 1.0).sqrt()[:, None]
        s, y = (torch.where(where[:, None], value * root, 0.0) for value in (s, y))
        rows = torch.arange(len(s), device=s.device)
        place = self.count % self.s.shape[1]
        keep = where[:, None]
        self.s[rows, place] = torch.where(keep, s, self.s[rows, place])
        self.y[rows, place] = torch.where(keep, y, self.y[rows, place])
        # Each product sums over the same rows, so that a row is the same in any batch.
        s_y = torch.einsum("nd,nmd->nm", s, self.y)
        y_s = torch.einsum("nd,nmd->nm", y, self.s)
        y_y = torch.einsum("nd,nmd->nm", y, self.y)
        self.sy[rows, place] = torch.where(keep, s_y, self.sy[rows, place])
        self.sy[rows, :, place] = torch.where(keep, y_s, self.sy[rows, :, place])
        self.yy[rows, place] = torch.where(keep, y_y, self.yy[rows, place])
        self.yy[rows, :, place] = torch.where(keep, y_y, self.yy[rows, :, place])
        self.count = self.count + where
        self.scale = torch.where(where, 1 / y.square().sum(dim=-1), self.scale)

    def forget(self, where: Tensor) -> None:
        """Discard the curvature where a mask (n,) is true."""
        keep = ~where
        for name in ("s", "y", "sy", "yy"):
            value = getattr(self, name)
            setattr(self, name, torch.where(keep[:, None, None], value, 0.0))
        self.count = self.count * keep
        self.scale = torch.where(keep, self.scale, 1.0)

    def newton_step(self, gradient: Tensor) -> Tensor:
        """Minus the inverse Hessian times the gradients (n, D)."""
        memory = self.s.shape[1]
        slots = torch.arange(memory, device=gradient.device)
        by_age = (self.count[:, None] + slots) % memory  # rows, oldest first
        age = (slots - self.count[:, None]) % memory  # its inverse

        def aged(square: Tensor) -> Tensor:
            rows = square.gather(1, by_age[:, :, None].expand_as(square))
            return rows.gather(2, by_age[:, None, :].expand_as(square))

        triangle = aged(self.sy).triu(1)
        scale = self.scale[:, None]
        p = torch.einsum("nmd,nd->nm", self.s, gradient).gather(1, by_age)[..., None]
        q = torch.einsum("nmd,nd->nm", self.y, gradient).gather(1, by_age)[..., None]
        # The diagonal is one, also in empty rows.
        u = torch.linalg.solve_triangular(triangle, p, upper=True, unitriangular=True)
        right = u + scale[..., None] * (aged(self.yy) @ u - q)
        v = torch.linalg.solve_triangular(triangle.mT, right, upper=False, unitriangular=True)
        u, v = (value[..., 0].gather(1, age) for value in (u, v))
        change = _weighted_sum(v, self.s) - scale * _weighted_sum(u, self.y)
        return -(scale * gradient + change)


@dataclass
class Lbfgs:
    """State of L-BFGS for n problems.

    Args:
        x: (n, D) current points.
        value: (n,) objective at the current points.
        gradient: (n, D) gradients at the current points.
        direction: (n, D) search directions.
        status: (n,) int64, values of `Status`.
        iterations: (n,) int64, number of steps.
        curvature: Curvature of the last steps.
        search: The line searches.
        stopping: Stopping criteria.
        most: Maximum number of evaluations of a line search.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    status: Tensor
    iterations: Tensor
    curvature: Curvature
    search: LineSearch
    stopping: Stopping
    most: int

    @classmethod
    def start(
        cls,
        x: Tensor,
        value: Tensor,
        gradient: Tensor,
        status: Tensor,
        stopping: Stopping,
        memory: int,
        most: int,
    ) -> "Lbfgs":
        """Start from points (n, D) with values (n,) and gradients (n, D)."""
        direction, slope, step = _steepest(gradient)
        return cls(
            x=x,
            value=value,
            gradient=gradient,
            direction=direction,
            status=status,
            iterations=torch.zeros_like(status),
            curvature=Curvature.none(gradient, memory),
            search=LineSearch.start(value, gradient, slope, step),
            stopping=stopping,
            most=most,
        )

    def select(self, rows: Tensor) -> "Lbfgs":
        """The state of the problems ``rows``."""
        chosen = select_rows(self, rows)
        chosen.curvature = select_rows(self.curvature, rows)
        chosen.search = select_rows(self.search, rows)
        return chosen

    def trial(self) -> Tensor:
        """Points (n, D) to evaluate next; the current points of finished problems."""
        step = torch.where(self.status == Status.RUNNING, self.search.step, 0.0)
        return self.x + step[:, None] * self.direction

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Process values (n,) and gradients (n, D) at the trial points of unfinished problems."""
        running = self.status == Status.RUNNING
        slope = (gradient * self.direction).sum(dim=-1)
        eps = torch.finfo(value.dtype).eps
        reach = self.direction.abs().amax(dim=-1).clamp(min=torch.finfo(value.dtype).tiny)
        least_step = eps * (1 + self.x.abs().amax(dim=-1)) / reach
        start_slope = self.search.slope
        outcome = self.search.observe(value, slope, gradient, least_step, self.most)
        overflow = self.search.overflow
        found, failed = outcome.found & running, outcome.failed & running

        s = outcome.step[:, None] * self.direction
        self.curvature.learn(found, s, outcome.gradient - self.gradient)
        ended = self.stopping.status_after(
            self.value, outcome.value, -outcome.step * start_slope / 2, outcome.gradient
        )
        self.iterations = self.iterations + found
        ended = self.stopping.out_of_iterations(ended, self.iterations)
        moved = found[:, None]
        self.x = torch.where(moved, self.x + s, self.x)
        self.gradient = torch.where(moved, outcome.gradient, self.gradient)
        self.value = torch.where(found, outcome.value, self.value)

        # After a failed search, the negative gradient is tried once; if that fails too, it ends.
        last_chance = self.curvature.count == 0
        hopeless = failed & last_chance
        size = self.value.abs().clamp(min=1)
        promised = -start_slope / 2
        invisible = promised <= ROUNDING * eps * size
        solved = failed & ~last_chance & (promised <= self.stopping.tolerance_value * size)
        why = torch.where(
            overflow,
            Status.NON_FINITE,
            torch.where(invisible, Status.CONVERGED_VALUE, Status.LINE_SEARCH_FAILED),
        )
        why = torch.where(solved, Status.CONVERGED_VALUE, why)
        self.status = torch.where(found, ended, torch.where(hopeless | solved, why, self.status))
        self.curvature.forget(failed)
        self._set_out(found | failed)

    def _set_out(self, where: Tensor) -> None:
        """Choose new directions where a mask (n,) is true."""
        direction = self.curvature.newton_step(self.gradient)
        slope = (direction * self.gradient).sum(dim=-1)
        steepest, steepest_slope, short = _steepest(self.gradient)
        usable = (slope < 0) & slope.isfinite() & (self.curvature.count > 0)
        self.curvature.forget(where & ~usable)
        direction = torch.where(usable[:, None], direction, steepest)
        slope = torch.where(usable, slope, steepest_slope)
        step = torch.where(usable, 1.0, short)
        self.direction = torch.where(where[:, None], direction, self.direction)
        self.search.restart(where, LineSearch.start(self.value, self.gradient, slope, step))


def _steepest(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The negative gradient (n, D), the slope (n,) along it, and a first step (n,)."""
    size = gradient.abs().sum(dim=-1).clamp(min=torch.finfo(gradient.dtype).tiny)
    return -gradient, -gradient.square().sum(dim=-1), (1 / size).clamp(max=1)


def _weighted_sum(weight: Tensor, pairs: Tensor) -> Tensor:
    """Sum pairs (n, m, D) with weights (n, m) to (n, D).

    The weights are repeated to several rows, because BLAS rounds a single row depending on its
    position in the batch.
    """
    rows = weight[:, None].expand(-1, 4, -1)
    return (rows @ pairs)[:, 0]
