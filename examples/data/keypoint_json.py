"""One person in the JSON of a keypoint detector: layouts of the numbers, and joint sets by name.

Layouts: flat x, y, confidence (OpenPose, COCO, AlphaPose); a list per keypoint; keypoints and their
scores in two lists (mmpose); columns x, y, visible (Ultralytics); with the names of the joints.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowprior.skeleton import BODY_25, COCO_17, COCO_18, SKELETONS, Skeleton

__all__ = ["is_person", "joint_set", "joint_set_named", "number_list", "person_points"]

POINT_KEYS = ("pose_keypoints_2d", "pose_keypoints", "joints", "keypoints_2d", "keypoints")
SCORE_KEYS = ("keypoint_scores", "keypoints_scores", "scores")

SETS = {skeleton.num_joints: skeleton for skeleton in (COCO_17, COCO_18, BODY_25)}
# Halpe-26, COCO-WholeBody and Halpe-136 begin with COCO's 17.
SETS |= dict.fromkeys((26, 133, 136), COCO_17)

FEWEST_NAMED = 6
"""Joints of COCO-17 that a set must name to be taken for a person's."""

PERSON_WORDS = {"person", "persons", "people", "human", "humans", "pedestrian", "man", "woman"}
PERSON_WORDS |= {"child", "boy", "girl", "adult", "player", "athlete", "body", "pose"}

_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
_SHORT = {"sho": "shoulder", "elb": "elbow", "wri": "wrist", "ank": "ankle", "wr": "wrist"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def number_list(value: object) -> NDArray[np.float64] | None:
    """A list (n,) as an array, if all of it is numbers."""
    if not isinstance(value, list) or any(
        isinstance(entry, bool) or not isinstance(entry, int | float) for entry in value
    ):
        return None
    try:
        return np.array(value, np.float64)
    except OverflowError:  # JSON's integers are of any length
        return None


def person_points(entry: object, names: Sequence[str] | None = None) -> NDArray[np.float64]:
    """The keypoints of a person.

    Args:
        entry: An object of a JSON file.
        names: Names of the keypoints, where the file has them.

    Returns:
        (K, 3) x, y and confidence.

    Raises:
        ValueError: The keypoints are missing, are not numbers, or have no confidences. The message
            is a reason for a report.
    """
    if not isinstance(entry, dict):
        raise ValueError("entry that is no object")
    value = next((entry[key] for key in POINT_KEYS if entry.get(key) is not None), None)
    if isinstance(value, dict):
        conf = value.get("visible", value.get("confidence"))
        columns = [number_list(each) for each in (value.get("x"), value.get("y"), conf)]
        if any(column is None or column.shape != np.shape(columns[0]) for column in columns):
            raise ValueError("keypoints without columns x, y and visible of one length")
        return np.stack([column for column in columns if column is not None], axis=1)
    if value is None or value == []:
        raise ValueError("no keypoints")
    scores = next((entry[key] for key in SCORE_KEYS if isinstance(entry.get(key), list)), None)
    flat, width = _flat(value)
    if flat is None:
        raise ValueError("keypoints that are not numbers")
    conf = number_list(scores)
    if conf is not None and width != 3 and len(flat) == 2 * len(conf):
        return np.column_stack([flat.reshape(-1, 2), conf])
    sizes = {*SETS, *([] if names is None else [len(names)])}
    if width in (None, 3) and len(flat) % 3 == 0 and (width or len(flat) // 3 in sizes):
        return flat.reshape(-1, 3)
    if len(flat) % 2 == 0 and (width == 2 or len(flat) // 2 in sizes):
        raise ValueError(f"{len(flat) // 2} keypoints without confidences")
    known = ", ".join(str(3 * size) for size in sorted(sizes))
    raise ValueError(f"{len(flat)} numbers, which is no known joint set ({known})")


def _flat(value: object) -> tuple[NDArray[np.float64] | None, int | None]:
    """Numbers of a list, and how many belong to a keypoint if that is a list itself."""
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
    """A joint set of `flowprior.skeleton` by its name; None and sets stay as they are.

    Raises:
        ValueError: There is no such set; the message has the names there are.
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
) -> tuple[Skeleton, NDArray[np.float64]]:
    """Find out which joints keypoints are.

    Args:
        points: (K, 3).
        names: Names of the keypoints, where the file has them. Sets other than COCO's 17 are
            mapped to those by name, with zeros for joints that they lack.
        skeleton: The set that the user says it is; otherwise the names or the number decide.

    Returns:
        The set and its keypoints (J, 3).

    Raises:
        ValueError: It is no known set. The message is a reason for a report.
    """
    count = len(points)
    if skeleton is not None:
        if count != skeleton.num_joints and SETS.get(count) is not skeleton:
            raise ValueError(f"{count} keypoints, not {skeleton.num_joints} of {skeleton.name}")
        return skeleton, points[: skeleton.num_joints]
    coco = COCO_17.joint_names
    found = [] if names is None else _canonical(names)
    if found and tuple(found[: len(coco)]) != coco:
        if len(found) != count:
            raise ValueError(f"{count} keypoints, but {len(found)} names")
        placed = np.zeros((len(coco), 3))
        shared = [joint for joint, name in enumerate(coco) if name in found]
        if len(shared) < FEWEST_NAMED:
            listed = ", ".join(list(names or ())[:3])
            raise ValueError(f"joint set that is not a person's ({listed}, ...)")
        placed[shared] = points[[found.index(coco[joint]) for joint in shared]]
        return COCO_17, placed
    known = COCO_17 if found and len(found) == count else SETS.get(count)
    if known is None:
        raise ValueError(f"{count} keypoints, which is no known joint set")
    return known, points[: known.num_joints]


def _canonical(names: Sequence[str]) -> list[str]:
    """Names of joints as `flowprior.skeleton` writes them: "left_wrist" for "LWrist", "L_Wri"."""
    found = []
    for name in names:
        words = [word.lower() for word in _WORD.findall(str(name))]
        side = [_SIDES[word] for word in words if word in _SIDES]
        rest = [_SHORT.get(word, word) for word in words if word not in _SIDES]
        found.append("_".join([*side[:1], *rest]))
    if not any(name.endswith("_ankle") for name in found):  # Human3.6M calls them feet
        found = [re.sub("_foot$", "_ankle", name) for name in found]
    return found


def is_person(category: Mapping[str, object]) -> bool:
    """Whether a category of a COCO file is people, by its name and supercategory."""
    text = f"{category.get('name', '')} {category.get('supercategory', '')}"
    return bool(PERSON_WORDS.intersection(word.lower() for word in _WORD.findall(text)))
