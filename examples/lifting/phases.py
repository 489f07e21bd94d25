"""Phases of a training: a regressor first, then the density around its answer; or both at once."""

import math
from typing import NamedTuple

__all__ = ["Phase", "phase_of"]


class Phase(NamedTuple):
    """Consecutive steps of a training that train the same part of a model.

    Attributes:
        part: ``"regressor"``, ``"flow"`` or ``"both"``.
        start: The first step.
        steps: Number of steps.
    """

    part: str
    start: int
    steps: int

    def cosine(self, step: int) -> float:
        """Factor of the learning rate in a step, from 1 at the start of the phase to 0 at its end.

        Args:
            step: The step, counted from the start of the training.
        """
        done = min(1.0, (step - self.start) / self.steps)
        return 0.5 * (1 + math.cos(math.pi * done))

    def warm_up(self, step: int) -> float:
        """Factor of the learning rate that rises to 1 over the first twentieth of the phase."""
        return min(1.0, (step - self.start + 1) / max(1, self.steps // 20))


def phase_of(step: int, steps: int, regressor_share: float) -> Phase:
    """The phase that a step belongs to. The last step always trains the density.

    Args:
        step: The step, from 0.
        steps: Number of steps of the whole training.
        regressor_share: Share of the steps, from 0 to below 1, in which only the regressor is
            trained. 0 trains both parts in every step.
    """
    if not regressor_share:
        return Phase("both", 0, steps)
    first = min(round(regressor_share * steps), steps - 1)
    if step < first:
        return Phase("regressor", 0, first)
    return Phase("flow", first, steps - first)
