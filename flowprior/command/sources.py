"""Inputs of ``flowprior fit``: keypoint files, pictures, videos; read in chunks of images."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowprior.detect import Detector
from flowprior.files.limits import require_path
from flowprior.files.picture_file import (
    PICTURE_SUFFIXES,
    Pixels,
    picture_facts,
    read_picture,
    write_picture,
)
from flowprior.files.report import Report
from flowprior.files.video_file import VIDEO_SUFFIXES, read_frames, video_length
from flowprior.fitting.whole_body_points import finger_joints
from flowprior.keypoint_files import Detections, read_detections
from flowprior.keypoint_files.image_names import image_label
from flowprior.keypoints import LEAST_CONF
from flowprior.results.estimator import Sighting
from flowprior.skeleton import BODY_25B, Skeleton

__all__ = [
    "Camera",
    "Chunk",
    "Keypoints",
    "Pictures",
    "Source",
    "Video",
    "open_source",
    "photos_of",
]

FRAME_PX = 1280
"""Longest side of the frames of a video that are kept for the pictures."""

UNREADABLE = "file that cannot be read"
"""Reason of the readers of keypoint files."""

OpenDetector = Callable[[], Detector]


@dataclass(frozen=True)
class Camera:
    """What the user says about the cameras.

    Args:
        focal_px: Focal length, pixels; None if unknown.
        image_size: Width and height of images without a picture, pixels; None if unknown.
    """

    focal_px: float | None = None
    image_size: tuple[float, float] | None = None

    def focal(self, image_size: Sequence[float], exif: float | None = None) -> float:
        """Focal length of an image: the user's, that of EXIF, else the diagonal, in pixels."""
        return self.focal_px or exif or math.hypot(*image_size)


@dataclass(frozen=True)
class Chunk:
    """Consecutive images and the people in them.

    Args:
        number: Number of the chunk.
        images: Number of images.
        people: Their people.
        photo: The pixels of an image by its name; None without a picture.
        faults: Sentences about what could not be read.
    """

    number: int
    images: int
    people: Sighting
    photo: Callable[[str], Pixels | None]
    faults: tuple[str, ...] = ()


class Source(Protocol):
    """An input.

    Attributes:
        images: Number of images; 0 if unknown.
        kind: What it is, for the report.
        fingerprint: Changes with the images of the input.
        has_fingers: Whether its keypoints are known to include fingers.
        faults: Sentences about files that could not be read at all.
    """

    images: int
    kind: str
    fingerprint: str
    has_fingers: bool
    faults: tuple[str, ...]

    def notes(self) -> list[str]:
        """Lines for the user about the input."""

    def chunks(self, size: int, done: Collection[int]) -> Iterator[Chunk]:
        """Read chunks of ``size`` images, except for the chunks that are done."""

    def close(self) -> None:
        """Release a detector."""


