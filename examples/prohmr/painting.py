"""Rendering of synthetic images with OpenCV: fast, portable, subpixel-accurate.

Triangles that face the camera are filled from far to near on a canvas of twice the size. Camera
frame: x right, y down, z away, metres. Pixel coordinates are OpenCV's: the centre of the upper left
pixel is (0, 0).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprior.skeleton import SMPL_24

__all__ = ["Painting", "backdrop", "dress", "paint_body", "paint_occluder"]

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

FINER = 2
SHIFT = 4  # fractional bits of coordinates in OpenCV's fillConvexPoly

_BARE = ("neck", "head", "left_hand", "right_hand")
_SKIN = np.array([[243, 208, 182], [224, 172, 137], [178, 121, 84], [110, 72, 50], [74, 48, 36]])


@dataclass(frozen=True)
class Painting:
    """A picture and the mask of its body.

    Args:
        image: (H, W, 3) uint8, red, green and blue.
        body: (H, W) uint8, coverage of each pixel by the body, out of 255.
    """

    image: Pixels
    body: Pixels


def backdrop(size: int, rng: np.random.Generator) -> Pixels:
    """A background: a wall, a floor, blotches and boxes.

    Args:
        size: Side of the picture, in pixels.
        rng: Random generator.

    Returns:
        (size, size, 3) uint8.
    """
    top, bottom = _muted(rng), _muted(rng)
    horizon = int(size * rng.uniform(0.4, 0.95))
    ramp = np.linspace(0, 1, size)[:, None, None]
    picture = np.where(
        np.arange(size)[:, None, None] < horizon,
        (1 - 0.4 * ramp) * top + 0.4 * ramp * bottom,
        bottom,
    )
    picture = np.ascontiguousarray(np.broadcast_to(picture, (size, size, 3)).astype(np.uint8))
    for _ in range(rng.integers(0, 8)):
        colour = tuple(_muted(rng).tolist())
        x, y = (int(v) for v in rng.integers(-size // 4, size, 2))
        width, height = (int(v) for v in rng.integers(size // 12, size // 2, 2))
        if rng.random() < 0.7:
            cv2.rectangle(picture, (x, y), (x + width, y + height), colour, -1)
        else:
            cv2.ellipse(picture, (x, y), (width // 2, height // 2), 0, 0, 360, colour, -1)
    blotches = rng.normal(0, rng.uniform(3, 25), (rng.integers(3, 24),) * 2 + (1,))
    noise = cv2.resize(blotches, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _muted(rng: np.random.Generator) -> Array:
    """A colour (3,) of a room or a street, rarely bright."""
    colour = rng.uniform(20, 236, 3)
    return np.asarray(colour.mean() + rng.choice([0.25, 0.4, 0.9]) * (colour - colour.mean()))


def dress(v_template: Array, weights: Array, rng: np.random.Generator) -> Array:
    """Colours of skin, hair, shirt, trousers and shoes.

    Args:
        v_template: (V, 3) the body at rest, y up, facing +z, metres.
        weights: (V, 24) skinning weights, which assign vertices to body parts.
        rng: Random generator.

    Returns:
        (V, 3) in [0, 255].
    """
    part = np.array(SMPL_24.joint_names)[weights.argmax(axis=1)]
    skin = _SKIN[rng.integers(len(_SKIN))].astype(np.float64)
    shirt, trousers, shoes = rng.uniform(10, 245, (3, 3))
    colours = np.tile(shirt, (len(v_template), 1))
    if rng.random() < 0.5:
        stripe = np.sin(v_template[:, 1] * rng.uniform(40, 120) + rng.uniform(0, 6)) > 0
        colours[stripe] = rng.uniform(10, 245, 3)
    legs = ("pelvis", "left_hip", "right_hip", "left_knee", "right_knee")
    colours[np.isin(part, legs)] = trousers
    feet = ("left_ankle", "right_ankle", "left_foot", "right_foot")
    colours[np.isin(part, feet)] = shoes
    bare: tuple[str, ...] = _BARE
    if rng.random() < 0.5:
        bare += ("left_elbow", "right_elbow", "left_wrist", "right_wrist")
    if rng.random() < 0.3:
        bare += ("left_knee", "right_knee")
    colours[np.isin(part, bare)] = skin
    head = v_template[part == "head"]
    if len(head) and rng.random() < 0.9:
        middle = (head.min(axis=0) + head.max(axis=0)) / 2
        above = v_template - middle
        hair = (part == "head") & (above[:, 1] > 0.35 * above[:, 2] + rng.uniform(-0.02, 0.04))
        colours[hair] = rng.choice([20, 60, 110, 190]) * np.array([1.0, 0.8, 0.6])
    return np.asarray(np.clip(colours + rng.normal(0, 4, colours.shape), 0, 255))


def paint_body(
    picture: Pixels,
    vertices: Array,
    faces: NDArray[np.int64],
    pixels: Array,
    colours: Array,
    rng: np.random.Generator,
) -> Painting:
    """Draw a body under a random light from above.

    Args:
        picture: (S, S, 3), the background.
        vertices: (V, 3) in the camera frame, metres, in front of the camera.
        faces: (F, 3), counterclockwise from outside.
        pixels: (V, 2) projections of the vertices.
        colours: (V, 3) in [0, 255].
        rng: Random generator of the light.

    Returns:
        The picture with the body.
    """
    size = len(picture)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = (normals * corners.mean(axis=1)).sum(axis=1) < 0
    corners, normals = corners[facing], normals[facing]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    light = np.array([rng.uniform(-1, 1), rng.uniform(-1, -0.1), rng.uniform(-1, -0.2)])
    ambient = rng.uniform(0.35, 0.75)
    shade = ambient + (1 - ambient) * 1.2 * np.maximum(normals @ light, 0) / np.linalg.norm(light)
    tint = rng.uniform(0.85, 1.1, 3)
    shaded = np.clip(colours[faces[facing]].mean(axis=1) * shade[:, None] * tint, 0, 255)

    canvas = cv2.resize(picture, None, fx=FINER, fy=FINER, interpolation=cv2.INTER_LINEAR)
    body = np.zeros(canvas.shape[:2], np.uint8)
    # A pixel p covers p - 0.5 to p + 0.5, on both canvases.
    fine = (pixels + 0.5) * FINER - 0.5
    polygons = np.round(fine[faces[facing]] * 2**SHIFT).astype(np.int32)
    for index in np.argsort(-corners[:, :, 2].mean(axis=1)):
        colour = tuple(shaded[index].tolist())
        cv2.fillConvexPoly(canvas, polygons[index], colour, cv2.LINE_8, SHIFT)
        cv2.fillConvexPoly(body, polygons[index], 255, cv2.LINE_8, SHIFT)
    small = (size, size)
    return Painting(
        np.asarray(cv2.resize(canvas, small, interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(body, small, interpolation=cv2.INTER_AREA), np.uint8),
    )


def paint_occluder(
    painting: Painting, center: Array, side: float, rng: np.random.Generator
) -> tuple[Painting, NDArray[np.bool_]]:
    """Draw an occluder in front of the body: a board, a blob or a bar.

    Args:
        painting: The picture with the body.
        center: (2,) centre of the occluder, in pixels.
        side: Its approximate size, in pixels.
        rng: Random generator.

    Returns:
        The picture, and the mask (S, S) of the occluder.
    """
    mask = np.zeros(painting.body.shape, np.uint8)
    kind = rng.random()
    angle = float(rng.uniform(0, 180))
    middle = (float(center[0]), float(center[1]))
    width, height = (float(v) for v in side * rng.uniform(0.5, 1.1, 2))
    if kind < 0.25:
        height = 4.0 * side
        width = 0.5 * side
    if kind < 0.6:
        corners = cv2.boxPoints((middle, (width, height), angle))
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    else:
        axes = (round(width / 2), round(height / 2))
        place = (round(middle[0]), round(middle[1]))
        cv2.ellipse(mask, place, axes, angle, 0, 360, 255, -1)
    covered = mask > 0
    coat = backdrop(len(mask), rng)
    image = np.where(covered[..., None], coat, painting.image)
    return Painting(image, np.where(covered, 0, painting.body).astype(np.uint8)), covered
