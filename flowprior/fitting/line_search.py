"""Line searches of many problems at once: the strong Wolfe conditions, one evaluation at a time.

Each problem looks for a step t along its direction where the objective has fallen enough and its
slope has flattened enough. First it goes further until such steps must lie behind it (it has a
*bracket*), then it narrows the bracket by cubic interpolation. Every problem is at a place of its
own in that procedure; `LineSearch.observe` moves all of them on by one evaluation, without a branch
on their values, so nothing waits for anything.

References:
    Nocedal and Wright, *Numerical Optimization*, 2006, algorithms 3.5 and 3.6, equation 3.59.
    Hager and Zhang, *A new conjugate gradient method with guaranteed descent*, 2005, section 4:
    near a minimum the fall of the objective is lost to rounding, while its slope is not.
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["LineSearch", "Outcome", "cubic_minimum", "select_rows"]

DECREASE = 1e-4  # c1
CURVATURE = 0.9  # c2
ROUNDING = 10.0  # how many units of rounding the objective may rise
FARTHEST = 10.0  # times the last step, without a bracket
SHRINK = 0.25  # towards the good end, when the objective was not finite at the other

State = TypeVar("State")


def select_rows(state: State, rows: Tensor) -> State:
    """The same dataclass of tensors, with some of its problems (rows of every tensor) only."""
    chosen = {
        field.name: (
            value.index_select(0, rows)
            if isinstance(value := getattr(state, field.name), Tensor)
            else value
        )
        for field in fields(state)  # type: ignore[arg-type]
    }
    return type(state)(**chosen)


@dataclass(frozen=True)
class Outcome:
    """Which searches have ended with the last evaluation, and where.

    Args:
        found: (n,) bool, a step was found: ``step``, ``value`` and ``gradient`` are of it.
        failed: (n,) bool, the search is over and there is none.
        step: (n,).
        value: (n,).
        gradient: (n, D).
    """

    found: Tensor
    failed: Tensor
    step: Tensor
    value: Tensor
    gradient: Tensor


@dataclass
class LineSearch:
    """Where n searches stand.

    The low end is the best step so far that fell enough, at first 0; the high end lies on the other
    side of the steps that are wanted.

    Args:
        value: (n,) at step 0.
        slope: (n,) at step 0, negative.
        step: (n,) the one to evaluate next.
        low: (n,) step of the low end; ``low_value``, ``low_slope`` and ``low_gradient`` (n, D).
        low_value: (n,).
        low_slope: (n,).
        low_gradient: (n, D).
        high: (n,) step of the high end, once there is a bracket; ``high_value``, ``high_slope``.
        high_value: (n,).
        high_slope: (n,).
        bracketed: (n,) bool.
        stalled: (n,) bool, the last interpolation came close to an end.
        evaluations: (n,) int64 of this search.
        overflow: (n,) bool, the objective was not finite somewhere in this search.
    """

    value: Tensor
    slope: Tensor
    step: Tensor
    low: Tensor
    low_value: Tensor
    low_slope: Tensor
    low_gradient: Tensor
    high: Tensor
    high_value: Tensor
    high_slope: Tensor
    bracketed: Tensor
    stalled: Tensor
    evaluations: Tensor
    overflow: Tensor

    @classmethod
    def start(cls, value: Tensor, gradient: Tensor, slope: Tensor, step: Tensor) -> "LineSearch":
        """Searches from step 0, with the steps to try first."""
        zero = torch.zeros_like(value)
        never = torch.zeros_like(value, dtype=torch.bool)
        return cls(
            value=value,
            slope=slope,
            step=step,
            low=zero,
            low_value=value,
            low_slope=slope,
            low_gradient=gradient,
            high=zero,
            high_value=zero,
            high_slope=zero,
            bracketed=never,
            stalled=never,
            evaluations=torch.zeros_like(value, dtype=torch.int64),
            overflow=never,
        )

    def restart(self, where: Tensor, fresh: "LineSearch") -> None:
        """Begin the searches of a mask (n,) anew."""
        for field in fields(self):
            old, new = getattr(self, field.name), getattr(fresh, field.name)
            mask = where[:, None] if old.ndim == 2 else where
            setattr(self, field.name, torch.where(mask, new, old))

    def observe(
        self, value: Tensor, slope: Tensor, gradient: Tensor, least_step: Tensor, most: int
    ) -> Outcome:
        """Take the objective at ``step`` into account and choose the next step.

        Args:
            value: (n,) at the step; may be NaN or infinite.
            slope: (n,) likewise: the gradient along the direction.
            gradient: (n, D) likewise.
            least_step: (n,) width below which a bracket holds nothing that rounding would not lose.
            most: Evaluations after which a search ends.

        Returns:
            The searches that have ended; their next step is meaningless until they start again.
        """
        finite = value.isfinite() & slope.isfinite() & gradient.isfinite().all(dim=-1)
        value = torch.where(finite, value, torch.inf)
        slope = torch.where(finite, slope, 0.0)
        gradient = torch.where(finite[:, None], gradient, 0.0)
        self.evaluations = self.evaluations + 1
        self.overflow = self.overflow | ~finite

        slack = ROUNDING * torch.finfo(value.dtype).eps * self.value.abs()
        fell = value <= self.value + DECREASE * self.step * self.slope + slack
        high = ~fell | (value > self.low_value + slack)
        flat = slope.abs() <= -CURVATURE * self.slope
        found = ~high & flat

        # A step that is low but still steep is the new low end. The old one bounds it from the
        # other side if the objective rises towards where the search went.
        towards = torch.where(self.bracketed, self.high - self.low, torch.ones_like(value))
        crossed = ~high & (slope * towards >= 0)
        last, last_value, last_slope = self.low, self.low_value, self.low_slope
        self.high = _pick(high, self.step, crossed, last, self.high)
        self.high_value = _pick(high, value, crossed, last_value, self.high_value)
        self.high_slope = _pick(high, slope, crossed, last_slope, self.high_slope)
        self.low = torch.where(high, last, self.step)
        self.low_value = torch.where(high, last_value, value)
        self.low_slope = torch.where(high, last_slope, slope)
        self.low_gradient = torch.where(high[:, None], self.low_gradient, gradient)
        self.bracketed = self.bracketed | high | crossed

        narrow = self.bracketed & ((self.high - self.low).abs() <= least_step)
        over = ~found & (narrow | (self.evaluations >= most))
        progress = self.low > 0
        outcome = Outcome(
            found | (over & progress),
            over & ~progress,
            self.low,
            self.low_value,
            self.low_gradient,
        )
        self._choose_step(last, last_value, last_slope)
        return outcome

    def _choose_step(self, last: Tensor, last_value: Tensor, last_slope: Tensor) -> None:
        farther = cubic_minimum(
            (last, last_value, last_slope),
            (self.low, self.low_value, self.low_slope),
            self.low + 0.01 * (self.low - last),
            FARTHEST * self.low,
        )
        left, right = torch.minimum(self.low, self.high), torch.maximum(self.low, self.high)
        between = cubic_minimum(
            (self.low, self.low_value, self.low_slope),
            (self.high, self.high_value, self.high_slope),
            left,
            right,
        )
        width = right - left
        at_end = torch.minimum(right - between, between - left) < 0.1 * width
        inside = torch.minimum(torch.maximum(between, left + 0.1 * width), right - 0.1 * width)
        outside = (between <= left) | (between >= right)
        pushed = at_end & (self.stalled | outside)
        between = torch.where(pushed, inside, between)
        blind = ~self.high_value.isfinite()
        between = torch.where(blind, self.low + SHRINK * (self.high - self.low), between)
        self.stalled = self.bracketed & at_end & ~pushed & ~blind
        self.step = torch.where(self.bracketed, between, farther)


def _pick(first: Tensor, a: Tensor, second: Tensor, b: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(first, a, torch.where(second, b, otherwise))


def cubic_minimum(
    first: tuple[Tensor, Tensor, Tensor],
    second: tuple[Tensor, Tensor, Tensor],
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Where the cubic through two points with their slopes is least, within bounds.

    Args:
        first: Place, value and slope, each (n,).
        second: Likewise; another place.
        low: (n,) bound.
        high: (n,) bound, not below the other.

    Returns:
        (n,); the middle of the bounds where the cubic has no minimum or a number is not finite.

    References:
        Nocedal and Wright, 2006, equation 3.59.
    """
    (x1, f1, g1), (x2, f2, g2) = first, second
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1.square() - g1 * g2
    d2 = square.clamp(min=0).sqrt() * (x2 - x1).sign()
    place = x2 - (x2 - x1) * (g2 + d2 - d1) / (g2 - g1 + 2 * d2)
    usable = place.isfinite() & (square >= 0)
    bounded = torch.minimum(torch.maximum(place, low), high)
    return torch.where(usable, bounded, (low + high) / 2)
