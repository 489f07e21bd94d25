"""MediaPipe's 33 pose landmarks: names, joint sets of other detectors, and files.

MediaPipe writes no file of its own. Programs dump its results as JSON: normalised landmarks under
``pose_landmarks`` and metres under ``pose_world_landmarks``, with or without the level ``landmark``
of protocol buffers; or people with ``names``, ``keypoints_2d`` in pixels and ``world_landmarks_m``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowprior.skeleton import BODY_25, SMPL_24

__all__ = ["LANDMARKS", "body_25_of", "is_mediapipe", "landmark_people", "smpl_joints_of"]

LANDMARKS = (
    "nose",
    *(f"left_eye{part}" for part in ("_inner", "", "_outer")),
    *(f"right_eye{part}" for part in ("_inner", "", "_outer")),
    *("left_ear", "right_ear", "mouth_left", "mouth_right"),
    *(
        f"{side}_{joint}"
        for joint in (
            *("shoulder", "elbow", "wrist", "pinky", "index", "thumb"),
            *("hip", "knee", "ankle", "heel", "foot_index"),
        )
        for side in ("left", "right")
    ),
)
"""Names of the 33 landmarks, in MediaPipe's order."""

_SAME = {"left_big_toe": "left_foot_index", "right_big_toe": "right_foot_index"}
_SPACE_JOINTS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
_WORDS_2D = ("pose_landmarks", "poseLandmarks", "landmarks")
_WORDS_3D = ("pose_world_landmarks", "poseWorldLandmarks", "world_landmarks", "worldLandmarks")


def body_25_of(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """BODY-25's keypoints of 33 landmarks; the neck and the middle of the hips are missing.

    Args:
        landmarks: (..., 33, 3) pixels and visibility.

    Returns:
        (..., 25, 3), zeros for the joints that MediaPipe does not have.
    """
    placed = np.zeros((*landmarks.shape[:-2], BODY_25.num_joints, 3))
    for joint, name in enumerate(BODY_25.joint_names):
        source = _SAME.get(name, name)
        if source in LANDMARKS:
            placed[..., joint, :] = landmarks[..., LANDMARKS.index(source), :]
    return placed


def smpl_joints_of(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """SMPL's joints of 33 landmarks in metres: hips, knees, ankles, shoulders, elbows, wrists.

    Args:
        landmarks: (..., 33, 4) metres (x right, y down, z away from the camera) and visibility.

    Returns:
        (..., 24, 4) metres and visibility; NaN and 0 for the other joints.
    """
    placed = np.full((*landmarks.shape[:-2], SMPL_24.num_joints, 4), np.nan, np.float32)
    placed[..., 3] = 0
    for name in _SPACE_JOINTS:
        for side in ("left", "right"):
            joint = f"{side}_{name}"
            placed[..., SMPL_24.index(joint), :] = landmarks[..., LANDMARKS.index(joint), :]
    return placed


def is_mediapipe(content: object) -> bool:
    """Whether the content of a JSON file is MediaPipe's."""
    if not isinstance(content, Mapping):
        return False
    if any(word in content for word in _WORDS_2D):
        return True
    people = content.get("people")
    return isinstance(people, list) and any(
        isinstance(person, Mapping) and "world_landmarks_m" in person for person in people[:10]
    )


def landmark_people(
    path: Path, content: Mapping[str, object], image_size: tuple[float, float] | None
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64] | None], tuple[float, float]]:
    """Read the people of a file.

    Args:
        path: The file, for messages.
        content: Its content.
        image_size: Width and height of the image in pixels if the file does not name them.

    Returns:
        For each person (33, 3) pixels and visibility; for each (33, 4) metres and visibility, or
        None; and the size of the image.

    Raises:
        ValueError: The landmarks are not 33, not numbers, or the size of the image is unknown.
    """
    size = _size(content.get("image")) or _size(content) or image_size
    people = content.get("people")
    if isinstance(people, list):
        flat = [_rows(path, person, "keypoints_2d", 3) for person in people]
        space = [
            _rows(path, person, "world_landmarks_m", 4)
            if isinstance(person, Mapping) and person.get("world_landmarks_m") is not None
            else None
            for person in people
        ]
        if size is None:
            raise ValueError(f"{path}: expected the size of the image under image")
        return flat, space, size
    if size is None:
        raise ValueError(
            f"{path}: MediaPipe's coordinates are normalised, and the file does not contain the "
            "size of the image: add the picture beside it, image: {width, height} to the file, or "
            "--image-size"
        )
    flat = [
        np.column_stack([rows[:, :2] * np.asarray(size), rows[:, 3]])
        for rows in (_landmarks(path, one) for one in _several(content, _WORDS_2D))
    ]
    worlds = [_landmarks(path, one) for one in _several(content, _WORDS_3D)]
    if worlds and len(worlds) != len(flat):
        raise ValueError(f"{path}: {len(flat)} people in pixels, but {len(worlds)} in metres")
    return flat, [*worlds] if worlds else [None] * len(flat), size


def _size(value: object) -> tuple[float, float] | None:
    if not isinstance(value, Mapping):
        return None
    sides = [value.get("width"), value.get("height")]
    if all(isinstance(side, int | float) and side > 0 for side in sides):
        return float(sides[0]), float(sides[1])  # type: ignore[arg-type]
    return None


def _several(content: Mapping[str, object], words: Sequence[str]) -> list[object]:
    """The people under one of some words: a list of people, or a single one."""
    value = next((content[word] for word in words if content.get(word) is not None), None)
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = value.get("landmark", [])
    if not isinstance(value, list) or not value:
        return []
    first = value[0]
    single = isinstance(first, Mapping) and "x" in first
    return [value] if single else value


def _landmarks(path: Path, value: object) -> NDArray[np.float64]:
    """(33, 4) x, y, z and visibility of a list of objects."""
    if isinstance(value, Mapping):
        value = value.get("landmark")
    if not isinstance(value, list) or len(value) != len(LANDMARKS):
        found = f"{len(value)}" if isinstance(value, list) else "none"
        raise ValueError(f"{path}: expected {len(LANDMARKS)} landmarks per person, found {found}")
    rows = [
        [point.get(key, 1.0 if key == "visibility" else None) for key in "xyz"]
        + [point.get("visibility", 1.0)]
        if isinstance(point, Mapping)
        else [None]
        for point in value
    ]
    return _numbers(path, rows, 4)


def _rows(path: Path, person: object, key: str, width: int) -> NDArray[np.float64]:
    rows = person.get(key) if isinstance(person, Mapping) else None
    if not isinstance(rows, list) or len(rows) != len(LANDMARKS):
        raise ValueError(f"{path}: expected {len(LANDMARKS)} landmarks under {key}")
    return _numbers(path, rows, width)


def _numbers(path: Path, rows: Sequence[object], width: int) -> NDArray[np.float64]:
    for row in rows:
        if (
            not isinstance(row, list)
            or len(row) != width
            or any(isinstance(entry, bool) or not isinstance(entry, int | float) for entry in row)
        ):
            raise ValueError(f"{path}: expected {width} numbers per landmark, found {row!s:.60}")
    return np.array(rows, np.float64)
