"""Pose spaces: how theta, in any form a user holds it, becomes the vector a flow works on."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_count, require_tensor
from flowprior._precision import at_least_float32
from flowprior.prior.second_look import SecondLook

__all__ = [
    "SPACES",
    "PointSpace",
    "PoseSpace",
    "Rot6dSpace",
    "RotationSpace",
    "So3Space",
    "make_space",
]

# Joints of poses that are not SMPL's 24, as they come with body models and data sets.
JOINT_COUNTS = {
    21: "the body of SMPL-X or SMPL-H without its root, as VPoser has it",
    22: "the body of SMPL-X or SMPL-H: SMPL without the hands, joints 22 and 23",
    23: "SMPL's body_pose: global_orient stands before it",
    24: "SMPL's",
    52: "SMPL-H's",
    55: "SMPL-X's",
}

# Length from which rounding a rotation to float32 moves its vector in the chart by more than 1e-5:
# rotations by more than 179.4 degrees.
CHART_FAR = 12.0


class PoseSpace(ABC):
    """Poses of ``joints`` joints as vectors of D numbers.

    Attributes:
        joints: Number of joints J.
        features: Number of features D of the vector.
        event_shape: Shape (J, k) of one pose as the prior returns it.
        second_look: What warns of numbers in other units or another layout.
        flat: Whether :meth:`log_volume` is constant, so that the most likely vector is the most
            likely pose.
    """

    flat: ClassVar[bool] = True

    def __init__(self, joints: int, features_per_joint: int, numbers_per_joint: int) -> None:
        require_count("joints", joints, least=1)
        self.joints = joints
        self.features = joints * features_per_joint
        self.event_shape = (joints, numbers_per_joint)
        self.second_look = SecondLook()

    @abstractmethod
    def to_vector(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> (..., D). ValueError for any other shape."""

    def to_pose(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., J, k)."""
        return x.unflatten(-1, self.event_shape)

    def log_volume(self, x: Tensor) -> Tensor:
        """What to add to the log-density of x to get that of theta.

        Args:
            x: (..., D).

        Returns:
            (...), in nats; zero where theta is measured by the volume of the vectors themselves.
        """
        return x.new_zeros(x.shape[:-1])

    def settled(self, x: Tensor) -> Tensor:
        """The vector that encoding gives for the pose of x, where the two differ.

        Args:
            x: (..., D).

        Returns:
            (..., D); x itself where each pose has one vector and encoding is accurate.
        """
        return x

    def _unrecognised(self, theta: Tensor, accepted: dict[str, tuple[int, ...]]) -> ValueError:
        forms = ", ".join(
            f"{name} (..., {', '.join(map(str, shape))})" for name, shape in accepted.items()
        )
        hint = self._likely_mistake(tuple(theta.shape), set(accepted.values()))
        return ValueError(f"theta has shape {tuple(theta.shape)}; accepted are {forms}{hint}")

    def _likely_mistake(self, shape: tuple[int, ...], accepted: set[tuple[int, ...]]) -> str:
        """What most likely led to a shape, and what mends it; "" if nothing is known."""
        joints = self.joints
        if shape[-1:] == (3 * joints,):
            return f"; theta.unflatten(-1, ({joints}, 3)) makes joints of flat vectors"
        if shape[-2:][::-1] in accepted:
            return "; joints and their numbers are swapped here: theta.mT"
        if shape[-2:] == (joints, 4):
            return (
                "; four numbers per joint are quaternions: roma.unitquat_to_rotmat makes "
                "matrices of (x, y, z, w)"
            )
        found = _joints_in(shape)
        if found is None or found == joints:
            return ""
        what = f" ({JOINT_COUNTS[found]})" if found in JOINT_COUNTS else ""
        return f"; this has {found} joints{what} instead of {joints}"


class RotationSpace(PoseSpace):
    """Joint rotations, returned as 6D vectors (..., J, 6).

    Theta is told apart by its trailing shape: 6D vectors (..., J, 6) or flat (..., 6 J), matrices
    (..., J, 3, 3), rotation vectors (..., J, 3) in radians. For three joints (..., 3, 3, 3) is read
    as matrices.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
        features_per_joint: Features D per joint of the vector.
    """

    def __init__(self, joints: int, layout: str, features_per_joint: int) -> None:
        super().__init__(joints, features_per_joint, 6)
        if layout not in rotations.LAYOUTS:
            raise ValueError(f"layout must be one of {rotations.LAYOUTS}, got {layout!r}")
        self.layout = layout

    def to_rot6d(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> 6D vectors (..., J, 6). ValueError for any other shape."""
        require_tensor("theta", theta)
        # Rounding once more while encoding would cost half-precision input most of its accuracy.
        theta = at_least_float32(theta)
        shape, joints = theta.shape, self.joints
        if shape[-2:] == (joints, 6):
            self.second_look.rot6d(theta, self.layout)
            return theta
        if shape[-3:] == (joints, 3, 3):
            return rotations.matrix_to_rot6d(theta, self.layout)
        if shape[-2:] == (joints, 3):
            self.second_look.rotvec(theta)
            return rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(theta), self.layout)
        if shape[-1:] == (6 * joints,):
            theta = theta.unflatten(-1, self.event_shape)
            self.second_look.rot6d(theta, self.layout)
            return theta
        raise self._unrecognised(
            theta,
            {
                "6D": (joints, 6),
                "flat 6D": (6 * joints,),
                "rotation matrices": (joints, 3, 3),
                "rotation vectors": (joints, 3),
            },
        )

    def to_matrix(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> rotation matrices (..., J, 3, 3)."""
        return rotations.rot6d_to_matrix(self.to_rot6d(theta), self.layout)


class Rot6dSpace(RotationSpace):
    """Joint rotations, modelled as 6D vectors in their ambient space, by whose volume they count.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
    """

    def __init__(self, joints: int, layout: str = "columns") -> None:
        super().__init__(joints, layout, features_per_joint=6)

    def to_vector(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> (..., 6 J). ValueError for any other shape."""
        return self.to_rot6d(theta).flatten(start_dim=-2)


class So3Space(RotationSpace):
    """Joint rotations, modelled as such: densities are over SO(3)^J, by Haar measure of mass 1.

    The vector holds, for each joint, its rotation vector stretched from the ball of radius pi to
    all of space, see :func:`flowprior.rotations.matrix_to_chart`. It depends on the rotation alone:
    on neither the form nor the layout of theta, nor on how far a 6D vector is from orthonormal.

    A density that falls off in that vector falls to zero at half-turns, and tells the two sides of
    them apart. So give joints in a frame in which half-turns are rare: for a camera whose y points
    down, turn the root by pi about x first.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
    """

    flat = False

    def __init__(self, joints: int, layout: str = "columns") -> None:
        super().__init__(joints, layout, features_per_joint=3)

    def to_vector(self, theta: Tensor) -> Tensor:
        """Theta in any accepted form -> (..., 3 J). ValueError for any other shape."""
        return rotations.matrix_to_chart(self.to_matrix(theta)).flatten(start_dim=-2)

    def to_pose(self, x: Tensor) -> Tensor:
        """(..., 3 J) -> 6D vectors (..., J, 6), orthonormal."""
        matrix = rotations.chart_to_matrix(self._by_joint(x))
        return rotations.matrix_to_rot6d(matrix, self.layout).to(x.dtype)

    def log_volume(self, x: Tensor) -> Tensor:
        """What to add to the log-density of x to get that of theta.

        Args:
            x: (..., 3 J).

        Returns:
            (...), in nats. Least at x = 0, and in the end it grows by half the length of x.
        """
        return -rotations.chart_log_volume(self._by_joint(x)).sum(dim=-1).to(x.dtype)

    def settled(self, x: Tensor) -> Tensor:
        """Encode rotations near half a turn again: there one rotation has many vectors.

        Encoding stops at :data:`flowprior.rotations.MAX_ANGLE`, so longer vectors are shortened,
        and the sign of their axis is the fixed one. Below that, rounding moves long vectors.

        Args:
            x: (..., 3 J).

        Returns:
            (..., 3 J): joints longer than ``CHART_FAR`` as :meth:`to_vector` gives them, the others
            as they are.
        """
        joints = self._by_joint(x)
        far = joints.detach().norm(dim=-1, keepdim=True) > CHART_FAR
        again = self._by_joint(self.to_vector(self.to_pose(x)))
        return torch.where(far, again, joints).flatten(start_dim=-2).to(x.dtype)

    def _by_joint(self, x: Tensor) -> Tensor:
        """(..., 3 J) -> (..., J, 3), in float32 or better."""
        return at_least_float32(x).unflatten(-1, (self.joints, 3))


class PointSpace(PoseSpace):
    """Plain 3D keypoints in metres, (..., J, 3) or flat (..., 3 J).

    Args:
        joints: Number of keypoints J.
    """

    def __init__(self, joints: int) -> None:
        super().__init__(joints, features_per_joint=3, numbers_per_joint=3)

    def to_vector(self, theta: Tensor) -> Tensor:
        """Keypoints in either form -> (..., 3 J). ValueError for any other shape."""
        require_tensor("theta", theta)
        if theta.shape[-2:] == self.event_shape:
            self.second_look.points(theta)
            return theta.flatten(start_dim=-2)
        if theta.shape[-1:] == (self.features,):
            self.second_look.points(theta.unflatten(-1, self.event_shape))
            return theta
        raise self._unrecognised(
            theta, {"keypoints": self.event_shape, "flat keypoints": (self.features,)}
        )


def _joints_in(shape: tuple[int, ...]) -> int | None:
    """How many joints a pose of that trailing shape has; None if it looks like no pose."""
    if shape[-2:] == (3, 3) and len(shape) > 2:
        return shape[-3]
    if len(shape) > 1 and shape[-1] in (3, 6):
        return shape[-2]
    flat = {size * count: count for count in JOINT_COUNTS for size in (3, 6)}
    return flat.get(shape[-1]) if shape else None


SPACES = ("rot6d", "so3", "points")


def make_space(name: str, joints: int, layout: str) -> PoseSpace:
    """The pose space of that name, one of :data:`SPACES`."""
    if name == "rot6d":
        return Rot6dSpace(joints, layout)
    if name == "so3":
        return So3Space(joints, layout)
    if name == "points":
        return PointSpace(joints)
    raise ValueError(f"space must be one of {SPACES}, got {name!r}")
