"""Line searches for the strong Wolfe conditions, of many problems at once.

Each problem searches a step t along its direction that satisfies the conditions of sufficient
decrease and of curvature. It first extends the step until such steps lie in an interval (the
*bracket*), then narrows the bracket by cubic interpolation. Each problem is in its own phase of
this procedure; `LineSearch.observe` advances all of them by one evaluation, without branching on
their values, so the host does not wait for the device.

References:
    Nocedal and Wright, *Numerical Optimization*, 2006, algorithms 3.5 and 3.6, equation 3.59.
    Hager and Zhang, *A new conjugate gradient method with guaranteed descent*, 2005, section 4:
    near a minimum, rounding hides the decrease of the objective but not its slope.
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["LineSearch", "Outcome", "cubic_minimum", "select_rows"]

DECREASE = 1e-4  # c1
CURVATURE = 0.9  # c2
ROUNDING = 10.0  # tolerated increase of the objective, in units of rounding
FARTHEST = 10.0  # largest extension without a bracket, relative to the last step
SHRINK = 0.25  # position in a bracket whose far end is not finite

State = TypeVar("State")


def select_rows(state: State, rows: Tensor) -> State:
    """Select the rows of every tensor of a dataclass."""
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
    """Searches that ended with the last evaluation.

    Args:
        found: (n,) bool, whether the search ended with a step.
        failed: (n,) bool, whether the search ended without a step.
        step: (n,) the step that was found.
        value: (n,) objective at that step.
        gradient: (n, D) gradient at that step.
    """

    found: Tensor
    failed: Tensor
    step: Tensor
    value: Tensor
    gradient: Tensor


@dataclass
class LineSearch:
    """State of n line searches.

    The low end is the best step so far with sufficient decrease, initially 0; the high end is the
    other end of the bracket.

    Args:
        value: (n,) objective at step 0.
        slope: (n,) slope at step 0, negative.
        step: (n,) step to evaluate next.
        low: (n,) step of the low end.
        low_value: (n,) objective at the low end.
        low_slope: (n,) slope at the low end.
        low_gradient: (n, D) gradient at the low end.
        high: (n,) step of the high end, once there is a bracket.
        high_value: (n,) objective at the high end.
        high_slope: (n,) slope at the high end.
        bracketed: (n,) bool, whether there is a bracket.
        stalled: (n,) bool, whether the last interpolation came close to an end.
        evaluations: (n,) int64, number of evaluations of this search.
        overflow: (n,) bool, whether the objective was not finite at a step of this search.
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
        """Start searches at step 0, with the first steps (n,) to evaluate."""
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
        """Replace the searches by ``fresh`` ones where a mask (n,) is true."""
        for field in fields(self):
            old, new = getattr(self, field.name), getattr(fresh, field.name)
            mask = where[:, None] if old.ndim == 2 else where
            setattr(self, field.name, torch.where(mask, new, old))

    def observe(
        self, value: Tensor, slope: Tensor, gradient: Tensor, least_step: Tensor, most: int
    ) -> Outcome:
        """Process the objective at ``step`` and choose the next step.

        Args:
            value: (n,) objective at the step; may be NaN or infinite.
            slope: (n,) slope along the direction; likewise.
            gradient: (n, D) gradient; likewise.
            least_step: (n,) smallest width of a bracket that rounding leaves meaningful.
            most: Maximum number of evaluations of a search.

        Returns:
            The searches that have ended; their next step is meaningless until they are restarted.
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

        # A step with sufficient decrease but a steep slope becomes the low end. The previous low
        # end becomes the high end if the objective increases in the direction of the search.
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
    """Minimise the cubic given by values and slopes at two points, within bounds.

    Args:
        first: Position, value and slope, each (n,).
        second: The same at another position.
        low: (n,) lower bound.
        high: (n,) upper bound.

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
