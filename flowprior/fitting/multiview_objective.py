r"""The objective of a fit to several uncalibrated views of a person.

.. math:: 300^2 \sum_v \sum_{j > 0} \| R_{vj} - \bar R_j \|_F^2 + \sum_v \| z_v \|^2

over the latents of all views v of a person, where the mean over the views is taken for each joint j
below the root; the root is free in each view. Reprojection errors of the keypoints and a shape
common to all views can be added.

References:
    Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, eq. 12, and its code
    for the weights. ProHMR averages matrices, which yields no rotation; here the mean is the
    rotation nearest to that average: Hartley et al., *Rotation Averaging*, 2013, section 5.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.fitting.objective import NUM_BETAS, KeypointObjective

__all__ = ["MultiviewObjective", "MultiviewWeights"]


@dataclass(frozen=True)
class MultiviewWeights:
    """Weights of the terms of a fit to several views.

    Args:
        consistency: Weight of the squared distances between the views' rotations and their mean.
        pose: Weight of the penalty of each view, ||z||^2 for a normal base.
        keypoints: Factor on the reprojection errors, which have weights themselves; 0 for the
            paper's objective.
        shape: Weight of ||betas||^2; it matters only with keypoints.

    Raises:
        ValueError: A weight is negative or NaN.
    """

    consistency: float = 300.0**2
    pose: float = 1.0
    keypoints: float = 0.0
    shape: float = 36.0

    def __post_init__(self) -> None:
        for name in ("consistency", "pose", "keypoints", "shape"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"weight {name} must be at least 0, got {getattr(self, name)}")


class MultiviewObjective:
    """The objective of G people, each seen in several views; for :func:`minimize`.

    The variables of a person are pose and camera in each view, and betas common to all views. For
    people with fewer views than others, the objective does not depend on the remaining variables.

    Args:
        views: The objective of all N views as if they were N people. The initial shape of a person
            is the mean of its betas over the views.
        groups: For each person, the row numbers of their views.
        weights: Weights of the terms.

    Raises:
        ValueError: A person has no view or one that does not exist, or the focal length is free.
    """

    def __init__(
        self,
        views: KeypointObjective,
        groups: Sequence[Sequence[int]],
        weights: MultiviewWeights | None = None,
    ) -> None:
        if not all(groups):
            raise ValueError("expected at least one view of each person")
        numbers = [view for group in groups for view in group]
        if numbers and (min(numbers) < 0 or max(numbers) >= len(views)):
            raise ValueError(f"groups name views {min(numbers)} to {max(numbers)} of {len(views)}")
        if views.free_focal:
            raise ValueError("the focal length cannot be fitted with several views")
        self.views = views
        self.weights = weights or MultiviewWeights()
        start = views.start()
        most = max(map(len, groups), default=1)
        filled = [list(group) + [group[0]] * (most - len(group)) for group in groups]
        index = torch.tensor(filled, dtype=torch.long, device=start.device)
        self.index = index.reshape(len(groups), most)
        counts = [len(group) for group in groups]
        numbers_of_views = torch.tensor(counts, dtype=torch.long, device=start.device)
        there = torch.arange(most, device=start.device) < numbers_of_views[:, None]
        self.mask = there.to(start.dtype)
        self._start = start
        self._rows: Tensor | None = None
        self._flat = self.index.flatten()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def most_views(self) -> int:
        """Largest number V of views of a person."""
        return self.index.shape[1]

    def start(self) -> Tensor:
        """Initial variables (G, D)."""
        return self._pack(self._start[self.index])

    def _pack(self, views: Tensor) -> Tensor:
        """Join variables (G, V, d) of views to (G, D), with the mean of their betas."""
        place = self.views.slices["betas"]
        share = self.mask / self.mask.sum(dim=1, keepdim=True)
        betas = (share[..., None] * views[..., place]).sum(dim=1)
        own = torch.cat([views[..., : place.start], views[..., place.stop :]], dim=-1)
        return torch.cat([own.flatten(start_dim=1), betas], dim=-1)

    def unpack(self, x: Tensor) -> Tensor:
        """Split variables (n, D) into those of each view (n, V, d)."""
        betas = x[:, None, -NUM_BETAS:].expand(-1, self.most_views, -1)
        own = x[:, :-NUM_BETAS].unflatten(-1, (self.most_views, -1))
        pose = self.views.pose.size
        return torch.cat([own[..., :pose], betas, own[..., pose:]], dim=-1)

    def body_rotations(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (n, V, 23, 3, 3) below the root and (n, V, 1, 3, 3) of it, of (n V, 24, 6)."""
        matrix = rotations.rot6d_to_matrix(theta).unflatten(0, (-1, self.most_views))
        return matrix[:, :, 1:], matrix[:, :, :1]

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """Objective (n,) of the people ``rows`` (n,) at x (n, D)."""
        if rows is not self._rows:
            self._rows, self._flat = rows, self.index[rows].flatten()
        weights, mask = self.weights, self.mask[rows]
        flat = self.unpack(x).flatten(0, 1)
        parts = self.views.parts(flat, self._flat)

        def over_views(value: Tensor) -> Tensor:
            return (mask * value.unflatten(0, (-1, self.most_views))).sum(dim=1)

        body, _ = self.body_rotations(parts.theta)
        with torch.no_grad():
            # The mean minimises the distances, so their derivative with respect to it is zero.
            mean = rotations.mean_rotation(body.transpose(1, 2), mask[:, None])
        apart = (body - mean[:, None]).square().sum(dim=(-3, -2, -1))
        total = weights.consistency * (mask * apart).sum(dim=1)
        total = total + weights.pose * over_views(self.views.penalty(flat, self._flat))
        if weights.keypoints:
            total = total + weights.keypoints * over_views(self.views.image_term(parts, self._flat))
            total = total + weights.shape * parts.betas.square().sum(dim=-1).unflatten(
                0, (-1, self.most_views)
            ).mean(dim=1)
        return total
