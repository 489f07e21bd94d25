"""Training of one row for a budget of CPU seconds."""

import math
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from benchmarks.density_study.data import Augmentation, People
from benchmarks.density_study.models import Model

__all__ = ["Cost", "Schedule", "train"]

BATCH = 256
WARM_UP = 0.05
CLIP = 50.0


@dataclass(frozen=True)
class Schedule:
    """How a row is trained.

    Args:
        rate: Highest learning rate.
        decay: Weight decay.
        alone: Share of the steps in which the regressor is trained alone.
    """

    rate: float = 6e-3
    decay: float = 0.1
    alone: float = 0.0


def train(
    model: nn.Module,
    people: People,
    steps: int,
    schedule: Schedule,
    augmentation: Augmentation,
    seed: int,
    stop: int | None = None,
) -> nn.Module:
    """Train with AdamW, one cycle of the learning rate for the regressor and one for the flow.

    Args:
        model: A `Model`.
        people: Training subjects.
        steps: Number of steps.
        schedule: How the row is trained.
        augmentation: Changes of the people.
        seed: Seed of views and batches.
        stop: Stop after this many steps, to measure their cost.

    Returns:
        The model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    regressor = cast(Any, model).regressor()
    known = {id(each) for each in regressor}
    flow = [each for each in model.parameters() if id(each) not in known and each.requires_grad]
    first = round(schedule.alone * steps)
    optimizer = torch.optim.AdamW(
        [
            {"params": regressor},
            {"params": [each for each in flow if each.ndim > 1]},
            # Log-scales, and the triangles of the linear maps.
            {"params": [each for each in flow if each.ndim < 2], "weight_decay": 0.0},
        ],
        lr=schedule.rate,
        weight_decay=schedule.decay,
        fused=True,
    )
    model.train()
    for step in range(steps if stop is None else stop):
        optimizer.param_groups[0]["lr"] = schedule.rate * _cycle(step / steps)
        for group in optimizer.param_groups[1:]:
            group["lr"] = schedule.rate * _cycle((step - first) / max(steps - first, 1))
        rows = people.random(BATCH, generator)
        example = people.examples(rows, generator, augmentation)
        loss = cast(Model, model).loss(example, regressor_only=step < first)
        optimizer.zero_grad()
        loss.backward()
        for part in (regressor, flow):
            torch.nn.utils.clip_grad_norm_(part, CLIP)
        optimizer.step()
    return model.eval()


def _cycle(progress: float) -> float:
    """Linear warm-up, then half a cosine; 0 before the start."""
    if progress < 0:
        return 0.0
    if progress < WARM_UP:
        return progress / WARM_UP + 1e-3
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) + 1e-4


class Cost:
    """CPU seconds per step of a row, over both phases, measured in rounds.

    Args:
        model: A new `Model`, which is trained on the way.
        people: Training subjects.
        schedule: How the row is trained.
        augmentation: Changes of the people.
    """

    def __init__(
        self, model: nn.Module, people: People, schedule: Schedule, augmentation: Augmentation
    ) -> None:
        self._model, self._people = model, people
        self._schedule, self._augmentation = schedule, augmentation
        self._rounds: list[float] = []

    def measure(self, few: int = 4) -> None:
        """Train for a few steps of each phase."""
        cost = []
        for alone in (1.0, 0.0):
            self._steps(alone, 1)
            start = time.process_time()
            self._steps(alone, few)
            cost.append((time.process_time() - start) / few)
        share = self._schedule.alone
        self._rounds.append(share * cost[0] + (1 - share) * cost[1])

    def _steps(self, alone: float, few: int) -> None:
        phase = replace(self._schedule, alone=alone)
        train(self._model, self._people, 1000, phase, self._augmentation, 0, stop=few)

    @property
    def seconds(self) -> float:
        """Median of the rounds."""
        return statistics.median(self._rounds)
