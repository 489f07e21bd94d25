"""The points of one hand, relative to its wrist."""

import torch
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior.body.model import BodyModel
from flowprior.prior.spaces import Rot6dSpace
from flowprior.skeleton import MANO_16, MANO_21, SMPLH_73, SMPLX_127, Skeleton

__all__ = ["hand_points"]

SIDES = ("left", "right")
JOINTS = MANO_16.num_joints - 1


def hand_points(
    body: BodyModel,
    theta: Tensor,
    betas: Tensor | None = None,
    *,
    side: str = "right",
    layout: str = "columns",
) -> Tensor:
    """Joints and fingertips of one hand, relative to the wrist and in the axes of its rotation.

    They do not depend on the rest of the body, whose pose is zero meanwhile. These are the points
    that a prior over hands takes as evidence.

    Args:
        body: A body with fingers, such as ``BodyModel(hands=True)``, SMPL-H, SMPL-X, or MANO's hand
            of this side.
        theta: (*batch, 15, k), rotations of the finger joints in MANO's order, in any form that a
            prior accepts. Zero is the flat hand.
        betas: (*batch, B) or (B,), the shape; the average one if None.
        side: ``"left"`` or ``"right"``.
        layout: Order of the six numbers of theta in 6D.

    Returns:
        (*batch, 21, 3) metres, in the order of :data:`flowprior.skeleton.MANO_21`.

    Raises:
        TypeError: If theta is not a tensor.
        ValueError: If the body has no such hand, the side is unknown, or a shape does not fit.
    """
    require_tensor("theta", theta)
    if side not in SIDES:
        raise ValueError(f"side must be one of {SIDES}, got {side!r}")
    parts = body.parts
    part = parts.get(f"{side}_hand_pose", parts.get("hand_pose"))
    if part is None:
        raise ValueError(
            f"{body.name} has no fingers; BodyModel(hands=True) has, and files of SMPL-H, SMPL-X "
            "and MANO"
        )
    matrix = Rot6dSpace(JOINTS, layout).to_matrix(theta).to(body.faces.device)
    rest = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    batch = matrix.shape[:-3]
    before = rest.expand(*batch, part.start, 3, 3)
    after = rest.expand(*batch, body.num_joints - part.stop, 3, 3)
    skeleton, joints = _points(body, side)
    points = body.keypoints(torch.cat([before, matrix, after], dim=-3), skeleton, betas)
    points = points[..., list(joints), :]
    return points - points[..., :1, :]


def _points(body: BodyModel, side: str) -> tuple[Skeleton, tuple[int, ...]]:
    """A joint set of the body that contains the hand, and the places of its 21 points."""
    for skeleton, prefix in ((MANO_21, ""), (SMPLH_73, f"{side}_"), (SMPLX_127, f"{side}_")):
        if skeleton.name in body.keypoint_sets:
            return skeleton, tuple(skeleton.index(prefix + name) for name in MANO_21.joint_names)
    raise ValueError(
        f"{body.name} does not have the surface of the official file, whose vertices are the "
        "fingertips"
    )
