"""Images of annotated people: decoding, cutting a region around each box, batching.

Workers only decode, cut and shrink; random operations work on whole batches on the device, in
`examples.data.crops`. A region is twice the box, which is as far as ProHMR's augmentation sees
(scale 1.3, 60 degrees, 0.02 of translation: 0.95 of the box to each side), and at most 634 pixels:
then the smallest crop, 0.7 of the box, still has a pixel for each of its 224.

Pixel coordinates are those of OpenCV: the centre of the upper left pixel is (0, 0). Outside of an
image everything is black.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from examples.data.annotations import Annotations, image_root
from examples.data.crops import Labels, Regions
from flowprior.files.file_kind import not_the_file
from flowprior.files.limits import Refusal, require_pixels, require_regular

__all__ = [
    "REGION_PX",
    "GroupDataset",
    "ImageBatch",
    "ImageDataset",
    "Item",
    "collate",
    "decode",
    "init_worker",
]

Pixels: TypeAlias = NDArray[np.uint8]

REGION = 2.0
REGION_PX = math.ceil(2 * 224 * math.sqrt(2))
PADDED_TO = 32


class Item(TypedDict):
    """One person, under ProHMR's names.

    The remaining entries of ProHMR's items (``keypoints_2d`` of the crop, the crop itself) are
    computed from whole batches on the device.

    Args:
        img: (3, h, w) uint8, red, green and blue: the region of the image around the box.
        region_from_image: (2, 3), from pixels of the image to those of ``img``.
        orig_keypoints_2d: (44, 3), pixels of the image and confidence, PROHMR-44.
        keypoints_3d: (44, 4), metres and confidence.
        box_center: (2,), pixels of the image.
        box_size: (), pixels of the image.
        img_size: (2,), width and height of the image.
        smpl_params: ``global_orient`` (3,) and ``body_pose`` (69,) in radians, ``betas`` (10,).
        has_smpl_params: Whether each of these is annotated, () bool.
        smpl_params_is_axis_angle: Whether each of these consists of rotation vectors.
        imgname: Path of the image.
        idx: Row of the annotations.
        fault: The reason why the image is unusable, or "". An unusable image is black and has no
            annotations.
    """

    img: Tensor
    region_from_image: Tensor
    orig_keypoints_2d: Tensor
    keypoints_3d: Tensor
    box_center: Tensor
    box_size: Tensor
    img_size: Tensor
    smpl_params: dict[str, Tensor]
    has_smpl_params: dict[str, Tensor]
    smpl_params_is_axis_angle: dict[str, bool]
    imgname: str
    idx: int
    fault: str


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """B people in images.

    Args:
        images: (B, 3, H, W) uint8, their regions in the upper left corners, the rest black.
        region_from_image: (B, 2, 3), from pixels of each image to those of ``images``.
        center: (B, 2), middle of the box, pixels of the image.
        box_size: (B,), its side.
        img_size: (B, 2), width and height of the image; of the box where there is no image.
        keypoints_2d: (B, 44, 3), pixels of the image and confidence, PROHMR-44.
        keypoints_3d: (B, 44, 4), metres and confidence.
        global_orient: (B, 3) rotation vectors, radians.
        body_pose: (B, 69) rotation vectors.
        betas: (B, 10).
        has_body_pose: (B,) bool, whether ``global_orient`` and ``body_pose`` are annotated.
        has_betas: (B,) bool.
        valid: (B,) bool, False for an unusable image. Such a row has no annotations; leave it out
            of all other computations.
        idx: (B,) int64, rows of the annotations.
        imgname: B paths.
        faults: The reason why a row is not valid, or "".
    """

    images: Tensor
    region_from_image: Tensor
    center: Tensor
    box_size: Tensor
    img_size: Tensor
    keypoints_2d: Tensor
    keypoints_3d: Tensor
    global_orient: Tensor
    body_pose: Tensor
    betas: Tensor
    has_body_pose: Tensor
    has_betas: Tensor
    valid: Tensor
    idx: Tensor
    imgname: tuple[str, ...]
    faults: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def regions(self) -> Regions:
        """The image regions, for `examples.data.crops.make_crops`."""
        return Regions(
            self.images, self.region_from_image, self.center, self.box_size, self.img_size
        )

    @property
    def labels(self) -> Labels:
        """The labels, for `examples.data.crops.make_crops`."""
        return Labels(
            self.keypoints_2d, self.keypoints_3d, self.global_orient, self.body_pose, self.betas
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ImageBatch":
        """The batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ImageBatch":
        """The batch in page-locked memory; `torch.utils.data.DataLoader` calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ImageBatch":
        tensors: dict[str, Any] = {
            field.name: change(getattr(self, field.name))
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


class ImageDataset(Dataset[Item]):
    """Annotated people with their images.

    An image that is missing, damaged, truncated or does not contain the box gives an item with a
    ``fault``, a black image and no annotations. The item keeps its index, so that the other rows
    of an evaluation do not change, and contributes to no loss.

    Args:
        annotations: N people.
        images: The folder that ``imgname`` is relative to.
        oriented: Rotate images according to their EXIF data. By default they stay as stored, as
            in ProHMR, since the coordinates of the data sets refer to the stored image. OpenPose
            rotates images, so its keypoints in photographs need True.
        region: Side of the region, in sides of the box.
        region_px: Largest side of a region in pixels; larger ones are shrunk.

    Raises:
        FileNotFoundError: The folder ``images`` does not exist.
        ValueError: ``region`` or ``region_px`` is not positive.
    """

    def __init__(
        self,
        annotations: Annotations,
        images: Path | str,
        *,
        oriented: bool = False,
        region: float = REGION,
        region_px: int = REGION_PX,
    ) -> None:
        if not region > 0 or region_px < 1:
            raise ValueError(
                f"expected a positive region and region_px, got {region} and {region_px}"
            )
        self.annotations = annotations
        self.root = image_root(Path(images), annotations.imgname)
        self.oriented = oriented
        self.region = region
        self.region_px = region_px

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, idx: int) -> Item:
        """One person; negative indices count from the end."""
        idx = range(len(self))[idx]
        rows = self.annotations
        center, box_size = rows.center[idx], float(rows.box_size[idx])
        path = self.root / str(rows.imgname[idx])
        img_size = (box_size, box_size)
        try:
            image = decode(path, oriented=self.oriented)
            img_size = (float(image.shape[1]), float(image.shape[0]))
            region, region_from_image = _cut(
                image, center, box_size, self.region * box_size, self.region_px
            )
            fault = ""
        except (OSError, ValueError) as error:
            region, region_from_image = np.zeros((1, 1, 3), np.uint8), np.eye(2, 3)
            fault = str(error)
        keypoints_2d = torch.from_numpy(rows.keypoints_2d[idx].copy())
        keypoints_3d = torch.from_numpy(rows.keypoints_3d[idx].copy())
        if fault:
            keypoints_2d[:, -1] = keypoints_3d[:, -1] = 0
        has_pose = torch.tensor(bool(rows.has_body_pose[idx]) and not fault)
        has_betas = torch.tensor(bool(rows.has_betas[idx]) and not fault)
        return {
            "img": torch.from_numpy(np.ascontiguousarray(region.transpose(2, 0, 1))),
            "region_from_image": torch.from_numpy(region_from_image).float(),
            "orig_keypoints_2d": keypoints_2d,
            "keypoints_3d": keypoints_3d,
            "box_center": torch.from_numpy(center.copy()),
            "box_size": torch.tensor(box_size),
            "img_size": torch.tensor(img_size),
            "smpl_params": {
                name: torch.from_numpy(getattr(rows, name)[idx].copy())
                for name in ("global_orient", "body_pose", "betas")
            },
            "has_smpl_params": {
                "global_orient": has_pose,
                "body_pose": has_pose,
                "betas": has_betas,
            },
            "smpl_params_is_axis_angle": {
                "global_orient": True,
                "body_pose": True,
                "betas": False,
            },
            "imgname": str(path),
            "idx": idx,
            "fault": fault,
        }


class GroupDataset(Dataset[ImageBatch]):
    """Groups of views, one batch each; use ``batch_size=None`` in the data loader.

    Args:
        groups: The views of each group, as from `examples.data.view_groups`.
        images: As in `ImageDataset`, like all keywords.
        oriented: Likewise.
        region: Likewise.
        region_px: Likewise.
    """

    def __init__(
        self,
        groups: Sequence[Annotations],
        images: Path | str,
        *,
        oriented: bool = False,
        region: float = REGION,
        region_px: int = REGION_PX,
    ) -> None:
        self.views = ImageDataset(
            Annotations.concatenate(groups),
            images,
            oriented=oriented,
            region=region,
            region_px=region_px,
        )
        self._ends = np.cumsum([0, *map(len, groups)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, idx: int) -> ImageBatch:
        """The views of one group; negative indices count from the end."""
        idx = range(len(self))[idx]
        return collate([self.views[view] for view in range(*self._ends[idx : idx + 2])])


def collate(items: Sequence[Item]) -> ImageBatch:
    """Collate items to a batch, for `torch.utils.data.DataLoader`.

    Args:
        items: B people, at least one.

    Returns:
        The batch. H and W are the smallest multiples of 32 that fit every region.
    """
    height, width = (
        PADDED_TO * math.ceil(max(item["img"].shape[axis] for item in items) / PADDED_TO)
        for axis in (1, 2)
    )
    images = items[0]["img"].new_zeros(len(items), 3, height, width)
    for image, item in zip(images, items, strict=True):
        image[:, : item["img"].shape[1], : item["img"].shape[2]] = item["img"]
    params, has = [[item[key] for item in items] for key in ("smpl_params", "has_smpl_params")]
    return ImageBatch(
        images=images,
        region_from_image=torch.stack([item["region_from_image"] for item in items]),
        center=torch.stack([item["box_center"] for item in items]),
        box_size=torch.stack([item["box_size"] for item in items]),
        img_size=torch.stack([item["img_size"] for item in items]),
        keypoints_2d=torch.stack([item["orig_keypoints_2d"] for item in items]),
        keypoints_3d=torch.stack([item["keypoints_3d"] for item in items]),
        global_orient=torch.stack([each["global_orient"] for each in params]),
        body_pose=torch.stack([each["body_pose"] for each in params]),
        betas=torch.stack([each["betas"] for each in params]),
        has_body_pose=torch.stack([each["body_pose"] for each in has]),
        has_betas=torch.stack([each["betas"] for each in has]),
        valid=torch.tensor([not item["fault"] for item in items]),
        idx=torch.tensor([item["idx"] for item in items]),
        imgname=tuple(item["imgname"] for item in items),
        faults=tuple(item["fault"] for item in items),
    )


def init_worker(worker: int) -> None:
    """Restrict OpenCV to one thread per worker; ``worker_init_fn`` of the data loader.

    Args:
        worker: Number of the worker, unused.
    """
    cv2.setNumThreads(0)


def decode(path: Path, *, oriented: bool = False) -> Pixels:
    """Read an image as red, green and blue.

    Grey images get three equal channels, transparency is dropped, 16 bits are reduced to 8.

    Args:
        path: A file in any format that OpenCV reads.
        oriented: Rotate the image according to its EXIF data.

    Returns:
        (H, W, 3) uint8.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not an image, is damaged, truncated, or larger than
            `flowprior.files.limits.MAX_PIXELS`.
    """
    _check_size(path)
    # From memory, OpenCV rejects a truncated JPEG file. From disk, it fills in grey.
    content = np.fromfile(path, np.uint8)
    flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(content, flags) if content.size else None
    except cv2.error as error:
        raise ValueError(f"{path}: cannot be decoded ({error})") from error
    if image is None:
        raise ValueError(f"{path}: no image, or a damaged one, of {content.size} bytes")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _check_size(path: Path) -> None:
    """Read an image's size and check it before the image is decoded."""
    size = require_regular(path)
    try:
        with warnings.catch_warnings():
            # Pillow's limit is lower.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
        require_pixels(width, height, size)
    except Refusal as refusal:
        raise ValueError(f"{path} {refusal}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is an image of too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        found = not_the_file(path)
        more = f": it {found}" if found and "image" not in found else ""
        raise ValueError(f"{path}: no image, or a damaged one, of {size} bytes{more}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(
            f"{path}: no image, or a damaged one, of {size} bytes ({error})"
        ) from error
    # On damaged headers, Pillow raises almost anything.
    except Exception as error:
        raise ValueError(f"{path} is a damaged image ({type(error).__name__}: {error})") from error


def _cut(
    image: Pixels, center: NDArray[np.float32], box_size: float, side: float, most_px: int
) -> tuple[Pixels, NDArray[np.float64]]:
    """Cut out the region around a box; returns it and the map to its pixels."""
    height, width = image.shape[:2]
    x, y = (float(value) for value in center)

    def within(reach: float) -> tuple[int, int, int, int]:
        """First and last pixels, exclusive, of the image in a square around the centre."""
        return (
            max(0, math.floor(x - reach)),
            max(0, math.floor(y - reach)),
            min(width, math.ceil(x + reach) + 1),
            min(height, math.ceil(y + reach) + 1),
        )

    left, top, right, bottom = within(box_size / 2)
    if left >= right or top >= bottom:
        raise ValueError(
            f"box of {box_size:.0f} pixels around ({x:.0f}, {y:.0f}) lies outside of the image of "
            f"{width} x {height}"
        )
    left, top, right, bottom = within(side / 2)
    region = image[top:bottom, left:right]
    scale = most_px / max(region.shape)
    if scale < 1:
        size = [max(1, round(scale * length)) for length in (right - left, bottom - top)]
        # Down to a half, linear interpolation skips no pixel, and takes an eighth of the time.
        how = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        region = np.asarray(cv2.resize(region, size, interpolation=how), np.uint8)
    # Pixel p covers p - 0.5 to p + 0.5.
    stretch = np.array([region.shape[1] / (right - left), region.shape[0] / (bottom - top)])
    shift = (0.5 - np.array([left, top])) * stretch - 0.5
    return region, np.column_stack([np.diag(stretch), shift])
