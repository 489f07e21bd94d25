"""Bodies of sequences for the page: one shape per track, and the rotations of each frame.

The page poses them itself, so a frame takes kilobytes and not the vertices of all its samples.
"""

import base64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowprior.body import BodyModel
from flowprior.results import Fits
from flowprior.rotations import matrix_to_rotvec, rotvec_to_matrix

__all__ = ["REST_STEP_M", "TURN_STEP", "can_pose", "packed_rotations", "skin_data"]

REST_STEP_M = 0.0001
"""Resolution of rest positions, metres."""
TURN_STEP = float(np.pi) / 32767
"""Resolution of rotation vectors, radians."""
_WEIGHT = 65535


def can_pose(fits: Fits, body: BodyModel) -> bool:
    """Whether the page can pose the body: a sequence, with a surface that only joints move."""
    return fits.fps is not None and not body.has_pose_offsets


@torch.no_grad()
def skin_data(fits: Fits, body: BodyModel) -> dict[str, Any]:
    """What all frames share, as JSON holds it.

    Args:
        fits: The people of a sequence.
        body: Their body.

    Returns:
        The joints of each vertex with their weights, and the rest pose of each track.
    """
    weights = body.lbs_weights.cpu().numpy()
    count = int((weights > 0).sum(axis=1).max())
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(weights, joints, axis=1)
    kept = kept / kept.sum(axis=1, keepdims=True)
    still = torch.eye(3).expand(1, body.num_joints, 3, 3).to(body.faces.device)
    tracks = {}
    for number in np.unique(fits.person).tolist():
        betas = torch.from_numpy(fits.betas[fits.person == number][0]).to(body.faces.device)
        rest = body(still, betas)
        tracks[str(number)] = {
            "vertices": _packed(rest.vertices[0].cpu().numpy() / REST_STEP_M, "<i2"),
            "joints": np.round(rest.joints[0].cpu().numpy().astype(np.float64), 5).tolist(),
        }
    return {
        "influences": count,
        "joints": _packed(joints, "u1"),
        "weights": _packed(kept * _WEIGHT, "<u2"),
        "weight": _WEIGHT,
        "rest_step_m": REST_STEP_M,
        "turn_step": TURN_STEP,
        "tracks": tracks,
    }


def packed_rotations(rotations: NDArray[np.floating]) -> str:
    """Rotation vectors (P, J, 3) as base64 of 16-bit numbers."""
    vectors = torch.from_numpy(np.ascontiguousarray(rotations))
    shortest = matrix_to_rotvec(rotvec_to_matrix(vectors)).numpy()
    return _packed(np.clip(shortest / TURN_STEP, -32767, 32767), "<i2")


def _packed(values: NDArray[Any], kind: str) -> str:
    whole = np.rint(np.asarray(values, np.float64)).astype(kind)
    return base64.b64encode(whole.tobytes()).decode("ascii")
