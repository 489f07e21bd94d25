"""Human3.6M in the archives of ``facebookresearch/VideoPose3D``, which most lifting papers use.

``data_3d_h36m.npz`` has the joints of every recording in the world, ``data_2d_h36m_*.npz`` the
keypoints of a detector in each of the four cameras. Both are dictionaries in an array, pickled;
reading them executes no code from the file. Views of the joints need the calibration of the
cameras: ``metadata.xml`` of the data set's release, in the same folder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.data.files import npz_keys, numbered
from examples.data.h36m_cameras import (
    CAMERAS,
    METADATA_FILE,
    SUBJECTS,
    H36mCamera,
    read_h36m_cameras,
)
from examples.data.lifting_pairs import LiftingPairs, join_pairs
from examples.data.motion import frames_at_rate
from flowprior.files.limits import require_path
from flowprior.files.numpy_file import read_npz
from flowprior.files.report import Report
from flowprior.keypoint_files.people import FARTHEST_M, clean_keypoints, joint_places
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import COCO_17, H36M_17, H36M_32, MPII_16, Skeleton, mapping

__all__ = [
    "ACTIONS",
    "FILE_3D",
    "FRAME_RATE",
    "TEST_SUBJECTS",
    "TRAIN_SUBJECTS",
    "canonical_action",
    "inspect",
    "matches",
    "read_h36m",
    "read_h36m_world",
]

TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
FRAME_RATE = 50.0

ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases",
    "Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip
"""The 15 actions whose errors protocol 1 averages."""

RENAMED = {
    "TakingPhoto": "Photo",
    "WalkingDog": "WalkDog",
    "WalkingTogether": "WalkTogether",
}
CORRUPT = ("S11", "Directions")
FILE_3D = "data_3d_h36m.npz"
"""File name of VideoPose3D's archive of joints."""

Float64 = NDArray[np.float64]


def canonical_action(sequence: str) -> str | None:
    """One of `ACTIONS` from the name of a recording: "Photo" from "TakingPhoto 1".

    Args:
        sequence: The name, with or without the number of the trial.

    Returns:
        The action; None for others.
    """
    name = _canonical_sequence(sequence).partition(" ")[0]
    return name if name in ACTIONS else None


def _canonical_sequence(sequence: str) -> str:
    """The name of a recording in VideoPose3D's spelling."""
    name, space, trial = sequence.replace("_", " ").partition(" ")
    return RENAMED.get(name, name) + space + trial


def matches(path: Path) -> bool:
    """Whether a file is an archive of 3D joints or of 2D keypoints."""
    keys = npz_keys(path)
    return "positions_3d" in keys or "positions_2d" in keys


def inspect(path: Path) -> Report:
    """Read a whole source and report its content and faults.

    Args:
        path: As for `read_h36m`; or a file of detections, which needs ``data_3d_h36m.npz`` in
            the same folder.

    Returns:
        The report on every view of every subject; on every frame, if the folder of an archive of
        joints has no ``metadata.xml``.

    Raises:
        FileNotFoundError: ``path`` does not exist, or the folder of the detections has no 3D file
            or no ``metadata.xml``.
        ValueError: The file does not have this format.
    """
    path = require_path(path)
    if "positions_2d" in npz_keys(path):
        return read_h36m(path.parent, path, subjects=None)[1]
    if not (_file_3d(path).parent / METADATA_FILE).exists():
        report = read_h36m_world(path)[1]
        report.facts["cameras"] = f"no {METADATA_FILE} beside it, which views need"
        return report
    return read_h36m(path, subjects=None)[1]


