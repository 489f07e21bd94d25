"""One person in the JSON of a keypoint detector: layouts of the numbers, and joint sets by name.

Layouts: flat x, y, confidence (OpenPose, COCO, AlphaPose); a list per keypoint; keypoints and their
scores in two lists (mmpose); columns x, y, visible (Ultralytics); with the names of the joints.
"""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowprior.keypoint_files.number_lists import number_list
from flowprior.keypoint_files.whole_bodies import halpe_to_body_67
from flowprior.skeleton import (
    BODY_25,
    BODY_67,
    COCO_17,
    COCO_18,
    COCO_WHOLEBODY_133,
    MHR_70,
    SKELETONS,
    Skeleton,
)

__all__ = ["is_person", "joint_set", "joint_set_named", "person_points"]

POINT_KEYS = ("pose_keypoints_2d", "pose_keypoints", "joints", "keypoints_2d", "keypoints")
SCORE_KEYS = ("keypoint_scores", "keypoints_scores", "scores")

KNOWN = (COCO_17, COCO_18, BODY_25, BODY_67, MHR_70, COCO_WHOLEBODY_133)
SETS = {skeleton.num_joints: skeleton for skeleton in KNOWN}
HALPE = 136
FIRST = {26: COCO_17, 133: COCO_17, HALPE: COCO_17, 67: BODY_25}
"""Sets of bodies with which larger ones begin: Halpe-26, COCO-WholeBody, Halpe-136, BODY-67."""

FEWEST_NAMED = 6
"""Joints of COCO-17 that a person's joint set must name."""

PERSON_WORDS = {"person", "persons", "people", "human", "humans", "pedestrian", "man", "woman"}
PERSON_WORDS |= {"child", "boy", "girl", "adult", "player", "athlete", "body", "pose"}

