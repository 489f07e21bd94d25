"""Fit bodies to 2D keypoints, everybody at once: `fit_people` is what the programs here share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting.cameras import Cameras
from flowprior.fitting.objective import KeypointObjective, KeypointWeights
from flowprior.fitting.pose_variables import PoseVariables, facing
from flowprior.fitting.restarts import minimize_again
from flowprior.fitting.solver import Solution, minimize, with_spare
from flowprior.keypoints import seen_keypoints
from flowprior.skeleton import Skeleton

__all__ = [
    "ONE_STAGE",
    "SMPLIFY_STAGES",
    "Fits",
    "Stage",
    "first_translation",
    "fit_people",
    "pose_kicks",
]

HEADINGS = (0.0, 90.0, 180.0, 270.0)
TRIAL_ITERATIONS = 30


@dataclass(frozen=True)
class Stage:
    """One stage of a schedule.

    Args:
        pose: Factor on the weight of the pose.
        shape: Factor on the weight of betas.
        free: What may change: names of `KeypointObjective.slices`.
        max_iterations: At most so many, or those of the fit if None.
    """

    pose: float = 1.0
    shape: float = 1.0
    free: tuple[str, ...] = ("root", "body", "betas", "camera")
    max_iterations: int | None = None


ONE_STAGE = (Stage(),)
"""Everything at once, as the original does."""

SMPLIFY_STAGES = (
    Stage(free=("root", "camera"), max_iterations=30),
    Stage(pose=25.0, shape=10.0, max_iterations=30),
    Stage(pose=5.0, shape=2.0, max_iterations=30),
    Stage(),
)
"""First where the person stands, then the pose ever more freely: the schedule of SMPLify."""


@dataclass(frozen=True)
class Fits:
    """The fits of P people.

    Args:
        theta: (P, 24, 3, 3) rotations, the root seen from the camera (y down).
        betas: (P, 10).
        transl: (P, 3) metres, camera frame.
        focal_px: (P,) focal length, pixels of the image.
        principal_point_px: (P, 2) pixels of the image.
        keypoints_2d: (P, K, 2) where the body's keypoints are seen, pixels of the image.
        penalty: (P,) of the pose: ||z||^2 where latents were fitted.
        error_px: (P,) mean distance from the keypoints that count, by confidence, pixels.
        error: (P,) the same in sides of the box around the person.
        variables: (P, D) the numbers that were fitted.
        solution: How the solver ended; its values are the objective.
        start_value: (P,) the objective at the start.
    """

    theta: Tensor
    betas: Tensor
    transl: Tensor
    focal_px: Tensor
    principal_point_px: Tensor
    keypoints_2d: Tensor
    penalty: Tensor
    error_px: Tensor
    error: Tensor
    variables: Tensor
    solution: Solution
    start_value: Tensor

    def __len__(self) -> int:
        return len(self.theta)


def fit_people(
    body: BodyModel,
    keypoints: Tensor,
    skeleton: Skeleton,
    cameras: Cameras,
    pose: PoseVariables,
    *,
    betas: Tensor | None = None,
    transl: Tensor | None = None,
    weights: KeypointWeights | None = None,
    stages: Sequence[Stage] = ONE_STAGE,
    free_focal: bool = False,
    method: str = "lbfgs",
    max_iterations: int = 150,
    tolerance: float = 1e-7,
    restarts: int = 0,
) -> Fits:
    """Fit P people to their keypoints, each as if alone.

    Whatever is wrong with the numbers of one person changes nobody else's fit: keypoints that are
    not finite count as unseen, and a fit that cannot start ends with the status "non_finite".

    Where the prior knows nothing of the root, four headings are tried for a few iterations first,
    and the one with the least objective goes on.

    Args:
        body: The body, in layout "columns".
        keypoints: (P, K, 3) pixels of the image and confidence; those that do not count as seen,
            see `flowprior.keypoints.LEAST_CONF`, are not read.
        skeleton: Their joint set.
        cameras: Of the P people.
        pose: What is varied of the pose, with its prior.
        betas: (P, 10) shape to start from, the regressed one; the mean body if None.
        transl: (P, 3) metres to start from; found from the size of the person if None.
        weights: What counts how much.
        stages: A schedule, `ONE_STAGE` or `SMPLIFY_STAGES`.
        free_focal: Whether focal lengths are fitted too.
        method: Of the solver.
        max_iterations: Of each stage.
        tolerance: Relative fall of the objective over one step that is none.
        restarts: Further descents of the last stage, each from the best point with the pose kicked
            a little; for fits that must be as good as can be.

    Returns:
        The fits.

    Raises:
        ValueError: Shapes do not fit, the body has no such keypoints, an option is out of range, or
            the keypoints are in other units than pixels and probabilities.
    """
    weights = weights or KeypointWeights()
    if restarts < 0:
        raise ValueError(f"restarts must be at least 0, got {restarts}")
    if not len(keypoints):
        raise ValueError("expected at least one person, got none")
    keypoints = seen_keypoints(keypoints)

    def problem(rows: Tensor, start: Tensor, shape: Tensor | None) -> KeypointObjective:
        variables, cams, seen = pose.select(rows), cameras[rows], keypoints[rows]
        if transl is None:
            more = with_spare(torch.arange(len(rows), device=rows.device))
            place = first_translation(
                body,
                seen[more],
                skeleton,
                cams[more],
                variables.select(more),
                start[more],
                None if shape is None else shape[more],
            )[: len(rows)]
        else:
            place = transl[rows]
        return KeypointObjective(
            body, seen, skeleton, cams, variables, place, shape, weights, free_focal=free_focal
        )

    def solve(
        objective: KeypointObjective, x: Tensor, plan: Sequence[Stage], most: int, again: int = 0
    ) -> Solution:
        for stage in plan:
            scaled = replace(
                weights, pose=weights.pose * stage.pose, shape=weights.shape * stage.shape
            )
            part = objective.only(x, stage.free, scaled)
            kicks = pose_kicks(part, again if stage is plan[-1] else 0)
            steps = min(most, stage.max_iterations or most)

            def descend(x: Tensor, part: KeypointObjective = part, steps: int = steps) -> Solution:
                return minimize(
                    part, x, method=method, max_iterations=steps, tolerance_value=tolerance
                )

            solution = minimize_again(descend, x, kicks)
            x = solution.x
        return solution

    people = torch.arange(len(keypoints), device=keypoints.device)
    first = pose.start(len(people))
    if pose.free_root:
        tried = people.repeat_interleave(len(HEADINGS))
        starts = first[tried].clone()
        degrees = torch.tensor(HEADINGS, dtype=first.dtype, device=first.device)
        starts[:, :6] = facing(degrees).repeat(len(people), 1)
        trial = problem(tried, starts, None if betas is None else betas[tried])
        x = trial.start()
        x[:, :6] = starts[:, :6]
        found = solve(trial, x, (replace(stages[0], max_iterations=TRIAL_ITERATIONS),), 1000)
        worth = found.value.nan_to_num(nan=torch.inf).reshape(len(people), len(HEADINGS))
        best = len(HEADINGS) * people + worth.argmin(dim=1)
        first = starts[best]
    objective = problem(people, first, betas)
    x = objective.start()
    x[:, : pose.size] = first
    with torch.no_grad():
        rows = with_spare(people)
        start_value = objective(x[rows], rows)[: len(people)]
    solution = solve(objective, x, stages, max_iterations, restarts)
    return _result(objective, cameras, keypoints, solution, start_value)


def pose_kicks(objective: KeypointObjective, restarts: int, seed: int = 0) -> Tensor:
    """Kicks of the pose below the root for `minimize_again`: far first, then ever nearer.

    Args:
        objective: Of the fit; what it keeps frozen is not kicked.
        restarts: R, how many.
        seed: Of their directions.

    Returns:
        (R, D), each half as large as the one before.
    """
    generator = torch.Generator().manual_seed(seed)
    pose = objective.pose
    root = 6 * pose.free_root
    kicks = torch.zeros(restarts, objective.size, dtype=torch.float64)
    noise = torch.randn(restarts, pose.size - root, generator=generator, dtype=torch.float64)
    kicks[:, root : pose.size] = pose.kick * noise * 0.5 ** torch.arange(restarts)[:, None]
    for place in objective.frozen:
        kicks[:, place] = 0
    start = objective.start()
    return kicks.to(start.device, start.dtype)


def first_translation(
    body: BodyModel,
    keypoints: Tensor,
    skeleton: Skeleton,
    cameras: Cameras,
    pose: PoseVariables,
    start: Tensor,
    betas: Tensor | None,
) -> Tensor:
    """Where people (P, 3) must stand, in a start (P, size), to be seen where they are."""
    with torch.no_grad():
        theta = pose.theta(start)
        points = body.keypoints(theta, skeleton, betas)
        points_2d, conf = seen_keypoints(keypoints).split((2, 1), dim=-1)
        conf = conf.squeeze(-1)
        return cameras.translation_for(points, cameras.to_units(points_2d), conf.square())


@torch.no_grad()
def _result(
    objective: KeypointObjective,
    cameras: Cameras,
    keypoints: Tensor,
    solution: Solution,
    start_value: Tensor,
) -> Fits:
    people = len(solution.x)
    rows = with_spare(torch.arange(people, device=solution.x.device))
    # Somebody whose numbers are not finite gets the start's, with a status that says so.
    x = torch.where(solution.x.isfinite().all(dim=-1, keepdim=True), solution.x, objective.start())[
        rows
    ]
    cameras, keypoints = cameras[rows], keypoints[rows]
    parts = objective.parts(x, rows)
    units = cameras.project(objective.keypoints(parts), parts.focal)
    pixels = cameras.to_pixels(units)
    conf = keypoints[..., 2]
    distance = (pixels - keypoints[..., :2]).norm(dim=-1)
    error = (conf * distance).sum(dim=1) / conf.sum(dim=1).clamp(min=1e-6)
    seen = conf > 0  # `seen_keypoints` has cleared the others
    high = torch.where(seen[..., None], keypoints[..., :2], -torch.inf).amax(dim=1)
    low = torch.where(seen[..., None], keypoints[..., :2], torch.inf).amin(dim=1)
    side = (high - low).amax(dim=-1).clamp(min=1.0)
    found = {
        "theta": rotations.rot6d_to_matrix(parts.theta),
        "betas": parts.betas,
        "transl": parts.transl,
        "focal_px": parts.focal / cameras.scale,
        "principal_point_px": cameras.principal_point_px,
        "keypoints_2d": pixels,
        "penalty": objective.penalty(x, rows),
        "error_px": error,
        "error": error / side,
        "variables": x,
    }
    return Fits(
        **{name: values[:people] for name, values in found.items()},
        solution=solution,
        start_value=start_value,
    )
