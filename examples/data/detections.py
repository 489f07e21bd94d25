"""Files of 2D keypoints: OpenPose's JSON, one per image, and COCO's, one for all images.

Formats: the JSON output of ``CMU-Perceptual-Computing-Lab/openpose`` and of programs that write the
same, and COCO's "keypoint detection" (cocodataset.org), both its annotations and its results, which
AlphaPose and YOLO write too; the predictions of mmpose and Ultralytics for one image or video.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.data.files import require_path
from examples.data.keypoint_json import (
    is_person,
    joint_set,
    joint_set_named,
    number_list,
    person_points,
)
from examples.data.keypoints import (
    Detections,
    clean_keypoints,
    joint_places,
    keypoint_boxes,
)
from examples.data.limb_lengths import limb_disproportion
from examples.data.report import Report
from flowprior.files.limits import Refusal, parse_json, read_limited
from flowprior.keypoints import ENLARGE, FARTHEST_PX, LEAST_CONF
from flowprior.skeleton import BODY_25, BODY_25B, COCO_17, Skeleton

__all__ = [
    "Detections",
    "inspect",
    "matches",
    "openpose_files",
    "read_coco",
    "read_detections",
    "read_openpose",
]

OPENPOSE_SUFFIX = "_keypoints.json"
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
DATA_SUFFIXES = {".npz", ".npy", ".pkl", ".pt", ".csv"}
MOST_KEYS = 8
# Of partly visible embedded poses in the right order, 0.5 % exceed the first; 2 % fit the other of
# OpenPose's orders that much better (0.3 % of fully visible ones).
MOST_DISPROPORTION = 5.0
BETTER_FIT = 1.3
IMAGE_KEYS = ("image_id", "image_name", "file_name", "imgname", "image")


def matches(path: Path) -> bool:
    """Whether a file contains keypoints in JSON, or a folder contains OpenPose's files."""
    if path.is_dir():
        files = sorted(path.glob(f"*{OPENPOSE_SUFFIX}"))
        if files:  # one damaged file does not change the format of the folder
            return any(_readable(file, _is_openpose) for file in files[:5])
        # Files with other names count as OpenPose's only if the folder contains nothing else.
        children = sorted(path.iterdir())
        if any(child.suffix in DATA_SUFFIXES for child in children):
            return False
        files = [child for child in children if child.suffix == ".json"][:5]
        others = (_readable(file, lambda content: not _is_openpose(content)) for file in files)
        return any(_readable(file, _is_openpose) for file in files) and not any(others)
    return path.suffix == ".json" and _readable(path, lambda c: _is_openpose(c) or _is_coco(c))


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
    if path.is_file() and not _is_openpose(content := _load(path)):
        return _coco(path, content, images, min_conf, "keypoints", known)
    return read_openpose(path, images, min_conf, known)


def read_openpose(
    path: Path | str,
    images: Path | str | None = None,
    min_conf: float = LEAST_CONF,
    skeleton: Skeleton | str | None = None,
) -> tuple[Detections, Report]:
    """Read OpenPose's detections.

    Args:
        path: A JSON file, which OpenPose names ``<stem>_keypoints.json``; or a folder with such
            files, in it or in ``keypoints`` below it. If no name has this ending, all JSON files
            of the folder are read. An unreadable file in a folder is left out as one person.
        images: The folder with ``<stem>.jpg`` or similar; None searches beside the files and in a
            folder ``images`` there or one level above. If images are found, people whose image
            is missing are left out.
        min_conf: Boxes surround keypoints above this confidence; a person needs two.
        skeleton: The joint set, or its name; by default the number of keypoints decides: 25 are
            BODY-25, 18 COCO-18, the first 17 of 17, 26, 133 and 136 COCO-17. The 25 of OpenPose's
            BODY_25B are in another order: give "BODY-25B".

    Returns:
        The usable people by the names of the files, all of one joint set, that of the first; and
        what was found, with a warning if the limbs of most are implausible.

    Raises:
        FileNotFoundError: There is nothing at ``path``, no such file in the folder, or no folder
            ``images``.
        ValueError: No file is OpenPose's, the joint set is unknown, or the units are not pixels
            and probabilities.
    """
    path = require_path(path)
    files = openpose_files(path) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"no file *{OPENPOSE_SUFFIX} or other JSON in the folder {path}")
    report = Report(str(path), "OpenPose detections", unit="person")
    people = _People(report, joint_set_named(skeleton))
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
            names = entry.get("names") if isinstance(entry, dict) else None
            people.add(by_stem.get(stem, stem), number, entry, place, names)
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
    min_conf: float = LEAST_CONF,
    boxes: str = "keypoints",
    skeleton: Skeleton | str | None = None,
) -> tuple[Detections, Report]:
    """Read COCO's keypoints, annotated or detected.

    Annotations have a visibility: 0 not labelled, 1 hidden, 2 visible; the confidence of the last
    two is 1. Results have scores. Keypoints of
    other joint sets are mapped to COCO's by the names in ``categories``.

    Args:
        path: A JSON file: an object with ``images`` and ``annotations``, or a list of results; also
            the predictions of mmpose and Ultralytics, which name no image.
        images: The folder of the images; if given, people whose image is missing are left out.
        min_conf: Boxes surround keypoints above this confidence; a person needs two.
        boxes: ``"keypoints"``, or ``"bbox"`` for the boxes of the file, made square and enlarged by
            the same factor.
        skeleton: As for `read_openpose`; by default the names of the keypoints in the file decide,
            else their number.

    Returns:
        The usable people in the order of the file; and the report. Images of results have
        COCO's names, ``000000000139.jpg``, unless the file has names instead of numbers. If a file
        names no image, the image has the name of the file.

    Raises:
        FileNotFoundError: The file or the folder ``images`` does not exist.
        ValueError: The format, ``boxes`` or the joint set is unknown, or the units are not pixels
            and probabilities.
    """
    path = require_path(path)
    if boxes not in ("keypoints", "bbox"):
        raise ValueError(f'boxes must be "keypoints" or "bbox", got {boxes!r}')
    return _coco(path, _load(path), images, min_conf, boxes, joint_set_named(skeleton))


