"""Painting of meshes, joints and legends with Pillow: no graphics card and no display needed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior._optional import import_optional

__all__ = ["Pinhole", "draw_dots", "draw_lines", "draw_text", "paint_mesh", "paste"]

Array = NDArray[Any]
Colour = tuple[int, int, int]

FINER = 2  # oversampling of meshes
NEAREST_M = 0.05
# Directions from the body towards the lights (x right, y down, z forward), and their strengths.
_LIGHTS = (((-0.45, -0.6, -0.7), 0.62), ((0.85, -0.1, -0.5), 0.2))
_AMBIENT = 0.28


@dataclass(frozen=True)
class Pinhole:
    """A camera that looks along +z with y down.

    Args:
        focal: Focal length, pixels.
        centre: Principal point, pixels.
        parallel: Whether rays are parallel; ``focal`` is then pixels per metre.
    """

    focal: float
    centre: tuple[float, float]
    parallel: bool = False

    def project(self, points: Array) -> Array:
        """Points (..., 3) in metres to pixels (..., 2)."""
        depth = 1.0 if self.parallel else np.maximum(points[..., 2:], NEAREST_M)
        return self.focal * points[..., :2] / depth + np.asarray(self.centre)


def paint_mesh(
    canvas: Any,  # noqa: ANN401, a Pillow image
    vertices: Array,
    faces: Array,
    camera: Pinhole,
    colour: Colour,
    opacity: float = 1.0,
) -> None:
    """Draw a body over a picture, from the farthest triangle to the nearest.

    Args:
        canvas: Pillow image in mode RGB; it is changed.
        vertices: (V, 3) metres, camera frame. A body that reaches behind the camera is not drawn.
        faces: (F, 3), counter-clockwise seen from outside where y points up.
        camera: The camera, in pixels of the canvas.
        colour: Colour of the body.
        opacity: 0 to 1.
    """
    if not np.isfinite(vertices).all():
        return
    if not camera.parallel and vertices[:, 2].min() <= NEAREST_M:
        return
    images, drawing = _pillow("Image"), _pillow("ImageDraw")
    corners = vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals / np.maximum(length, 1e-12)
    towards = np.array([0.0, 0.0, -1.0]) if camera.parallel else -corners.mean(axis=1)
    facing = (normals * towards).sum(axis=1) > 0
    light = np.full(len(faces), _AMBIENT)
    for direction, strength in _LIGHTS:
        unit = np.asarray(direction) / np.linalg.norm(direction)
        light += strength * np.maximum(normals @ unit, 0)
    shades = np.clip(np.asarray(colour) * (0.35 + 0.75 * light[:, None]), 0, 255).astype(int)
    flat = camera.project(corners)
    low, high = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    left, top = (int(v) for v in np.floor(np.clip(low - 1, 0, canvas.size)))
    right, bottom = (int(v) for v in np.ceil(np.clip(high + 2, 0, canvas.size)))
    if right <= left or bottom <= top:
        return
    layer = images.new("RGBA", (FINER * (right - left), FINER * (bottom - top)), (0, 0, 0, 0))
    draw = drawing.Draw(layer)
    places = FINER * (flat - (left, top))
    for row in np.argsort(-corners[:, :, 2].mean(axis=1)):
        if facing[row]:
            shade = (*shades[row].tolist(), 255)
            # The outline closes the seams between neighbouring triangles.
            draw.polygon([tuple(p) for p in places[row].tolist()], fill=shade, outline=shade)
    layer = layer.resize((right - left, bottom - top), images.Resampling.BOX)
    alpha = layer.getchannel("A").point(lambda value: round(opacity * value))
    canvas.paste(layer.convert("RGB"), (left, top), alpha)


def draw_lines(canvas: Any, ends: Array, colour: Colour, width: float) -> None:  # noqa: ANN401
    """Draw lines (n, 2, 2), from pixel to pixel; those with NaN are skipped."""
    draw = _pillow("ImageDraw").Draw(canvas)
    for start, end in ends:
        if np.isfinite([start, end]).all():
            draw.line([tuple(start), tuple(end)], fill=colour, width=max(1, round(width)))


def draw_dots(
    canvas: Any,  # noqa: ANN401
    points: Array,
    colours: Array,
    radius: float,
    outline: Colour = (20, 20, 26),
) -> None:
    """Draw smooth dots at points (n, 2) in colours (n, 3); points with NaN are skipped."""
    images, drawing = _pillow("Image"), _pillow("ImageDraw")
    side = 2 * int(np.ceil(radius)) + 3
    finer = 4
    for (x, y), colour in zip(points, colours, strict=True):
        if not np.isfinite([x, y]).all() or max(abs(x), abs(y)) > 1e5:
            continue
        corner = (int(np.floor(x)) - side // 2, int(np.floor(y)) - side // 2)
        mask = images.new("L", (finer * side, finer * side), 0)
        centre = np.array([x - corner[0] + 0.5, y - corner[1] + 0.5]) * finer
        for size, shade in ((radius, outline), (radius * 0.74, tuple(int(v) for v in colour))):
            box = [*(centre - size * finer), *(centre + size * finer)]
            mask.paste(0, (0, 0, *mask.size))
            drawing.Draw(mask).ellipse(box, fill=255)
            canvas.paste(shade, corner, mask.resize((side, side), images.Resampling.BOX))


def draw_text(
    canvas: Any,  # noqa: ANN401
    place: tuple[float, float],
    text: str,
    size: float = 14,
    colour: Colour = (43, 43, 51),
    anchor: str = "la",
) -> None:
    """Write text, placed as Pillow's anchors say."""
    font = _pillow("ImageFont").load_default(size)
    _pillow("ImageDraw").Draw(canvas).text(place, text, fill=colour, font=font, anchor=anchor)


def paste(pictures: list[Any], gap: int = 8, colour: Colour = (255, 255, 255)) -> Any:  # noqa: ANN401
    """Put Pillow images side by side, aligned at the top."""
    width = sum(each.width for each in pictures) + gap * (len(pictures) - 1)
    whole = _pillow("Image").new("RGB", (width, max(each.height for each in pictures)), colour)
    left = 0
    for each in pictures:
        whole.paste(each, (left, 0))
        left += each.width + gap
    return whole


def _pillow(module: str) -> Any:  # noqa: ANN401, Pillow is optional
    return import_optional(
        f"PIL.{module}", purpose="Drawing pictures", package="pillow", extra="fit"
    )
