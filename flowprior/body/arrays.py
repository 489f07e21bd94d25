"""Safe readers and checks for files of bodies and keypoint regressors."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flowprior.body.kinds import KINDS, BodyKind, kind_of
from flowprior.body.unsuitable import describe_format, describe_keys, describe_tree
from flowprior.files.numpy_file import read_npy, read_npz, read_pickle
from flowprior.skeleton import SKELETONS

__all__ = [
    "REGRESSOR_PREFIX",
    "RegressorSource",
    "check_arrays",
    "kind_in",
    "read_body",
    "read_hands",
    "read_regressor",
]

Array: TypeAlias = NDArray[np.float64]
RegressorSource: TypeAlias = str | os.PathLike[str] | NDArray[Any] | Tensor

REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f")
SUFFIXES = (".npz", ".pkl")
INDICES = ("kintree_table", "f", "vertex_ids", "lmk_faces_idx")
LANDMARKS = ("lmk_faces_idx", "lmk_bary_coords")
HANDS = tuple(f"hands_{what}{side}" for what in ("mean", "components") for side in ("", "l", "r"))
REGRESSOR_PREFIX = "regressor "
"""Prefix of a joint set's name in the key of a regressor inside a body file."""

_EMBEDDED = {False: "embedded_body.npz", True: "embedded_body_with_hands.npz"}


def read_body(path: str | os.PathLike[str] | None, hands: bool = False) -> dict[str, NDArray[Any]]:
    """Read and check the arrays of a body.

    Args:
        path: None for the embedded body, or a file of SMPL, SMPL-H, SMPL-X or MANO, ``.pkl`` or
            ``.npz``.
        hands: Whether the embedded body has fingers.

    Returns:
        The arrays by their names in the files; `kind_in` returns the model. For the embedded body
        also ``vertex_ids`` and keypoint regressors, whose keys are `REGRESSOR_PREFIX` and the name
        of the joint set.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not such a model, refers to code, or contains an array with a
            wrong shape. The message says what the file is, where that is known.
    """
    content: object
    if path is None:
        file = resources.files("flowprior") / "assets" / _EMBEDDED[hands]
        with resources.as_file(file) as embedded:
            content = read_npz(embedded)
    elif not Path(path).exists():
        raise FileNotFoundError(
            f"{path}: no such file. SMPL comes from https://smpl.is.tue.mpg.de, SMPL-X from "
            "https://smpl-x.is.tue.mpg.de, SMPL-H and MANO from https://mano.is.tue.mpg.de, each "
            "after registration; BodyModel() without a file uses the embedded body"
        )
    elif Path(path).suffix not in SUFFIXES or Path(path).is_dir():
        raise ValueError(f"{path} {describe_format(path)}; a body model ends in .pkl or .npz")
    elif Path(path).suffix == ".npz":
        content = read_npz(path)
    else:
        content = read_pickle(path)
    source = "the embedded body" if path is None else str(path)
    if not isinstance(content, dict) or not content:
        assert path is not None
        found = describe_format(path, content)
        raise ValueError(f"{source} {found}, not a dictionary of arrays as a body model")
    missing = [name for name in REQUIRED if name not in content]
    if missing:
        known = describe_keys(content)
        found = ", ".join(map(str, list(content)[:20])) or "nothing"
        raise ValueError(
            f"{source} is not a body model: {known}{'; ' if known else ''}"
            f"{', '.join(missing)} missing, found {found}"
        )
    # A body with other joints differs in every array; an error about its tree is the most helpful.
    tree = _numbers(content["kintree_table"], "iu", f"{source}: kintree_table")
    kind = _kind(tree, content["posedirs"], source)
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in content.items():
        if isinstance(name, str) and (
            name in (*REQUIRED, *HANDS, *LANDMARKS, "vertex_ids")
            or name.startswith(REGRESSOR_PREFIX)
        ):
            kinds = "iu" if name in INDICES else "fiu"
            arrays[name] = _numbers(value, kinds, f"{source}: {name}")
    arrays = _unflattened(arrays)
    check_arrays(kind, arrays, source)
    return arrays


def read_hands(
    left: str | os.PathLike[str], right: str | os.PathLike[str]
) -> dict[str, NDArray[Any]]:
    """Read the mean poses and components of MANO's hands, which SMPL-H's files can lack.

    Args:
        left: The file of MANO's left hand.
        right: The file of its right hand.

    Returns:
        ``hands_meanl``, ``hands_componentsl``, ``hands_meanr``, ``hands_componentsr``, as the
        script ``merge_smplh_mano.py`` of ``smplx`` adds them to a file of SMPL-H.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not MANO, or lacks these arrays.
    """
    found: dict[str, NDArray[Any]] = {}
    for side, path in (("l", left), ("r", right)):
        arrays = read_body(path)
        kind = kind_in(arrays)
        missing = [name for name in ("hands_mean", "hands_components") if name not in arrays]
        if kind is not KINDS["mano"] or missing:
            lacking = f" and has no {', '.join(missing)}" if missing else ""
            raise ValueError(
                f"{path}: expected MANO, but it is {kind.name}, {kind.description}{lacking}"
            )
        found |= {f"{name}{side}": arrays[name] for name in ("hands_mean", "hands_components")}
    return found


def kind_in(arrays: Mapping[str, NDArray[Any]], source: str = "the body") -> BodyKind:
    """The model whose arrays these are, from `read_body`; ValueError for unknown joints."""
    return _kind(arrays["kintree_table"], arrays["posedirs"], source)


