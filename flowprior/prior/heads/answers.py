"""Answers of regressors, converted to the centre of a prior.

``prior(context, centre=theta_hat)`` takes rotation matrices (..., J, 3, 3). Regressors return them
in several forms; for one that returns matrices in two parts, join them with
:func:`theta_from_parts`, for 6D vectors or rotation vectors use the functions named so.
"""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_tensor
from flowprior.skeleton import SMPL_24

__all__ = [
    "context_with_answer",
    "theta_from_parts",
    "theta_from_rot6d",
    "theta_from_rotvec",
    "to_smpl_24",
]

SMPL_HANDS = (22, 23)
# SMPL-X and SMPL-H share SMPL's joints 0 to 21; then come the hands, and the jaw and eyes.
SHARED_JOINTS = 22
SMPL_FAMILY = {
    22: "the body of SMPL-X or SMPL-H",
    24: "SMPL",
    52: "SMPL-H",
    53: "SMPL-X without its eyes",
    55: "SMPL-X",
}


def theta_from_parts(global_orient: Tensor, body_pose: Tensor) -> Tensor:
    """Join the root and the other joints of SMPL.

    Args:
        global_orient: (..., 1, 3, 3) or (..., 3, 3).
        body_pose: (..., K, 3, 3).

    Returns:
        (..., K + 1, 3, 3).

    Raises:
        ValueError: If a part is not rotation matrices, or their batches differ.
    """
    for name, value in (("global_orient", global_orient), ("body_pose", body_pose)):
        require_tensor(name, value)
        if value.ndim < 2 or value.shape[-2:] != (3, 3):
            raise ValueError(
                f"{name} must be rotation matrices (..., 3, 3), got {tuple(value.shape)}: convert "
                "6D vectors with theta_from_rot6d, rotation vectors with theta_from_rotvec"
            )
    if global_orient.ndim == body_pose.ndim - 1:
        global_orient = global_orient.unsqueeze(-3)
    if global_orient.shape[:-3] != body_pose.shape[:-3]:
        raise ValueError(
            f"global_orient {tuple(global_orient.shape)} and body_pose {tuple(body_pose.shape)} "
            "have different batches"
        )
    return torch.cat((global_orient, body_pose), dim=-3)


def theta_from_rot6d(x: Tensor, layout: str) -> Tensor:
    """Convert 6D vectors, also those a network returns before they are orthonormal.

    Args:
        x: (..., J, 6) or flat (..., 6 J) with J above 1.
        layout: One of :data:`flowprior.rotations.LAYOUTS`. There is no default, because a wrong
            layout raises no error; :data:`REGRESSORS` has that of each regressor.

    Returns:
        (..., J, 3, 3).

    Raises:
        ValueError: If the width is not a multiple of 6, or the layout is unknown.
    """
    return rotations.rot6d_to_matrix(_by_joint("6D vectors", x, 6), layout)


def theta_from_rotvec(x: Tensor) -> Tensor:
    """Convert rotation vectors in radians.

    Args:
        x: (..., J, 3) or flat (..., 3 J) with J above 1.

    Returns:
        (..., J, 3, 3).

    Raises:
        ValueError: If the width is not a multiple of 3.
    """
    return rotations.rotvec_to_matrix(_by_joint("rotation vectors", x, 3))


def to_smpl_24(theta: Tensor) -> Tensor:
    """SMPL's 24 rotations of a pose of the SMPL family, the hands at rest unless SMPL's.

    SMPL-X and SMPL-H have the same first 22 joints. Their wrists and fingers stand for SMPL's
    hands, which are set to the identity: use ``rest_joints=(22, 23)`` with them.

    Args:
        theta: (..., J, 3, 3) with J 22, 24, 52, 53 or 55.

    Returns:
        (..., 24, 3, 3).

    Raises:
        ValueError: If theta has another number of joints.
    """
    require_tensor("theta", theta)
    joints = theta.shape[-3] if theta.ndim >= 3 and theta.shape[-2:] == (3, 3) else 0
    if joints not in SMPL_FAMILY:
        known = ", ".join(f"{number} ({name})" for number, name in SMPL_FAMILY.items())
        raise ValueError(
            f"theta must be (..., J, 3, 3) with J one of {known}, got {tuple(theta.shape)}"
        )
    if joints == SMPL_24.num_joints:
        return theta
    body = theta[..., :SHARED_JOINTS, :, :]
    rest = torch.eye(3, dtype=theta.dtype, device=theta.device)
    hands = rest.expand(*theta.shape[:-3], len(SMPL_HANDS), 3, 3)
    return torch.cat((body, hands), dim=-3)


def context_with_answer(features: Tensor, centre: Tensor) -> Tensor:
    """A context that contains the answer beside the features, for a prior around that answer.

    Errors of a regressor depend on the pose it has answered, so the answer tells the flow more
    than the features alone.

    Args:
        features: (*batch, C).
        centre: (*batch, J, 3, 3) rotation matrices or (*batch, J, 3) points, the regressor's
            answer.

    Returns:
        (*batch, C + 6 J) or (*batch, C + 3 J), in the dtype of the centre: the features, and the
        first two columns of each matrix or the coordinates of each point.

    Raises:
        ValueError: If the batches differ.
    """
    require_tensor("features", features)
    require_tensor("centre", centre)
    event = 3 if centre.shape[-2:] == (3, 3) and centre.ndim - features.ndim == 2 else 2
    if event == 3:
        answer = rotations.matrix_to_rot6d(centre).flatten(start_dim=-2)
    else:
        answer = centre.flatten(start_dim=-2)
    if answer.shape[:-1] != features.shape[:-1]:
        raise ValueError(
            f"features {tuple(features.shape)} and centre {tuple(centre.shape)} have different "
            "batches"
        )
    return torch.cat((features.to(answer), answer), dim=-1)


def _by_joint(what: str, x: Tensor, width: int) -> Tensor:
    """Vectors (..., J, width) of (..., J, width) or (..., J * width)."""
    require_tensor("x", x)
    numbers = x.shape[-1] if x.ndim else 0
    if numbers == width:
        return x
    if not numbers or numbers % width:
        raise ValueError(
            f"{what} must be (..., J, {width}) or flat (..., {width} J), got {tuple(x.shape)}"
        )
    return x.unflatten(-1, (-1, width))
