"""COCO's JSON of 2D keypoints, one file for all images.

Formats: COCO's "keypoint detection" (cocodataset.org), both its annotations and its results, which
AlphaPose and YOLO write too; the predictions of mmpose and Ultralytics for one image or video.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowprior.files.limits import require_path
from flowprior.files.report import Report
from flowprior.keypoint_files.number_lists import number_list
from flowprior.keypoint_files.people import (
    Detections,
)
from flowprior.keypoint_files.people_builder import (
    PeopleBuilder,
    described,
    image_folder,
    image_names,
    image_stem,
    load_json,
)
from flowprior.keypoint_files.person_json import (
    is_person,
    joint_set_named,
)
from flowprior.keypoints import FARTHEST_PX, LEAST_CONF
from flowprior.skeleton import COCO_17, Skeleton

__all__ = ["is_coco", "read_coco", "read_coco_content"]

IMAGE_KEYS = ("image_id", "image_name", "file_name", "imgname", "image")


def read_coco(
    path: Path | str,
    images: Path | str | None = None,
    min_conf: float = LEAST_CONF,
    boxes: str = "keypoints",
    skeleton: Skeleton | str | None = None,
    hands: bool = True,
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
        hands: As for `read_openpose`. COCO-WholeBody lists hands, feet and face in arrays of their
            own, or as 133 keypoints.

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
    return read_coco_content(
        path, load_json(path), images, min_conf, boxes, joint_set_named(skeleton), hands
    )


def read_coco_content(
    path: Path,
    content: object,
    images: Path | str | None,
    min_conf: float,
    boxes: str,
    skeleton: Skeleton | None,
    hands: bool = True,
) -> tuple[Detections, Report]:
    """Read COCO's keypoints from JSON that is already loaded.

    Args:
        path: Its file, for messages and image names.
        content: The content of the file.
        images: As for `read_coco`.
        min_conf: As for `read_coco`.
        boxes: As for `read_coco`.
        skeleton: The joint set, or None for that of the file.
        hands: As for `read_coco`.

    Returns:
        As `read_coco`.

    Raises:
        FileNotFoundError: The folder ``images`` does not exist.
        ValueError: The format is unknown, or the units are not pixels and probabilities.
    """
    kind = _coco_kind(content)
    if kind is None:
        raise ValueError(
            f"{path}: expected OpenPose's object with people, an object with images and "
            "annotations that have keypoints, or a list of results that have, found "
            f"{described(content)}"
        )
    image_dir = None if images is None else image_folder(images)
    by_stem = {} if image_dir is None else image_names(image_dir)
    people = PeopleBuilder(Report(str(path), kind, unit="person"), skeleton, hands)
    annotated = kind == "COCO keypoint annotations"
    listed = _coco_names(content["images"]) if annotated and isinstance(content, dict) else {}
    if annotated and isinstance(content, dict):
        people.sizes |= _coco_sizes(content["images"])
    entries = list(_coco_entries(content, image_stem(path)))
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
            if there and image in people.sizes:
                people.sizes[there] = people.sizes[image]
            fault, image = (None, there) if there else ("missing image", image)
        if fault is not None:
            people.leave_out(fault, place)
            continue
        people.add(image, number, entry, place, categories.joint_names(entry), annotated)
    people.report.facts["images"] = f"{len(in_image)} with people"
    if annotated:
        people.report.facts["images"] += f", {len(listed)} listed"
    return people.detections(COCO_17, image_dir, min_conf, boxes)


def is_coco(content: object) -> bool:
    """Whether the content of a JSON file has one of the formats of this module."""
    return _coco_kind(content) is not None


def _coco_kind(content: object) -> str | None:
    """Name of the format that `read_coco_content` would read; None for other files."""
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


def _coco_sizes(images: list[object]) -> dict[str, tuple[float, float]]:
    """Width and height of images by file name."""
    found = {}
    for entry in images:
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
            continue
        sides = number_list([entry.get("width"), entry.get("height")])
        if sides is not None and ((sides > 0) & (sides < FARTHEST_PX)).all():
            found[entry["file_name"]] = (float(sides[0]), float(sides[1]))
    return found


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
