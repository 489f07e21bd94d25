"""Square crops of people for ProHMR's network, and their labels.

Pixel coordinates are those of OpenCV: the *centre* of the upper left pixel is (0, 0). Affine maps
are (B, 2, 3) and called ``to_from_from``: ``crop_from_image`` takes pixels of the image to those of
the crop. The centre of a box lands on the pixel coordinate ``size / 2``, as in the original.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.geometry.transform import remap
from torch import Tensor

from examples.data.crop_augmentation import (
    Augmentation,
    augment_boxes,
    augment_keypoints_3d,
    augment_pose,
    check_shape,
    without_unseen,
)
from flowprior.skeleton import PROHMR_44

__all__ = [
    "CROP_PX",
    "MEAN",
    "STD",
    "Crops",
    "Labels",
    "Regions",
    "augment_keypoints_2d",
    "box_affine",
    "crop_images",
    "make_crops",
    "to_pixels",
]

CROP_PX = 224

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean of ImageNet's red, green and blue, in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The image regions of B people, resampled to one size.

    Args:
        images: (B, 3, H, W) red, green and blue from 0 to 255, uint8 or floating point.
        region_from_image: (B, 2, 3), from pixels of the image to those of ``images``.
        center: (B, 2) centres of the boxes, in pixels of the image.
        box_size: (B,) their sides, in pixels of the image.
        img_size: (B, 2) width and height of the images, in pixels.

    Raises:
        ValueError: A shape is wrong, or a box has no size. Boxes are checked on the CPU only:
            on another device the host would have to wait.
    """

    images: Tensor
    region_from_image: Tensor
    center: Tensor
    box_size: Tensor
    img_size: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < 2:
            raise ValueError(f"expected images (B, 3, H, W) of at least 2 x 2 pixels, got {shape}")
        wanted = {"region_from_image": (2, 3), "center": (2,), "box_size": (), "img_size": (2,)}
        for name, trailing in wanted.items():
            check_shape(name, getattr(self, name), (shape[0], *trailing))
        if self.box_size.device.type == "cpu":
            bad = ~(self.box_size.isfinite() & (self.box_size > 0))
            bad |= ~self.center.isfinite().all(dim=-1)
            if bad.any():
                row = int(bad.nonzero()[0])
                raise ValueError(
                    "expected boxes with a finite centre and a positive side, got "
                    f"{self.center[row].tolist()} and {self.box_size[row].item()} in row {row}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def whole(cls, images: Tensor, center: Tensor, box_size: Tensor) -> "Regions":
        """Regions that are whole images of one size.

        Args:
            images: (B, 3, H, W), as above.
            center: (B, 2), as above.
            box_size: (B,), as above.

        Returns:
            The regions.
        """
        batch = len(images)
        identity = torch.eye(2, 3, dtype=center.dtype, device=center.device)
        size = center.new_tensor([images.shape[-1], images.shape[-2]])
        return cls(images, identity.expand(batch, -1, -1), center, box_size, size.expand(batch, -1))


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of B people. Entries with confidence 0 may hold any value.

    Args:
        keypoints_2d: (B, 44, 3) in PROHMR-44 order: x, y and confidence. Of an image in its
            pixels; of a crop in its side, from -0.5 to 0.5.
        keypoints_3d: (B, 44, 4) likewise, in the camera frame: metres and confidence.
        global_orient: (B, 3) rotation vectors of the root in the camera frame, radians.
        body_pose: (B, 69) rotation vectors of the other 23 joints of SMPL, radians.
        betas: (B, 10) shape coefficients.

    Raises:
        ValueError: A shape is wrong.
    """

    keypoints_2d: Tensor
    keypoints_3d: Tensor
    global_orient: Tensor
    body_pose: Tensor
    betas: Tensor

    def __post_init__(self) -> None:
        joints = PROHMR_44.num_joints
        wanted = {
            "keypoints_2d": (joints, 3),
            "keypoints_3d": (joints, 4),
            "global_orient": (3,),
            "body_pose": (69,),
            "betas": (10,),
        }
        for name, trailing in wanted.items():
            check_shape(name, getattr(self, name), (len(self.keypoints_2d), *trailing))

    def __len__(self) -> int:
        return len(self.keypoints_2d)


@dataclass(frozen=True, eq=False)
class Crops:
    """Input and labels of the network.

    Args:
        images: (B, 3, size, size), less ImageNet's mean and divided by its standard deviation.
        labels: The labels of the crops.
        crop_from_image: (B, 2, 3), from pixels of the image to those of the crop.
    """

    images: Tensor
    labels: Labels
    crop_from_image: Tensor


def make_crops(
    regions: Regions,
    labels: Labels,
    augmentation: Augmentation | None = None,
    *,
    size: int = CROP_PX,
    antialias: bool = False,
) -> Crops:
    """Crop people out of images, and transform their labels.

    The result of a person does not depend on the rest of the batch.

    Args:
        regions: B people in images.
        labels: Their labels.
        augmentation: Augmentation of each, on any device; none by default.
        size: Side of the crops, in pixels.
        antialias: As in `crop_images`.

    Returns:
        The crops, on the device of the images.

    Raises:
        ValueError: Regions, labels and augmentation differ in number.
    """
    if augmentation is None:
        augmentation = Augmentation.none(len(regions))
    if not len(regions) == len(labels) == len(augmentation):
        raise ValueError(
            f"expected as many regions as labels and rows of the augmentation, got {len(regions)}, "
            f"{len(labels)} and {len(augmentation)}"
        )
    augmentation = augmentation.to(regions.center.device)
    center, box_size = augment_boxes(
        regions.center, regions.box_size, labels.keypoints_2d, augmentation
    )
    crop_from_image = box_affine(center, box_size, augmentation, size=size)
    global_orient, body_pose = augment_pose(labels.global_orient, labels.body_pose, augmentation)
    return Crops(
        crop_images(
            regions, crop_from_image, colour=augmentation.colour, size=size, antialias=antialias
        ),
        Labels(
            augment_keypoints_2d(labels.keypoints_2d, crop_from_image, augmentation, size=size),
            augment_keypoints_3d(labels.keypoints_3d, augmentation),
            global_orient,
            body_pose,
            labels.betas,
        ),
        crop_from_image,
    )


def box_affine(
    center: Tensor,
    box_size: Tensor,
    augmentation: Augmentation | None = None,
    *,
    size: int = CROP_PX,
) -> Tensor:
    """The map from an image to the crop of a box in it.

    Args:
        center: (B, 2) centres of the boxes, in pixels of the image.
        box_size: (B,) their sides, in pixels of the image.
        augmentation: Scale, rotation, shift and mirroring of each; none by default.
        size: Side of the crops, in pixels.

    Returns:
        ``crop_from_image`` (B, 2, 3).
    """
    if augmentation is None:
        augmentation = Augmentation.none(len(center), device=center.device)
    zoom = size / (box_size * augmentation.scale.to(box_size))
    angle = augmentation.rotation.to(center)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    side = torch.where(augmentation.flip, -1, 1).to(center)
    linear = torch.stack([side * cos, sin, -side * sin, cos], dim=-1).unflatten(-1, (2, 2))
    center = center + box_size[:, None] * augmentation.translation.to(center)
    offset = size / 2 - (linear * center[:, None]).sum(dim=-1, keepdim=True)
    return torch.cat([linear, offset], dim=-1)


def augment_keypoints_2d(
    keypoints_2d: Tensor,
    crop_from_image: Tensor,
    augmentation: Augmentation,
    *,
    size: int = CROP_PX,
) -> Tensor:
    """Transform 2D keypoints to a crop; mirrored crops also swap left and right joints.

    Args:
        keypoints_2d: (B, 44, 3), x, y in pixels of the image and confidence, PROHMR-44 order.
        crop_from_image: (B, 2, 3), from `box_affine` with the same augmentation.
        augmentation: Of the B people.
        size: Side of the crops, in pixels.

    Returns:
        (B, 44, 3), x and y in sides of the crop from its centre. Keypoints outside the crop keep
        their confidence; keypoints without confidence are 0.
    """
    keypoints = torch.where(
        augmentation.flip[:, None, None], keypoints_2d[:, list(PROHMR_44.flip)], keypoints_2d
    )
    points = _apply(crop_from_image.to(keypoints), without_unseen(keypoints)[..., :2])
    return without_unseen(torch.cat([points / size - 0.5, keypoints[..., 2:]], dim=-1))


def to_pixels(keypoints_2d: Tensor, crop_from_image: Tensor, *, size: int = CROP_PX) -> Tensor:
    """Transform points of a crop back to the image.

    Args:
        keypoints_2d: (B, ..., 2) or (B, ..., 3), x, y in sides of the crop from its middle, and
            confidence. A mirrored crop gives back the other side's joints.
        crop_from_image: (B, 2, 3).
        size: Side of the crops, in pixels.

    Returns:
        Same shape, x and y in pixels of the image.
    """
    batch, last = len(keypoints_2d), keypoints_2d.shape[-1]
    flat = keypoints_2d.reshape(batch, -1, last)
    points = _apply(_inverse(crop_from_image.to(flat)), size * (flat[..., :2] + 0.5))
    return torch.cat([points, flat[..., 2:]], dim=-1).reshape(keypoints_2d.shape)


def crop_images(
    regions: Regions,
    crop_from_image: Tensor,
    *,
    colour: Tensor | None = None,
    size: int = CROP_PX,
    antialias: bool = False,
) -> Tensor:
    """Cut the crops out and normalise them.

    Interpolation is linear and the outside of the image is black, as in ``cv2.warpAffine``.

    Args:
        regions: B people in images.
        crop_from_image: (B, 2, 3), as from `box_affine`.
        colour: (B, 3), factors of red, green and blue, applied before clipping to
            [0, 255].
        size: Side of the crops, in pixels.
        antialias: Average over the image pixels that a pixel of the crop covers. The original
            does not: it skips pixels when it shrinks a person by more than two. Crops that do not
            shrink are unaffected.

    Returns:
        (B, 3, size, size), normalised, in float32, or float64 if the images are.
    """
    images = regions.images
    images = images if images.is_floating_point() else images.float()
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    region_from_crop = _compose(
        regions.region_from_image.to(crop_from_image), _inverse(crop_from_image)
    )
    x, y = _grid(region_from_crop, size)
    crops = _sample_smoothly(images, x, y, region_from_crop) if antialias else _sample(images, x, y)
    if colour is not None:
        crops = crops * colour.to(crops)[..., None, None]
    mean, std = (255 * crops.new_tensor(each)[:, None, None] for each in (MEAN, STD))
    return (crops.clamp(0, 255) - mean) / std


def _sample(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (B, 3, h, w) of images at pixel coordinates (B, h, w), zero outside."""
    sampled: Tensor = remap(images, x.to(images), y.to(images), align_corners=True)
    return sampled


def _sample_smoothly(images: Tensor, x: Tensor, y: Tensor, region_from_crop: Tensor) -> Tensor:
    """Sample from an image pyramid, at the level that matches the scale of the crop.

    Blends the two nearest levels. Rows are independent.
    """
    shrinks = torch.linalg.det(region_from_crop[..., :2]).abs().sqrt()
    deepest = math.floor(math.log2(min(images.shape[-2:])))
    level = shrinks.log2().nan_to_num(0.0).clamp(0, deepest)
    sampled = images.new_zeros(*images.shape[:2], *x.shape[1:])
    for halvings in range(math.ceil(level.max().item()) + 1 if len(level) else 0):
        if halvings:
            # Continue the black around the image.
            images = F.pad(images, (0, images.shape[-1] % 2, 0, images.shape[-2] % 2))
            images = F.avg_pool2d(images, 2)
        share = (1 - (level - halvings).abs()).clamp(min=0)
        rows = share.nonzero().squeeze(-1)
        # A pixel of the halved image lies in the centre of the four that it averages.
        scale = 2**halvings
        there = ((each[rows] - (scale - 1) / 2) / scale for each in (x, y))
        weight = share[rows, None, None, None].to(images)
        sampled[rows] += weight * _sample(images[rows], *there)
    return sampled


# Autocast would compute matrix products of pixel coordinates in half precision; avoid them.


def _apply(affine: Tensor, points: Tensor) -> Tensor:
    """(B, 2, 3) to points (B, n, 2)."""
    linear, offset = affine[:, None].split((2, 1), dim=-1)
    return (linear * points[..., None, :]).sum(dim=-1) + offset.squeeze(-1)


def _grid(affine: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Images of the pixels of a square under maps (B, 2, 3): x and y, (B, size, size) each."""
    axis = torch.arange(size, dtype=affine.dtype, device=affine.device)
    along, down, offset = affine.unbind(dim=-1)
    x, y = (
        (along[:, i, None, None] * axis + offset[:, i, None, None])
        + down[:, i, None, None] * axis[:, None]
        for i in (0, 1)
    )
    return x, y


def _compose(second: Tensor, first: Tensor) -> Tensor:
    """The composition (B, 2, 3) of two maps."""
    linear = (second[..., :2, None] * first[:, None]).sum(dim=-2)
    return torch.cat([linear[..., :2], linear[..., 2:] + second[..., 2:]], dim=-1)


def _inverse(affine: Tensor) -> Tensor:
    """The inverse of each map; a singular one affects its row only."""
    linear = torch.linalg.inv_ex(affine[..., :2]).inverse
    offset = -(linear * affine[:, None, :, 2]).sum(dim=-1, keepdim=True)
    return torch.cat([linear, offset], dim=-1)