def _kind(tree: NDArray[Any], pose_directions: object, source: str) -> BodyKind:
    size = (
        np.shape(pose_directions)[-1]
        if isinstance(pose_directions, np.ndarray) and np.ndim(pose_directions)
        else None
    )
    fits = tree.ndim == 2 and tree.size > 0
    parents = tuple(int(parent) for parent in tree[0].astype(np.int64)) if fits else ()
    known = describe_tree(len(parents), size)
    kind = kind_of(parents)
    if kind is None or known:
        named = ", ".join(f"{each.name} ({each.num_joints})" for each in KINDS.values())
        if known:
            raise ValueError(f"{source} is {known}; BodyModel reads {named}")
        raise ValueError(
            f"{source}: expected the tree of joints of one of {named}, got one of {len(parents)} "
            "joints"
        )
    return kind


def _unflattened(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Directions as (V, 3, n), which some conversions of MANO's files store flat."""
    count = len(arrays["v_template"]) if arrays["v_template"].ndim == 2 else 0
    directions = {name: arrays[name] for name in ("shapedirs", "posedirs")}
    flat = {
        name: array.reshape(count, 3, -1)
        for name, array in directions.items()
        if count and array.ndim == 1 and array.size and not array.size % (3 * count)
    }
    return arrays | flat


def check_arrays(kind: BodyKind, arrays: Mapping[str, NDArray[Any]], source: str) -> None:
    """Check that the arrays of a body fit each other.

    Args:
        kind: The model.
        arrays: Arrays by their names in its files.
        source: Name of the source, for error messages.

    Raises:
        ValueError: If an array has a wrong shape.
    """
    joints = kind.num_joints
    count = arrays["v_template"].shape[0] if arrays["v_template"].ndim else 0
    expected: dict[str, tuple[int | None, ...]] = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, None),
        "posedirs": (count, 3, 9 * (joints - 1)),
        "J_regressor": (joints, count),
        "weights": (count, joints),
        "f": (None, 3),
        "vertex_ids": (len(kind.surface),),
        "lmk_faces_idx": (kind.num_landmarks,),
        "lmk_bary_coords": (kind.num_landmarks, 3),
        **{name: (45,) if "mean" in name else (None, 45) for name in HANDS},
    }
    expected |= {name: (None, count) for name in arrays if name.startswith(REGRESSOR_PREFIX)}
    if not kind.num_landmarks:
        expected = {name: shape for name, shape in expected.items() if name not in LANDMARKS}
    for name, shape in expected.items():
        if name not in arrays:
            continue
        got = arrays[name].shape
        if len(got) != len(shape) or any(
            a not in (None, b) for a, b in zip(shape, got, strict=True)
        ):
            wanted = ", ".join("n" if size is None else str(size) for size in shape)
            raise ValueError(f"{source}: expected {name} of shape ({wanted}), got {got}")
    limits = {"f": (count, "vertices"), "vertex_ids": (count, "vertices")}
    if kind.num_landmarks:
        limits["lmk_faces_idx"] = (len(arrays["f"]), "triangles")
    for name, (limit, what) in limits.items():
        indices = arrays.get(name, np.zeros(0, np.int64))
        if indices.size and not 0 <= indices.min() <= indices.max() < limit:
            raise ValueError(f"{source}: {name} contains indices outside the {limit} {what}")


def _array(value: object) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError:  # rows of different lengths
        return np.asarray(None)


def _is_numbers(array: NDArray[Any], kinds: str) -> bool:
    return array.dtype.kind in kinds and bool(np.isfinite(array).all())


def _numbers(value: object, kinds: str, source: str) -> NDArray[Any]:
    """Convert an entry of a file to an array of finite numbers with one of the dtype kinds."""
    array = _array(value)
    if not _is_numbers(array, kinds):
        numbers = "integers" if kinds == "iu" else "finite numbers"
        raise ValueError(f"{source} is not an array of {numbers}")
    return array


def read_regressor(name: str, source: RegressorSource, count: int) -> Array:
    """Read a keypoint regressor: keypoints as linear functions of the vertices.

    Args:
        name: Name of the joint set.
        source: A ``.npy``, ``.npz`` or ``.pkl`` file, or an array.
        count: Number of vertices of the body.

    Returns:
        (K, count) float64.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the joint set is unknown, or the source is not such a regressor.
    """
    if name not in SKELETONS:
        raise ValueError(f"there is no joint set {name!r}; there are {', '.join(SKELETONS)}")
    content: object = source
    if isinstance(source, str | os.PathLike):
        suffix = Path(source).suffix
        if suffix not in (".npy", ".npz", ".pkl"):
            raise ValueError(f"{source}: expected a regressor that ends in .npy, .npz or .pkl")
        if suffix == ".npy":
            content = read_npy(source)
        else:
            content = read_npz(source) if suffix == ".npz" else read_pickle(source)
        if isinstance(content, dict) and len(content) == 1:
            content = next(iter(content.values()))
    if isinstance(content, Tensor):
        content = content.detach().cpu().numpy()
    where = f"{source}: " if isinstance(source, str | os.PathLike) else ""
    array = _array(content)
    wanted = (SKELETONS[name].num_joints, count)
    if array.shape != wanted or not _is_numbers(array, "fiu"):
        raise ValueError(
            f"{where}the regressor of {name} must be finite numbers of shape {wanted} for this "
            f"body, got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.float64)
