"""Uncertainty of every joint of a posterior, in millimetres and degrees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.prior.joint_factors import JointFactors
from flowprior.prior.spaces import PoseSpace, RotationSpace
from flowprior.skeleton import SMPL_24, SMPLH_52, SMPLX_55, Skeleton, shared_joints

__all__ = [
    "KEPT",
    "JointUncertainty",
    "Measurement",
    "PosedBody",
    "assembled",
    "joined",
    "nearest_joints",
    "on_body",
    "places_on",
    "positions",
    "require_rotations",
    "require_smpl",
    "uncertainty_of",
]

KEPT = 1024
"""Most distances that a result holds for each joint."""


# Joints of the poses that priors are over, by their number.
_JOINTS: Mapping[int, tuple[Skeleton, range]] = {
    21: (SMPL_24, range(1, 22)),
    22: (SMPL_24, range(22)),
    23: (SMPL_24, range(1, 24)),
    24: (SMPL_24, range(24)),
    51: (SMPLH_52, range(1, 52)),
    52: (SMPLH_52, range(52)),
    54: (SMPLX_55, range(1, 55)),
    55: (SMPLX_55, range(55)),
}


class PosedBody(Protocol):
    """The part of :class:`flowprior.body.Body` that is needed here."""

    @property
    def skeleton(self) -> Skeleton:
        """The J joints that rotate."""

    def keypoints(
        self, theta: Tensor, skeleton: Skeleton | None = None, betas: Tensor | None = None
    ) -> Tensor:
        """Keypoints (..., K, 3) in metres of poses (..., J, 3, 3)."""


@dataclass(frozen=True)
class JointUncertainty:
    r"""How far joints may lie from the answer of a posterior, its mode.

    Distances are those of samples: a radius of level q is the q-quantile of their distances to the
    mode. With the conformal factors of a calibrated prior, they are stretched so that the q-radius
    contains the truth of a share q of the poses of new people, and everything here agrees with
    that. Positions are relative to the pelvis.

    Attributes:
        std_mm: (\*batch, K) root of the trace of the covariance of the position.
        radius_50_mm: (\*batch, K) half of the mass lies within it.
        radius_90_mm: (\*batch, K) 90 % of the mass lies within it.
        direction: (\*batch, K, 3) unit vector along which the position varies most, in the frame
            of the poses; its sign has no meaning. In a camera's frame it is mostly the depth.
        direction_share: (\*batch, K) share of the variance along it: 1/3 for a sphere, 1 for a
            line; NaN without variance.
        std_degrees: (\*batch, J) root mean square of the angles between the rotations of samples
            and the mode, each relative to its parent.
        radius_50_degrees: (\*batch, J).
        radius_90_degrees: (\*batch, J).
        distances_mm: (\*batch, n, K) distances of the samples to the mode, ascending; of more than
            :data:`KEPT` samples, that many quantiles.
        distances_degrees: (\*batch, n, J) angles of the samples to the mode, ascending, likewise.
        calibrated: Whether conformal factors are applied.
    """

    std_mm: Tensor
    radius_50_mm: Tensor
    radius_90_mm: Tensor
    direction: Tensor
    direction_share: Tensor
    std_degrees: Tensor
    radius_50_degrees: Tensor
    radius_90_degrees: Tensor
    distances_mm: Tensor
    distances_degrees: Tensor
    calibrated: bool = False

    def confidence(self, within_mm: float) -> Tensor:
        """Probability that a joint lies within a distance of the answer.

        Args:
            within_mm: The distance in millimetres, such as 50 for grasping, 150 for PCK.

        Returns:
            (*batch, K) in [0, 1]: the share of the samples that lie within it.

        Raises:
            ValueError: If the distance is negative or NaN.
        """
        return _share_within(self.distances_mm, within_mm, "within_mm")

    def rotation_confidence(self, within_degrees: float) -> Tensor:
        """Probability that a rotation lies within an angle of the answer: (*batch, J) in [0, 1].

        Args:
            within_degrees: The angle, relative to the parent joint.

        Raises:
            ValueError: If the angle is negative or NaN.
        """
        return _share_within(self.distances_degrees, within_degrees, "within_degrees")

    def radius_mm(self, level: float) -> Tensor:
        """Radius (*batch, K) in mm that contains a share ``level``, in [0, 1], of the mass.

        Raises:
            ValueError: If the level is not in [0, 1].
        """
        return _quantile(self.distances_mm, _checked_level(level))

    def radius_degrees(self, level: float) -> Tensor:
        """Radius (*batch, J) in degrees that contains a share ``level``, in [0, 1], of the mass.

        Raises:
            ValueError: If the level is not in [0, 1].
        """
        return _quantile(self.distances_degrees, _checked_level(level))


def require_smpl(space: PoseSpace) -> RotationSpace:
    """The space of SMPL's poses; ValueError for any other."""
    if isinstance(space, RotationSpace) and space.joints in (23, 24):
        return space
    raise ValueError(
        "expected a prior over the rotations of SMPL's 24 joints, or of the 23 below the root, got "
        f"one over poses of shape {tuple(space.event_shape)}"
    )


