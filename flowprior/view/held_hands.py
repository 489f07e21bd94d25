"""A body with fingers under SMPL's 24 joints, for priors and controls that know no fingers."""

import torch
from torch import Tensor

from flowprior.body import BodyModel, BodyOutput
from flowprior.skeleton import SMPL_24, Skeleton

__all__ = ["BODY_JOINTS", "HeldHands", "smpl_places"]

BODY_JOINTS = 22
"""SMPL's joints without its two hands, the first ones of every body of the family."""


def smpl_places(body: BodyModel) -> list[int]:
    """The joints (24,) of a body that stand for SMPL's: the middle knuckles for its hands."""
    if body.num_joints == SMPL_24.num_joints:
        return list(range(SMPL_24.num_joints))
    knuckles = [body.joint_names.index(f"{side}_middle1") for side in ("left", "right")]
    return [*range(BODY_JOINTS), *knuckles]


class HeldHands:
    """A body with fingers that SMPL's rotations pose, while its hands, jaw and eyes stay.

    SMPL's rotations of the hands, joints 22 and 23, have no effect.

    Args:
        body: A body with fingers.
        held: (J - 22, 3, 3) rotations of its joints after the wrists.
    """

    skeleton = SMPL_24

    def __init__(self, body: BodyModel, held: Tensor) -> None:
        self.body, self.held = body, held
        self.places = smpl_places(body)

    def __call__(
        self, theta: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
    ) -> BodyOutput:
        """Joints (..., 24, 3) and vertices (..., V, 3) of matrices (..., 24, 3, 3), metres."""
        out = self.body(self._whole(theta), betas, transl)
        return BodyOutput(out.joints[..., self.places, :], out.vertices)

    def keypoints(
        self,
        theta: Tensor,
        skeleton: Skeleton | None = None,
        betas: Tensor | None = None,
        transl: Tensor | None = None,
    ) -> Tensor:
        """Keypoints (..., K, 3) of matrices (..., 24, 3, 3), metres."""
        if skeleton is SMPL_24:
            joints = self.body.keypoints(self._whole(theta), self.body.skeleton, betas, transl)
            return joints[..., self.places, :]
        return self.body.keypoints(self._whole(theta), skeleton, betas, transl)

    def _whole(self, theta: Tensor) -> Tensor:
        held = self.held.to(theta).expand(*theta.shape[:-3], -1, -1, -1)
        return torch.cat([theta[..., :BODY_JOINTS, :, :], held], dim=-3)
