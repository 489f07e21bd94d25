"""Encodings of poses in files: identification, and conversion to rotation vectors.

Files keep the rotations of J joints as rotation vectors (3 J numbers), matrices (9 J), 6D vectors
(6 J) or quaternions (4 J), often flattened. The width can be ambiguous, so the content
decides.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.data.files import number_array
from examples.data.motion import Float64
from flowprior import rotations

__all__ = ["read_rotations", "to_rotvecs"]

MODELS = {22: "SMPL-H or SMPL-X without hands", 24: "SMPL", 52: "SMPL-H", 55: "SMPL-X"}
"""Numbers of joints of common body models, including the root."""

LOOKED_AT = 100  # poses that are enough to identify the encoding
TOLERANCE = 0.01  # tolerance of the products of the columns of a rotation matrix
SHARE = 0.9  # share of the poses that must have the encoding, as some may be damaged

NAMES = {
    3: "rotation vectors",
    4: "quaternions",
    6: "6D vectors",
    9: "rotation matrices",
}
ADVICE = {
    4: "Convert them to rotation vectors with roma.unitquat_to_rotvec (x, y, z, w)",
    6: "Convert them to rotation vectors with flowprior.rotations, rot6d_to_matrix (whose layout "
    "only the author of the file knows) and matrix_to_rotvec",
}


def read_rotations(
    content: Mapping[str, object],
    key: str,
    source: Path,
    *,
    rows: int | None = None,
    joints: Collection[int] = tuple(MODELS),
) -> NDArray[np.floating]:
    """Read poses in any unambiguous encoding.

    Args:
        content: The file.
        key: The entry: (N, 3 J) or (N, J, 3) rotation vectors, (N, 9 J), (N, J, 9) or
            (N, J, 3, 3) rotation matrices.
        source: Name of the file in messages.
        rows: Expected N; any if None.
        joints: Accepted numbers J of joints, including the root.

    Returns:
        (N, J, 3) rotation vectors, or (N, J, 3, 3) rotation matrices; `to_rotvecs` converts
        both to vectors. Single poses may be damaged.

    Raises:
        ValueError: The entry is missing, is not an array of floating-point numbers, or has another
            encoding or number of joints; the message names the likely encoding.
    """
    array = np.asarray(content[key]) if key in content else np.zeros((0, 0))
    array = number_array(content, key, (rows, *[None] * max(1, array.ndim - 1)), source)
    width = int(np.prod(array.shape[1:]))
    flat: NDArray[np.floating] = array.reshape(len(array), width)
    given = _numbers_per_joint(array.shape)
    per_joint = _look(flat) if given is None else given
    count = width // per_joint
    if array.dtype.kind == "f" and count * per_joint == width and count in joints:
        if per_joint == 3:
            return flat.reshape(-1, count, 3)
        if per_joint == 9 and (_are_matrices(flat) or not np.isfinite(flat).all(axis=1).any()):
            return flat.reshape(-1, count, 3, 3)
    vectors = " or ".join(f"(T, {3 * number})" for number in sorted(joints))
    raise ValueError(
        f"{source}: expected {key} of shape {vectors} with rotation vectors, or as many rotation "
        f"matrices, got {array.shape} of {array.dtype}: "
        + (_described(flat, per_joint, joints) if array.dtype.kind == "f" else "whole numbers")
    )


def to_rotvecs(poses: NDArray[np.floating]) -> Float64:
    """Convert the result of `read_rotations` to rotation vectors.

    Args:
        poses: (N, J, 3) rotation vectors or (N, J, 3, 3) matrices.

    Returns:
        (N, J, 3), radians; NaN for a matrix that is not a rotation.
    """
    numbers: Float64 = poses.astype(np.float64)
    if numbers.ndim == 3:
        return numbers
    sound = _orthonormal(numbers)
    usable = np.where(sound[..., None, None], numbers, np.eye(3))
    vectors: Float64 = rotations.matrix_to_rotvec(torch.from_numpy(usable)).numpy()
    vectors[~sound] = np.nan
    return vectors


def _numbers_per_joint(shape: tuple[int, ...]) -> int | None:
    """3, 4, 6 or 9 if the axes determine it; None for flat poses."""
    if len(shape) < 3:
        return None
    numbers = int(np.prod(shape[2:]))
    return numbers if numbers in NAMES else 3


def _sample(flat: NDArray[np.floating]) -> NDArray[np.floating]:
    """A sample of finite poses, spread over a recording."""
    finite = np.flatnonzero(np.isfinite(flat).all(axis=1))
    return flat[finite[:: max(1, len(finite) // LOOKED_AT)]].astype(np.float64)


def _look(flat: NDArray[np.floating]) -> int:
    """Infer the numbers per joint from the content of flat poses (N, W)."""
    few, width = _sample(flat), flat.shape[1]
    if not few.size:
        return 3
    if width % 9 == 0 and _are_matrices(flat):
        return 9
    if width % 6 == 0 and rotations.matching_layouts(torch.from_numpy(few).unflatten(-1, (-1, 6))):
        return 6
    lengths = np.linalg.norm(few.reshape(len(few), -1, 4), axis=-1) if width % 4 == 0 else 0
    return 4 if (np.abs(lengths - 1) < TOLERANCE).all() else 3


def _are_matrices(flat: NDArray[np.floating]) -> bool:
    few = _sample(flat)
    matrices = few.reshape(len(few), -1, 3, 3)
    return bool(len(few)) and bool(_orthonormal(matrices).all(axis=1).mean() >= SHARE)


def _orthonormal(matrices: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether each matrix (..., 3, 3) is a rotation."""
    with np.errstate(over="ignore", invalid="ignore"):
        gram = matrices @ np.swapaxes(matrices, -1, -2)
        close = np.asarray((np.abs(gram - np.eye(3)) < TOLERANCE).all(axis=(-1, -2)))
        right_handed = np.linalg.det(np.where(close[..., None, None], matrices, 0)) > 0
    return np.asarray(close & right_handed)


def _described(flat: NDArray[np.floating], per_joint: int, joints: Collection[int]) -> str:
    """Describe the likely encoding of unreadable poses, with advice."""
    width = flat.shape[1]
    whole = width % per_joint == 0
    if per_joint == 9 and not _are_matrices(flat):
        return "3 x 3 numbers for each joint that are not rotation matrices"
    if per_joint != 3:
        said = f"{NAMES[per_joint]} of {width // per_joint} joints"
        return f"these look like {said}. {ADVICE[per_joint]}" if per_joint in ADVICE else said
    if whole and width // 3 + 1 in joints and width // 3 not in joints:
        return f"this is as wide as the rotation vectors of {width // 3} joints without the root"
    for other in (6, 9, 4):
        if width % other == 0 and width // other in joints:
            return (
                f"this is as wide as the {NAMES[other]} of {width // other} joints, but it does "
                "not hold any"
            )
    return (
        f"this is as wide as the rotation vectors of {width // 3} joints"
        if whole
        else ("this is not a multiple of 3")
    )
