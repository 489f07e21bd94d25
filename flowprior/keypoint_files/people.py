"""2D keypoints with confidences, detected or annotated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from flowprior.files.report import Report
from flowprior.keypoints import ENLARGE, FARTHEST_PX, LARGEST_CONF, LEAST_CONF, unit_fault
from flowprior.skeleton import PROHMR_44, SMPL_24, Skeleton, shared_joints

__all__ = [
    "FARTHEST_M",
    "Detections",
    "clean_keypoints",
    "joint_places",
    "keypoint_boxes",
    "to_prohmr_44",
]

FARTHEST_M = 100.0
"""Largest valid distance in metres. Values in millimetres exceed it."""

Rows = slice | Sequence[int] | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True)
class Detections:
    """N people found in images. Pixels have their origin in the top left corner.

    Args:
        image_names: (N,) str, paths relative to ``image_dir``; without a suffix if the source
            names no images and none were found.
        person: (N,) int64, number of the person in its image, in the order of the source,
            counting people left out.
        keypoints_2d: (N, J, 3) float32, pixels and confidence.
        skeleton: The J joints.
        center: (N, 2) float32, middle of the box, pixels.
        box_size: (N,) float32, side of the square box, pixels; positive.
        image_dir: The folder of the images; None if there is none.
        image_size: (N, 2) width and height of the images according to the source, pixels, NaN where
            it does not say; None if it says nowhere.
        joints_3d: (N, 24, 4) SMPL's joints relative to any origin, metres (x right, y down, z
            away from the camera), and confidence, 0 where unknown; None if the source has none.
        track: (N,) int64 number of each person over several images, -1 where the source has none;
            None if it has none at all.
    """

    image_names: NDArray[np.str_]
    person: NDArray[np.int64]
    keypoints_2d: NDArray[np.float32]
    skeleton: Skeleton
    center: NDArray[np.float32]
    box_size: NDArray[np.float32]
    image_dir: Path | None
    image_size: NDArray[np.float32] | None = None
    joints_3d: NDArray[np.float32] | None = None
    track: NDArray[np.int64] | None = None

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
            None if self.image_size is None else self.image_size[rows],
            None if self.joints_3d is None else self.joints_3d[rows],
            None if self.track is None else self.track[rows],
        )

    @staticmethod
    def joined(parts: Sequence["Detections"]) -> "Detections":
        """The people of several sources, which have one joint set and one folder of images."""
        sizes = [np.full((len(part), 2), np.nan, np.float32) for part in parts]
        space = [np.zeros((len(part), SMPL_24.num_joints, 4), np.float32) for part in parts]
        tracks = [np.full(len(part), -1) if part.track is None else part.track for part in parts]
        for row, part in enumerate(parts):
            sizes[row] = sizes[row] if part.image_size is None else part.image_size
            space[row] = space[row] if part.joints_3d is None else part.joints_3d
        return Detections(
            np.concatenate([part.image_names for part in parts]),
            np.concatenate([part.person for part in parts]),
            np.concatenate([part.keypoints_2d for part in parts]),
            parts[0].skeleton,
            np.concatenate([part.center for part in parts]),
            np.concatenate([part.box_size for part in parts]),
            parts[0].image_dir,
            None if all(part.image_size is None for part in parts) else np.concatenate(sizes),
            None if all(part.joints_3d is None for part in parts) else np.concatenate(space),
            None if all(part.track is None for part in parts) else np.concatenate(tracks),
        )

    @property
    def prohmr_44(self) -> NDArray[np.float32]:
        """(N, 44, 3) the keypoints, mapped by `to_prohmr_44`."""
        return to_prohmr_44(self.keypoints_2d, self.skeleton)


def to_prohmr_44(keypoints: NDArray[np.float32], skeleton: Skeleton) -> NDArray[np.float32]:
    """Map keypoints to the order of ProHMR's 44, with zeros for missing joints.

    A detected joint maps to the same joint of OpenPose's 25. The 19 extra joints stay zero, except
    for the upper neck and top of the head of BODY-25B: the joints of the data sets lie in other
    places (hips by centimetres).

    Args:
        keypoints: (..., J, k).
        skeleton: The J joints, as BODY-25, BODY-25B, COCO-17 or COCO-18.

    Returns:
        (..., 44, k).
    """
    pairs = zip(*shared_joints(PROHMR_44, skeleton), strict=True)
    # The root of a hand is not the wrist of the body, though it means the same joint.
    kept = [(o, t) for o, t in pairs if not skeleton.joint_names[t].endswith("_hand_root")]
    ours, theirs = (list(each) for each in zip(*kept, strict=True))
    shape = (*keypoints.shape[:-2], PROHMR_44.num_joints, keypoints.shape[-1])
    placed = np.zeros(shape, keypoints.dtype)
    placed[..., ours, :] = keypoints[..., theirs, :]
    return placed


def clean_keypoints(
    keypoints: NDArray[np.floating],
    place: Callable[[int, int], str],
    report: Report,
    kind: Literal["2D", "3D"] = "2D",
) -> NDArray[np.float32]:
    """Set unusable keypoints to zero.

    Args:
        keypoints: (N, J, 3) pixels and confidence, or (N, J, 4) metres and confidence.
        place: Name of a keypoint in the report by row and joint, as from `joint_places`.
        report: Receives keypoints with NaN or infinity, implausible positions, or a confidence
            below 0 or above `LARGEST_CONF`. Keypoints without confidence are not faults.
        kind: "2D" or "3D".

    Returns:
        Float32, shaped like ``keypoints``, finite, with zeros for unusable keypoints.

    Raises:
        ValueError: All 2D keypoints are normalised, or the confidences are not probabilities, see
            `flowprior.keypoints.unit_fault`.
    """
    values = keypoints.astype(np.float64)
    fault_of_all = unit_fault(torch.from_numpy(values)) if kind == "2D" else None
    if fault_of_all is not None:
        raise ValueError(f"{report.source}: 2D keypoints are in other units: {fault_of_all}")
    conf = values[..., -1]
    finite = np.asarray(np.isfinite(values).all(axis=-1))
    annotated = conf != 0  # also true for NaN
    farthest, unit = {
        "2D": (FARTHEST_PX, "pixels"),
        "3D": (FARTHEST_M, "metres (is its unit millimetres?)"),
    }[kind]
    largest = np.abs(np.where(finite[..., None], values[..., :-1], 0)).max(axis=-1)
    away = np.asarray(largest > farthest)
    unused = ~annotated & (~finite | away)
    for reason, fault in (
        (f"NaN or infinity in a {kind} keypoint", annotated & ~finite),
        (
            f"confidence of a {kind} keypoint below 0 or above {LARGEST_CONF:g}",
            finite & ((conf < 0) | (conf > LARGEST_CONF)),
        ),
        (f"{kind} keypoint beyond {farthest:g} {unit}", annotated & away),
    ):
        fault = fault & ~unused
        report.ignore(reason, (place(row, joint) for row, joint in np.argwhere(fault)))
        unused |= fault
    return np.where(unused[..., None], 0, values).astype(np.float32)


def joint_places(places: Sequence[str], skeleton: Skeleton) -> Callable[[int, int], str]:
    """Names of keypoints for a report: "row 3, keypoint 7 left_wrist".

    Args:
        places: N names of the rows.
        skeleton: Their J joints.
    """

    def place(row: int, joint: int) -> str:
        return f"{places[row]}, keypoint {joint} {skeleton.joint_names[joint]}"

    return place


def keypoint_boxes(
    keypoints: NDArray[np.float32], enlarge: float = ENLARGE, min_conf: float = LEAST_CONF
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Square boxes around people.

    Args:
        keypoints: (N, J, 3), pixels and confidence.
        enlarge: Side of the box, in sides of the tightest square around the confident keypoints.
        min_conf: Keypoints count above this confidence.

    Returns:
        (N, 2) centres and (N,) sides in pixels; zero if fewer than two keypoints count or all
        coincide.
    """
    confident = keypoints[..., 2:] > min_conf
    some = np.asarray(confident.any(axis=(1, 2)))
    low = np.where(confident, keypoints[..., :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(confident, keypoints[..., :2], -np.inf).max(axis=1, initial=-np.inf)
    low, high = (np.where(some[:, None], bound, 0) for bound in (low, high))
    side = enlarge * (high - low).max(axis=1)
    return ((low + high) / 2).astype(np.float32), side.astype(np.float32)
