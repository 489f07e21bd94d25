"""What is measured of a clip, and with which errors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.motion.clips import Clip
from flowprior.body import BodyModel
from flowprior.skeleton import COCO_17, H36M_17, SMPL_24

FOCAL_PX = 1145.0
MIDDLE_PX = (500.0, 500.0)
DEPTH_M = 5.0
BODY_JOINTS = 22

RIGHT_ARM = tuple(H36M_17.index(f"right_{name}") for name in ("shoulder", "elbow", "wrist"))


@dataclass(frozen=True)
class Case3d:
    """Measured joints of a clip.

    Args:
        clip: The clip.
        points: (F, 17, 3) metres, NaN where unknown.
        sigma: Their standard deviation per coordinate, metres.
    """

    clip: Clip
    points: Tensor
    sigma: float


def noisy(clip: Clip, sigma: float, generator: torch.Generator) -> Tensor:
    """Joints with normal noise per coordinate."""
    return clip.joints + sigma * torch.randn(clip.joints.shape, generator=generator)


def denoising(sigma: float) -> Callable[[Clip, torch.Generator], Case3d]:
    """All joints with noise."""
    return lambda clip, generator: Case3d(clip, noisy(clip, sigma, generator), sigma)


def limb_missing(clip: Clip, generator: torch.Generator) -> Case3d:
    """The right arm missing for one second in the middle."""
    points = noisy(clip, 0.02, generator)
    middle = len(clip) // 2
    some = slice(max(1, middle - 15), min(len(clip) - 1, middle + 15))
    points[some, list(RIGHT_ARM)] = torch.nan
    return Case3d(clip, points, 0.02)


def every(step: int) -> Callable[[Clip, torch.Generator], Case3d]:
    """Only one frame of ``step``."""

    def make(clip: Clip, generator: torch.Generator) -> Case3d:
        points = noisy(clip, 0.02, generator)
        points[torch.arange(len(clip)) % step != 0] = torch.nan
        return Case3d(clip, points, 0.02)

    return make


TASKS_3D: dict[str, Callable[[Clip, torch.Generator], Case3d]] = {
    "noise of 20 mm": denoising(0.02),
    "noise of 40 mm": denoising(0.04),
    "noise of 100 mm": denoising(0.1),
    "right arm missing for 1 s": limb_missing,
    "every second frame": every(2),
    "every fourth frame": every(4),
}


@dataclass(frozen=True)
class Case2d:
    """Detected keypoints of a clip.

    Args:
        clip: The clip.
        keypoints: (F, 17, 3) COCO, pixels and confidence.
        joints: (F, 22, 3) truth, metres, camera frame.
        valid: (F,) frames in which the person was found.
        swapped: (F,) frames with left and right exchanged.
    """

    clip: Clip
    keypoints: Tensor
    joints: Tensor
    valid: Tensor
    swapped: Tensor


def detected(clip: Clip, body: BodyModel, generator: torch.Generator, *, mistakes: bool) -> Case2d:
    """Keypoints of a body of random shape that moves like the clip, 5 m from the camera.

    Noise has a standard deviation of 0.8 % of the person's size. With ``mistakes``, 5 % of the
    keypoints are off by ten times as much, left and right are exchanged in five frames, and in ten
    others the person is missed.
    """
    frames = len(clip)
    betas = 0.7 * torch.randn(body.num_betas, generator=generator)
    place = clip.root - clip.root.mean(dim=0) + torch.tensor([0.0, 0.0, DEPTH_M])
    rotation = clip.rotation
    joints = body.keypoints(rotation, SMPL_24, betas)
    place = place - joints[:, 0]
    joints = joints[:, :BODY_JOINTS] + place[:, None]
    points = body.keypoints(rotation, COCO_17, betas) + place[:, None]
    pixels = FOCAL_PX * points[..., :2] / points[..., 2:].clamp(min=0.5) + torch.tensor(MIDDLE_PX)
    size = (pixels.amax(dim=1) - pixels.amin(dim=1)).amax(dim=-1)[:, None, None]
    scale = torch.full((frames, COCO_17.num_joints, 1), 0.008)
    valid = torch.ones(frames, dtype=torch.bool)
    swapped = torch.zeros(frames, dtype=torch.bool)
    if mistakes:
        far = torch.rand(scale.shape, generator=generator) < 0.05
        scale = torch.where(far, 10 * scale, scale)
        swapped[frames // 3 : frames // 3 + 5] = True
        valid[2 * frames // 3 : 2 * frames // 3 + 10] = False
    pixels = pixels + scale * size * torch.randn(pixels.shape, generator=generator)
    flipped = pixels[:, list(COCO_17.flip)]
    pixels = torch.where(swapped[:, None, None], flipped, pixels)
    keypoints = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    keypoints[~valid] = 0
    return Case2d(clip, keypoints, joints, valid, swapped)
