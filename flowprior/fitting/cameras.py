"""Cameras of a fit, of the crop or of the whole image, and the units of image distances.

A fit measures image distances in *units*: pixels of a 224 x 224 crop around the person, or, as
ProHMR does for whole images, pixels of the image. The robust loss and the weights refer to units.
In crop units, a fit therefore depends neither on the resolution of the image nor on the size of the
person in it.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from flowprior.fitting.focal_lengths import check_focal
from flowprior.keypoints import keypoint_squares, seen_keypoints

__all__ = ["CROP_PX", "FOCAL_PX", "FRAMES", "Cameras", "cameras_for"]

FRAMES = ("crop", "full", "full-original")
"""Frames of `cameras_for`."""

CROP_PX = 224.0
FOCAL_PX = 5000.0
REFERENCE_PX = 1000.0  # the data weight is (1000 / resolution)^2


@dataclass(frozen=True)
class Cameras:
    """One camera for each of P people.

    Args:
        focal: (P,) focal lengths, units.
        principal_point: (P, 2) units, relative to ``origin``.
        origin: (P, 2) origin of the units, pixels of the image.
        scale: (P,) units per pixel.
        data_weight: (P,) weight of squared distances in units.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, and its code:
        focal length 5000, crops of 224, weight (1000 / max(W, H))^2.
    """

    focal: Tensor
    principal_point: Tensor
    origin: Tensor
    scale: Tensor
    data_weight: Tensor

    def __len__(self) -> int:
        return len(self.focal)

    @classmethod
    def crop(cls, centre: Tensor, side: Tensor, focal: Tensor | float = FOCAL_PX) -> "Cameras":
        """Cameras of crops, which look at the middle of the crop: ProHMR's crop mode.

        Args:
            centre: (P, 2) centres of the square boxes, in pixels of the image.
            side: (P,) sides of the boxes, in pixels.
            focal: Focal length in pixels of the crop, one or (P,).

        Raises:
            ValueError: Shapes do not fit, or a side or a focal length is not positive.
        """
        _check(centre, side)
        if not isinstance(focal, Tensor) or focal.device.type == "cpu":
            check_focal(focal)
        one = torch.ones_like(side)
        weight = (REFERENCE_PX / CROP_PX) ** 2 * one
        return cls(focal * one, torch.zeros_like(centre), centre, CROP_PX / side, weight)

    @classmethod
    def full(
        cls,
        image_size: Tensor,
        centre: Tensor,
        side: Tensor,
        focal: Tensor | float = FOCAL_PX,
        *,
        original_units: bool = False,
    ) -> "Cameras":
        """Cameras of whole images, with the principal point in the middle.

        Args:
            image_size: (P, 2) width and height of the images.
            centre: (P, 2) centres of the square boxes around the people, pixels.
            side: (P,) sides of the boxes, pixels.
            focal: Focal length in pixels of the image, one or (P,).
            original_units: Whether units are pixels of the image, as in ProHMR's code, where the
                effect of sigma and the data weight then depends on the resolution. Otherwise units
                are pixels of the crop.

        Raises:
            ValueError: Shapes do not fit, a side or a focal length is not positive, or the focal
                length seems to be in millimetres.
        """
        _check(centre, side)
        if isinstance(focal, float | int):
            check_focal(focal)
        elif focal.device.type == "cpu":  # elsewhere the host would have to wait
            check_focal(focal, image_size.amax(dim=-1) if focal.ndim else None)
        if image_size.shape != centre.shape:
            raise ValueError(
                f"expected image_size of shape {tuple(centre.shape)}, got {tuple(image_size.shape)}"
            )
        focal = torch.as_tensor(focal, dtype=side.dtype, device=side.device).expand_as(side)
        middle = image_size / 2
        if original_units:
            weight = (REFERENCE_PX / image_size.amax(dim=-1)).square()
            return cls(focal, middle, torch.zeros_like(centre), torch.ones_like(side), weight)
        scale = CROP_PX / side
        weight = torch.full_like(side, (REFERENCE_PX / CROP_PX) ** 2)
        return cls(focal * scale, (middle - centre) * scale[:, None], centre, scale, weight)

    def __getitem__(self, rows: Tensor) -> "Cameras":
        """The cameras of the people ``rows`` (n,)."""
        return Cameras(*(getattr(self, field.name)[rows] for field in fields(self)))

    def where(self, mask: Tensor, other: "Cameras") -> "Cameras":
        """These cameras where ``mask`` (P,) is true, those of ``other`` elsewhere."""
        chosen = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            chosen.append(torch.where(mask[:, None] if mine.ndim == 2 else mask, mine, theirs))
        return Cameras(*chosen)

    def to_units(self, pixels: Tensor) -> Tensor:
        """Convert pixels (P, K, 2) of the image to units."""
        return (pixels - self.origin[:, None]) * self.scale[:, None, None]

    def to_pixels(self, units: Tensor) -> Tensor:
        """Convert units (P, K, 2) to pixels of the image."""
        return units / self.scale[:, None, None] + self.origin[:, None]

    def project(self, points: Tensor, focal: Tensor | None = None) -> Tensor:
        """Project points to the image.

        Args:
            points: (P, K, 3) metres, camera frame. Depths below 1 cm count as 1 cm.
            focal: (P,) focal lengths in units that replace the cameras' own.

        Returns:
            (P, K, 2) units.
        """
        focal = self.focal if focal is None else focal
        # A fit that strays behind the camera needs a gradient that leads back.
        depth = points[..., 2:].clamp(min=1e-2)
        return focal[:, None, None] * points[..., :2] / depth + self.principal_point[:, None]

    @property
    def focal_px(self) -> Tensor:
        """(P,) focal lengths in pixels of the image."""
        return self.focal / self.scale

    @property
    def principal_point_px(self) -> Tensor:
        """(P, 2) principal points in pixels of the image."""
        return self.origin + self.principal_point / self.scale[:, None]

    def translation_for(self, points: Tensor, keypoints: Tensor, conf: Tensor) -> Tensor:
        """Estimate translations that make bodies appear in the right size and place.

        Args:
            points: (P, K, 3) keypoints of the bodies before the translation, metres.
            keypoints: (P, K, 2) detected keypoints, units.
            conf: (P, K) weights, at least one of them positive.

        Returns:
            (P, 3) metres: the least-squares solution in weak perspective, or one from the extents
            of both where that would mirror the body or shrink it by more than 40 %.
        """
        weight = conf / conf.sum(dim=1, keepdim=True).clamp(min=1e-6)
        flat = points[..., :2]
        body_mean = (weight[..., None] * flat).sum(dim=1)
        image_mean = (weight[..., None] * keypoints).sum(dim=1)
        body, image = flat - body_mean[:, None], keypoints - image_mean[:, None]

        def moment(first: Tensor, second: Tensor) -> Tensor:
            return (weight[..., None] * first * second).sum(dim=(1, 2))

        spread = moment(body, body).clamp(min=1e-4)
        extent = (moment(image, image) / spread).sqrt().clamp(min=1.0)
        ratio = torch.clamp(moment(body, image) / spread, 0.6 * extent, extent)
        place = (image_mean - self.principal_point) / ratio[:, None] - body_mean
        return torch.cat([place, (self.focal / ratio)[:, None]], dim=-1)


def cameras_for(
    keypoints: Tensor,
    image_size: Tensor | tuple[float, float] | None = None,
    focal_px: Tensor | float | None = None,
    *,
    frame: str | None = None,
    box: tuple[Tensor, Tensor] | None = None,
) -> Cameras:
    """Cameras of P people.

    Args:
        keypoints: (P, K, 3) pixels and confidence, which determine the boxes.
        image_size: (P, 2), (2,) or a pair: width and height of the images in pixels. People whose
            size is NaN, infinite or not positive get the camera of their crop.
        focal_px: Focal length in pixels of the crop (frame "crop") or of the image: one number or
            (P,). If None, the diagonal of the image for frame "full", as is usual for photographs
            of unknown cameras, and ProHMR's 5000 for the others.
        frame: One of `FRAMES`: "crop" is a camera that looks at the middle of the person; "full"
            is the camera of the whole image, with distances in units of the crop; "full-original"
            measures them in pixels of the image, as ProHMR's code does. By default "full" if
            ``image_size`` is given, otherwise "crop".
        box: Centres (P, 2) and sides (P,) of the crops, pixels; squares around the keypoints if
            None.

    Raises:
        ValueError: There is no such frame, the frame needs the size of the image, shapes do not
            fit, or a focal length is not positive or seems to be in millimetres.
    """
    frame = frame or ("crop" if image_size is None else "full")
    if frame not in FRAMES:
        raise ValueError(f"the frame must be one of {', '.join(FRAMES)}, got {frame!r}")
    if frame != "crop" and image_size is None:
        raise ValueError(f"frame {frame!r} needs the size of the images: give the images, or crop")
    centre, side = keypoint_squares(seen_keypoints(keypoints)) if box is None else box
    size = None
    if image_size is not None:
        size = torch.as_tensor(image_size, dtype=side.dtype, device=side.device)
        if size.shape not in ((2,), centre.shape):
            raise ValueError(
                f"expected image_size {tuple(centre.shape)} or (2,), got {tuple(size.shape)}"
            )
        size = size.expand_as(centre)
    if focal_px is None:
        focal: Tensor | float = FOCAL_PX
        if size is not None and frame == "full":
            known = (size.isfinite() & (size > 0)).all(dim=-1)
            focal = torch.where(known, size.norm(dim=-1), FOCAL_PX)
    elif isinstance(focal_px, Tensor) and focal_px.ndim:
        if focal_px.shape != side.shape:
            raise ValueError(
                f"expected focal_px {tuple(side.shape)} or one number, got {tuple(focal_px.shape)}"
            )
        focal = focal_px.to(side)
    else:
        focal = float(focal_px)
    if focal_px is not None:
        _check_plausible(focal, None if frame == "crop" else size)
    crop = Cameras.crop(centre, side, focal)
    if frame == "crop" or size is None:
        return crop
    known = (size.isfinite() & (size > 0)).all(dim=-1)
    sides = torch.where(known[:, None], size, CROP_PX)
    # Of people in their crop the focal length is not that of an image.
    whole = torch.where(known, focal, FOCAL_PX) if isinstance(focal, Tensor) else focal
    full = Cameras.full(sides, centre, side, whole, original_units=frame == "full-original")
    return full.where(known, crop)


def _check_plausible(focal: Tensor | float, image_size: Tensor | None) -> None:
    """Check focal lengths, one for all people by the smallest image whose size is known."""
    given = torch.as_tensor(focal).reshape(-1).cpu()
    sides = torch.full((1,), torch.nan) if image_size is None else image_size.amax(dim=-1).cpu()
    sides = torch.where(sides.isfinite() & (sides > 0), sides, torch.nan)
    if not isinstance(focal, Tensor):
        sides = (
            torch.where(sides.isnan(), torch.inf, sides).amin(dim=0, keepdim=True)
            if len(sides)
            else torch.full((1,), torch.inf)
        )
        sides = torch.where(sides.isinf(), torch.nan, sides)
    sides = sides.expand_as(given)
    unknown = sides.isnan()
    check_focal(given[~unknown], sides[~unknown])
    # A person fills the crop: under more than 90 degrees, they would be within reach.
    check_focal(given[unknown], CROP_PX, shortest=0.5)


def _check(centre: Tensor, side: Tensor) -> None:
    if side.ndim != 1 or centre.shape != (*side.shape, 2):
        raise ValueError(
            f"expected centre (P, 2) and side (P,), got {tuple(centre.shape)} and "
            f"{tuple(side.shape)}"
        )
    if side.device.type == "cpu" and not (side > 0).all():
        raise ValueError(f"expected sides of boxes above 0, the least is {float(side.min()):g}")
