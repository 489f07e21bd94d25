"""One JSON file per person: parameters of the body and uncertainty, units in the names."""

import json
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior.files.whole_file import whole_file
from flowprior.results.fits import Fits

__all__ = ["person_content", "write_person"]


def person_content(fits: Fits, row: int) -> dict[str, Any]:
    """The entries of one person; NaN becomes None.

    Args:
        fits: The fits.
        row: The person.
    """
    joints = {
        name: {
            "position_m": _listed(fits.joints[row, joint], 4),
            "std_mm": _listed(fits.joint_std_mm[row, joint], 1),
            "radius_50_mm": _listed(fits.joint_radius_50_mm[row, joint], 1),
            "radius_90_mm": _listed(fits.joint_radius_90_mm[row, joint], 1),
            "confidence": _listed(fits.joint_confidence[row, joint], 3),
            "least_certain_direction": _listed(fits.joint_direction[row, joint], 3),
            "rotation_std_deg": _listed(fits.rotation_std_deg[row, joint], 2),
            "rotation_radius_90_deg": _listed(fits.rotation_radius_90_deg[row, joint], 2),
        }
        for joint, name in enumerate(fits.kind.skeleton.joint_names)
    }
    pose = {name: _listed(getattr(fits, name)[row].reshape(-1), 7) for name in fits.kind.parts}
    hands: dict[str, Any] = {}
    if fits.hands is not None:
        hands["hands"] = dict(zip(("left", "right"), fits.hands[row].tolist(), strict=True))
        hands["flat_hand_mean"] = True
    keypoints = {
        name: _listed(fits.keypoints_2d[row, joint], 3)
        for joint, name in enumerate(fits.skeleton.joint_names)
    }
    return {
        "image": str(fits.image[row]),
        "image_path": str(fits.image_path[row]),
        "person": int(fits.person[row]),
        "status": str(fits.status[row]),
        "reprojection_px": _listed(fits.reprojection_px[row], 2),
        "log_prob_nats": _listed(fits.log_prob[row], 2),
        "camera": {
            "image_size_px": _listed(fits.image_size[row], 1),
            "focal_px": _listed(fits.focal_px[row], 2),
            "centre_px": _listed(fits.centre_px[row], 2),
        },
        "smpl": {
            "body": fits.body,
            "model_type": fits.kind.model_type,
            **pose,
            **hands,
            "betas": _listed(fits.betas[row], 6),
            "transl": _listed(fits.transl[row], 6),
        },
        "confidence_is_the_probability_within_mm": fits.confidence_distance_mm,
        "joints": joints,
        "keypoint_set": fits.keypoint_set,
        "keypoints_2d": keypoints,
    }


def write_person(path: str | os.PathLike[str], fits: Fits, row: int) -> None:
    """Write the JSON file of one person atomically.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps(person_content(fits, row), indent=1, allow_nan=False, ensure_ascii=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _listed(value: NDArray[np.floating] | np.floating | float, digits: int) -> Any:  # noqa: ANN401
    """Rounded numbers as JSON has them."""
    if isinstance(value, np.ndarray) and value.ndim:
        return [_listed(entry, digits) for entry in value]
    number = float(value)
    return round(number, digits) if math.isfinite(number) else None