@dataclass
class _People:
    """Collects the people of a source.

    Args:
        report: Receives the people left out.
        given: The joint set that the user passed.
        skeleton: The joint set of the first person.
    """

    report: Report
    given: Skeleton | None = None
    skeleton: Skeleton | None = None
    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    keypoints: list[NDArray[np.float64]] = field(default_factory=list)
    bboxes: list[object] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, place: str) -> None:
        """Count an unusable person."""
        self.report.rows += 1
        self.report.leave_out(reason, [place])

    def add(
        self,
        image: str,
        number: int,
        entry: object,
        place: str,
        names: object = None,
        visibility: bool = False,
    ) -> None:
        """Add a person of a file, unless the keypoints are unreadable or of another joint set.

        Args:
            image: Name of the image.
            number: Number of the person in the image.
            entry: The person's object in the file.
            place: Name of the person in the report.
            names: Names of the keypoints, if the file has them.
            visibility: Whether the third number is COCO's visibility.
        """
        listed = names if isinstance(names, list) and names else None
        try:
            points = person_points(entry, listed)
            skeleton, points = joint_set(points, listed, self.given)
        except ValueError as error:
            self.leave_out(str(error), place)
            return
        self.skeleton = self.skeleton or skeleton
        if skeleton is not self.skeleton:
            self.leave_out(f"{skeleton.name} among {self.skeleton.name}", place)
            return
        points = points.copy()
        flags = points[:, 2]
        if visibility or np.isin(flags, (0, 1, 2)).all():
            flags[flags == 2] = 1  # seen and hidden keypoints are labelled alike
        self.report.rows += 1
        self.names.append(image)
        self.numbers.append(number)
        self.keypoints.append(points)
        self.bboxes.append(entry.get("bbox") if isinstance(entry, dict) else None)
        self.places.append(place)

    def detections(
        self, default: Skeleton, image_dir: Path | None, min_conf: float, boxes: str = "keypoints"
    ) -> tuple[Detections, Report]:
        """The people who have a box."""
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
        self._warn_of_limbs(keypoints, skeleton)
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

    def _warn_of_limbs(self, keypoints: NDArray[np.float32], skeleton: Skeleton) -> None:
        """Warn if the joint order of most people is implausible."""
        reason = f"limbs implausible for {skeleton.name}: are the keypoints in another order?"
        found = limb_disproportion(keypoints, skeleton)
        wrong = found > MOST_DISPROPORTION
        other = {BODY_25.name: BODY_25B, BODY_25B.name: BODY_25}.get(skeleton.name)
        if other is not None:
            better = found > BETTER_FIT * limb_disproportion(keypoints, other)
            if 2 * better.sum() > np.isfinite(found).sum():
                wrong = wrong | better
                reason += f' They fit {other.name}, which skeleton="{other.name}" reads'
        if 2 * wrong.sum() > np.isfinite(found).sum():
            self.report.warn(reason, np.array(self.places, object)[wrong])


def _load(path: Path) -> object:
    try:
        return parse_json(read_limited(path))
    except Refusal as refusal:
        raise ValueError(f"{path}: {refusal}") from refusal


def _described(content: object) -> str:
    """Describe the content of a JSON file, for error messages."""
    if isinstance(content, dict):
        return f"an object with {_named(content)}"
    if isinstance(content, list):
        first = content[0] if content else None
        inside = f" objects with {_named(first)}" if isinstance(first, dict) else ""
        return f"a list of {len(content)}{inside}"
    return type(content).__name__