class Keypoints:
    """A file or folder of 2D keypoints.

    Args:
        path: The file or folder.
        camera: Cameras.
        images: Folder of the images; searched if None.
        skeleton: Name of the joint set; recognised if None.
        hands: Whether keypoints of hands and face count.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
        ValueError: It is in no known format.
    """

    def __init__(
        self,
        path: Path,
        camera: Camera,
        images: Path | None = None,
        skeleton: str | None = None,
        hands: bool = True,
    ) -> None:
        self.path, self.camera = path, camera
        self.found, self.report = self._read(images, skeleton, hands)
        self.folder = self.found.image_dir or self._beside()
        self.names = list(dict.fromkeys(self.found.image_names.tolist()))
        self.images = len(self.names)
        self.kind = self.report.kind
        self.has_fingers = bool(finger_joints(self.found.skeleton))
        unread = self.report.left_out.get(UNREADABLE)
        self.faults = () if unread is None else tuple(unread.examples)
        digest = hashlib.sha256(np.ascontiguousarray(self.found.keypoints_2d).tobytes())
        digest.update("\n".join(self.found.image_names.tolist()).encode())
        self.fingerprint = digest.hexdigest()
        self.guess = self._guessed_size()

    def _read(
        self, images: Path | None, skeleton: str | None, hands: bool
    ) -> tuple[Detections, Report]:
        size = self.camera.image_size

        def read(skeleton: Skeleton | str | None) -> tuple[Detections, Report]:
            return read_detections(
                self.path, images, skeleton=skeleton, image_size=size, hands=hands
            )

        found, report = read(skeleton)
        hint = f'skeleton="{BODY_25B.name}"'
        if skeleton is None and any(hint in reason for reason in report.warnings):
            return read(BODY_25B)
        return found, report

    def notes(self) -> list[str]:
        """The report of the reader, and assumptions about the size of images."""
        lines = [str(self.report)]
        if self.guess is not None:
            width, height = self.guess
            lines.append(
                f"  image size: unknown, {width:.0f} x {height:.0f} assumed, as if the keypoints "
                "were centred; --image-size WxH or pictures beside the file improve the fits"
            )
        return lines

    def chunks(self, size: int, done: Collection[int]) -> Iterator[Chunk]:
        """Read chunks of ``size`` images, except for the chunks that are done."""
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(self.found.image_names.tolist()):
            rows_of.setdefault(name, []).append(row)
        # Without people, one empty chunk.
        for number, start in enumerate(range(0, max(1, len(self.names)), size)):
            if number in done:
                continue
            faults: list[str] = []
            rows: list[int] = []
            facts = []
            names = self.names[start : start + size]
            for name in names:
                rows += rows_of[name]
                facts += [self._facts(name, rows_of[name][0], faults)] * len(rows_of[name])
            some = self.found[np.array(rows, np.intp)]
            people = Sighting(
                some.image_names.tolist(),
                [path for path, _, _ in facts],
                some.person,
                some.keypoints_2d,
                some.skeleton,
                np.array([image_size for _, image_size, _ in facts], np.float32).reshape(-1, 2),
                np.array([focal for _, _, focal in facts], np.float32),
                some.joints_3d,
                some.track,
            )
            yield Chunk(
                number,
                len(names),
                people,
                photos_of(people.image, people.image_path),
                tuple(faults),
            )

    def close(self) -> None:
        """Nothing to release."""

    def _facts(
        self, name: str, row: int, faults: list[str]
    ) -> tuple[str, tuple[float, float], float]:
        """Path, size and focal length of an image."""
        path = None if self.folder is None else self.folder / name
        if path is not None and path.is_file():
            try:
                size, exif = picture_facts(path)
            except ValueError as error:
                faults.append(str(error))
            else:
                return str(path.resolve()), size, self.camera.focal(size, exif)
        listed = None if self.found.image_size is None else self.found.image_size[row]
        if listed is not None and np.isfinite(listed).all():
            found = (float(listed[0]), float(listed[1]))
        else:
            found = self.camera.image_size or self.guess or (1.0, 1.0)
        return "", found, self.camera.focal(found)

    def _beside(self) -> Path | None:
        """A folder with one of the images, beside the file or in ``images`` there."""
        names = self.found.image_names.tolist()[:100]
        parent = self.path if self.path.is_dir() else self.path.parent
        for folder in (parent, parent / "images"):
            if any(Path(name).suffix and (folder / name).is_file() for name in names):
                return folder
        return None

    def _guessed_size(self) -> tuple[float, float] | None:
        """Size of an image in the middle of which all keypoints lie; None if it is not needed."""
        if self.camera.image_size is not None or self.folder is not None or not len(self.found):
            return None
        if self.found.image_size is not None and np.isfinite(self.found.image_size).all():
            return None
        keypoints = self.found.keypoints_2d
        seen = keypoints[keypoints[..., 2] > LEAST_CONF][:, :2].astype(np.float64)
        high, low = seen.max(axis=0), seen.min(axis=0)
        width, height = np.maximum(high + np.maximum(low, 0), 16.0).tolist()
        return math.ceil(width), math.ceil(height)


