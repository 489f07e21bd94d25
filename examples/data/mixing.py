"""Mixtures of data sets in given proportions; missing data sets are skipped.

The n-th draw depends on the seed and n only: not on the number of worker processes or devices, nor
on where a run was interrupted.
"""

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Sampler, WeightedRandomSampler

__all__ = ["Mixture", "MixtureSampler", "derive_seed", "mix"]

T = TypeVar("T")

BLOCK = 4096  # indices drawn at once, from one generator


@dataclass(frozen=True)
class Mixture(Generic[T]):
    """Concatenated data sets and the probability of each.

    Args:
        dataset: All rows of all of them.
        shares: Probabilities by name, in the order of ``dataset``; their sum is 1.
        lengths: Rows of each.
        missing: Names that have a weight but no rows.
    """

    dataset: ConcatDataset[T]
    shares: Mapping[str, float]
    lengths: Mapping[str, int]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """Description for display, a line for each data set."""
        lines = [
            f"{name}: {100 * share:.1f} % of what is drawn, {self.lengths[name]} rows"
            for name, share in self.shares.items()
        ]
        return "\n".join([*lines, *(f"{name}: missing" for name in self.missing)])


def mix(datasets: Mapping[str, Dataset[T] | None], weights: Mapping[str, float]) -> Mixture[T]:
    """Mix the available data sets in the proportions of their weights.

    Args:
        datasets: Map-style data sets by name. None and those without rows count as missing.
        weights: Relative sampling weights. Names without a data set are missing, and the others
            are sampled more often.

    Returns:
        The mixture of those with rows and a positive weight, in the order of the weights.

    Raises:
        ValueError: All data sets are missing, one has no weight, or a weight is negative or not
            finite.
    """
    unweighted = [name for name in datasets if name not in weights]
    if unweighted:
        raise ValueError(
            f"expected a weight for every data set, none for {', '.join(unweighted)}; "
            f"there are weights for {', '.join(weights)}"
        )
    for name, weight in weights.items():
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"expected weights from 0 up, got {weight} for {name}")
    present: dict[str, Dataset[T]] = {}
    missing = []
    for name, weight in weights.items():
        dataset = datasets.get(name)
        if dataset is None or not len(cast(Sized, dataset)):
            missing.append(name)
        elif weight:
            present[name] = dataset
    if not present:
        raise ValueError(
            f"expected at least one data set with rows and a weight, of {', '.join(weights)}"
        )
    total = sum(weights[name] for name in present)
    return Mixture(
        dataset=ConcatDataset(present.values()),
        shares={name: weights[name] / total for name in present},
        lengths={name: len(cast(Sized, dataset)) for name, dataset in present.items()},
        missing=tuple(missing),
    )


class MixtureSampler(Sampler[int]):
    """Samples indices into ``mixture.dataset``: first a data set by share, then one of its rows.

    The n-th index of all devices together is a function of the seed and n. Each device takes every
    ``world_size``-th, so no two draw the same ones. Every device has the same number per
    iteration; the next iteration continues behind it.

    For an exact resume set ``drawn`` to the number of items trained on, over all devices: steps
    times batch size times devices. `state_dict` contains the number of indices handed
    out, which is larger if workers read ahead. With Lightning, pass
    ``use_distributed_sampler=False`` to the trainer.

    Args:
        mixture: What to draw from.
        seed: From 0 up.
        num_samples: Indices of one iteration, over all devices; the rows of all data sets together
            if None. The remainder of the division among devices is not drawn.
        rank: Index of this device; None asks ``torch.distributed``.
        world_size: Number of devices; None asks ``torch.distributed``.
        drawn: Number of indices drawn before.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        mixture: Mixture[Any],
        seed: int = 0,
        *,
        num_samples: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        drawn: int = 0,
    ) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if distributed else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if distributed else 1
        if num_samples is None:
            num_samples = len(mixture.dataset)
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank from 0 to {world_size - 1}, got {rank}")
        if seed < 0 or drawn < 0:
            raise ValueError(f"expected seed and drawn from 0 up, got {seed} and {drawn}")
        if num_samples < world_size:
            raise ValueError(
                f"expected at least one sample for each of {world_size} devices, got {num_samples}"
            )
        self.mixture = mixture
        self.seed = seed
        self.drawn = drawn
        self.rank = rank
        self.world_size = world_size
        self._shares = list(mixture.shares.values())
        self._lengths = torch.tensor(list(mixture.lengths.values()))
        self._starts = self._lengths.cumsum(0) - self._lengths
        self._num_samples = num_samples // world_size
        self._block, self._indices = -1, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        """Indices of one iteration on this device."""
        return self._num_samples

    def __iter__(self) -> Iterator[int]:
        for _ in range(len(self)):
            index = self.index(self.drawn + self.rank)
            self.drawn += self.world_size
            yield index

    def index(self, number: int) -> int:
        """The ``number``-th index of all devices, from 0 up."""
        block, place = divmod(number, BLOCK)
        if block != self._block:
            self._block, self._indices = block, self._draw(block)
        return int(self._indices[place])

    def _draw(self, block: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, block))
        of = torch.tensor(list(WeightedRandomSampler(self._shares, BLOCK, generator=generator)))
        unit = torch.rand(BLOCK, generator=generator, dtype=torch.float64)
        return self._starts[of] + (unit * self._lengths[of]).long()

    def state_dict(self) -> dict[str, Any]:
        """The state to save; see above for an exact resume."""
        return {
            "drawn": self.drawn,
            "seed": self.seed,
            "shares": dict(self.mixture.shares),
            "lengths": dict(self.mixture.lengths),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another sampler stopped, on any number of devices.

        Raises:
            ValueError: The other sampler had another mixture or seed.
        """
        mine = self.state_dict()
        for name in ("seed", "shares", "lengths"):
            if state[name] != mine[name]:
                raise ValueError(
                    f"expected to go on with the {name} {state[name]}, now there are {mine[name]}"
                )
        self.drawn = int(state["drawn"])


def derive_seed(*numbers: int) -> int:
    """Derive a 64-bit seed for an independent random stream from the numbers that identify it.

    ``derive_seed(seed, rank, step)`` and ``derive_seed(seed, rank, step + 1)`` are practically
    unrelated, unlike ``seed + rank + step`` and its neighbours, which occur twice.

    Args:
        numbers: From 0 up, at least one.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
