"""Views to train on and to judge with, from whatever a user points ``--data`` at."""

from dataclasses import dataclass
from pathlib import Path

import torch

from examples.data import h36m
from examples.data.poses import load_poses
from examples.data.report import Report
from examples.data.virtual_views import Views
from examples.lifting.views import PoseViews, RecordedViews, ViewOptions, ViewSource

__all__ = ["Recording", "Sources", "load_sources"]


@dataclass(frozen=True)
class Recording:
    """How Human3.6M is read where its own cameras are used.

    Args:
        keypoints: A file of 2D detections, or its name beside the 3D archive; empty to project the
            true joints.
        val_subjects: Training subjects to watch progress on instead, as ``("S8",)``; published
            results train on all five.
        every: Take every k-th frame to train on.
    """

    keypoints: str = ""
    val_subjects: tuple[str, ...] = ()
    every: int = 5


@dataclass(frozen=True)
class Sources:
    """Views of the three parts, which share no subject.

    Args:
        parts: A source by the name of its part: train, val (where there is one), test.
        subjects: Names of the subjects of each part.
        source: Where they come from, for display.
        report: What was found in the files.
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
        options: How people are seen.
        device: Where the views shall be.
        seed: Seed of the embedded poses.
        recording: How Human3.6M's own cameras are used; None has virtual ones for it as well.

    Returns:
        The views.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: The data is not what is expected; the message says what it holds.
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
        # Test frames are thinned by whoever judges.
        every = recording.every if name == "train" else 1
        pairs, report = h36m.read_h36m(path, keypoints, subjects=subjects, every=every)
        whole.absorb(report)
        whole.facts |= {f"keypoints of {name}": report.facts["keypoints"]}
        views = pairs.views()
        moved = Views(*(each.to(device) for each in (views.joints, views.keypoints, views.visible)))
        parts[name] = RecordedViews(moved, options, pairs.action.tolist())
    source = f"Human3.6M in {path}, keypoints {keypoints or 'projected'}"
    return Sources(parts, {k: tuple(v) for k, v in chosen.items()}, source, whole)
