"""Averages over data sets, with a count of excluded values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

__all__ = [
    "Tally",
]


@dataclass
class Tally:
    """Means of errors over a data set, and the number of values that could not be evaluated.

    Call :meth:`add` for each batch. The operator ``+`` combines the tallies of several processes.

    Attributes:
        sums: Sum of the finite values, by metric and group.
        counts: Number of finite values, by metric and group.
        left_out: Number of NaN or infinite values, which are excluded from the means, by metric.
    """

    sums: dict[tuple[str, str], float] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor], groups: Sequence[str] | None = None) -> None:
        """Add a batch.

        Args:
            values: Errors (B,) by the name of the metric.
            groups: B names of groups, such as the actions of Human3.6M; one group if None.

        Raises:
            ValueError: If the shape of a metric is not (B,), with B the number of groups.
        """
        for name, value in values.items():
            if value.ndim != 1 or (groups is not None and len(groups) != len(value)):
                size = "B" if groups is None else len(groups)
                raise ValueError(f"expected {name} of shape ({size},), got {tuple(value.shape)}")
            self.left_out.setdefault(name, 0)
            for number, group in zip(
                value.detach().double().tolist(), groups or [""] * len(value), strict=True
            ):
                if not math.isfinite(number):
                    self.left_out[name] += 1
                    continue
                key = (name, group)
                self.sums[key] = self.sums.get(key, 0.0) + number
                self.counts[key] = self.counts.get(key, 0) + 1

    def __add__(self, other: "Tally") -> "Tally":
        both = (self, other)
        keys = dict.fromkeys(key for tally in both for key in tally.counts)
        names = dict.fromkeys(name for tally in both for name in tally.left_out)
        return Tally(
            {key: sum(tally.sums.get(key, 0.0) for tally in both) for key in keys},
            {key: sum(tally.counts.get(key, 0) for tally in both) for key in keys},
            {name: sum(tally.left_out.get(name, 0) for tally in both) for name in names},
        )

    def count(self, name: str) -> int:
        """Number of values in the mean of a metric."""
        return sum(count for (metric, _), count in self.counts.items() if metric == name)

    def mean(self, name: str) -> float:
        """Mean of a metric over all rows; NaN if there are none."""
        total = sum(value for (metric, _), value in self.sums.items() if metric == name)
        return total / self.count(name) if self.count(name) else math.nan

    def group_means(self, name: str) -> dict[str, float]:
        """Mean of a metric in each group."""
        return {
            group: value / self.counts[metric, group]
            for (metric, group), value in self.sums.items()
            if metric == name
        }

    def mean_of_groups(self, name: str) -> float:
        """Mean of the groups' means, as in protocol 1 of Human3.6M; NaN if there are none."""
        means = self.group_means(name).values()
        return sum(means) / len(means) if means else math.nan
