"""From 2D keypoints to `Fits`: the fit, the posterior around it, and its uncertainty."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior import fitting, rotations
from flowprior.body import BodyModel
from flowprior.fitting import DEFAULT_PRIOR, fit_keypoints
from flowprior.fitting.pose_variables import variables_of
from flowprior.fitting.whole_body_points import finger_joints
from flowprior.fitting.whole_body_pose import WholeBodyPose, has_fingers
from flowprior.keypoints import LEAST_CONF, seen_keypoints
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import RotationSpace
from flowprior.prior.uncertainty import JointUncertainty, uncertainty_of
from flowprior.results.bodies import EMBEDDED
from flowprior.results.fits import CONFIDENCE_DISTANCE_MM, Fits, keypoint_set_name
from flowprior.skeleton import BODY_25, COCO_17, Skeleton, shared_joints

__all__ = ["Estimator", "Sighting", "keypoints_to_fit", "placed_in"]

LEAST_VISIBILITY = 0.5
DRAWS = 256
"""Samples from which the uncertainty of each person is computed."""
EVIDENCE_SETS = 4
"""Random subsets of uncertain 3D joints; each is the evidence of an equal share of the samples."""
TRIAL_ITERATIONS = 60
PEOPLE_AT_ONCE = 32


@dataclass(frozen=True)
class Sighting:
    """N people, as a detector or a file of keypoints gives them.

    Args:
        image: N names of images.
        image_path: N paths of pictures, "" without one.
        person: (N,) index within the image.
        keypoints_2d: (N, K, 3) pixels and confidence.
        skeleton: The K keypoints.
        image_size: (N, 2) pixels.
        focal_px: (N,) pixels.
        joints_3d: (N, 24, 4) SMPL's joints, metres, camera axes, and confidence; None if unknown.
        track: (N,) tracks according to the source, -1 where it has none; None if it has none.
    """

    image: list[str]
    image_path: list[str]
    person: NDArray[np.int64]
    keypoints_2d: NDArray[np.float32]
    skeleton: Skeleton
    image_size: NDArray[np.float32]
    focal_px: NDArray[np.float32]
    joints_3d: NDArray[np.float32] | None = None
    track: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.keypoints_2d)

    def rows(self, start: int, stop: int) -> "Sighting":
        """Some of the people."""
        at = slice(start, stop)
        space = None if self.joints_3d is None else self.joints_3d[at]
        return Sighting(
            self.image[at],
            self.image_path[at],
            self.person[at],
            self.keypoints_2d[at],
            self.skeleton,
            self.image_size[at],
            self.focal_px[at],
            space,
            None if self.track is None else self.track[at],
        )


class Estimator:
    """Fits bodies to people and measures the uncertainty of each joint.

    :func:`flowprior.fitting.fit_keypoints` fits the body, starting from the prior given the
    keypoints (and 3D joints, if there are some); the uncertainty is that of the posterior around
    the fit, :meth:`flowprior.fitting.Fits.joint_uncertainty`. A 3D joint of confidence c is part of
    the evidence of the fit if c is at least 0.5, and of a share c of the samples.

    Keypoints of fingers pose the hands of a body that has fingers. The hands of people without such
    keypoints are at rest.

    Args:
        prior: Name or folder of a pretrained prior over SMPL's joints, or the prior.
        body: The body: SMPL, SMPL-H or SMPL-X; the embedded body if None.
        body_name: "embedded", or the name of the body's file.
        hands: Whether the embedded body has fingers, and whether keypoints of fingers are used. If
            None, it has them for keypoints of fingers.
        num_samples: Number of samples that are kept for each person.
        within_mm: Distance of the confidence.
        seed: Seed of the samples.
        max_iterations: Maximum number of iterations of a fit.
        device: Device of the computation.

    Raises:
        FileNotFoundError: No pretrained prior has that name.
        ValueError: The prior is not over the rotations of SMPL's joints, or the body has no
            fingers for ``hands``.
    """

    def __init__(
        self,
        prior: PosePrior | str = DEFAULT_PRIOR,
        body: BodyModel | None = None,
        *,
        body_name: str = EMBEDDED,
        hands: bool | None = None,
        num_samples: int = 16,
        within_mm: float = CONFIDENCE_DISTANCE_MM,
        seed: int = 0,
        max_iterations: int = 150,
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(prior, str):
            prior = ConditionalPosePrior.from_pretrained(prior, device=device)
        if isinstance(prior, ConditionalPosePrior):
            prior = prior.freeze()
        space = prior.space
        if not isinstance(space, RotationSpace) or space.joints not in (23, 24):
            raise ValueError(
                "expected a prior over the rotations of SMPL's 24 joints, or of the 23 below the "
                f"root, got one over poses of shape {tuple(space.event_shape)}"
            )
        self.prior, self.space = prior, space
        if hands and body is not None and not has_fingers(body):
            raise ValueError(
                f"{body.name} has no fingers: hands need the embedded body, or a file of SMPL-H or "
                "SMPL-X"
            )
        self.hands, self.body_name = hands, body_name
        self._given = None if body is None else body.to(device)
        self._embedded: dict[bool, BodyModel] = {}
        self.num_samples, self.within_mm = num_samples, within_mm
        self.seed, self.max_iterations = seed, max_iterations
        self.device = torch.device(device)

    def __call__(self, people: Sighting) -> Fits:
        """Fit people in blocks; results depend on the order of the people only through rounding.

        Raises:
            ValueError: The keypoints are not in pixels, or their confidences no probabilities.
        """
        parts = [
            self._fit(people.rows(start, start + PEOPLE_AT_ONCE))
            for start in range(0, max(1, len(people)), PEOPLE_AT_ONCE)
        ]
        return Fits.joined(parts)

    def posterior(self, people: Sighting, known: Tensor | None = None) -> PosePosterior:
        """The posterior given everything about the people.

        Args:
            people: The people.
            known: (N, 24) bool, the 3D joints that are used; by default those with a confidence of
                at least 0.5.
        """
        keypoints, skeleton = self._keypoints(people)
        evidence = self.prior.evidence
        if people.joints_3d is None or evidence is None or "joints_3d" not in evidence.kinds:
            variables = variables_of(self.prior, keypoints, skeleton)
            posterior: PosePosterior = variables.posterior  # type: ignore[attr-defined]
            return posterior
        space = torch.from_numpy(people.joints_3d).to(keypoints)
        known = space[..., 3] >= LEAST_VISIBILITY if known is None else known
        joints = torch.where(known[..., None], space[..., :3], torch.nan)
        if "keypoints_2d" not in evidence.kinds:
            return self.prior.given(joints_3d=joints)
        coco = placed_in(COCO_17, keypoints, skeleton)
        return self.prior.given(keypoints_2d=coco, joints_3d=joints)

    def _keypoints(self, people: Sighting) -> tuple[Tensor, Skeleton]:
        keypoints = torch.from_numpy(np.asarray(people.keypoints_2d, np.float32)).to(self.device)
        return keypoints_to_fit(keypoints, people.skeleton)

    def body_for(self, skeleton: Skeleton) -> BodyModel:
        """The body that is fitted to keypoints of a joint set."""
        if self._given is not None:
            return self._given
        fingers = bool(finger_joints(skeleton)) if self.hands is None else self.hands
        if fingers not in self._embedded:
            self._embedded[fingers] = BodyModel(hands=fingers).to(self.device)
        return self._embedded[fingers]

    def _uses_fingers(self, skeleton: Skeleton) -> bool:
        """Whether keypoints of fingers are fitted."""
        wanted = self.hands is not False and bool(finger_joints(skeleton))
        return wanted and has_fingers(self.body_for(skeleton))

    def _fit(self, people: Sighting) -> Fits:
        keypoints, skeleton = self._keypoints(people)
        body = self.body_for(people.skeleton)
        if self._uses_fingers(people.skeleton):
            everything = torch.from_numpy(np.asarray(people.keypoints_2d, np.float32))
            keypoints, skeleton = seen_keypoints(everything.to(self.device)), people.skeleton
        count = len(keypoints)
        if not count:
            return self._empty(body, skeleton)
        with torch.no_grad():
            posterior = self.posterior(people)
        size = torch.from_numpy(np.asarray(people.image_size, np.float32)).to(self.device)
        focal = torch.from_numpy(np.asarray(people.focal_px, np.float32)).to(self.device)

        def fit(posterior: PosePosterior, most: int) -> fitting.Fits:
            return fit_keypoints(
                keypoints,
                posterior,
                body=body,
                skeleton=skeleton,
                image_size=size,
                focal_px=focal,
                max_iterations=min(most, self.max_iterations),
            )

        fits = fit(posterior, self.max_iterations)
        lost = torch.tensor([status in ("no_keypoints", "non_finite") for status in fits.status])
        with torch.no_grad():
            # Without a keypoint, the camera may be anywhere.
            transl = torch.where(lost[:, None].to(self.device), 0, fits.transl)
            joints = body(fits.theta, fits.betas, transl).joints
            smpl = _smpl_theta(fits)
            own = smpl if self.space.joints == 24 else smpl[:, 1:]
            log_prob = posterior.expand(torch.Size([count])).log_prob(own)
        spread, samples = self._around(people, fits, fit)
        confidence = spread.confidence(self.within_mm)

        def known(value: Tensor) -> NDArray[np.float32]:
            """NaN for people without a fit."""
            array: NDArray[np.float32] = value.detach().cpu().numpy().astype(np.float32)
            array[lost.numpy()] = np.nan
            return array

        rotvec = rotations.matrix_to_rotvec(fits.theta)
        pose: dict[str, Any] = {
            name: known(rotvec[:, joints]) for name, joints in body.parts.items()
        }
        if has_fingers(body):
            pose["hands"] = np.array(fits.hands, np.str_).reshape(-1, 2)
        return Fits(
            image=np.array(people.image, np.str_),
            image_path=np.array(people.image_path, np.str_),
            image_size=people.image_size,
            person=people.person,
            focal_px=fits.focal_px.cpu().numpy(),
            centre_px=fits.principal_point_px.cpu().numpy(),
            betas=known(fits.betas),
            transl=known(fits.transl),
            joints=known(joints),
            keypoints_2d=keypoints.cpu().numpy(),
            joint_std_mm=known(spread.std_mm),
            joint_radius_50_mm=known(spread.radius_50_mm),
            joint_radius_90_mm=known(spread.radius_90_mm),
            joint_confidence=known(confidence),
            rotation_std_deg=known(spread.std_degrees),
            rotation_radius_90_deg=known(spread.radius_90_degrees),
            joint_direction=known(spread.direction),
            samples=known(samples),
            reprojection_px=fits.error_px.cpu().numpy(),
            log_prob=known(log_prob),
            status=np.array(fits.status, np.str_),
            body=self.body_name,
            keypoint_set=keypoint_set_name(skeleton),
            confidence_distance_mm=self.within_mm,
            **pose,
        )

    def _around(
        self,
        people: Sighting,
        fits: fitting.Fits,
        fit: Callable[[PosePosterior, int], fitting.Fits],
    ) -> tuple[JointUncertainty, Tensor]:
        """Uncertainty of fits, and samples (N, S, J, 3) as rotation vectors.

        Args:
            people: The people.
            fits: Their fits.
            fit: Fits them with another posterior, in at most so many iterations.
        """
        first = people.image[0] if people.image else ""
        seed = sum(first.encode()) + int(people.person[0]) + 1_000_003 * self.seed
        generator = torch.Generator(self.device).manual_seed(seed)
        conf = None if people.joints_3d is None else people.joints_3d[..., 3]
        if conf is None or not ((conf > LEAST_CONF) & (conf < 1 - LEAST_CONF)).any():
            spread = fits.joint_uncertainty(num_samples=DRAWS, generator=generator)
            samples = fits.posterior_samples(self.num_samples, generator=generator).theta
            return spread, rotations.matrix_to_rotvec(samples)
        share = torch.from_numpy(conf).to(self.device)
        drawn = []
        for _ in range(EVIDENCE_SETS):
            known = torch.rand(share.shape, generator=generator, device=self.device) < share
            with torch.no_grad():
                posterior = self.posterior(people, known)
            some = fit(posterior, TRIAL_ITERATIONS)
            number = DRAWS // EVIDENCE_SETS
            drawn.append(some.posterior_samples(number, generator=generator).theta)
        samples = torch.cat(drawn, dim=1)
        body = self.body_for(people.skeleton)
        spread = uncertainty_of(samples, fits.theta, body, body.skeleton, fits.betas)
        kept = torch.linspace(0, samples.shape[1] - 1, self.num_samples).round().long()
        return spread, rotations.matrix_to_rotvec(samples[:, kept.to(samples.device)])

    def _empty(self, body: BodyModel, skeleton: Skeleton) -> Fits:
        """Fits without people."""
        joints = np.zeros((0, body.num_joints))
        points = np.zeros((0, body.num_joints, 3))
        pose: dict[str, Any] = {name: points[:, part] for name, part in body.parts.items()}
        if has_fingers(body):
            pose["hands"] = np.zeros((0, 2), np.str_)
        return Fits(
            image=np.zeros(0, np.str_),
            image_path=np.zeros(0, np.str_),
            image_size=np.zeros((0, 2)),
            person=np.zeros(0, np.int64),
            focal_px=np.zeros(0),
            centre_px=np.zeros((0, 2)),
            betas=np.zeros((0, 10)),
            transl=np.zeros((0, 3)),
            joints=points,
            keypoints_2d=np.zeros((0, skeleton.num_joints, 3)),
            joint_std_mm=joints,
            joint_radius_50_mm=joints,
            joint_radius_90_mm=joints,
            joint_confidence=joints,
            rotation_std_deg=joints,
            rotation_radius_90_deg=joints,
            joint_direction=points,
            samples=np.zeros((0, self.num_samples, body.num_joints, 3)),
            reprojection_px=np.zeros(0),
            log_prob=np.zeros(0),
            status=np.zeros(0, np.str_),
            body=self.body_name,
            keypoint_set=keypoint_set_name(skeleton),
            confidence_distance_mm=self.within_mm,
            **pose,
        )


def _smpl_theta(fits: fitting.Fits) -> Tensor:
    """Rotations (N, 24, 3, 3) of SMPL's joints: those of the prior where the body has fingers."""
    pose = fits.objective.pose
    if not isinstance(pose, WholeBodyPose):
        return fits.theta
    x = torch.where(fits.variables.isfinite(), fits.variables, 0)[:, : pose.body.size]
    return rotations.rot6d_to_matrix(pose.body.theta(x))


def placed_in(target: Skeleton, keypoints: Tensor, skeleton: Skeleton) -> Tensor:
    """Move keypoints to another joint set.

    Args:
        target: The joint set, with T joints.
        keypoints: (N, K, 3), x and y in pixels and confidence.
        skeleton: Their joint set.

    Returns:
        (N, T, 3), zeros for joints that the keypoints lack.
    """
    ours, theirs = shared_joints(skeleton, target)
    placed = keypoints.new_zeros(len(keypoints), target.num_joints, 3)
    placed[:, list(theirs)] = keypoints[:, list(ours)]
    return placed


def keypoints_to_fit(keypoints: Tensor, skeleton: Skeleton) -> tuple[Tensor, Skeleton]:
    """Keypoints as fits of the body take them.

    Args:
        keypoints: (N, K, 3), x and y in pixels and confidence.
        skeleton: Their joint set.

    Returns:
        (N, 17 or 25, 3) with zeros where a joint is not seen, and their joint set: COCO's for
        COCO's, BODY-25 for any other.
    """
    if skeleton not in (COCO_17, BODY_25):
        keypoints, skeleton = placed_in(BODY_25, keypoints, skeleton), BODY_25
    return seen_keypoints(keypoints), skeleton
