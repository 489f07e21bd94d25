"""The picture of an image's people: keypoints, bodies over the photo, and the side view."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior._optional import import_optional
from flowprior.results.bodies import PosedBodies
from flowprior.results.colours import STOPS, confidence_colours
from flowprior.results.fits import Fits
from flowprior.results.hand_views import hand_columns
from flowprior.results.painting import Pinhole, draw_lines, draw_text, paint_mesh, paste
from flowprior.results.people_drawing import BODY, draw_joints, draw_keypoints

__all__ = ["overlay_picture"]

PAPER = (245, 245, 248)
OPACITY = 0.72
LEGEND_PX = 46
WIDEST = 1.4


def overlay_picture(
    fits: Fits, bodies: PosedBodies, photo: NDArray[np.uint8] | None = None, height: int = 640
) -> NDArray[np.uint8]:
    """Draw the people of one image.

    From left to right: the detected keypoints; the bodies, with their joints in the colour of their
    confidence; the bodies from the side, seen from the right of the camera; close-ups of fitted
    hands, of three people at most, those nearest to the camera.

    Args:
        fits: The people of the image.
        bodies: Their bodies.
        photo: (H, W, 3) the image; blank paper if None.
        height: Height of the panels, pixels; wide images become less high.

    Returns:
        (h, w, 3).
    """
    images = import_optional("PIL.Image", purpose="Drawing pictures", package="pillow", extra="fit")
    size = fits.image_size[0] if photo is None else np.array([photo.shape[1], photo.shape[0]])
    height = max(64, min(height, round(WIDEST * height * float(size[1] / size[0]))))
    zoom = height / float(size[1])
    width = max(1, round(float(size[0]) * zoom))
    if photo is None:
        empty = images.new("RGB", (width, height), PAPER)
    else:
        empty = images.fromarray(photo).resize((width, height), images.Resampling.LANCZOS)
    # The photo may have been made smaller than the image that the camera refers to.
    zoom = height / float(fits.image_size[0, 1])
    dot = max(3.5, 0.008 * height)
    detected = empty.copy()
    for keypoints in fits.keypoints_2d:
        draw_keypoints(detected, keypoints, fits.skeleton, zoom, dot)
    over = empty.copy()
    farthest_first = np.argsort(-np.nan_to_num(fits.transl[:, 2]))
    for row in farthest_first:
        centre = fits.centre_px[row] * zoom
        camera = Pinhole(float(fits.focal_px[row]) * zoom, (float(centre[0]), float(centre[1])))
        paint_mesh(over, bodies.vertices[row], bodies.faces, camera, BODY, OPACITY)
        draw_joints(over, fits, row, bodies.joints[row], camera, dot)
    side = _side_view(fits, bodies, height, dot)
    panels = paste([detected, over, side, *hand_columns(fits, bodies, empty, height)])
    whole = images.new("RGB", (panels.width, panels.height + LEGEND_PX), (255, 255, 255))
    whole.paste(panels, (0, 0))
    _draw_legend(whole, panels.height, fits.confidence_distance_mm)
    return np.asarray(whole, np.uint8).copy()


def _side_view(fits: Fits, bodies: PosedBodies, height: int, dot: float) -> Any:  # noqa: ANN401
    """The bodies from the right of the camera: the camera is on the left, y is down."""
    images = import_optional("PIL.Image", purpose="Drawing pictures", package="pillow", extra="fit")
    posed = np.flatnonzero(bodies.posed)
    if not len(posed):
        return images.new("RGB", (height // 2, height), PAPER)

    def turned(points: NDArray[Any]) -> NDArray[Any]:
        return np.stack([points[..., 2], points[..., 1], -points[..., 0]], axis=-1)

    vertices, joints = turned(bodies.vertices[posed]), turned(bodies.joints[posed])
    low, high = vertices.min(axis=(0, 1)), vertices.max(axis=(0, 1))
    tall, deep = float(high[1] - low[1]), float(high[0] - low[0])
    scale = min(0.88 * height / tall, 0.94 * WIDEST * height / deep)
    width = round(max(0.55 * height, scale * deep + 0.1 * height))
    centre = (
        width / 2 - scale * float(low[0] + high[0]) / 2,
        0.94 * height - scale * float(high[1]),
    )
    camera = Pinhole(scale, centre, parallel=True)
    canvas = images.new("RGB", (width, height), PAPER)
    floor = round(0.94 * height)
    draw_lines(canvas, np.array([[[0, floor], [width, floor]]], float), (196, 196, 204), 2)
    for row in np.argsort(-joints[:, 0, 2]):
        paint_mesh(canvas, vertices[row], bodies.faces, camera, BODY)
        draw_joints(canvas, fits, posed[row], joints[row], camera, dot)
    draw_text(canvas, (8, 6), "from the side, camera on the left", 13)
    return canvas


def _draw_legend(canvas: Any, top: int, distance_mm: float) -> None:  # noqa: ANN401
    images = import_optional("PIL.Image", purpose="Drawing pictures", package="pillow", extra="fit")
    strip = confidence_colours(np.linspace(0, 1, 32 * len(STOPS)))[None]
    bar = images.fromarray(strip).resize((140, 12))
    left, place = 10, top + 24
    canvas.paste(bar, (left + 24, place))
    draw_text(canvas, (left, place - 2), "0 %", 12)
    draw_text(canvas, (left + 170, place - 2), "100 %", 12)
    text = f"probability that the joint is within {distance_mm:g} mm of its estimate"
    draw_text(canvas, (left, top + 5), text, 12)
