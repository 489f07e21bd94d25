"""The short training loop of the demo and the study: one process, a few thousand steps."""

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from examples.data.virtual_views import Views
from examples.lifting.methods import TrainedLifter
from examples.lifting.views import ViewSource

__all__ = ["Schedule", "fit", "single_thread", "training_views"]

AnyLifter = TypeVar("AnyLifter", bound=TrainedLifter)


@dataclass(frozen=True)
class Schedule:
    """Training schedule of a lifter.

    Args:
        steps: Optimisation steps.
        batch_size: Views per step.
        learning_rate: Learning rate of AdamW after the warm-up; it decays to zero along a cosine.
        weight_decay: Weight decay of AdamW.
        seed: Seed of the views.
        clip: Greatest norm of the gradient.
    """

    steps: int = 2400
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    seed: int = 0
    clip: float = 50.0


def training_views(
    source: ViewSource, batch_size: int, seed: int, device: torch.device
) -> Iterator[Views]:
    """Endless batches of views, determined by the seed."""
    generator = torch.Generator(device).manual_seed(seed)
    while True:
        yield source.draw(batch_size, generator)


def fit(
    lifter: AnyLifter, source: ViewSource, schedule: Schedule, name: str = "", unit: str = ""
) -> AnyLifter:
    """Train a lifter.

    Args:
        lifter: The lifter, on the device of the views.
        source: Training views.
        schedule: The training schedule.
        name: Label of the progress bar.
        unit: Unit of the loss, for the progress bar.

    Returns:
        The same lifter, in evaluation mode.
    """
    lifter.train()
    parameters = list(lifter.parameters())
    optimizer = torch.optim.AdamW(
        parameters, schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    warm_up = max(1, schedule.steps // 20)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        ),
    )
    batches = training_views(source, schedule.batch_size, schedule.seed, parameters[0].device)
    with torch.no_grad():
        # Sets the scale of a flow from data. Other lifters get the same start.
        lifter.loss(next(batches))

    # A line every few seconds if the output is not a terminal.
    pause = 0.1 if sys.stderr.isatty() else 10.0
    smooth = None
    with tqdm(total=schedule.steps, desc=name, unit="step", mininterval=pause, ncols=88) as bar:
        for _ in range(schedule.steps):
            loss = lifter.loss(next(batches))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
            optimizer.step()
            rate.step()
            value = loss.detach()
            smooth = value if smooth is None else smooth + 0.05 * (value - smooth)
            if bar.update():
                bar.set_postfix_str(f"loss {float(smooth):.2f} {unit}", refresh=False)
        if smooth is not None:
            bar.set_postfix_str(f"loss {float(smooth):.2f} {unit}")
    return lifter.eval()


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Keep PyTorch's CPU operations on one thread.

    The matrices are too small for a second thread to help much, and if another program uses the
    cores, threads that wait for each other take ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
