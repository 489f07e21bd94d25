"""Fits of people to sequences of frames: `fit_sequence`."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowprior._checks import require_count, require_tensor
from flowprior.body import BodyModel
from flowprior.fitting.latent_search import frozen
from flowprior.fitting.sequence.evidence import State
from flowprior.fitting.sequence.motion_term import MotionTerm
from flowprior.fitting.sequence.output import Output, Sampling
from flowprior.fitting.sequence.pose_term import PoseTerm, free_joints
from flowprior.fitting.sequence.rates import DEFAULT_RATES, MotionRates
from flowprior.fitting.sequence.result import SequenceFit
from flowprior.fitting.sequence.rig import PointRig, rig_of
from flowprior.fitting.sequence.setup import (
    REFERENCE_FPS,
    Setup,
    setup_of_joints,
    setup_of_keypoints,
    setup_of_theta,
)
from flowprior.fitting.sequence.solve import KnownShape, Problem, Solved, moving_joints
from flowprior.fitting.sequence.walk import Walk
from flowprior.fitting.sequence.windows import overlapping_windows, trailing_windows
from flowprior.prior.motion import MotionPrior
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import BODY_25, COCO_17, SMPL_24, Skeleton

__all__ = ["SequenceOptions", "fit_sequence"]

# Frames that are solved at once, which bounds the memory, and that the shape of a person in a
# longer sequence is estimated from.
FRAMES_AT_ONCE = 512
FRAMES_FOR_SHAPE = 600
PRIOR_SECONDS = 0.1  # between frames that carry the pose prior
TRAILING_SECONDS = 0.7  # that a causal result looks back
HANDS = (22, 23)


@dataclass(frozen=True)
class SequenceOptions:
    """Settings of :func:`fit_sequence`. Those of the defaults were chosen on validation clips.

    Args:
        rates: Rates of the random walk.
        smoothing: Factor of the random walk: 4 expects accelerations half as large.
        motion_weight: Weight of a motion prior per frame, where there is one. It describes what
            follows two exact poses; over a whole motion, its errors add up.
        motion_smoothing: Factor of the random walk beside a motion prior, on top of ``smoothing``.
        prior_weight: Weight of the pose prior per frame at 30 frames per second; at other rates it
            counts the same per second, but at most once per frame. Neighbouring frames show nearly
            the same pose, so it is far below 1.
        iterations: Steps of Gauss-Newton.
        window: Seconds of a window; longer sequences are fitted in overlapping windows.
        overlap: Seconds at each inner end of a window whose results come from its neighbour.
        spread: Factor of the standard deviations, from the coverage on validation clips.
        repair_sides: Whether to look for frames with left and right exchanged.
    """

    rates: MotionRates = field(default=DEFAULT_RATES)
    smoothing: float = 1.0
    motion_weight: float = 0.1
    motion_smoothing: float = 0.3
    prior_weight: float = 0.1
    iterations: int = 4
    window: float = 5.5
    overlap: float = 0.25
    spread: float = 1.06
    repair_sides: bool = True

    def __post_init__(self) -> None:
        require_count("iterations", self.iterations, 1)
        for name in ("smoothing", "motion_smoothing", "window", "spread"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("motion_weight", "prior_weight", "overlap"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if 2 * self.overlap >= self.window:
            raise ValueError("a window must be longer than twice the overlap")


@torch.no_grad()
def fit_sequence(
    prior: PosePrior,
    *,
    fps: float,
    keypoints_2d: Tensor | None = None,
    joints_3d: Tensor | None = None,
    theta: Tensor | None = None,
    valid: Tensor | None = None,
    sigma: float | Tensor | None = None,
    skeleton: Skeleton | None = None,
    body: BodyModel | None = None,
    rig: PointRig | None = None,
    focal_px: float | None = None,
    principal_point_px: tuple[float, float] | None = None,
    transl: Tensor | None = None,
    moves: bool = True,
    start: Tensor | None = None,
    lag: int | None = None,
    num_samples: int = 0,
    generator: torch.Generator | None = None,
    motion: MotionPrior | None = None,
    options: SequenceOptions | None = None,
) -> SequenceFit:
    """Poses of people over time, from measurements of single frames.

    Between frames, joints follow a random walk: velocities change little, and now and then a lot.
    In each frame, poses follow the prior. The shape of a person is the same in all frames. Exactly
    one kind of evidence is given. The result is the most likely motion, with its uncertainty, of
    all frames together, so frames without evidence are filled in; with ``lag``, that of the frames
    up to ``lag`` frames later, for live use.

    Args:
        prior: Prior over SMPL's 24 joints or the 23 below the root, space "so3", such as
            ``flowprior/people``. For keypoints it takes them as evidence.
        fps: Frames per second.
        keypoints_2d: (P, T, K, 3) or (T, K, 3): pixels, y down, and confidence; 0 where unknown.
        joints_3d: (P, T, K, 3) or (T, K, 3): metres, in the axes of a camera (x right, y down, z
            forward), NaN where unknown.
        theta: (P, T, 24, k) or (T, 24, k), poses of any regressor, in any form that priors accept;
            NaN in missing frames.
        valid: (P, T) or (T,) bool, frames in which the person was found; all if None.
        sigma: Standard deviation of the evidence per coordinate: metres or pixels, one number or
            (P, T, K), estimated from its third differences if None; radians for theta, one number
            or (P, T, 24), 0.1 if None. Joints with a small one move little, the others follow their
            neighbours in time and the prior.
        skeleton: Joint set of the evidence; for keypoints COCO-17 or BODY-25 by their number if
            None, for 3D joints SMPL-24 if None.
        body: The body; the embedded one if None.
        rig: The points of the evidence instead of those of a body.
        focal_px: Focal length in pixels, required for keypoints.
        principal_point_px: Pixels; required for keypoints.
        transl: Translations (P, T, 3) that belong to ``theta``, metres, smoothed as well.
        moves: Whether people move through space; False for joints relative to a root.
        start: First poses (P, T, 24, 3, 3); from the posterior of each frame if None.
        lag: Frames that a result waits for; None for all frames. The shape is that of all frames.
        num_samples: Number of sampled motions per person.
        generator: Source of randomness of the samples; the default one if None.
        motion: A motion prior over SMPL's 24 joints, which joins the random walk. Its rates must
            include ``fps``.
        options: Settings.

    Returns:
        The fits.

    Raises:
        TypeError: If the evidence is not a tensor or the prior is none.
        ValueError: If there is not exactly one kind of evidence, a shape does not fit, or a number
            is out of range.
    """
    options = SequenceOptions() if options is None else options
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be positive and finite, got {fps}")
    kinds = {"keypoints_2d": keypoints_2d, "joints_3d": joints_3d, "theta": theta}
    given = {name: value for name, value in kinds.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"expected one kind of evidence among {tuple(kinds)}, got {tuple(given)}")
    ((kind, evidence),) = given.items()
    require_tensor(kind, evidence)
    if lag is not None:
        require_count("lag", lag)
    require_count("num_samples", num_samples)
    prior = frozen(prior)
    like = torch.zeros((), dtype=prior.flow.dtype, device=prior.flow.device)
    single = evidence.ndim == (3 if kind != "theta" else _theta_axes(evidence))
    value = evidence.detach()[None] if single else evidence.detach()
    if value.ndim < 4 or not value.shape[1]:
        raise ValueError(
            f"{kind} must be (T, ...) or (P, T, ...) with at least one frame, got "
            f"{tuple(evidence.shape)}"
        )
    value = value.to(like)
    people, frames = value.shape[:2]
    found = _flags(valid, people, frames, like)
    bare = rig
    if kind == "theta":
        rig = _rig(rig, body, SMPL_24, like)
        setup = setup_of_theta(value, found, sigma, transl)
    elif kind == "joints_3d":
        skeleton = _joint_set(skeleton, rig, value, SMPL_24)
        rig = _rig(rig, body, skeleton, like)
        setup = setup_of_joints(prior, value, found, sigma, skeleton, rig, fps, start)
    else:
        skeleton = _joint_set(skeleton, rig, value, COCO_17 if value.shape[2] == 17 else BODY_25)
        rig = _rig(rig, body, skeleton, like)
        if focal_px is None or principal_point_px is None or not focal_px > 0:
            raise ValueError("keypoints need focal_px, above 0, and principal_point_px")
        camera = (focal_px, principal_point_px)
        setup = setup_of_keypoints(
            prior, value, found, sigma, skeleton, rig, fps, camera, start, options.repair_sides
        )
    setup.rig = rig
    joints = rig if rig.skeleton is SMPL_24 else None
    if joints is None and bare is None:
        joints = _rig(None, body, SMPL_24, like)
    sampling = Sampling(joints, num_samples, generator)
    term = _motion(motion, fps, options)
    fit = _solve(prior, setup, fps, moves, lag, options, sampling, term)
    if not single:
        return fit
    return fit.person(0)


def _solve(
    prior: PosePrior,
    setup: Setup,
    fps: float,
    moves: bool,
    lag: int | None,
    options: SequenceOptions,
    sampling: Sampling,
    motion: MotionTerm | None,
) -> SequenceFit:
    rig = setup.rig
    assert rig is not None
    people, frames = setup.seen.shape
    marginal = prior.given() if prior.evidence is not None else prior()
    prior_joints = free_joints(marginal)
    reached = tuple(j for j in range(SMPL_24.num_joints) if j not in HANDS)
    joints = moving_joints(prior_joints, reached)
    share = 1.0 if motion is None else options.motion_smoothing
    walk = Walk(options.rates, fps, joints, moves, share * options.smoothing)
    weight = options.prior_weight * REFERENCE_FPS / fps
    weight = min(weight, max(1.0, options.prior_weight))  # far below 30, frames are independent
    stride = max(1, round(PRIOR_SECONDS * fps))
    length = max(3, round(options.window * fps))
    if lag is None:
        windows = overlapping_windows(people, frames, length, round(options.overlap * fps))
    else:
        windows = trailing_windows(
            people, frames, min(length, round(TRAILING_SECONDS * fps) + lag), lag
        )
    shape = setup.transl.new_zeros(people, rig.num_shapes)
    out = Output(rig, setup.transl, people, frames, joints, options.spread, sampling)

    def solve(rows: Tensor, fit_shape: bool, known: KnownShape | None = None) -> Solved:
        some = windows[rows]
        pose = None
        if weight and setup.posterior is None:
            pose = PoseTerm(marginal, weight, stride)
        elif weight and setup.posterior is not None:
            own = setup.posterior((some.person[:, None] * frames + some.frame).flatten())
            pose = PoseTerm(own, weight)
        measurement = setup.measure(some, fit_shape)
        problem = Problem(measurement, walk, pose, joints, fit_shape, motion, known)
        here, person = torch.unique(some.person, return_inverse=True)
        begin = State(some.gather(setup.rotation), some.gather(setup.transl), shape[here], person)
        solved = problem.minimise(begin, options.iterations)
        shape[here] = solved.state.shape
        return solved

    has_shape = setup.fit_shape and rig.num_shapes > 0
    each = len(windows) // people
    at_once = max(1, FRAMES_AT_ONCE // windows.frame.shape[1])
    order = torch.arange(len(windows))
    if each <= at_once:  # all windows of some people share their shape in one system
        for rows in order.split(at_once // each * each):
            out.keep(windows[rows], solve(rows, has_shape))
    else:
        for rows in order.split(each):
            if has_shape:
                count = min(each, -(-FRAMES_FOR_SHAPE // windows.frame.shape[1]))
                known = None
                for few in rows[torch.linspace(0, each - 1, count).round().long()].split(at_once):
                    solved = solve(few, True, known)
                    known = KnownShape(solved.state.shape, solved.step.shape_information)
            for few in rows.split(at_once):
                out.keep(windows[few], solve(few, False))
    return out.fit(shape, setup.seen, setup.swapped)


def _motion(motion: MotionPrior | None, fps: float, options: SequenceOptions) -> MotionTerm | None:
    if motion is None:
        return None
    joints = motion.step.space.joints
    if joints != SMPL_24.num_joints:
        raise ValueError(f"the motion prior must be over SMPL's 24 joints, this has {joints}")
    motion.require_rate(fps)
    return MotionTerm(motion.freeze(), fps, options.motion_weight)


def _theta_axes(theta: Tensor) -> int:
    """Number of axes of one sequence of poses in the form of theta."""
    return 4 if theta.shape[-2:] == (3, 3) else 3


def _rig(
    rig: PointRig | None, body: BodyModel | None, skeleton: Skeleton | None, like: Tensor
) -> PointRig:
    if rig is not None:
        return rig.to(like)
    body = (BodyModel() if body is None else body).to(like.device, like.dtype)
    return rig_of(body, SMPL_24 if skeleton is None else skeleton)


def _joint_set(
    skeleton: Skeleton | None, rig: PointRig | None, value: Tensor, default: Skeleton
) -> Skeleton | None:
    if skeleton is None:
        skeleton = default if rig is None else rig.skeleton
    count = value.shape[2]
    expected = skeleton.num_joints if rig is None and skeleton else count
    expected = rig.num_points if rig is not None else expected
    if count != expected or value.shape[-1] != 3:
        raise ValueError(f"expected evidence (P, T, {expected}, 3), got {tuple(value.shape)}")
    return skeleton


def _flags(valid: Tensor | None, people: int, frames: int, like: Tensor) -> Tensor:
    every = torch.ones(people, frames, dtype=torch.bool, device=like.device)
    if valid is None:
        return every
    require_tensor("valid", valid)
    if valid.shape not in ((people, frames), (frames,)):
        raise ValueError(
            f"valid must be {(people, frames)} or ({frames},), got {tuple(valid.shape)}"
        )
    return every & valid.bool().to(like.device)
