"""Files of captured hands, in the forms in which data sets of MANO poses are distributed.

* FreiHAND, ``training_mano.json``: a list of rows of 61 numbers, of right hands: 48 of the pose,
  the wrist first, 10 of the shape, 2 of the image, 1 of the scale (``lmb-freiburg/freihand``,
  ``utils/model.py``, ``split_theta``).
* InterHand2.6M, ``MANO.json``: capture -> frame -> ``"left"`` and ``"right"``, each null or a
  dictionary whose ``"pose"`` has 48 numbers (``facebookresearch/InterHand2.6M``).
* ARCTIC, ``*.mano.npy``: a pickled dictionary with ``"left"`` and ``"right"``, whose ``"pose"`` is
  (T, 45) (``zc-alexfan/arctic``, ``docs/data/data_doc.md``). Of a folder all files are read.
* AMASS and others, ``.npz`` with ``poses`` (T, 156) of SMPL-H or (T, 165) of SMPL-X, or with
  ``pose_hand`` (T, 90), or with ``left_hand_pose`` and ``right_hand_pose`` (T, 45).
* Any other ``.npz``, ``.npy`` or ``.json`` with rotation vectors (N, 45), (N, 15, 3), or with the
  wrist first (N, 48), (N, 16, 3): right hands.

Nothing in a file is executed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior.body.arrays import kind_in, read_body
from flowprior.body.shapes import is_left_hand
from flowprior.files.limits import read_json
from flowprior.files.numpy_file import read_npy_object, read_npz
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = ["read_hand_means", "read_hands", "right_hands"]

Array: TypeAlias = NDArray[np.float64]

SIDES = ("left", "right")
NUMBERS = 3 * HAND_JOINTS
SUFFIXES = (".npz", ".npy", ".json")
# Width of a row -> columns of each hand. 61: FreiHAND; 156, 165: poses of SMPL-H and SMPL-X.
COLUMNS: Mapping[int, Mapping[str, slice]] = {
    45: {"right": slice(0, 45)},
    48: {"right": slice(3, 48)},
    61: {"right": slice(3, 48)},
    90: {"left": slice(0, 45), "right": slice(45, 90)},
    156: {"left": slice(66, 111), "right": slice(111, 156)},
    165: {"left": slice(75, 120), "right": slice(120, 165)},
}
KEYS = {"left": ("left_hand_pose", "left"), "right": ("right_hand_pose", "right", "hand_pose")}
LARGEST_TURN = 2 * np.pi
ACCEPTED = (
    "accepted are rotation vectors (N, 45), (N, 15, 3) or with the wrist first (N, 48), (N, 16, 3) "
    "of right hands, (N, 90) of left and right hands, poses of SMPL-H (N, 156) or SMPL-X (N, 165), "
    "rows of FreiHAND (N, 61), MANO.json of InterHand2.6M, .mano.npy of ARCTIC"
)


def read_hands(path: Path) -> tuple[Tensor, Tensor]:
    """Read poses of hands as they are in a file.

    Args:
        path: A file, or a folder of files. In a folder with files ``*.mano.npy``, these alone are
            read.

    Returns:
        Rotation vectors (N, 15, 3) in MANO's order, and which are of left hands, (N,) bool. The
        hands of one frame follow each other.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file is damaged, or has no such poses.
    """
    files = [path]
    if path.is_dir():
        files = sorted(path.rglob("*.mano.npy")) or sorted(
            file for file in path.rglob("*") if file.suffix in SUFFIXES
        )
        if not files:
            raise ValueError(f"{path} has no files that end in {', '.join(SUFFIXES)}")
    poses, left = zip(*map(_read_file, files), strict=True)
    return torch.from_numpy(np.concatenate(poses)).float(), torch.from_numpy(np.concatenate(left))


def read_hand_means(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Read mean poses of hands from the files of body models.

    Args:
        paths: Files of MANO's hands, or of SMPL-H or SMPL-X with both.

    Returns:
        (15, 3) by side, "left" and "right", as far as the files have them.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file has no mean pose.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        arrays = read_body(path)
        kind = kind_in(arrays, str(path))
        sides = {"hands_meanl": "left", "hands_meanr": "right"}
        sides["hands_mean"] = "left" if kind.name == "MANO" and is_left_hand(arrays) else "right"
        means = {side: arrays[name] for name, side in sides.items() if name in arrays}
        if not means:
            raise ValueError(f"{path} is {kind.name}, without a mean pose of the hands")
        for side, mean in means.items():
            found[side] = torch.from_numpy(mean.copy()).float().unflatten(0, (HAND_JOINTS, 3))
    return found


def right_hands(
    rotvecs: Tensor, left: Tensor, means: Mapping[str, Tensor] | None, source: str
) -> Tensor:
    """Poses of right hands around the flat hand.

    Args:
        rotvecs: (N, 15, 3) as in the file.
        left: (N,) bool, the left hands. Their mirror images are right hands.
        means: Mean poses (15, 3) by side that belong to the poses; None if zero is the flat hand.
        source: Name of the file, for error messages.

    Returns:
        (N, 15, 3).

    Raises:
        ValueError: If the mean of a side is missing.
    """
    if means is not None:
        for side, rows in (("left", left), ("right", ~left)):
            if side not in means and bool(rows.any()):
                raise ValueError(
                    f"{source} has {side} hands, whose mean pose is in MANO_{side.upper()}.pkl: "
                    "add it to --mano"
                )
        zero = torch.zeros(HAND_JOINTS, 3)
        mean = [means.get(side, zero) for side in ("right", "left")]
        rotvecs = rotvecs + torch.stack(mean)[left.long()]
    # The mirror image in x: copied rotations would bend the fingers backwards.
    return torch.where(left[:, None, None], rotvecs * torch.tensor([1.0, -1.0, -1.0]), rotvecs)


def _read_file(path: Path) -> tuple[Array, NDArray[np.bool_]]:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".npz":
        content: object = read_npz(path)
    else:
        content = read_npy_object(path) if path.suffix == ".npy" else read_json(path)
    poses, left = _hands_in(content, str(path))
    if not np.isfinite(poses).all():
        raise ValueError(f"{path} holds NaN or infinity")
    if len(poses) and np.linalg.norm(poses, axis=-1).max() > 1.01 * LARGEST_TURN:
        raise ValueError(
            f"{path} has rotations of more than a turn, {np.abs(poses).max():.4g}: rotation "
            "vectors are in radians"
        )
    return poses, left


def _hands_in(content: object, source: str) -> tuple[Array, NDArray[np.bool_]]:
    if not isinstance(content, dict):
        return _of_rows(content, source)
    if "poses" in content:
        return _of_rows(content["poses"], f"{source}: poses")
    if "pose_hand" in content:
        return _of_rows(content["pose_hand"], f"{source}: pose_hand")
    sides = {side: content[key] for side, keys in KEYS.items() for key in keys if key in content}
    if sides:
        return _of_sides(sides, source)
    captures = [frames for frames in content.values() if isinstance(frames, dict)]
    if captures and len(captures) == len(content):
        return _of_interhand(captures, source)
    if len(content) == 1:
        name, value = next(iter(content.items()))
        return _of_rows(value, f"{source}: {name}")
    names = ", ".join(map(str, list(content)[:20])) or "nothing"
    raise ValueError(f"{source} has no poses of hands: it has {names}; {ACCEPTED}")


def _of_rows(rows: object, source: str) -> tuple[Array, NDArray[np.bool_]]:
    """Hands of an array of whole rows."""
    array = _numbers(rows, source)
    if array.ndim == 3 and array.shape[1] == 1:  # FreiHAND
        array = array[:, 0]
    if array.ndim == 3 and array.shape[2] == 3:
        array = array.reshape(len(array), -1)
    columns = COLUMNS.get(array.shape[1]) if array.ndim == 2 else None
    if columns is None:
        hint = ""
        if array.ndim == 2 and array.shape[1] < NUMBERS:
            hint = (
                f" If these are {array.shape[1]} PCA coefficients, multiply them by the first rows "
                "of hands_components of the MANO file."
            )
        raise ValueError(f"{source} has shape {array.shape}; {ACCEPTED}.{hint}")
    return _interleaved({side: array[:, which] for side, which in columns.items()})


def _of_sides(sides: Mapping[str, object], source: str) -> tuple[Array, NDArray[np.bool_]]:
    """Hands of ARCTIC, or of arrays for each side."""
    found: dict[str, Array] = {}
    for side, value in sides.items():
        part = value["pose"] if isinstance(value, dict) and "pose" in value else value
        array = _numbers(part, f"{source}: {side}")
        array = array.reshape(len(array), -1) if array.ndim == 3 else array
        if array.ndim != 2 or array.shape[1] not in (NUMBERS, NUMBERS + 3):
            raise ValueError(f"{source}: {side} has shape {array.shape}; {ACCEPTED}")
        found[side] = array[:, -NUMBERS:]
    if len({len(each) for each in found.values()}) > 1:
        shapes = ", ".join(f"{side} {each.shape}" for side, each in found.items())
        raise ValueError(f"{source} has left and right hands of different frames: {shapes}")
    return _interleaved(found)


def _of_interhand(
    captures: Sequence[Mapping[str, Any]], source: str
) -> tuple[Array, NDArray[np.bool_]]:
    poses: list[object] = []
    left: list[bool] = []
    for frames in captures:
        for name, frame in frames.items():
            if not isinstance(frame, dict) or not set(frame) & set(SIDES):
                raise ValueError(
                    f'{source}: {name} has no "left" and "right", as frames of InterHand2.6M have; '
                    f"{ACCEPTED}"
                )
            for side in SIDES:
                hand = frame.get(side)
                if hand is not None:
                    poses.append(hand["pose"] if isinstance(hand, dict) else hand)
                    left.append(side == "left")
    array = _numbers(poses, source)
    if array.ndim != 2 or array.shape[1] != NUMBERS + 3:
        raise ValueError(f"{source} has poses of shape {array.shape}, expected rows of 48 numbers")
    return array[:, 3:].reshape(-1, HAND_JOINTS, 3), np.array(left)


def _interleaved(sides: Mapping[str, Array]) -> tuple[Array, NDArray[np.bool_]]:
    """Hands of T frames, those of one frame one after another."""
    poses = np.stack(list(sides.values()), axis=1)
    left = np.array([side == "left" for side in sides])
    return poses.reshape(-1, HAND_JOINTS, 3), np.tile(left, len(poses))


def _numbers(value: object, source: str) -> Array:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{source} is not an array of numbers; {ACCEPTED}") from None
