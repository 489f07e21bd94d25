"""People of a file of 2D keypoints: checked, counted, with boxes."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowprior.files.limits import Refusal, parse_json, read_limited
from flowprior.files.report import Report
from flowprior.keypoint_files.limb_lengths import limb_disproportion
from flowprior.keypoint_files.number_lists import number_list
from flowprior.keypoint_files.people import (
    Detections,
    clean_keypoints,
    joint_places,
    keypoint_boxes,
)
from flowprior.keypoint_files.person_json import (
    joint_set,
    person_points,
)
from flowprior.keypoint_files.tracks import track_number
from flowprior.keypoint_files.whole_bodies import to_body_67, whole_body
from flowprior.keypoints import ENLARGE, FARTHEST_PX
from flowprior.skeleton import BODY_25, BODY_25B, BODY_67, SMPL_24, Skeleton

__all__ = ["PeopleBuilder", "described", "image_folder", "image_names", "image_stem", "load_json"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
MOST_KEYS = 8
# Of partly visible embedded poses in the right order, 0.5 % exceed the first; 2 % fit the other of
# OpenPose's orders that much better (0.3 % of fully visible ones).
MOST_DISPROPORTION = 5.0
BETTER_FIT = 1.3


@dataclass
class PeopleBuilder:
    """Collects the people of a source.

    Args:
        report: Receives the people left out.
        given: The joint set that the user passed.
        hands: Whether keypoints of hands and face count.
        skeleton: The joint set of the first person; `BODY_67` if anybody has hands beside it.
        sizes: Width and height of images by name, where the source has them.
        joints_3d: Joints (24, 4) in metres, of people by their place in the lists.
        tracks: Numbers of the people over several images, -1 where the source has none.
    """

    report: Report
    given: Skeleton | None = None
    hands: bool = True
    skeleton: Skeleton | None = None
    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    keypoints: list[NDArray[np.float64]] = field(default_factory=list)
    bboxes: list[object] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[float, float]] = field(default_factory=dict)
    joints_3d: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    tracks: list[int] = field(default_factory=list)

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
            points = person_points(entry, listed, self.given)
            skeleton, points = joint_set(points, listed, self.given, self.hands)
            if isinstance(entry, dict) and self.hands:
                skeleton, points = whole_body(entry, skeleton, points, self.given)
        except ValueError as error:
            self.leave_out(str(error), place)
            return
        self.skeleton = self.skeleton or skeleton
        if {skeleton, self.skeleton} == {BODY_25, BODY_67}:  # hands of some people only
            if self.skeleton is BODY_25:
                self.keypoints = [to_body_67(each, BODY_25) for each in self.keypoints]
            points = to_body_67(points, skeleton) if skeleton is BODY_25 else points
            skeleton = self.skeleton = BODY_67
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
        self.tracks.append(track_number(entry))

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
            self._image_sizes(),
            self._joints_3d(),
            np.array(self.tracks, np.int64) if max(self.tracks, default=-1) >= 0 else None,
        )
        return everybody[usable], self.report

    def _image_sizes(self) -> NDArray[np.float32] | None:
        if not self.sizes:
            return None
        unknown = (np.nan, np.nan)
        rows = [self.sizes.get(name, unknown) for name in self.names]
        return np.array(rows, np.float32).reshape(-1, 2)

    def _joints_3d(self) -> NDArray[np.float32] | None:
        if not self.joints_3d:
            return None
        nothing = np.zeros((SMPL_24.num_joints, 4), np.float32)
        return np.stack([self.joints_3d.get(row, nothing) for row in range(len(self.names))])

    def _warn_of_limbs(self, keypoints: NDArray[np.float32], skeleton: Skeleton) -> None:
        """Warn if the joint order of most people is implausible."""
        if skeleton is BODY_67:
            # Mapped to the order of BODY-25, unless they were taken for it.
            skeleton, keypoints = BODY_25, keypoints[:, : BODY_25.num_joints]
        reason = f"limbs implausible for {skeleton.name}: are the keypoints in another order?"
        found = limb_disproportion(keypoints, skeleton)
        wrong = found > MOST_DISPROPORTION
        other = {BODY_25.name: BODY_25B, BODY_25B.name: BODY_25}.get(skeleton.name)
        if other is not None and self.given is not other:
            better = found > BETTER_FIT * limb_disproportion(keypoints, other)
            if 2 * better.sum() > np.isfinite(found).sum():
                wrong = wrong | better
                reason += f' They fit {other.name}, which skeleton="{other.name}" reads'
        if 2 * wrong.sum() > np.isfinite(found).sum():
            self.report.warn(reason, np.array(self.places, object)[wrong])


def load_json(path: Path) -> object:
    """Read a JSON file within the limits of `flowprior.files.limits`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or exceeds a limit.
    """
    try:
        return parse_json(read_limited(path))
    except Refusal as refusal:
        raise ValueError(f"{path}: {refusal}") from refusal


def described(content: object) -> str:
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


def image_stem(file: Path) -> str:
    """Name of the image, without its suffix."""
    return file.name.removesuffix(".json").removesuffix("_keypoints")


def image_folder(folder: Path | str) -> Path:
    """The folder, if it exists; otherwise raise FileNotFoundError."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder of images: {folder}")
    return Path(folder)


def image_names(folder: Path) -> dict[str, str]:
    """Names of the images in a folder by stem; none if it does not exist."""
    if not folder.is_dir():
        return {}
    files = sorted(folder.iterdir())
    return {file.stem: file.name for file in files if file.suffix.lower() in IMAGE_SUFFIXES}


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
