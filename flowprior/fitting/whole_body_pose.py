"""Pose variables of a body with fingers: those of the body, then those of both hands."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import Body
from flowprior.fitting.hand_pose import HandPose, both_hands
from flowprior.fitting.pose_variables import PoseVariables
from flowprior.prior.uncertainty import places_on
from flowprior.skeleton import SMPLH_52, Skeleton, shared_joints
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = ["WholeBodyPose", "hand_joints", "has_fingers", "parts_of", "theta_on"]

# SMPL's first joints are those of every body of the family; its two hands become fingers.
BODY_JOINTS = 22


def hand_joints(body: Body) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The finger joints that a body has, left and right, in MANO's order; none without fingers."""
    ours, theirs = shared_joints(SMPLH_52, body.skeleton)
    place = dict(zip(ours, theirs, strict=True))
    starts = (BODY_JOINTS, BODY_JOINTS + HAND_JOINTS)
    left, right = (
        tuple(place[joint] for joint in range(start, start + HAND_JOINTS) if joint in place)
        for start in starts
    )
    return left, right


def has_fingers(body: Body) -> bool:
    """Whether a body has all joints of both hands, as the embedded one with hands and SMPL-H."""
    return all(len(joints) == HAND_JOINTS for joints in hand_joints(body))


def parts_of(body: Body) -> Mapping[str, slice]:
    """Joints of each part of a pose by smplx's names; of other rigs, the root and the rest."""
    own: Mapping[str, slice] | None = getattr(body, "parts", None)
    rest = slice(1, body.num_joints)
    return {"global_orient": slice(0, 1), "body_pose": rest} if own is None else own


def theta_on(theta: Tensor, skeleton: Skeleton) -> Tensor:
    """Theta (P, J, 6) of SMPL's or SMPL-H's joints as that of a body (P, B, 6), others at rest."""
    source, target = places_on(theta.shape[1], skeleton)
    count = skeleton.num_joints
    if source == target == tuple(range(count)):
        return theta
    rest = rotations.matrix_to_rot6d(torch.eye(3).to(theta))
    whole = rest.expand(len(theta), count, 6).clone()
    whole[:, list(target)] = theta[:, list(source)]
    return whole


@dataclass(frozen=True)
class WholeBodyPose:
    """The variables of a body of SMPL's 24 joints, followed by those of the left and right hand.

    Args:
        body: The variables of the body, in any form; its hands (joints 22 and 23) are not used.
        left: The left hand.
        right: The right hand.
    """

    body: PoseVariables
    left: HandPose
    right: HandPose

    @property
    def size(self) -> int:
        """Number of variables per person."""
        return self.body.size + self.left.size + self.right.size

    @property
    def hands(self) -> dict[str, tuple[slice, HandPose]]:
        """The places of the variables of "left_hand" and "right_hand", and what they mean."""
        between = self.body.size + self.left.size
        return {
            "left_hand": (slice(self.body.size, between), self.left),
            "right_hand": (slice(between, self.size), self.right),
        }

    @property
    def free_root(self) -> bool:
        """As that of the body."""
        return self.body.free_root

    @property
    def kick(self) -> float:
        """As that of the body."""
        return self.body.kick

    def start(self, people: int) -> Tensor:
        """The most likely pose of the body, and the most likely hands."""
        return torch.cat([each.start(people) for each in (self.body, self.left, self.right)], -1)

    def select(self, rows: Tensor) -> "WholeBodyPose":
        """The variables of the people ``rows`` (n,)."""
        return WholeBodyPose(
            self.body.select(rows), self.left.select(rows), self.right.select(rows)
        )

    def theta(self, x: Tensor) -> Tensor:
        """Convert x (P, size) to theta (P, 52, 6) of SMPL-H's joints in layout "columns"."""
        own, left, right = x.split((self.body.size, self.left.size, self.right.size), dim=-1)
        hands = both_hands(self.left, left, self.right, right)
        return torch.cat([self.body.theta(own)[:, :BODY_JOINTS], *hands], dim=1)

    def penalty(self, x: Tensor) -> Tensor:
        """Penalty (P,) of the body, without the hands."""
        return self.body.penalty(x[:, : self.body.size])

    def hands_penalty(self, x: Tensor) -> Tensor:
        """-2 log p (P,) of the fingers of x (P, size), relative to its value at the start."""
        left, right = (hand.penalty(x[:, place]) for place, hand in self.hands.values())
        return left + right
