"""What solved windows say of each frame: poses, points, uncertainty, samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.fitting.sequence.evidence import State
from flowprior.fitting.sequence.normal import Step
from flowprior.fitting.sequence.result import SequenceFit
from flowprior.fitting.sequence.rig import PointRig, Posed
from flowprior.fitting.sequence.solve import Solved
from flowprior.fitting.sequence.windows import Windows
from flowprior.rotations import matrix_to_rot6d, rotvec_to_matrix

__all__ = ["Output", "Sampling"]

JOINTS = 24


@dataclass(frozen=True)
class Sampling:
    """What is computed beside the points of the evidence.

    Args:
        rig: SMPL's joints, for their covariance; None if the body is unknown.
        count: Number of sampled motions.
        generator: Source of randomness.
    """

    rig: PointRig | None
    count: int = 0
    generator: torch.Generator | None = None


class Output:
    """Results of all frames, filled window by window.

    Args:
        rig: The points of the evidence.
        like: Tensor of the dtype and device.
        people: Number P of people.
        frames: Number T of frames.
        joints: The joints whose rotations are variables.
        spread: Factor of the standard deviations.
        sampling: What else is computed.
    """

    def __init__(
        self,
        rig: PointRig,
        like: Tensor,
        people: int,
        frames: int,
        joints: tuple[int, ...],
        spread: float,
        sampling: Sampling,
    ) -> None:
        self.rig, self.joints, self.spread, self.sampling = rig, joints, spread, sampling
        self.rotation = like.new_zeros(people, frames, JOINTS, 3, 3)
        self.transl = like.new_zeros(people, frames, 3)
        self.points = like.new_zeros(people, frames, rig.num_points, 3)
        self.covariance = like.new_zeros(people, frames, rig.num_points, 3, 3)
        self.rotation_std = like.new_zeros(people, frames, JOINTS)
        self.joint_covariance: Tensor | None = None
        if sampling.rig is not None:
            self.joint_covariance = like.new_zeros(people, frames, JOINTS, 3, 3)
        self.samples: Tensor | None = None
        if sampling.count:
            count, size = sampling.count, 3 * len(joints) + 3
            self.samples = like.new_zeros(people, frames, count, JOINTS, 3, 3)
            # The same noise in all windows: samples are continuous from window to window.

            def noise(*shape: int) -> Tensor:
                draw = sampling.generator
                found = torch.randn(
                    *shape, generator=draw, device=None if draw is None else draw.device
                )
                return found.to(like)

            self.noise = noise(people, frames, size, count)
            self.shape_noise = noise(people, rig.num_shapes, count)

    def keep(self, windows: Windows, solved: Solved) -> None:
        """Take the frames that these windows provide."""
        state, step = solved.state, solved.step
        own, shape, between = step.covariance(state.person)
        posed = self.rig.pose(state.rotation, state.shape[state.person][:, None])
        size = 3 * len(self.joints)
        std = own.new_zeros(*own.shape[:2], JOINTS)
        blocks = own.diagonal(dim1=-2, dim2=-1)[..., :size].unflatten(-1, (-1, 3)).sum(dim=-1)
        std[..., list(self.joints)] = torch.rad2deg(blocks.clamp(min=0).sqrt()) * self.spread
        windows.scatter(state.rotation, self.rotation)
        windows.scatter(state.transl, self.transl)
        windows.scatter(posed.points + state.transl[..., None, :], self.points)
        windows.scatter(std, self.rotation_std)
        covariance = self._covariance(posed, state, own, shape, between, moves=True)
        windows.scatter(covariance, self.covariance)
        if self.joint_covariance is not None and self.sampling.rig is not None:
            posed = self.sampling.rig.pose(state.rotation, state.shape[state.person][:, None])
            covariance = self._covariance(posed, state, own, shape, between, moves=False)
            windows.scatter(covariance, self.joint_covariance)
        if self.samples is not None:
            windows.scatter(self._sampled(windows, state, step), self.samples)

    def fit(self, shape: Tensor, seen: Tensor, swapped: Tensor) -> SequenceFit:
        """The whole fit, with shapes (P, S) and flags (P, T)."""
        return SequenceFit(
            matrix_to_rot6d(self.rotation),
            self.rotation,
            self.transl,
            shape,
            self.points,
            self.covariance,
            self.rotation_std,
            seen,
            swapped,
            self.joint_covariance,
            self.samples,
        )

    def _covariance(
        self,
        posed: Posed,
        state: State,
        own: Tensor,
        shape: Tensor,
        between: Tensor,
        *,
        moves: bool,
    ) -> Tensor:
        """Covariances (B, T, K, 3, 3) of points; without ``moves``, relative to the first."""
        jacobian = posed.rotation_jacobian(state.rotation, self.joints)
        by_shape = posed.shape_jacobian().unflatten(-2, (-1, 3))
        still = torch.eye(3).to(jacobian).repeat(posed.points.shape[-2], 1)
        still = still if moves else torch.zeros_like(still)
        jacobian = torch.cat([jacobian, still.expand(*jacobian.shape[:-1], 3)], dim=-1)
        by_point = jacobian.unflatten(-2, (-1, 3))
        if not moves:
            by_point = by_point - by_point[..., :1, :, :]
            by_shape = by_shape - by_shape[..., :1, :, :]
        covariance = (by_point.flatten(-3, -2) @ own).unflatten(-2, (-1, 3)) @ by_point.mT
        if shape.shape[-1]:
            mixed = (by_point.flatten(-3, -2) @ between).unflatten(-2, (-1, 3)) @ by_shape.mT
            covariance = covariance + mixed + mixed.mT
            covariance = covariance + by_shape @ shape[:, None, None] @ by_shape.mT
        return self.spread**2 * covariance

    def _sampled(self, windows: Windows, state: State, step: Step) -> Tensor:
        """Rotations (B, T, S, 24, 3, 3) of sampled motions."""
        noise = windows.gather(self.noise)
        moved = step.factor.spread(noise.to(step.factor.lower[0])).to(noise)
        if step.coupled.shape[-1]:
            lower = torch.linalg.cholesky(step.shape_information)
            shape = torch.linalg.solve_triangular(
                lower.mT, self.shape_noise[windows.person.unique()], upper=True
            )
            moved = moved - step.coupled @ shape[state.person][:, None]
        turn = self.spread * moved[..., : 3 * len(self.joints), :]
        turn = turn.mT.unflatten(-1, (-1, 3))  # (B, T, S, M, 3)
        rotation = state.rotation[:, :, None].expand(-1, -1, turn.shape[2], -1, -1, -1).clone()
        own = list(self.joints)
        rotation[..., own, :, :] = rotation[..., own, :, :] @ rotvec_to_matrix(turn)
        return rotation
