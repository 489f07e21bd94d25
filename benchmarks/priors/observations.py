"""What is known of a pose, and the misfit of a candidate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.priors.data import Kinematics, squared_angles

__all__ = ["Observation"]


@dataclass(frozen=True)
class Observation:
    """Measurements of P poses with Gaussian noise: joints, or rotations, or both.

    Attributes:
        joints: (P, 22, 3), metres, in the frame of the root.
        seen: (P, 22, 3), 1 for coordinates that were measured, 0 for others.
        joint_sigma: Standard deviation of a coordinate, metres.
        rotations: (P, 21, 3, 3).
        known: (P, 21), 1 for rotations that were measured, 0 for others.
        rotation_sigma: Standard deviation of a rotation about each axis, radians.
    """

    joints: Tensor | None = None
    seen: Tensor | None = None
    joint_sigma: float = 1.0
    rotations: Tensor | None = None
    known: Tensor | None = None
    rotation_sigma: float = 1.0

    def __len__(self) -> int:
        measured = self.joints if self.rotations is None else self.rotations
        return 0 if measured is None else len(measured)

    def misfit(self, matrix: Tensor, problem: Tensor, kinematics: Kinematics) -> Tensor:
        """Negative log-likelihood up to a constant, in nats.

        Args:
            matrix: Candidates (n, 21, 3, 3).
            problem: (n,), the pose that each candidate is for.
            kinematics: The body.

        Returns:
            (n,).
        """
        total = matrix.new_zeros(len(matrix))
        if self.joints is not None and self.seen is not None:
            away = (kinematics(matrix) - self.joints[problem]) * self.seen[problem]
            total = total + away.square().sum(dim=(-2, -1)) / (2 * self.joint_sigma**2)
        if self.rotations is not None and self.known is not None:
            squares = squared_angles(matrix, self.rotations[problem]) * self.known[problem]
            total = total + squares.sum(dim=-1) / (2 * self.rotation_sigma**2)
        return total

    def whole_joints(self) -> Tensor | None:
        """Joints (P, 22, 3) with NaN where unknown; None if only some coordinates are known."""
        if self.joints is None or self.seen is None:
            return None
        if bool((self.seen != self.seen[..., :1]).any()):
            return None
        return torch.where(self.seen > 0, self.joints, torch.nan)
