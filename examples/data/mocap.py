"""Motion capture in several formats: AMASS, one file with a split by subject, ProHMR's file.

`amass` reads the clips of AMASS. This module reads the other two: poses of
many people in one file with a split, such as the converted CMU data; and the ``cmu_mocap.npz`` of
``nkolot/ProHMR``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.data.amass import holds_clips, read_amass
from examples.data.files import npz_keys, number_array, numbered
from examples.data.motion import (
    LARGEST_BETA,
    MEAN_BETAS,
    Float32,
    Motion,
    check_rotvecs,
)
from examples.data.pose_forms import read_rotations, to_rotvecs
from flowprior.files.limits import require_path
from flowprior.files.numpy_file import read_npz
from flowprior.files.report import Report
from flowprior.keypoint_files.people import FARTHEST_M
from flowprior.skeleton import H36M_17, SMPL_24

__all__ = [
    "SPLITS",
    "SplitPoses",
    "inspect",
    "matches",
    "read_motion",
    "read_prohmr_mocap",
    "read_split_poses",
]

SPLITS = ("train", "val", "test")
"""Meaning of the codes 0, 1, 2 in a file with a split."""

SPLIT_KEYS = ("joints17", "split", "subject", "subject_names")


def matches(path: Path) -> bool:
    """Whether this module reads a file, or the clips in a folder; checks keys only."""
    keys = npz_keys(path)
    return keys >= set(SPLIT_KEYS) or _is_prohmr(keys) or holds_clips(path)


def inspect(path: Path) -> Report:
    """Read a whole source and report its content and faults.

    Args:
        path: As for `read_motion`.

    Returns:
        The report.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: It has none of the formats.
    """
    if npz_keys(path) >= set(SPLIT_KEYS):
        return read_split_poses(path)[1]
    return read_motion(path)[1]


def read_motion(path: Path | str, rate_hz: float | None = None) -> tuple[list[Motion], Report]:
    """Read motion capture in any of the formats of this module.

    Args:
        path: An AMASS clip or a folder of them, a file with a split, or ProHMR's.
        rate_hz: As for `read_amass`; the other formats have no rate.

    Returns:
        One motion per recording, without those that have no usable frame; and the report.

    Raises:
        FileNotFoundError: ``path`` does not exist or contains no ``.npz`` file.
        ValueError: It has none of the formats; the message describes its content.
    """
    path = require_path(path)
    keys = npz_keys(path)
    if keys >= set(SPLIT_KEYS):
        poses, report = read_split_poses(path)
        if poses.rotvecs is None:
            raise ValueError(f"{path}: expected poses (N, 72), got a file with joints only")
        return poses.motions(), report
    if _is_prohmr(keys):
        motion, report = read_prohmr_mocap(path)
        return [motion] if len(motion) else [], report
    return read_amass(path, rate_hz)


def _is_prohmr(keys: frozenset[str]) -> bool:
    return keys >= {"body_pose", "betas"} and "imgname" not in keys


def read_prohmr_mocap(path: Path | str) -> tuple[Motion, Report]:
    """Read ProHMR's motion capture file: poses and shapes of its discriminator.

    Args:
        path: An ``.npz`` file with ``body_pose`` (N, 72), of which ProHMR drops the first three
            numbers, and ``betas`` (N, 10).

    Returns:
        The N poses in the order of the file, ``global_orient`` zero, hands as in the file; and what
        was found.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file does not have this format.
    """
    path = Path(path)
    content = read_npz(path, ("body_pose", "betas"))
    poses = read_rotations(content, "body_pose", path, joints=(SMPL_24.num_joints,))
    betas = number_array(content, "betas", (len(poses), None), path)
    report = Report(str(path), "ProHMR motion capture", unit="pose", rows=len(poses))
    rows = np.arange(len(poses))
    rotvecs = to_rotvecs(poses)
    rotvecs[:, 0] = 0
    rotvecs, usable = check_rotvecs(rotvecs, rows, report)
    lost = usable & ~(np.abs(betas) < LARGEST_BETA).all(axis=1)
    report.leave_out(f"betas of NaN or beyond {LARGEST_BETA:g}", numbered("pose", lost))
    usable &= ~lost
    report.kept = int(usable.sum())
    body_pose = rotvecs[usable, 1:].astype(np.float32)
    motion = Motion(
        np.zeros((report.kept, 3), np.float32),
        body_pose,
        None,
        betas[usable].astype(np.float32),
        "neutral",
        None,
        "",
        "",
        rows[usable],
    )
    return motion, report


@dataclass(frozen=True)
class SplitPoses:
    """Poses of several people in one file, with the part that each belongs to.

    Args:
        joints: (N, 17, 3) float32 in H36M-17 order, metres, y up, the middle of the hips at the
            origin.
        rotvecs: (N, 24, 3) float32 rotation vectors in SMPL-24 order, the root first, y up; None if
            the file has none.
        split: (N,) indices into `SPLITS`.
        subject: (N,) indices into ``subject_names``.
        subject_names: Names of the subjects.
        sequence: (N,) indices into ``sequence_names``.
        sequence_names: Names of the recordings; one empty name if the file has none.
        frame: (N,) int64 number of each frame in its recording.
    """

    joints: Float32
    rotvecs: Float32 | None
    split: NDArray[np.integer]
    subject: NDArray[np.integer]
    subject_names: tuple[str, ...]
    sequence: NDArray[np.integer]
    sequence_names: tuple[str, ...]
    frame: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.joints)

    def motions(self) -> list[Motion]:
        """One motion per recording of a subject, in the order of the file.

        ``transl`` is None, because SMPL's differs from the position of the hips. The rate is
        unknown, because such files omit near duplicates.

        Raises:
            ValueError: The file has joints only.
        """
        if self.rotvecs is None:
            raise ValueError("expected a file with poses (N, 72), got one with joints only")
        found: list[Motion] = []
        for subject, sequence in self._recordings():
            rows = (self.subject == subject) & (self.sequence == sequence)
            rotvecs = self.rotvecs[rows]
            found.append(
                Motion(
                    rotvecs[:, 0],
                    rotvecs[:, 1:],
                    None,
                    np.tile(MEAN_BETAS, (len(rotvecs), 1)),
                    "neutral",
                    None,
                    self.subject_names[subject],
                    self.sequence_names[sequence],
                    self.frame[rows],
                )
            )
        return found

    def _recordings(self) -> Iterator[tuple[int, int]]:
        pairs = np.stack([self.subject, self.sequence], axis=1)
        unique, first = np.unique(pairs, axis=0, return_index=True)
        for subject, sequence in unique[np.argsort(first)]:
            yield int(subject), int(sequence)


def read_split_poses(path: Path | str) -> tuple[SplitPoses, Report]:
    """Read a file with joints of many people and the part that each person belongs to.

    Args:
        path: An ``.npz`` file with ``joints17`` (N, 17, 3), ``split`` (N,) (0 train, 1 val, 2
            test), ``subject`` (N,) and ``subject_names``; optionally ``poses`` (N, 72),
            ``sequence`` (N,), ``sequence_names`` and ``frame`` (N,).

    Returns:
        The usable poses; and the report.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file does not have this format.
    """
    path = Path(path)
    optional = ("poses", "sequence", "sequence_names", "frame")
    content = read_npz(path, (*SPLIT_KEYS, *optional))
    missing = [key for key in SPLIT_KEYS if key not in content]
    if missing:
        raise ValueError(
            f"{path}: expected the keys {', '.join(SPLIT_KEYS)}; {', '.join(missing)} missing, "
            f"found {', '.join(sorted(npz_keys(path))) or 'none'}. A folder of AMASS files is "
            "given as the folder"
        )
    joints = np.asarray(content["joints17"])
    if joints.ndim != 3 or joints.shape[1:] != (H36M_17.num_joints, 3) or joints.dtype.kind != "f":
        raise ValueError(
            f"{path}: expected joints17 of shape (N, 17, 3) and a floating-point dtype, "
            f"got {joints.shape} of {joints.dtype}"
        )
    rows = len(joints)
    split = _codes(path, content, "split", rows)
    subject = _codes(path, content, "subject", rows)
    names = tuple(str(name) for name in np.ravel(np.asarray(content["subject_names"])))
    if rows and not 0 <= subject.min() <= subject.max() < len(names):
        raise ValueError(f"{path}: subject points outside the {len(names)} subject_names")
    sequence: NDArray[np.integer] = np.zeros(rows, np.int64)
    sequences: tuple[str, ...] = ("",)
    if "sequence" in content and "sequence_names" in content:
        sequence = _codes(path, content, "sequence", rows)
        sequences = tuple(str(name) for name in np.ravel(np.asarray(content["sequence_names"])))
        if rows and not 0 <= sequence.min() <= sequence.max() < len(sequences):
            raise ValueError(f"{path}: sequence points outside the {len(sequences)} sequence_names")
    frame = _codes(path, content, "frame", rows) if "frame" in content else np.arange(rows)

    report = Report(str(path), "poses with a split", unit="pose", rows=rows)
    usable = (np.abs(joints) < FARTHEST_M).all(axis=(1, 2))
    reason = f"joints17 with NaN, infinity or beyond {FARTHEST_M:g} m, millimetres perhaps"
    report.leave_out(reason, numbered("pose", ~usable))
    unassigned = usable & ~np.isin(split, range(len(SPLITS)))
    report.leave_out("split other than 0, 1 or 2", numbered("pose", unassigned))
    usable &= ~unassigned
    rotvecs = None
    if "poses" in content:
        poses = read_rotations(content, "poses", path, rows=rows, joints=(SMPL_24.num_joints,))
        kept = np.flatnonzero(usable)
        checked, sound = check_rotvecs(to_rotvecs(poses[kept]), kept, report)
        usable[kept[~sound]] = False
        rotvecs = checked[sound].astype(np.float32)
    report.kept = int(usable.sum())
    report.facts["subjects"] = str(len(np.unique(subject[usable])))
    report.facts["split"] = ", ".join(
        f"{name} {(split[usable] == code).sum()}" for code, name in enumerate(SPLITS)
    )
    report.facts["SMPL rotations"] = "no" if rotvecs is None else "yes"
    return (
        SplitPoses(
            joints[usable].astype(np.float32),
            rotvecs,
            split[usable],
            subject[usable],
            names,
            sequence[usable],
            sequences,
            frame[usable].astype(np.int64),
        ),
        report,
    )


def _codes(path: Path, content: Mapping[str, object], key: str, rows: int) -> NDArray[np.integer]:
    column = np.asarray(content[key])
    if column.shape != (rows,) or column.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: expected {key} to be {rows} integers like joints17, "
            f"got shape {column.shape} of {column.dtype}"
        )
    return column
