"""Features files: features of a frozen regressor, its answers and the ground truth.

Safetensors with one row per person; a large set is split into numbered files. The metadata contains
the names of regressor, layer, data sets and subjects, as JSON.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from flowprior.files.whole_file import whole_file

__all__ = ["About", "Features", "read_about", "read_features", "shards", "write_features"]

NOTHING = -1
META = "flowprior_features"


@dataclass(frozen=True)
class About:
    """Origin of features.

    Attributes:
        regressor: Name of the regressor, and whatever identifies its weights.
        layer: The tapped layer.
        datasets: Names of the data sets, by their numbers.
        subjects: Names of the subjects, by their numbers; empty if none is known.
    """

    regressor: str
    layer: str
    datasets: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Features:
    """N people as a frozen regressor sees them.

    Attributes:
        features: (N, C) float32, the input of the tapped layer.
        answer: (N, J, 3, 3) rotation matrices or (N, J, 3) points in metres, float32.
        truth: The same of the ground truth; NaN where it is not annotated.
        dataset: (N,) int64, number of the data set.
        row: (N,) int64, row in the data set.
        subject: (N,) int64, number of the subject; -1 if unknown.
        hidden: (N,) int64, how many of twelve limb joints are hidden; -1 if unknown.
        about: Their origin.
    """

    features: Tensor
    answer: Tensor
    truth: Tensor
    dataset: Tensor
    row: Tensor
    subject: Tensor
    hidden: Tensor
    about: About

    def __post_init__(self) -> None:
        count = len(self.features)
        for name, value in self.columns.items():
            if len(value) != count:
                raise ValueError(f"{name} has {len(value)} rows, features have {count}")
        if self.features.ndim != 2:
            raise ValueError(f"features must be (N, C), got {tuple(self.features.shape)}")
        for name, names in (("subject", self.about.subjects), ("dataset", self.about.datasets)):
            if count and int(getattr(self, name).max()) >= len(names):
                raise ValueError(f"{name} has numbers without a name: there are {len(names)}")
        shape = self.answer.shape[1:]
        if len(shape) not in (2, 3) or set(shape[1:]) != {3} or self.truth.shape[1:] != shape:
            raise ValueError(
                "answer and truth must both be (N, J, 3, 3) or (N, J, 3), got "
                f"{tuple(self.answer.shape)} and {tuple(self.truth.shape)}"
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "about"
        }

    @property
    def space(self) -> str:
        """The space of a prior around the answers."""
        return "so3" if self.answer.ndim == 4 else "points"

    @property
    def annotated(self) -> Tensor:
        """(N,) bool, rows whose ground truth is known."""
        return self.truth.flatten(1).isfinite().all(dim=1)

    def subject_name(self, number: int) -> str:
        """Name of a subject by its number; "" for an unknown one."""
        return "" if number < 0 else self.about.subjects[number]

    def take(self, rows: Tensor) -> "Features":
        """Select rows by indices or a mask."""
        return Features(**{k: v[rows] for k, v in self.columns.items()}, about=self.about)

    @staticmethod
    def join(parts: Sequence["Features"]) -> "Features":
        """Several parts of one origin as one."""
        if len({part.about for part in parts}) != 1:
            raise ValueError("these features are not of one origin")
        columns = {
            name: torch.cat([part.columns[name] for part in parts]) for name in parts[0].columns
        }
        return Features(**columns, about=parts[0].about)


def write_features(path: Path, features: Features) -> None:
    """Write one file, atomically."""
    meta = {META: json.dumps(asdict(features.about))}
    tensors = {name: value.cpu().contiguous() for name, value in features.columns.items()}
    with whole_file(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, meta))


def read_features(path: str | os.PathLike[str]) -> Features:
    """Read a features file, or all files of a set that was split.

    Args:
        path: The file, ``FEATURES.safetensors``; of a split set, the same name without numbers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, has another content, or files of the set are missing.
    """
    return Features.join([_read_one(file) for file in _files(Path(path))])


def read_about(path: Path) -> About:
    """The origin of the features in one file. Raises as `read_features`."""
    with _opened(path) as file:
        return _about(path, file.metadata())


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    pattern = re.compile(re.escape(path.stem) + r"-(\d{5})-of-(\d{5})" + re.escape(path.suffix))
    found = {
        file: tuple(map(int, match.groups()))
        for file in sorted(path.parent.glob(f"{path.stem}-*"))
        if (match := pattern.fullmatch(file.name))
    }
    if not found:
        raise FileNotFoundError(
            f"{path} does not exist: python -m examples.heads.collect writes it"
        )
    total = next(iter(found.values()))[1]
    missing = sorted({(number, total) for number in range(1, total + 1)} - set(found.values()))
    if missing:
        names = ", ".join(f"{number} of {total}" for number, _ in missing[:5])
        raise ValueError(f"{path} is a split set without its file {names}")
    return list(found)


def _read_one(path: Path) -> Features:
    with _opened(path) as file:
        about = _about(path, file.metadata())
        names = {each.name for each in fields(Features)} - {"about"}
        missing = names - set(file.keys())
        if missing:
            raise ValueError(f"{path}: missing {', '.join(sorted(missing))}")
        return Features(**{name: file.get_tensor(name) for name in names}, about=about)


def _about(path: Path, meta: dict[str, str] | None) -> About:
    try:
        content = json.loads((meta or {})[META])
        datasets, subjects = (tuple(map(str, content[key])) for key in ("datasets", "subjects"))
        return About(str(content["regressor"]), str(content["layer"]), datasets, subjects)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is not a features file of examples.heads.collect") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:  # safetensors has no types
    """An open safetensors file; a damaged one raises ValueError with its name."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None


def shards(parts: Sequence[Path], most_bytes: float) -> Iterator[list[Path]]:
    """Split files into groups of at most ``most_bytes``, in order."""
    group: list[Path] = []
    for path in parts:
        if group and sum(each.stat().st_size for each in [*group, path]) > most_bytes:
            yield group
            group = []
        group.append(path)
    if group:
        yield group
