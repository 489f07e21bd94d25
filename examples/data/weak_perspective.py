"""ProHMR's weak-perspective camera of a crop, converted to a distant pinhole camera.

The network predicts (s, tx, ty): half the crop's side is 1 / s metres at the body, and the body is
(tx, ty) metres from the axis. Camera frame: x to the right of the image, y down, z away from the
camera, in metres.
"""

import math

import torch
from torch import Tensor

from examples.pinhole import project
from flowprior._precision import at_least_float32

__all__ = [
    "FOCAL_PX",
    "crop_translation",
    "full_frame_translation",
    "project_to_crop",
    "project_to_image",
]

FOCAL_PX = 5000.0
"""Focal length in pixels, for the crop and for the image."""

_TINY = 1e-9  # as in the original, against a scale of zero


def crop_translation(camera: Tensor, *, size: float = 224, focal: float = FOCAL_PX) -> Tensor:
    """Translation of the body in the camera of its crop.

    Args:
        camera: (..., 3), weak perspective (s, tx, ty).
        size: Side of the crop, in pixels.
        focal: Focal length, in pixels.

    Returns:
        ``transl`` (..., 3) = (tx, ty, 2 focal / (size s)), in metres.

    Raises:
        ValueError: ``camera`` has another shape, or ``focal`` or ``size`` is not positive.

    References:
        ``nkolot/ProHMR``, ``prohmr/models/prohmr.py``.
    """
    camera = _precise(camera)
    _check_pixels(focal=focal, size=size)
    depth = 2 * focal / (size * camera[..., :1] + _TINY)
    return torch.cat([camera[..., 1:], depth], dim=-1)


def full_frame_translation(
    camera: Tensor,
    center: Tensor,
    box_size: Tensor,
    img_size: Tensor,
    *,
    focal: float = FOCAL_PX,
) -> Tensor:
    """Translation of the body in the camera of the whole image, whose axis meets the image centre.

    Args:
        camera: (..., 3), weak perspective (s, tx, ty) of a crop.
        center: (..., 2), the centre of the crop's box, in pixels of the image.
        box_size: (...), its side, in pixels of the image.
        img_size: (..., 2), width and height of the image, in pixels.
        focal: Focal length, in pixels.

    Returns:
        ``transl`` (..., 3), in metres.

    Raises:
        ValueError: ``camera`` has another shape, or ``focal`` is not positive.

    References:
        ``nkolot/ProHMR``, ``prohmr/optimization/keypoint_fitting.py``.
    """
    camera = _precise(camera)
    _check_pixels(focal=focal)
    depth = 2 * focal / (box_size[..., None] * camera[..., :1] + _TINY)
    aside = (center - img_size / 2) * depth / focal
    return torch.cat([camera[..., 1:] + aside, depth], dim=-1)


def project_to_crop(
    points: Tensor, transl: Tensor, *, size: float = 224, focal: float = FOCAL_PX
) -> Tensor:
    """Project points of a body to its crop.

    Args:
        points: (..., N, 3), in metres.
        transl: (..., 3), from `crop_translation`.
        size: Side of the crop, in pixels.
        focal: Focal length, in pixels.

    Returns:
        (..., N, 2), in sides of the crop from its centre, like the labels of crops.

    Raises:
        ValueError: ``focal`` or ``size`` is not positive.
    """
    _check_pixels(focal=focal, size=size)
    return focal / size * _on_plane(points, transl)


def project_to_image(
    points: Tensor, transl: Tensor, img_size: Tensor, *, focal: float = FOCAL_PX
) -> Tensor:
    """Project points of a body to the whole image.

    Args:
        points: (..., N, 3), in metres.
        transl: (..., 3), from `full_frame_translation`.
        img_size: (..., 2), width and height of the image, in pixels.
        focal: Focal length, in pixels.

    Returns:
        (..., N, 2), in pixels.

    Raises:
        ValueError: ``focal`` is not positive.
    """
    _check_pixels(focal=focal)
    return focal * _on_plane(points, transl) + img_size[..., None, :] / 2


def _on_plane(points: Tensor, transl: Tensor) -> Tensor:
    points, transl = at_least_float32(points), at_least_float32(transl)
    return project(points + transl[..., None, :])


def _precise(camera: Tensor) -> Tensor:
    if camera.ndim == 0 or camera.shape[-1] != 3:
        raise ValueError(f"expected camera (..., 3), s, tx, ty, got {tuple(camera.shape)}")
    # In half precision, a depth of 45 m would be rounded to 0.25 m.
    return at_least_float32(camera)


def _check_pixels(**lengths: float) -> None:
    for name, length in lengths.items():
        if not (math.isfinite(length) and length > 0):
            raise ValueError(f"{name} must be a positive number of pixels, got {length}")