_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
_SHORT = {"sho": "shoulder", "elb": "elbow", "wri": "wrist", "ank": "ankle", "wr": "wrist"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def person_points(
    entry: object, names: Sequence[str] | None = None, skeleton: Skeleton | None = None
) -> NDArray[np.float64]:
    """The keypoints of a person.

    Args:
        entry: An object of a JSON file.
        names: Names of the keypoints, if the file has them.
        skeleton: The joint set according to the user.

    Returns:
        (K, 3) x, y and confidence.

    Raises:
        ValueError: The keypoints are missing, are not numbers, or have no confidences. The message
            is worded for a report.
    """
    if not isinstance(entry, dict):
        raise ValueError("entry that is no object")
    value = next((entry[key] for key in POINT_KEYS if entry.get(key) is not None), None)
    if isinstance(value, dict):
        conf = value.get("visible", value.get("confidence"))
        listed = (number_list(each) for each in (value.get("x"), value.get("y"), conf))
        columns = [column for column in listed if column is not None]
        if [len(column) for column in columns] != 3 * [len(columns[0]) if columns else 0]:
            raise ValueError("keypoints without columns x, y and visible of one length")
        return np.stack(columns, axis=1)
    if value is None or value == []:
        raise ValueError("no keypoints")
    scores = next((entry[key] for key in SCORE_KEYS if isinstance(entry.get(key), list)), None)
    flat, width = _flat(value)
    if flat is None:
        raise ValueError("keypoints that are not numbers")
    conf = number_list(scores)
    if conf is not None and width != 3 and len(flat) == 2 * len(conf):
        return np.column_stack([flat.reshape(-1, 2), conf])
    sizes = {*SETS, *FIRST, *([] if names is None else [len(names)])}
    if skeleton is not None:
        sizes.add(skeleton.num_joints)
    if width in (None, 3) and len(flat) % 3 == 0 and (width or len(flat) // 3 in sizes):
        return flat.reshape(-1, 3)
    if len(flat) % 2 == 0 and (width == 2 or len(flat) // 2 in sizes):
        raise ValueError(f"{len(flat) // 2} keypoints without confidences")
    known = ", ".join(str(3 * size) for size in sorted(sizes))
    raise ValueError(f"{len(flat)} numbers, which is no known joint set ({known})")


def _flat(value: object) -> tuple[NDArray[np.float64] | None, int | None]:
    """The numbers of a list, and the length of each keypoint in a list of lists."""
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value or not isinstance(value[0], list):
        return number_list(value), None
    rows = [number_list(row) for row in value]
    width = len(value[0])
    if width not in (2, 3) or any(row is None or len(row) != width for row in rows):
        return None, None
    return np.concatenate([row for row in rows if row is not None]), width


def joint_set_named(skeleton: Skeleton | str | None) -> Skeleton | None:
    """A joint set of `flowprior.skeleton` by name; None and joint sets are returned unchanged.

    Raises:
        ValueError: The name is unknown; the message lists the known names.
    """
    if not isinstance(skeleton, str):
        return skeleton
    found = {name.lower(): known for name, known in SKELETONS.items()}
    if skeleton.lower().replace("_", "-") not in found:
        raise ValueError(f"no joint set {skeleton!r}; known sets: {', '.join(SKELETONS)}")
    return found[skeleton.lower().replace("_", "-")]


def joint_set(
    points: NDArray[np.float64],
    names: Sequence[str] | None = None,
    skeleton: Skeleton | None = None,
    hands: bool = True,
) -> tuple[Skeleton, NDArray[np.float64]]:
    """Identify the joint set of keypoints.

    Args:
        points: (K, 3).
        names: Names of the keypoints, if the file has them. Sets other than COCO's 17 are
            mapped to those by name, with zeros for joints that they lack.
        skeleton: The joint set according to the user; None decides by names or number. The body
            of `BODY_67` may stand alone.
        hands: Whether keypoints of hands and face count, where the body precedes them.

    Returns:
        The set and its keypoints (J, 3).

    Raises:
        ValueError: The joint set is unknown. The message is worded for a report.
    """
    count = len(points)
    if skeleton is not None:
        if skeleton is BODY_67 and count == BODY_25.num_joints:
            return BODY_25, points
        if count != skeleton.num_joints and FIRST.get(count) is not skeleton:
            raise ValueError(f"{count} keypoints, not {skeleton.num_joints} of {skeleton.name}")
        return skeleton, points[: skeleton.num_joints]
    known = SETS.get(count) if hands else FIRST.get(count, SETS.get(count))
    coco = COCO_17.joint_names
    found = () if names is None else _canonical(tuple(map(str, names)))
    if found and len(found) == count and known is MHR_70 and found[:15] == known.joint_names[:15]:
        return known, points
    if found and found[: len(coco)] != coco:
        if len(found) != count:
            raise ValueError(f"{count} keypoints, but {len(found)} names")
        placed = np.zeros((len(coco), 3))
        shared = [joint for joint, name in enumerate(coco) if name in found]
        if len(shared) < FEWEST_NAMED:
            listed = ", ".join(str(name) for name in list(names or ())[:3])
            raise ValueError(f"joint set that is not a person's ({listed}, ...)")
        placed[shared] = points[[found.index(coco[joint]) for joint in shared]]
        return COCO_17, placed
    if count == HALPE and hands:
        return BODY_67, halpe_to_body_67(points)
    if found and len(found) == count and known is not COCO_WHOLEBODY_133:
        known = COCO_17
    known = known or FIRST.get(count)
    if known is None:
        raise ValueError(f"{count} keypoints, which is no known joint set")
    return known, points[: known.num_joints]


@functools.lru_cache(maxsize=8)  # all people of a file have the same names
def _canonical(names: tuple[str, ...]) -> tuple[str, ...]:
    """Joint names in the spelling of `flowprior.skeleton`: "left_wrist" for "LWrist", "L_Wri"."""
    found = []
    for name in names:
        words = [word.lower() for word in _WORD.findall(name)]
        side = [_SIDES[word] for word in words if word in _SIDES]
        rest = [_SHORT.get(word, word) for word in words if word not in _SIDES]
        found.append("_".join([*side[:1], *rest]))
    if not any(name.endswith("_ankle") for name in found):  # Human3.6M's word for ankles
        found = [re.sub("_foot$", "_ankle", name) for name in found]
    return tuple(found)


def is_person(category: Mapping[str, object]) -> bool:
    """Whether a category of a COCO file means people, by name and supercategory."""
    text = f"{category.get('name', '')} {category.get('supercategory', '')}"
    return bool(PERSON_WORDS.intersection(word.lower() for word in _WORD.findall(text)))
