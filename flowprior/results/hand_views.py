"""Close-ups of fitted hands."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior._optional import import_optional
from flowprior.fitting.whole_body_points import finger_joints
from flowprior.results.bodies import PosedBodies
from flowprior.results.fits import Fits
from flowprior.results.painting import Pinhole, draw_text, paint_mesh
from flowprior.results.people_drawing import BODY, draw_joints, draw_keypoints, finger_range

__all__ = ["hand_columns"]

MOST_PEOPLE = 3
AROUND = 1.6
"""Side of a close-up, in extents of the hand."""
OPACITY = 0.85
SMALLEST_PX = 4.0
"""Hands with a smaller extent in the image are not enlarged."""
PAPER = (245, 245, 248)
SIDES = ("left", "right")


def hand_columns(fits: Fits, bodies: PosedBodies, image: Any, height: int) -> list[Any]:  # noqa: ANN401
    """Columns with the left and the right hand of a person, where one of them was fitted.

    Args:
        fits: The people of an image.
        bodies: Their bodies.
        image: Pillow image, the photo or blank paper, of any size.
        height: Height of a column, pixels.

    Returns:
        Pillow images, one for each person, those nearest to the camera first.
    """
    if fits.hands is None:
        return []
    images = import_optional("PIL.Image", purpose="Drawing pictures", package="pillow", extra="fit")
    fitted = fits.hands == "fitted"
    rows = [
        int(row)
        for row in np.argsort(np.nan_to_num(fits.transl[:, 2]))
        if fitted[row].any() and bodies.posed[row]
    ]
    side_px = height // 2 - 2
    columns = []
    for row in rows[:MOST_PEOPLE]:
        column = images.new("RGB", (side_px, height), (255, 255, 255))
        for number, side in enumerate(SIDES):
            if not fitted[row, number]:
                continue
            view = _close_up(fits, bodies, row, side, image, side_px)
            whose = f" of person {fits.person[row]}" if len(fits) > 1 else ""
            draw_text(view, (6, 4), f"{side} hand{whose}", 13)
            column.paste(view, (0, number * (height - side_px)))
        columns.append(column)
    return columns


def _close_up(
    fits: Fits,
    bodies: PosedBodies,
    row: int,
    side: str,
    image: Any,  # noqa: ANN401
    side_px: int,
) -> Any:  # noqa: ANN401
    """A square of ``side_px`` pixels around a hand."""
    images = import_optional("PIL.Image", purpose="Drawing pictures", package="pillow", extra="fit")
    camera = Pinhole(float(fits.focal_px[row]), _pair(fits.centre_px[row]))
    fingers = finger_range(fits, side)
    wrist = fits.kind.skeleton.index(f"{side}_wrist")
    points = camera.project(bodies.joints[row, [wrist, *fingers]])
    low, high = points.min(axis=0), points.max(axis=0)
    extent = AROUND * max(float((high - low).max()), SMALLEST_PX)
    extent = min(extent, float(fits.image_size[row].max()))  # a hand beside the camera
    corner = (low + high) / 2 - extent / 2
    # The photo may have been made smaller than the image that the camera refers to.
    shrunk = image.width / float(fits.image_size[row, 0])
    left, top = (round(float(value)) for value in shrunk * corner)
    size = max(1, round(shrunk * extent))
    crop = images.new("RGB", (size, size), PAPER)
    crop.paste(image, (-left, -top))
    view = crop.resize((side_px, side_px), images.Resampling.BICUBIC)
    zoom = side_px / extent
    near = Pinhole(zoom * camera.focal, _pair(zoom * (np.asarray(camera.centre) - corner)))
    dot = 0.022 * side_px
    paint_mesh(view, bodies.vertices[row], bodies.faces, near, BODY, OPACITY)
    shifted = fits.keypoints_2d[row].copy()
    shifted[:, :2] -= corner
    wrists = [n for n, same in enumerate(fits.skeleton.meanings) if same == f"{side}_wrist"]
    other = np.ones(len(shifted), bool)
    other[[*finger_joints(fits.skeleton, side), *wrists]] = False
    shifted[other, 2] = 0
    draw_keypoints(view, shifted, fits.skeleton, zoom, 0.7 * dot, fine=0.8)
    draw_joints(view, fits, row, bodies.joints[row], near, dot, fine=0.8, only=[wrist, *fingers])
    return view


def _pair(values: NDArray[Any]) -> tuple[float, float]:
    return float(values[0]), float(values[1])
