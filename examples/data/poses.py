"""Pose data for the examples: the embedded poses, a converted file, or a folder of AMASS files."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from examples.data.kinematics import joints17_from_rotations
from examples.data.procedural import sample_person, sample_poses
from flowprior.skeleton import H36M_17, SMPL_24

__all__ = ["SPLITS", "PoseSet", "load_poses"]

SPLITS = ("train", "val", "test")

JOINTS_KEYS = ("joints17", "split", "subject", "subject_names")
AMASS_RATE_HZ = 10.0
BODY_JOINTS = 22  # what SMPL, SMPL-H and SMPL-X have in common


@dataclass(frozen=True)
class PoseSet:
    """Poses in three parts that share no subject.

    Joints are (N, 17, 3) float32 in H36M-17 order, in metres, y up, the middle of the hips at the
    origin, facing anywhere.

    Args:
        train: Poses to train on.
        val: Poses to choose settings on; may be empty.
        test: Poses to report on.
        subjects: Names of the subjects of each part.
        source: Where the poses come from, for people to read.
    """

    train: NDArray[np.float32]
    val: NDArray[np.float32]
    test: NDArray[np.float32]
    subjects: dict[str, tuple[str, ...]]
    source: str

    def part(self, split: str) -> NDArray[np.float32]:
        """The poses of one of `SPLITS`."""
        poses: NDArray[np.float32] = {"train": self.train, "val": self.val, "test": self.test}[
            split
        ]
        return poses


def load_poses(path: Path | str | None = None, seed: int = 0) -> PoseSet:
    """Load poses, split by subject.

    Args:
        path: None for the embedded poses; a ``.npz`` file with ``joints17`` (N, 17, 3), ``split``
            (N,) of 0 train, 1 val, 2 test, ``subject`` (N,) and ``subject_names``; or a folder
            with AMASS ``.npz`` files anywhere below it, one folder per subject.
        seed: Seed of the embedded poses. Files are always read and split the same way.

    Returns:
        The poses.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or no ``.npz`` file below it.
        ValueError: The file is not what is expected; the message says what it holds.
    """
    if path is None:
        return _procedural(seed)
    path = Path(path)
    if path.is_dir():
        return _amass_folder(path)
    if path.is_file():
        return _joints_file(path)
    raise FileNotFoundError(f"no such file or folder: {path}")


def _procedural(
    seed: int, people: tuple[int, int, int] = (24, 3, 5), poses_each: int = 1000
) -> PoseSet:
    rng = np.random.default_rng(seed)
    parts: dict[str, NDArray[np.float32]] = {}
    subjects: dict[str, tuple[str, ...]] = {}
    for split, number in zip(SPLITS, people, strict=True):
        parts[split] = np.concatenate(
            [sample_poses(sample_person(rng), poses_each, rng) for _ in range(number)]
        )
        first = sum(map(len, subjects.values()))
        subjects[split] = tuple(f"person{first + i:02d}" for i in range(number))
    return PoseSet(**parts, subjects=subjects, source=f"embedded procedural poses, seed {seed}")


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an npz file that numpy reads without unpickling."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        # Opened here, since numpy does not close a file that turns out to be damaged.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("a single array")
            for key in file.files:
                try:
                    arrays[key] = file[key]
                except ValueError as error:
                    # Labels and the like may be pickled; nothing here needs them.
                    if "allow_pickle" not in str(error):
                        raise
    except (ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not an .npz file, or a damaged one ({error})") from error
    return arrays


def _joints_file(path: Path) -> PoseSet:
    file = _read_npz(path)
    missing = [key for key in JOINTS_KEYS if key not in file]
    if missing:
        raise ValueError(
            f"{path}: expected the keys {', '.join(JOINTS_KEYS)}; {', '.join(missing)} missing, "
            f"found {', '.join(sorted(file)) or 'none'}. A folder of AMASS files is given as the "
            "folder"
        )
    joints, split, subject = file["joints17"], file["split"], file["subject"]
    names = file["subject_names"]
    expected = (H36M_17.num_joints, 3)
    if joints.ndim != 3 or joints.shape[1:] != expected or joints.dtype.kind != "f":
        raise ValueError(
            f"{path}: expected joints17 of shape (N, 17, 3) and a floating-point dtype, "
            f"got {joints.shape} of {joints.dtype}"
        )
    for key, column in (("split", split), ("subject", subject)):
        if column.shape != joints.shape[:1] or column.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: expected {key} to be {len(joints)} integers like joints17, "
                f"got shape {column.shape} of {column.dtype}"
            )
    if len(subject) and not 0 <= subject.min() <= subject.max() < names.size:
        raise ValueError(f"{path}: subject points outside the {names.size} subject_names")
    parts = {
        name: _checked(joints[split == code], f"{path}: joints17")
        for code, name in enumerate(SPLITS)
    }
    subjects = {
        name: tuple(str(names[i]) for i in np.unique(subject[split == code]))
        for code, name in enumerate(SPLITS)
    }
    shared = set(subjects["train"]) & (set(subjects["val"]) | set(subjects["test"]))
    if shared:
        raise ValueError(f"{path}: subjects of train are held out too: {', '.join(sorted(shared))}")
    for name in ("train", "test"):
        if not len(parts[name]):
            raise ValueError(f"{path}: no pose has the split code of {name}")
    return PoseSet(**parts, subjects=subjects, source=str(path))


def _amass_folder(folder: Path) -> PoseSet:
    files = sorted(folder.rglob("*.npz"))
    if not files:
        raise FileNotFoundError(f"no .npz file in or below the folder {folder}")
    by_subject: dict[str, list[NDArray[np.float32]]] = {}
    skipped: set[str] = set()
    for path in files:
        file = _read_npz(path)
        # AMASS puts a shape.npz, which holds no motion, beside the clips of a subject.
        if "poses" not in file:
            skipped |= set(file)
            continue
        subject = path.parent.relative_to(folder).as_posix()
        by_subject.setdefault(subject, []).append(_amass_joints(path, file))
    if not by_subject:
        raise ValueError(
            f"{folder}: expected AMASS files with the key poses, "
            f"found {', '.join(sorted(skipped)) or 'no key'}"
        )
    if len(by_subject) < 2:
        raise ValueError(
            f"{folder}: expected at least two subject folders, to hold one out; "
            f"found {', '.join(by_subject)}"
        )
    # A hash of the name puts a subject in the same part on every machine, in no special order.
    names = sorted(by_subject, key=lambda name: (zlib.crc32(name.encode()), name))
    held_out = max(1, round(0.1 * len(names)))
    ends = (held_out, 2 * held_out if len(names) > 2 else held_out)
    subjects = {
        "test": tuple(sorted(names[: ends[0]])),
        "val": tuple(sorted(names[ends[0] : ends[1]])),
        "train": tuple(sorted(names[ends[1] :])),
    }
    empty = np.zeros((0, H36M_17.num_joints, 3), np.float32)
    parts = {
        split: np.concatenate([empty, *(clip for name in part for clip in by_subject[name])])
        for split, part in subjects.items()
    }
    return PoseSet(**parts, subjects=subjects, source=f"AMASS files below {folder}")


def _amass_joints(path: Path, file: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Joints of one AMASS clip, thinned out in time, z up turned to y up."""
    poses = file["poses"]
    if poses.ndim != 2 or poses.shape[1] < 3 * BODY_JOINTS or poses.dtype.kind != "f":
        raise ValueError(
            f"{path}: expected poses of shape (T, 156) with rotation vectors (at least the first "
            f"66 numbers), got {poses.shape} of {poses.dtype}"
        )
    # SMPL-X files spell it mocap_frame_rate.
    rates = [file[key] for key in ("mocap_framerate", "mocap_frame_rate") if key in file]
    if not rates:
        raise ValueError(
            f"{path}: expected the key mocap_framerate, found {', '.join(sorted(file))}"
        )
    rate = float(rates[0]) if rates[0].size == 1 and rates[0].dtype.kind in "fiu" else np.nan
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"{path}: expected a positive mocap_framerate, got {rates[0]}")
    poses = poses[:: max(1, round(rate / AMASS_RATE_HZ)), : 3 * BODY_JOINTS]
    rotvecs = torch.zeros(len(poses), SMPL_24.num_joints, 3)
    rotvecs[:, :BODY_JOINTS] = torch.from_numpy(
        _checked(poses.reshape(-1, BODY_JOINTS, 3), f"{path}: poses")
    )
    joints = joints17_from_rotations(rotvecs).numpy()
    return np.ascontiguousarray(np.stack([joints[..., 0], joints[..., 2], -joints[..., 1]], -1))


def _checked(values: NDArray[Any], what: str) -> NDArray[np.float32]:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(f"{what} of {len(bad)} poses holds NaN or infinity, first in {bad[0]}")
    return values.astype(np.float32)
