"""Linear blend skinning: joints and vertices from rotations and shape coefficients.

References:
    Loper et al., *SMPL: A Skinned Multi-Person Linear Model*, 2015, equations 2 to 9.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["JointTree", "Surface"]

Array: TypeAlias = NDArray[Any]

# For matrices of other widths, BLAS rounds a row differently depending on its place in the batch.
WIDTH_MULTIPLE = 16


class JointTree(nn.Module):
    """The joints of a body: rest positions from the shape, rigid motions from the rotations.

    Joints of equal depth move together, so the cost grows with the depth of the tree.

    Args:
        template: (J, 3) joints at rest, metres.
        directions: (J, 3, B) offsets of the joints per shape coefficient, metres.
        parents: Parent of each joint, which precedes it; -1 for joint 0, the root.

    Raises:
        ValueError: If a joint precedes its parent, or there is another root.
    """

    rest: Tensor
    _parent: Tensor
    _order: Tensor
    _inverse: Tensor
    _above: Tensor

    def __init__(self, template: Array, directions: Array, parents: Sequence[int]) -> None:
        super().__init__()
        if any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
            raise ValueError(f"expected one root and every joint after its parent, got {parents}")
        self.parents = tuple(parents)
        # Kept in float64, so that converting the module to float64 does not keep float32 rounding.
        rows = np.concatenate([template[..., None], directions], axis=-1)
        self._exact = rows.astype(np.float64).reshape(3 * len(parents), -1).T
        self.register_buffer("rest", torch.from_numpy(self._exact).float(), persistent=False)
        levels = _levels(self.parents)
        order = [joint for level in levels for joint in level]
        above = [
            upper.index(parents[joint])
            for upper, lower in itertools.pairwise(levels)
            for joint in lower
        ]
        self._sizes = tuple(map(len, levels))
        index = {
            "_parent": [max(parent, 0) for parent in parents],
            "_order": order,
            "_inverse": np.argsort(order),
            "_above": above,
        }
        for name, numbers in index.items():
            buffer = torch.from_numpy(np.array(numbers, np.int64))
            self.register_buffer(name, buffer, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "JointTree":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.rest = torch.from_numpy(self._exact).to(self.rest)
        return self

    def forward(self, rotation: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the joints and their rigid motions.

        Args:
            rotation: (N, J, 3, 3) rotations relative to the parent.
            betas: (N, B) shape coefficients.

        Returns:
            Joints (N, J, 3), metres. Motions (N, J, 3, 4): the matrix [R | t] that maps a point
            attached to the joint from the rest pose to its current position, R x + t.
        """
        rest = torch.addmm(self.rest[0], _padded(betas), _padded(self.rest[1:].mT).mT)
        rest = rest.unflatten(1, (-1, 3))
        parent = torch.cat([torch.zeros_like(rest[:, :1]), rest[:, self._parent[1:]]], dim=1)
        local = torch.cat([rotation, (rest - parent)[..., None]], dim=-1)[:, self._order]
        first, *others = local.split(self._sizes, dim=1)
        levels = [first]
        for below, above in zip(others, self._above.split(self._sizes[1:]), strict=True):
            up = levels[-1][:, above]
            levels.append(up[..., :3] @ below + F.pad(up[..., 3:], (3, 0)))
        world = torch.cat(levels, dim=1)[:, self._inverse]
        turned = world[..., :3] @ rest[..., None]
        return world[..., 3], world - F.pad(turned, (3, 0))


class Surface(nn.Module):
    r"""Vertices that follow the joints.

    A rest vertex :math:`\bar v_i` is the template plus linear offsets by the shape coefficients and
    by the entries of the rotations below the root. The posed vertex is
    :math:`\sum_j w_{ij} (R_j \bar v_i + t_j)` with the motions of :class:`JointTree`.

    Args:
        v_template: (V, 3), metres.
        shapedirs: (V, 3, B) offsets per shape coefficient, metres.
        posedirs: (V, 3, 9 (J - 1)) offsets per entry of R - I, metres, or None.
        weights: (V, J) skinning weights.
    """

    v_template: Tensor
    offsets: Tensor
    weights: Tensor

    def __init__(
        self, v_template: Tensor, shapedirs: Tensor, posedirs: Tensor | None, weights: Tensor
    ) -> None:
        super().__init__()
        self.has_pose_offsets = posedirs is not None
        directions = shapedirs if posedirs is None else torch.cat([shapedirs, posedirs], dim=-1)
        self.register_buffer("v_template", v_template, persistent=False)
        # One matrix for both kinds of offsets, (width, 3 V).
        offsets = _padded(directions).flatten(0, 1).mT.contiguous()
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def __len__(self) -> int:
        return len(self.v_template)

    def forward(self, rotation: Tensor, betas: Tensor, motion: Tensor) -> Tensor:
        """Pose the vertices.

        Args:
            rotation: (N, J, 3, 3) rotations relative to the parent.
            betas: (N, B) shape coefficients.
            motion: (N, J, 3, 4) from :class:`JointTree`.

        Returns:
            (N, V, 3), metres.
        """
        coefficients = betas
        if self.has_pose_offsets:
            identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
            coefficients = torch.cat([betas, (rotation[:, 1:] - identity).flatten(1)], dim=1)
        rest = torch.addmm(self.v_template.flatten(), _padded(coefficients), self.offsets)
        rest = rest.unflatten(1, (-1, 3))
        # The four columns of [R | t], each blended: (N, V, 12).
        x, y, z, t = (self.weights @ motion.mT.flatten(2)).split(3, dim=-1)
        posed = torch.addcmul(t, x, rest[..., :1])
        posed = torch.addcmul(posed, y, rest[..., 1:2])
        return torch.addcmul(posed, z, rest[..., 2:])

    def select(self, vertices: Tensor) -> "Surface":
        """Select vertices.

        Args:
            vertices: (U,) indices.

        Returns:
            A surface with these U vertices.
        """
        part = object.__new__(Surface)
        nn.Module.__init__(part)
        part.has_pose_offsets = self.has_pose_offsets
        offsets = self.offsets.unflatten(1, (-1, 3))[:, vertices].flatten(1)
        part.register_buffer("v_template", self.v_template[vertices], persistent=False)
        part.register_buffer("offsets", offsets, persistent=False)
        part.register_buffer("weights", self.weights[vertices], persistent=False)
        return part


def _levels(parents: Sequence[int]) -> list[list[int]]:
    """Group the joints by their depth below the root."""
    depth = [0] * len(parents)
    for joint, parent in enumerate(parents):
        depth[joint] = depth[parent] + 1 if joint else 0
    return [[j for j, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]


def _padded(rows: Tensor) -> Tensor:
    """Pad the last axis with zeros to a multiple of `WIDTH_MULTIPLE`."""
    return F.pad(rows, (0, -rows.shape[-1] % WIDTH_MULTIPLE))
