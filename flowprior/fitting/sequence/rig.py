"""Points that move with the joints of a body, with their derivatives in closed form."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowprior.body import BodyModel
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import SMPL_24, Skeleton

__all__ = ["PointRig", "Posed", "rig_of"]

JOINTS = SMPL_24.num_joints


@dataclass(frozen=True)
class PointRig:
    r"""K points that follow the joints of SMPL's tree, linear in the shape.

    A point is :math:`p_k = o + \sum_j G_j a_{kj}` with the global rotations G of the joints: linear
    blend skinning of vertices, and linear combinations of vertices and joints, have this form.

    Args:
        origin: (1 + S, 3) metres: o of the average shape, and per unit of each shape coefficient.
        arms: (1 + S, K, 24, 3) metres: the vectors a at rest, in the same way.
        skeleton: The joint set of the points; None for points without names.
    """

    origin: Tensor
    arms: Tensor
    skeleton: Skeleton | None = None

    def __post_init__(self) -> None:
        shapes = len(self.origin)
        if self.origin.shape != (shapes, 3) or (
            self.arms.shape != (shapes, self.arms.shape[1], JOINTS, 3)
        ):
            raise ValueError(
                "a rig needs origin (1 + S, 3) and arms (1 + S, K, 24, 3), got "
                f"{tuple(self.origin.shape)} and {tuple(self.arms.shape)}"
            )

    @property
    def num_shapes(self) -> int:
        """Number S of shape coefficients."""
        return len(self.origin) - 1

    @property
    def num_points(self) -> int:
        """Number K of points."""
        return self.arms.shape[1]

    def to(self, like: Tensor) -> "PointRig":
        """The rig in the dtype and on the device of a tensor."""
        return PointRig(self.origin.to(like), self.arms.to(like), self.skeleton)

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Indices of the joints that a point is attached to."""
        return tuple((self.arms != 0).any(dim=-1).any(dim=0).any(dim=0).nonzero()[:, 0].tolist())

    def pose(self, rotation: Tensor, shape: Tensor) -> "Posed":
        """Pose the points.

        Args:
            rotation: (..., 24, 3, 3) rotations relative to the parent.
            shape: (..., S), broadcasting against the leading axes.

        Returns:
            The posed points, (..., K, 3).
        """
        turned = global_rotations(rotation)[..., self.used, :, :]
        one = torch.cat([shape.new_ones(*shape.shape[:-1], 1), shape], dim=-1)
        arms = torch.einsum("...s,skjc->...kjc", one, self.arms[:, :, self.used])
        part = torch.einsum("...jab,...kjb->...kja", turned, arms)
        origin = one @ self.origin
        return Posed(self, turned, part, part.sum(dim=-2) + origin[..., None, :])


@dataclass(frozen=True)
class Posed:
    """A posed rig.

    Args:
        rig: The rig.
        turned: (..., U, 3, 3) global rotations of the joints that points are attached to.
        part: (..., K, U, 3) the part of each of these joints in each point.
        points: (..., K, 3) metres.
    """

    rig: PointRig
    turned: Tensor
    part: Tensor
    points: Tensor

    def rotation_jacobian(self, rotation: Tensor, joints: Sequence[int]) -> Tensor:
        """Derivatives with respect to d in R exp(d) of some joints.

        Args:
            rotation: (..., 24, 3, 3) as for :meth:`PointRig.pose`.
            joints: M joints.

        Returns:
            (..., 3 K, 3 M).
        """
        below = descendants()[list(self.rig.used)][:, list(joints)].to(self.part)
        lever = torch.einsum("...kuc,um->...kmc", self.part, below)
        axes = global_rotations(rotation)[..., list(joints), :, :].mT  # rows: the turned axes
        # Component by component, which is several times as fast as torch.linalg.cross.
        x, y, z = (part[..., None, :, :] for part in axes.unbind(dim=-1))
        u, v, w = (part[..., None] for part in lever.unbind(dim=-1))
        crossed = torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim=-3)
        return crossed.flatten(start_dim=-2).flatten(start_dim=-3, end_dim=-2)

    def shape_jacobian(self) -> Tensor:
        """Derivatives (..., 3 K, S) of the points with respect to the shape."""
        arms = self.rig.arms[1:][:, :, self.rig.used]
        columns = torch.einsum("...jab,skjb->...kas", self.turned, arms)
        return (columns + self.rig.origin[1:].T).flatten(start_dim=-3, end_dim=-2)


