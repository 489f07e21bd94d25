"""Files of 2D keypoints of any known format: OpenPose's JSON and COCO's."""

from collections.abc import Callable
from pathlib import Path

from flowprior.files.limits import require_path
from flowprior.files.report import Report
from flowprior.keypoint_files.coco import is_coco, read_coco_content
from flowprior.keypoint_files.openpose import OPENPOSE_SUFFIX, is_openpose, read_openpose
from flowprior.keypoint_files.people import (
    Detections,
)
from flowprior.keypoint_files.people_builder import load_json
from flowprior.keypoint_files.person_json import (
    joint_set_named,
)
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import Skeleton

__all__ = ["inspect", "matches", "read_detections"]

DATA_SUFFIXES = {".npz", ".npy", ".pkl", ".pt", ".csv"}


def matches(path: Path) -> bool:
    """Whether a file contains keypoints in JSON, or a folder contains OpenPose's files."""
    if path.is_dir():
        files = sorted(path.glob(f"*{OPENPOSE_SUFFIX}"))
        if files:  # one damaged file does not change the format of the folder
            return any(_readable(file, is_openpose) for file in files[:5])
        # Files with other names count as OpenPose's only if the folder contains nothing else.
        children = sorted(path.iterdir())
        if any(child.suffix in DATA_SUFFIXES for child in children):
            return False
        files = [child for child in children if child.suffix == ".json"][:5]
        others = (_readable(file, lambda content: not is_openpose(content)) for file in files)
        return any(_readable(file, is_openpose) for file in files) and not any(others)
    return path.suffix == ".json" and _readable(path, lambda c: is_openpose(c) or is_coco(c))


def inspect(path: Path, images: Path | None = None) -> Report:
    """Read a whole source and report its content and faults.

    Args:
        path: As for `read_detections`.
        images: As for `read_detections`.

    Returns:
        The report.

    Raises:
        FileNotFoundError: ``path`` or the folder ``images`` does not exist.
        ValueError: It has neither format.
    """
    return read_detections(path, images)[1]


def read_detections(
    path: Path | str,
    images: Path | str | None = None,
    min_conf: float = LEAST_CONF,
    skeleton: Skeleton | str | None = None,
) -> tuple[Detections, Report]:
    """Read people from a file or folder in either format.

    Args:
        path: As for `read_openpose` or `read_coco`; the content decides which.
        images: As for these.
        min_conf: As for these.
        skeleton: As for these.

    Returns:
        The usable people; and the report.

    Raises:
        FileNotFoundError: ``path`` or the folder ``images`` does not exist.
        ValueError: It has neither format, or the units are not pixels and probabilities.
    """
    path = require_path(path)
    known = joint_set_named(skeleton)
    if path.is_file() and not is_openpose(content := load_json(path)):
        return read_coco_content(path, content, images, min_conf, "keypoints", known)
    return read_openpose(path, images, min_conf, known)


def _readable(file: Path, check: Callable[[object], bool]) -> bool:
    """Whether a file is JSON and its content passes a check."""
    try:
        return check(load_json(file))
    except (OSError, ValueError):
        return False
