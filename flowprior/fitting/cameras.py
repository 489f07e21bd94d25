"""The cameras of a fit: the crop's, or the whole image's, in the units the fit works in.

A fit measures image distances in *units*: pixels of a crop of 224 x 224 around the person, or, as
the original does for whole images, pixels of the image. Robust loss and weights are meant in units,
so with crop units a fit does not depend on the resolution of the image or on how large the person
is in it.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from flowprior.fitting.focal_lengths import check_focal

__all__ = ["CROP_PX", "FOCAL_PX", "Cameras"]

CROP_PX = 224.0
FOCAL_PX = 5000.0
REFERENCE_PX = 1000.0  # of the weight of the data, (1000 / resolution)^2


@dataclass(frozen=True)
class Cameras:
    """One camera for each of P people.

    Args:
        focal: (P,) in units.
        principal_point: (P, 2) in units, from ``origin``.
        origin: (P, 2) pixels of the image where units count from.
        scale: (P,) units per pixel.
        data_weight: (P,) of squared distances in units.

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
    def crop(cls, centre: Tensor, side: Tensor, focal: float = FOCAL_PX) -> "Cameras":
        """The camera of a crop, which looks at its middle: the original's crop mode.

        Args:
            centre: (P, 2) of the square boxes, in pixels of the image.
            side: (P,) of the boxes, in pixels.
            focal: Focal length in pixels of the crop.

        Raises:
            ValueError: Shapes do not fit, or a side or the focal length is not positive.
        """
        _check(centre, side)
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
        """The camera of the whole image, whose axis meets its middle.

        Args:
            image_size: (P, 2) width and height of the images.
            centre: (P, 2) of the square boxes around the people, pixels.
            side: (P,) of the boxes, pixels.
            focal: Focal length in pixels of the image, one or (P,).
            original_units: Whether units are pixels of the image, as in ProHMR's code, where sigma
                and the weight of the data then depend on the resolution. Otherwise they are those
                of the crop.

        Raises:
            ValueError: Shapes do not fit, a side or a focal length is not positive, or the focal
                length of one of the people must be in millimetres.
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
        """The cameras of some people."""
        return Cameras(*(getattr(self, field.name)[rows] for field in fields(self)))

    def where(self, mask: Tensor, other: "Cameras") -> "Cameras":
        """These cameras for the people of a mask (P,), those of ``other`` for the rest."""
        chosen = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            chosen.append(torch.where(mask[:, None] if mine.ndim == 2 else mask, mine, theirs))
        return Cameras(*chosen)

    def to_units(self, pixels: Tensor) -> Tensor:
        """Pixels (P, K, 2) of the image -> units."""
        return (pixels - self.origin[:, None]) * self.scale[:, None, None]

    def to_pixels(self, units: Tensor) -> Tensor:
        """Units (P, K, 2) -> pixels of the image."""
        return units / self.scale[:, None, None] + self.origin[:, None]

    def project(self, points: Tensor, focal: Tensor | None = None) -> Tensor:
        """Points (P, K, 3) in metres, camera frame -> units (P, K, 2).

        Args:
            points: In front of the camera.
            focal: (P,) in units, instead of the cameras' own.
        """
        focal = self.focal if focal is None else focal
        # Behind the camera there is no image; a fit that strays there must find its way back.
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
        """Where people must stand to be seen as large as they are, and in the same place.

        Args:
            points: (P, K, 3) keypoints of the body, metres, not yet moved.
            keypoints: (P, K, 2) where they are seen, units.
            conf: (P, K) weights; at least one positive.

        Returns:
            (P, 3) metres: least squares in weak perspective, or by the extents of both where that
            would mirror the body or make it much smaller.
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


def _check(centre: Tensor, side: Tensor) -> None:
    if side.ndim != 1 or centre.shape != (*side.shape, 2):
        raise ValueError(
            f"expected centre (P, 2) and side (P,), got {tuple(centre.shape)} and "
            f"{tuple(side.shape)}"
        )
    if side.device.type == "cpu" and not (side > 0).all():
        raise ValueError(f"expected sides of boxes above 0, the least is {float(side.min()):g}")
