"""The motion prior as a Gaussian of three consecutive poses, around the present ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.fitting.sequence.normal import NormalEquations
from flowprior.fitting.sequence.tangent import chart_with_jacobian, inverse_right_jacobian
from flowprior.flow.base import StudentT
from flowprior.flow.jacobian import latent_and_jacobian
from flowprior.prior.motion import MotionPrior
from flowprior.rotations import matrix_to_rotvec, rotvec_to_matrix

__all__ = ["MotionTerm"]

# Frames whose Jacobians are computed at once.
BLOCK = 128


@dataclass(frozen=True)
class MotionTerm:
    r"""Half of the weight times :math:`\|z_t\|^2`, with z linear in the last three poses.

    The latent :math:`z_t` of a pose given the two before is standard normal under the prior, or
    Student's t, whose tails are a weight of the whole frame. It is a function of
    :math:`\mu(\theta_{t-1}, \theta_{t-2})^T \theta_t`, the difference from the expected pose. The
    derivatives are those of motion at constant velocity: the correction of the head, and what the
    flow knows of the past, are computed anew in each iteration and taken as constant in it.

    Args:
        prior: The motion prior, frozen for speed.
        fps: Frames per second.
        weight: Weight of a frame.
        up: (3,), the direction against gravity in the axes of the poses; None if unknown.
    """

    prior: MotionPrior
    fps: float
    weight: float
    up: Tensor | None = None

    @torch.no_grad()
    def add_to(self, system: NormalEquations, rotation: Tensor, joints: Sequence[int]) -> None:
        """Add the term at rotations (B, T, 24, 3, 3), whose variables are those of ``joints``."""
        count = rotation.shape[1] - 2
        if count < 1:
            return
        own = self.prior.context.moving
        shared = [joint for joint in own if joint in joints]
        lead = rotation.shape[0], count
        early, middle, late = (rotation[:, n : n + count].flatten(0, 1) for n in range(3))
        z, into, parts = self._linear(early, middle, late, shared)
        weight = self.weight * self._tail(z)
        information = (into.mT @ into) * weight[:, None, None]
        pull = (into.mT @ z[..., None])[..., 0] * weight[:, None]
        blocks = information.unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))  # N, j, 3, k, 3
        place = torch.tensor([joints.index(joint) for joint in shared])
        at = (3 * place[:, None] + torch.arange(3)).flatten()
        bands = (system.diagonal, system.first, system.second)
        for later, outer in enumerate(parts):
            turned = (outer.mT @ pull.unflatten(-1, (-1, 3))[..., None])[..., 0]
            pulled = turned.flatten(start_dim=-2).unflatten(0, lead)
            system.gradient[:, later : later + count, at] += pulled.to(system.gradient)
            left = torch.einsum("njba,njbkc->njakc", outer, blocks)
            for earlier in range(later + 1):
                block = torch.einsum("njakc,nkcd->njakd", left, parts[earlier])
                block = block.flatten(3, 4).flatten(1, 2).unflatten(0, lead)
                band = bands[later - earlier][:, earlier : earlier + count]
                band[..., at[:, None], at] += block.to(band)

    def _tail(self, z: Tensor) -> Tensor:
        """Weights (N,) of frames with latents (N, D) under the base density."""
        base = self.prior.step.flow.base
        if not isinstance(base, StudentT):
            return torch.ones_like(z[:, 0])
        nu = base.degrees_of_freedom.to(z)
        size = 3 * len(self.prior.context.moving)
        return (nu + size) / (nu + z.square().sum(dim=-1))

    def _linear(
        self, early: Tensor, middle: Tensor, late: Tensor, joints: list[int]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Latents of N frames, and their derivatives.

        Args:
            early: (N, 24, 3, 3) the poses two frames before.
            middle: (N, 24, 3, 3) the poses one frame before.
            late: (N, 24, 3, 3) the poses.
            joints: M joints to differentiate by.

        Returns:
            z (N, D); its derivatives (N, D, 3 M) with respect to small rotations of the pose; and
            the small rotations (N, M, 3, 3) of the pose that have the same effect as those of the
            two poses before, the earlier first, and of itself.
        """
        prior = self.prior
        flow = prior.step.flow
        previous = torch.stack([early, middle], dim=1).to(flow.dtype)
        up = None if self.up is None else self.up.to(previous).expand(len(late), 3)
        context, past, _ = prior.expectation(previous, fps=self.fps, up=up)
        turn = prior.head(context, past)
        # The hands are at rest, but the term holds them where they are.
        mean = middle @ rotvec_to_matrix(turn).to(middle)
        away = mean.mT @ late
        u, chart = chart_with_jacobian(away)
        rest = list(prior.step.rest_joints)
        u[:, rest] = 0
        free = (3 * torch.tensor(joints)[:, None] + torch.arange(3)).flatten().to(u.device)
        latents, rows = [], []
        for start in range(0, len(u), BLOCK):
            some = slice(start, start + BLOCK)
            posterior = prior.step(context[some])
            x = u[some].flatten(start_dim=1).to(flow.dtype)
            z, jacobian = latent_and_jacobian(flow, x, posterior.context, free)
            turned = jacobian.unflatten(-1, (-1, 3)).transpose(1, 2) @ chart[some][:, joints].to(z)
            latents.append(z)
            rows.append(turned.transpose(1, 2).flatten(start_dim=-2))
        early, middle, late, away = (each[:, joints] for each in (early, middle, late, away))
        step = matrix_to_rotvec(early.mT @ middle)
        inverse = inverse_right_jacobian(step)
        right = torch.linalg.inv(inverse_right_jacobian(turn[:, joints].to(step)))
        through = away.mT @ right
        parts = (
            through @ inverse.mT,
            -late.mT @ middle - through @ inverse,
            torch.eye(3).to(late).expand_as(late),
        )
        return torch.cat(latents), torch.cat(rows), parts
