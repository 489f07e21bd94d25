"""Fit bodies to 2D keypoints: `fit_keypoints`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import Body, BodyModel
from flowprior.fitting.cameras import Cameras, cameras_for
from flowprior.fitting.hand_pose import DEFAULT_HANDS, HandsPrior, hand_poses
from flowprior.fitting.objective import KeypointObjective, KeypointWeights
from flowprior.fitting.pose_variables import (
    DEFAULT_PRIOR,
    POSE_WEIGHTS,
    AnglePose,
    PoseVariables,
    Prior,
    facing,
    variables_of,
)
from flowprior.fitting.restarts import minimize_again
from flowprior.fitting.results import Fits
from flowprior.fitting.solver import Solution, minimize, with_spare
from flowprior.fitting.status import Status
from flowprior.fitting.whole_body_points import (
    as_body_67,
    finger_joints,
    sees_hands,
    without_hidden_hands,
)
from flowprior.fitting.whole_body_pose import WholeBodyPose, has_fingers, theta_on
from flowprior.keypoints import check_keypoints, seen_keypoints
from flowprior.prior.blocks import BlockPosterior, BlockPrior
from flowprior.skeleton import (
    BODY_25,
    BODY_67,
    COCO_17,
    COCO_WHOLEBODY_133,
    MHR_70,
    PROHMR_44,
    Skeleton,
)

__all__ = [
    "HAND_STAGES",
    "HAND_STAGES_IN_SPACE",
    "ONE_STAGE",
    "SMPLIFY_STAGES",
    "Stage",
    "first_translation",
    "fit_keypoints",
    "pose_kicks",
    "skeleton_of",
    "suited_weights",
]

HEADINGS = (0.0, 90.0, 180.0, 270.0)
TRIAL_ITERATIONS = 30
NUM_BETAS = 10
DETECTORS = (COCO_17, BODY_25, PROHMR_44, COCO_WHOLEBODY_133, BODY_67, MHR_70)


@dataclass(frozen=True)
class Stage:
    """One stage of a schedule.

    Args:
        pose: Factor on the weight of the pose penalty.
        shape: Factor on the weight of ||betas||^2.
        sigma: Factor on the scale of the robust loss.
        free: The variables to optimise, names of `KeypointObjective.slices`.
        max_iterations: Maximum number of iterations of this stage; that of the fit if None.
        hand_noise: Factor on the standard deviation of the keypoints of fingers.
    """

    pose: float = 1.0
    shape: float = 1.0
    sigma: float = 1.0
    free: tuple[str, ...] = ("root", "body", "betas", "camera")
    max_iterations: int | None = None
    hand_noise: float = 1.0


ONE_STAGE = (Stage(),)
"""One stage that optimises all variables, as ProHMR does."""

SMPLIFY_STAGES = (
    Stage(free=("root", "camera"), max_iterations=30),
    Stage(pose=25.0, shape=10.0, max_iterations=30),
    Stage(pose=5.0, shape=2.0, max_iterations=30),
    Stage(),
)
"""SMPLify's schedule: first root and camera, then all variables with decreasing weights."""

_WITH_HANDS = ("root", "body", "hands", "betas", "camera")
HAND_STAGES = (Stage(max_iterations=40), Stage(free=_WITH_HANDS))
"""The schedule of hands, after that of the body: the keypoints of the fingers first turn the wrists
with hands at rest, then all variables are optimised."""

HAND_STAGES_IN_SPACE = (
    Stage(hand_noise=2.0, max_iterations=40),
    Stage(hand_noise=2.0, free=_WITH_HANDS, max_iterations=40),
    Stage(free=_WITH_HANDS),
)
"""The same where joints in space are given: these first decide how the wrists are turned, which the
picture alone often leaves open, so the fingers in the picture count less at first."""


