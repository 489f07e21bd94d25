"""Training images, validation images and motion capture from one folder of data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from examples.data import annotations
from examples.data.datasets import DATASETS, dataset_info
from examples.data.images import ImageDataset, Item
from examples.data.mixing import Mixture, mix
from examples.data.mocap import read_motion
from flowprior import rotations
from flowprior.files.report import Report

__all__ = ["Mocap", "Sources", "locate", "read_dataset", "read_mocap", "read_sources"]


@dataclass(frozen=True, eq=False)
class Mocap:
    """Real bodies, for the discriminator.

    Args:
        body_pose: (N, 69) rotation vectors, radians.
        betas: (N, 10).
    """

    body_pose: Tensor
    betas: Tensor

    def __len__(self) -> int:
        return len(self.betas)

    def draw(
        self, count: int, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Draw random bodies, for the discriminator.

        Args:
            count: Number of bodies.
            generator: Random generator on the CPU.
            device: Device of the bodies.

        Returns:
            ``body_pose`` (count, 23, 3, 3) and ``betas`` (count, 10).
        """
        rows = torch.randint(len(self), (count,), generator=generator)
        pose = self.body_pose[rows].to(device, non_blocking=True).unflatten(-1, (23, 3))
        return rotations.rotvec_to_matrix(pose), self.betas[rows].to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Sources:
    """The requested data of a folder.

    Args:
        train: The training mixture.
        validation: Validation data sets by name, without missing ones.
        mocap: Motion capture; None if missing.
        reports: Content and faults of each file.
        missing: Requested but missing data.
    """

    train: Mixture[Item]
    validation: Mapping[str, ImageDataset]
    mocap: Mocap | None
    reports: Sequence[Report]
    missing: Sequence[str]

    def __str__(self) -> str:
        """Content and faults, for display."""
        lines = [str(self.train)]
        lines += [f"{name}: {len(rows)} to watch" for name, rows in self.validation.items()]
        if self.mocap is None:
            lines.append("no motion capture: nothing is adversarial")
        else:
            lines.append(f"motion capture: {len(self.mocap)} bodies")
        lines += [f"missing: {name}" for name in self.missing]
        lines += [str(report) for report in self.reports if not report.clean]
        return "\n".join(lines)


def locate(folder: Path, name: str) -> tuple[Path, Path]:
    """Locate the annotations and images of a data set.

    Args:
        folder: The folder of all data.
        name: One of `examples.data.datasets.DATASETS`, or of an ``.npz`` file in the folder whose
            images are in ``images/`` beside it, or of a ``.pkl`` file of groups of views.

    Returns:
        The file of annotations and the folder of images, which may not exist.
    """
    if name.upper().replace("_", "-") in DATASETS:
        info = dataset_info(name)
        return folder / info.file, folder / (info.images or "images")
    file = folder / f"{name}.npz"
    groups = folder / f"{name}.pkl"
    return groups if groups.exists() and not file.exists() else file, folder / "images"


def read_dataset(folder: Path, name: str) -> tuple[ImageDataset, Report]:
    """Open one data set of a folder.

    Raises:
        FileNotFoundError: The annotations or the images do not exist.
        ValueError: The annotations are unreadable.
    """
    file, images = locate(folder, name)
    # Checking half a million images on a network disk takes minutes; training counts missing
    # images instead.
    rows, report = annotations.read(file)
    return ImageDataset(rows, images), report


def read_mocap(folder: Path, name: str) -> tuple[Mocap, Report]:
    """Read motion capture of a folder: ProHMR's ``cmu_mocap.npz``, or any file or folder of clips.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is unreadable.
    """
    file = folder / "cmu_mocap.npz" if name == "CMU-MOCAP" else folder / f"{name}.npz"
    motions, report = read_motion(file if file.exists() else folder / name)
    if not motions:
        raise ValueError(f"{file} has no usable pose")
    body_pose = np.concatenate([motion.body_pose.reshape(-1, 69) for motion in motions])
    betas = np.concatenate([motion.betas[:, :10] for motion in motions])
    return Mocap(torch.from_numpy(body_pose), torch.from_numpy(betas)), report


def read_sources(
    folder: Path,
    datasets: Mapping[str, float],
    validation: Mapping[str, float],
    mocap: str = "none",
) -> Sources:
    """Open the requested data that exists.

    Args:
        folder: The folder of all data.
        datasets: Names and sampling weights of the training data.
        validation: Names of the validation data.
        mocap: Name of the motion capture; "none" for none.

    Returns:
        The data, including the names of missing data.

    Raises:
        FileNotFoundError: There is no training data.
        ValueError: A file exists but is unreadable.
    """
    found: dict[str, Dataset[Item] | None] = {}
    watched: dict[str, ImageDataset] = {}
    reports, missing = [], []
    for name in dict.fromkeys([*datasets, *validation]):
        try:
            data, report = read_dataset(folder, name)
        except FileNotFoundError as error:
            missing.append(f"{name} ({error})")
            continue
        reports.append(report)
        if name in datasets:
            found[name] = data
        if name in validation:
            watched[name] = data
    if not found:
        raise FileNotFoundError(f"{folder} has none of {', '.join(datasets)}: {'; '.join(missing)}")
    bodies = None
    if mocap != "none":
        try:
            bodies, report = read_mocap(folder, mocap)
            reports.append(report)
        except FileNotFoundError as error:
            missing.append(f"{mocap} ({error})")
    return Sources(mix(found, datasets), watched, bodies, reports, missing)
