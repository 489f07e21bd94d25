"""Test of the LU forward map with which weights of the original were trained."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.flow import LU_FORWARDS, LULinear
from flowprior.prior import ConditionalPosePrior

__all__ = ["LatentCalibration", "latent_calibration"]


@dataclass(frozen=True)
class LatentCalibration:
    """Result of :func:`latent_calibration`.

    Attributes:
        lu_forward: The forward map of the prior, ``"exact"`` or ``"legacy"``.
        exact_ratio: Mean of ||z||^2 / D with the exact forward map; 1 for matching weights.
        legacy_ratio: The same with the original's forward map of August 2021.
        num_poses: Number of poses.
    """

    lu_forward: str
    exact_ratio: float
    legacy_ratio: float
    num_poses: int

    @property
    def ratio(self) -> float:
        """Mean of ||z||^2 / D with the prior's forward map."""
        return self.exact_ratio if self.lu_forward == "exact" else self.legacy_ratio

    @property
    def trusted(self) -> bool:
        """Whether the ratio is between 0.5 and 2 and the other map's is farther from 1."""
        return 0.5 <= self.ratio <= 2.0 and self.better_lu_forward == self.lu_forward

    @property
    def better_lu_forward(self) -> str:
        """The forward map whose ratio is nearer to 1."""
        exact, legacy = (abs(math.log(r)) for r in (self.exact_ratio, self.legacy_ratio))
        return "exact" if exact <= legacy else "legacy"


@torch.no_grad()
def latent_calibration(
    prior: ConditionalPosePrior, theta: Tensor, context: Tensor | None = None
) -> LatentCalibration:
    """Find the LU forward map with which a prior was trained, from real pairs.

    With that map, latents of real poses are standard normal: the mean of ||z||^2 / D is near 1 on
    training data and moderately larger on held-out subjects. The original's published weights may
    have been trained with an incorrect forward map, which affects their log-density, but neither
    their samples nor their mode.

    Args:
        prior: The prior.
        theta: (*batch, *extra, J, k), real poses, at least a hundred for a reliable result.
        context: (*batch, C), their contexts.

    Returns:
        The ratio for either forward map, and which one fits.

    Raises:
        ValueError: As ``log_prob``, or if there are no poses.
    """
    ratios, num_poses = {}, 0
    for name in LU_FORWARDS:
        z = _with_lu_forward(prior, name)(context).encode(theta)
        num_poses = z.shape[:-1].numel()
        if not num_poses:
            raise ValueError("theta holds no poses to check with")
        ratios[name] = z.square().mean().item()
    return LatentCalibration(
        lu_forward=prior.flow.options["lu_forward"],
        exact_ratio=ratios["exact"],
        legacy_ratio=ratios["legacy"],
        num_poses=num_poses,
    )


def _with_lu_forward(prior: ConditionalPosePrior, lu_forward: str) -> ConditionalPosePrior:
    """A copy of the prior with another forward map."""
    other = copy.deepcopy(prior)
    for module in other.flow.modules():
        if isinstance(module, LULinear):
            module.legacy_forward = lu_forward == "legacy"
    return other
