"""Fit one body pose to several views of a person: `fit_views`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting.cameras import Cameras, cameras_for
from flowprior.fitting.multiview_objective import (
    MultiviewObjective,
    MultiviewWeights,
)
from flowprior.fitting.objective import NUM_BETAS, KeypointObjective, KeypointWeights
from flowprior.fitting.people import first_translation, skeleton_of
from flowprior.fitting.pose_variables import DEFAULT_PRIOR, Prior, variables_of
from flowprior.fitting.results import ViewFits
from flowprior.fitting.solver import minimize
from flowprior.keypoints import check_keypoints, seen_keypoints
from flowprior.skeleton import Skeleton

__all__ = ["fit_views"]


def fit_views(
    keypoints_2d: Tensor,
    prior: Prior = DEFAULT_PRIOR,
    groups: Sequence[Sequence[int]] | None = None,
    *,
    body: BodyModel | None = None,
    skeleton: Skeleton | None = None,
    image_size: Tensor | tuple[float, float] | None = None,
    focal_px: Tensor | float | None = None,
    frame: str | None = None,
    cameras: Cameras | None = None,
    betas: Tensor | None = None,
    weights: MultiviewWeights | None = None,
    use_hips: bool = False,
    max_iterations: int = 200,
    tolerance: float = 1e-7,
) -> ViewFits:
    """Fit the body pose of people who are seen in several views with unknown camera positions.

    The rotations below the root must agree between the views; the root is free in each view. All
    people are optimised at once, each as an independent problem.

    Args:
        keypoints_2d: (N, K, 3) x and y in pixels (y down) and confidence, of all N views.
        prior: As for :func:`fit_keypoints`, for the N views, over all 24 joints.
        groups: For each of G people, the row numbers of their views; one person in all N views if
            None, or nobody if there is no view.
        body: The body, in layout "columns"; the embedded body if None.
        skeleton: Joint set of the keypoints; by their number (17, 25, 44) if None.
        image_size: (N, 2), (2,) or a pair: width and height of the images in pixels.
        focal_px: Focal length in pixels of the image if ``image_size`` is given, otherwise of the
            224-pixel crop: one number or (N,); if None, as for :func:`fit_keypoints`.
        frame: As for :func:`fit_keypoints`.
        cameras: Cameras of the N views, instead of ``image_size``, ``focal_px`` and ``frame``.
        betas: (N, 10) shape estimated from each view; the average shape if None.
        weights: Weights of the terms. By default the reprojection errors have none, as in the
            paper; ``MultiviewWeights(keypoints=1, pose=16)`` uses them.
        use_hips: Whether hips count among the keypoints.
        max_iterations: Maximum number of iterations.
        tolerance: A fit has converged when one step reduces the objective by less, relative to its
            value.

    Returns:
        The fits of the G people, on the device of the body.

    Raises:
        TypeError: ``keypoints_2d`` is no tensor, or ``prior`` has another type.
        ValueError: The prior does not model the root, a person has no view or one that does not
            exist, shapes do not fit, or as :func:`fit_keypoints`.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, section 3.6,
        eq. 12.
    """
    check_keypoints(keypoints_2d)
    if keypoints_2d.ndim != 3:
        raise ValueError(f"expected keypoints_2d (N, K, 3), got {tuple(keypoints_2d.shape)}")
    skeleton = skeleton or skeleton_of(keypoints_2d)
    body = body or BodyModel().to(keypoints_2d.device)
    keypoints = seen_keypoints(keypoints_2d.detach().to(body.faces.device))
    pose = variables_of(prior, keypoints, skeleton)
    if pose.free_root:
        raise ValueError("several views need a prior over all 24 joints, the root among them")
    if groups is None:
        groups = [range(len(keypoints))] if len(keypoints) else []
    if cameras is None:
        cameras = cameras_for(keypoints, image_size, focal_px, frame=frame)
    elif not (image_size is None and focal_px is None and frame is None):
        raise ValueError("give cameras, or image_size, focal_px and frame, not both")
    if betas is not None:
        betas = betas.to(keypoints)
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
        mean = rotations.mean_rotation(below.transpose(1, 2), objective.mask[:, None])
        angle = rotations.geodesic_distance(below, mean[:, None]).mean(dim=-1)
        apart = (objective.mask * angle).sum(dim=1) / objective.mask.sum(dim=1)
        transl = parts.transl.unflatten(0, (-1, objective.most_views))
        return torch.cat([root, below], dim=2), mean, apart, transl

    first, _, before, _ = read(x)
    theta, mean, after, transl = read(solution.x)
    return ViewFits(
        theta=theta,
        body_pose=mean,
        betas=solution.x[:, -NUM_BETAS:],
        transl=transl,
        first=first,
        first_betas=x[:, -NUM_BETAS:],
        disagreement=torch.stack([before, after], dim=1),
        mask=objective.mask > 0,
        solution=solution,
    )
