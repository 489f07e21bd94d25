"""Paths between two poses through the latent space of a posterior: `interpolate`."""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_count
from flowprior.fitting.latent_search import frozen
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import RotationSpace

__all__ = ["interpolate", "interpolate_latents"]

# Directions closer than this to each other, or to opposite ones, span no plane.
SMALLEST_SINE = 1e-4


def interpolate(
    prior: PosePrior | PosePosterior, start: Tensor, end: Tensor, num_steps: int = 10
) -> Tensor:
    """Poses on a path of likely poses from one pose to another.

    The path runs through the latent space of the posterior, see :func:`interpolate_latents`. Joints
    outside the density, known ones and those of ``rest_joints``, rotate along the shortest path
    between their two rotations.

    Args:
        prior: A prior, whose marginal ``prior.given()`` is used, or a posterior with one context
            per pair of poses or a single one for all, such as ``prior.given(keypoints_2d=...)``.
        start: (*batch, J, k), in any accepted form.
        end: As ``start``.
        num_steps: Number n of poses, at least 2, with both ends.

    Returns:
        (*batch, n, J, 6), or (*batch, n, J, 3) for 3D keypoints. The first and the last pose are
        the given ones, exactly.

    Raises:
        TypeError: ``prior`` is neither a prior nor a posterior.
        ValueError: The two poses have different shapes or do not fit the posterior, hold NaN or
            infinity, or ``num_steps`` is below 2.
    """
    require_count("num_steps", num_steps, least=2)
    posterior = prior if isinstance(prior, PosePosterior) else frozen(prior).given()
    space = posterior.prior.space
    first, last = space.as_pose(start), space.as_pose(end)
    if first.shape != last.shape:
        raise ValueError(
            f"start and end must have the same shape, got {tuple(start.shape)} and "
            f"{tuple(end.shape)}"
        )
    z = interpolate_latents(posterior.encode(first), posterior.encode(last), num_steps)
    poses = posterior.decode(z)
    first, last = first.to(poses).unsqueeze(-3), last.to(poses).unsqueeze(-3)
    known = posterior.known
    if known is not None and isinstance(space, RotationSpace):
        axes = (1,) * (poses.ndim - known.ndim - 1)
        held = known.reshape(*posterior.batch_shape, *axes, space.joints, 1)
        poses = torch.where(held, _geodesic(space, first, last, num_steps), poses)
    return torch.cat([first, poses[..., 1:-1, :, :], last], dim=-3)


def interpolate_latents(start: Tensor, end: Tensor, num_steps: int) -> Tensor:
    """Latents between two latents: the direction turns steadily, the length changes steadily.

    Typical latents of a normal density in many dimensions have about the same length. A straight
    line between two of them passes closer to 0, where poses are smoother than any sample; this path
    keeps the length. Between opposite latents, and from or to 0, the path is straight.

    Args:
        start: (..., D).
        end: (..., D).
        num_steps: Number n of latents, with both ends.

    Returns:
        (..., n, D).

    References:
        Shoemake, *Animating Rotation with Quaternion Curves*, 1985, for the path on the sphere;
        White, *Sampling Generative Networks*, 2016, for its use with latents.
    """
    share = torch.linspace(0, 1, num_steps, dtype=start.dtype, device=start.device)[:, None]
    start, end = start.unsqueeze(-2), end.unsqueeze(-2)
    lengths = [each.norm(dim=-1, keepdim=True) for each in (start, end)]
    tiny = torch.finfo(start.dtype).tiny
    first, last = (
        each / length.clamp(min=tiny) for each, length in zip((start, end), lengths, strict=True)
    )
    angle = 2 * torch.atan2(
        (last - first).norm(dim=-1, keepdim=True), (last + first).norm(dim=-1, keepdim=True)
    )
    sine = angle.sin()
    turned = ((1 - share) * angle).sin() * first + (share * angle).sin() * last
    length = (1 - share) * lengths[0] + share * lengths[1]
    round_ = length * turned / sine.clamp(min=SMALLEST_SINE)
    spans = (sine > SMALLEST_SINE) & (lengths[0] > tiny) & (lengths[1] > tiny)
    return torch.where(spans, round_, (1 - share) * start + share * end)


def _geodesic(space: RotationSpace, first: Tensor, last: Tensor, num_steps: int) -> Tensor:
    """Shortest rotations between poses (..., 1, J, 6): (..., n, J, 6)."""
    begin, end = space.to_matrix(first), space.to_matrix(last)
    turn = rotations.matrix_to_rotvec(begin.mT @ end)
    share = torch.linspace(0, 1, num_steps, dtype=turn.dtype, device=turn.device)
    turned = begin @ rotations.rotvec_to_matrix(share[:, None, None] * turn)
    return rotations.matrix_to_rot6d(turned, space.layout)
