"""The posterior of a person, given their keypoints and joints that the user has placed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior.body import BodyModel
from flowprior.fitting.latent_search import (
    LatentObjective,
    frozen,
    rotation_space,
    search,
)
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.uncertainty import uncertainty_of
from flowprior.results import Fits
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import COCO_17, SMPL_24, Skeleton, shared_joints
from flowprior.view.conditioning import Conditioning
from flowprior.view.held_hands import BODY_JOINTS, HeldHands, smpl_places

__all__ = ["Answer", "PersonPosterior", "released_keypoints"]

Array: TypeAlias = NDArray[Any]

SIGMA_PLACED_M = 0.003
"""Standard deviation of a placed joint, per coordinate."""
SIGMA_KEYPOINT_M = 0.02
"""Standard deviation of a keypoint parallel to the image, at the depth of the person. It is larger
than in a fit, so that the trunk can give way to a placed hand."""
SEEN = 0.1
TOLERANCE = 1e-5
UNCERTAINTY_SAMPLES = 100

_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_LIMBS = {
    "collar": ("shoulder", "elbow", "wrist"),
    "shoulder": ("shoulder", "elbow", "wrist"),
    **dict.fromkeys(("elbow", "wrist", "hand"), ("elbow", "wrist")),
    "hip": ("hip", "knee", "ankle"),
    **dict.fromkeys(("knee", "ankle", "foot"), ("knee", "ankle")),
}


def released_keypoints(joint: int) -> tuple[int, ...]:
    """COCO keypoints that no longer count once a joint of SMPL is placed: those of its limb.

    Otherwise a wrist could only move as far as its elbow, held by its own keypoint, allows.
    """
    name = SMPL_24.joint_names[joint]
    side, _, part = name.partition("_")
    if part in _LIMBS:
        released = tuple(f"{side}_{each}" for each in _LIMBS[part])
    else:
        released = _FACE if name in ("neck", "head") else ()
    return tuple(COCO_17.index(each) for each in released)


@dataclass(frozen=True)
class Answer:
    """What is known of a person.

    Args:
        theta: (24, 3, 3) the most likely pose.
        samples: (S, 24, 3, 3).
        confidence: (24,) probability that a joint is within the distance of the fits.
        std_mm: (24,) standard deviation of each joint.
        error_mm: Distance of each placed joint of the body from its place.
        posterior: The density around ``theta``, before it is conditioned on the placed joints.
    """

    theta: Tensor
    samples: Tensor
    confidence: Array
    std_mm: Array
    error_mm: Mapping[int, float]
    posterior: PosePosterior


class PersonPosterior:
    """The posterior of one person, to be asked again with joints at other places.

    The pelvis stays where the fit has it. Everything else follows ``prior.given``: the keypoints of
    the person and the placed joints are its evidence, and the pose is the maximum of that posterior
    with the placed joints and the remaining keypoints as measurements, so that a placed joint is
    where the user has put it.

    Args:
        prior: A prior over SMPL's 24 joints that takes 2D keypoints and 3D joints as evidence, such
            as ``flowprior/people``.
        body: The body of the fits. The hands of a body with fingers stay as fitted.
        fits: The fits.
        row: The person.
        num_samples: Number of samples of an answer.

    Raises:
        ValueError: The prior takes other evidence, or the person was not fitted.
    """

    def __init__(
        self, prior: PosePrior, body: BodyModel, fits: Fits, row: int, *, num_samples: int = 16
    ) -> None:
        kinds = () if prior.evidence is None else prior.evidence.kinds
        if not {"keypoints_2d", "joints_3d"} <= set(kinds):
            raise ValueError(
                "placing joints needs a prior over 24 joints with keypoints_2d and joints_3d as "
                f"evidence, such as flowprior/people; this one takes {', '.join(kinds) or 'none'}"
            )
        self.prior, self.space = frozen(prior), rotation_space(prior, (24,))
        self.num_samples = num_samples
        self.distance_mm = float(fits.confidence_distance_mm)
        like = next(body.buffers())

        def tensor(array: Array) -> Tensor:
            value = torch.from_numpy(np.ascontiguousarray(array, np.float32))
            return value.to(like.device, prior.flow.dtype)

        whole = rotvec_to_matrix(tensor(fits.rotations[row]))
        places = smpl_places(body)
        self.body: BodyModel | HeldHands = body
        if len(whole) != len(places):
            self.body = HeldHands(body, whole[BODY_JOINTS:])
        self.theta = _of_smpl(whole)
        self.betas = tensor(fits.betas[row])
        self.transl = tensor(fits.transl[row])
        if not all(bool(each.isfinite().all()) for each in (whole, self.betas, self.transl)):
            raise ValueError("this person was not fitted")
        sampled = rotvec_to_matrix(tensor(fits.samples[row]))
        self.samples = _of_smpl(sampled)
        self._hands = torch.cat([whole[None], sampled])[:, BODY_JOINTS:]
        self.known = fits.joint_confidence[row, places], fits.joint_std_mm[row, places]
        self.keypoints = tensor(_coco(fits.keypoints_2d[row], fits.skeleton))
        self._following: tuple[tuple[int, tuple[int, ...], bool], Conditioning] | None = None
        with torch.no_grad():
            self.joints = self.joints_of(self.theta)
            self.points = self.body.keypoints(self.theta, COCO_17, self.betas, self.transl)

    def hold_hands(self, sample: int = 0) -> None:
        """Pose the hands as in a sample of the file, counted from 1, or as in the fit."""
        if isinstance(self.body, HeldHands):
            self.body.held = self._hands[sample]

    @torch.no_grad()
    def fit(self) -> Answer:
        """The fit, with the samples and the uncertainty of the file."""
        context = self._evidence({}, True)
        posterior = self.prior(context, centre=self.theta)
        return Answer(self.theta, self.samples, *self.known, {}, posterior)

    @torch.no_grad()
    def given(
        self,
        placed: Mapping[int, Array],
        *,
        start: Tensor | None = None,
        keep_keypoints: bool = True,
        max_iterations: int = 30,
        seed: int = 0,
    ) -> Answer:
        """The posterior given joints at places.

        Args:
            placed: Position (3,) in metres, camera frame, of each placed joint.
            start: (24, 3, 3) the pose to search from, such as that of the last answer; that of the
                fit if None.
            keep_keypoints: Whether the keypoints of the other limbs are evidence too.
            max_iterations: Largest number of steps of the search.
            seed: Seed of the samples.

        Returns:
            The answer; that of the fit if no joint is placed and the keypoints are kept.

        Raises:
            ValueError: A joint is the pelvis, or not one of SMPL's.
        """
        for joint in placed:
            if not 0 < joint < SMPL_24.num_joints:
                raise ValueError(f"joint {joint} cannot be placed; possible are 1 to 23")
        if not placed and keep_keypoints:
            return self.fit()
        context = self._evidence(placed, keep_keypoints)
        known = self._measurements(placed, keep_keypoints)
        objective = LatentObjective(self.prior(context[None]), known.misfit)
        begin = objective.encode((self.theta if start is None else start)[None])
        solution = search(objective, [begin], max_iterations, TOLERANCE)
        theta = self.space.to_matrix(objective.theta(solution.x)[0])
        return self._answer(theta, context, placed, known, seed)

    @torch.no_grad()
    def follow(
        self, answer: Answer, placed: Mapping[int, Array], *, keep_keypoints: bool = True
    ) -> Tensor:
        """The mode of an answer's posterior with joints at places, while they are being moved.

        It takes a fraction of the time of `given`: the evidence stays that of the answer.

        Args:
            answer: The answer before the movement.
            placed: Position (3,) of each placed joint.
            keep_keypoints: As for `given`.

        Returns:
            (24, 3, 3), the pose.
        """
        key = (id(answer), tuple(placed), keep_keypoints)
        known = self._measurements(placed, keep_keypoints)
        if self._following is None or self._following[0] != key:
            condition = Conditioning(answer.posterior, known.measure, known.sigma)
            self._following = key, condition
        z = answer.posterior.encode(answer.theta)[None]
        return self.pose(answer.posterior, self._following[1](z, known.target)[0])

    def pose(self, posterior: PosePosterior, z: Tensor) -> Tensor:
        """The pose (24, 3, 3) of a latent (D,)."""
        with torch.no_grad():
            return self.space.to_matrix(posterior.decode(z))

    def joints_of(self, theta: Tensor) -> Tensor:
        """Joints (..., 24, 3) of poses in the camera frame, metres."""
        return self.body.keypoints(theta, SMPL_24, self.betas, self.transl)

    def _answer(
        self,
        theta: Tensor,
        context: Tensor,
        placed: Mapping[int, Array],
        known: "_Measurements",
        seed: int,
    ) -> Answer:
        posterior = self.prior(context, centre=theta)
        generator = torch.Generator(theta.device).manual_seed(seed)
        count = max(self.num_samples, UNCERTAINTY_SAMPLES)
        poses = posterior.sample(count, generator=generator)
        if len(known.target):
            # The networks answer with the errors of their training; here the placed joints are
            # where the user has put them, and keypoints are as exact as for a fit.
            condition = Conditioning(posterior, known.measure, known.sigma)
            noise = torch.randn(count, len(known.target), generator=generator).to(theta)
            # The pose is the answer, also where it does not meet the measurements.
            reached = known.measure(theta) + known.sigma * noise
            poses = posterior.decode(condition(posterior.encode(poses), reached))
        samples = self.space.to_matrix(poses)
        uncertainty = uncertainty_of(
            samples[None], theta[None], self.body, SMPL_24, self.betas[None]
        )
        joints = self.joints_of(theta).cpu().numpy()
        error = {
            joint: 1000 * float(np.linalg.norm(joints[joint] - place))
            for joint, place in placed.items()
        }
        confidence = uncertainty.confidence(self.distance_mm)[0].cpu().numpy()
        std_mm = uncertainty.std_mm[0].cpu().numpy()
        return Answer(theta, samples[: self.num_samples], confidence, std_mm, error, posterior)

    def _remaining(self, placed: Mapping[int, Array]) -> Tensor:
        """(17,) bool, the keypoints that count beside the placed joints."""
        seen = self.keypoints[:, 2] > SEEN
        for joint in placed:
            seen[list(released_keypoints(joint))] = False
        return seen

    def _evidence(self, placed: Mapping[int, Array], keep_keypoints: bool) -> Tensor:
        """Context (C,) of the keypoints and the placed joints."""
        assert self.prior.evidence is not None
        evidence: dict[str, Tensor] = {}
        if keep_keypoints:
            conf = self.keypoints[:, 2] * self._remaining(placed)
            evidence["keypoints_2d"] = torch.cat([self.keypoints[:, :2], conf[:, None]], dim=-1)
        if placed:
            joints = torch.full_like(self.joints, torch.nan)
            joints[0] = self.joints[0]
            for joint, place in placed.items():
                joints[joint] = torch.as_tensor(place).to(joints)
            evidence["joints_3d"] = joints
        return self.prior.evidence.context(**evidence).to(self.theta)

    def _measurements(self, placed: Mapping[int, Array], keep_keypoints: bool) -> "_Measurements":
        """The placed joints and the remaining keypoints, at the depth of the person."""
        numbers = list(placed)
        seen = (self._remaining(placed) & keep_keypoints).nonzero()[:, 0]
        depth = self.points[seen, 2:]

        def measure(theta: Tensor) -> Tensor:
            matrix = self.space.to_matrix(theta)
            joints = self.joints_of(matrix)[..., numbers, :]
            points = self.body.keypoints(matrix, COCO_17, self.betas, self.transl)[..., seen, :]
            image = depth * points[..., :2] / points[..., 2:].clamp(min=0.1)
            return torch.cat([joints.flatten(-2), image.flatten(-2)], dim=-1)

        places = self.theta.new_tensor(np.array([placed[joint] for joint in numbers])).flatten()
        # The fitted keypoints rather than the detected ones: nothing moves until a joint does.
        image = self.points[seen, :2].flatten()
        sigma = torch.cat(
            [
                torch.full_like(places, SIGMA_PLACED_M),
                torch.full_like(image, SIGMA_KEYPOINT_M),
            ]
        )
        return _Measurements(measure, torch.cat([places, image]), sigma)


@dataclass(frozen=True)
class _Measurements:
    """M measured numbers, metres.

    Args:
        measure: Poses (..., 24, k) -> the numbers (..., M).
        target: (M,) their values.
        sigma: (M,) their standard deviations.
    """

    measure: Callable[[Tensor], Tensor]
    target: Tensor
    sigma: Tensor

    def misfit(self, theta: Tensor, _more: Tensor, _rows: Tensor) -> Tensor:
        """Sum (n,) of the squared errors of poses (n, 24, 6) over their variances."""
        return ((self.measure(theta) - self.target) / self.sigma).square().sum(dim=-1)


def _of_smpl(matrix: Tensor) -> Tensor:
    """Rotations (..., 24, 3, 3) of SMPL's joints; its hands are at rest beside fingers."""
    if matrix.shape[-3] == SMPL_24.num_joints:
        return matrix
    rest = torch.eye(3).to(matrix).expand(*matrix.shape[:-3], 2, 3, 3)
    return torch.cat([matrix[..., :BODY_JOINTS, :, :], rest], dim=-3)


def _coco(keypoints: Array, skeleton: Skeleton) -> Array:
    """Keypoints (17, 3) in COCO's order; those that the joint set lacks have confidence 0."""
    if skeleton == COCO_17:
        return np.nan_to_num(keypoints)
    found, places = shared_joints(skeleton, COCO_17)
    result = np.zeros((COCO_17.num_joints, 3), np.float32)
    result[list(places)] = np.nan_to_num(keypoints[list(found)])
    return result
