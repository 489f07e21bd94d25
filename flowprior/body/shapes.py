"""The shape and expression directions of a file."""

import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowprior.body.kinds import MANO, SMPLX, BodyKind

__all__ = ["flipped_shapes", "is_left_hand", "split_shapes"]

Array: TypeAlias = NDArray[Any]

# Columns of the official SMPL-X files and the first of the expression.
EXPRESSION_STARTS = {20: 10, 400: 300}


def split_shapes(
    kind: BodyKind, directions: Array, expression_start: int | None, source: str
) -> tuple[Array, Array]:
    """Split the shape directions of a file into those of the shape and of the expression.

    The official SMPL-X files have 400 columns, 300 of the shape and 100 of the expression, or 20,
    10 of each. No field of a file says so.

    Args:
        kind: The model.
        directions: (V, 3, n).
        expression_start: First column of the expression; recognised by n if None.
        source: Name of the file, for error messages.

    Returns:
        (V, 3, n_shape) and (V, 3, n_expression), which is empty except for SMPL-X.

    Raises:
        ValueError: If the split is unknown or impossible.
    """
    columns = directions.shape[-1]
    if expression_start is not None:
        if kind is not SMPLX or not 0 < expression_start <= columns:
            raise ValueError(
                f"expression_start={expression_start}: {source} is {kind.name} with {columns} "
                "columns of shapedirs; only those of SMPL-X contain expressions"
            )
        return directions[..., :expression_start], directions[..., expression_start:]
    if kind is not SMPLX or columns <= min(EXPRESSION_STARTS.values()):
        return directions, directions[..., :0]
    if columns not in EXPRESSION_STARTS:
        raise ValueError(
            f"{source} has {columns} columns of shapedirs, not the 20 (10 of the shape, 10 of the "
            "expression) or 400 (300 and 100) of the official files: pass expression_start, the "
            f"first column of the expression, or {columns} if there are none"
        )
    start = EXPRESSION_STARTS[columns]
    return directions[..., :start], directions[..., start:]


def is_left_hand(arrays: Mapping[str, Array]) -> bool:
    """Whether the fingers of a hand's template point to +x, the side of the left arm."""
    joints = arrays["J_regressor"] @ arrays["v_template"]
    return bool(joints[1:, 0].mean() > joints[0, 0])


def flipped_shapes(
    kind: BodyKind, arrays: Mapping[str, Array], flip: bool | None, source: str
) -> Array:
    """The shape directions of a file, those of MANO's left hand corrected on request.

    Args:
        kind: The model.
        arrays: Arrays of the file.
        flip: Whether to change the sign in x; warns about a left hand if None.
        source: Name of the file, for messages.

    Returns:
        (V, 3, n).

    Raises:
        ValueError: If ``flip`` is set for anything but a left hand.
    """
    directions = arrays["shapedirs"]
    left = kind is MANO and is_left_hand(arrays)
    if flip and not left:
        what = "the right hand" if kind is MANO else kind.description
        raise ValueError(
            f"flip_shapedirs=True is for MANO's left hand; {source} is {kind.name}, {what}"
        )
    if left and flip is None:
        warnings.warn(
            f"{source}: the released file of MANO's left hand has the shape directions of the "
            "right one, so equal betas give other shapes. Choose: flip_shapedirs=True for mirrored "
            "shapes, or False for betas that were fitted with this file as it is",
            UserWarning,
            stacklevel=4,
        )
    return directions * np.array([[-1.0], [1.0], [1.0]]) if flip else directions
