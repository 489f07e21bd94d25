"""Euler angles that are continuous over time."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["ORDERS", "euler_angles"]

ORDERS = ("XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX")
"""Orders of the three axes: "ZXY" is the product of the rotations about z, x and y."""

_SINGULAR = 1e-6  # cosine of the middle angle


def euler_angles(rotation: NDArray[np.floating], order: str = "ZXY") -> NDArray[np.float64]:
    r"""Angles of rotations about three axes, without jumps.

    Two triples of angles, and all that differ from them by full turns, describe one rotation: each
    frame has the triple nearest to that of the frame before. Where the middle angle is a right
    angle, the first one is kept.

    Args:
        rotation: (T, J, 3, 3) rotations of T frames.
        order: One of :data:`ORDERS`: the rotation is :math:`R_1(\alpha) R_2(\beta) R_3(\gamma)`
            with the axes in this order.

    Returns:
        (T, J, 3) radians, in the order of the axes.

    Raises:
        ValueError: The order is unknown.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    i, j, k = ("XYZ".index(axis) for axis in order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    matrix = np.asarray(rotation, np.float64)
    sine = sign * matrix[..., i, k]
    cosine = np.hypot(matrix[..., j, k], matrix[..., k, k])
    middle = np.arctan2(sine, cosine)
    first = np.arctan2(-sign * matrix[..., j, k], matrix[..., k, k])
    last = np.arctan2(-sign * matrix[..., i, j], matrix[..., i, i])
    singular = cosine < _SINGULAR
    angles = np.zeros((*matrix.shape[:-2], 3))
    before = np.zeros(angles.shape[1:])
    for frame in range(len(angles)):
        one = np.stack([first[frame], middle[frame], last[frame]], axis=-1)
        if singular[frame].any():
            at = singular[frame]
            one[at] = _singular(matrix[frame][at], before[at, 0], middle[frame][at], (i, j), sign)
        other = np.stack([one[..., 0] + np.pi, np.pi - one[..., 1], one[..., 2] + np.pi], axis=-1)
        one, other = (_near(each, before) for each in (one, other))
        nearer = np.abs(other - before).sum(axis=-1) < np.abs(one - before).sum(axis=-1)
        if frame == 0:  # the usual triple, with the middle angle between two right angles
            nearer[:] = False
        before = np.where(nearer[..., None], other, one)
        angles[frame] = before
    return angles


def _near(angles: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same angles, by full turns as near as possible to those before."""
    turns = np.round((angles - before) / (2 * np.pi))
    return np.asarray(angles - 2 * np.pi * turns, np.float64)


def _singular(
    matrix: NDArray[np.float64],
    first: NDArray[np.float64],
    middle: NDArray[np.float64],
    axes: tuple[int, int],
    sign: float,
) -> NDArray[np.float64]:
    """Angles (n, 3) of matrices (n, 3, 3), of which the first are given."""
    i, j = axes
    k = 3 - i - j
    # The rows j of R_1(-first) R = R_2 R_3, which do not depend on the middle angle.
    cosine, sine = np.cos(first)[:, None], sign * np.sin(first)[:, None]
    row = cosine * matrix[:, j] + sine * matrix[:, k]
    return np.stack([first, middle, np.arctan2(sign * row[:, i], row[:, j])], axis=-1)
