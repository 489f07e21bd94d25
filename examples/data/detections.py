"""Files of 2D keypoints: OpenPose's JSON, one per image, and COCO's, one for all.

Formats: the JSON output of ``CMU-Perceptual-Computing-Lab/openpose`` with its models of 25 or of 18
keypoints, and COCO's "keypoint detection" (cocodataset.org), both its annotations and its results.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.data.files import require_path
from examples.data.keypoints import (
    FARTHEST_PX,
    Detections,
    clean_keypoints,
    joint_places,
    keypoint_boxes,
)
from examples.data.report import Report
from flowprior.file_limits import Refusal, parse_json, read_limited
from flowprior.skeleton import BODY_25, COCO_17, COCO_18, Skeleton

__all__ = [
    "Detections",
    "inspect",
    "matches",
    "read_coco",
    "read_detections",
    "read_openpose",
]

ENLARGE = 1.2
OPENPOSE_SUFFIX = "_keypoints.json"
OPENPOSE_KEYS = ("pose_keypoints_2d", "pose_keypoints")  # the second until version 1.2
OPENPOSE_SETS = {3 * skeleton.num_joints: skeleton for skeleton in (BODY_25, COCO_18)}
COCO_SETS = {3 * COCO_17.num_joints: COCO_17}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
PERSON_CATEGORY = 1


def matches(path: Path) -> bool:
    """Whether a file holds keypoints in JSON, or a folder has OpenPose's files in it."""
    if path.is_dir():
        # One damaged file does not make it another folder.
        return any(_openpose_content(file) for file in sorted(path.glob(f"*{OPENPOSE_SUFFIX}"))[:5])
    if path.suffix != ".json":
        return False
    try:
        content = _load(path)
    except (OSError, ValueError):
        return False
    return _is_openpose(content) or _is_coco(content)


def inspect(path: Path, images: Path | None = None) -> Report:
    """Read all of it and say what is there.

    Args:
        path: As for `read_detections`.
        images: As there.

    Returns:
        The report.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or no folder ``images``.
        ValueError: It is of neither format.
    """
    return read_detections(path, images)[1]


def read_detections(
    path: Path | str, images: Path | str | None = None, min_conf: float = 0.0
) -> tuple[Detections, Report]:
    """Read people of either format.

    Args:
        path: As for `read_openpose` or `read_coco`; which, the file says.
        images: As there.
        min_conf: As there.

    Returns:
        The usable people; and what was found.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or no folder ``images``.
        ValueError: It is of neither format.
    """
    path = require_path(path)
    if path.is_file() and _is_coco(content := _load(path)):
        return _coco(path, content, images, min_conf, "keypoints")
    return read_openpose(path, images, min_conf)


def read_openpose(
    path: Path | str, images: Path | str | None = None, min_conf: float = 0.0
) -> tuple[Detections, Report]:
    """Read OpenPose's detections.

    Args:
        path: A file ``<stem>_keypoints.json``; or a folder of them, or one with them in
            ``keypoints``. In a folder, a file that cannot be read is left out as one person.
        images: The folder with ``<stem>.jpg`` or the like; if None, they are looked for beside the
            files and in a folder ``images`` there or one above. Where images are found, people of
            those that are missing are left out.
        min_conf: Boxes are around keypoints of more than this confidence; a person needs two.

    Returns:
        The usable people by the names of the files, all of one joint set, that of the first; and
        what was found.

    Raises:
        FileNotFoundError: There is nothing at ``path``, no such file in the folder, or no folder
            ``images``.
        ValueError: The file is none of OpenPose's, or no file in the folder is.
    """
    path = require_path(path)
    files = _openpose_files(path) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"no file *{OPENPOSE_SUFFIX} in the folder {path}")
    people = _People(Report(str(path), "OpenPose detections", unit="person"))
    found = {_stem(file): file for file in files}
    image_dir, by_stem = _find_images(images, path, found)
    faults: list[ValueError] = []
    empty = 0
    for stem, file in found.items():
        try:
            entries = _openpose_people(file)
        except ValueError as error:
            if path.is_file():
                raise
            faults.append(error)
            reason = str(error).removeprefix(f"{file}: ")
            people.leave_out("file that cannot be read", f"{file.name}: {reason}")
            continue
        empty += not entries
        for number, entry in enumerate(entries):
            place = f"{file.name}, person {number}"
            if image_dir is not None and stem not in by_stem:
                people.leave_out("missing image", place)
                continue
            numbers = next((entry[key] for key in OPENPOSE_KEYS if key in entry), None)
            people.add(by_stem.get(stem, stem), number, _numbers(numbers), OPENPOSE_SETS, place)
    if len(faults) == len(files):
        raise faults[0]
    unused = len(by_stem.keys() - found.keys())
    people.report.facts |= {
        "files": f"{len(files)}, {empty} without a person",
        "images": "none found" if image_dir is None else f"{image_dir}",
    }
    if unused:
        people.report.facts["images without detections"] = str(unused)
    return people.detections(BODY_25, image_dir, min_conf)


