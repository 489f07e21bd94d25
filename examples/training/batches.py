"""Numbered batches: batch k is a function of the seed and k, also after an interruption."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from examples.data.images import ImageBatch, Item, collate, init_worker
from examples.data.mixing import Mixture, MixtureSampler

__all__ = ["NumberedBatches", "Pace"]


class Pace:
    """Running means of the time of a step and of its wait for images.

    Args:
        memory: Approximate number of steps to average over.
    """

    def __init__(self, memory: int = 50) -> None:
        self.memory = memory
        self.steps = 0
        self.step_s = 0.0
        self.wait_s = 0.0
        self._last: float | None = None

    def step(self, wait_s: float) -> None:
        """Count a step that begins now, after a wait in seconds."""
        now = time.perf_counter()
        if self._last is not None:
            self.steps += 1
            share = max(1 / self.steps, 1 / self.memory)
            self.step_s += share * (now - self._last - self.step_s)
            self.wait_s += share * (wait_s - self.wait_s)
        self._last = now

    def pause(self) -> None:
        """Exclude the time until the next step."""
        self._last = None


class _Rows:
    """Lists of indices of the batches from ``start`` on, for a data loader."""

    def __init__(self, sampler: MixtureSampler, batch_size: int, start: int, total: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.numbers = range(start, total)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[int]]:
        sampler = self.sampler
        for number in self.numbers:
            first = number * self.batch_size + sampler.rank
            last = (number + 1) * self.batch_size
            yield [sampler.index(drawn) for drawn in range(first, last, sampler.world_size)]


class NumberedBatches:
    """Numbered batches of a mixture; a resumed training continues the count.

    Each device gets a share of every batch: its rows rank, rank + devices, ...

    Args:
        mixture: The data.
        total: Number of batches.
        batch_size: Rows of a batch over all devices, a multiple of their number.
        seed: Seed of the batches.
        rank: Index of this device.
        world_size: Number of devices.
        workers: Number of decoding processes; 0 decodes in this process.
        pin: Whether to put batches into page-locked memory.
    """

    def __init__(
        self,
        mixture: Mixture[Item],
        total: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} cannot be shared by {world_size} devices")
        self.mixture = mixture
        self.total = total
        self.batch_size = batch_size
        self.sampler = MixtureSampler(mixture, seed, rank=rank, world_size=world_size)
        self.workers = workers
        self.pin = pin
        self.pace = Pace()
        self.next = 0

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[tuple[int, ImageBatch]]:
        start, self.next = self.next, 0
        options: dict[str, Any] = {}
        if self.workers:
            # Workers must be children of this process to notice that it was killed: children of a
            # fork server, Python's default from 3.14 on, would run for ever. A process that uses a
            # GPU must not fork.
            forks = sys.platform == "linux" and not torch.cuda.is_available()
            options = {
                "prefetch_factor": 4,
                "multiprocessing_context": "fork" if forks else "spawn",
            }
        loader = DataLoader(
            self.mixture.dataset,
            batch_sampler=_Rows(self.sampler, self.batch_size, start, self.total),
            num_workers=self.workers,
            collate_fn=collate,
            worker_init_fn=init_worker,
            pin_memory=self.pin,
            **options,
        )
        asked = time.perf_counter()
        for number, batch in zip(range(start, self.total), loader, strict=True):
            self.pace.step(time.perf_counter() - asked)
            self.next = (number + 1) % self.total
            yield number, batch
            asked = time.perf_counter()

    def state_dict(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue with the batch of a saved state."""
        self.next = state["next"]
