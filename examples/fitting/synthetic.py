"""Synthetic people in front of virtual cameras, and simulated detections of their keypoints.

Camera frame: x to the right of the image, y down, z away from the camera, metres. Poses are
relative to it, so ``global_orient`` of an upright person is near half a turn about x, as in ProHMR.
The origin of pixels is the top left corner.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._precision import without_autocast
from flowprior.body import BodyModel
from flowprior.skeleton import BODY_25

__all__ = [
    "FOCAL_PX",
    "IMAGE_PX",
    "People",
    "detect",
    "hide",
    "photograph_bodies",
    "project",
    "sample_places",
    "sample_turns",
]

FOCAL_PX = 1145.0
IMAGE_PX = 1000.0
FEWEST_VISIBLE = 4
UPRIGHT = (1.0, -1.0, -1.0)  # half a turn about x, from y up to y down

# Joints that COCO does not annotate; a detector trained on COCO misses all of them.
NOT_IN_COCO = tuple(
    joint
    for joint, name in enumerate(BODY_25.joint_names)
    if name in ("neck", "mid_hip") or name.endswith(("toe", "heel"))
)
LIMBS = tuple(
    tuple(
        joint
        for joint, name in enumerate(BODY_25.joint_names)
        if name.startswith(side) and name.endswith(ends)
    )
    for side in ("left", "right")
    for ends in (("elbow", "wrist"), ("knee", "ankle", "toe", "heel"), ("ankle", "toe", "heel"))
)


@dataclass(frozen=True)
class People:
    """B people, each in front of a separate camera.

    Args:
        theta: (B, 24, 3, 3) joint rotations; the root is relative to the camera.
        betas: (B, 10) shape.
        transl: (B, 3) metres, camera frame.
        joints: (B, 24, 3) camera frame, metres.
        keypoints: (B, 25, 3) in BODY-25 order: pixels and confidence.
    """

    theta: Tensor
    betas: Tensor
    transl: Tensor
    joints: Tensor
    keypoints: Tensor

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: Tensor | slice) -> "People":
        """Select people, as rows of a tensor."""
        return People(
            self.theta[rows],
            self.betas[rows],
            self.transl[rows],
            self.joints[rows],
            self.keypoints[rows],
        )


def project(
    points: Tensor, focal: Tensor | float = FOCAL_PX, centre: Tensor | float = IMAGE_PX / 2
) -> Tensor:
    """Pinhole projection of camera-frame points (..., 3) in metres to pixels (..., 2)."""
    return focal * points[..., :2] / points[..., 2:] + centre


def sample_turns(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample camera orientations around a person.

    The elevation is -10 to 25 degrees, the roll a few degrees.

    Args:
        like: (B, ...) tensor that determines number, dtype and device.
        generator: Source of randomness, on that device.

    Returns:
        (B, 3, 3) rotations from a world with y up to the camera frame.
    """

    def turn(axis: int, angle: Tensor) -> Tensor:
        vector = like.new_zeros(len(like), 3)
        vector[:, axis] = angle
        return rotations.rotvec_to_matrix(vector)

    noise = torch.randn(len(like), generator=generator, device=like.device, dtype=like.dtype)
    roll = math.radians(3) * noise
    pitch = _uniform(like, generator, math.radians(-10), math.radians(25))
    yaw = _uniform(like, generator, -math.pi, math.pi)
    with without_autocast(like.device):
        camera = turn(2, roll) @ turn(0, pitch) @ turn(1, yaw)
    return like.new_tensor(UPRIGHT)[:, None] * camera


