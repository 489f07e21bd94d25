"""Poses for training, validation and test, split by subject, from any source with subjects."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.data import h36m
from examples.data.amass import read_amass
from examples.data.kinematics import joints17_from_rotations
from examples.data.mocap import SPLITS, read_split_poses
from examples.data.motion import Float32
from examples.data.procedural import sample_person, sample_poses
from flowprior.files.limits import require_path
from flowprior.files.report import Report
from flowprior.skeleton import H36M_17, SMPL_24

__all__ = ["SPLITS", "PoseSet", "load_poses"]

RATE_HZ = 10.0


@dataclass(frozen=True)
class PoseSet:
    """Poses in three parts without common subjects.

    Joints are (N, 17, 3) float32 in H36M-17 order, in metres, y up, the middle of the hips at the
    origin, facing anywhere.

    Args:
        train: Joints for training.
        val: Joints for the choice of settings; may be empty.
        test: Joints for reported results.
        subjects: Names of the subjects of each part.
        source: Description of the source, for display.
        report: Content and faults of the source.
        smpl_rotvecs: By part, (N, 24, 3) float32 rotation vectors of the same poses, row by row;
            empty if the source has joints only. `rotvecs` gives them.
        subject_of: By part, (N,) the name of the subject of each pose, row by row.
    """

    train: Float32
    val: Float32
    test: Float32
    subjects: dict[str, tuple[str, ...]]
    source: str
    report: Report
    smpl_rotvecs: Mapping[str, Float32]
    subject_of: Mapping[str, NDArray[np.str_]]

    def part(self, split: str) -> Float32:
        """The joints (N, 17, 3) of one of `SPLITS`."""
        joints: Float32 = {"train": self.train, "val": self.val, "test": self.test}[split]
        return joints

    @property
    def has_rotvecs(self) -> bool:
        """Whether the source has SMPL's rotations besides joints."""
        return bool(self.smpl_rotvecs)

    def rotvecs(self, split: str) -> Float32:
        """SMPL's poses in one of `SPLITS`, row by row those of `part`.

        They use the same world: metres, y up, the zero pose facing +z. Bone lengths are the
        person's in `part`, and those of the body model that is posed here.

        Args:
            split: One of `SPLITS`.

        Returns:
            (N, 24, 3) rotation vectors in SMPL-24 order, the root (``global_orient``) first.

        Raises:
            ValueError: The source has joints only.
        """
        if not self.has_rotvecs:
            raise ValueError(
                f"{self.source}: expected poses with SMPL's rotations, got joints only. AMASS "
                "clips have them, and files with the key poses beside joints17"
            )
        return self.smpl_rotvecs[split]


def load_poses(path: Path | str | None = None, seed: int = 0) -> PoseSet:
    """Load poses, split by subject.

    Args:
        path: None for the embedded poses; a ``.npz`` file for `read_split_poses`, with
            ``joints17`` (N, 17, 3), ``split`` (N,) (0 train, 1 val, 2 test), ``subject`` (N,),
            ``subject_names`` and optionally ``poses`` (N, 72); VideoPose3D's ``data_3d_h36m.npz``
            or its folder; or a folder with AMASS ``.npz`` files anywhere below it, one folder
            per subject. The last two are subsampled to 10 Hz.
        seed: Seed of the embedded poses. The split of files is fixed.

    Returns:
        The poses. The report lists unusable content.

    Raises:
        FileNotFoundError: ``path`` does not exist or contains no ``.npz`` file.
        ValueError: The file has another format, or a part has no usable pose; the message
            describes the content.
    """
    if path is None:
        return _procedural(seed)
    path = require_path(path)
    if h36m.matches(path) or (path / h36m.FILE_3D).is_file():
        return _h36m_file(path)
    return _amass_folder(path) if path.is_dir() else _split_file(path)


def _procedural(
    seed: int, people: tuple[int, int, int] = (24, 3, 5), poses_each: int = 1000
) -> PoseSet:
    rng = np.random.default_rng(seed)
    parts: dict[str, Float32] = {}
    rotvecs: dict[str, Float32] = {}
    subjects: dict[str, tuple[str, ...]] = {}
    for split, number in zip(SPLITS, people, strict=True):
        sampled = [sample_poses(sample_person(rng), poses_each, rng) for _ in range(number)]
        parts[split] = np.concatenate([joints for joints, _ in sampled])
        rotvecs[split] = np.concatenate([vectors for _, vectors in sampled])
        first = sum(map(len, subjects.values()))
        subjects[split] = tuple(f"person{first + i:02d}" for i in range(number))
    subject_of = {
        split: np.repeat(np.array(names, np.str_), poses_each) for split, names in subjects.items()
    }
    total = sum(people) * poses_each
    source = f"embedded procedural poses, seed {seed}"
    report = Report(source, "procedural poses", unit="pose", rows=total, kept=total)
    return PoseSet(
        **parts,
        subjects=subjects,
        source=source,
        report=report,
        smpl_rotvecs=rotvecs,
        subject_of=subject_of,
    )


