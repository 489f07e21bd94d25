"""Views of people by virtual cameras like those of Human3.6M, with occlusions and crops.

Camera frame: x to the right of the image, y down, z away from the camera, in metres. Pixels have
their origin in the top left corner. All functions work on batches, on the device of their input.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.pinhole import project
from flowprior._precision import without_autocast
from flowprior.skeleton import H36M_17

__all__ = ["FOCAL_PX", "IMAGE_PX", "Views", "crop", "occlude", "photograph"]

FOCAL_PX = 1145.0
IMAGE_PX = 1000.0
ANKLE_HEIGHT = 0.08
FEWEST_VISIBLE = 4

LIMBS = (
    ("right_knee", "right_foot"),
    ("left_knee", "left_foot"),
    ("right_hip", "right_knee", "right_foot"),
    ("left_hip", "left_knee", "left_foot"),
    ("right_elbow", "right_wrist"),
    ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow", "right_wrist"),
    ("left_shoulder", "left_elbow", "left_wrist"),
    ("left_elbow", "left_wrist", "right_elbow", "right_wrist"),
    ("left_knee", "left_foot", "right_knee", "right_foot"),
)


@dataclass(frozen=True)
class Views:
    """One view of each of B people.

    Args:
        joints: (B, 17, 3) in the camera frame, metres.
        keypoints: (B, 17, 2) in pixels, of all joints, including invisible ones.
        visible: (B, 17) bool, which of them a detector reports.
    """

    joints: Tensor
    keypoints: Tensor
    visible: Tensor

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def relative(self) -> Tensor:
        """(B, 16, 3) joints without the pelvis, relative to it, camera frame, metres."""
        return self.joints[:, 1:] - self.joints[:, :1]

    def __getitem__(self, rows: Tensor | slice) -> "Views":
        """Some of the views, selected as in a tensor."""
        return Views(self.joints[rows], self.keypoints[rows], self.visible[rows])


def photograph(joints: Tensor, generator: torch.Generator | None = None) -> Views:
    """See each person with one virtual camera.

    Focal length 1145 px, image 1000 x 1000 px; 4 to 6.5 m away from the pelvis along the ground in
    any direction, 1.3 to 1.8 m above the ground, level with the horizon, looking within 0.3 m of
    the pelvis along each axis. The ground lies under the lowest joint.

    Args:
        joints: (B, 17, 3) in the world frame (y up), metres, the pelvis at the origin.
        generator: Random generator on the device of ``joints``.

    Returns:
        The views, every joint visible.

    Raises:
        ValueError: ``joints`` is not of shape (B, 17, 3).
    """
    if joints.ndim != 3 or joints.shape[1:] != (H36M_17.num_joints, 3):
        raise ValueError(f"expected joints of shape (B, 17, 3), got {tuple(joints.shape)}")

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        unit = torch.rand(
            len(joints), *shape, generator=generator, device=joints.device, dtype=joints.dtype
        )
        return low + (high - low) * unit

    yaw, distance = uniform(-math.pi, math.pi), uniform(4.0, 6.5)
    ground = joints[..., 1].amin(dim=1) - ANKLE_HEIGHT
    position = torch.stack(
        [distance * yaw.sin(), ground + uniform(1.3, 1.8), distance * yaw.cos()], dim=-1
    )
    z = torch.nn.functional.normalize(uniform(-0.3, 0.3, 3) - position, dim=-1)
    up = torch.zeros_like(z)
    up[:, 1] = 1
    x = torch.nn.functional.normalize(torch.linalg.cross(z, up), dim=-1)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], dim=1)
    # In half precision, places some metres away would be wrong by centimetres.
    with without_autocast(joints.device):
        seen = (joints - position[:, None]) @ rotation.mT
    visible = torch.ones(seen.shape[:-1], dtype=torch.bool, device=seen.device)
    return Views(seen, project(seen, FOCAL_PX, IMAGE_PX / 2), visible)


def occlude(
    views: Views,
    generator: torch.Generator | None = None,
    probability: float = 0.5,
    noise_px: float = 3.0,
) -> Views:
    """Hide joints as occlusions in images do, and add detector noise to the rest.

    A selected view loses everything beyond an image border through the person (half of the time at
    the bottom, as when people stand close or behind a table), everything behind a box, or a limb.

    Args:
        views: B views.
        generator: Random generator on the device of ``views``.
        probability: Share of the views that lose joints.
        noise_px: Standard deviation of the error of a keypoint, per coordinate, in pixels.

    Returns:
        The views with ``keypoints`` and ``visible`` changed. Views that are not
        selected, or would keep fewer than four joints, keep all joints.
    """
    keypoints = views.keypoints
    batch, joints = keypoints.shape[:2]
    device = keypoints.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device, dtype=keypoints.dtype)

    def choice(options: int) -> Tensor:
        return torch.randint(options, (batch,), generator=generator, device=device)

    low, high = keypoints.amin(dim=1, keepdim=True), keypoints.amax(dim=1, keepdim=True)
    size = high - low
    # In units of the person's bounding box: x right, y down, both 0 to 1.
    place = (keypoints - low) / size.clamp(min=1)

    side = choice(6)  # 0 left, 1 right, 2 top, others bottom
    depth = 0.05 + 0.5 * uniform(1)
    inwards = torch.stack(
        [place[..., 0], 1 - place[..., 0], place[..., 1], *[1 - place[..., 1]] * 3], dim=1
    )
    cropped = inwards[torch.arange(batch, device=device), side] < depth

    # Boxes are square-ish in pixels and centred near a joint, or they would mostly miss.
    rows = torch.arange(batch, device=device)
    extent = size.amax(dim=-1, keepdim=True)
    centre = keypoints[rows, choice(joints)][:, None] + 0.1 * extent * (uniform(1, 2) - 0.5)
    half = extent * (0.08 + 0.17 * uniform(1, 2))
    boxed = ((keypoints - centre).abs() < half).all(dim=-1)

    table = torch.zeros(len(LIMBS), joints, dtype=torch.bool, device=device)
    for row, names in enumerate(LIMBS):
        table[row, [H36M_17.joint_names.index(name) for name in names]] = True
    limb = table[choice(len(LIMBS))]

    kind = choice(3)
    hidden = torch.stack([cropped, boxed, limb], dim=1)[rows, kind]
    hidden &= uniform(1) < probability
    hidden &= (~hidden).sum(dim=1, keepdim=True) >= FEWEST_VISIBLE

    noise = torch.randn(keypoints.shape, generator=generator, device=device, dtype=keypoints.dtype)
    return Views(views.joints, keypoints + noise_px * noise, views.visible & ~hidden)


def crop(
    views: Views,
    generator: torch.Generator | None = None,
    *,
    smallest: float = 0.3,
    largest: float = 0.9,
    noise_px: float = 0.0,
) -> Views:
    """Keep what a random crop of the image shows: joints outside it are hidden.

    The crop is a rectangle around a random joint, each side a random share of the person's height
    or width in the image, whichever is larger. Keypoints keep their position in the whole image, so
    that size and position still carry information about depth.

    Args:
        views: B views.
        generator: Random generator on the device of ``views``.
        smallest: Least side of the crop, as a share of the person's size.
        largest: Greatest side likewise.
        noise_px: Standard deviation of the error of a keypoint, per coordinate, in pixels.

    Returns:
        The views with ``keypoints`` and ``visible`` changed. A crop with fewer than four joints
        grows around its centre until it contains four.

    Raises:
        ValueError: The shares are not 0 < ``smallest`` <= ``largest``.

    References:
        After AH36M of Biggs et al., *3D Multibodies: Fitting Sets of Plausible 3D Models to
        Ambiguous Image Data*, 2020, who crop the photographs of Human3.6M at random.
    """
    if not 0 < smallest <= largest:
        raise ValueError(f"expected 0 < smallest <= largest, got {smallest} and {largest}")
    keypoints = views.keypoints
    batch, joints = keypoints.shape[:2]
    device, dtype = keypoints.device, keypoints.dtype
    share = torch.rand(batch, 1, 2, generator=generator, device=device, dtype=dtype)
    middle = torch.randint(joints, (batch,), generator=generator, device=device)
    noise = torch.randn(keypoints.shape, generator=generator, device=device, dtype=dtype)

    size = (keypoints.amax(dim=1) - keypoints.amin(dim=1)).amax(dim=1)[:, None, None]
    side = size * (smallest + (largest - smallest) * share)
    rows = torch.arange(batch, device=device)
    centre = keypoints[rows, middle][:, None]
    # Distance of each joint from the centre in half sides of the crop: at most 1 inside.
    place = ((keypoints - centre).abs() / (side / 2)).amax(dim=-1)
    reach = place.kthvalue(min(FEWEST_VISIBLE, joints), dim=1, keepdim=True).values
    inside = place <= reach.clamp(min=1)
    return Views(views.joints, keypoints + noise_px * noise, views.visible & inside)
