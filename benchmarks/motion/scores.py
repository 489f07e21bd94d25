"""Errors of motions."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowprior.metrics import pa_mpjpe

STILL_M = 0.01  # a foot that moves less per frame stands


@dataclass
class Scores:
    """Errors of frames of several clips, each weighing the same."""

    values: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Add values of frames or joints."""
        self.values.setdefault(name, []).append(value.detach().flatten())

    def add_motion(
        self, pred: Tensor, truth: Tensor, feet: tuple[int, ...], root: Tensor | None = None
    ) -> None:
        """Add the errors of one clip.

        Args:
            pred: (F, K, 3) metres.
            truth: (F, K, 3).
            feet: Indices of the ankles.
            root: (F, 3), what joints are relative to; None for joints in space.
        """
        self.add("MPJPE", 1000 * (pred - truth).norm(dim=-1).mean(dim=-1))
        self.add("PA", 1000 * pa_mpjpe(pred, truth))
        bend = (pred - truth).diff(n=2, dim=0)
        self.add("accel", 1000 * bend.norm(dim=-1).mean(dim=-1))
        base = 0 if root is None else root[:, None]
        steps = [(each + base)[:, list(feet)].diff(dim=0).norm(dim=-1) for each in (pred, truth)]
        self.add("skate", 1000 * steps[0][steps[1] < STILL_M])

    def add_coverage(self, pred: Tensor, truth: Tensor, covariance: Tensor) -> None:
        """Add whether truth (F, K, 3) lies in the 90 % ellipsoids around the prediction."""
        away = (truth - pred)[..., None]
        small = 1e-10 * torch.eye(3).to(covariance)
        square = (away.mT @ torch.linalg.solve(covariance + small, away))[..., 0, 0]
        self.add("in 90 %", (square < 6.251).float())

    def mean(self, name: str) -> float:
        """Mean of all values; NaN without any."""
        parts = self.values.get(name)
        return float(torch.cat(parts).mean()) if parts else float("nan")

    def row(self) -> dict[str, float]:
        """All means."""
        return {name: self.mean(name) for name in self.values}
