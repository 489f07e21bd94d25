"""Registry of all readers in this folder, and identification of files and folders.

A reader is a module with two functions:

* ``matches(path: Path) -> bool``: whether a file, or a folder as a whole, looks like its format. It
  checks content, not names, reads as little as possible, and never raises for damaged or foreign
  files.
* ``inspect(path: Path) -> Report``: the report. It raises ValueError or OSError only if
  nothing can be read. Readers of annotated images also take the folder of the images:
  ``inspect(path: Path, images: Path | None)``.

To add a reader, add a line to `READERS`. The first match wins, so special formats come first.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from examples.data import (
    annotations,
    h36m,
    mocap,
    prohmr_lifting,
    threedpw,
    view_groups,
)
from examples.data.datasets import DATASETS, DatasetInfo
from examples.data.files import npz_keys
from flowprior.files.file_kind import not_the_file
from flowprior.files.limits import require_regular
from flowprior.files.numpy_file import read_npz, read_pickle
from flowprior.files.report import Report
from flowprior.keypoint_files import detections

__all__ = ["READERS", "Reader", "Survey", "find_reader", "survey"]

SUFFIXES = {".npz", ".npy", ".pkl", ".json", ".pt", ".csv"}
NAMED = 5


class Reader(NamedTuple):
    """One format.

    Args:
        name: Name for display.
        matches: Whether a path has the format.
        inspect: The report on a path.
        inspect_images: The report, given the folder of the images; None for formats without images.
    """

    name: str
    matches: Callable[[Path], bool]
    inspect: Callable[[Path], Report]
    inspect_images: Callable[[Path, Path | None], Report] | None = None


READERS: list[Reader] = [
    Reader(
        "ProHMR or SPIN annotations (.npz)",
        annotations.matches,
        annotations.inspect,
        annotations.inspect,
    ),
    Reader("ProHMR's lifting files (.npz)", prohmr_lifting.matches, prohmr_lifting.inspect),
    Reader("Human3.6M as VideoPose3D packs it (.npz)", h36m.matches, h36m.inspect),
    Reader("motion capture of AMASS, CMU or ProHMR (.npz)", mocap.matches, mocap.inspect),
    Reader(
        "OpenPose or COCO keypoints (.json)",
        detections.matches,
        detections.inspect,
        detections.inspect,
    ),
    Reader("3DPW sequences (.pkl)", threedpw.matches, threedpw.inspect, threedpw.inspect),
    Reader(
        "ProHMR multi-view (.pkl)", view_groups.matches, view_groups.inspect, view_groups.inspect
    ),
]
"""All supported formats."""

_BY_FILE: dict[str, DatasetInfo] = {info.file: info for info in DATASETS.values()}


@dataclass
class Survey:
    """Content and faults of some paths.

    Args:
        reports: The report on each recognised file or folder.
        unreadable: The faults of unreadable paths, by path.
        unrecognised: Other data files in folders, which no reader recognises.
    """

    reports: list[Report] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    unrecognised: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 without faults, 1 with faults besides usable data, 2 if something is unreadable."""
        if self.unreadable or not self.reports:
            return 2
        return int(any(not report.clean or not report.kept for report in self.reports))

    def __str__(self) -> str:
        """The survey as text."""
        parts = [str(report) for report in self.reports]
        parts += [f"{path}\n  cannot be read: {why}" for path, why in self.unreadable.items()]
        if self.unrecognised:
            named = ", ".join(self.unrecognised[:NAMED])
            more = ", ..." if len(self.unrecognised) > NAMED else ""
            parts.append(f"not recognised: {len(self.unrecognised)} more ({named}{more})")
        return "\n".join(parts)


def find_reader(path: Path) -> Reader | None:
    """The reader of a file or folder; None if no reader matches."""
    return next((reader for reader in READERS if reader.matches(path)), None)


def survey(paths: Iterable[Path], images: Path | None = None) -> Survey:
    """Identify and check files and folders.

    A folder is one data set if a reader matches it as a whole. Otherwise all files in and below it
    are checked.

    Args:
        paths: Files and folders.
        images: The folder with the images of annotations. By default, ProHMR's folder for files
            with the names of its data sets, if it exists.

    Returns:
        The survey, in the order of the paths, and of the names within folders.

    Raises:
        FileNotFoundError: The folder ``images`` does not exist.
    """
    if images is not None and not images.is_dir():
        raise FileNotFoundError(f"no folder of images: {images}")
    found = Survey()
    for path in paths:
        before = len(found.reports) + len(found.unreadable)
        _look_at(path, images, found, given=True)
        if path.is_dir() and len(found.reports) + len(found.unreadable) == before:
            found.unreadable[str(path)] = f"nothing in it is of a known format: {_known()}"
    return found


def _look_at(path: Path, images: Path | None, found: Survey, given: bool = False) -> None:
    reader = find_reader(path)
    if reader is not None:
        try:
            found.reports.append(_inspect(reader, path, images))
        except (OSError, ValueError) as error:
            found.unreadable[str(path)] = _without_path(error, path)
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.name.startswith(".") and (child.is_dir() or child.suffix in SUFFIXES):
                _look_at(child, images, found)
    else:
        try:
            holds = _described(path)
        except (OSError, ValueError) as error:
            found.unreadable[str(path)] = _without_path(error, path)
            return
        if given:
            found.unreadable[str(path)] = f"{holds}, not of a known format: {_known()}"
        else:
            found.unrecognised.append(str(path))


def _inspect(reader: Reader, path: Path, images: Path | None) -> Report:
    if reader.inspect_images is None:
        return reader.inspect(path)
    facts = {}
    info = _BY_FILE.get(path.name)
    if info is not None:
        facts["data set"] = f"{info.name}: {info.protocol}"
        if images is None and info.images and (path.parent / info.images).is_dir():
            images = path.parent / info.images
    report = reader.inspect_images(path, images)
    report.facts = {**facts, "images": "not looked for, no folder given", **report.facts}
    return report


def _described(path: Path) -> str:
    """Describe a file that no reader recognises; raises if it is damaged."""
    if not path.exists():
        raise FileNotFoundError("no such file or folder")
    require_regular(path)
    if path.suffix == ".npz":
        keys = npz_keys(path) or read_npz(path).keys()
        return f"an archive with the keys {', '.join(sorted(keys)) or 'none'}"
    if path.suffix == ".pkl":
        content = read_pickle(path)
        if isinstance(content, dict):
            return f"a pickle with the keys {', '.join(sorted(map(str, content))) or 'none'}"
        return f"a pickled {type(content).__name__}"
    found = not_the_file(path)
    # The description starts with "is" or "was".
    return f"a file that {found}" if found else "a file"


def _without_path(error: Exception, path: Path) -> str:
    """The message of an error, without the path."""
    return str(error).removeprefix(f"{path}").removeprefix(":").removeprefix(" is ").strip()


def _known() -> str:
    return "; ".join(reader.name for reader in READERS)
