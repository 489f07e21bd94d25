"""The pinhole projection, and the change between camera axes and y-up axes.

Camera axes: x to the right of the image, y down, z away from the camera. Y-up axes, as of the world
and of OpenGL: x to the right, y up, z towards the viewer. Half a turn about x leads from either to
the other. The functions take tensors and NumPy arrays.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["flip_yz", "flip_yz_rotations", "project"]

Points = TypeVar("Points", Tensor, NDArray[Any])

FLIP = (1.0, -1.0, -1.0)


def project(points: Points, focal: Points | float = 1.0, centre: Points | float = 0.0) -> Points:
    """Project points in front of a camera.

    Args:
        points: (..., 3) in camera axes, metres.
        focal: Focal length in pixels, broadcast against (..., 2); 1 gives normalised coordinates.
        centre: Principal point in pixels, broadcast against (..., 2).

    Returns:
        (..., 2) in pixels: ``focal * (x, y) / z + centre``.
    """
    pixels: Points = focal * points[..., :2] / points[..., 2:] + centre
    return pixels


def flip_yz(points: Points) -> Points:
    """Change points between camera axes and y-up axes, in either direction.

    Args:
        points: (..., 3).

    Returns:
        (..., 3) in the same dtype, y and z negated.
    """
    if isinstance(points, Tensor):
        return points * points.new_tensor(FLIP)
    return points * np.array(FLIP, points.dtype)


def flip_yz_rotations(matrix: Tensor) -> Tensor:
    """Change rotations into y-up axes to rotations into camera axes, or vice versa.

    Args:
        matrix: (..., 3, 3), applied to column vectors.

    Returns:
        (..., 3, 3), the second and third rows negated.
    """
    return matrix * matrix.new_tensor(FLIP)[:, None]
