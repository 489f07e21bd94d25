"""Points of the embedded right hand from rotations and shape, and nothing else."""

import torch
from torch import Tensor

from flowprior.body import BodyModel, hand_points
from flowprior.skeleton import MANO_16, MANO_21

__all__ = ["HandChain"]

JOINTS = MANO_16.num_joints - 1


class HandChain:
    """The 21 points of the embedded right hand, relative to the wrist.

    The fingertips are vertices of the surface, which move with the last joint of the finger alone.

    Args:
        body: The body with hands.

    Attributes:
        rest: (21, 3) points of the flat hand of average shape, metres.
        scored: Number of points.
        joints: Number of rotations.
    """

    scored = MANO_21.num_joints
    joints = JOINTS

    def __init__(self, body: BodyModel) -> None:
        flat = torch.eye(3, device=body.faces.device).expand(JOINTS, 3, 3)
        self.rest = hand_points(body, flat)
        unit = torch.eye(body.num_betas, device=body.faces.device)
        moved = hand_points(body, flat.expand(body.num_betas, JOINTS, 3, 3), unit)
        self._directions = moved - self.rest  # the flat hand is linear in the shape
        parents = [max(parent, 0) for parent in MANO_21.parents]
        self._bones = self.rest - self.rest[parents]
        self._bone_directions = self._directions - self._directions[:, parents]
        # By depth: knuckles, two further joints, tips; a finger keeps its place in each.
        tips = [MANO_21.joint_names[parent][:-1] for parent in range(1, 16, 3)]
        levels = [list(range(n, 16, 3)) for n in (1, 2, 3)]
        levels.append([MANO_21.index(name) for name in tips])
        # Tensors, because a CUDA graph cannot copy lists to the device.
        device = self.rest.device
        self._levels = [torch.tensor(level, device=device) for level in levels]
        order = torch.cat([torch.zeros(1, dtype=torch.int64, device=device), *self._levels])
        self._inverse = order.argsort()

    def __call__(self, rotation: Tensor, betas: Tensor | None = None) -> Tensor:
        """Points (N, 21, 3) in metres of rotations (N, 15, 3, 3) and shapes (N, B)."""
        bones = self._bones.expand(len(rotation), -1, 3)
        if betas is not None:
            bones = bones + torch.einsum("nb,bpc->npc", betas, self._bone_directions)
        places = [torch.zeros_like(bones[:, :1]), bones[:, self._levels[0]]]
        turned = rotation[:, self._levels[0] - 1]
        for level in self._levels[1:]:
            places.append(places[-1] + (turned @ bones[:, level, :, None])[..., 0])
            if level is not self._levels[-1]:
                turned = turned @ rotation[:, level - 1]
        return torch.cat(places, dim=1)[:, self._inverse]
