"""The pose prior as a Gaussian around the present poses of a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.fitting.sequence.normal import NormalEquations
from flowprior.fitting.sequence.tangent import chart_with_jacobian
from flowprior.flow.jacobian import latent_and_jacobian
from flowprior.prior.posterior import PosePosterior
from flowprior.prior.spaces import So3Space
from flowprior.rotations import matrix_to_rotvec
from flowprior.skeleton import SMPL_24

__all__ = ["PoseTerm", "free_joints"]

# Frames whose Jacobians are computed at once.
BLOCK = 128


def free_joints(posterior: PosePosterior) -> tuple[int, ...]:
    """Joints of SMPL that the density of a posterior is over.

    Raises:
        ValueError: The posterior is not over SMPL's rotations in the space "so3".
    """
    space = posterior.prior.space
    if not isinstance(space, So3Space) or space.joints not in (23, 24):
        raise ValueError(
            'a sequence needs a prior over the rotations of SMPL\'s 24 or 23 joints, space="so3"'
        )
    rest = posterior.prior.rest_joints
    start = SMPL_24.num_joints - space.joints
    return tuple(joint + start for joint in range(space.joints) if joint not in rest)


@dataclass
class PoseTerm:
    r"""Half of the weight times :math:`\|z\|^2`, with z linear in the rotations.

    The latent z of a pose is standard normal under the prior, up to the length that a heavy-tailed
    base adds to whole poses. Near a pose, :math:`z(R \exp d) = z(R) + J d`, so the prior is a
    Gaussian with information :math:`J^T J`. Consecutive frames show nearly the same pose, so each
    counts for less than one.

    Args:
        posterior: One posterior for all frames, or one per frame (N,), of the frames in order.
        weight: Weight of a frame.
        stride: Only one frame of this many carries the term, with as many times the weight; for one
            posterior for all frames.
    """

    posterior: PosePosterior
    weight: float
    stride: int = 1
    _around: Tensor | None = None
    _information: Tensor | None = None
    _pull: Tensor | None = None

    def frames(self, count: int) -> Tensor:
        """Indices of the frames of a window of ``count`` that carry the term."""
        return torch.arange(min(self.stride // 2, count // 2), count, self.stride)

    @torch.no_grad()
    def linearise(self, rotation: Tensor) -> None:
        """Expand the term around rotations (B, T, 24, 3, 3)."""
        joints = list(free_joints(self.posterior))
        space = self.posterior.prior.space
        rotation = rotation[:, self.frames(rotation.shape[1])]
        lead = rotation.shape[:2]
        flat = rotation.reshape(-1, *rotation.shape[2:])
        own = flat if space.joints == SMPL_24.num_joints else flat[:, 1:]
        centre = self.posterior.centre
        if centre is not None:
            own = centre.frame.to(own).mT @ own
        u, chart = chart_with_jacobian(own)
        first = SMPL_24.num_joints - space.joints
        kept = [joint - first for joint in joints]
        free = (3 * torch.tensor(kept)[:, None] + torch.arange(3)).flatten().to(u.device)
        flow, context = self.posterior.prior.flow, self.posterior.context
        shared = not self.posterior.batch_shape
        information, pull = [], []
        for start in range(0, len(u), BLOCK):
            some = slice(start, start + BLOCK)
            few = context if shared else context.rows(start, start + BLOCK)
            x = u[some].flatten(start_dim=1).to(flow.dtype)
            z, jacobian = latent_and_jacobian(flow, x, few, free)
            turned = jacobian.unflatten(-1, (-1, 3)).transpose(1, 2) @ chart[some][:, kept].to(z)
            whole = turned.transpose(1, 2).flatten(start_dim=-2)
            information.append(whole.mT @ whole)
            pull.append((whole.mT @ z[..., None])[..., 0])
        self._around = rotation[:, :, joints]
        self._information = torch.cat(information).to(rotation).unflatten(0, lead)
        self._pull = torch.cat(pull).to(rotation).unflatten(0, lead)

    def add_to(self, system: NormalEquations, rotation: Tensor, joints: Sequence[int]) -> None:
        """Add the term, as last expanded, at rotations (B, T, 24, 3, 3)."""
        if self._around is None or self._information is None or self._pull is None:
            self.linearise(rotation)
        assert self._around is not None
        assert self._information is not None
        assert self._pull is not None
        own = list(free_joints(self.posterior))
        frames = self.frames(rotation.shape[1])
        turned = self._around.mT @ rotation[:, frames[:, None], own]
        away = matrix_to_rotvec(turned).flatten(start_dim=-2)
        pull = self._pull + (self._information @ away[..., None])[..., 0]
        at = [joints.index(joint) for joint in own]
        place = (3 * torch.tensor(at)[:, None] + torch.arange(3)).flatten()
        weight = self.weight * rotation.shape[1] / len(frames)
        system.gradient[:, frames[:, None], place] += weight * pull
        at_frames = frames[:, None, None]
        system.diagonal[:, at_frames, place[:, None], place] += weight * self._information
