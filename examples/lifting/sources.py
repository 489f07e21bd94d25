"""Views for training and evaluation, from the argument of ``--data``."""

from dataclasses import dataclass
from pathlib import Path

import torch

from examples.data import h36m
from examples.data.poses import load_poses
from examples.data.virtual_views import Views
from examples.lifting.views import PoseViews, RecordedViews, ViewOptions, ViewSource
from flowprior.files.report import Report

__all__ = ["Recording", "Sources", "load_sources"]


@dataclass(frozen=True)
class Recording:
    """Options of Human3.6M with its recorded cameras.

    Args:
        keypoints: A file of 2D detections, or its name in the folder of the 3D archive; empty to
            project the true joints.
        val_subjects: Training subjects that are used for validation instead, as ``("S8",)``;
            published results train on all five.
        every: Use every k-th frame for training.
    """

    keypoints: str = ""
    val_subjects: tuple[str, ...] = ()
    every: int = 5


@dataclass(frozen=True)
class Sources:
    """Views of the three parts, without common subjects.

    Args:
        parts: A source for each part: train, val (if it exists), test.
        subjects: Names of the subjects of each part.
        source: Description of the source, for display.
        report: Content and faults of the files.
    """

    parts: dict[str, ViewSource]
    subjects: dict[str, tuple[str, ...]]
    source: str
    report: Report

    def __str__(self) -> str:
        counts = ", ".join(f"{len(views)} {name}" for name, views in self.parts.items())
        return f"{self.source}: {counts}"


def load_sources(
    path: Path | None,
    options: ViewOptions,
    device: torch.device | str,
    seed: int = 0,
    recording: Recording | None = None,
) -> Sources:
    """Load the views of a data set.

    Args:
        path: None for the embedded poses, an ``.npz`` file with joints17 or a folder of AMASS files
            for poses seen by virtual cameras; VideoPose3D's ``data_3d_h36m.npz``, or the folder
            with it, for Human3.6M.
        options: The view options.
        device: Device of the views.
        seed: Seed of the embedded poses.
        recording: Options of Human3.6M's recorded cameras; None uses virtual cameras.

    Returns:
        The views.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: The data has another format; the message describes its content.
    """
    if recording and path and (h36m.matches(path) or (path / h36m.FILE_3D).is_file()):
        return _human36m(path, options, device, recording)
    poses = load_poses(path, seed)
    parts: dict[str, ViewSource] = {
        name: PoseViews(torch.from_numpy(poses.part(name)).to(device), options)
        for name in ("train", "val", "test")
        if len(poses.part(name))
    }
    return Sources(parts, poses.subjects, poses.source, poses.report)


def _human36m(
    path: Path, options: ViewOptions, device: torch.device | str, recording: Recording
) -> Sources:
    unknown = set(recording.val_subjects) - set(h36m.TRAIN_SUBJECTS)
    if unknown:
        raise ValueError(
            f"val_subjects must be among {', '.join(h36m.TRAIN_SUBJECTS)}, "
            f"got {', '.join(sorted(unknown))}"
        )
    keypoints: Path | None = None
    if recording.keypoints:
        folder = path if path.is_dir() else path.parent
        beside = folder / recording.keypoints
        keypoints = beside if beside.exists() else Path(recording.keypoints)
    chosen = {
        "train": tuple(s for s in h36m.TRAIN_SUBJECTS if s not in recording.val_subjects),
        "val": recording.val_subjects,
        "test": h36m.TEST_SUBJECTS,
    }
    parts: dict[str, ViewSource] = {}
    whole = Report(str(path), "Human3.6M, VideoPose3D's archive", unit="view")
    for name, subjects in chosen.items():
        if not subjects:
            continue
        # The evaluation thins out test frames.
        every = recording.every if name == "train" else 1
        pairs, report = h36m.read_h36m(path, keypoints, subjects=subjects, every=every)
        whole.absorb(report)
        whole.facts |= {f"keypoints of {name}": report.facts["keypoints"]}
        views = pairs.views()
        moved = Views(*(each.to(device) for each in (views.joints, views.keypoints, views.visible)))
        parts[name] = RecordedViews(moved, options, pairs.action.tolist())
    source = f"Human3.6M in {path}, keypoints {keypoints or 'projected'}"
    return Sources(parts, {k: tuple(v) for k, v in chosen.items()}, source, whole)