class Pictures:
    """Pictures, in which a detector finds the people.

    Args:
        paths: The files.
        names: Their names in the results.
        camera: Cameras.
        open_detector: Opens the detector when it is first needed.
    """

    kind = "pictures"
    has_fingers = False
    faults: tuple[str, ...] = ()

    def __init__(
        self,
        paths: Sequence[Path],
        names: Sequence[str],
        camera: Camera,
        open_detector: OpenDetector,
    ) -> None:
        self.paths, self.names, self.camera = paths, names, camera
        self.detector = _Lazy(open_detector)
        self.images = len(paths)
        listed = [f"{name} {path.stat().st_size}" for name, path in zip(names, paths, strict=True)]
        self.fingerprint = hashlib.sha256("\n".join(listed).encode()).hexdigest()

    def notes(self) -> list[str]:
        """The number of pictures."""
        return [f"{self.images} picture{'s' * (self.images != 1)}"]

    def chunks(self, size: int, done: Collection[int]) -> Iterator[Chunk]:
        """Detect people in chunks of ``size`` images, except for the chunks that are done."""
        for number, start in enumerate(range(0, self.images, size)):
            if number in done:
                continue
            crowd, faults = _Crowd(), []
            stop = min(start + size, self.images)
            for path, name in zip(self.paths[start:stop], self.names[start:stop], strict=True):
                try:
                    picture = read_picture(path)
                    _, exif = picture_facts(path)
                except ValueError as error:
                    faults.append(str(error))
                    continue
                shape = (picture.shape[1], picture.shape[0])
                focal = self.camera.focal(shape, exif)
                crowd.add(self.detector(), picture, name, str(path.resolve()), focal)
            people = crowd.sighting(self.detector())
            yield Chunk(
                number,
                stop - start,
                people,
                photos_of(people.image, people.image_path),
                tuple(faults),
            )

    def close(self) -> None:
        """Release the detector."""
        self.detector.close()


