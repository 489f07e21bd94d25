"""The blocks of a whole pose: their joints, what a hand reads of the arm, mirrored hands."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from flowprior import rotations
from flowprior._checks import require_tensor
from flowprior.prior.evidence import Evidence
from flowprior.prior.spaces import Rot6dSpace
from flowprior.skeleton import SMPL_24
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = ["ARM_FEATURES", "BLOCKS", "BODY_JOINTS", "HANDS", "Block", "PoseLayout"]

Block: TypeAlias = Literal["body", "left_hand", "right_hand"]
"""The name of a block."""

BLOCKS: tuple[Block, ...] = ("body", "left_hand", "right_hand")
"""The blocks of a pose, in the order of its joints."""

HANDS: tuple[Block, ...] = BLOCKS[1:]
"""The blocks that are hands."""

ARM_FEATURES = 12
"""Numbers of elbow and wrist that a hand reads."""

BODY_JOINTS = 22
"""Joints that SMPL and SMPL-H have in common; SMPL's last two are the hands."""


class PoseLayout:
    """Where the blocks are in a pose theta (..., J, 6) of SMPL-H's joints.

    Args:
        body_joints: Joints of the body, 22, or 21 without the root.
        rest_joints: Joints that the prior of the body has beside these, which are at rest.
        layout: Order of the six numbers of a rotation.
        mirrored: Hands whose prior is over the mirror images of their poses.

    Attributes:
        joints: Number J of joints.
        parts: Joints of each block.
        space: The space of whole poses.
        rest: (J, 6), the pose without rotations.
    """

    def __init__(
        self, body_joints: int, rest_joints: int, layout: str, mirrored: Sequence[str]
    ) -> None:
        self.joints = body_joints + 2 * HAND_JOINTS
        self.parts: Mapping[Block, slice] = {
            "body": slice(0, body_joints),
            "left_hand": slice(body_joints, body_joints + HAND_JOINTS),
            "right_hand": slice(body_joints + HAND_JOINTS, self.joints),
        }
        self.mirrored = tuple(mirrored)
        self.space = Rot6dSpace(self.joints, layout)
        self.rest = self.space.rest
        self._at_rest = rest_joints
        self._evidence = Evidence(("rotations",), self.space)
        shift = BODY_JOINTS - body_joints  # 1 without a root
        self._arms = {
            name: [SMPL_24.index(f"{name[:-5]}_{each}") - shift for each in ("elbow", "wrist")]
            for name in HANDS
        }

    def evidence(
        self,
        rotations: Tensor | None,
        known: Tensor | None,
        points: Mapping[str, Tensor | None],
    ) -> dict[Block, dict[str, Tensor]]:
        """What is known of each block, as its prior takes it.

        Args:
            rotations: (*batch, J, k) of whole poses, in any accepted form.
            known: (*batch, J) bool; if None, the joints without NaN.
            points: 3D points (*batch, 21, 3) of hands, by their names.

        Returns:
            Arguments of ``given`` by block; none for blocks of which nothing is known.
        """
        if known is not None and rotations is None:
            raise ValueError("known says which rotations are known, but rotations is missing")
        found: dict[Block, dict[str, Tensor]] = {name: {} for name in BLOCKS}
        if rotations is not None:
            pose, flags = self._evidence.known_rotations(rotations, known)
            for name, part in self.parts.items():
                which, some = flags[..., part], self.to_block(name, pose[..., part, :])
                if bool(which.any()):
                    if name == "body":
                        which = nn.functional.pad(which, (0, self._at_rest))
                    found[name] = {"rotations": some, "known": which}
        for name in HANDS:
            given = points.get(name)
            if given is not None:
                require_tensor(f"{name}_joints_3d", given)
                sign = given.new_tensor([-1.0, 1.0, 1.0])
                found[name]["joints_3d"] = given * sign if name in self.mirrored else given
        return found

    def to_block(self, name: Block, pose: Tensor) -> Tensor:
        """A block (..., n, 6) of theta as its prior has it: mirrored, or with joints at rest."""
        if name != "body":
            return self._mirrored(name, pose)
        rest = self.rest[: self._at_rest].to(pose)
        return torch.cat([pose, rest.expand(*pose.shape[:-2], *rest.shape)], dim=-2)

    def from_block(self, name: Block, pose: Tensor) -> Tensor:
        """The inverse of `to_block`."""
        if name != "body":
            return self._mirrored(name, pose)
        return pose[..., self.parts["body"], :]

    def hand_context(
        self, name: Block, context: Tensor | None, body: Tensor, batch: torch.Size
    ) -> Tensor:
        """The context (*batch, *extra, C + 12) of a hand, given bodies (*batch, *extra, n, 6)."""
        arm = self._mirrored(name, body[..., self._arms[name], :])
        # A rotation has one context, whatever the length of its 6D vector.
        matrix = rotations.rot6d_to_matrix(arm, self.space.layout)
        numbers = rotations.matrix_to_rot6d(matrix).flatten(-2)
        if context is None:
            return numbers
        extra, width = numbers.ndim - 1 - len(batch), context.shape[-1]
        context = context.expand(*batch, width).reshape(*batch, *(1,) * extra, width)
        return torch.cat([context.to(numbers).expand(*numbers.shape[:-1], width), numbers], dim=-1)

    def _mirrored(self, name: str, pose: Tensor) -> Tensor:
        """Hands or arms (..., n, 6), mirrored if the prior of this hand is over mirror images."""
        if name not in self.mirrored:
            return pose
        axes = torch.tensor([-1.0, 1.0, 1.0], dtype=pose.dtype, device=pose.device)
        return pose * rotations.matrix_to_rot6d(torch.outer(axes, axes), self.space.layout)
