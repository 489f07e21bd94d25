"""Refine the poses of people seen in several views: `refine` is what the programs share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting.cameras import Cameras
from flowprior.fitting.multiview_objective import (
    MultiviewObjective,
    MultiviewWeights,
    mean_rotation,
)
from flowprior.fitting.objective import KeypointObjective, KeypointWeights
from flowprior.fitting.people import first_translation
from flowprior.fitting.pose_variables import PoseVariables
from flowprior.fitting.solver import Solution, minimize
from flowprior.keypoints import seen_keypoints
from flowprior.skeleton import BODY_25, Skeleton

__all__ = ["Refined", "refine"]


@dataclass(frozen=True)
class Refined:
    """G people after all of their views have been considered together.

    Args:
        theta: (G, V, 24, 3, 3) rotations in each view, the root seen from its camera.
        body_pose: (G, 23, 3, 3) the mean rotations of the body.
        betas: (G, 10) one shape.
        transl: (G, V, 3) metres, in each camera's frame.
        first: (G, V, 24, 3, 3) rotations before, the prior's mode in each view.
        first_betas: (G, 10) the shape before, the mean of the views'.
        disagreement: (G, 2) mean angle of the views from their mean rotation, before and after,
            radians.
        mask: (G, V) bool, which views there are.
        solution: How the solver ended.
    """

    theta: Tensor
    body_pose: Tensor
    betas: Tensor
    transl: Tensor
    first: Tensor
    first_betas: Tensor
    disagreement: Tensor
    mask: Tensor
    solution: Solution

    @property
    def together(self) -> Tensor:
        """(G, V, 24, 3, 3) the one body of each person, as each camera sees it."""
        return self._with_body(self.theta, self.body_pose)

    @property
    def averaged(self) -> Tensor:
        """(G, V, 24, 3, 3) the mean on SO(3) of the rotations before: no refinement at all."""
        below = self.first[:, :, 1:].transpose(1, 2)
        return self._with_body(self.first, mean_rotation(below, self.mask[:, None].to(below.dtype)))

    def _with_body(self, theta: Tensor, body_pose: Tensor) -> Tensor:
        below = body_pose[:, None].expand(-1, theta.shape[1], -1, -1, -1)
        return torch.cat([theta[:, :, :1], below], dim=2)


def refine(
    body: BodyModel,
    keypoints: Tensor,
    cameras: Cameras,
    pose: PoseVariables,
    groups: Sequence[Sequence[int]],
    *,
    skeleton: Skeleton = BODY_25,
    betas: Tensor | None = None,
    weights: MultiviewWeights | None = None,
    use_hips: bool = False,
    max_iterations: int = 200,
    tolerance: float = 1e-7,
) -> Refined:
    """Refine the poses of people seen in several views each.

    Args:
        body: The body.
        keypoints: (N, K, 3) of all views, pixels and confidence.
        cameras: Of the N views.
        pose: Of the N views: latents of a prior over all 24 joints.
        groups: For each person, the numbers of its views.
        skeleton: The joint set of the keypoints.
        betas: (N, 10) regressed from each view; the mean body if None.
        weights: What counts how much.
        use_hips: Whether hips count among the keypoints.
        max_iterations: Most steps.
        tolerance: Relative fall of the objective over one step that is none.

    Returns:
        The people.

    Raises:
        ValueError: The prior leaves the root out, or shapes do not fit.
    """
    if pose.free_root:
        raise ValueError("several views need a prior over all 24 joints, the root among them")
    keypoints = seen_keypoints(keypoints)
    start = pose.start(len(keypoints))
    place = first_translation(body, keypoints, skeleton, cameras, pose, start, betas)
    terms = KeypointWeights(use_hips=use_hips)
    views = KeypointObjective(body, keypoints, skeleton, cameras, pose, place, betas, terms)
    objective = MultiviewObjective(views, groups, weights)
    x = objective.start()
    solution = minimize(objective, x, max_iterations=max_iterations, tolerance_value=tolerance)

    @torch.no_grad()
    def read(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        parts = views.parts(objective.unpack(numbers).flatten(0, 1), objective.index.flatten())
        below, root = objective.body_rotations(parts.theta)
        mean = mean_rotation(below.transpose(1, 2), objective.mask[:, None])
        angle = rotations.geodesic_distance(below, mean[:, None]).mean(dim=-1)
        apart = (objective.mask * angle).sum(dim=1) / objective.mask.sum(dim=1)
        transl = parts.transl.unflatten(0, (-1, objective.most_views))
        return torch.cat([root, below], dim=2), mean, apart, transl

    first, _, before, _ = read(x)
    theta, mean, after, transl = read(solution.x)
    return Refined(
        theta=theta,
        body_pose=mean,
        betas=solution.x[:, -10:],
        transl=transl,
        first=first,
        first_betas=x[:, -10:],
        disagreement=torch.stack([before, after], dim=1),
        mask=objective.mask > 0,
        solution=solution,
    )