class Video:
    """A video, in the frames of which a detector finds the people.

    Args:
        path: The file.
        camera: Cameras.
        open_detector: Opens the detector when it is first needed.
        frames: Folder for the frames with people, made smaller, for the pictures.
        every: Every nth frame is used.
    """

    kind = "video"
    has_fingers = False
    faults: tuple[str, ...] = ()

    def __init__(
        self, path: Path, camera: Camera, open_detector: OpenDetector, frames: Path, every: int = 1
    ) -> None:
        self.path, self.camera, self.frames, self.every = path, camera, frames, every
        self.detector = _Lazy(open_detector)
        self.images = -(-video_length(path) // every)
        self.fingerprint = f"{path.name} {path.stat().st_size} {every}"

    def name(self, frame: int) -> str:
        """Name of the image of a frame, counted among those that are used."""
        return f"{self.path.stem}_{frame * self.every:06d}"

    def notes(self) -> list[str]:
        """The number of frames."""
        return [f"{self.path.name}: {self.images} frames"]

    def chunks(self, size: int, done: Collection[int]) -> Iterator[Chunk]:
        """Detect people in chunks of ``size`` frames, except for the chunks that are done."""
        crowd, count = _Crowd(), 0
        frame = -1
        for frame, picture in enumerate(read_frames(self.path, self.every)):
            number = frame // size
            if number in done:
                continue
            name = self.name(frame)
            file = self.frames / f"{image_label(name)}.jpg"
            focal = self.camera.focal((picture.shape[1], picture.shape[0]))
            if crowd.add(self.detector(), picture, name, str(file.resolve()), focal):
                self.frames.mkdir(parents=True, exist_ok=True)
                write_picture(file, picture, longest=FRAME_PX)
            count += 1
            if (frame + 1) % size == 0:
                people = crowd.sighting(self.detector())
                yield Chunk(number, count, people, photos_of(people.image, people.image_path))
                crowd, count = _Crowd(), 0
        if count:
            people = crowd.sighting(self.detector())
            yield Chunk(frame // size, count, people, photos_of(people.image, people.image_path))

    def close(self) -> None:
        """Release the detector."""
        self.detector.close()


class _Lazy:
    """A detector that is opened when it is first needed."""

    def __init__(self, opening: OpenDetector) -> None:
        self.opening = opening
        self.opened: Detector | None = None

    def __call__(self) -> Detector:
        if self.opened is None:
            self.opened = self.opening()
        return self.opened

    def close(self) -> None:
        if self.opened is not None:
            self.opened.close()


class _Crowd:
    """Collects the people of several pictures."""

    def __init__(self) -> None:
        self.image: list[str] = []
        self.path: list[str] = []
        self.person: list[int] = []
        self.size: list[tuple[int, int]] = []
        self.focal: list[float] = []
        self.keypoints: list[NDArray[np.float32]] = []
        self.joints: list[NDArray[np.float32]] = []

    def add(self, detector: Detector, picture: Pixels, name: str, path: str, focal: float) -> int:
        """Detect the people of a picture; returns their number."""
        found = detector(picture)
        for row in range(len(found)):
            self.image.append(name)
            self.path.append(path)
            self.person.append(row)
            self.size.append((picture.shape[1], picture.shape[0]))
            self.focal.append(focal)
            self.keypoints.append(found.keypoints_2d[row])
            if found.joints_3d is not None:
                self.joints.append(found.joints_3d[row])
        return len(found)

    def sighting(self, detector: Detector) -> Sighting:
        """The people."""
        count = detector.skeleton.num_joints
        return Sighting(
            self.image,
            self.path,
            np.array(self.person, np.int64),
            np.array(self.keypoints, np.float32).reshape(-1, count, 3),
            detector.skeleton,
            np.array(self.size, np.float32).reshape(-1, 2),
            np.array(self.focal, np.float32),
            np.array(self.joints, np.float32) if self.joints else None,
        )


def open_source(
    path: Path,
    camera: Camera,
    open_detector: OpenDetector,
    *,
    frames: Path,
    images: Path | None = None,
    skeleton: str | None = None,
    every: int = 1,
    hands: bool = True,
) -> Source:
    """Recognise an input.

    Args:
        path: A picture, a video, a file of keypoints, or a folder. A folder with pictures and
            keypoint files counts as keypoints.
        camera: Cameras.
        open_detector: Opens a detector, for pictures and videos.
        frames: Folder for the frames of a video.
        images: Folder of the images of keypoint files.
        skeleton: Name of the joint set of keypoint files.
        every: Every nth frame of a video is used.
        hands: Whether keypoints of hands and face in files count.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
        ValueError: It is none of these.
    """
    path = require_path(path)
    suffix = path.suffix.lower()
    if path.is_file() and suffix in PICTURE_SUFFIXES:
        return Pictures([path], [path.name], camera, open_detector)
    if path.is_file() and suffix in VIDEO_SUFFIXES:
        return Video(path, camera, open_detector, frames, every)
    if path.is_file():
        return Keypoints(path, camera, images, skeleton, hands)
    if any(path.glob("*.json")) or any(path.glob("keypoints/*.json")):
        return Keypoints(path, camera, images, skeleton, hands)
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()
    )
    if not files:
        raise ValueError(
            f"{path}: neither pictures ({', '.join(PICTURE_SUFFIXES)}) nor JSON files of keypoints"
        )
    names = [file.relative_to(path).as_posix() for file in files]
    return Pictures(files, names, camera, open_detector)


def photos_of(images: Iterable[str], paths: Iterable[str]) -> Callable[[str], Pixels | None]:
    """A function from the name of an image to its photo, None if there is none that can be read.

    Args:
        images: Names of the images.
        paths: Paths of their photos, empty where there is none.
    """
    path_of = dict(zip(map(str, images), map(str, paths), strict=True))

    def photo(image: str) -> Pixels | None:
        path = path_of.get(image, "")
        try:
            return read_picture(path) if path else None
        except (OSError, ValueError):
            return None

    return photo
