"""What the viewer shows of one image and one person, without a browser: `Stage`."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from flowprior.body import BodyModel
from flowprior.prior.posterior import PosePrior
from flowprior.results import Fits
from flowprior.skeleton import SMPL_24
from flowprior.view.colours import Scale, confidence_scale
from flowprior.view.directions import Directions, latent_directions
from flowprior.view.meshes import Poses, poses_of
from flowprior.view.placing import Answer, PersonPosterior

__all__ = ["NUM_DIRECTIONS", "PhotoPlane", "Stage", "photo_plane"]

Array: TypeAlias = NDArray[Any]

NUM_DIRECTIONS = 4
"""Number of latent directions that the viewer shows."""

BEHIND_M = 0.7
DEFAULT_DEPTH_M = 4.0


@dataclass(frozen=True)
class PhotoPlane:
    """A photo as a rectangle in front of the camera, where its pixels project onto themselves.

    Args:
        centre: (3,) metres, camera frame.
        width: Metres.
        height: Metres.
    """

    centre: Array
    width: float
    height: float


def photo_plane(size: Array, focal_px: float, centre_px: Array, depth: float) -> PhotoPlane:
    """The plane of a photo at a depth.

    Args:
        size: (2,) width and height, pixels.
        focal_px: Focal length, pixels.
        centre_px: (2,) principal point, pixels.
        depth: Distance from the camera along its axis, metres.
    """
    across = (np.asarray(size, float) / 2 - centre_px) * depth / focal_px
    width, height = np.asarray(size, float) * depth / focal_px
    return PhotoPlane(np.array([*across, depth]), float(width), float(height))


@dataclass
class Stage:
    """The state of the viewer: image, person, pose, placed joints, and what follows from them.

    Args:
        fits: The fits, at least one person.
        body: Their body.
        prior: The prior that answers when joints are placed.
    """

    fits: Fits
    body: BodyModel
    prior: PosePrior
    row: int = 0
    sample: int = 0
    amounts: list[float] = field(default_factory=lambda: [0.0] * NUM_DIRECTIONS)
    placed: dict[int, Array] = field(default_factory=dict)
    keep_keypoints: bool = True

    def __post_init__(self) -> None:
        if not len(self.fits):
            raise ValueError("there is nobody in these fits")
        self._bodies: dict[int, Poses | None] = {}
        self.select(self.row)

    # What is chosen.

    def select(self, row: int) -> None:
        """Show another person, as in the fit."""
        self.row = row
        self.person: PersonPosterior | None = None
        self.answer: Answer | None = None
        self._directions: Directions | None = None
        self.placed, self.sample, self.amounts = {}, 0, [0.0] * NUM_DIRECTIONS
        if self._poses(row) is not None:
            self.person = PersonPosterior(self.prior, self.body, self.fits, row)
            self.answer = self.person.fit()
            self._theta = self.answer.theta

    def show_sample(self, sample: int) -> None:
        """Show a sample, from 1 to `num_samples`, or the most likely pose, 0."""
        if not 0 <= sample <= self.num_samples:
            raise ValueError(f"sample must be from 0 to {self.num_samples}, got {sample}")
        self._choose(sample)
        self.amounts = [0.0] * NUM_DIRECTIONS
        if self.answer is not None:
            self._theta = self.answer.samples[sample - 1] if sample else self.answer.theta

    def show_direction(self, direction: int, amount: float) -> None:
        """Show the pose at an amount along a direction, in standard deviations of the latent."""
        self._choose(0)
        self.amounts[direction] = amount
        if self.answer is not None and self.person is not None:
            z = self.directions.latent(self.amounts)
            self._theta = self.person.pose(self.answer.posterior, z)

    def move(self, joint: int, place: Array) -> None:
        """A joint is being moved to a place (3,): show where the body follows."""
        if self.person is None or self.answer is None:
            return
        self._require_movable(joint)
        self._choose(0)
        self.amounts = [0.0] * NUM_DIRECTIONS
        self.placed = {**self.placed, joint: np.asarray(place, np.float64)}
        self._theta = self.person.follow(
            self.answer, self.placed, keep_keypoints=self.keep_keypoints
        )

    def settle(self) -> None:
        """The joints are placed: the posterior given them, from the pose on the screen."""
        if self.person is None:
            return
        start = self._theta if self.placed else None
        self.answer = self.person.given(
            self.placed, start=start, keep_keypoints=self.keep_keypoints
        )
        self._directions = None
        self.show_sample(0)

    def release(self, joint: int | None = None) -> None:
        """A placed joint is free again, or all of them."""
        self.placed = {each: place for each, place in self.placed.items() if each != joint}
        if joint is None:
            self.placed = {}
        self.settle()

    # What is shown.

    @property
    def num_samples(self) -> int:
        """Number of samples of the person."""
        return 0 if self.answer is None else len(self.answer.samples)

    @property
    def directions(self) -> Directions:
        """The directions of the present posterior."""
        assert self.answer is not None
        assert self.person is not None
        if self._directions is None:
            self._directions = latent_directions(
                self.answer.posterior, self.person.body, self.person.betas, NUM_DIRECTIONS
            )
        return self._directions

    @property
    def image(self) -> str:
        """Name of the image."""
        return str(self.fits.image[self.row])

    def people(self, image: str) -> list[int]:
        """Rows of the people in an image."""
        return [int(row) for row in np.flatnonzero(self.fits.image == image)]

    def others(self) -> list[Array]:
        """Vertices (V, 3) of the fitted other people of the image."""
        rows = [row for row in self.people(self.image) if row != self.row]
        return [poses.vertices[0] for poses in map(self._poses, rows) if poses is not None]

    def body_on_screen(self) -> tuple[Array, Array] | None:
        """Vertices (V, 3) and joints (24, 3) in metres; None if the person was not fitted."""
        if self.person is None:
            return None
        with torch.no_grad():
            out = self.person.body(self._theta, self.person.betas, self.person.transl)
        return out.vertices.cpu().numpy(), out.joints.cpu().numpy()

    def sample_joints(self) -> Array:
        """Joints (S, 24, 3) of the samples, metres."""
        if self.person is None or self.answer is None:
            return np.zeros((0, SMPL_24.num_joints, 3))
        with torch.no_grad():
            return self.person.joints_of(self.answer.samples).cpu().numpy()

    @property
    def scale(self) -> Scale:
        """The scale of the joints' colours."""
        return confidence_scale(self.fits.confidence_distance_mm)

    def joint_colours(self) -> Array:
        """(24, 3) uint8, by the confidence of each joint."""
        unknown = np.full(SMPL_24.num_joints, np.nan)
        return self.scale.colours(unknown if self.answer is None else self.answer.confidence)

    def photo(self) -> PhotoPlane | None:
        """The plane of the photo, behind everybody; None if the size of the image is unknown."""
        size = self.fits.image_size[self.row]
        if not (np.isfinite(size).all() and (size > 0).all()):
            return None
        deepest = [self._poses(row) for row in self.people(self.image)]
        depths = [poses.vertices[..., 2].max() for poses in deepest if poses is not None]
        depth = max(depths, default=DEFAULT_DEPTH_M) + BEHIND_M
        return photo_plane(
            size, float(self.fits.focal_px[self.row]), self.fits.centre_px[self.row], float(depth)
        )

    def report(self) -> str:
        """The placed joints and how far the body is from them, as Markdown."""
        if self.answer is None:
            return "This person was not fitted."
        if not self.placed:
            return "No joint is placed."
        lines = []
        for joint in self.placed:
            error = self.answer.error_mm.get(joint)
            away = "" if error is None else f", {error:.0f} mm away"
            lines.append(f"- {SMPL_24.joint_names[joint].replace('_', ' ')}{away}")
        return "\n".join(lines)

    def _choose(self, sample: int) -> None:
        """Show a sample; those given placed joints have the hands of the fit."""
        self.sample = sample
        if self.person is not None:
            self.person.hold_hands(0 if self.placed or not self.keep_keypoints else sample)

    def _poses(self, row: int) -> Poses | None:
        """The body of a person as fitted."""
        if row not in self._bodies:
            self._bodies[row] = poses_of(self.fits, row, self.body, 0)
        return self._bodies[row]

    @staticmethod
    def _require_movable(joint: int) -> None:
        if not 0 < joint < SMPL_24.num_joints:
            raise ValueError(f"joint {joint} cannot be placed; possible are 1 to 23")