def read_coco(
    path: Path | str,
    images: Path | str | None = None,
    min_conf: float = 0.0,
    boxes: str = "keypoints",
) -> tuple[Detections, Report]:
    """Read COCO's keypoints, annotated or detected.

    Annotations have a visibility, 0 for a keypoint that is not labelled, 1 for one that is hidden,
    2 for one that is seen; of the last two the confidence is 1. Results have scores.

    Args:
        path: A JSON file: an object with ``images`` and ``annotations``, or a list of results.
        images: The folder of the images; if given, people of those that are missing are left out.
        min_conf: Boxes are around keypoints of more than this confidence; a person needs two.
        boxes: ``"keypoints"``, or ``"bbox"`` for the boxes of the file, made square and as much
            larger.

    Returns:
        The usable people in the order of the file; and what was found. Images of results are named
        as COCO names them, ``000000000139.jpg``, unless they have names instead of numbers.

    Raises:
        FileNotFoundError: There is no such file, or no folder ``images``.
        ValueError: It is of another form, or ``boxes`` is neither.
    """
    path = require_path(path)
    if boxes not in ("keypoints", "bbox"):
        raise ValueError(f'boxes must be "keypoints" or "bbox", got {boxes!r}')
    content = _load(path)
    if not _is_coco(content):
        raise ValueError(
            f"{path}: expected an object with images and annotations that have keypoints, or a "
            f"list of results that have, found {_described(content)}"
        )
    return _coco(path, content, images, min_conf, boxes)


@dataclass
class _People:
    """People as they are found, one after the other.

    Args:
        report: What is told of those left out.
        skeleton: The joint set of the first.
    """

    report: Report
    skeleton: Skeleton | None = None
    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    keypoints: list[NDArray[np.float64]] = field(default_factory=list)
    bboxes: list[object] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, place: str) -> None:
        """Count someone who cannot be used."""
        self.report.rows += 1
        self.report.leave_out(reason, [place])

    def add(
        self,
        image: str,
        number: int,
        values: NDArray[np.float64] | None,
        sets: dict[int, Skeleton],
        place: str,
        bbox: object = None,
    ) -> None:
        """Add someone, if the values are there and as many as one of the joint sets has."""
        if values is None or len(values) not in sets:
            expected = " or ".join(map(str, sets))
            self.leave_out(f"keypoints that are not {expected} numbers", place)
            return
        skeleton = sets[len(values)]
        self.skeleton = self.skeleton or skeleton
        if skeleton is not self.skeleton:
            self.leave_out(f"{skeleton.name} among {self.skeleton.name}", place)
            return
        self.report.rows += 1
        self.names.append(image)
        self.numbers.append(number)
        self.keypoints.append(values.reshape(-1, 3))
        self.bboxes.append(bbox)
        self.places.append(place)

    def detections(
        self, default: Skeleton, image_dir: Path | None, min_conf: float, boxes: str = "keypoints"
    ) -> tuple[Detections, Report]:
        """Those who have a box."""
        skeleton = self.skeleton or default
        stacked = np.array(self.keypoints).reshape(-1, skeleton.num_joints, 3)
        keypoints = clean_keypoints(stacked, joint_places(self.places, skeleton), self.report)
        seen = np.asarray((keypoints[..., 2] > min_conf).any(axis=1))
        center, side = keypoint_boxes(keypoints, ENLARGE, min_conf)
        if boxes == "bbox":
            center, side = _square(self.bboxes)
        usable = seen & (side > 0)
        places = np.array(self.places, object)
        self.report.leave_out(f"no keypoint of confidence above {min_conf:g}", places[~seen])
        self.report.leave_out("box without extent", places[seen & ~usable])
        self.report.kept = int(usable.sum())
        self.report.facts["keypoints"] = skeleton.name
        everybody = Detections(
            np.array(self.names, np.str_),
            np.array(self.numbers, np.int64),
            keypoints,
            skeleton,
            center,
            side,
            image_dir,
        )
        return everybody[usable], self.report


def _load(path: Path) -> object:
    try:
        return parse_json(read_limited(path))
    except Refusal as refusal:
        raise ValueError(f"{path}: {refusal}") from refusal


def _described(content: object) -> str:
    if isinstance(content, dict):
        return f"an object with {', '.join(sorted(content)) or 'nothing'}"
    if isinstance(content, list):
        return f"a list of {len(content)}"
    return type(content).__name__


def _numbers(value: object) -> NDArray[np.float64] | None:
    """A list as an array, if all of it is numbers."""
    if not isinstance(value, list) or any(
        isinstance(entry, bool) or not isinstance(entry, int | float) for entry in value
    ):
        return None
    try:
        return np.array(value, np.float64)
    except OverflowError:  # JSON's integers are of any length
        return None


def _is_openpose(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("people"), list)


def _openpose_content(file: Path) -> bool:
    try:
        return _is_openpose(_load(file))
    except (OSError, ValueError):
        return False


