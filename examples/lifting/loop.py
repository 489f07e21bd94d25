"""The short training loop of the demo and the study: one process, a few thousand steps."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from examples.data.virtual_views import Views
from examples.lifting.methods import TrainedLifter
from examples.lifting.phases import phase_of
from examples.lifting.views import ViewSource

__all__ = ["Schedule", "fit", "single_thread", "training_views"]

AnyLifter = TypeVar("AnyLifter", bound=TrainedLifter)


@dataclass(frozen=True)
class Schedule:
    """Training schedule of a lifter.

    Args:
        steps: Optimisation steps.
        batch_size: Views per step.
        learning_rate: Learning rate of AdamW after the warm-up; it decays to zero along a cosine,
            in each phase of the training.
        weight_decay: Weight decay of AdamW.
        seed: Seed of the views.
        clip: Greatest norm of the gradient.
        flow_learning_rate: Learning rate of a phase that trains the flow alone.
    """

    steps: int = 2400
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    seed: int = 0
    clip: float = 50.0
    flow_learning_rate: float = 3e-3


def training_views(
    source: ViewSource, batch_size: int, seed: int, device: torch.device
) -> Iterator[Views]:
    """Endless batches of views, determined by the seed."""
    generator = torch.Generator(device).manual_seed(seed)
    while True:
        yield source.draw(batch_size, generator)


def fit(lifter: AnyLifter, source: ViewSource, schedule: Schedule, name: str = "") -> AnyLifter:
    """Train a lifter.

    Args:
        lifter: The lifter, on the device of the views.
        source: Training views.
        schedule: The training schedule.
        name: Label of the progress bar.

    Returns:
        The same lifter, in evaluation mode.
    """
    lifter.train()
    parameters = list(lifter.parameters())
    optimizer = torch.optim.AdamW(
        parameters, schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )

    def factor(step: int) -> float:
        phase = phase_of(step, schedule.steps, lifter.regressor_share)
        of_phase = schedule.flow_learning_rate if phase.part == "flow" else schedule.learning_rate
        return of_phase / schedule.learning_rate * phase.warm_up(step) * phase.cosine(step)

    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches = training_views(source, schedule.batch_size, schedule.seed, parameters[0].device)
    with torch.no_grad():
        # Sets the scale of a flow from data. Other lifters get the same start.
        lifter.loss_of(phase_of(0, schedule.steps, lifter.regressor_share).part, next(batches))

    # A line every few seconds if the output is not a terminal.
    pause = 0.1 if sys.stderr.isatty() else 10.0
    smooth = None
    with tqdm(total=schedule.steps, desc=name, unit="step", mininterval=pause, ncols=88) as bar:
        for step in range(schedule.steps):
            part = phase_of(step, schedule.steps, lifter.regressor_share).part
            if part == "flow" and lifter.needs_scale:
                smooth = None  # from metres to nats
                with torch.no_grad():
                    lifter.loss_of(part, next(batches))
            loss = lifter.loss_of(part, next(batches))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
            optimizer.step()
            rate.step()
            value = loss.detach()
            smooth = value if smooth is None else smooth + 0.05 * (value - smooth)
            if bar.update():
                bar.set_postfix_str(f"loss {float(smooth):.3g}", refresh=False)
        if smooth is not None:
            bar.set_postfix_str(f"loss {float(smooth):.3g}")
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
