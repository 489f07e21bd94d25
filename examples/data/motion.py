"""Recorded motion as SMPL poses, and conversions to one convention.

World frame: metres, y up; with all rotations zero a person faces +z and has the
left side at +x.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from examples.data.files import numbered
from flowprior import rotations
from flowprior.files.report import Report
from flowprior.skeleton import SMPL_24

__all__ = [
    "GENDERS",
    "LARGEST_ANGLE",
    "LARGEST_BETA",
    "MEAN_BETAS",
    "Float32",
    "Motion",
    "check_rotvecs",
    "frames_at_rate",
    "parse_gender",
    "unwind",
    "z_up_to_y_up",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

GENDERS = ("female", "male", "neutral")
LARGEST_ANGLE = 4 * math.pi
"""Longest valid rotation vector in radians. A longer one is in degrees, or damaged."""

LARGEST_BETA = 100.0
"""Largest valid shape coefficient."""

MEAN_BETAS = np.zeros(10, np.float32)
"""Shape coefficients of the mean body, for sources that have none."""

Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Motion:
    """Poses of one person in one recording, T frames, y up.

    Args:
        global_orient: (T, 3) float32 rotation vectors of the root, radians.
        body_pose: (T, 23, 3) float32 rotation vectors of the other joints in SMPL-24 order. Hands
            are the identity for sources in SMPL-H or SMPL-X, whose hand joints differ.
        transl: (T, 3) float32, metres; None if the source has none.
        betas: (T, K) float32 shape coefficients of the source's body model, constant
            per person; zeros, the mean body, if the source has none.
        gender: Gender of that body model, one of `GENDERS`; "neutral" if unknown.
        frame_rate: Frames per second; None if unknown or meaningless.
        subject: Name of the subject, unique within the source; empty if unknown.
        sequence: Name of the recording; empty if unknown.
        frames: (T,) int64, number of each frame in its recording. Some may be missing.
    """

    global_orient: Float32
    body_pose: Float32
    transl: Float32 | None
    betas: Float32
    gender: str
    frame_rate: float | None
    subject: str
    sequence: str
    frames: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.body_pose)

    @property
    def rotvecs(self) -> Float32:
        """(T, 24, 3) rotation vectors, the root first: SMPL's pose."""
        return np.concatenate([self.global_orient[:, None], self.body_pose], axis=1)


def frames_at_rate(num_frames: int, frame_rate: float, rate_hz: float) -> NDArray[np.int64]:
    """Select the frames of a recording for a lower frame rate.

    Args:
        num_frames: Number T of frames.
        frame_rate: Their rate in Hz; any positive number.
        rate_hz: The target rate. A recording that is not faster keeps all frames.

    Returns:
        Distinct indices, ascending, starting with the first frame.

    Raises:
        ValueError: A rate is not positive and finite.
    """
    for name, rate in (("frame_rate", frame_rate), ("rate_hz", rate_hz)):
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"expected a positive {name}, got {rate}")
    step = max(1.0, frame_rate / rate_hz)
    beats = np.arange(max(0, math.ceil((num_frames - 0.5) / step)))
    return np.floor(beats * step + 0.5).astype(np.int64)


def parse_gender(value: object) -> str | None:
    """Parse a gender of a file: text, bytes or 0-d arrays, whole words or initials.

    Args:
        value: The entry of the file.

    Returns:
        One of `GENDERS`; None if unknown.
    """
    array = np.asarray(value)
    if array.size != 1:
        return None
    item: object = array.reshape(-1)[0]
    text = item.decode("latin1") if isinstance(item, bytes) else str(item)
    # Some files contain str() of bytes.
    text = text.strip().removeprefix("b").strip("'\" \0").lower()
    return next((gender for gender in GENDERS if text in (gender, gender[0])), None)


def unwind(rotvecs: Float64) -> Float64:
    """Shorten rotation vectors (..., 3) to a length of at most pi, for the same rotations."""
    angle = np.linalg.norm(rotvecs, axis=-1, keepdims=True)
    turns = np.round(angle / (2 * np.pi))
    return rotvecs * (1 - 2 * np.pi * turns / np.maximum(angle, 1))


def check_rotvecs(
    rotvecs: NDArray[np.floating], frames: NDArray[np.int64], report: Report
) -> tuple[Float64, NDArray[np.bool_]]:
    """Find usable poses, and remove whole turns from their rotation vectors.

    Args:
        rotvecs: (T, J, 3) rotation vectors, radians.
        frames: (T,) their frame numbers, for the report.
        report: Receives poses with NaN, infinity or a vector beyond `LARGEST_ANGLE` as left out,
            and whole turns as ignored. Vectors between half a turn and a whole one are common.

    Returns:
        (T, J, 3) vectors of length at most pi, zero for unusable poses; and (T,) the mask of
        usable poses.
    """
    values = rotvecs.astype(np.float64)
    finite = np.isfinite(values).all(axis=(1, 2))
    values[~finite] = 0
    with np.errstate(over="ignore"):
        angle = np.linalg.norm(values, axis=-1)
    plausible = (angle <= LARGEST_ANGLE).all(axis=1)
    report.leave_out("pose with NaN or infinity", numbered(report.unit, frames[~finite]))
    report.leave_out(
        "rotation of more than two turns, degrees perhaps",
        numbered(report.unit, frames[~plausible]),
    )
    values[~plausible] = 0
    turned = plausible[:, None] & (angle >= 2 * np.pi)
    report.ignore(
        "whole turn in a rotation vector",
        (
            f"{report.unit} {frames[row]}, {SMPL_24.joint_names[joint]}"
            for row, joint in zip(*np.nonzero(turned), strict=True)
        ),
    )
    return unwind(values), finite & plausible


def z_up_to_y_up(
    global_orient: ArrayLike, transl: ArrayLike, pelvis: ArrayLike = (0.0, 0.0, 0.0)
) -> tuple[Float64, Float64]:
    """Rotate poses from a world with z up to one with y up: (x, y, z) becomes (x, z, -y).

    Facing -y becomes facing +z. SMPL rotates the body about its pelvis before the translation,
    so the new ``transl`` depends on the pelvis of the body at rest, relative to the model's origin.
    It depends on the body model and on betas, and motion files do not contain it. Without it, each
    person is displaced by a constant of about 0.3 m; the rotations are correct either way.

    Args:
        global_orient: (..., 3) rotation vectors, radians.
        transl: (..., 3) metres.
        pelvis: (3,) the pelvis at rest, metres: the first joint of the body in the zero pose.

    Returns:
        ``global_orient`` and ``transl`` (..., 3) in the new world.
    """
    turn = torch.from_numpy(Y_UP_FROM_Z_UP)
    local = rotations.rotvec_to_matrix(torch.from_numpy(np.asarray(global_orient, np.float64)))
    turned: Float64 = rotations.matrix_to_rotvec(turn @ local).numpy()
    place = np.asarray(pelvis, np.float64)
    moved = (np.asarray(transl, np.float64) + place) @ Y_UP_FROM_Z_UP.T - place
    return turned, moved
