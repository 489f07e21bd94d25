"""Joints of the average body from rotations, and nothing else: the cheapest forward kinematics."""

import itertools

import torch
from torch import Tensor

from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24

__all__ = ["SCORED", "Chain"]

SCORED = 22
"""SMPL's first joints, which are scored; the last two are the hands."""


class Chain:
    """SMPL's first 22 joints of a body of average shape, relative to the pelvis.

    Joints of equal depth move together.

    Args:
        body: The body.

    Attributes:
        scored: Number of points.
        joints: Number of rotations, with the root.
    """

    scored = SCORED
    joints = SMPL_24.num_joints

    def __init__(self, body: BodyModel) -> None:
        rest = body.keypoints(torch.eye(3).expand(24, 3, 3), SMPL_24)
        parents = [max(parent, 0) for parent in SMPL_24.parents]
        offset = rest - rest[parents]
        levels: list[list[int]] = [[0]]
        while below := [j for j in range(1, SCORED) if parents[j] in levels[-1]]:
            levels.append(below)
        self._offsets = [offset[level, :, None] for level in levels[1:]]
        self._levels = [torch.tensor(level) for level in levels[1:]]
        self._above = [
            torch.tensor([upper.index(parents[joint]) for joint in lower])
            for upper, lower in itertools.pairwise(levels)
        ]
        order = [joint for level in levels for joint in level]
        self._inverse = torch.tensor(order).argsort()

    def __call__(self, rotation: Tensor) -> Tensor:
        """Joints (N, 22, 3) in metres of rotations (N, 24, 3, 3)."""
        turned = rotation[:, :1]
        place = rotation.new_zeros(len(rotation), 1, 3, 1)
        places = [place]
        for offset, level, above in zip(self._offsets, self._levels, self._above, strict=True):
            up = turned.index_select(1, above)
            place = place.index_select(1, above) + up @ offset
            turned = up @ rotation.index_select(1, level)
            places.append(place)
        return torch.cat(places, dim=1).index_select(1, self._inverse)[..., 0]
