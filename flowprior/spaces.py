"""Pose spaces: how theta, in any form a user holds it, becomes the vector a flow works on."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.flow.checks import require_count, require_tensor

__all__ = ["SPACES", "PointSpace", "PoseSpace", "Rot6dSpace", "make_space"]


class PoseSpace(ABC):
    """Poses of ``joints`` joints as vectors of ``features`` numbers.

    Attributes:
        joints: Number of joints J.
        event_shape: Shape (J, k) of one pose as the prior returns it.
    """

    def __init__(self, joints: int, numbers_per_joint: int) -> None:
        require_count("joints", joints, least=1)
        self.joints = joints
        self.event_shape = (joints, numbers_per_joint)

    @property
    def features(self) -> int:
        """Number of features D of the vector."""
        return self.event_shape[0] * self.event_shape[1]

    @abstractmethod
    def to_vector(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> (..., D). ValueError for any other shape."""

    def to_pose(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., J, k)."""
        return x.unflatten(-1, self.event_shape)

    def _unrecognised(self, theta: Tensor, accepted: dict[str, tuple[int, ...]]) -> ValueError:
        forms = ", ".join(
            f"{name} (..., {', '.join(map(str, shape))})" for name, shape in accepted.items()
        )
        hint = ""
        if theta.shape[-1:] == (3 * self.joints,):
            hint = f"; theta.unflatten(-1, ({self.joints}, 3)) makes joints of flat vectors"
        return ValueError(f"theta has shape {tuple(theta.shape)}; accepted are {forms}{hint}")


class Rot6dSpace(PoseSpace):
    """Joint rotations, modelled as 6D vectors in their ambient space.

    Theta is told apart by its trailing shape: 6D vectors (..., J, 6) or flat (..., 6 J), matrices
    (..., J, 3, 3), rotation vectors (..., J, 3) in radians. For three joints (..., 3, 3, 3) is read
    as matrices.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
    """

    def __init__(self, joints: int, layout: str = "columns") -> None:
        super().__init__(joints, 6)
        if layout not in rotations.LAYOUTS:
            raise ValueError(f"layout must be one of {rotations.LAYOUTS}, got {layout!r}")
        self.layout = layout

    def to_vector(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> (..., 6 J). ValueError for any other shape."""
        require_tensor("theta", theta)
        # Rounding once more while encoding would cost half-precision input most of its accuracy.
        theta = theta.to(torch.promote_types(theta.dtype, torch.float32))
        shape, joints = theta.shape, self.joints
        if shape[-2:] == (joints, 6):
            return theta.flatten(start_dim=-2)
        if shape[-3:] == (joints, 3, 3):
            return rotations.matrix_to_rot6d(theta, self.layout).flatten(start_dim=-2)
        if shape[-2:] == (joints, 3):
            matrix = rotations.rotvec_to_matrix(theta)
            return rotations.matrix_to_rot6d(matrix, self.layout).flatten(start_dim=-2)
        if shape[-1:] == (self.features,):
            return theta
        raise self._unrecognised(
            theta,
            {
                "6D": (joints, 6),
                "flat 6D": (self.features,),
                "rotation matrices": (joints, 3, 3),
                "rotation vectors": (joints, 3),
            },
        )

    def to_matrix(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> rotation matrices (..., J, 3, 3)."""
        return rotations.rot6d_to_matrix(self.to_pose(self.to_vector(theta)), self.layout)


class PointSpace(PoseSpace):
    """Plain 3D keypoints in metres, (..., J, 3) or flat (..., 3 J).

    Args:
        joints: Number of keypoints J.
    """

    def __init__(self, joints: int) -> None:
        super().__init__(joints, 3)

    def to_vector(self, theta: Tensor) -> Tensor:
        """Keypoints in either form -> (..., 3 J). ValueError for any other shape."""
        require_tensor("theta", theta)
        if theta.shape[-2:] == self.event_shape:
            return theta.flatten(start_dim=-2)
        if theta.shape[-1:] == (self.features,):
            return theta
        raise self._unrecognised(
            theta, {"keypoints": self.event_shape, "flat keypoints": (self.features,)}
        )


SPACES = ("rot6d", "points")


def make_space(name: str, joints: int, layout: str) -> PoseSpace:
    """The pose space of that name, one of :data:`SPACES`."""
    if name == "rot6d":
        return Rot6dSpace(joints, layout)
    if name == "points":
        return PointSpace(joints)
    raise ValueError(f"space must be one of {SPACES}, got {name!r}")
