"""Forward kinematics of a stick body with SMPL's joint tree, and its Human3.6M joints.

World frame: metres, y up; with all rotations zero the body stands in a T-pose, faces +z and has
its left side at +x. The rest pose is our own, in round numbers; its limbs point where SMPL's do, so
that rotations estimated for SMPL mean the same here.
"""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._precision import without_autocast
from flowprior.skeleton import H36M_17, SMPL_24

__all__ = ["REST_OFFSETS", "joints17_from_matrices", "joints17_from_rotations"]

REST_OFFSETS: tuple[tuple[float, float, float], ...] = (
    (0.0, 0.0, 0.0),  # pelvis
    (0.09, -0.08, 0.0),  # left_hip
    (-0.09, -0.08, 0.0),
    (0.0, 0.13, -0.02),  # spine1
    (0.045, -0.428, 0.0),  # left_knee
    (-0.045, -0.428, 0.0),
    (0.0, 0.1, 0.0),  # spine2
    (-0.015, -0.418, -0.04),  # left_ankle
    (0.015, -0.418, -0.04),
    (0.0, 0.06, 0.0),  # spine3
    (0.02, -0.06, 0.13),  # left_foot
    (-0.02, -0.06, 0.13),
    (0.0, 0.19, -0.01),  # neck
    (0.07, 0.1, -0.01),  # left_collar
    (-0.07, 0.1, -0.01),
    (0.0, 0.08, 0.03),  # head
    (0.1, 0.03, -0.01),  # left_shoulder
    (-0.1, 0.03, -0.01),
    (0.278, -0.016, -0.027),  # left_elbow
    (-0.278, -0.016, -0.027),
    (0.25, 0.01, 0.0),  # left_wrist
    (-0.25, 0.01, 0.0),
    (0.08, -0.01, 0.0),  # left_hand
    (-0.08, -0.01, 0.0),
)
"""Each joint seen from its parent in the rest pose, SMPL-24 order, metres."""

EXTRA_POINTS: dict[str, tuple[str, tuple[float, float, float]]] = {
    "thorax": ("spine3", (0.0, 0.14, -0.02)),
    "nose": ("head", (0.0, 0.03, 0.06)),
    "head": ("head", (0.0, 0.15, 0.01)),
}
"""H36M joints that SMPL lacks: the joint that carries each, and its place seen from there."""

RENAMED = {"right_foot": "right_ankle", "left_foot": "left_ankle", "spine": "spine1"}
"""H36M joints that SMPL has under another name."""


def joints17_from_rotations(rotvecs: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Pose the stick body and read its Human3.6M joints.

    Args:
        rotvecs: (..., 24, 3) rotation vectors in SMPL-24 order, the root first, in radians.
        offsets: (..., 24, 3) rest offsets in metres, broadcast against ``rotvecs``; without them
            `REST_OFFSETS`. The extra points grow with the bone they end.

    Returns:
        (..., 17, 3) joints in H36M-17 order, metres, the middle of the hips at the origin.

    Raises:
        ValueError: ``rotvecs`` is not of shape (..., 24, 3).
    """
    if rotvecs.shape[-2:] != (SMPL_24.num_joints, 3):
        raise ValueError(
            f"expected rotation vectors of shape (..., 24, 3), got {tuple(rotvecs.shape)}"
        )
    rest = rotvecs.new_tensor(REST_OFFSETS)
    offsets = rest if offsets is None else offsets.to(rotvecs)
    offsets = offsets.expand(torch.broadcast_shapes(rotvecs.shape, offsets.shape))
    with without_autocast(rotvecs.device):
        return _pose(rotations.rotvec_to_matrix(rotvecs), offsets, rest)


def joints17_from_matrices(local: Tensor) -> Tensor:
    """As `joints17_from_rotations`, for rotation matrices and the rest offsets.

    Args:
        local: (..., 24, 3, 3) rotation matrices in SMPL-24 order, the root first.

    Returns:
        (..., 17, 3) joints in H36M-17 order, metres, the middle of the hips at the origin.

    Raises:
        ValueError: ``local`` is not of shape (..., 24, 3, 3).
    """
    if local.shape[-3:] != (SMPL_24.num_joints, 3, 3):
        raise ValueError(f"expected matrices of shape (..., 24, 3, 3), got {tuple(local.shape)}")
    rest = local.new_tensor(REST_OFFSETS)
    with without_autocast(local.device):
        return _pose(local, rest.expand(*local.shape[:-3], -1, -1), rest)


def _pose(local: Tensor, offsets: Tensor, rest: Tensor) -> Tensor:
    """Rotations (..., 24, 3, 3), offsets (..., 24, 3) and rest offsets (24, 3) -> (..., 17, 3)."""
    turned = [local[..., 0, :, :]]
    joints = [torch.zeros_like(offsets[..., 0, :])]
    for parent, child in SMPL_24.bones:
        step = (turned[parent] @ offsets[..., child, :, None]).squeeze(-1)
        joints.append(joints[parent] + step)
        turned.append(turned[parent] @ local[..., child, :, :])

    index = {name: joint for joint, name in enumerate(SMPL_24.joint_names)}
    # A longer bone to the carrying joint carries longer extra points.
    size = offsets.norm(dim=-1, keepdim=True) / rest.norm(dim=-1, keepdim=True)
    hip = (joints[index["left_hip"]] + joints[index["right_hip"]]) / 2
    body = [hip]
    for name in H36M_17.joint_names[1:]:
        if name in EXTRA_POINTS:
            carrier = index[EXTRA_POINTS[name][0]]
            point = rest.new_tensor(EXTRA_POINTS[name][1])
            body.append(joints[carrier] + size[..., carrier, :] * (turned[carrier] @ point))
        else:
            body.append(joints[index[RENAMED.get(name, name)]])
    return torch.stack(body, dim=-2) - hip[..., None, :]
