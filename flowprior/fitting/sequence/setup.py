"""What a sequence fit starts from: the evidence of windows, and first poses."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.fitting.cameras import Cameras
from flowprior.fitting.sequence.evidence import Joints3d, Keypoints2d, Measurement, Rotations
from flowprior.fitting.sequence.rig import PointRig
from flowprior.fitting.sequence.start import (
    FRAMES_AT_ONCE,
    noise_of,
    poses_of_joints,
    smooth,
    smooth_rotations,
    turned_onto,
    with_root,
    without_gaps,
)
from flowprior.fitting.sequence.swaps import unswapped
from flowprior.fitting.sequence.windows import Windows
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import Rot6dSpace
from flowprior.skeleton import COCO_17, SMPL_24, Skeleton, mapping

__all__ = ["Setup", "setup_of_joints", "setup_of_keypoints", "setup_of_theta"]

REFERENCE_FPS = 30.0


@dataclass
class Setup:
    """The evidence of P people, with first poses, and how to select windows of it.

    Args:
        rotation: (P, T, 24, 3, 3).
        transl: (P, T, 3).
        seen: (P, T) frames with evidence.
        swapped: (P, T).
        measure: The measurement of windows, and whether the shape is a variable.
        posterior: The posteriors of some frames, by their indices (N,) among all P T; None for the
            marginal.
        fit_shape: Whether the evidence says anything of the shape.
    """

    rotation: Tensor
    transl: Tensor
    seen: Tensor
    swapped: Tensor
    measure: Callable[[Windows, bool], Measurement]
    posterior: Callable[[Tensor], PosePosterior] | None = None
    fit_shape: bool = True
    rig: PointRig | None = None


def setup_of_theta(
    value: Tensor, found: Tensor, sigma: float | Tensor | None, transl: Tensor | None
) -> Setup:
    """Poses (P, T, 24, k) of a regressor, in frames (P, T), and translations (P, T, 3)."""
    space = Rot6dSpace(SMPL_24.num_joints)
    flat = value.flatten(start_dim=2)
    seen = found & flat.isfinite().all(dim=-1)
    matrix = space.to_matrix(
        torch.where(seen.reshape(*seen.shape, *(1,) * (value.ndim - 2)), value, 0)
    )
    matrix = torch.where(seen[..., None, None, None], matrix, torch.eye(3).to(matrix))
    std = torch.as_tensor(0.1 if sigma is None else sigma).to(matrix)
    _require_sigma(std)
    std = std.expand(*seen.shape, SMPL_24.num_joints)
    std = torch.where(seen[..., None], std, torch.inf)
    filled = without_gaps(matrix, seen)
    zero = matrix.new_zeros(*seen.shape, 3)
    place, place_std = zero, zero[..., 0] + 1e-3
    if transl is not None:
        place = transl.to(matrix).reshape(zero.shape)
        place_std = torch.where(seen, 0.02, torch.inf).to(matrix)
        place = torch.where(seen[..., None], place, 0)

    def measure(windows: Windows, fit_shape: bool) -> Measurement:
        inside = windows.inside
        own = torch.where(inside[..., None], windows.gather(std), torch.inf)
        where = torch.where(inside, windows.gather(place_std), torch.inf)
        return Rotations(windows.gather(matrix), own, windows.gather(place), where)

    return Setup(filled, place, seen, torch.zeros_like(seen), measure, fit_shape=False)


def setup_of_joints(
    prior: PosePrior,
    value: Tensor,
    found: Tensor,
    sigma: float | Tensor | None,
    skeleton: Skeleton | None,
    rig: PointRig,
    fps: float,
    start: Tensor | None,
) -> Setup:
    """3D joints (P, T, K, 3), in frames (P, T)."""
    points = torch.where(found[..., None, None], value, torch.nan)
    known = points.isfinite().all(dim=-1)
    seen = known.any(dim=-1)
    if sigma is None:
        std = noise_of(points).nan_to_num(nan=0.01).clamp(min=1e-3)[:, None, None]
    else:
        std = torch.as_tensor(sigma).to(points)
        _require_sigma(std)
    std = std.expand(*points.shape[:3])
    width = fps / REFERENCE_FPS * float((std.median() / 0.01).clamp(1, 8))
    calm = smooth(points, known, width)
    if start is not None:
        pose = start.to(points).expand(*points.shape[:2], 24, 3, 3)
    elif skeleton is None:
        raise ValueError("a rig without a joint set needs start=..., first poses")
    else:
        pose = poses_of_joints(prior, calm, skeleton)
    pose = without_gaps(pose, calm.isfinite().all(dim=-1).sum(dim=-1) > 3)
    pose, transl = turned_onto(rig, pose, calm)

    def measure(windows: Windows, fit_shape: bool) -> Measurement:
        own = torch.where(windows.inside[..., None, None], windows.gather(points), torch.nan)
        return Joints3d(rig, own, windows.gather(std), False, fit_shape)

    return Setup(pose, transl, seen, torch.zeros_like(seen), measure)


def setup_of_keypoints(
    prior: PosePrior,
    value: Tensor,
    found: Tensor,
    sigma: float | Tensor | None,
    skeleton: Skeleton | None,
    rig: PointRig,
    fps: float,
    camera: tuple[float, tuple[float, float]],
    start: Tensor | None,
    repair_sides: bool,
) -> Setup:
    """Keypoints (P, T, K, 3), in frames (P, T), of a camera: focal length and principal point."""
    if skeleton is None:
        raise ValueError("keypoints of a rig need skeleton=..., their joint set")
    keypoints = torch.where(found[..., None, None], value, 0)
    keypoints = torch.where(keypoints.isfinite().all(dim=-1, keepdim=True), keypoints, 0)
    swapped = torch.zeros_like(found)
    if repair_sides:
        keypoints, swapped = unswapped(keypoints, skeleton)
    conf = keypoints[..., 2]
    seen = (conf > 0.1).sum(dim=-1) > 3
    conf = conf * seen[..., None]
    focal, middle = camera
    points = keypoints[..., :2] - torch.tensor(middle).to(keypoints)
    if sigma is None:
        track = torch.where((conf > 0)[..., None], points, torch.nan)
        std = noise_of(track).nan_to_num(nan=3.0).clamp(min=0.5)[:, None, None]
    else:
        std = torch.as_tensor(sigma).to(points)
        _require_sigma(std)
    std = std.expand(*points.shape[:3]) if std.ndim == 3 else std.expand(*points.shape[:2], 1)
    if std.shape[-1] == 1:
        std = std.expand(*points.shape[:3])
    coco = keypoints[:, :, list(mapping(skeleton, COCO_17))].flatten(0, 1).to(prior.flow.dtype)
    if start is None:
        modes = [prior.given(keypoints_2d=some).mode() for some in coco.split(FRAMES_AT_ONCE)]
        matrix = with_root(prior.space.to_matrix(torch.cat(modes)))  # type: ignore[attr-defined]
        pose = matrix.to(points).unflatten(0, points.shape[:2])
        pose = smooth_rotations(without_gaps(pose, seen), seen, 0.07 * fps)
    else:
        pose = start.to(points).expand(*points.shape[:2], 24, 3, 3)
    pose = without_gaps(pose, seen)
    posed = rig.pose(pose, pose.new_zeros(rig.num_shapes)).points.flatten(0, 1)
    flat = posed.new_zeros(len(posed))
    cameras = Cameras(
        flat + focal,
        posed.new_zeros(len(posed), 2),
        posed.new_zeros(len(posed), 2),
        flat + 1,
        flat + 1,
    )
    place = cameras.translation_for(posed, points.flatten(0, 1), conf.flatten(0, 1))
    place = place.unflatten(0, points.shape[:2])
    near = smooth(place, seen, 0.1 * fps)
    far = smooth(place, seen, 1.5 * fps)
    every = torch.where(seen[..., None], place, 0).sum(dim=1) / seen.sum(dim=1)[:, None].clamp(
        min=1
    )
    transl = torch.where(near.isnan(), torch.where(far.isnan(), every[:, None], far), near)

    def measure(windows: Windows, fit_shape: bool) -> Measurement:
        own = windows.gather(conf) * windows.inside[..., None]
        length = own.new_full((), focal).expand(own.shape)
        return Keypoints2d(rig, windows.gather(points), own, length, windows.gather(std), fit_shape)

    def posterior(frames: Tensor) -> PosePosterior:
        return prior.given(keypoints_2d=coco[frames])

    return Setup(pose, transl, seen, swapped, measure, posterior)


def _require_sigma(sigma: Tensor) -> None:
    if not bool((sigma > 0).all()):
        raise ValueError("sigma must be above 0")
