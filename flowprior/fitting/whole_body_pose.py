"""Pose variables of a body with fingers: those of the body, then those of both hands."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting.finger_angles import NUM_ANGLES, FingerAngles, finger_angles
from flowprior.fitting.pose_variables import PoseVariables

__all__ = ["WholeBodyPose", "has_fingers"]

# SMPL's first joints are those of every body of the family; its two hands become fingers.
BODY_JOINTS = 22


def has_fingers(body: BodyModel) -> bool:
    """Whether a body has both hands with fingers: the embedded one with hands, SMPL-H, SMPL-X."""
    # Other rigs that stand in for a body have no parts by smplx's names.
    return {"left_hand_pose", "right_hand_pose"} <= set(getattr(body, "parts", ()))


@dataclass(frozen=True)
class WholeBodyPose:
    """The variables of a body of SMPL's 24 joints, followed by 22 of the left and right hand each.

    Args:
        body: The variables of the body, in any form; its hands (joints 22 and 23) are not used.
        left: The left hand.
        right: The right hand.
        num_joints: Number of joints of the whole body, 52 or 55.
        left_joints: First joint of the left hand.
        right_joints: First joint of the right hand.
    """

    body: PoseVariables
    left: FingerAngles
    right: FingerAngles
    num_joints: int
    left_joints: int
    right_joints: int

    @classmethod
    def of(cls, pose: PoseVariables, body: BodyModel, like: Tensor) -> "WholeBodyPose":
        """The variables for a body with fingers.

        Args:
            pose: The variables of the body.
            body: The body.
            like: A tensor of the dtype and on the device of the variables.

        Raises:
            ValueError: The body has no fingers.
        """
        left, right = finger_angles(body)
        parts = body.parts
        starts = (parts["left_hand_pose"].start, parts["right_hand_pose"].start)
        return cls(pose, left.to(like), right.to(like), body.num_joints, *starts)

    @property
    def hands_size(self) -> int:
        """Number of variables of both hands."""
        return 2 * NUM_ANGLES

    @property
    def size(self) -> int:
        """Number of variables per person."""
        return self.body.size + self.hands_size

    @property
    def free_root(self) -> bool:
        """As that of the body."""
        return self.body.free_root

    @property
    def kick(self) -> float:
        """As that of the body."""
        return self.body.kick

    def start(self, people: int) -> Tensor:
        """The most likely pose of the body, with hands at rest."""
        first = self.body.start(people)
        return torch.cat([first, first.new_zeros(people, self.hands_size)], dim=-1)

    def select(self, rows: Tensor) -> "WholeBodyPose":
        """The variables of the people ``rows`` (n,)."""
        return WholeBodyPose(
            self.body.select(rows),
            self.left,
            self.right,
            self.num_joints,
            self.left_joints,
            self.right_joints,
        )

    def theta(self, x: Tensor) -> Tensor:
        """Convert x (P, size) to theta (P, J, 6) in layout "columns"; jaw and eyes are at rest."""
        own, left, right = x.split((self.body.size, NUM_ANGLES, NUM_ANGLES), dim=-1)
        hands = [
            rotations.matrix_to_rot6d(hand.rotations(part))
            for hand, part in ((self.left, left), (self.right, right))
        ]
        body = self.body.theta(own)[:, :BODY_JOINTS]
        between = self.left_joints - BODY_JOINTS
        rest = rotations.matrix_to_rot6d(torch.eye(3).to(x)).expand(len(x), between, 6)
        return torch.cat([body, rest, *hands], dim=1)

    def penalty(self, x: Tensor) -> Tensor:
        """Penalty (P,) of the body, without the hands."""
        return self.body.penalty(x[:, : self.body.size])

    def hands_penalty(self, x: Tensor) -> Tensor:
        """-2 log p (P,) of the fingers of x (P, size), relative to its minimum at rest."""
        return x[:, self.body.size :].square().sum(dim=-1)