def fit_keypoints(
    keypoints_2d: Tensor,
    prior: Prior | BlockPrior | BlockPosterior = DEFAULT_PRIOR,
    *,
    body: Body | None = None,
    skeleton: Skeleton | None = None,
    image_size: Tensor | tuple[float, float] | None = None,
    focal_px: Tensor | float | None = None,
    frame: str | None = None,
    cameras: Cameras | None = None,
    betas: Tensor | None = None,
    transl: Tensor | None = None,
    joints_3d: Tensor | None = None,
    weights: KeypointWeights | None = None,
    hands_prior: HandsPrior | None = None,
    stages: Sequence[Stage] = ONE_STAGE,
    hand_stages: Sequence[Stage] | None = None,
    free_focal: bool = False,
    method: str = "lbfgs",
    max_iterations: int = 150,
    tolerance: float = 1e-7,
    restarts: int = 0,
) -> Fits:
    """Fit SMPL parameters and a camera to the 2D keypoints of P people.

    The objective is the robust reprojection error plus the penalties of pose and shape, see
    :class:`KeypointObjective`. All people are optimised at once, but each is an independent
    problem: on a CPU, the result of one person does not depend on the others, bit by bit. Damaged
    keypoints of one person (NaN, infinity) count as unseen and affect that person only.

    Keypoints with fingers are fitted in two parts: first the body to its own 25 keypoints, as
    without hands, then the whole to all. The fingers are variables of a prior over hands. A hand
    with fewer than three visible keypoints of its fingers stays at rest, the most likely pose of
    that prior, and its uncertainty is the prior's. Points of the face are left out.

    Where the prior does not model the root orientation, four headings are tried for a few
    iterations, and the one with the lowest objective is optimised further.

    Args:
        keypoints_2d: (P, K, 3) or (K, 3) for one person: x and y in pixels of the image (y down)
            and confidence. Keypoints with a confidence of at most 0.1 are ignored.
        prior: One of

            * a :class:`~flowprior.PosePosterior` over SMPL's 24 joints or the 23 below the root,
              or over these without the two hands, with one context per person or a single context
              for all;
            * a :class:`~flowprior.ConditionalPosePrior` over the same joints, or the name of a
              pretrained one such as ``flowprior/people``, the default. If 2D keypoints are among
              its evidence, it is conditioned on ``keypoints_2d``; with other evidence only, as
              ``flowprior/body-pose``, its marginal is used. A prior with a context of its own must
              be unconditional or take :func:`~flowprior.keypoints.keypoint_context` of COCO-17,
              BODY-25 or the 44 keypoints of ProHMR (recognised by its width);
            * a :class:`PoseMixture`, SMPLify's prior;
            * None for no prior;
            * :class:`PoseVariables` of the P people, such as ``LatentPose(posterior)``;
            * a :class:`~flowprior.prior.BlockPrior` or its posterior: its body, and its hands where
              the body has fingers.
        body: The body, in layout "columns"; the embedded body if None. Keypoints with fingers need
            fingers: ``BodyModel(hands=True)``, the default for them, or a file of SMPL-H or SMPL-X.
            Other rigs have the rest pose of SMPL and ten shape coefficients; their joints take
            the rotations of SMPL's, or SMPL-H's, of the same meaning, and the others are at rest.
        skeleton: Joint set of the keypoints. If None, the number of keypoints selects it: 17 for
            COCO, 25 for OpenPose's BODY-25, 44 for ProHMR; with fingers, 133 for COCO-WholeBody, 67
            for BODY-25 with both hands, 70 for MHR.
        image_size: (P, 2), (2,) or a pair: width and height of the images in pixels. People whose
            size is NaN or not positive get the camera of their crop.
        focal_px: Focal length in pixels of the image if ``image_size`` is given, otherwise of the
            224-pixel crop: one number or (P,). If None, the diagonal of the image, a field of view
            of 53 degrees across it; 5000 for crops and ``frame="full-original"``.
        frame: "full", "crop" or "full-original", see :func:`cameras_for`; by default "full" if
            ``image_size`` is given, otherwise "crop".
        cameras: Cameras of the P people, instead of ``image_size``, ``focal_px`` and ``frame``.
        betas: (P, 10) or (10,) initial shape; the average shape if None.
        transl: (P, 3) initial translation in metres, camera frame; estimated from the size of the
            person in the image if None.
        joints_3d: (P, K, 3) or (K, 3), the keypoints in space as a regressor gives them: metres
            from any origin, in the axes of the camera (x right, y down, z forward); NaN where
            unknown. They add to the objective the squared distance from the body's, both about
            their means.
        weights: Weights of the terms. If None, those that suit the prior, see `suited_weights`.
        hands_prior: The prior of the fingers, where the body has some: over the 15 joint rotations
            of a hand in MANO's order. Either one over right hands, whose mirror image serves the
            left ones, or a pair of one over left and one over right hands, such as
            ``ConditionalPosePrior.from_pretrained("my-hands")`` or the name of a pretrained one, or
            a BlockPrior with both hands. A prior with evidence is used without any; one with a
            context is given as a posterior, ``prior(context)``, with one context per person or a
            single one. If None, the hands of ``prior`` if that has blocks, otherwise
            ``flowprior/hands-procedural``.
        stages: The schedule, `ONE_STAGE` or `SMPLIFY_STAGES`.
        hand_stages: The schedule that follows for keypoints with fingers. If None, `HAND_STAGES`,
            or `HAND_STAGES_IN_SPACE` with ``joints_3d``.
        free_focal: Whether the focal lengths are optimised too.
        method: "lbfgs" or "adam", see :func:`minimize`.
        max_iterations: Maximum number of iterations of each stage.
        tolerance: A fit has converged when one step reduces the objective by less, relative to its
            value.
        restarts: Number of further descents of the last stage. Each starts from the best point
            so far with a perturbed pose.

    Returns:
        The fits of the P people (P = 1 for keypoints (K, 3)), on the device of the body. A person
        without a keypoint that counts keeps the initial values and has the status
        "no_keypoints"; one whose objective is not finite has "non_finite".

    Raises:
        TypeError: ``keypoints_2d`` is no tensor, or ``prior`` or ``hands_prior`` has another type.
        FileNotFoundError: No pretrained prior has that name.
        ValueError: Shapes do not fit, the number of keypoints belongs to no known joint set, the
            body lacks the keypoints, the context of the prior is not a keypoint context, the prior
            of the fingers is over other joints, an option is out of range, or the keypoints are not
            in pixels or their confidences are not probabilities.

    References:
        Bogo et al., *Keep it SMPL*, 2016. Kolotouros et al., *Probabilistic Modeling for Human
        Mesh Recovery*, 2021, section 3.6.
    """
    check_keypoints(keypoints_2d)
    keypoints = keypoints_2d[None] if keypoints_2d.ndim == 2 else keypoints_2d
    if keypoints.ndim != 3:
        raise ValueError(
            f"expected keypoints_2d (P, K, 3) or (K, 3), got {tuple(keypoints_2d.shape)}"
        )
    if restarts < 0:
        raise ValueError(f"restarts must be at least 0, got {restarts}")
    if not stages:
        raise ValueError("expected at least one stage, got none")
    skeleton = skeleton or skeleton_of(keypoints)
    if keypoints.shape[1] != skeleton.num_joints:
        raise ValueError(
            f"expected keypoints_2d (P, {skeleton.num_joints}, 3) for {skeleton.name}, got "
            f"{tuple(keypoints.shape)}"
        )
    if isinstance(prior, BlockPrior | BlockPosterior):
        hands_prior = hands_prior or prior
        if prior.body is None:
            raise ValueError("the prior has no body: pass its hands as hands_prior")
        prior = prior.body
    hands = len(finger_joints(skeleton)) > 0
    body = body or BodyModel(hands=hands).to(keypoints.device)
    if hands and not has_fingers(body):
        raise ValueError(
            f"{body.name} has no fingers for the keypoints of {skeleton.name}: pass "
            "BodyModel(hands=True), or a file of SMPL-H or SMPL-X"
        )
    keypoints = seen_keypoints(keypoints.detach().to(body.faces.device))
    if joints_3d is not None:
        joints_3d = (joints_3d[None] if joints_3d.ndim == 2 else joints_3d).to(keypoints)
        if joints_3d.shape != keypoints.shape:
            raise ValueError(
                f"expected joints_3d {tuple(keypoints.shape)}, as the keypoints, got "
                f"{tuple(joints_3d.shape)}"
            )
    everything, everything_3d = keypoints, joints_3d
    if hands:  # the body comes first, from its own keypoints
        everything, keypoints = as_body_67(keypoints, skeleton)
        everything = without_hidden_hands(everything, BODY_67)
        if joints_3d is not None:
            everything_3d, joints_3d = as_body_67(joints_3d, skeleton, missing=torch.nan)
        skeleton = BODY_25
    people = len(keypoints)
    pose = variables_of(prior, keypoints, skeleton)
    like = pose.start(people)
    keypoints, everything = keypoints.to(like), everything.to(like)
    if has_fingers(body) and not isinstance(pose, WholeBodyPose):
        pose = WholeBodyPose(pose, *hand_poses(hands_prior or DEFAULT_HANDS, people, like))
    if cameras is None:
        cameras = cameras_for(keypoints, image_size, focal_px, frame=frame)
    elif not (image_size is None and focal_px is None and frame is None):
        raise ValueError("give cameras, or image_size, focal_px and frame, not both")
    if betas is not None:
        betas = betas.to(keypoints)
        if betas.shape not in ((NUM_BETAS,), (people, NUM_BETAS)):
            raise ValueError(
                f"expected betas ({people}, {NUM_BETAS}) or ({NUM_BETAS},), got "
                f"{tuple(betas.shape)}"
            )
        betas = betas.expand(people, -1)
    weights = weights or suited_weights(pose.body if isinstance(pose, WholeBodyPose) else pose)

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
            body,
            seen,
            skeleton,
            cams,
            variables,
            place,
            shape,
            weights,
            free_focal=free_focal,
            joints_3d=None if joints_3d is None else joints_3d[rows],
        )

    def solve(
        objective: KeypointObjective, x: Tensor, plan: Sequence[Stage], most: int, again: int = 0
    ) -> Solution:
        for stage in plan:
            scaled = replace(
                weights,
                pose=weights.pose * stage.pose,
                shape=weights.shape * stage.shape,
                sigma=weights.sigma * stage.sigma,
                hand_noise=weights.hand_noise * stage.hand_noise,
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

    rows = torch.arange(people, device=keypoints.device)
    first = pose.start(people)
    if pose.free_root:
        tried = rows.repeat_interleave(len(HEADINGS))
        starts = first[tried].clone()
        degrees = torch.tensor(HEADINGS, dtype=first.dtype, device=first.device)
        starts[:, :6] = facing(degrees).repeat(people, 1)
        trial = problem(tried, starts, None if betas is None else betas[tried])
        x = trial.start()
        x[:, :6] = starts[:, :6]
        found = solve(trial, x, (replace(stages[0], max_iterations=TRIAL_ITERATIONS),), 1000)
        worth = found.value.nan_to_num(nan=torch.inf).reshape(people, len(HEADINGS))
        best = len(HEADINGS) * rows + worth.argmin(dim=1)
        first = starts[best]
    objective = problem(rows, first, betas)
    x = objective.start()
    x[:, : pose.size] = first
    with torch.no_grad():
        more = with_spare(rows)
        start_value = objective(x[more], more)[:people]
    solution = solve(objective, x, stages, max_iterations, restarts)
    body_seen = objective.has_keypoints
    if hands:
        with_hands = KeypointObjective(
            body,
            everything,
            BODY_67,
            cameras,
            pose,
            objective.transl,
            betas,
            weights,
            free_focal=free_focal,
            joints_3d=everything_3d,
        )
        if hand_stages is None:
            hand_stages = HAND_STAGES if joints_3d is None else HAND_STAGES_IN_SPACE
        further = solve(with_hands, solution.x, hand_stages, max_iterations)
        solution = _where(sees_hands(everything, BODY_67).any(dim=1), further, solution)
        objective, keypoints = with_hands, everything
    # Without a keypoint, the prior alone would decide: no fit.
    nothing = ~body_seen
    solution = replace(
        solution,
        x=torch.where(nothing[:, None], x, solution.x),
        value=torch.where(nothing, start_value, solution.value),
        status=torch.where(nothing, Status.NO_KEYPOINTS, solution.status),
    )
    return _result(objective, cameras, keypoints, solution, start_value)


def suited_weights(pose: PoseVariables) -> KeypointWeights:
    """Weights of the terms that suit a prior.

    Args:
        pose: The pose variables of a fit.

    Returns:
        :meth:`KeypointWeights.of_noise` for a flow, whose penalty is -2 log p; for other priors
        ProHMR's with their own weight of the pose penalty, see `POSE_WEIGHTS`.
    """
    if isinstance(pose, AnglePose):
        return KeypointWeights(pose=POSE_WEIGHTS[pose.kind])
    return KeypointWeights.of_noise()


def skeleton_of(keypoints: Tensor) -> Skeleton:
    """The joint set of a detector, from the number of its keypoints.

    Args:
        keypoints: (..., K, 3) with K = 17 (COCO), 25 (BODY-25) or 44 (ProHMR).

    Raises:
        ValueError: K is another number.
    """
    count = keypoints.shape[-2]
    for skeleton in DETECTORS:
        if skeleton.num_joints == count:
            return skeleton
    known = ", ".join(f"{each.num_joints} ({each.name})" for each in DETECTORS)
    raise ValueError(
        f"no joint set with {count} keypoints is assumed, only with {known}: pass skeleton, one "
        "of flowprior.skeleton"
    )


def pose_kicks(objective: KeypointObjective, restarts: int, seed: int = 0) -> Tensor:
    """Random perturbations of the pose below the root, for :func:`minimize_again`.

    Args:
        objective: The objective of the fit; its frozen variables are not perturbed.
        restarts: Number R of perturbations.
        seed: Seed of their directions.

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
    body: Body,
    keypoints: Tensor,
    skeleton: Skeleton,
    cameras: Cameras,
    pose: PoseVariables,
    start: Tensor,
    betas: Tensor | None,
) -> Tensor:
    """Estimate translations from the size and place of people in the image.

    Args:
        body: The body.
        keypoints: (P, K, 3) pixels and confidence.
        skeleton: Their joint set.
        cameras: Cameras of the P people.
        pose: Pose variables of the P people.
        start: (P, size) values of these variables.
        betas: (P, 10) shape; the average shape if None.

    Returns:
        (P, 3) metres, camera frame; see :meth:`Cameras.translation_for`.
    """
    with torch.no_grad():
        theta = theta_on(pose.theta(start), body.skeleton)
        points = body.keypoints(theta, skeleton, betas)
        points_2d, conf = seen_keypoints(keypoints).split((2, 1), dim=-1)
        conf = conf.squeeze(-1)
        return cameras.translation_for(points, cameras.to_units(points_2d), conf.square())


def _where(mask: Tensor, ours: Solution, other: Solution) -> Solution:
    """The solutions ``ours`` of the people in ``mask`` (P,), the other ones elsewhere."""
    chosen = {}
    for name, value in vars(ours).items():
        rows = mask[:, None] if value.ndim == 2 else mask
        chosen[name] = torch.where(rows, value, getattr(other, name))
    return Solution(**chosen)


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
    # A fit that is not finite reports its start; its status is "non_finite".
    x = torch.where(solution.x.isfinite().all(dim=-1, keepdim=True), solution.x, objective.start())[
        rows
    ]
    cameras, keypoints = cameras[rows], keypoints[rows]
    parts = objective.parts(x, rows)
    units = cameras.project(objective.keypoints(parts), parts.focal)
    pixels = cameras.to_pixels(units)
    conf = keypoints[..., 2]
    distance = (pixels - keypoints[..., :2]).norm(dim=-1)
    error = (conf * distance).sum(dim=1) / conf.sum(dim=1)  # NaN where nothing is seen
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
        objective=objective,
    )