def read_h36m(
    path: Path | str,
    keypoints: Path | str | None = None,
    *,
    subjects: Sequence[str] | None = TRAIN_SUBJECTS,
    cameras: Sequence[str] = CAMERAS,
    every: int = 1,
    metadata: Path | str | None = None,
) -> tuple[LiftingPairs, Report]:
    """Read views of people: keypoints in the image, joints in the camera frame.

    Args:
        path: ``data_3d_h36m.npz``, or the folder with it.
        keypoints: ``data_2d_h36m_cpn_ft_h36m_dbb.npz`` or another file of detections, of H36M-17,
            COCO-17 or the hourglass's MPII-16. None projects the joints with the lens's distortion,
            which is what ``data_2d_h36m_gt.npz`` holds.
        subjects: Subjects to read, in the usual protocol `TRAIN_SUBJECTS` or `TEST_SUBJECTS`; None
            for all in the file.
        cameras: Names of the cameras.
        every: Take every k-th frame of each recording, from its first.
        metadata: The calibration, ``metadata.xml`` of the data set's release; None for the one
            beside the 3D file.

    Returns:
        The views, in the order of the file; and the report. Detections beyond the end of the
        motion capture are cut off, as usual. S11's first "Directions" is corrupt and left out.

    Raises:
        FileNotFoundError: ``path``, ``keypoints`` or the calibration does not exist.
        ValueError: A file has another format or lacks a subject, or an argument is invalid.
    """
    if every < 1:
        raise ValueError(f"expected every to be 1 or more, got {every}")
    for name, given, known in (
        ("subjects", SUBJECTS if subjects is None else subjects, SUBJECTS),
        ("cameras", cameras, CAMERAS),
    ):
        if not given or not set(given) <= set(known):
            raise ValueError(f"expected {name} among {', '.join(known)}, got {', '.join(given)}")
    path = _file_3d(path)
    lenses = read_h36m_cameras(path.parent if metadata is None else metadata)
    detections = None if keypoints is None else _Detections(Path(keypoints))
    skeleton = H36M_17 if detections is None else detections.skeleton
    report = Report(str(path), "Human3.6M, VideoPose3D's archive", unit="view")
    nobody = np.zeros((0, H36M_17.num_joints, 3))
    nothing = np.zeros((0, skeleton.num_joints, 3), np.float32)
    lens = lenses[SUBJECTS[0], CAMERAS[0]]
    parts = [_view(SUBJECTS[0], "", lens, nobody, nothing, skeleton, np.arange(0))]
    recordings: set[str] = set()

    def rows_of(frames: int) -> int:
        return len(cameras) * len(range(0, frames, every))

    for subject, sequence, joints in _recordings(path, subjects, report, rows_of):
        frames = np.arange(0, len(joints), every)
        for camera in cameras:
            place, lens = f"{subject} {sequence}, camera {camera}", lenses[subject, camera]
            kept = _finite(joints, frames, place, report)
            if detections is None:
                image = _projected(joints[kept], lens)
            else:
                image, kept = detections.of(subject, sequence, camera, kept, report)
            parts.append(_view(subject, sequence, lens, joints[kept], image, skeleton, kept))
            if len(kept):
                recordings.add(f"{subject} {sequence}")
    pairs = join_pairs(parts)
    report.kept = len(pairs)
    report.facts |= {
        "subjects": ", ".join(dict.fromkeys(pairs.subject.tolist())),
        "recordings": str(len(recordings)),
        "keypoints": "projected" if detections is None else f"{keypoints}, {skeleton.name}",
    }
    return pairs, report


def read_h36m_world(
    path: Path | str, rate_hz: float = FRAME_RATE
) -> tuple[dict[str, NDArray[np.float32]], Report]:
    """Read the poses in the world frame.

    Args:
        path: ``data_3d_h36m.npz``, or the folder with it.
        rate_hz: Subsample from 50 Hz to this frame rate.

    Returns:
        By subject, (N, 17, 3) joints in H36M-17 order, metres, y up, the root at the origin; and
        what was found.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: The file does not have this format.
    """
    path = _file_3d(path)
    report = Report(str(path), "Human3.6M, VideoPose3D's archive", unit="frame")
    poses: dict[str, list[NDArray[np.float32]]] = {}

    def frames_of(number: int) -> NDArray[np.int64]:
        return frames_at_rate(number, FRAME_RATE, rate_hz)

    for subject, sequence, joints in _recordings(
        path, None, report, lambda number: len(frames_of(number))
    ):
        frames = frames_of(len(joints))
        kept = _finite(joints, frames, f"{subject} {sequence}", report)
        x, y, z = np.moveaxis(joints[kept] - joints[kept, :1], -1, 0)
        turned = np.stack([x, z, -y], axis=-1).astype(np.float32)
        poses.setdefault(subject, []).append(turned)
        report.kept += len(kept)
    return {subject: np.concatenate(parts) for subject, parts in poses.items()}, report


