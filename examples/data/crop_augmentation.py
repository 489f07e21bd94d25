"""ProHMR's augmentation: random parameters per person, and their effect on boxes and labels.

Angles turn from the x axis of the image (right) to its y axis (down). The crop looks at the image
through a box turned by the angle, so what it shows, keypoints and the body included, turns by the
opposite angle about the axis of the camera. A mirrored crop is mirrored before it is turned.

The parameters follow ``prohmr/datasets/utils.py`` (Kolotouros et al., 2021).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import roma
import torch
from torch import Tensor

from examples.data.augment import mirror_rotvecs
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import PROHMR_44

__all__ = [
    "Augmentation",
    "AugmentationSettings",
    "augment_boxes",
    "augment_keypoints_3d",
    "augment_pose",
    "check_shape",
    "draw_augmentation",
    "without_unseen",
]

BODY_JOINTS = 23

# Joints that the three extreme crops remove: the legs, all below the shoulders, all but the head.
_LEGS = ("knee", "ankle", "toe", "heel")
_TRUNK = ("elbow", "wrist", "hip", "pelvis", "thorax", "spine")
_LEFT_OUT = (
    _LEGS,
    _LEGS + _TRUNK,
    # The original keeps OpenPose's shoulders in the crop of the head.
    (*_LEGS, *_TRUNK, "left_shoulder_lsp", "right_shoulder_lsp"),
)
_BOX_FACTORS = (1.1, 1.2, 1.3)
_AROUND_KEYPOINTS = 1.2
_WHOLE_BODY_SHARES = (0.7, 0.2, 0.1)
_UPPER_BODY_SHARES = (0.0, 0.9, 0.1)
_FEWEST_UPPER = 2


def _joints(parts: Sequence[str]) -> list[int]:
    """The joints of ProHMR's 44 whose name contains one of some words."""
    names = PROHMR_44.joint_names
    return [joint for joint, name in enumerate(names) if any(part in name for part in parts)]


# Each limb's end in OpenPose's keypoints and the same in LSP's, one of which has to be seen.
_LIMBS = [
    [PROHMR_44.index(f"{side}_{joint}{suffix}") for suffix in ("", "_lsp")]
    for side in ("left", "right")
    for joint in ("shoulder", "elbow", "wrist", "knee", "ankle")
]
_KNEES_ANKLES = _joints(("knee", "ankle"))
_UPPER = _joints(("nose", "neck", "eye", "ear", "shoulder_lsp", "head", "jaw"))


@dataclass(frozen=True)
class AugmentationSettings:
    """Strength of the augmentation; the defaults are ProHMR's.

    Args:
        scale: The box side changes by this factor times a normal number within one.
        rotation: Radians; times a normal number within two.
        rotation_probability: Probability that a crop is rotated.
        flip_probability: Probability that it is mirrored.
        colour: Each channel is multiplied by a number within this of 1.
        translation: In sides of the box; times a normal number within one, along x and y.
        extreme_crop_probability: Probability that the box covers a part of the body only.
    """

    scale: float = 0.3
    rotation: float = math.pi / 6
    rotation_probability: float = 0.6
    flip_probability: float = 0.5
    colour: float = 0.2
    translation: float = 0.02
    extreme_crop_probability: float = 0.1

    @property
    def reach(self) -> float:
        """Greatest distance from the centre that an ordinary crop shows, in sides of its box."""
        turned = math.sqrt(0.5) if self.rotation and self.rotation_probability else 0.5
        return (1 + self.scale) * turned + self.translation * math.sqrt(2)