def _named(content: dict[str, object]) -> str:
    """The keys of an object, as many as fit on a line."""
    keys = [f"{key:.40}" for key in sorted(content)]
    more = ", ..." if len(keys) > MOST_KEYS else ""
    return (", ".join(keys[:MOST_KEYS]) or "nothing") + more


def _readable(file: Path, check: Callable[[object], bool]) -> bool:
    """Whether a file is JSON and its content passes a check."""
    try:
        return check(_load(file))
    except (OSError, ValueError):
        return False


def _is_openpose(content: object) -> bool:
    return _openpose_entries(content) is not None


def _openpose_entries(content: object) -> list[object] | None:
    """The people of a file of OpenPose or its predecessor rtpose; None for other files."""
    if not isinstance(content, dict):
        return None
    for key in ("people", "bodies"):
        if key in content:
            people = content[key]
            return [] if people is None else people if isinstance(people, list) else None
    return None


def openpose_files(folder: Path) -> list[Path]:
    """OpenPose's files in a folder or in ``keypoints`` there.

    Args:
        folder: The folder.

    Returns:
        The files ``*_keypoints.json``, or all JSON files if no name has this ending, sorted.
    """
    places = (folder, folder / "keypoints")
    found = (
        sorted(place.glob(f"*{suffix}"))
        for suffix in (OPENPOSE_SUFFIX, ".json")
        for place in places
    )
    return next((files for files in found if files), [])


def _stem(file: Path) -> str:
    """Name of the image, without its suffix."""
    return file.name.removesuffix(".json").removesuffix("_keypoints")


def _openpose_people(file: Path) -> list[object]:
    content = _load(file)
    people = _openpose_entries(content)
    if people is None:
        raise ValueError(f"{file}: expected an object with people, found {_described(content)}")
    return people


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
    return _coco_kind(content) is not None


def _coco_kind(content: object) -> str | None:
    """Name of the format that `_coco` would read; None for other files."""
    if isinstance(content, dict):
        if isinstance(content.get("instance_info"), list):
            return "mmpose predictions"
        entries = content.get("annotations") if isinstance(content.get("images"), list) else None
        if entries == [] and content["images"]:
            return "COCO keypoint annotations"
        return "COCO keypoint annotations" if _with_keypoints(entries) else None
    if not isinstance(content, list):
        return None
    if any(isinstance(entry, dict) and "instances" in entry for entry in content[:100]):
        return "mmpose predictions"
    return "COCO keypoint results" if _with_keypoints(content) else None


def _with_keypoints(entries: object) -> bool:
    # An empty list is ambiguous; the first entry may be damaged.
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and "keypoints" in entry for entry in entries[:100]
    )


def _coco(
    path: Path,
    content: object,
    images: Path | str | None,
    min_conf: float,
    boxes: str,
    skeleton: Skeleton | None,
) -> tuple[Detections, Report]:
    kind = _coco_kind(content)
    if kind is None:
        raise ValueError(
            f"{path}: expected OpenPose's object with people, an object with images and "
            "annotations that have keypoints, or a list of results that have, found "
            f"{_described(content)}"
        )
    image_dir = None if images is None else _image_folder(images)
    by_stem = {} if image_dir is None else _image_names(image_dir)
    people = _People(Report(str(path), kind, unit="person"), skeleton)
    annotated = kind == "COCO keypoint annotations"
    listed = _coco_names(content["images"]) if annotated and isinstance(content, dict) else {}
    entries = list(_coco_entries(content, _stem(path)))
    categories = _Categories.of(content, [entry for _, _, entry in entries])
    in_image: Counter[str] = Counter()
    for place, default, entry in entries:
        image = _coco_image(entry, listed, annotated, default)
        if not isinstance(entry, dict) or image is None:
            people.leave_out("entry without an image that is known", place)
            continue
        number = in_image[image]
        in_image[image] += 1
        fault = categories.fault(entry) or _coco_fault(entry)
        if image_dir is not None and fault is None:
            there = _coco_file(image, entry, image_dir, by_stem)
            fault, image = (None, there) if there else ("missing image", image)
        if fault is not None:
            people.leave_out(fault, place)
            continue
        people.add(image, number, entry, place, categories.joint_names(entry), annotated)
    people.report.facts["images"] = f"{len(in_image)} with people"
    if annotated:
        people.report.facts["images"] += f", {len(listed)} listed"
    return people.detections(COCO_17, image_dir, min_conf, boxes)


