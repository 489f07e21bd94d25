"""Pose spaces: conversions between theta, in several forms, and the vectors of a flow."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_count, require_tensor
from flowprior._precision import at_least_float32, in_full_precision
from flowprior.prior.second_look import SecondLook

__all__ = [
    "SPACES",
    "Centre",
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

# Within this distance of the chart's boundary, half a turn, rounding can flip the sign of a vector.
BOUNDARY = 1e-3


class Centre(NamedTuple):
    r"""The poses around which a posterior measures theta.

    Attributes:
        pose: Poses (\*batch, J, k), as the posterior returns them.
        frame: The same poses in the form that the space computes with, (\*batch, \*event).
    """

    pose: Tensor
    frame: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch."""
        return self.pose.shape[:-2]

    def select(self, index: Any) -> "Centre":  # noqa: ANN401, as tensors are indexed
        """Select rows by an index into the batch, as ``ProjectedContext.select``."""
        index = index if isinstance(index, tuple) else (index,)
        open_end = () if any(each is Ellipsis for each in index) else (Ellipsis,)

        def rows(value: Tensor) -> Tensor:
            event = value.ndim - len(self.batch_shape)
            return value[(*index, *open_end, *(slice(None),) * event)]

        return Centre(rows(self.pose), rows(self.frame))

    def expand(self, batch_shape: torch.Size) -> "Centre":
        """Broadcast the batch to ``batch_shape`` without copies."""

        def repeat(value: Tensor) -> Tensor:
            return value.expand(*batch_shape, *value.shape[len(self.batch_shape) :])

        return Centre(repeat(self.pose), repeat(self.frame))

    def frame_for(self, leading: int) -> Tensor:
        """The frame, with axes after the batch up to ``leading`` leading axes."""
        batch = self.batch_shape
        axes = (1,) * (leading - len(batch))
        return self.frame.reshape(*batch, *axes, *self.frame.shape[len(batch) :])

    def to(self, dtype: torch.dtype) -> "Centre":
        """The same poses in another dtype."""
        return Centre(self.pose.to(dtype), self.frame.to(dtype))

    def detach(self) -> "Centre":
        """The same poses without gradients."""
        return Centre(self.pose.detach(), self.frame.detach())


