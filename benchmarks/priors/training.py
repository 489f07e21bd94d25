"""Training of a network for a budget of CPU seconds."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Clock", "Recipe", "optimise"]

WARM_UP = 0.03


class Clock:
    """CPU seconds of this process since the clock was made.

    Args:
        budget: Seconds that training may take.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self._start = time.process_time()

    @property
    def seconds(self) -> float:
        """Seconds spent."""
        return time.process_time() - self._start

    @property
    def progress(self) -> float:
        """Share of the budget that is spent."""
        return self.seconds / self.budget


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        rate: Highest learning rate of AdamW.
        decay: Weight decay of matrices.
        batch: Poses in a step.
        clip: Largest norm of the gradient.
    """

    rate: float = 1e-3
    decay: float = 0.0
    batch: int = 256
    clip: float = 10.0


def optimise(
    loss: Callable[[], Tensor], parameters: Iterable[nn.Parameter], clock: Clock, recipe: Recipe
) -> int:
    """Train until the budget is spent: a short warm-up, then half a cosine.

    Args:
        loss: Computes the loss () of a new batch.
        parameters: The parameters to train.
        clock: The budget.
        recipe: How to train.

    Returns:
        The number of steps.
    """
    everything = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [each for each in everything if each.ndim > 1], "weight_decay": recipe.decay},
        {"params": [each for each in everything if each.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, fused=True)
    steps = 0
    while (progress := clock.progress) < 1:
        rate = recipe.rate * _cycle(progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(everything, recipe.clip)
        optimizer.step()
        steps += 1
    return steps


def _cycle(progress: float) -> float:
    if progress < WARM_UP:
        return progress / WARM_UP + 1e-3
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) + 1e-4
