"""Plausibility of detected people: no bone may appear much longer than the others allow."""

import numpy as np
from numpy.typing import NDArray

from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import Skeleton

__all__ = ["limb_disproportion"]

# Bone lengths of an adult in metres; each also holds for the right side.
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


def limb_disproportion(keypoints: NDArray[np.floating], skeleton: Skeleton) -> NDArray[np.float64]:
    """Measure how implausible the limbs of people are for a joint set.

    Projection shortens bones, but hardly lengthens them. So the apparent scale of a bone, in pixels
    per metre, cannot exceed that of most others by much, unless an ankle is read as an eye.

    Args:
        keypoints: (N, J, 3) pixels and confidence.
        skeleton: The J joints.

    Returns:
        (N,) largest apparent scale of a bone in units of the median one, 1 to 3 for most people in
        the right order; NaN if too few bones are visible.
    """
    ends, lengths = _bones(skeleton)
    found = np.full(len(keypoints), np.nan)
    if len(ends) < _FEWEST_BONES:
        return found
    seen = keypoints[..., 2] > LEAST_CONF
    known = np.asarray(seen[:, ends].all(axis=-1))  # (N, bones)
    told = known.sum(axis=1) >= _FEWEST_BONES
    if not told.any():
        return found
    xy = np.where(seen[..., None], keypoints[..., :2], np.nan)[told].astype(np.float64)
    extent = (np.nanmax(xy, axis=1) - np.nanmin(xy, axis=1)).max(axis=1)
    apparent = np.linalg.norm(xy[:, ends[:, 0]] - xy[:, ends[:, 1]], axis=-1)
    noise = _NOISE * extent[:, None]  # detector noise; lengths within it count as zero
    scale = np.where(known[told], np.maximum(apparent - noise, 0) / lengths, np.nan)
    typical = np.maximum(np.nanmedian(scale, axis=1), noise[:, 0])
    found[told] = np.nanmax(scale, axis=1) / np.maximum(typical, 1e-12)
    return found


def _bones(skeleton: Skeleton) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Bones (bones, 2) of the joint set, and their lengths (bones,) in metres."""
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