class PoseSpace(ABC):
    """A space of poses of J joints, represented by vectors of D numbers.

    Attributes:
        name: The name that :func:`make_space` takes.
        joints: Number of joints J.
        features: Number of features D of the vector.
        event_shape: Shape (J, k) of one pose, as the prior returns it.
        second_look: Warns about values in other units or another layout.
        log_volume: The constant, in nats, that turns the log-density of a vector into that of
            theta: 0 if the density of theta is that of the vectors.
    """

    name: ClassVar[str]
    log_volume: float = 0.0

    def __init__(self, joints: int, features_per_joint: int, numbers_per_joint: int) -> None:
        require_count("joints", joints, least=1)
        self.joints = joints
        self.features = joints * features_per_joint
        self.event_shape = (joints, numbers_per_joint)
        self.second_look = SecondLook()

    @property
    def rest(self) -> Tensor:
        """The pose (J, k) of joints that are held at rest: no rotation, or the origin."""
        return torch.zeros(self.event_shape)

    @abstractmethod
    def as_pose(self, theta: Tensor) -> Tensor:
        """Convert theta in any accepted form to (..., J, k). ValueError for any other shape."""

    @abstractmethod
    def centre(self, pose: Tensor) -> Centre:
        """Prepare poses (*batch, J, k), from :meth:`as_pose`, as the centre of vectors."""

    def nearest(self, raw: Tensor) -> Centre:
        """The centre that the output of a network stands for.

        Args:
            raw: (*batch, J, k); 6D vectors in layout "columns", of any length.

        Returns:
            Poses (*batch, J, k); 6D vectors are orthonormal and in the layout of the space.
        """
        return self.centre(raw)

    @abstractmethod
    def to_vector(self, theta: Tensor, centre: Centre | None = None) -> Tensor:
        """Convert theta to the vector of its difference from a centre.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form.
            centre: Poses with the same batch; None for the origin of the space.

        Returns:
            (*batch, *extra, D), zero where theta is the centre.

        Raises:
            ValueError: If theta has another shape.
        """

    @abstractmethod
    def to_pose(self, x: Tensor, centre: Centre | None = None) -> Tensor:
        """Convert vectors (*batch, *extra, D) to poses (*batch, *extra, J, k)."""

    def settled(self, x: Tensor) -> Tensor:
        """The vector that encoding returns for the pose of x.

        Args:
            x: (..., D).

        Returns:
            (..., D); x itself if every pose has a single vector.
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

    @property
    def rest(self) -> Tensor:
        """As :attr:`PoseSpace.rest`: the identity."""
        return rotations.matrix_to_rot6d(torch.eye(3).expand(self.joints, 3, 3), self.layout)

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

    def as_pose(self, theta: Tensor) -> Tensor:
        """Convert theta in any accepted form to 6D vectors (..., J, 6)."""
        return self.to_rot6d(theta)

    def nearest(self, raw: Tensor) -> Centre:
        """As :meth:`PoseSpace.nearest`: raw 6D vectors (*batch, J, 6) are orthonormalised."""
        matrix = rotations.rot6d_to_matrix(raw)
        return self._centre(rotations.matrix_to_rot6d(matrix, self.layout), matrix)

    def centre(self, pose: Tensor) -> Centre:
        """As :meth:`PoseSpace.centre`."""
        return self._centre(pose, rotations.rot6d_to_matrix(pose, self.layout))

    @abstractmethod
    def _centre(self, pose: Tensor, matrix: Tensor) -> Centre:
        """The centre of poses (*batch, J, 6), which are the rotations ``matrix``."""

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

    def centre(self, pose: Tensor) -> Centre:
        """As :meth:`PoseSpace.centre`."""
        return Centre(pose, pose.flatten(start_dim=-2))

    def _centre(self, pose: Tensor, matrix: Tensor) -> Centre:
        return self.centre(pose)

    def to_vector(self, theta: Tensor, centre: Centre | None = None) -> Tensor:
        """As :meth:`PoseSpace.to_vector`: the 6D vectors minus those of the centre, (..., 6 J)."""
        return _less(self.to_rot6d(theta).flatten(start_dim=-2), centre)

    def to_pose(self, x: Tensor, centre: Centre | None = None) -> Tensor:
        """Convert vectors (..., 6 J) to 6D vectors (..., J, 6), not orthonormal in general."""
        return _plus(x, centre).unflatten(-1, self.event_shape)


class So3Space(RotationSpace):
    r"""Joint rotations, with densities over SO(3)^J with respect to the Haar measure of mass 1.

    A rotation is the centre times a rotation by the angle t about an axis, and its vector is
    :math:`(6 (t - \sin t))^{1/3}` along that axis, see
    :func:`flowprior.rotations.matrix_to_chart`. This chart preserves volume up to a constant, so
    the most likely vector is the most likely rotation, and entropies differ by the constant alone.
    The vector depends only on the rotation, not on the form or layout of theta or on the length of
    6D vectors.

    Rotations fill the ball of radius :data:`flowprior.rotations.CHART_RADIUS`. Longer vectors stand
    for rotations inside it, see :func:`flowprior.rotations.wrap_chart`, and the density of a
    rotation counts its vector inside the ball alone. It is too low by the mass outside.

    Args:
        joints: Number of joints J.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`.
    """

    name = "so3"

    def __init__(self, joints: int, layout: str = "columns") -> None:
        super().__init__(joints, layout, features_per_joint=3)
        self.log_volume = joints * rotations.LOG_CHART_VOLUME

    def _centre(self, pose: Tensor, matrix: Tensor) -> Centre:
        return Centre(pose, matrix)

    def to_vector(self, theta: Tensor, centre: Centre | None = None) -> Tensor:
        """As :meth:`PoseSpace.to_vector`, (..., 3 J)."""
        matrix = self.to_matrix(theta)
        if centre is not None:
            matrix = _product(centre.frame_for(matrix.ndim - 3).mT, matrix)
        return rotations.matrix_to_chart(matrix).flatten(start_dim=-2)

    def to_pose(self, x: Tensor, centre: Centre | None = None) -> Tensor:
        """Convert vectors (..., 3 J) to orthonormal 6D vectors (..., J, 6)."""
        matrix = rotations.chart_to_matrix(self._by_joint(x))
        if centre is not None:
            matrix = _product(centre.frame_for(x.ndim - 1), matrix)
        return rotations.matrix_to_rot6d(matrix, self.layout).to(x.dtype)

    def settled(self, x: Tensor) -> Tensor:
        """Encode rotations outside the ball, and close to half a turn, again.

        Args:
            x: (..., 3 J).

        Returns:
            (..., 3 J): joints near the boundary of the ball or outside it as :meth:`to_vector`
            returns them, the others unchanged.
        """
        joints = self._by_joint(x)
        far = joints.detach().norm(dim=-1, keepdim=True) > rotations.CHART_RADIUS - BOUNDARY
        again = rotations.matrix_to_chart(rotations.chart_to_matrix(joints))
        return torch.where(far, again, joints).flatten(start_dim=-2).to(x.dtype)

    def outside(self, x: Tensor) -> Tensor:
        """Whether the vector of each joint lies outside the ball: x (..., 3 J) -> (..., J) bool."""
        return self._by_joint(x).detach().norm(dim=-1) > rotations.CHART_RADIUS

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

    def as_pose(self, theta: Tensor) -> Tensor:
        """Convert keypoints in either form to (..., J, 3). ValueError for any other shape."""
        require_tensor("theta", theta)
        if theta.shape[-2:] != self.event_shape:
            if theta.shape[-1:] != (self.features,):
                raise self._unrecognised(
                    theta, {"keypoints": self.event_shape, "flat keypoints": (self.features,)}
                )
            theta = theta.unflatten(-1, self.event_shape)
        self.second_look.points(theta)
        return theta

    def centre(self, pose: Tensor) -> Centre:
        """As :meth:`PoseSpace.centre`."""
        return Centre(pose, pose.flatten(start_dim=-2))

    def to_vector(self, theta: Tensor, centre: Centre | None = None) -> Tensor:
        """As :meth:`PoseSpace.to_vector`: the keypoints minus those of the centre, (..., 3 J)."""
        return _less(self.as_pose(theta).flatten(start_dim=-2), centre)

    def to_pose(self, x: Tensor, centre: Centre | None = None) -> Tensor:
        """Convert vectors (..., 3 J) to keypoints (..., J, 3)."""
        return _plus(x, centre).unflatten(-1, self.event_shape)


@in_full_precision
def _product(first: Tensor, second: Tensor) -> Tensor:
    return first @ second


def _less(x: Tensor, centre: Centre | None) -> Tensor:
    return x if centre is None else x - centre.frame_for(x.ndim - 1)


def _plus(x: Tensor, centre: Centre | None) -> Tensor:
    return x if centre is None else x + centre.frame_for(x.ndim - 1)


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
