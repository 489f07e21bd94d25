"""OpenPose's JSON of 2D keypoints, one file per image.

Formats: the JSON output of ``CMU-Perceptual-Computing-Lab/openpose``, of its predecessor rtpose,
and of programs that write the same.
"""

from collections.abc import Iterable
from pathlib import Path

from flowprior.files.limits import require_path
from flowprior.files.report import Report
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
    joint_set_named,
)
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import BODY_25, Skeleton

__all__ = ["OPENPOSE_SUFFIX", "find_images", "is_openpose", "openpose_files", "read_openpose"]

OPENPOSE_SUFFIX = "_keypoints.json"
"""End of the names of OpenPose's files."""


def read_openpose(
    path: Path | str,
    images: Path | str | None = None,
    min_conf: float = LEAST_CONF,
    skeleton: Skeleton | str | None = None,
    hands: bool = True,
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
        skeleton: The joint set of the keypoints in the files, or its name; by default their number
            decides: 25 are BODY-25, 18 COCO-18, 67 BODY-67, 70 MHR-70, 133 COCO-WholeBody-133, 17
            and the first 17 of Halpe's 26 COCO-17. The 25 of OpenPose's BODY_25B are in another
            order: give "BODY-25B".
        hands: Whether keypoints of hands and face count. The hands that OpenPose lists beside the
            body, and those of Halpe's 136 keypoints, make the joint set BODY-67, to which the
            body's keypoints are mapped by name. If False, the body's keypoints alone are read,
            COCO-17 of COCO-WholeBody and Halpe.

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
    people = PeopleBuilder(report, joint_set_named(skeleton), hands)
    found = {image_stem(file): file for file in files}
    image_dir, by_stem = find_images(images, path, found)
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


def is_openpose(content: object) -> bool:
    """Whether the content of a JSON file is OpenPose's."""
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


def _openpose_people(file: Path) -> list[object]:
    content = load_json(file)
    people = _openpose_entries(content)
    if people is None:
        raise ValueError(f"{file}: expected an object with people, found {described(content)}")
    return people


def find_images(
    given: Path | str | None, path: Path, stems: Iterable[str]
) -> tuple[Path | None, dict[str, str]]:
    """Find the images of files of keypoints.

    Args:
        given: Folder of the images; None to search.
        path: The file or folder of the keypoints.
        stems: Names of the files without their suffixes.

    Returns:
        The folder, None without images, and the name of each image there by its stem.
    """
    if given is not None:
        return image_folder(given), image_names(Path(given))
    beside = path if path.is_dir() else path.parent
    wanted = set(stems)
    for folder in (beside, beside / "images", beside.resolve().parent / "images"):
        names = image_names(folder)
        if wanted & names.keys():
            return folder, names
    return None, {}