@dataclass(frozen=True, eq=False)
class Augmentation:
    """Augmentation of the crops of B people.

    Args:
        scale: (B,), factor of the box side.
        rotation: (B,) rotation of the box, radians.
        flip: (B,) bool, whether the crop is mirrored.
        colour: (B, 3), factors of red, green and blue.
        translation: (B, 2), shift of the centre of the box, in sides of the box.
        extreme: (B,) bool, whether to cut off a part of the body if the keypoints allow it.
        extreme_choice: (B,) in [0, 1), selects the part.
    """

    scale: Tensor
    rotation: Tensor
    flip: Tensor
    colour: Tensor
    translation: Tensor
    extreme: Tensor
    extreme_choice: Tensor

    def __post_init__(self) -> None:
        trailing = {"colour": (3,), "translation": (2,)}
        for field in fields(self):
            name = field.name
            check_shape(name, getattr(self, name), (len(self.scale), *trailing.get(name, ())))
        for name in ("flip", "extreme"):
            if getattr(self, name).dtype != torch.bool:
                raise ValueError(f"expected {name} of bool, got {getattr(self, name).dtype}")

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, rows: Tensor | slice) -> "Augmentation":
        """The augmentation of some people, selected as in a tensor."""
        return Augmentation(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> "Augmentation":
        """The augmentation on another device."""
        return Augmentation(*(getattr(self, field.name).to(device) for field in fields(self)))

    @classmethod
    def none(cls, batch: int, *, device: torch.device | None = None) -> "Augmentation":
        """The identity augmentation of ``batch`` people."""
        one = torch.ones(batch, device=device)
        no = torch.zeros(batch, dtype=torch.bool, device=device)
        return cls(
            scale=one,
            rotation=0 * one,
            flip=no,
            colour=one[:, None].expand(-1, 3),
            translation=torch.zeros(batch, 2, device=device),
            extreme=no,
            extreme_choice=0 * one,
        )


def draw_augmentation(
    batch: int,
    generator: torch.Generator | Sequence[torch.Generator],
    settings: AugmentationSettings | None = None,
) -> Augmentation:
    """Draw the augmentation of B people, on the device of the generator.

    Args:
        batch: Number B of people.
        generator: Random generator, or one per person, so that the augmentation of a person does
            not depend on the rest of the batch.
        settings: Strength of the augmentation; ProHMR's by default.

    Returns:
        The augmentation of each person.

    Raises:
        ValueError: The number of generators differs from the number of people.
    """
    settings = settings or AugmentationSettings()
    if isinstance(generator, torch.Generator):
        device = generator.device
        normal = torch.randn(batch, 4, generator=generator, device=device)
        uniform = torch.rand(batch, 7, generator=generator, device=device)
    else:
        if len(generator) != batch or not generator:
            raise ValueError(f"expected {batch} generators, at least one, got {len(generator)}")
        normal = torch.stack([torch.randn(4, generator=g, device=g.device) for g in generator])
        uniform = torch.stack([torch.rand(7, generator=g, device=g.device) for g in generator])
    within_one = normal[:, :3].clamp(-1, 1)
    turned = uniform[:, 0] < settings.rotation_probability
    return Augmentation(
        scale=1 + settings.scale * within_one[:, 0],
        rotation=turned * settings.rotation * normal[:, 3].clamp(-2, 2),
        flip=uniform[:, 1] < settings.flip_probability,
        colour=1 + settings.colour * (2 * uniform[:, 4:] - 1),
        translation=settings.translation * within_one[:, 1:],
        extreme=uniform[:, 2] < settings.extreme_crop_probability,
        extreme_choice=uniform[:, 3],
    )


def without_unseen(keypoints: Tensor) -> Tensor:
    """Set keypoints without confidence to zero, so that their NaN does not reach a weighted sum.

    Args:
        keypoints: (..., K, d + 1), d coordinates and confidence.

    Returns:
        (..., K, d + 1), all 0 where the confidence is not above 0.
    """
    return torch.where(keypoints[..., -1:] > 0, keypoints, 0)


def augment_boxes(
    center: Tensor, box_size: Tensor, keypoints_2d: Tensor, augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """The boxes of extreme crops, which cover a part of the body.

    Whole bodies (every shoulder, elbow, wrist, knee and ankle visible) are cut at the hips (70 %),
    the shoulders (20 %) or the neck (10 %); upper bodies (no knee or ankle, but two joints above
    the chest visible) at the shoulders (90 %) or the neck (10 %). The new box surrounds the
    remaining keypoints, enlarged by 1.2 and by 1.1, 1.2 or 1.3. A box stays unchanged if the
    remaining confidences do not exceed 1, or the remaining keypoints coincide.

    Args:
        center: (B, 2) centres of the boxes, in pixels.
        box_size: (B,) their sides, in pixels.
        keypoints_2d: (B, 44, 3), x, y in the same pixels and confidence, in PROHMR-44 order.
        augmentation: The augmentation of the B people.

    Returns:
        The centres (B, 2) and the sides (B,), before scale and translation.

    References:
        Joo et al., *Exemplar Fine-Tuning for 3D Human Model Fitting Towards In-the-Wild 3D Human
        Pose Estimation*, 2021, for the idea; shares and factors as in ``nkolot/ProHMR``.
    """
    points, conf = without_unseen(keypoints_2d).split((2, 1), dim=-1)
    conf = conf.squeeze(-1)
    seen = conf > LEAST_CONF
    whole = seen[:, _LIMBS].any(dim=-1).all(dim=-1)
    upper = ~seen[:, _KNEES_ANKLES].any(dim=-1) & (seen[:, _UPPER].sum(-1) >= _FEWEST_UPPER)

    shares = torch.where(
        whole[:, None], conf.new_tensor(_WHOLE_BODY_SHARES), conf.new_tensor(_UPPER_BODY_SHARES)
    )
    choice = augmentation.extreme_choice.to(shares)[:, None]
    part = (choice >= shares.cumsum(dim=-1)[:, :-1]).sum(dim=-1)

    keeps = torch.ones(len(_LEFT_OUT), PROHMR_44.num_joints, dtype=torch.bool, device=conf.device)
    for row, names in enumerate(_LEFT_OUT):
        keeps[row, _joints(names)] = False
    kept = seen & keeps[part]
    low = torch.where(kept[..., None], points, torch.inf).amin(dim=1)
    high = torch.where(kept[..., None], points, -torch.inf).amax(dim=1)
    side = _AROUND_KEYPOINTS * conf.new_tensor(_BOX_FACTORS)[part] * (high - low).amax(dim=-1)
    enough = (torch.where(kept, conf, 0).sum(dim=-1) > 1) & (side > 0)
    cut = augmentation.extreme & (whole | upper) & enough
    return (
        torch.where(cut[:, None], ((low + high) / 2).to(center), center),
        torch.where(cut, side.to(box_size), box_size),
    )


def augment_keypoints_3d(keypoints_3d: Tensor, augmentation: Augmentation) -> Tensor:
    """Mirror and rotate 3D keypoints with their crops.

    Args:
        keypoints_3d: (B, 44, 4) in the camera frame, metres and confidence, PROHMR-44 order.
        augmentation: The augmentation of the B people.

    Returns:
        (B, 44, 4); zero where the confidence is zero.

    Raises:
        ValueError: A shape is wrong.
    """
    check_shape("keypoints_3d", keypoints_3d, (len(augmentation), PROHMR_44.num_joints, 4))
    keypoints = without_unseen(keypoints_3d)
    mirrored = keypoints[:, list(PROHMR_44.flip)] * keypoints.new_tensor([-1.0, 1.0, 1.0, 1.0])
    keypoints = torch.where(augmentation.flip[:, None, None], mirrored, keypoints)
    x, y, *rest = keypoints.unbind(dim=-1)
    angle = augmentation.rotation.to(keypoints)[:, None]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x + sin * y, cos * y - sin * x, *rest], dim=-1)


