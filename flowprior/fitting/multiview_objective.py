r"""One body pose from several uncalibrated views of a person: what is minimised.

.. math:: 300^2 \sum_v \sum_{j > 0} \| R_{vj} - \bar R_j \|_F^2 + \sum_v \| z_v \|^2

over the latents of all views of a person, with the mean rotation of each joint of the body; the
root, which every camera sees in its own way, is free. Terms of the keypoints and a shape shared by
the views can be added.

References:
    Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, eq. 12, and its code
    for the weights. There the mean is that of the matrices, which is no rotation; here it is the
    rotation nearest to it, as Hartley et al., *Rotation Averaging*, 2013, section 5.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._modes import outside_inference_mode
from flowprior.fitting.objective import NUM_BETAS, KeypointObjective

__all__ = ["MultiviewObjective", "MultiviewWeights", "mean_rotation"]


@dataclass(frozen=True)
class MultiviewWeights:
    """What counts how much.

    Args:
        consistency: Of the squared distances of the views' rotations from their mean.
        pose: Of ||z||^2 of each view.
        keypoints: Of the terms of the keypoints, which have weights of their own; 0 for the
            paper's objective, without them.
        shape: Of ||betas||^2, where keypoints count and shape is fitted.
    """

    consistency: float = 300.0**2
    pose: float = 1.0
    keypoints: float = 0.0
    shape: float = 36.0

    def __post_init__(self) -> None:
        for name in ("consistency", "pose", "keypoints", "shape"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"weight {name} must be at least 0, got {getattr(self, name)}")


def mean_rotation(matrix: Tensor, weight: Tensor | None = None) -> Tensor:
    """Rotations with the least sum of squared distances (of Frobenius) from some.

    Args:
        matrix: (..., V, 3, 3) rotations.
        weight: (..., V), at least one positive; all alike if None.

    Returns:
        (..., 3, 3) rotations.
    """
    import roma

    if weight is not None:
        matrix = weight[..., None, None] * matrix
    with outside_inference_mode():
        mean: Tensor = roma.special_procrustes(matrix.sum(dim=-3))
    return mean


class MultiviewObjective:
    """The objective of G people, each seen in some views; for `flowprior.fitting.solver.minimize`.

    A person's numbers are those of the pose in every view, the camera's in every view (if keypoints
    count), and betas, shared by the views. People with fewer views than others have numbers that
    nothing depends on.

    Args:
        views: The fit of all N views, each as if of a person of its own. Its betas are where the
            shape starts: their mean over the views of a person.
        groups: For each person, the numbers of its views.
        weights: What counts how much.

    Raises:
        ValueError: A person has no view, or one that does not exist.
    """

    def __init__(
        self,
        views: KeypointObjective,
        groups: Sequence[Sequence[int]],
        weights: MultiviewWeights | None = None,
    ) -> None:
        if not groups or not all(groups):
            raise ValueError("expected at least one view of each of at least one person")
        numbers = [view for group in groups for view in group]
        if min(numbers) < 0 or max(numbers) >= len(views):
            raise ValueError(f"groups name views {min(numbers)} to {max(numbers)} of {len(views)}")
        if views.free_focal:
            raise ValueError("the focal length cannot be fitted with several views")
        self.views = views
        self.weights = weights or MultiviewWeights()
        start = views.start()
        most = max(map(len, groups))
        filled = [list(group) + [group[0]] * (most - len(group)) for group in groups]
        self.index = torch.tensor(filled, device=start.device)
        counted = [[1.0] * len(group) + [0.0] * (most - len(group)) for group in groups]
        self.mask = torch.tensor(counted, dtype=start.dtype, device=start.device)
        self._start = start
        self._rows: Tensor | None = None
        self._flat = self.index.flatten()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def most_views(self) -> int:
        """Views V of those who have most."""
        return self.index.shape[1]

    def start(self) -> Tensor:
        """(G, D) numbers of the start."""
        return self._pack(self._start[self.index])

    def _pack(self, views: Tensor) -> Tensor:
        """Numbers (G, V, d) of views -> (G, D), betas being their mean."""
        place = self.views.slices["betas"]
        share = self.mask / self.mask.sum(dim=1, keepdim=True)
        betas = (share[..., None] * views[..., place]).sum(dim=1)
        own = torch.cat([views[..., : place.start], views[..., place.stop :]], dim=-1)
        return torch.cat([own.flatten(start_dim=1), betas], dim=-1)

    def unpack(self, x: Tensor) -> Tensor:
        """Numbers (n, D) -> (n, V, d), as each view has them."""
        betas = x[:, None, -NUM_BETAS:].expand(-1, self.most_views, -1)
        own = x[:, :-NUM_BETAS].unflatten(-1, (self.most_views, -1))
        pose = self.views.pose.size
        return torch.cat([own[..., :pose], betas, own[..., pose:]], dim=-1)

    def body_rotations(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Theta (n V, 24, 6) -> rotations (n, V, 23, 3, 3) below the root, and (n, V, 1, 3, 3)."""
        matrix = rotations.rot6d_to_matrix(theta).unflatten(0, (-1, self.most_views))
        return matrix[:, :, 1:], matrix[:, :, :1]

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """Numbers (n, D) of the people ``rows`` (n,) -> objective (n,)."""
        if rows is not self._rows:
            self._rows, self._flat = rows, self.index[rows].flatten()
        weights, mask = self.weights, self.mask[rows]
        flat = self.unpack(x).flatten(0, 1)
        parts = self.views.parts(flat, self._flat)

        def over_views(value: Tensor) -> Tensor:
            return (mask * value.unflatten(0, (-1, self.most_views))).sum(dim=1)

        body, _ = self.body_rotations(parts.theta)
        with torch.no_grad():
            # Where the distances are least, they do not change with it: it needs no gradient.
            mean = mean_rotation(body.transpose(1, 2), mask[:, None])
        apart = (body - mean[:, None]).square().sum(dim=(-3, -2, -1))
        total = weights.consistency * (mask * apart).sum(dim=1)
        total = total + weights.pose * over_views(self.views.penalty(flat, self._flat))
        if weights.keypoints:
            total = total + weights.keypoints * over_views(self.views.image_term(parts, self._flat))
            total = total + weights.shape * parts.betas.square().sum(dim=-1).unflatten(
                0, (-1, self.most_views)
            ).mean(dim=1)
        return total