def require_rotations(space: PoseSpace) -> RotationSpace:
    """The space of poses that a body can take; ValueError for any other."""
    if isinstance(space, RotationSpace):
        return space
    raise ValueError(
        "joint_uncertainty needs a prior over the rotations of joints, got one over poses of shape "
        f"{tuple(space.event_shape)}"
    )


def on_body(matrix: Tensor, skeleton: Skeleton) -> Tensor:
    """Poses of a prior as those of a body, whose other joints are at rest.

    Joints correspond by their meaning in :mod:`flowprior.skeleton`. The rest pose should be that of
    the SMPL family, a T-pose: rotations are relative to it.

    Args:
        matrix: (..., J, 3, 3), rotations of all joints of the body, of all below its root, or of
            the joints of SMPL, SMPL-H or SMPL-X with or without the root; also of SMPL's first 22
            with or without the root.
        skeleton: The B joints of the body.

    Returns:
        (..., B, 3, 3).

    Raises:
        ValueError: If J is another number, or the body has none of the joints.
    """
    source, target = places_on(matrix.shape[-3], skeleton)
    count = skeleton.num_joints
    if source == target == tuple(range(count)):
        return matrix
    rest = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    whole = rest.expand(*matrix.shape[:-3], count, 3, 3).clone()
    whole[..., list(target), :, :] = matrix[..., list(source), :, :]
    return whole


@cache
def places_on(joints: int, skeleton: Skeleton) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of joints in a pose of ``joints``, and the indices of the same joints of a body.

    Raises:
        ValueError: As :func:`on_body`.
    """
    count = skeleton.num_joints
    if joints == count:
        return tuple(range(count)), tuple(range(count))
    if joints in _JOINTS:
        own, kept = _JOINTS[joints]
        ours, theirs = shared_joints(own, skeleton)
        pairs = [(kept.index(i), j) for i, j in zip(ours, theirs, strict=True) if i in kept]
        if pairs:
            return tuple(i for i, _ in pairs), tuple(j for _, j in pairs)
    if joints == count - 1:
        return tuple(range(joints)), tuple(range(1, count))
    known = ", ".join(map(str, _JOINTS))
    raise ValueError(
        f"{skeleton.name} has {count} joints, a pose of {joints} is not one of it: expected "
        f"{count}, {count - 1} without the root, or joints of the SMPL family that it has ({known})"
    )


class Measurement:
    """Distances of samples to a mode, gathered block by block.

    Args:
        mode: (B, J, 3, 3) rotations, see :func:`on_body`.
        body: The body.
        skeleton: The joint set of the positions.
        betas: Shape of the body, (B, 10); the average shape if None.
    """

    def __init__(
        self, mode: Tensor, body: PosedBody, skeleton: Skeleton, betas: Tensor | None
    ) -> None:
        self.mode, self.body, self.skeleton, self.betas = mode, body, skeleton, betas
        self.centre = positions(body, mode[:, None], skeleton, betas)
        self._millimetres: list[Tensor] = []
        self._degrees: list[Tensor] = []
        self._sums: list[Tensor] = []

    def add(self, samples: Tensor) -> None:
        """Measure samples (B, n, J, 3, 3)."""
        apart = positions(self.body, samples, self.skeleton, self.betas) - self.centre
        self._millimetres.append(apart.norm(dim=-1))
        self._degrees.append(
            torch.rad2deg(rotations.geodesic_distance(samples, self.mode[:, None]))
        )
        moved = apart.movedim(1, -1)
        ones = torch.ones_like(moved[..., :1, :])
        # Sums of 1, x and x x^T, from which the covariance follows.
        extended = torch.cat((moved, ones), dim=-2)
        self._sums.append(extended @ extended.mT)

    def result(self, factors: JointFactors | None = None) -> JointUncertainty:
        """The uncertainty from all samples, calibrated if there are factors."""
        total = torch.stack(self._sums).sum(dim=0)
        count = total[..., 3:, 3:]
        mean = total[..., :3, 3:] / count
        covariance = total[..., :3, :3] / count - mean @ mean.mT
        degrees = torch.cat(self._degrees, dim=1)
        return assembled(
            torch.cat(self._millimetres, dim=1).sort(dim=1).values,
            covariance,
            degrees.sort(dim=1).values,
            factors,
            None if factors is None else nearest_joints(self.body, self.skeleton),
        )


def uncertainty_of(
    samples: Tensor,
    mode: Tensor,
    body: PosedBody,
    skeleton: Skeleton | None = None,
    betas: Tensor | None = None,
) -> JointUncertainty:
    """Uncertainty from samples at hand, such as those of a :class:`BlockPosterior`.

    Args:
        samples: (B, n, J, 3, 3) rotations; of other joints than the body's, see :func:`on_body`.
        mode: (B, J, 3, 3).
        body: The body.
        skeleton: The joint set of the positions; the joints of the body if None.
        betas: Shape of the body, (B, 10); the average shape if None.
    """
    measurement = Measurement(mode, body, skeleton or body.skeleton, betas)
    measurement.add(samples)
    return measurement.result()


def assembled(
    millimetres: Tensor,
    covariance: Tensor,
    degrees: Tensor,
    factors: JointFactors | None,
    nearest: Sequence[int] | None,
) -> JointUncertainty:
    """The uncertainty from distances.

    Args:
        millimetres: (B, n, K) ascending.
        covariance: (B, K, 3, 3) of the positions, in mm^2.
        degrees: (B, m, J) ascending.
        factors: Conformal factors, or None.
        nearest: The joint of SMPL whose factor each of the K joints takes.
    """
    std, direction, share = _spread(covariance)
    if factors is not None:
        raw = millimetres
        by_joint = factors.at("positions", raw.shape[1]).to(raw)[:, nearest]
        millimetres = _stretched(raw, by_joint)
        # The shape of the distribution stays, its size follows the distances.
        size = raw.square().mean(dim=1)
        growth = millimetres.square().mean(dim=1) / size
        std = std * torch.where(size > 0, growth, 1.0).sqrt()
        degrees = _stretched(degrees, factors.at("rotations", degrees.shape[1]).to(degrees))
    return JointUncertainty(
        std_mm=std,
        radius_50_mm=_quantile(millimetres, 0.5),
        radius_90_mm=_quantile(millimetres, 0.9),
        direction=direction,
        direction_share=share,
        std_degrees=degrees.square().mean(dim=1).sqrt(),
        radius_50_degrees=_quantile(degrees, 0.5),
        radius_90_degrees=_quantile(degrees, 0.9),
        distances_mm=_kept(millimetres),
        distances_degrees=_kept(degrees),
        calibrated=factors is not None,
    )


def nearest_joints(body: PosedBody, skeleton: Skeleton) -> list[int]:
    """The joint of SMPL that is nearest to each joint of another set, in the rest pose.

    Only joints that the body has count: fingers of SMPL-H are near its wrists.
    """
    if skeleton == SMPL_24:
        return list(range(SMPL_24.num_joints))
    own, smpl = shared_joints(body.skeleton, SMPL_24)
    rest = torch.eye(3).expand(body.skeleton.num_joints, 3, 3)
    ours = body.keypoints(rest, body.skeleton)[list(own)]
    theirs = body.keypoints(rest, skeleton)
    return [smpl[place] for place in torch.cdist(theirs, ours).argmin(dim=-1).tolist()]


def joined(parts: Sequence[JointUncertainty], batch: torch.Size) -> JointUncertainty:
    """Blocks of rows as one, with the given batch shape."""
    names = [each.name for each in fields(JointUncertainty) if each.name != "calibrated"]
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    shaped = {name: value.reshape(*batch, *value.shape[1:]) for name, value in whole.items()}
    return JointUncertainty(**shaped, calibrated=parts[0].calibrated)


def positions(body: PosedBody, matrix: Tensor, skeleton: Skeleton, betas: Tensor | None) -> Tensor:
    """Joints (B, n, K, 3) in mm of poses (B, n, J, 3, 3); without a root in the root's frame."""
    # The pelvis does not move with the pose, so no position needs to be made relative to it.
    return 1000 * body.keypoints(on_body(matrix, body.skeleton), skeleton, betas)