def augment_pose(
    global_orient: Tensor, body_pose: Tensor, augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """Mirror and rotate the poses of bodies with their crops.

    Args:
        global_orient: (B, 3) rotation vectors of the root in the camera frame, radians.
        body_pose: (B, 69) rotation vectors of the 23 other joints of SMPL, radians.
        augmentation: The augmentation of the B people.

    Returns:
        ``global_orient`` (B, 3) and ``body_pose`` (B, 69). Rotation vectors that do
        not rotate stay unchanged, even those longer than pi.

    Raises:
        ValueError: A shape is wrong.
    """
    batch = len(augmentation)
    check_shape("global_orient", global_orient, (batch, 3))
    check_shape("body_pose", body_pose, (batch, 3 * BODY_JOINTS))
    pose = torch.cat([global_orient, body_pose], dim=-1).unflatten(-1, (BODY_JOINTS + 1, 3))
    pose = torch.where(augmentation.flip[:, None, None], mirror_rotvecs(pose), pose)
    root, body = pose[:, 0], pose[:, 1:]
    angle = augmentation.rotation.to(root)[:, None]
    turned = roma.rotvec_composition([-angle * root.new_tensor([0.0, 0.0, 1.0]), root])
    root = torch.where((augmentation.rotation == 0)[:, None], root, turned)
    return root, body.flatten(1)


def check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tensor has this shape."""
    if tuple(value.shape) != shape:
        raise ValueError(f"expected {name} {shape}, got {tuple(value.shape)}")