def _openpose_files(folder: Path) -> list[Path]:
    return next(
        (
            files
            for place in (folder, folder / "keypoints")
            if (files := sorted(place.glob(f"*{OPENPOSE_SUFFIX}")))
        ),
        [],
    )


def _stem(file: Path) -> str:
    """Name of the image, without its suffix."""
    return file.name.removesuffix(".json").removesuffix("_keypoints")


def _openpose_people(file: Path) -> list[dict[str, object]]:
    content = _load(file)
    if not isinstance(content, dict) or not isinstance(content.get("people"), list):
        raise ValueError(f"{file}: expected an object with people, found {_described(content)}")
    return [entry if isinstance(entry, dict) else {} for entry in content["people"]]


def _find_images(
    given: Path | str | None, path: Path, stems: Iterable[str]
) -> tuple[Path | None, dict[str, str]]:
    """The folder of the images, and the name of each image there by its stem."""
    if given is not None:
        return _image_folder(given), _image_names(Path(given))
    beside = path if path.is_dir() else path.parent
    wanted = set(stems)
    for folder in (beside, beside / "images", beside.resolve().parent / "images"):
        names = _image_names(folder)
        if wanted & names.keys():
            return folder, names
    return None, {}


def _image_folder(folder: Path | str) -> Path:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder of images: {folder}")
    return Path(folder)


def _image_names(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    files = sorted(folder.iterdir())
    return {file.stem: file.name for file in files if file.suffix.lower() in IMAGE_SUFFIXES}


def _is_coco(content: object) -> bool:
    entries = content
    if isinstance(content, dict):
        entries = content.get("annotations") if isinstance(content.get("images"), list) else None
    # An empty list says nothing; the first entry may be damaged.
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and "keypoints" in entry for entry in entries[:100]
    )


def _coco(
    path: Path, content: object, images: Path | str | None, min_conf: float, boxes: str
) -> tuple[Detections, Report]:
    image_dir = None if images is None else _image_folder(images)
    annotated = isinstance(content, dict)
    kind = "COCO keypoint annotations" if annotated else "COCO keypoint results"
    people = _People(Report(str(path), kind, unit="person"))
    listed = _coco_names(content["images"]) if isinstance(content, dict) else {}
    entries = content["annotations"] if isinstance(content, dict) else content
    assert isinstance(entries, list)
    in_image: Counter[str] = Counter()
    for row, entry in enumerate(entries):
        place = f"entry {row}"
        image = _coco_image(entry, listed, annotated)
        if not isinstance(entry, dict) or image is None:
            people.leave_out("entry without an image that is known", place)
            continue
        number = in_image[image]
        in_image[image] += 1
        fault = _coco_fault(entry)
        if fault is None and image_dir is not None and not (image_dir / image).is_file():
            fault = "missing image"
        if fault is not None:
            people.leave_out(fault, place)
            continue
        values = _numbers(entry.get("keypoints"))
        if values is not None:
            values[2::3][values[2::3] == 2] = 1  # seen and hidden keypoints are labelled alike
        people.add(image, number, values, COCO_SETS, place, entry.get("bbox"))
    people.report.facts["images"] = f"{len(in_image)} with people"
    if annotated:
        people.report.facts["images"] += f", {len(listed)} listed"
    return people.detections(COCO_17, image_dir, min_conf, boxes)


def _coco_names(images: list[object]) -> dict[object, str]:
    """File names by number."""
    return {
        entry["id"]: str(entry["file_name"])
        for entry in images
        if isinstance(entry, dict)
        and isinstance(entry.get("id"), int | str)
        and isinstance(entry.get("file_name"), str)
    }


def _coco_image(entry: object, listed: dict[object, str], annotated: bool) -> str | None:
    """Name of the image that an entry is in; None if that is unknown."""
    number = entry.get("image_id") if isinstance(entry, dict) else None
    if not isinstance(number, int | str):
        return None
    if annotated:
        return listed.get(number)
    return f"{number:012d}.jpg" if isinstance(number, int) else number


def _coco_fault(entry: dict[str, object]) -> str | None:
    if entry.get("category_id", PERSON_CATEGORY) != PERSON_CATEGORY:
        return "not a person"
    if entry.get("iscrowd"):
        return "crowd"
    if entry.get("num_keypoints") == 0:
        return "no keypoint labelled"
    return None


def _square(boxes: list[object]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres and enlarged sides of COCO's boxes (x, y, width, height); zero where it is none."""
    corners = np.zeros((len(boxes), 4))
    for row, box in enumerate(boxes):
        values = _numbers(box)
        if values is not None and values.shape == (4,) and (np.abs(values) < FARTHEST_PX).all():
            corners[row] = values
    center = corners[:, :2] + corners[:, 2:] / 2
    usable = (corners[:, 2:] > 0).all(axis=1)
    side = np.where(usable, ENLARGE * corners[:, 2:].max(axis=1), 0)
    return center.astype(np.float32), side.astype(np.float32)