@torch.no_grad()
def rig_of(body: BodyModel, skeleton: Skeleton = SMPL_24) -> PointRig:
    """The rig of a body's keypoints.

    It is exact for bodies without pose-dependent offsets, such as the embedded one; for others it
    leaves out those offsets, which move SMPL's joints by nothing and its keypoints by millimetres.

    Args:
        body: The body.
        skeleton: One of its joint sets.

    Returns:
        A rig with the body's shape coefficients.

    Raises:
        ValueError: If the body lacks the keypoints.
    """
    count = body.num_betas
    like = next(buffer for buffer in body.buffers() if buffer.is_floating_point())
    half = like.new_tensor([torch.pi])[0]
    turns = torch.zeros(JOINTS, 3, JOINTS, 3).to(half)
    for axis in range(3):
        turns[range(JOINTS), axis, range(JOINTS), axis] = half
    pose = rotvec_to_matrix(turns.reshape(-1, JOINTS, 3))
    betas = torch.cat([torch.zeros(1, count), torch.eye(count)]).to(half)
    still = torch.eye(3).to(half).expand(1, JOINTS, 3, 3)
    origin, arms = [], []
    for beta in betas:
        place = body.keypoints(still, SMPL_24, beta)[0, 0]
        rest = body.keypoints(still, skeleton, beta)
        moved = body.keypoints(pose, skeleton, beta).unflatten(0, (JOINTS, 3))
        # Half a turn about an axis maps the lever to itself along it and to its opposite across.
        across = (rest - moved) / 2  # (24, axis, K, 3)
        lever = torch.stack([across[:, (a + 1) % 3, :, a] for a in range(3)], dim=-1)
        lever[0] = rest[0] - place
        arm = lever.clone()
        for joint, parent in enumerate(SMPL_24.parents):
            if parent >= 0:
                arm[parent] -= lever[joint]
        origin.append(place)
        arms.append(arm.transpose(0, 1))
    whole = torch.stack(arms)
    whole = torch.cat([whole[:1], whole[1:] - whole[:1]])
    whole = torch.where(whole.abs() < 1e-6, 0, whole)
    places = torch.stack(origin)
    places = torch.cat([places[:1], places[1:] - places[:1]])
    return PointRig(places, whole, skeleton)


def _levels(parents: Sequence[int]) -> list[list[int]]:
    depth = [0] * len(parents)
    for joint, parent in enumerate(parents):
        depth[joint] = 0 if parent < 0 else depth[parent] + 1
    return [[j for j, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]


LEVELS = _levels(SMPL_24.parents)
_ORDER = [joint for level in LEVELS for joint in level]
_BACK = [_ORDER.index(joint) for joint in range(JOINTS)]


def global_rotations(rotation: Tensor) -> Tensor:
    """Global rotations (..., 24, 3, 3) of rotations relative to the parents."""
    turned = [rotation[..., :1, :, :]]
    for above, level in itertools.pairwise(LEVELS):
        parent = [above.index(SMPL_24.parents[joint]) for joint in level]
        turned.append(turned[-1][..., parent, :, :] @ rotation[..., level, :, :])
    return torch.cat(turned, dim=-3)[..., _BACK, :, :]


def descendants() -> Tensor:
    """(24, 24), 1 where the joint of the row is that of the column or lies below it."""
    table = torch.zeros(JOINTS, JOINTS)
    for joint in range(JOINTS):
        upper = joint
        while upper >= 0:
            table[joint, upper] = 1
            upper = SMPL_24.parents[upper]
    return table
