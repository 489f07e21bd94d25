"""The protocol that connects a body of another package, and what its adapters share."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior.skeleton import SMPL_24, SMPLX_55, Skeleton

__all__ = ["Rig", "chain", "metres_per_unit", "skeleton_of", "to_bone_axes"]

Array: TypeAlias = NDArray[np.float64]


class Rig(Protocol):
    """A body that rotations pose: what `RigBody` needs of it.

    The rotation of a joint is relative to its parent and to the rest pose, in the axes of the
    world: with the rotations G of the joints from the rest pose, ``G_joint = G_parent @ theta``.
    Identities are the rest pose, whatever the orientation of the bones there. That is SMPL's
    convention for every rig, so poses of one body make sense on another with the same rest pose.
    """

    name: str
    """Name for messages."""

    skeleton: Skeleton
    """The J joints. Meanings of other joint sets give keypoints to the body."""

    faces: NDArray[np.int64]
    """(F, 3) triangles."""

    num_vertices: int
    """Number V of vertices."""

    regressors: Mapping[str, Array]
    """Keypoints as linear functions (K, V) of the vertices, by the name of the joint set."""

    @property
    def default_betas(self) -> Tensor:
        """(B,) the average shape, with the device and dtype in which the rig computes."""

    def pose(self, rotation: Tensor, betas: Tensor, surface: bool) -> tuple[Tensor, Tensor | None]:
        """Pose the body.

        Args:
            rotation: (N, J, 3, 3).
            betas: (N, B).
            surface: Whether the vertices are needed.

        Returns:
            Joints (N, J, 3) and vertices (N, V, 3) or None, metres, y up.
        """

    def native(self, rotation: Tensor, betas: Tensor) -> dict[str, Tensor]:
        """The parameters with which the other package poses this body, by its names.

        Args:
            rotation: (N, J, 3, 3).
            betas: (N, B).

        Returns:
            Tensors with a leading axis N.
        """


def to_bone_axes(rotation: Tensor, rest: Tensor) -> Tensor:
    """Rotations in the axes of the bones at rest.

    Args:
        rotation: (..., J, 3, 3) in the axes of the world.
        rest: (..., J, 3, 3) orientations of the bones in the rest pose.
    """
    return rest.mT @ rotation @ rest


def chain(local: Tensor, parents: Sequence[int]) -> Tensor:
    """Compose rotations along a tree.

    Args:
        local: (..., J, 3, 3) relative to the parent.
        parents: Parent of each joint, in any order; -1 for the root.

    Returns:
        (..., J, 3, 3) in the world.
    """
    world: dict[int, Tensor] = {}

    def of(joint: int) -> Tensor:
        if joint not in world:
            own = local[..., joint, :, :]
            world[joint] = own if parents[joint] < 0 else of(parents[joint]) @ own
        return world[joint]

    return torch.stack([of(joint) for joint in range(len(parents))], dim=-3)


def metres_per_unit(stature: float, name: str) -> float:
    """The unit of a model from the height of its average body.

    Args:
        stature: Extent of the vertices along the vertical axis.
        name: Name of the model.

    Returns:
        1 for metres, 0.01 for centimetres, 0.001 for millimetres.

    Raises:
        ValueError: If the height is that of a person in none of them.
    """
    for unit in (1.0, 0.01, 0.001):
        if 0.4 <= stature * unit <= 3.0:
            return unit
    raise ValueError(
        f"the rest pose of {name} is {stature:.3g} units tall: not a person in metres, centimetres "
        "or millimetres"
    )


def skeleton_of(
    name: str,
    joint_names: Sequence[str],
    parents: Sequence[int],
    meanings: Mapping[str, str],
    sides: tuple[str, str] | None,
) -> Skeleton:
    """The joint set of a rig.

    Args:
        name: Its name.
        joint_names: The names of the joints.
        parents: Their parents.
        meanings: The meanings of joints in `flowprior.skeleton`, by their names.
        sides: Beginning or end of the names of left and of right joints; None without sides.
    """
    names = [str(each) for each in joint_names]
    flip = [names.index(_other(each, names, sides)) for each in names]
    return Skeleton(
        name,
        tuple(names),
        tuple(int(parent) for parent in parents),
        tuple(flip),
        tuple(meanings.get(each) or _own_meaning(each, name) for each in names),
    )


def _own_meaning(joint: str, rig: str) -> str:
    """Names of SMPL's joints mean these; other names are meaningful in their own rig alone."""
    known = (*SMPL_24.joint_names, *SMPLX_55.joint_names)
    return joint if joint in known else f"{rig} {joint}"


def _other(joint: str, names: Sequence[str], sides: tuple[str, str] | None) -> str:
    for one, other in (sides, sides[::-1]) if sides else ():
        for mirrored in (
            other + joint.removeprefix(one) if joint.startswith(one) else "",
            joint.removesuffix(one) + other if joint.endswith(one) else "",
        ):
            if mirrored in names:
                return mirrored
    return joint


def numpy_of(value: Any) -> NDArray[Any]:  # noqa: ANN401, any package's arrays
    """An array of another package as NumPy's."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
