"""Keypoints and joints of people in pictures."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior.keypoints import LEAST_CONF
from flowprior.results.colours import confidence_colours
from flowprior.results.fits import Fits
from flowprior.results.painting import Pinhole, draw_dots, draw_lines
from flowprior.skeleton import BODY_25, Skeleton, shared_joints

__all__ = ["BODY", "draw_joints", "draw_keypoints", "finger_range"]

BODY = (176, 188, 204)
"""Colour of the surface."""
DETECTED = (255, 138, 61)
INK = (20, 20, 26)
# The hands of SMPL are one joint beyond the wrists, without a keypoint of their own.
BODY_JOINTS = 22
FINE = 0.4
"""Size of the dots of fingers and face, relative to those of the body."""


def draw_keypoints(
    canvas: Any,  # noqa: ANN401
    keypoints: NDArray[Any],
    skeleton: Skeleton,
    zoom: float,
    dot: float,
    fine: float = FINE,
) -> None:
    """Draw detected keypoints.

    Args:
        canvas: Pillow image in mode RGB; it is changed.
        keypoints: (K, 3) pixels of the image and confidence.
        skeleton: Their joint set.
        zoom: Pixels of the canvas per pixel of the image.
        dot: Radius of the dots of the body, pixels of the canvas.
        fine: Size of the dots of fingers and face, relative to those of the body.
    """
    seen = keypoints[:, 2] > LEAST_CONF
    places = np.where(seen[:, None], keypoints[:, :2] * zoom, np.nan)
    body = np.zeros(len(keypoints), bool)
    body[list(shared_joints(skeleton, BODY_25)[0])] = True
    colours = np.tile(DETECTED, (len(keypoints), 1))
    for some, size in ((~body, fine * dot), (body, dot)):
        draw_lines(canvas, _bones(places, skeleton.parents, some), DETECTED, size / 3)
    for some, size in ((~body, fine * dot), (body, dot)):
        draw_dots(canvas, places[some], colours[some], size)


def draw_joints(
    canvas: Any,  # noqa: ANN401
    fits: Fits,
    row: int,
    joints: NDArray[Any],
    camera: Pinhole,
    dot: float,
    fine: float = FINE,
    only: Collection[int] | None = None,
) -> None:
    """Draw the joints of a body in the colours of their confidence.

    Args:
        canvas: Pillow image in mode RGB; it is changed.
        fits: The fits.
        row: The person.
        joints: (J, 3) metres; nothing is drawn if one is not finite.
        camera: The camera, in pixels of the canvas.
        dot: Radius of the dots of the body, pixels of the canvas.
        fine: Size of the dots of fingers and face, relative to those of the body.
        only: The joints that are drawn, with the bones to their parents; all if None.
    """
    if not np.isfinite(joints).all():
        return
    points, parents = camera.project(joints), fits.kind.skeleton.parents
    colours = confidence_colours(fits.joint_confidence[row])
    numbers = np.arange(len(joints))
    fingers = np.isin(numbers, [*finger_range(fits, "left"), *finger_range(fits, "right")])
    chosen = np.ones(len(joints), bool) if only is None else np.isin(numbers, list(only))
    for some, size in ((fingers & chosen, fine * dot), ((numbers < BODY_JOINTS) & chosen, dot)):
        draw_lines(canvas, _bones(points, parents, some), INK, size / 3)
        draw_dots(canvas, points[some], colours[some], size)


def finger_range(fits: Fits, side: str) -> range:
    """The joints of the "left" or "right" fingers; none if the body has no fingers."""
    joints = fits.kind.parts.get(f"{side}_hand_pose", slice(0, 0))
    return range(joints.start, joints.stop)


def _bones(points: NDArray[Any], parents: tuple[int, ...], some: NDArray[np.bool_]) -> NDArray[Any]:
    """Ends (n, 2, 2) of the lines from some of the points (J, 2) to their parents."""
    pairs = [
        (points[joint], points[parent])
        for joint, parent in enumerate(parents)
        if parent >= 0 and some[joint]
    ]
    return np.array(pairs, float).reshape(-1, 2, 2)
