"""Poses of the contest: the rotations of SMPL's body joints without root and hands."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.data.augment import mirror_rotvecs
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24

__all__ = [
    "JOINTS",
    "ROTATION_NOISE",
    "Kinematics",
    "Poses",
    "Stream",
    "jittered",
    "load",
    "squared_angles",
]

JOINTS = 21
"""Number of rotations of a pose: SMPL's joints 1 to 21, without the root and the hands at rest."""

ROTATION_NOISE = math.radians(1.0)
"""Standard deviation about each axis, because exact hinges have no finite density."""


@dataclass(frozen=True)
class Poses:
    """Poses of some subjects.

    Attributes:
        matrix: (N, 21, 3, 3).
        subject: (N,), number of the subject.
    """

    matrix: Tensor
    subject: Tensor

    def __len__(self) -> int:
        return len(self.matrix)

    def evenly(self, count: int) -> Tensor:
        """Poses (count, 21, 3, 3), spread evenly over the frames, and so over the subjects."""
        return self.matrix[torch.linspace(0, len(self) - 1, count).round().long()]


def load(path: Path) -> dict[str, Poses]:
    """Read the three parts of the motion capture file, which share no subject.

    Returns:
        "train" with every pose and its mirror image, "val" and "test".
    """
    with np.load(path, allow_pickle=False) as file:
        rotvecs = torch.from_numpy(file["poses"]).reshape(-1, SMPL_24.num_joints, 3)
        split = torch.from_numpy(file["split"])
        subject = torch.from_numpy(file["subject"]).long()
    parts = {}
    for code, name in enumerate(("train", "val", "test")):
        chosen, whose = rotvecs[split == code], subject[split == code]
        if name == "train":
            chosen, whose = torch.cat((chosen, mirror_rotvecs(chosen))), whose.repeat(2)
        parts[name] = Poses(rotations.rotvec_to_matrix(chosen[:, 1 : 1 + JOINTS]), whose)
    return parts


def jittered(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """Poses (..., 21, 3, 3) with the noise of training and of densities."""
    noise = torch.randn((*matrix.shape[:-2], 3), generator=generator)
    return matrix @ rotations.rotvec_to_matrix(ROTATION_NOISE * noise)


class Stream:
    """Training poses, drawn at random with a little noise.

    Args:
        matrix: (N, 21, 3, 3).
        generator: Source of randomness.
    """

    def __init__(self, matrix: Tensor, generator: torch.Generator) -> None:
        self.matrix = matrix
        self.generator = generator

    def batch(self, count: int) -> Tensor:
        """Poses (count, 21, 3, 3)."""
        rows = torch.randint(len(self.matrix), (count,), generator=self.generator)
        return jittered(self.matrix[rows], self.generator)


class Kinematics:
    """Joints of the embedded body with its average shape, in the frame of the root."""

    def __init__(self) -> None:
        self._body = BodyModel()

    def __call__(self, matrix: Tensor) -> Tensor:
        """Joints of poses.

        Args:
            matrix: (..., 21, 3, 3).

        Returns:
            SMPL's first 22 joints (..., 22, 3), metres; the pelvis is the origin.
        """
        identity = torch.eye(3, dtype=matrix.dtype)
        root = identity.expand(*matrix.shape[:-3], 1, 3, 3)
        hands = identity.expand(*matrix.shape[:-3], 2, 3, 3)
        joints = self._body.keypoints(torch.cat((root, matrix, hands), dim=-3), SMPL_24)
        return joints[..., : 1 + JOINTS, :] - joints[..., :1, :]


def squared_angles(first: Tensor, second: Tensor) -> Tensor:
    """Squared angles between rotations (..., 3, 3), radians squared, differentiable everywhere."""
    return rotations.matrix_to_rotvec(first.mT @ second).square().sum(dim=-1)


def log_haar(vectors: Tensor) -> Tensor:
    """Logarithm of Haar measure of mass 1 per volume of rotation vectors (..., 3), (...)."""
    angle = vectors.norm(dim=-1).clamp(min=1e-3)
    return (2 * (angle / 2).sin().square() / (2 * math.pi * angle).square()).log()
