"""2D keypoints with confidences, whoever detected or annotated them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.data.report import Report
from flowprior.skeleton import PROHMR_44, Skeleton, shared_joints

__all__ = [
    "FARTHEST_PX",
    "LARGEST_CONF",
    "Detections",
    "clean_keypoints",
    "keypoint_boxes",
    "to_prohmr_44",
]

FARTHEST_PX = 1e5
"""Largest coordinate of a keypoint; what lies farther out is damage."""

LARGEST_CONF = 1.5
"""Largest confidence of a keypoint; OpenPose's exceed 1 by a little."""

Rows = slice | Sequence[int] | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True)
class Detections:
    """N people found in images. Pixels have their origin in the top left corner.

    Args:
        image_names: (N,) str, paths relative to ``image_dir``; without a suffix where the source
            does not name images and none were found.
        person: (N,) int64, number of the person among those of its image, in the order of the
            source, those left out counted too.
        keypoints_2d: (N, J, 3) float32, pixels and confidence.
        skeleton: The J joints.
        center: (N, 2) float32, middle of the box, pixels.
        box_size: (N,) float32, side of the square box, pixels; positive.
        image_dir: The folder of the images; None if there is none.
    """

    image_names: NDArray[np.str_]
    person: NDArray[np.int64]
    keypoints_2d: NDArray[np.float32]
    skeleton: Skeleton
    center: NDArray[np.float32]
    box_size: NDArray[np.float32]
    image_dir: Path | None

    def __len__(self) -> int:
        return len(self.keypoints_2d)

    def __getitem__(self, rows: Rows) -> "Detections":
        """Some of the people, selected as in an array."""
        return Detections(
            self.image_names[rows],
            self.person[rows],
            self.keypoints_2d[rows],
            self.skeleton,
            self.center[rows],
            self.box_size[rows],
            self.image_dir,
        )

    @property
    def prohmr_44(self) -> NDArray[np.float32]:
        """(N, 44, 3) the keypoints as `to_prohmr_44` has them."""
        return to_prohmr_44(self.keypoints_2d, self.skeleton)


def to_prohmr_44(keypoints: NDArray[np.float32], skeleton: Skeleton) -> NDArray[np.float32]:
    """Keypoints in the order of ProHMR's 44, with zeros for those that are not there.

    A detected joint becomes the one of OpenPose's 25 that means it. The 19 extra ones stay zero:
    those of the data sets lie elsewhere (hips by centimetres).

    Args:
        keypoints: (..., J, k).
        skeleton: The J joints, as BODY-25, COCO-17 or COCO-18.

    Returns:
        (..., 44, k).
    """
    ours, theirs = shared_joints(PROHMR_44, skeleton)
    shape = (*keypoints.shape[:-2], PROHMR_44.num_joints, keypoints.shape[-1])
    placed = np.zeros(shape, keypoints.dtype)
    placed[..., list(ours), :] = keypoints[..., list(theirs), :]
    return placed


def clean_keypoints(
    keypoints: NDArray[np.floating], skeleton: Skeleton, places: Sequence[str], report: Report
) -> NDArray[np.float32]:
    """Take the confidence from keypoints that cannot be used.

    Args:
        keypoints: (N, J, 3), pixels and confidence.
        skeleton: Its J joints, for the report.
        places: N names of the rows, for the report.
        report: Told of keypoints with NaN or infinity, farther out than `FARTHEST_PX`, or with a
            confidence below 0 or above `LARGEST_CONF`. They are ignored.

    Returns:
        (N, J, 3) float32, finite, with zeros for ignored keypoints.
    """
    values = keypoints.astype(np.float64)
    damaged = ~np.isfinite(values).all(axis=-1)
    values[damaged] = 0
    away = (np.abs(values[..., :2]) > FARTHEST_PX).any(axis=-1)
    doubtful = ~away & ((values[..., 2] < 0) | (values[..., 2] > LARGEST_CONF))
    for reason, found in (
        ("keypoint with NaN or infinity", damaged),
        (f"keypoint beyond {FARTHEST_PX:g} pixels", away),
        (f"keypoint of confidence below 0 or above {LARGEST_CONF:g}", doubtful),
    ):
        names = skeleton.joint_names
        report.ignore(
            reason, (f"{places[row]}, {names[joint]}" for row, joint in np.argwhere(found))
        )
    values[away | doubtful] = 0
    return values.astype(np.float32)


def keypoint_boxes(
    keypoints: NDArray[np.float32], enlarge: float = 1.2, min_conf: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Square boxes around people.

    Args:
        keypoints: (N, J, 3), pixels and confidence.
        enlarge: Side of the box, in sides of the tightest square around the confident keypoints.
        min_conf: Keypoints count above this confidence.

    Returns:
        (N, 2) centres and (N,) sides in pixels; zero where fewer than two keypoints count, or where
        they all coincide.
    """
    confident = keypoints[..., 2:] > min_conf
    some = np.asarray(confident.any(axis=(1, 2)))
    low = np.where(confident, keypoints[..., :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(confident, keypoints[..., :2], -np.inf).max(axis=1, initial=-np.inf)
    low, high = (np.where(some[:, None], bound, 0) for bound in (low, high))
    side = enlarge * (high - low).max(axis=1)
    return ((low + high) / 2).astype(np.float32), side.astype(np.float32)
