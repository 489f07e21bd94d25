"""Uncertainty of every joint of a posterior, in millimetres and degrees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.prior.spaces import PoseSpace, RotationSpace
from flowprior.skeleton import SMPL_24, Skeleton

__all__ = ["JointUncertainty", "PosedBody", "joined", "require_smpl", "uncertainty_of"]


class PosedBody(Protocol):
    """The part of :class:`flowprior.body.BodyModel` that is needed here."""

    def keypoints(
        self, theta: Tensor, skeleton: Skeleton | None = None, betas: Tensor | None = None
    ) -> Tensor:
        """Keypoints (..., K, 3) in metres of poses (..., 24, 3, 3)."""


@dataclass(frozen=True)
class JointUncertainty:
    r"""How far joints may lie from the answer of a posterior, its mode.

    Distances are those of samples: a radius of level q is the q-quantile of their distances to the
    mode, so a share q of the posterior's mass lies within it. Positions are relative to the pelvis.

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
        distances_mm: (\*batch, n, K) distances of the samples to the mode, ascending.
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

    def confidence(self, within_mm: float) -> Tensor:
        """Probability that a joint lies within a distance of the answer.

        Args:
            within_mm: The distance in millimetres, such as 50 for grasping, 150 for PCK.

        Returns:
            (*batch, K) in [0, 1]: the share of the samples that lie within it.

        Raises:
            ValueError: If the distance is negative or NaN.
        """
        if not within_mm >= 0:
            raise ValueError(f"within_mm must be at least 0, got {within_mm}")
        return (self.distances_mm <= within_mm).to(self.std_mm.dtype).mean(dim=-2)


def require_smpl(space: PoseSpace) -> RotationSpace:
    """The space of poses that a body can take; ValueError for any other."""
    if isinstance(space, RotationSpace) and space.joints in (23, 24):
        return space
    raise ValueError(
        "joint_uncertainty needs a prior over the rotations of SMPL's 24 joints, or of the 23 "
        f"below the root, got one over poses of shape {tuple(space.event_shape)}"
    )


def uncertainty_of(
    samples: Tensor,
    mode: Tensor,
    body: PosedBody,
    skeleton: Skeleton = SMPL_24,
    betas: Tensor | None = None,
) -> JointUncertainty:
    """Uncertainty from samples of posteriors.

    Args:
        samples: (B, n, J, 3, 3) rotations of SMPL's 24 joints or the 23 below the root.
        mode: (B, J, 3, 3).
        body: The body.
        skeleton: The joint set of the positions.
        betas: Shape of the body, (B, 10); the average shape if None.
    """
    centre = _positions(body, mode[:, None], skeleton, betas)
    places = _positions(body, samples, skeleton, betas)
    distances = (places - centre).norm(dim=-1).sort(dim=1).values
    std, direction, share = _spread(places)
    angles = torch.rad2deg(rotations.geodesic_distance(samples, mode[:, None]))
    ascending = angles.sort(dim=1).values
    return JointUncertainty(
        std_mm=std,
        radius_50_mm=_quantile(distances, 0.5),
        radius_90_mm=_quantile(distances, 0.9),
        direction=direction,
        direction_share=share,
        std_degrees=angles.square().mean(dim=1).sqrt(),
        radius_50_degrees=_quantile(ascending, 0.5),
        radius_90_degrees=_quantile(ascending, 0.9),
        distances_mm=distances,
    )


def joined(parts: Sequence[JointUncertainty], batch: torch.Size) -> JointUncertainty:
    """Blocks of rows as one, with the given batch shape."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    whole = (torch.cat(column) for column in columns)
    return JointUncertainty(*(value.reshape(*batch, *value.shape[1:]) for value in whole))


def _positions(body: PosedBody, matrix: Tensor, skeleton: Skeleton, betas: Tensor | None) -> Tensor:
    """Joints (B, n, K, 3) in mm of poses (B, n, J, 3, 3); without a root in the root's frame."""
    if matrix.shape[-3] == SMPL_24.num_joints - 1:
        upright = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
        root = upright.expand(*matrix.shape[:-3], 1, 3, 3)
        matrix = torch.cat((root, matrix), dim=-3)
    # The pelvis does not move with the pose, so no position needs to be made relative to it.
    return 1000 * body.keypoints(matrix, skeleton, betas)


def _spread(places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Std (B, K), direction (B, K, 3) and its share (B, K) of places (B, n, K, 3)."""
    around = (places - places.mean(dim=1, keepdim=True)).movedim(1, -1)
    covariance = around @ around.mT / around.shape[-1]
    values, vectors = torch.linalg.eigh(covariance)
    total = values.clamp(min=0).sum(dim=-1)
    return total.sqrt(), vectors[..., -1], values[..., -1] / total


def _quantile(ascending: Tensor, level: float) -> Tensor:
    """Quantile of sorted values (*batch, n, K), interpolated linearly: (*batch, K)."""
    position = level * (ascending.shape[-2] - 1)
    lower = int(position)
    upper = min(lower + 1, ascending.shape[-2] - 1)
    return torch.lerp(ascending[..., lower, :], ascending[..., upper, :], position - lower)