def _coco_entries(content: object, stem: str) -> Iterator[tuple[str, str | None, object]]:
    """Place, fallback image name and entry of each person of a file."""
    if isinstance(content, dict):
        entries = content.get("instance_info", content.get("annotations"))
    else:
        entries = content
    assert isinstance(entries, list)
    # A file without image names belongs to one image or video of the same name.
    named = any(
        isinstance(entry, dict) and any(key in entry for key in IMAGE_KEYS) for entry in entries
    )
    default = None if named else stem
    for row, entry in enumerate(entries):
        instances = entry.get("instances") if isinstance(entry, dict) else None
        if instances is None:
            yield f"entry {row}", default, entry
            continue
        frame = entry.get("frame_id", row)
        image = stem if len(entries) == 1 else f"{stem}_{frame:06d}" if _whole(frame) else None
        for number, instance in enumerate(instances if isinstance(instances, list) else [None]):
            yield f"entry {row}, instance {number}", image, instance


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _coco_names(images: list[object]) -> dict[str, str]:
    """File names by number, written as text: files have 1 and "1" for the same image."""
    return {
        str(entry["id"]): str(entry["file_name"])
        for entry in images
        if isinstance(entry, dict)
        and isinstance(entry.get("id"), int | str)
        and isinstance(entry.get("file_name"), str)
    }


def _coco_image(
    entry: object, listed: dict[str, str], annotated: bool, default: str | None
) -> str | None:
    """Name of the image of an entry; None if unknown."""
    if not isinstance(entry, dict):
        return None
    image = next((entry[key] for key in IMAGE_KEYS if entry.get(key) is not None), default)
    if isinstance(image, bool) or not isinstance(image, int | str):
        return None
    if annotated:
        return listed.get(str(image))
    return f"{image:012d}.jpg" if isinstance(image, int) else image


def _coco_file(
    image: str, entry: dict[str, object], folder: Path, by_stem: dict[str, str]
) -> str | None:
    """File name of an image in a folder: as listed, or a file with the same stem."""
    if (folder / image).is_file():
        return image
    number = entry.get("image_id")
    return by_stem.get(image) or (by_stem.get(str(number)) if _whole(number) else None)


@dataclass(frozen=True)
class _Categories:
    """The categories of a file.

    Args:
        listed: The categories by number, if the file lists them.
        person: The number of the category "person" otherwise: 1 as in COCO; 0, as in YOLO, if
            an entry has it.
        names: Keypoint names of all categories.
    """

    listed: dict[str, dict[str, object]]
    person: int
    names: object

    @staticmethod
    def of(content: object, entries: list[object]) -> "_Categories":
        """The categories of a file with these entries."""
        given = content.get("categories") if isinstance(content, dict) else None
        listed = {
            str(category["id"]): category
            for category in (given if isinstance(given, list) else [])
            if isinstance(category, dict) and "id" in category
        }
        meta = content.get("meta_info") if isinstance(content, dict) else None
        by_number = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
        names = list(by_number.values()) if isinstance(by_number, dict) else None
        zero = any(_whole(n := _category(entry)) and n == 0 for entry in entries)
        return _Categories(listed, 0 if zero else 1, names)

    def fault(self, entry: dict[str, object]) -> str | None:
        """The reason why an entry is not a person; None for a person."""
        number = _category(entry)
        if number is None:
            return None
        category = self.listed.get(str(number), {})
        if not category and isinstance(entry.get("name"), str):  # Ultralytics
            category = {"name": entry["name"]}
        if category.get("name") is None:
            return None if str(number) == str(self.person) else "not a person"
        return None if is_person(category) else f"not a person but {category['name']!s:.40}"

    def joint_names(self, entry: dict[str, object]) -> object:
        """Names of the keypoints of an entry, as in the file."""
        number = _category(entry)
        if number is None and len(self.listed) == 1:
            (category,) = self.listed.values()
        else:
            category = self.listed.get(str(number), {})
        return category.get("keypoints", self.names)


def _category(entry: object) -> object:
    return entry.get("category_id", entry.get("class")) if isinstance(entry, dict) else None


def _coco_fault(entry: dict[str, object]) -> str | None:
    if entry.get("iscrowd"):
        return "crowd"
    if entry.get("num_keypoints") == 0:
        return "no keypoint labelled"
    return None


def _square(boxes: list[object]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres and enlarged sides of COCO's boxes (x, y, width, height); zero for an invalid box."""
    corners = np.zeros((len(boxes), 4))
    for row, box in enumerate(boxes):
        values = number_list(box)
        if values is not None and values.shape == (4,) and (np.abs(values) < FARTHEST_PX).all():
            corners[row] = values
    center = corners[:, :2] + corners[:, 2:] / 2
    usable = (corners[:, 2:] > 0).all(axis=1)
    side = np.where(usable, ENLARGE * corners[:, 2:].max(axis=1), 0)
    return center.astype(np.float32), side.astype(np.float32)