def _file_3d(path: Path | str) -> Path:
    path = require_path(path)
    return require_path(path / FILE_3D) if path.is_dir() else path


def _recordings(
    path: Path, subjects: Sequence[str] | None, report: Report, rows_of: Callable[[int], int]
) -> Iterator[tuple[str, str, Float64]]:
    """Subject, canonical name and joints (T, 17, 3) of each usable recording, world, z up.

    Counts the rows of all recordings; ``rows_of`` converts a number of frames to rows.
    """
    content = _dictionary(read_npz(path, ("positions_3d",)), "positions_3d", path)
    known = [subject for subject in content if subject in SUBJECTS]
    missing = set(known if subjects is None else subjects) - set(known)
    if missing or not known:
        raise ValueError(
            f"{path}: expected positions_3d of the subjects "
            f"{', '.join(subjects or SUBJECTS)}, found {', '.join(content) or 'none'}"
        )
    moving = list(mapping(H36M_32, H36M_17))
    for subject in known if subjects is None else subjects:
        recordings = content[subject]
        if not isinstance(recordings, dict):
            raise ValueError(f"{path}: expected the recordings of {subject} as a dictionary")
        for name, positions in recordings.items():
            sequence = _canonical_sequence(str(name))
            place = [f"{subject} {sequence}"]
            if not _is_positions(positions):
                report.rows += 1
                reason = "recording that is no numbers of shape (T, 32, 3)"
                report.leave_out(reason, place)
                continue
            rows = rows_of(len(positions))
            report.rows += rows
            joints = positions.astype(np.float64)
            joints = joints[:, moving] if joints.shape[1] == H36M_32.num_joints else joints
            far = bool((np.abs(joints[np.isfinite(joints)]) > FARTHEST_M).any())
            fault = None
            if (subject, sequence) == CORRUPT:
                fault = "S11 Directions, which is corrupt"
            elif canonical_action(sequence) is None:
                fault = "recording of none of the 15 actions"
            elif far:
                fault = f"recording with joints beyond {FARTHEST_M:g} m, millimetres perhaps"
            if fault:
                report.leave_out(fault, place * rows)
                continue
            if not len(joints):
                report.ignore("recording without frames", place)
                continue
            yield subject, sequence, joints


def _is_positions(value: object) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype.kind == "f"
        and value.ndim == 3
        and value.shape[1:] in ((H36M_32.num_joints, 3), (H36M_17.num_joints, 3))
    )


def _dictionary(content: Mapping[str, object], key: str, path: Path) -> dict[str, object]:
    value = content.get(key)
    if not isinstance(value, dict):
        raise ValueError(
            f"{path}: expected {key} to be a dictionary by subject, found "
            f"{type(value).__name__ if key in content else ', '.join(sorted(npz_keys(path)))}"
        )
    return {str(name): entry for name, entry in value.items()}


def _finite(
    joints: Float64, frames: NDArray[np.int64], place: str, report: Report
) -> NDArray[np.int64]:
    """The frames whose joints are finite."""
    finite = np.isfinite(joints[frames]).all(axis=(1, 2))
    where = numbered("frame", frames[~finite])
    report.leave_out("3D joint of NaN or infinity", (f"{place}, {name}" for name in where))
    return frames[finite]


def _projected(joints: Float64, lens: H36mCamera) -> NDArray[np.float32]:
    """Keypoints (T, 17, 3) of a perfect detector, confidence 1."""
    pixels = lens.project(lens.to_camera(joints))
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1).astype(np.float32)


