"""Hands and feet that files list beside the keypoints of the body.

OpenPose's files have ``hand_left_keypoints_2d`` and ``hand_right_keypoints_2d``; the annotations of
COCO-WholeBody and the results of mmpose's evaluation have ``foot_kpts``, ``face_kpts``,
``lefthand_kpts`` and ``righthand_kpts``.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowprior.keypoint_files.number_lists import number_list
from flowprior.skeleton import (
    BODY_25,
    BODY_25B,
    BODY_67,
    COCO_17,
    COCO_18,
    COCO_WHOLEBODY_133,
    HAND_21,
    Skeleton,
    shared_joints,
)

__all__ = ["halpe_to_body_67", "to_body_67", "whole_body"]

BODIES = (BODY_25, BODY_25B, COCO_17, COCO_18)
"""OpenPose's bodies, beside which its files have hands."""
HAND_KEYS = ("hand_left_keypoints_2d", "hand_right_keypoints_2d")
# The parts of COCO-WholeBody in its order, and the number of their keypoints.
PART_KEYS = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}

SIDES = ("left", "right")

Points = NDArray[np.float64]


def whole_body(
    entry: Mapping[str, object], skeleton: Skeleton, points: Points, given: Skeleton | None = None
) -> tuple[Skeleton, Points]:
    """Add the hands of a person's object to the keypoints of the body.

    Args:
        entry: The object of the file.
        skeleton: Joint set of the body.
        points: (J, 3) keypoints of the body, x, y and confidence.
        given: The joint set according to the user; `BODY_67` has hands, zero where the file has
            none.

    Returns:
        `COCO_WHOLEBODY_133` or `BODY_67` and its keypoints; ``skeleton`` and ``points`` where the
        object has no hands.

    Raises:
        ValueError: A part has another number of keypoints. The message is worded for a report.
    """
    if skeleton is COCO_17 and any(entry.get(key) for key in PART_KEYS):
        parts = [_part(entry, key, count) for key, count in PART_KEYS.items()]
        return COCO_WHOLEBODY_133, np.concatenate([points, *parts])
    if skeleton in BODIES and (given is BODY_67 or any(entry.get(key) for key in HAND_KEYS)):
        whole = to_body_67(points, skeleton)
        count = HAND_21.num_joints
        for number, key in enumerate(HAND_KEYS):
            first = BODY_25.num_joints + number * count
            whole[first : first + count] = _part(entry, key, count)
        return BODY_67, whole
    return skeleton, points


def to_body_67(points: Points, skeleton: Skeleton) -> Points:
    """Map keypoints (J, 3) of a body without hands to `BODY_67` (67, 3), zero where it has more."""
    source, target = shared_joints(skeleton, BODY_25)
    whole = np.zeros((BODY_67.num_joints, 3))
    whole[list(target)] = points[list(source)]
    return whole


def halpe_to_body_67(points: Points) -> Points:
    """Map Halpe's 136 keypoints (136, 3) to `BODY_67` (67, 3), without face, neck and pelvis.

    COCO's 17 come first; the toes and heels (20 to 25) alternate between left and right; the hands
    follow the face, at 94 and 115. Source: the README of ``Fang-Haoshu/Halpe-FullBody``.
    """
    whole = to_body_67(points[: COCO_17.num_joints], COCO_17)
    feet = [f"{side}_{part}" for part in ("big_toe", "small_toe", "heel") for side in SIDES]
    whole[[BODY_67.index(name) for name in feet]] = points[20:26]
    whole[BODY_25.num_joints :] = points[94:]
    return whole


def _part(entry: Mapping[str, object], key: str, count: int) -> Points:
    """The keypoints (count, 3) of a part; zeros if the file has none or calls them invalid."""
    value = entry.get(key)
    if not value or entry.get(key.replace("_kpts", "_valid")) is False:
        return np.zeros((count, 3))
    found = number_list(value)
    if found is None or len(found) != 3 * count:
        name = "hand" if "hand" in key else key.removesuffix("_kpts")
        raise ValueError(f"{name} without {count} keypoints and their confidences")
    return found.reshape(-1, 3)
