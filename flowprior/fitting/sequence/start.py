"""First poses of a sequence, from the posterior of each frame."""

import torch
from torch import Tensor

from flowprior.fitting.sequence.rig import PointRig
from flowprior.prior.posterior import PosePrior
from flowprior.rotations import matrix_to_rotvec, mean_rotation, rotvec_to_matrix
from flowprior.skeleton import SMPL_24, Skeleton, shared_joints

__all__ = [
    "FRAMES_AT_ONCE",
    "noise_of",
    "poses_of_joints",
    "smooth",
    "smooth_rotations",
    "with_root",
    "without_gaps",
]

# Bounds the memory of posteriors of single frames.
FRAMES_AT_ONCE = 512
"""Number of frames whose single fits or posteriors are computed together."""


def kernel(width: float, like: Tensor) -> Tensor:
    """Gaussian weights (2 R + 1,) of a standard deviation in frames, R = 3 widths."""
    reach = max(1, round(3 * width))
    away = torch.arange(-reach, reach + 1).to(like)
    return torch.exp(-0.5 * (away / max(width, 1e-3)) ** 2)


def _shifted(value: Tensor, by: int) -> Tensor:
    """(P, T, ...) moved along time, with zeros at the end."""
    out = torch.zeros_like(value)
    frames = value.shape[1]
    if abs(by) < frames:
        out[:, max(0, -by) : frames - max(0, by)] = value[:, max(0, by) : frames + min(0, by)]
    return out


def smooth(value: Tensor, known: Tensor, width: float) -> Tensor:
    """Gaussian smoothing of (P, T, ...) over known entries; NaN where none is near.

    Args:
        value: (P, T, ..., C).
        known: (P, T, ...) bool.
        width: Standard deviation, frames.
    """
    weight = known.to(value)[..., None]
    value = torch.where(known[..., None], value, 0)
    total, count = torch.zeros_like(value), torch.zeros_like(weight)
    weights = kernel(width, value)
    reach = len(weights) // 2
    for by, share in zip(range(-reach, reach + 1), weights.tolist(), strict=True):
        total += share * _shifted(value, by)
        count += share * _shifted(weight, by)
    return torch.where(count > 0, total / count.clamp(min=1e-12), torch.nan)


def smooth_rotations(rotation: Tensor, known: Tensor, width: float) -> Tensor:
    """Chordal means (P, T, J, 3, 3) over neighbouring known frames (P, T)."""
    flat = rotation.flatten(start_dim=-2)
    mean = smooth(flat, known[..., None].expand(flat.shape[:-1]), width)
    mean = torch.where(mean.isnan(), flat, mean).unflatten(-1, (3, 3))
    return mean_rotation(mean[..., None, :, :])


def without_gaps(rotation: Tensor, known: Tensor) -> Tensor:
    """Fill unknown frames along the geodesic between the known ones on either side.

    Args:
        rotation: (P, T, J, 3, 3).
        known: (P, T) bool; people without any known frame are left as they are.
    """
    frames = torch.arange(known.shape[1], device=known.device).expand_as(known)
    none = torch.full_like(frames, -1)
    before = torch.where(known, frames, none).cummax(dim=1).values
    later = torch.where(known, -frames, torch.full_like(frames, -(10**9)))
    after = -later.flip(1).cummax(dim=1).values.flip(1)
    first = torch.where(before < 0, after, before)
    last = torch.where(after >= 10**9, before, after)
    lost = (first < 0) | (first >= 10**9)
    first, last = (torch.where(lost, frames, each) for each in (first, last))
    share = (frames - first).to(rotation) / (last - first).clamp(min=1)
    row = torch.arange(len(known), device=known.device)[:, None]
    a, b = rotation[row, first], rotation[row, last]
    return a @ rotvec_to_matrix(share[..., None, None] * matrix_to_rotvec(a.mT @ b))


def noise_of(points: Tensor) -> Tensor:
    """Standard deviation (P,) per coordinate of measurement noise, from third differences.

    Motion contributes little to third differences, white noise 20 times its variance. NaN if
    nothing is known, as of fewer than four frames.

    Args:
        points: (P, T, K, C), NaN where unknown.
    """
    if points.shape[1] < 4:
        return points.new_full((len(points),), torch.nan)
    third = points.diff(n=3, dim=1).flatten(start_dim=1).abs()
    return third.nanmedian(dim=1).values / (0.6745 * 20**0.5)


@torch.no_grad()
def poses_of_joints(prior: PosePrior, points: Tensor, skeleton: Skeleton) -> Tensor:
    """Poses (P, T, 24, 3, 3) of smoothed joints (P, T, K, 3), NaN where unknown.

    Raises:
        ValueError: The prior has no 3D joints as evidence, or the joint set fewer than four of
            SMPL's.
    """
    theirs, ours = shared_joints(skeleton, SMPL_24)
    if len(ours) < 4:
        raise ValueError(
            f"{skeleton.name} shares {len(ours)} joints with SMPL's: pass start=..., first poses"
        )
    evidence = torch.full((*points.shape[:2], 24, 3), torch.nan).to(points)
    evidence[:, :, list(ours)] = points[:, :, list(theirs)]
    modes = [
        prior.given(joints_3d=some.to(prior.flow.dtype)).mode()
        for some in evidence.flatten(0, 1).split(FRAMES_AT_ONCE)
    ]
    pose = prior.space.to_matrix(torch.cat(modes)).to(points)  # type: ignore[attr-defined]
    return with_root(pose).unflatten(0, points.shape[:2])


def with_root(pose: Tensor) -> Tensor:
    """Poses (N, 24, 3, 3) of poses with or without the root."""
    if pose.shape[1] == SMPL_24.num_joints:
        return pose
    return torch.cat([torch.eye(3).to(pose).expand(len(pose), 1, 3, 3), pose], dim=1)


def turned_onto(rig: PointRig, rotation: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the root of poses (P, T, 24, 3, 3) so that the rig lies on points (P, T, K, 3).

    Returns:
        The poses, and translations (P, T, 3).
    """
    shape = rotation.new_zeros(rig.num_shapes)
    posed = rig.pose(rotation, shape).points
    seen = (points.isfinite().all(dim=-1, keepdim=True)).to(posed)
    count = seen.sum(dim=-2, keepdim=True).clamp(min=1)
    target = torch.where(seen > 0, points, 0)
    here = posed - (seen * posed).sum(dim=-2, keepdim=True) / count
    there = target - (seen * target).sum(dim=-2, keepdim=True) / count
    moment = (seen * there).mT @ here
    enough = (seen.sum(dim=(-2, -1)) > 3)[..., None, None]
    turn = mean_rotation(torch.where(enough, moment, torch.eye(3).to(moment))[..., None, :, :])
    rotation = torch.cat(
        [turn[..., None, :, :] @ rotation[..., :1, :, :], rotation[..., 1:, :, :]], dim=-3
    )
    posed = rig.pose(rotation, shape).points
    transl = (seen * (target - posed)).sum(dim=-2) / count[..., 0]
    return rotation, transl
