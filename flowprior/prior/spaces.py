"""Pose spaces: conversions between theta, in several forms, and the vectors of a flow."""

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

# Numbers of joints in the poses of common body models and data sets, for error messages.
JOINT_COUNTS = {
    21: "the body of SMPL-X or SMPL-H without its root, as in VPoser",
    22: "the body of SMPL-X or SMPL-H: SMPL without the hands, joints 22 and 23",
    23: "SMPL's body_pose, without global_orient",
    24: "SMPL's",
    52: "SMPL-H's",
    55: "SMPL-X's",
}

# Beyond this length (rotations by more than 179.4 degrees), rounding a rotation to float32 changes
# its vector in the chart by more than 1e-5.
CHART_FAR = 12.0


class PoseSpace(ABC):
    """A space of poses of J joints, represented by vectors of D numbers.

    Attributes:
        name: The name that :func:`make_space` takes.
        joints: Number of joints J.
        features: Number of features D of the vector.
        event_shape: Shape (J, k) of one pose, as the prior returns it.
        second_look: Warns about values in other units or another layout.
        flat: Whether :meth:`log_volume` is constant, so that the most likely vector is the most
            likely pose.
    """

    name: ClassVar[str]
    flat: ClassVar[bool] = True

    def __init__(self, joints: int, features_per_joint: int, numbers_per_joint: int) -> None:
        require_count("joints", joints, least=1)
        self.joints = joints
        self.features = joints * features_per_joint
        self.event_shape = (joints, numbers_per_joint)
        self.second_look = SecondLook()

    @abstractmethod
    def to_vector(self, theta: Tensor) -> Tensor:
        """Convert theta in any accepted form to (..., D). ValueError for any other shape."""

    def to_pose(self, x: Tensor) -> Tensor:
        """Convert vectors (..., D) to poses (..., J, k)."""
        return x.unflatten(-1, self.event_shape)

    def log_volume(self, x: Tensor) -> Tensor:
        """The term that turns the log-density of x into that of theta.

        Args:
            x: (..., D).

        Returns:
            (...), in nats, to be added; zero if the density of theta is that of the vectors.
        """
        return x.new_zeros(x.shape[:-1])

    def settled(self, x: Tensor) -> Tensor:
        """The vector that encoding returns for the pose of x.

        Args:
            x: (..., D).

        Returns:
            (..., D); x itself if every pose has a single vector and encoding is accurate.
        """
        return x

    def _unrecognised(self, theta: Tensor, accepted: dict[str, tuple[int, ...]]) -> ValueError:
        forms = ", ".join(
            f"{name} (..., {', '.join(map(str, shape))})" for name, shape in accepted.items()
        )
        hint = self._likely_mistake(tuple(theta.shape), set(accepted.values()))
        return ValueError(f"theta has shape {tuple(theta.shape)}; accepted are {forms}{hint}")

    def _likely_mistake(self, shape: tuple[int, ...], accepted: set[tuple[int, ...]]) -> str:
        """The likely cause of a wrong shape and its fix; "" if unknown."""
        joints = self.joints
        if shape[-1:] == (3 * joints,):
            return f"; theta.unflatten(-1, ({joints}, 3)) splits flat vectors into joints"
        if shape[-2:][::-1] in accepted:
            return "; the last two axes are swapped: theta.mT"
        if shape[-2:] == (joints, 4):
            return "; for quaternions (x, y, z, w), roma.unitquat_to_rotmat(theta) returns matrices"
        found = _joints_in(shape)
        if found is None or found == joints:
            return ""
        what = f" ({JOINT_COUNTS[found]})" if found in JOINT_COUNTS else ""
        return f"; this has {found} joints{what} instead of {joints}"


class RotationSpace(PoseSpace):
    """Joint rotations, returned as 6D vectors (..., J, 6).

    The trailing shape of theta determines its form: 6D vectors (..., J, 6) or flat (..., 6 J),
    matrices (..., J, 3, 3), rotation vectors (..., J, 3) in radians. With three joints,
    (..., 3, 3, 3) is read as matrices.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
        features_per_joint: Number of features per joint in the vector, D / J.
    """

    def __init__(self, joints: int, layout: str, features_per_joint: int) -> None:
        super().__init__(joints, features_per_joint, 6)
        if layout not in rotations.LAYOUTS:
            raise ValueError(f"layout must be one of {rotations.LAYOUTS}, got {layout!r}")
        self.layout = layout

    def to_rot6d(self, theta: Tensor) -> Tensor:
        """Convert theta in any accepted form to 6D vectors (..., J, 6). ValueError otherwise."""
        require_tensor("theta", theta)
        # Converting in half precision would round half-precision input a second time.
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
        """Convert theta in any accepted form to rotation matrices (..., J, 3, 3)."""
        return rotations.rot6d_to_matrix(self.to_rot6d(theta), self.layout)