def _split_file(path: Path) -> PoseSet:
    poses, report = read_split_poses(path)
    rows = {name: poses.split == code for code, name in enumerate(SPLITS)}
    subjects = {
        name: tuple(poses.subject_names[i] for i in np.unique(poses.subject[rows[name]]))
        for name in SPLITS
    }
    shared = set(subjects["train"]) & (set(subjects["val"]) | set(subjects["test"]))
    if shared:
        raise ValueError(f"{path}: subjects of train are held out too: {', '.join(sorted(shared))}")
    for name in ("train", "test"):
        if not rows[name].any():
            raise ValueError(f"{path}: no usable pose has the split code of {name}")
    parts = {name: poses.joints[rows[name]] for name in SPLITS}
    rotvecs = {}
    if poses.rotvecs is not None:
        rotvecs = {name: poses.rotvecs[rows[name]] for name in SPLITS}
    names = np.array(poses.subject_names)
    return PoseSet(
        **parts,
        subjects=subjects,
        source=str(path),
        report=report,
        smpl_rotvecs=rotvecs,
        subject_of={name: names[poses.subject[rows[name]]] for name in SPLITS},
    )


def _h36m_file(path: Path) -> PoseSet:
    """Human3.6M in its usual split, which has no validation part."""
    poses, report = h36m.read_h36m_world(path, RATE_HZ)
    by_part = {"train": h36m.TRAIN_SUBJECTS, "val": (), "test": h36m.TEST_SUBJECTS}
    subjects = {
        split: tuple(subject for subject in names if len(poses.get(subject, ())))
        for split, names in by_part.items()
    }
    for name in ("train", "test"):
        if not subjects[name]:
            raise ValueError(f"{path}: no usable pose of {', '.join(by_part[name])}\n{report}")
    empty = np.zeros((0, H36M_17.num_joints, 3), np.float32)
    parts: dict[str, Float32] = {
        split: np.concatenate([empty, *(poses[name] for name in names)])
        for split, names in subjects.items()
    }
    return PoseSet(
        **parts,
        subjects=subjects,
        source=str(path),
        report=report,
        smpl_rotvecs={},
        subject_of=_subject_of(subjects, {name: len(poses.get(name, ())) for name in poses}),
    )


def _amass_folder(folder: Path) -> PoseSet:
    motions, report = read_amass(folder, RATE_HZ)
    by_subject: dict[str, list[Float32]] = {}
    for motion in motions:
        by_subject.setdefault(motion.subject, []).append(motion.rotvecs)
    if len(by_subject) < 2:
        raise ValueError(
            f"{folder}: expected usable poses in at least two subject folders, to hold one out; "
            f"found {', '.join(by_subject) or 'none'}\n{report}"
        )
    subjects = _hold_out(list(by_subject))
    empty = np.zeros((0, SMPL_24.num_joints, 3), np.float32)
    rotvecs = {
        split: np.concatenate([empty, *(clip for name in names for clip in by_subject[name])])
        for split, names in subjects.items()
    }
    parts = {
        split: joints17_from_rotations(torch.from_numpy(vectors)).numpy()
        for split, vectors in rotvecs.items()
    }
    source = f"AMASS files below {folder}"
    counts = {name: sum(map(len, clips)) for name, clips in by_subject.items()}
    return PoseSet(
        **parts,
        subjects=subjects,
        source=source,
        report=report,
        smpl_rotvecs=rotvecs,
        subject_of=_subject_of(subjects, counts),
    )


def _subject_of(
    subjects: Mapping[str, Sequence[str]], counts: Mapping[str, int]
) -> dict[str, NDArray[np.str_]]:
    """The subject of each pose, of parts that contain their subjects one after the other."""
    return {
        split: np.repeat(np.array(names, np.str_), [counts[name] for name in names])
        for split, names in subjects.items()
    }


def _hold_out(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Subjects of each part: a tenth for test, a tenth for validation, the rest for training."""
    # A hash of the name assigns a subject to the same part on every machine.
    names = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    held_out = max(1, round(0.1 * len(names)))
    ends = (held_out, 2 * held_out if len(names) > 2 else held_out)
    return {
        "train": tuple(sorted(names[ends[1] :])),
        "val": tuple(sorted(names[ends[0] : ends[1]])),
        "test": tuple(sorted(names[: ends[0]])),
    }
