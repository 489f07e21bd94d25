"""Files of MediaPipe's landmarks, one per image."""

from pathlib import Path

from flowprior.files.limits import require_path
from flowprior.files.picture_file import picture_facts
from flowprior.files.report import Report
from flowprior.keypoint_files.mediapipe import (
    body_25_of,
    is_mediapipe,
    landmark_people,
    smpl_joints_of,
)
from flowprior.keypoint_files.openpose import find_images, openpose_files
from flowprior.keypoint_files.people import Detections
from flowprior.keypoint_files.people_builder import PeopleBuilder, image_stem, load_json
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import BODY_25

__all__ = ["read_mediapipe"]


def read_mediapipe(
    path: Path | str,
    images: Path | str | None = None,
    min_conf: float = LEAST_CONF,
    image_size: tuple[float, float] | None = None,
) -> tuple[Detections, Report]:
    """Read MediaPipe's landmarks: BODY-25's keypoints, and SMPL's joints in metres.

    Args:
        path: A JSON file, see `flowprior.keypoint_files.mediapipe`; or a folder with such files. An
            unreadable file in a folder is left out as one person.
        images: The folder of the images; None searches as `read_openpose` does.
        min_conf: Boxes surround keypoints above this visibility; a person needs two.
        image_size: Width and height of the images in pixels, for normalised landmarks in files
            that do not contain it and have no picture.

    Returns:
        The usable people by the names of the files or images; and the report.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or no folder ``images``.
        ValueError: No file is MediaPipe's, or a size is missing.
    """
    path = require_path(path)
    files = openpose_files(path) if path.is_dir() else [path]
    people = PeopleBuilder(Report(str(path), "MediaPipe landmarks", unit="person"))
    found = {image_stem(file): file for file in files}
    image_dir, by_stem = find_images(images, path, found)
    faults: list[ValueError] = []
    for stem, file in found.items():
        image = by_stem.get(stem, stem)
        try:
            content = load_json(file)
            if not isinstance(content, dict) or not is_mediapipe(content):
                raise ValueError(f"{file}: expected MediaPipe's landmarks")
            known = image_size
            if image_dir is not None and stem in by_stem:
                known = picture_facts(image_dir / image)[0]
            flat, space, size = landmark_people(file, content, known)
        except ValueError as error:
            if path.is_file():
                raise
            faults.append(error)
            reason = str(error).removeprefix(f"{file}: ")
            people.leave_out("file that cannot be read", f"{file.name}: {reason}")
            continue
        people.sizes[image] = size
        for number, (landmarks, world) in enumerate(zip(flat, space, strict=True)):
            if world is not None:
                people.joints_3d[len(people.names)] = smpl_joints_of(world)
            entry = {"keypoints": body_25_of(landmarks).tolist()}
            people.add(image, number, entry, f"{file.name}, person {number}")
    if len(faults) == len(files):
        raise faults[0]
    return people.detections(BODY_25, image_dir, min_conf)
