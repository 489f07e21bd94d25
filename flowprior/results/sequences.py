"""From the 2D keypoints of one person in consecutive frames to `Fits`, smoothed over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting import DEFAULT_PRIOR, SequenceOptions, fit_sequence
from flowprior.fitting.sequence import SequenceFit
from flowprior.fitting.sequence.ball import ball_radius, ball_share
from flowprior.keypoints import LEAST_CONF
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePrior
from flowprior.prior.spaces import RotationSpace
from flowprior.results.estimator import keypoints_to_fit, placed_in
from flowprior.results.fits import CONFIDENCE_DISTANCE_MM, Fits, keypoint_set_name
from flowprior.skeleton import COCO_17, SMPL_24, Skeleton

__all__ = ["SequenceEstimator", "TrackFrames"]

SMOOTHED, FILLED_IN, EXCHANGED = "smoothed", "filled_in", "sides_exchanged"
FRAMES_AT_ONCE = 512
# Quantile of 90 % of the length of an isotropic normal vector, relative to its root mean square.
RADIUS_90 = 1.4435


@dataclass(frozen=True)
class TrackFrames:
    """One person in T consecutive frames.

    Args:
        image: T names of the frames.
        image_path: T paths of their pictures, "" without one.
        keypoints_2d: (T, K, 3) pixels and confidence; zero in frames without the person.
        skeleton: The K keypoints.
        image_size: (2,) pixels.
        focal_px: Focal length, pixels.
        track: Number of the person.
    """

    image: Sequence[str]
    image_path: Sequence[str]
    keypoints_2d: NDArray[np.float32]
    skeleton: Skeleton
    image_size: NDArray[np.float32]
    focal_px: float
    track: int

    def __len__(self) -> int:
        return len(self.image)


class SequenceEstimator:
    """Fits bodies to people in consecutive frames, with one shape and one camera each.

    :func:`flowprior.fitting.fit_sequence` fits the motion; the uncertainty of each joint and frame,
    and the samples, are those of the motion, so neighbouring frames count. Frames without the
    person are filled in.

    Args:
        prior: Name or folder of a pretrained prior over SMPL's joints, or the prior.
        body: A body with SMPL's 24 joints; the embedded body if None.
        body_name: "embedded", or the name of the body's file.
        fps: Frames per second.
        num_samples: Number of sampled motions.
        within_mm: Distance of the confidence.
        seed: Seed of the samples.
        lag: Frames that a result waits for; None for all.
        options: Settings of the fit.
        device: Device of the computation.

    Raises:
        FileNotFoundError: No pretrained prior has that name.
        ValueError: The body has other joints.
    """

    def __init__(
        self,
        prior: PosePrior | str = DEFAULT_PRIOR,
        body: BodyModel | None = None,
        *,
        fps: float,
        body_name: str = "embedded",
        num_samples: int = 16,
        within_mm: float = CONFIDENCE_DISTANCE_MM,
        seed: int = 0,
        lag: int | None = None,
        options: SequenceOptions | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(prior, str):
            prior = ConditionalPosePrior.from_pretrained(prior, device=device)
        if isinstance(prior, ConditionalPosePrior):
            prior = prior.freeze()
        space = prior.space
        if not isinstance(space, RotationSpace) or space.joints not in (23, 24):
            raise ValueError("expected a prior over the rotations of SMPL's joints")
        self.prior, self.space = prior, space
        self.body = (body or BodyModel()).to(device)
        if self.body.skeleton is not SMPL_24:
            raise ValueError(
                f"sequences are fitted with a body of SMPL's 24 joints, {self.body.name} has "
                f"{self.body.num_joints}"
            )
        self.body_name, self.fps = body_name, fps
        self.num_samples, self.within_mm, self.seed = num_samples, within_mm, seed
        self.lag, self.options = lag, options
        self.device = torch.device(device)

    def __call__(self, frames: TrackFrames) -> Fits:
        """Fit the motion of a person; one row per frame, in order.

        Raises:
            ValueError: The keypoints are not in pixels, or their confidences no probabilities.
        """
        keypoints, skeleton = self._keypoints(frames)
        centre = np.float32(0.5) * np.asarray(frames.image_size, np.float32)
        draw = torch.Generator(self.device).manual_seed(1_000_003 * self.seed + frames.track)
        fit = fit_sequence(
            self.prior,
            fps=self.fps,
            keypoints_2d=keypoints,
            skeleton=skeleton,
            body=self.body,
            focal_px=frames.focal_px,
            principal_point_px=(float(centre[0]), float(centre[1])),
            lag=self.lag,
            num_samples=self.num_samples,
            generator=draw,
            options=self.options,
        )
        return self._fits(frames, keypoints, skeleton, centre, fit)

    def empty(self, skeleton: Skeleton) -> Fits:
        """The fits of a sequence without people.

        Args:
            skeleton: The joint set of the keypoints.
        """
        frame = np.zeros((1, skeleton.num_joints, 3), np.float32)
        return self(TrackFrames([""], [""], frame, skeleton, np.ones(2, np.float32), 1.0, 0))[:0]

    def _keypoints(self, frames: TrackFrames) -> tuple[Tensor, Skeleton]:
        keypoints = torch.from_numpy(np.asarray(frames.keypoints_2d, np.float32)).to(self.device)
        return keypoints_to_fit(keypoints, frames.skeleton)

    @torch.no_grad()
    def _fits(
        self,
        frames: TrackFrames,
        keypoints: Tensor,
        skeleton: Skeleton,
        centre: NDArray[np.float32],
        fit: SequenceFit,
    ) -> Fits:
        count = len(frames)
        betas = fit.shape.expand(count, -1)
        joints, error, log_prob = [], [], []
        for rows in torch.arange(count, device=self.device).split(FRAMES_AT_ONCE):
            theta, transl = fit.rotation[rows], fit.transl[rows]
            joints.append(self.body.keypoints(theta, SMPL_24, betas[rows], transl))
            points = self.body.keypoints(theta, skeleton, betas[rows], transl)
            error.append(_reprojection(points, keypoints[rows], frames.focal_px, centre))
            log_prob.append(self._log_prob(theta, keypoints[rows], skeleton))
        covariance = fit.joint_covariance
        assert covariance is not None  # the body is known
        covariance = 1e6 * covariance  # square millimetres
        rotation_std = fit.rotation_std_degrees
        status = np.where(fit.seen.cpu().numpy(), SMOOTHED, FILLED_IN)
        status = np.where(fit.swapped.cpu().numpy(), EXCHANGED, status)
        samples = rotations.matrix_to_rotvec(fit.samples) if fit.samples is not None else None
        rotvec = rotations.matrix_to_rotvec(fit.rotation)
        std = covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
        direction = torch.linalg.eigh(covariance).eigenvectors[..., -1]

        def known(value: Tensor) -> NDArray[np.float32]:
            array: NDArray[np.float32] = value.detach().cpu().numpy().astype(np.float32)
            return array

        return Fits(
            image=np.array(frames.image, np.str_),
            image_path=np.array(frames.image_path, np.str_),
            image_size=np.tile(frames.image_size, (count, 1)),
            person=np.full(count, frames.track),
            focal_px=np.full(count, frames.focal_px),
            centre_px=np.tile(centre, (count, 1)),
            global_orient=known(rotvec[:, :1]),
            body_pose=known(rotvec[:, 1:]),
            betas=known(betas),
            transl=known(fit.transl),
            joints=known(torch.cat(joints)),
            keypoints_2d=known(keypoints),
            joint_std_mm=known(std),
            joint_radius_50_mm=known(ball_radius(covariance, 0.5)),
            joint_radius_90_mm=known(ball_radius(covariance, 0.9)),
            joint_confidence=known(ball_share(covariance, self.within_mm)),
            rotation_std_deg=known(rotation_std),
            rotation_radius_90_deg=known(RADIUS_90 * rotation_std),
            joint_direction=known(direction),
            samples=np.zeros((count, 0, 24, 3)) if samples is None else known(samples),
            reprojection_px=known(torch.cat(error)),
            log_prob=known(torch.cat(log_prob)),
            status=status,
            body=self.body_name,
            keypoint_set=keypoint_set_name(skeleton),
            confidence_distance_mm=self.within_mm,
            fps=self.fps,
        )

    def _log_prob(self, theta: Tensor, keypoints: Tensor, skeleton: Skeleton) -> Tensor:
        """Log-density (T,) of poses under the posterior of each frame, nats."""
        posterior = self.prior.given(keypoints_2d=placed_in(COCO_17, keypoints, skeleton))
        own = theta if self.space.joints == SMPL_24.num_joints else theta[:, 1:]
        return posterior.log_prob(own)


def _reprojection(
    points: Tensor, keypoints: Tensor, focal_px: float, centre: NDArray[np.float32]
) -> Tensor:
    """Mean distance (T,) of points to keypoints, by confidence, pixels; NaN without any."""
    middle = torch.from_numpy(centre).to(points)
    places = focal_px * points[..., :2] / points[..., 2:].clamp(min=1e-3) + middle
    conf = keypoints[..., 2] * (keypoints[..., 2] > LEAST_CONF)
    away = (places - keypoints[..., :2]).norm(dim=-1)
    return (conf * away).sum(dim=-1) / conf.sum(dim=-1)
