"""Measurements of frames: 3D joints, 2D keypoints, or the poses of a regressor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowprior.fitting.sequence.normal import NormalEquations
from flowprior.fitting.sequence.rig import PointRig
from flowprior.fitting.sequence.tangent import inverse_right_jacobian
from flowprior.rotations import matrix_to_rotvec

__all__ = ["Joints3d", "Keypoints2d", "Measurement", "Rotations", "State"]

DEGREES_OF_FREEDOM = 4.0
NEAREST_M = 0.1


@dataclass(frozen=True)
class State:
    """Windows of a sequence.

    Args:
        rotation: (B, T, 24, 3, 3).
        transl: (B, T, 3) metres.
        shape: (Q, S).
        person: (B,) index of each window's person.
    """

    rotation: Tensor
    transl: Tensor
    shape: Tensor
    person: Tensor


class Measurement(Protocol):
    """What was measured in each frame."""

    def add_to(self, system: NormalEquations, state: State, joints: Sequence[int]) -> None:
        """Add the terms; ``joints`` are those whose rotations are variables."""


def _weights(square: Tensor, number: int, robust: bool) -> Tensor:
    """Weights of residuals with squares (in units of the noise) of vectors of some length."""
    if not robust:
        return torch.ones_like(square)
    return (DEGREES_OF_FREEDOM + number) / (DEGREES_OF_FREEDOM + square)


@dataclass(frozen=True)
class Joints3d:
    """Positions of the points of a rig.

    Args:
        rig: The rig.
        points: (B, T, K, 3) metres, NaN where unknown.
        sigma: (B, 1, 1) or (B, T, K) standard deviation per coordinate, metres.
        robust: Whether some points may be far off.
        fit_shape: Whether the shape is a variable.
    """

    rig: PointRig
    points: Tensor
    sigma: Tensor
    robust: bool = False
    fit_shape: bool = True

    def add_to(self, system: NormalEquations, state: State, joints: Sequence[int]) -> None:
        """As :meth:`Measurement.add_to`."""
        posed = self.rig.pose(state.rotation, state.shape[state.person][:, None])
        away = posed.points + state.transl[..., None, :] - self.points
        seen = away.isfinite().all(dim=-1)
        away = torch.where(seen[..., None], away, 0)
        square = away.square().sum(dim=-1) / self.sigma.square()
        weight = seen * _weights(square, 3, self.robust) / self.sigma.square()
        weight = weight[..., None].expand(away.shape).flatten(start_dim=-2)
        jacobian = posed.rotation_jacobian(state.rotation, joints)
        still = torch.eye(3).to(away).repeat(self.rig.num_points, 1)
        jacobian = torch.cat([jacobian, still.expand(*jacobian.shape[:-1], 3)], dim=-1)
        residual = away.flatten(start_dim=-2)
        system.add_residual(residual, jacobian, weight)
        if self.fit_shape and self.rig.num_shapes:
            system.add_shape(residual, jacobian, posed.shape_jacobian(), weight)


@dataclass(frozen=True)
class Keypoints2d:
    """Projections of the points of a rig by a pinhole camera.

    Args:
        rig: The rig.
        points: (B, T, K, 2) pixels relative to the principal point.
        conf: (B, T, K) weights, 0 where unknown.
        focal: (B, 1, 1) or (B, T, 1) focal length, pixels.
        sigma: (B, 1, 1) or (B, T, 1) standard deviation, pixels.
        fit_shape: Whether the shape is a variable.
    """

    rig: PointRig
    points: Tensor
    conf: Tensor
    focal: Tensor
    sigma: Tensor
    fit_shape: bool = True

    def add_to(self, system: NormalEquations, state: State, joints: Sequence[int]) -> None:
        """As :meth:`Measurement.add_to`; a detector's errors have heavy tails."""
        posed = self.rig.pose(state.rotation, state.shape[state.person][:, None])
        place = posed.points + state.transl[..., None, :]
        depth = place[..., 2].clamp(min=NEAREST_M)
        flat = place[..., :2] / depth[..., None]
        residual = self.focal[..., None] * flat - self.points
        seen = self.conf > 0
        residual = torch.where(seen[..., None], residual, 0)
        square = residual.square().sum(dim=-1) / self.sigma.square()
        weight = self.conf * _weights(square, 2, True) / self.sigma.square()
        # d (x / z) = (dx - (x / z) dz) / z
        scale = (self.focal / depth)[..., None, None]
        project = torch.zeros(*place.shape[:-1], 2, 3).to(place)
        project[..., 0, 0] = project[..., 1, 1] = 1
        project[..., :, 2] = -flat
        project = scale * project
        jacobian = posed.rotation_jacobian(state.rotation, joints).unflatten(-2, (-1, 3))
        jacobian = torch.cat([project @ jacobian, project], dim=-1).flatten(-3, -2)
        weight = weight[..., None].expand(residual.shape).flatten(start_dim=-2)
        residual = residual.flatten(start_dim=-2)
        system.add_residual(residual, jacobian, weight)
        if self.fit_shape and self.rig.num_shapes:
            by_shape = project @ posed.shape_jacobian().unflatten(-2, (-1, 3))
            system.add_shape(residual, jacobian, by_shape.flatten(-3, -2), weight)


@dataclass(frozen=True)
class Rotations:
    """Joint rotations of a regressor, and optionally translations.

    Args:
        rotation: (B, T, 24, 3, 3).
        sigma: (B, T, 24) standard deviation about each axis, radians; infinite where unknown.
        transl: (B, T, 3) metres; None without.
        transl_sigma: (B, T) metres; infinite where unknown.
    """

    rotation: Tensor
    sigma: Tensor
    transl: Tensor | None = None
    transl_sigma: Tensor | None = None

    def add_to(self, system: NormalEquations, state: State, joints: Sequence[int]) -> None:
        """As :meth:`Measurement.add_to`; a regressor is far off in some frames."""
        own = list(joints)
        away = matrix_to_rotvec(self.rotation[:, :, own].mT @ state.rotation[:, :, own])
        sigma = self.sigma[:, :, own]
        weight = _weights(away.square().sum(dim=-1) / sigma.square(), 3, True) / sigma.square()
        jacobian = inverse_right_jacobian(away)
        weighted = weight[..., None, None] * jacobian
        size = 3 * len(own)
        pull = (weighted.mT @ away[..., None])[..., 0]
        system.gradient[..., :size] += pull.flatten(start_dim=-2)
        blocks = system.diagonal[..., :size, :size].unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))
        blocks.diagonal(dim1=-4, dim2=-2).add_((jacobian.mT @ weighted).permute(0, 1, 3, 4, 2))
        if self.transl is not None and self.transl_sigma is not None:
            away = state.transl - self.transl
            pull = self.transl_sigma.square().reciprocal()[..., None].expand(away.shape)
            place = torch.arange(size, size + 3)
            system.gradient[..., size:] += torch.where(pull > 0, pull * away, 0)
            system.diagonal[..., place, place] += pull
