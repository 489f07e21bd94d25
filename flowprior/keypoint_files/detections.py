"""Files of 2D keypoints of any known format: OpenPose's, COCO's and MediaPipe's JSON."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flowprior.files.limits import require_path
from flowprior.files.report import Report
from flowprior.keypoint_files.coco import is_coco, read_coco_content
from flowprior.keypoint_files.mediapipe import is_mediapipe
from flowprior.keypoint_files.mediapipe_files import read_mediapipe
from flowprior.keypoint_files.openpose import (
    OPENPOSE_SUFFIX,
    is_openpose,
    openpose_files,
    read_openpose,
)
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
    return path.suffix == ".json" and _readable(path, _is_known)


def inspect(path: Path, images: Path | None = None) -> Report:
    """Read a whole source and report its content and faults.

    Args:
        path: As for `read_detections`.
        images: As for `read_detections`.

    Returns:
        The report.

    Raises:
        FileNotFoundError: ``path`` or the folder ``images`` does not exist.
        ValueError: It has none of the formats.
    """
    return read_detections(path, images)[1]


def read_detections(
    path: Path | str,
    images: Path | str | None = None,
    min_conf: float = LEAST_CONF,
    skeleton: Skeleton | str | None = None,
    image_size: tuple[float, float] | None = None,
    hands: bool = True,
) -> tuple[Detections, Report]:
    """Read people from a file or folder in any of the formats.

    Args:
        path: As for `read_openpose`, `read_coco` or `read_mediapipe`; the content decides which. A
            folder may also contain one file of the other formats per image or video; its first
            readable file decides.
        images: As for these.
        min_conf: As for these.
        skeleton: As for these.
        image_size: As for `read_mediapipe`.
        hands: As for `read_openpose`.

    Returns:
        The usable people; and the report.

    Raises:
        FileNotFoundError: ``path`` or the folder ``images`` does not exist.
        ValueError: It has none of the formats, or the units are not pixels and probabilities.
    """
    path = require_path(path)
    known = joint_set_named(skeleton)
    if path.is_file():
        return _read_file(path, load_json(path), images, min_conf, known, image_size, hands)
    files = openpose_files(path)
    first = next((file for file in files[:5] if _readable(file, _is_known)), None)
    if first is None or _readable(first, lambda c: is_openpose(c) and not is_mediapipe(c)):
        return read_openpose(path, images, min_conf, known, hands)
    if is_mediapipe(load_json(first)):
        return read_mediapipe(path, images, min_conf, image_size)
    return _read_files(path, files, images, min_conf, known, hands)


def _read_file(
    path: Path,
    content: object,
    images: Path | str | None,
    min_conf: float,
    skeleton: Skeleton | None,
    image_size: tuple[float, float] | None,
    hands: bool,
) -> tuple[Detections, Report]:
    if is_mediapipe(content):
        return read_mediapipe(path, images, min_conf, image_size)
    if is_openpose(content):
        return read_openpose(path, images, min_conf, skeleton, hands)
    return read_coco_content(path, content, images, min_conf, "keypoints", skeleton, hands)


def _read_files(
    path: Path,
    files: Sequence[Path],
    images: Path | str | None,
    min_conf: float,
    skeleton: Skeleton | None,
    hands: bool,
) -> tuple[Detections, Report]:
    """Read a folder with one file of COCO's formats per image or video."""
    parts: list[Detections] = []
    whole = Report(str(path), "COCO keypoints, one file per image", unit="person")
    for file in files:
        try:
            content = load_json(file)
            part, report = read_coco_content(
                file, content, images, min_conf, "keypoints", skeleton, hands
            )
        except ValueError as error:
            whole.rows += 1
            reason = str(error).removeprefix(f"{file}: ")
            whole.leave_out("file that cannot be read", [f"{file.name}: {reason}"])
            continue
        if parts and part.skeleton is not parts[0].skeleton:
            whole.rows += report.rows
            reason = f"{part.skeleton.name} among {parts[0].skeleton.name}"
            whole.leave_out(reason, [file.name] * report.rows)
            continue
        whole.absorb(report)
        parts.append(part)
    if not parts:
        raise ValueError(f"{path}: no file can be read as keypoints")
    whole.facts |= {"files": str(len(files)), "keypoints": parts[0].skeleton.name}
    return Detections.joined(parts), whole


def _is_known(content: object) -> bool:
    return is_openpose(content) or is_coco(content) or is_mediapipe(content)


def _readable(file: Path, check: Callable[[object], bool]) -> bool:
    """Whether a file is JSON and its content passes a check."""
    try:
        return check(load_json(file))
    except (OSError, ValueError):
        return False
