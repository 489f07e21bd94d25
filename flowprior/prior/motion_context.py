"""What a motion prior knows of the next pose, as numbers, and the pose it expects."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowprior import rotations
from flowprior._checks import require_count, require_tensor
from flowprior._precision import at_least_float32
from flowprior.flow.conditioner import ResidualBlock
from flowprior.prior.evidence import Evidence
from flowprior.prior.spaces import So3Space

__all__ = ["MotionContext", "MotionHead", "Past"]

REFERENCE_FPS = 30.0
# Typical sizes, which bring the numbers of a context and the corrections near one.
SPEED = 3.0  # radians per second
CORRECTION = 0.03  # radians, at the reference rate


class Past(NamedTuple):
    r"""The last two poses, and how fast they turn.

    Attributes:
        last: Rotations (\*batch, J, 3, 3) of the last pose.
        velocity: (\*batch, J, 3) radians per second in the axes of each joint; 0 where unknown.
        moving: (\*batch,) bool, whether the velocity is known.
        seconds: Time from one pose to the next.
    """

    last: Tensor
    velocity: Tensor
    moving: Tensor
    seconds: float


class MotionContext:
    """Converts two poses and evidence about the next one to the context of a motion prior.

    The numbers do not depend on the axes of the first joint's rotation: velocities are in the axes
    of each joint, and the direction up, and 3D joints, in those of the root. Only 2D keypoints are
    seen from a camera, so the orientation of the root follows them.

    Args:
        space: The pose space.
        kinds: Kinds of evidence, ``"keypoints_2d"`` and ``"joints_3d"``, or none.
        rest_joints: Joints that are at rest.

    Raises:
        ValueError: If a kind is unknown or does not fit the space.
    """

    def __init__(
        self, space: So3Space, kinds: tuple[str, ...], rest_joints: tuple[int, ...]
    ) -> None:
        if "rotations" in kinds:
            raise ValueError("a motion prior takes keypoints_2d and joints_3d as evidence")
        self.space = space
        self.evidence = Evidence(kinds, space) if kinds else None
        self.moving = [joint for joint in range(space.joints) if joint not in rest_joints]

    @property
    def features(self) -> int:
        """Width C of the context."""
        moving = len(self.moving)
        width = 3 * moving + 1 + 6 * (moving - 1) + 4 + 1
        if self.evidence is not None:
            width += self.evidence.context_features
            width += 7 if "keypoints_2d" in self.evidence.kinds else 0
        return width

    def past(self, previous: Tensor, fps: float, like: Tensor) -> Past:
        """Read poses (*batch, 1 or 2, J, k), the last one last, in any form of the space.

        Raises:
            ValueError: If the shape is another one, or the last pose holds NaN or infinity.
        """
        require_tensor("previous", previous)
        pose = at_least_float32(self.space.as_pose(previous)).to(like)
        if pose.ndim < 3 or pose.shape[-3] not in (1, 2):
            raise ValueError(
                f"previous must be the last one or two poses, (..., 2, {self.space.joints}, k), "
                f"the last one last, got {tuple(previous.shape)}"
            )
        if not bool(pose[..., -1, :, :].isfinite().all()):
            raise ValueError("the last pose holds NaN or infinity; only the one before may be NaN")
        last = self.space.to_matrix(pose[..., -1, :, :])
        moving = torch.zeros(last.shape[:-3], dtype=torch.bool, device=last.device)
        velocity = last.new_zeros(last.shape[:-1])
        if pose.shape[-3] == 2:
            before = pose[..., 0, :, :]
            moving = before.isfinite().flatten(start_dim=-2).all(dim=-1)
            flags = moving[..., None, None]
            before = self.space.to_matrix(torch.where(flags, before, pose[..., 1, :, :]))
            # A rotation of exactly nothing has no gradient that matters.
            velocity = torch.where(flags, rotations.matrix_to_rotvec(before.mT @ last) * fps, 0)
        return Past(last, velocity, moving, 1 / fps)

    def numbers(
        self,
        past: Past,
        up: Tensor | None = None,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
    ) -> Tensor:
        """The context.

        Args:
            past: The last two poses, of batch shape (*batch,).
            up: (3,) or (*batch, 3), the direction against gravity in the axes of the poses, NaN
                where unknown; None if it is.
            keypoints_2d: (*batch, 17 or 25, 3) of the next pose, as for
                :meth:`flowprior.prior.Evidence.context`.
            joints_3d: (*batch, 24, 3) of the next pose.

        Returns:
            (*batch, C).

        Raises:
            ValueError: If a shape does not fit or the prior was not trained with a kind.
        """
        last, batch = past.last, past.last.shape[:-3]
        root = last[..., 0, :, :]
        own = last[..., self.moving[1:], :, :]
        parts = [
            (past.velocity[..., self.moving, :] / SPEED).flatten(start_dim=-2),
            past.moving[..., None].to(last),
            rotations.matrix_to_rot6d(own).flatten(start_dim=-2),
            self._gravity(up, root),
            last.new_full((*batch, 1), math.log(past.seconds * REFERENCE_FPS)),
        ]
        given = {"keypoints_2d": keypoints_2d, "joints_3d": joints_3d}
        told = {name: value.to(last) for name, value in given.items() if value is not None}
        if self.evidence is None:
            if told:
                raise ValueError(f"this prior was not trained with {' and '.join(told)}")
            return torch.cat(parts, dim=-1)
        if "joints_3d" in told:
            told["joints_3d"] = told["joints_3d"] @ root
        context = self.evidence.context(**told)
        parts.append(context.to(last).expand(*batch, context.shape[-1]))
        if "keypoints_2d" in self.evidence.kinds:
            seen = (context[..., 2 : 3 * 17 : 3].amax(dim=-1, keepdim=True) > 0).to(last)
            turned = torch.cat(
                [rotations.matrix_to_rot6d(root), torch.ones_like(root[..., 0, :1])], -1
            )
            parts.append(turned * seen)
        return torch.cat(parts, dim=-1)

    def _gravity(self, up: Tensor | None, root: Tensor) -> Tensor:
        if up is None:
            return root.new_zeros(*root.shape[:-2], 4)
        require_tensor("up", up)
        if up.shape[-1:] != (3,):
            raise ValueError(f"up must be a direction (3,) or (..., 3), got {tuple(up.shape)}")
        up = up.to(root)
        known = up.isfinite().all(dim=-1, keepdim=True)
        unit = torch.where(known, up, 0)
        unit = unit / unit.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        own = (root.mT @ unit[..., None])[..., 0]
        return torch.cat([own, known.to(root).expand(*own.shape[:-1], 1)], dim=-1)


class MotionHead(nn.Module):
    """The pose that follows: the last one, turned on at its velocity, with a learned correction.

    An untrained head returns motion at constant velocity.

    Args:
        context_features: Width C of the context.
        joints: Number of joints J.
        moving: The joints that are not at rest.
        hidden_features: Width of the network.
        num_blocks: Number of residual blocks, two linear layers each.
    """

    def __init__(
        self,
        context_features: int,
        joints: int,
        moving: list[int],
        hidden_features: int,
        num_blocks: int = 1,
    ) -> None:
        super().__init__()
        require_count("head_features", hidden_features, 1)
        self.joints, self.moving = joints, moving
        self.input = nn.Linear(context_features, hidden_features)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_features, batch_norm=False, dropout=0.0) for _ in range(num_blocks)
        )
        self.output = nn.Linear(hidden_features, 3 * len(moving), bias=False)
        self.direct = nn.Linear(context_features, 3 * len(moving), bias=False)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.direct.weight)

    def forward(self, context: Tensor, past: Past) -> Tensor:
        """Turns (*batch, J, 3) from the last pose to the expected one, in the axes of each joint.

        Args:
            context: (*batch, C).
            past: The last two poses.
        """
        return past.velocity * past.seconds + self.correction(context, past.seconds)

    def correction(self, context: Tensor, seconds: float) -> Tensor:
        """What is added to the turn at constant velocity, (*batch, J, 3) radians."""
        flat = context.reshape(-1, context.shape[-1])
        rows = self.input(flat)
        for block in self.blocks:
            rows = block(rows)
        # Changes of the velocity grow with the time, and the turn with their duration.
        scale = CORRECTION * (seconds * REFERENCE_FPS) ** 1.5
        moved = scale * (self.output(rows.relu()) + self.direct(flat))
        result = moved.new_zeros(len(moved), self.joints, 3)
        result[:, self.moving] = moved.unflatten(-1, (-1, 3))
        return result.reshape(*context.shape[:-1], self.joints, 3)
