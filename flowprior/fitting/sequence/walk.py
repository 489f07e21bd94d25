"""The random walk between frames: velocities and accelerations along geodesics."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowprior.fitting.sequence.normal import NormalEquations
from flowprior.fitting.sequence.rates import DEGREES_OF_FREEDOM, MotionRates
from flowprior.fitting.sequence.tangent import inverse_right_jacobian
from flowprior.rotations import matrix_to_rotvec

__all__ = ["Walk"]


@dataclass(frozen=True)
class Walk:
    r"""Small changes of velocity, with heavy tails, of the rotations of some joints.

    The velocity of a joint is :math:`\omega_t = \log(R_t^T R_{t+1})`, and its acceleration
    :math:`\omega_t - \omega_{t-1}`: both are in the axes of frame t, which the rotation from one
    frame to the next leaves unchanged along its axis.

    Args:
        rates: The rates.
        fps: Frames per second.
        joints: The M joints.
        moves: Whether the body moves through space; otherwise the translation is constant.
        strength: Factor of the smoothing: 4 stands for accelerations half as large.
    """

    rates: MotionRates
    fps: float
    joints: tuple[int, ...]
    moves: bool = True
    strength: float = 1.0

    def add_to(
        self, system: NormalEquations, rotation: Tensor, transl: Tensor, *, rough: bool = False
    ) -> None:
        """Add the terms for rotations (B, T, 24, 3, 3) and translations (B, T, 3).

        Args:
            system: The system.
            rotation: The rotations.
            transl: The translations.
            rough: Whether to leave out the covariances between joints, which saves time.
        """
        if rotation.shape[1] < 2:
            return
        own = rotation[:, :, list(self.joints)]
        velocity = matrix_to_rotvec(own[:, :-1].mT @ own[:, 1:])
        after = inverse_right_jacobian(velocity)
        before = -after.mT
        weight = self._weights(velocity, self.rates.velocity, 1)
        self._add(system, velocity, (before, after), weight)
        if rotation.shape[1] > 2:
            change = velocity[:, 1:] - velocity[:, :-1]
            parts = (-before[:, :-1], before[:, 1:] - after[:, :-1], after[:, 1:])
            weight = self._weights(change, self.rates.acceleration, 3)
            if self.whitening is None or rough:
                self._add(system, change, parts, weight)
            else:
                self._add_correlated(system, change, parts, weight, self.whitening.to(change))
        self._add_translation(system, transl)

    @cached_property
    def whitening(self) -> Tensor | None:
        """W (3 M, 3 M) with W^T W the inverse covariance of accelerations over their rates."""
        if self.rates.covariance is None:
            return None
        own = (3 * torch.tensor(self.joints)[:, None] + torch.arange(3)).flatten()
        lower = torch.linalg.cholesky(self.rates.covariance.double()[own[:, None], own])
        identity = torch.eye(len(own), dtype=lower.dtype)
        return torch.linalg.solve_triangular(lower, identity, upper=False)

    def _weights(self, residual: Tensor, rates: Sequence[float], power: int) -> Tensor:
        scale = residual.new_tensor([rates[joint] for joint in self.joints])
        information = self.strength * self.fps**power / scale.square()
        square = residual.square().sum(dim=-1) * information
        nu = DEGREES_OF_FREEDOM
        return information * (nu + 3) / (nu + square)

    def _add(
        self,
        system: NormalEquations,
        residual: Tensor,
        parts: tuple[Tensor, ...],
        weight: Tensor,
    ) -> None:
        """Add residuals (B, N, M, 3) with derivatives (B, N, M, 3, 3) by consecutive frames."""
        count, size = residual.shape[1], 3 * len(self.joints)
        bands = (system.diagonal, system.first, system.second)
        for late, outer in enumerate(parts):
            weighted = weight[..., None, None] * outer
            pull = (weighted.mT @ residual[..., None])[..., 0]
            system.gradient[:, late : late + count, :size] += pull.flatten(start_dim=-2)
            for early in range(late + 1):
                block = weighted.mT @ parts[early]
                place = bands[late - early][:, early : early + count, :size, :size]
                blocks = place.unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))
                blocks.diagonal(dim1=-4, dim2=-2).add_(block.permute(0, 1, 3, 4, 2))

    def _add_correlated(
        self,
        system: NormalEquations,
        residual: Tensor,
        parts: tuple[Tensor, ...],
        weight: Tensor,
        whitening: Tensor,
    ) -> None:
        """The same for accelerations with a covariance."""
        count, size = residual.shape[1], 3 * len(self.joints)
        bands = (system.diagonal, system.first, system.second)
        root = weight.sqrt()[..., None]
        white = (root * residual).flatten(start_dim=-2) @ whitening.mT
        by_joint = whitening.mT.unflatten(0, (-1, 3))  # (M, 3, 3 M)
        turned = [((root[..., None] * part).mT @ by_joint).flatten(-3, -2) for part in parts]
        for late, left in enumerate(turned):
            system.gradient[:, late : late + count, :size] += (left @ white[..., None])[..., 0]
            for early in range(late + 1):
                block = left @ turned[early].mT
                bands[late - early][:, early : early + count, :size, :size] += block

    def _add_translation(self, system: NormalEquations, transl: Tensor) -> None:
        size = 3 * len(self.joints)
        if system.gradient.shape[-1] == size:
            return
        rates = (self.rates.transl_velocity, self.rates.transl_acceleration)
        pairs: tuple[tuple[tuple[float, ...], float], ...] = (
            ((-1.0, 1.0), self.strength * self.fps / rates[0] ** 2),
            ((1.0, -2.0, 1.0), self.strength * self.fps**3 / rates[1] ** 2),
        )
        if not self.moves:
            pairs = (((-1.0, 1.0), 1e6),)
        bands = (system.diagonal, system.first, system.second)
        place = torch.arange(size, size + 3)
        for signs, weight in pairs:
            count = transl.shape[1] - len(signs) + 1
            if count < 1:
                continue
            residual = sum(sign * transl[:, late : late + count] for late, sign in enumerate(signs))
            for late, sign in enumerate(signs):
                system.gradient[:, late : late + count, size:] += weight * sign * residual
                for early in range(late + 1):
                    band = bands[late - early][:, early : early + count]
                    band[..., place, place] += weight * sign * signs[early]
