"""Output files of fits: SMPL parameters, bodies as GLB, pictures, and a report per person."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from examples.pictures import MODE, Camera, body_views, overlay_bodies, side_by_side, write_glb
from examples.pictures.style import Image
from examples.whole_files import save_npz, write_json
from flowprior.body import BodyModel
from flowprior.fitting import Fits
from flowprior.keypoints import LEAST_CONF

__all__ = [
    "fit_picture",
    "fits_to_arrays",
    "mark",
    "person_report",
    "write_bodies",
    "write_fits",
]

UPRIGHT = np.array([1.0, -1.0, -1.0])
MARK = np.array([255, 190, 0], np.uint8)


@torch.no_grad()
def fits_to_arrays(fits: Fits, body: BodyModel) -> dict[str, NDArray[Any]]:
    """The arrays of `Fits.to_arrays`, and ``joints`` (P, 24, 3) in metres, camera frame."""
    joints = body(fits.theta, fits.betas, fits.transl).joints
    return fits.to_arrays() | {"joints": joints.cpu().numpy()}


def person_report(arrays: dict[str, NDArray[Any]], row: int) -> dict[str, Any]:
    """Report on one person, for JSON."""
    return {
        "status": str(arrays["status"][row]),
        "objective": round(float(arrays["objective"][row]), 3),
        "pose_penalty": round(float(arrays["pose_penalty"][row]), 3),
        "error_px": _rounded(arrays["error_px"][row], 2),
        "error_of_box": _rounded(arrays["error"][row], 4),
        "iterations": int(arrays["iterations"][row]),
        "betas": [round(float(value), 3) for value in arrays["betas"][row]],
        "transl": [round(float(value), 4) for value in arrays["transl"][row]],
    }


def _rounded(value: float, digits: int) -> float | None:
    """For JSON, which has no NaN."""
    return round(float(value), digits) if np.isfinite(value) else None


def write_fits(
    out: Path,
    arrays: dict[str, NDArray[Any]],
    names: Sequence[str],
    people: NDArray[np.int64],
    facts: dict[str, Any],
) -> None:
    """Write ``fits.npz`` and ``report.json`` atomically to an existing folder."""
    everything: dict[str, Any] = {"image_names": np.array(names), "person": people, **arrays}
    save_npz(out / "fits.npz", everything)
    report = {
        **facts,
        "people": [
            {"image": name, "person": int(people[row]), **person_report(arrays, row)}
            for row, name in enumerate(names)
        ],
    }
    write_json(out / "report.json", report)


@torch.no_grad()
def write_bodies(path: Path, fits: Fits, body: BodyModel, names: Sequence[str]) -> None:
    """Write all bodies to one GLB file, upright and side by side."""
    out = body(fits.theta, fits.betas)
    vertices = (out.vertices - out.joints[:, :1]).cpu().numpy() * UPRIGHT
    write_glb(path, vertices, body.faces.cpu().numpy(), names=names, spacing=1.2)


@torch.no_grad()
def fit_picture(
    fits: Fits,
    row: int,
    body: BodyModel,
    keypoints: NDArray[np.float32],
    image: Image | None = None,
    *,
    colour: str = MODE,
    height: int = 420,
) -> Image:
    """Picture of one person: keypoints, body over the image, body from the side.

    Args:
        fits: The fits.
        row: Index of the person.
        body: The body.
        keypoints: (K, 3) pixels and confidence.
        image: (H, W, 3) uint8; white if None.
        colour: Colour of the body.
        height: Height of the picture, pixels.

    Returns:
        (height, W, 3) uint8.
    """
    one = slice(row, row + 1)
    out = body(fits.theta[one], fits.betas[one], fits.transl[one])
    vertices = out.vertices[0].cpu().numpy()
    faces = body.faces.cpu().numpy()
    seen = keypoints[keypoints[:, 2] > LEAST_CONF, :2]
    placed = fits.keypoints_2d[row].cpu().numpy()
    points = np.concatenate([seen, placed])
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    side = max(1.3 * float((points.max(axis=0) - points.min(axis=0)).max()), 2.0)
    zoom = height / side
    corner = middle - side / 2
    frame = _crop(image, corner, side, height)
    principal = (fits.principal_point_px[row].cpu().numpy() - corner) * zoom
    camera = Camera(float(fits.focal_px[row]) * zoom, (float(principal[0]), float(principal[1])))
    marked = mark(frame, (seen - corner) * zoom)
    behind = vertices[:, 2].min() <= 0.05
    over = frame if behind else overlay_bodies(frame, vertices, faces, camera, colours=colour)
    upright = (vertices - vertices.mean(axis=0)) * UPRIGHT
    views = body_views(upright, faces, views=("front", "side"), colours=colour, height=height)
    return side_by_side([marked, mark(over, (seen - corner) * zoom), views], gap=8)


def _crop(given: Image | None, corner: NDArray[np.floating], side: float, height: int) -> Image:
    import cv2

    if given is None:
        return np.full((height, height, 3), 255, np.uint8)
    zoom = height / side
    image = np.asarray(given)
    turn = np.array([[zoom, 0.0, -zoom * corner[0]], [0.0, zoom, -zoom * corner[1]]])
    if zoom < 0.5:  # warps do not average
        image = np.asarray(cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA))
        turn = np.array([[1.0, 0.0, -zoom * corner[0]], [0.0, 1.0, -zoom * corner[1]]])
    warped = cv2.warpAffine(image, turn, (height, height), borderValue=(255, 255, 255))
    return np.asarray(warped, np.uint8)


def mark(image: Image, points: NDArray[np.floating]) -> Image:
    """Draw dots at detected keypoints.

    Args:
        image: (H, W, 3) uint8; it is not changed.
        points: (K, 2) pixels.

    Returns:
        (H, W, 3) uint8.
    """
    import cv2

    drawn = np.ascontiguousarray(image)
    if drawn is image:
        drawn = image.copy()
    for x, y in points:
        centre = (round(float(x)), round(float(y)))
        cv2.circle(drawn, centre, 5, (40, 40, 48), -1, cv2.LINE_AA)
        cv2.circle(drawn, centre, 4, tuple(map(int, MARK)), -1, cv2.LINE_AA)
    return drawn