def sample_places(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample places of people, 3 to 8 m from the camera and near the middle of the image.

    Args:
        like: (B, ...) tensor that determines number, dtype and device.
        generator: Source of randomness, on that device.

    Returns:
        (B, 3) metres, camera frame.
    """
    depth = _uniform(like, generator, 3.0, 8.0)
    across, down = (_uniform(like, generator, -1, 1) for _ in range(2))
    return torch.stack([0.08 * depth * across, 0.05 * depth * down, depth], -1)


def _uniform(like: Tensor, generator: torch.Generator | None, low: float, high: float) -> Tensor:
    unit = torch.rand(len(like), generator=generator, device=like.device, dtype=like.dtype)
    return low + (high - low) * unit


@torch.no_grad()
def photograph_bodies(
    rotvecs: Tensor,
    body: BodyModel,
    generator: torch.Generator | None = None,
    *,
    shape: float = 1.0,
) -> People:
    """Place a virtual camera around each body and project its keypoints.

    The focal length is 1145 px, the image 1000 x 1000 px. The person is 3 to 8 m away, near the
    middle of the image; elevation and roll of the camera are those of `sample_turns`.

    Args:
        rotvecs: (B, 24, 3) poses in a world with y up, radians.
        body: The body.
        generator: Source of randomness, on the device of ``rotvecs``.
        shape: Standard deviation of betas.

    Returns:
        The people, with exact keypoints of confidence 1.

    Raises:
        ValueError: ``rotvecs`` has another shape.
    """
    if rotvecs.ndim != 3 or rotvecs.shape[1:] != (24, 3):
        raise ValueError(f"expected rotvecs of shape (B, 24, 3), got {tuple(rotvecs.shape)}")
    matrix = rotations.rotvec_to_matrix(rotvecs)
    turns = sample_turns(matrix[:, 0], generator)
    with without_autocast(matrix.device):
        root = turns @ matrix[:, 0]
    theta = torch.cat([root[:, None], matrix[:, 1:]], dim=1)
    like = theta.new_empty(len(theta), 10)
    betas = shape * torch.randn(
        like.shape, generator=generator, device=like.device, dtype=like.dtype
    )
    place = sample_places(like, generator)
    pelvis = body.keypoints(theta, betas=betas, skeleton=BODY_25)[:, BODY_25.index("mid_hip")]
    transl = place - pelvis
    joints = body(theta, betas, transl).joints
    points = project(body.keypoints(theta, BODY_25, betas, transl))
    keypoints = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    return People(theta, betas, transl, joints, keypoints)


def hide(
    keypoints: Tensor,
    generator: torch.Generator | None = None,
    *,
    most_missing: float = 0.6,
    truncated: float = 0.3,
    limb: float = 0.2,
    coco: float = 0.25,
) -> Tensor:
    """Sample missing keypoints for training: at random, by truncation, limbs, and joint set.

    Args:
        keypoints: (B, 25, 3).
        generator: Source of randomness.
        most_missing: Largest fraction of keypoints missing at random; the fraction is uniform.
        truncated: Fraction of views with a border through the person, mostly below.
        limb: Fraction of views without an arm or a leg.
        coco: Fraction of views that have only COCO's keypoints.

    Returns:
        (B, 25) bool, true for missing keypoints; at least four remain in each view.
    """
    batch, joints = keypoints.shape[:2]
    device = keypoints.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    lost = uniform(joints) < most_missing * uniform(1)
    points = keypoints[..., :2]
    low, high = points.amin(dim=1, keepdim=True), points.amax(dim=1, keepdim=True)
    place = (points - low) / (high - low).clamp(min=1)
    inwards = torch.stack(
        [place[..., 0], 1 - place[..., 0], place[..., 1], *[1 - place[..., 1]] * 3], dim=1
    )
    side = torch.randint(6, (batch,), generator=generator, device=device)
    cut = inwards[torch.arange(batch, device=device), side] < 0.05 + 0.55 * uniform(1)
    lost |= cut & (uniform(1) < truncated)
    table = torch.zeros(len(LIMBS), joints, dtype=torch.bool, device=device)
    for row, members in enumerate(LIMBS):
        table[row, list(members)] = True
    which = torch.randint(len(LIMBS), (batch,), generator=generator, device=device)
    lost |= table[which] & (uniform(1) < limb)
    foreign = torch.zeros(joints, dtype=torch.bool, device=device)
    foreign[list(NOT_IN_COCO)] = True
    lost |= foreign & (uniform(1) < coco)
    return lost & ((~lost).sum(dim=1, keepdim=True) >= FEWEST_VISIBLE)


def detect(
    keypoints: Tensor,
    lost: Tensor,
    generator: torch.Generator | None = None,
    *,
    noise: float = 0.01,
) -> Tensor:
    """Simulate detections.

    Args:
        keypoints: (B, 25, 3) exact keypoints.
        lost: (B, 25) bool, keypoints without a detection.
        generator: Source of randomness.
        noise: Mean standard deviation of the error per coordinate, in sides of the box around the
            person. It varies between keypoints; the confidence decreases with it.

    Returns:
        (B, 25, 3) pixels and confidence; zeros for missing keypoints.
    """
    points = keypoints[..., :2]
    side = (points.amax(dim=1) - points.amin(dim=1)).amax(dim=-1)[:, None, None]
    like = torch.empty_like(points).normal_(generator=generator)
    share = torch.empty_like(points[..., :1]).uniform_(generator=generator)
    error = noise * side * (0.5 + share) * like
    seen = torch.cat([points + error, 1 - 0.6 * share], dim=-1)
    return torch.where(lost[..., None], 0.0, seen)