class Rot6dSpace(RotationSpace):
    """Joint rotations as 6D vectors, with densities per volume of the 6D space.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
    """

    name = "rot6d"

    def __init__(self, joints: int, layout: str = "columns") -> None:
        super().__init__(joints, layout, features_per_joint=6)

    def to_vector(self, theta: Tensor) -> Tensor:
        """Convert theta in any accepted form to (..., 6 J). ValueError for any other shape."""
        return self.to_rot6d(theta).flatten(start_dim=-2)


class So3Space(RotationSpace):
    """Joint rotations, with densities over SO(3)^J with respect to the Haar measure of mass 1.

    The vector of a joint is its rotation vector, stretched from the ball of radius pi to all of
    R^3, see :func:`flowprior.rotations.matrix_to_chart`. It depends only on the rotation, not on
    the form or layout of theta or on the length of 6D vectors.

    A density that vanishes for long vectors vanishes at rotations by pi and is discontinuous in
    the axis there. Use a frame in which such rotations are rare: for a camera whose y points down,
    rotate the root by pi about x first.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
    """

    name = "so3"
    flat = False

    def __init__(self, joints: int, layout: str = "columns") -> None:
        super().__init__(joints, layout, features_per_joint=3)

    def to_vector(self, theta: Tensor) -> Tensor:
        """Convert theta in any accepted form to (..., 3 J). ValueError for any other shape."""
        return rotations.matrix_to_chart(self.to_matrix(theta)).flatten(start_dim=-2)

    def to_pose(self, x: Tensor) -> Tensor:
        """Convert vectors (..., 3 J) to orthonormal 6D vectors (..., J, 6)."""
        matrix = rotations.chart_to_matrix(self._by_joint(x))
        return rotations.matrix_to_rot6d(matrix, self.layout).to(x.dtype)

    def log_volume(self, x: Tensor) -> Tensor:
        """As :meth:`PoseSpace.log_volume`.

        Args:
            x: (..., 3 J).

        Returns:
            (...), in nats. Minimal at x = 0; far from it, it grows by half the length of x.
        """
        return -rotations.chart_log_volume(self._by_joint(x)).sum(dim=-1).to(x.dtype)

    def settled(self, x: Tensor) -> Tensor:
        """Encode rotations near pi again, where one rotation has several vectors.

        Encoding stops at :data:`flowprior.rotations.MAX_ANGLE`: it shortens longer vectors and
        fixes the sign of their axis. Rounding also changes somewhat shorter vectors.

        Args:
            x: (..., 3 J).

        Returns:
            (..., 3 J): joints longer than ``CHART_FAR`` as :meth:`to_vector` returns them, the
            others unchanged.
        """
        joints = self._by_joint(x)
        far = joints.detach().norm(dim=-1, keepdim=True) > CHART_FAR
        again = self._by_joint(self.to_vector(self.to_pose(x)))
        return torch.where(far, again, joints).flatten(start_dim=-2).to(x.dtype)

    def _by_joint(self, x: Tensor) -> Tensor:
        """Split vectors (..., 3 J) into joints (..., J, 3), in float32 or better."""
        return at_least_float32(x).unflatten(-1, (self.joints, 3))


class PointSpace(PoseSpace):
    """3D keypoints in metres, (..., J, 3) or flat (..., 3 J).

    Args:
        joints: Number of keypoints J.
    """

    name = "points"

    def __init__(self, joints: int) -> None:
        super().__init__(joints, features_per_joint=3, numbers_per_joint=3)

    def to_vector(self, theta: Tensor) -> Tensor:
        """Convert keypoints in either form to (..., 3 J). ValueError for any other shape."""
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
    """Number of joints of a pose with that trailing shape; None if it does not look like one."""
    if shape[-2:] == (3, 3) and len(shape) > 2:
        return shape[-3]
    if len(shape) > 1 and shape[-1] in (3, 6):
        return shape[-2]
    flat = {size * count: count for count in JOINT_COUNTS for size in (3, 6)}
    return flat.get(shape[-1]) if shape else None


SPACES = ("rot6d", "so3", "points")


def make_space(name: str, joints: int, layout: str) -> PoseSpace:
    """Create a pose space.

    Args:
        name: One of :data:`SPACES`.
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`; unused by
            ``"points"``.

    Returns:
        The space.

    Raises:
        ValueError: If the name or layout is unknown.
    """
    if name == "rot6d":
        return Rot6dSpace(joints, layout)
    if name == "so3":
        return So3Space(joints, layout)
    if name == "points":
        return PointSpace(joints)
    raise ValueError(f"space must be one of {SPACES}, got {name!r}")