def _spread(covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Std (B, K), direction (B, K, 3) and its share (B, K) of covariances (B, K, 3, 3)."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0)
    total = values.sum(dim=-1)
    return total.sqrt(), vectors[..., -1], values[..., -1] / total


def _stretched(ascending: Tensor, factors: Tensor) -> Tensor:
    """Distances (B, n, K) times factors (n, K), kept in ascending order."""
    return (ascending * factors).cummax(dim=1).values


def _kept(ascending: Tensor) -> Tensor:
    """At most :data:`KEPT` quantiles of sorted distances (B, n, K)."""
    if ascending.shape[1] <= KEPT:
        return ascending
    levels = torch.linspace(0, 1, KEPT).tolist()
    return torch.stack([_quantile(ascending, level) for level in levels], dim=1)


def _share_within(ascending: Tensor, limit: float, name: str) -> Tensor:
    if not limit >= 0:
        raise ValueError(f"{name} must be at least 0, got {limit}")
    return (ascending <= limit).to(ascending.dtype).mean(dim=-2)


def _checked_level(level: float) -> float:
    if not 0 <= level <= 1:
        raise ValueError(f"level must be in [0, 1], got {level}")
    return level


def _quantile(ascending: Tensor, level: float) -> Tensor:
    """Quantile of sorted values (*batch, n, K), interpolated linearly: (*batch, K)."""
    position = level * (ascending.shape[-2] - 1)
    lower = int(position)
    upper = min(lower + 1, ascending.shape[-2] - 1)
    return torch.lerp(ascending[..., lower, :], ascending[..., upper, :], position - lower)