def _view(
    subject: str,
    sequence: str,
    lens: H36mCamera,
    joints: Float64,
    image: NDArray[np.float32],
    skeleton: Skeleton,
    frames: NDArray[np.int64],
) -> LiftingPairs:
    """Joints (T, 17, 3) of the world and keypoints (T, J, 3) in one camera."""
    seen = lens.to_camera(joints)
    root = seen[:, H36M_17.root]
    number = len(frames)
    return LiftingPairs(
        image,
        (seen - root[:, None]).astype(np.float32),
        skeleton,
        H36M_17,
        root.astype(np.float32),
        np.tile(np.array(lens.image_size, np.float32), (number, 1)),
        np.full(number, subject),
        np.full(number, canonical_action(sequence) or ""),
        np.full(number, sequence),
        np.full(number, lens.name),
        frames,
    )


class _Detections:
    """Read detected keypoints, by subject, recording and camera.

    Args:
        path: A file ``data_2d_h36m_*.npz``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file does not have this format, or its joint set is unknown.
    """

    def __init__(self, path: Path) -> None:
        content = read_npz(path, ("positions_2d", "metadata"))
        self._recordings: dict[tuple[str, str], object] = {}
        for subject, recordings in _dictionary(content, "positions_2d", path).items():
            if not isinstance(recordings, dict):
                raise ValueError(f"{path}: expected the recordings of {subject} as a dictionary")
            for name, by_camera in recordings.items():
                self._recordings[subject, _canonical_sequence(str(name))] = by_camera
        self.skeleton = _skeleton_of(content.get("metadata"), path)

    def of(
        self,
        subject: str,
        sequence: str,
        camera: str,
        frames: NDArray[np.int64],
        report: Report,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Keypoints (T, J, 3) of some frames, and the mask of frames with keypoints."""
        place = f"{subject} {sequence}, camera {camera}"
        by_camera = self._recordings.get((subject, sequence))
        index = CAMERAS.index(camera)
        found = None
        if isinstance(by_camera, list | tuple | np.ndarray) and len(by_camera) > index:
            found = by_camera[index]
        joints = self.skeleton.num_joints
        if (
            not isinstance(found, np.ndarray)
            or found.dtype.kind != "f"
            or found.ndim != 3
            or found.shape[1:] not in ((joints, 2), (joints, 3))
        ):
            reason = f"recording without 2D keypoints of shape (T, {joints}, 2)"
            report.leave_out(reason, [place] * len(frames))
            return np.zeros((0, joints, 3), np.float32), frames[:0]
        self._leave_out("frame without 2D keypoints", place, frames[frames >= len(found)], report)
        frames = frames[frames < len(found)]
        image = found[frames].astype(np.float64)
        if image.shape[-1] == 2:
            image = np.concatenate([image, np.ones_like(image[..., :1])], axis=-1)
        places = [f"{place}, {frame}" for frame in numbered("frame", frames)]
        cleaned = clean_keypoints(image, joint_places(places, self.skeleton), report)
        seen = (cleaned[..., 2] > LEAST_CONF).any(axis=1)
        self._leave_out("no 2D keypoint", place, frames[~seen], report)
        return cleaned[seen], frames[seen]

    @staticmethod
    def _leave_out(reason: str, place: str, frames: NDArray[np.int64], report: Report) -> None:
        report.leave_out(reason, (f"{place}, {frame}" for frame in numbered("frame", frames)))


def _skeleton_of(metadata: object, path: Path) -> Skeleton:
    """The joint set of a file of detections, from the number of joints and their left side."""
    known = (H36M_17, COCO_17, MPII_16)
    about = metadata if isinstance(metadata, dict) else {}
    symmetry = about.get("keypoints_symmetry")
    if isinstance(symmetry, list | tuple) and len(symmetry) == 2:
        left, right = (set(np.ravel(np.asarray(side)).tolist()) for side in symmetry)
        for skeleton in known:
            sides = [
                {j for j, name in enumerate(skeleton.joint_names) if name.startswith(side)}
                for side in ("left_", "right_")
            ]
            if about.get("num_joints") == skeleton.num_joints and [left, right] == sides:
                return skeleton
    raise ValueError(
        f"{path}: expected metadata with num_joints and keypoints_symmetry of one of "
        f"{', '.join(skeleton.name for skeleton in known)}, got {metadata!s:.200}"
    )
