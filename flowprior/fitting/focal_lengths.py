"""Checks of focal lengths, to detect millimetres in place of pixels."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SHORTEST", "check_camera_matrix", "check_focal"]

SHORTEST = 0.2
"""Shortest plausible focal length in sides of the image, a field of view of 136 degrees.

Phones and zoom lenses have 24 to 200 mm (35 mm equivalent) and images of thousands of pixels."""

CONVERSION = "f_px = f_mm / sensor width in mm * image width in px"


def check_focal(
    focal: ArrayLike,
    image_side: ArrayLike | None = None,
    *,
    shortest: float = SHORTEST,
    source: str = "focal length",
) -> None:
    """Check that focal lengths are in pixels.

    Args:
        focal: Focal lengths, any shape.
        image_side: Larger sides of the images in pixels, of a shape that broadcasts to that of
            ``focal``; NaN where unknown, None if all are unknown.
        shortest: Shortest plausible focal length, in sides of the image.
        source: Name of the focal length in the error message.

    Raises:
        ValueError: A focal length is zero, negative, NaN or infinite, or so short that it is
            probably in millimetres; the message contains the conversion.
    """
    values = np.atleast_1d(np.asarray(focal, np.float64))
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        raise ValueError(
            f"{source}: expected a positive number of pixels, got {values[wrong].flat[0]:g}"
        )
    if image_side is None:
        return
    values, sides = np.broadcast_arrays(values, np.asarray(image_side, np.float64))
    short = values < shortest * sides  # not where a side is NaN
    if short.any():
        value, side = values[short].flat[0], sides[short].flat[0]
        raise ValueError(
            f"{source}: {value:g} pixels are too short for an image of {side:g} pixels, it is "
            f"probably in millimetres. Convert it: {CONVERSION}"
        )


def check_camera_matrix(matrix: NDArray[np.floating], source: Path | str) -> None:
    """Check that a camera matrix is in pixels.

    Args:
        matrix: (3, 3), with the principal point near the middle of the image.
        source: Name of its file, for the error message.

    Raises:
        ValueError: An entry is not finite, the last row is not (0, 0, 1), or a focal length or the
            principal point cannot be in pixels.
    """
    name = f"{source}, camera matrix"
    if not np.isfinite(matrix).all() or not np.allclose(matrix[2], [0, 0, 1]):
        raise ValueError(f"{name}: expected finite numbers and a last row 0 0 1, got {matrix}")
    if not (matrix[:2, 2] > 0).all():
        raise ValueError(
            f"{name}: expected a principal point in pixels, got {matrix[:2, 2].tolist()}"
        )
    check_focal(matrix[[0, 1], [0, 1]], 2 * matrix[:2, 2].max(), source=f"{name}, focal length")
