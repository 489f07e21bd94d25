"""Plausibility of detected people: no bone may look much longer than the others allow."""

import numpy as np
from numpy.typing import NDArray

from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import Skeleton

__all__ = ["implausible_people"]

# Lengths of an adult, metres, between joints by their meaning; each also holds for the right side.
_LENGTHS_M = {
    ("nose", "left_eye"): 0.06,
    ("left_eye", "left_ear"): 0.11,
    ("left_shoulder", "left_elbow"): 0.30,
    ("left_elbow", "left_wrist"): 0.26,
    ("left_shoulder", "left_hip"): 0.52,
    ("left_hip", "left_knee"): 0.43,
    ("left_knee", "left_ankle"): 0.42,
    ("left_shoulder", "right_shoulder"): 0.38,
    ("left_hip", "right_hip"): 0.26,
}
_FEWEST_BONES = 6
_NOISE = 0.03  # of the extent of the person
_MOST = 5.0


def implausible_people(
    keypoints: NDArray[np.floating], skeleton: Skeleton
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find people whose keypoints are hardly in the order of a joint set.

    Projection shortens bones, but hardly lengthens them. So the apparent scale of a bone,
    pixels by metres, cannot exceed that of most others by much; it does where an ankle is taken for
    an eye. Bones that differ by less than the noise of a detector count as none.

    Args:
        keypoints: (N, J, 3) pixels and confidence.
        skeleton: The J joints.

    Returns:
        Which people are implausible, (N,), and of which enough bones are seen to tell, (N,).
    """
    ends, lengths = _bones(skeleton)
    few = np.zeros(len(keypoints), np.bool_)
    if len(ends) < _FEWEST_BONES or not len(keypoints):
        return few, few
    seen = keypoints[..., 2] > LEAST_CONF
    xy = np.where(seen[..., None], keypoints[..., :2], np.nan).astype(np.float64)
    known = np.asarray(seen[:, ends].all(axis=-1))  # (N, bones)
    told = np.asarray(known.sum(axis=1) >= _FEWEST_BONES)
    implausible = few.copy()
    if told.any():
        xy, known = xy[told], known[told]
        extent = (np.nanmax(xy, axis=1) - np.nanmin(xy, axis=1)).max(axis=1)
        apparent = np.linalg.norm(xy[:, ends[:, 0]] - xy[:, ends[:, 1]], axis=-1)
        noise = _NOISE * extent[:, None]
        scale = np.where(known, np.maximum(apparent - noise, 0) / lengths, np.nan)
        typical = np.maximum(np.nanmedian(scale, axis=1), noise[:, 0])
        implausible[told] = np.nanmax(scale, axis=1) > _MOST * typical
    return implausible, told


def _bones(skeleton: Skeleton) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Pairs of joints (bones, 2) that the set has, and their lengths (bones,) in metres."""
    place = {meaning: joint for joint, meaning in enumerate(skeleton.meanings)}
    found: dict[tuple[int, int], float] = {}
    for pair, length in _LENGTHS_M.items():
        for side in ("left", "right"):
            one, other = (_on(name, side) for name in pair)
            if one in place and other in place:
                joints = sorted((place[one], place[other]))
                found[joints[0], joints[1]] = length
    return np.array(list(found), np.intp).reshape(-1, 2), np.array(list(found.values()))


def _on(name: str, side: str) -> str:
    """The joint of a pair named for the left, on a side."""
    if side == "left":
        return name
    swapped = {"left": "right", "right": "left"}
    first, _, rest = name.partition("_")
    return f"{swapped[first]}_{rest}" if first in swapped else name
