"""Safe readers and checks for files of bodies and keypoint regressors."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flowprior.files.numpy_file import read_npy, read_npz, read_pickle
from flowprior.skeleton import SKELETONS, SMPL_24

__all__ = [
    "REGRESSOR_PREFIX",
    "RegressorSource",
    "check_arrays",
    "read_body",
    "read_regressor",
    "surface_vertices",
]

Array: TypeAlias = NDArray[np.float64]
RegressorSource: TypeAlias = str | os.PathLike[str] | NDArray[Any] | Tensor

REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f")
INDICES = ("kintree_table", "f", "vertex_ids")
SMPL_VERTICES = 6890
REGRESSOR_PREFIX = "regressor "
"""Prefix of a joint set's name in the key of a regressor inside a body file."""

# Vertices of SMPL's surface at points of the face, feet and hands, in the order of
# `flowprior.skeleton.SMPL_45` after the 24 joints. The numbers are facts about SMPL's mesh, and
# equal those of ``smplx.vertex_ids`` for the names below.
SMPLX_NAMES = (
    *("nose", "reye", "leye", "rear", "lear"),
    *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
    *("lthumb", "lindex", "lmiddle", "lring", "lpinky"),
    *("rthumb", "rindex", "rmiddle", "rring", "rpinky"),
)
SMPL_SURFACE = (
    *(332, 6260, 2800, 4071, 583),
    *(3216, 3226, 3387, 6617, 6624, 6787),
    *(2746, 2319, 2445, 2556, 2673),
    *(6191, 5782, 5905, 6016, 6133),
)


def read_body(path: str | os.PathLike[str] | None) -> dict[str, NDArray[Any]]:
    """Read and check the arrays of a body.

    Args:
        path: None for the embedded body, or an SMPL file, ``.pkl`` or ``.npz``.

    Returns:
        The arrays by their names in SMPL's files. For the embedded body also ``vertex_ids`` and
        keypoint regressors, whose keys are `REGRESSOR_PREFIX` and the name of the joint set.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a body with SMPL's joints, refers to code, or contains an
            array with a wrong shape.
    """
    content: object
    if path is None:
        file = resources.files("flowprior") / "assets" / "embedded_body.npz"
        with resources.as_file(file) as embedded:
            content = read_npz(embedded)
    elif Path(path).suffix not in (".npz", ".pkl"):
        raise ValueError(f"{path}: expected an SMPL file that ends in .pkl or .npz")
    elif not Path(path).exists():
        raise FileNotFoundError(
            f"{path}: no such file. SMPL comes from https://smpl.is.tue.mpg.de after registration; "
            "BodyModel() without a file uses the embedded body"
        )
    elif Path(path).suffix == ".npz":
        content = read_npz(path)
    else:
        content = read_pickle(path)
    source = "the embedded body" if path is None else str(path)
    if not isinstance(content, dict):
        raise ValueError(f"{source}: expected a dictionary of arrays, got {type(content).__name__}")
    missing = [name for name in REQUIRED if name not in content]
    if missing:
        raise ValueError(
            f"{source} is not a body model: {', '.join(missing)} missing, found "
            f"{', '.join(map(str, content)) or 'nothing'}"
        )
    # A body with other joints differs in every array; an error about its tree is the most helpful.
    tree = _numbers(content["kintree_table"], "iu", f"{source}: kintree_table")
    _check_tree(tree, source)
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in content.items():
        if isinstance(name, str) and (
            name in (*REQUIRED, "vertex_ids") or name.startswith(REGRESSOR_PREFIX)
        ):
            kinds = "iu" if name in INDICES else "fiu"
            arrays[name] = _numbers(value, kinds, f"{source}: {name}")
    check_arrays(arrays, source)
    return arrays


def _check_tree(tree: NDArray[Any], source: str) -> None:
    # The root's parent is -1, stored as an unsigned number in the official files.
    fits = tree.ndim == 2 and tree.size > 0
    found = tuple(int(parent) for parent in tree[0].astype(np.int64)[1:]) if fits else ()
    if found != SMPL_24.parents[1:]:
        kind = {52: " (SMPL-H?)", 55: " (SMPL-X?)"}.get(len(found) + 1, "")
        raise ValueError(
            f"{source}: expected the tree of SMPL's 24 joints, "
            f"got one of {len(found) + 1} joints{kind}"
        )


def check_arrays(arrays: Mapping[str, NDArray[Any]], source: str) -> None:
    """Check that the arrays of a body fit each other and have SMPL's joints.

    Args:
        arrays: Arrays by their names in SMPL's files.
        source: Name of the source, for error messages.

    Raises:
        ValueError: If an array has a wrong shape, or the body does not have SMPL's 24 joints.
    """
    _check_tree(arrays["kintree_table"], source)
    count = arrays["v_template"].shape[0] if arrays["v_template"].ndim else 0
    expected: dict[str, tuple[int | None, ...]] = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, None),
        "posedirs": (count, 3, 9 * (SMPL_24.num_joints - 1)),
        "J_regressor": (SMPL_24.num_joints, count),
        "weights": (count, SMPL_24.num_joints),
        "f": (None, 3),
    }
    expected |= {
        name: (len(SMPLX_NAMES),) if name == "vertex_ids" else (None, count)
        for name in arrays
        if name == "vertex_ids" or name.startswith(REGRESSOR_PREFIX)
    }
    for name, shape in expected.items():
        got = arrays[name].shape
        if len(got) != len(shape) or any(
            a not in (None, b) for a, b in zip(shape, got, strict=True)
        ):
            wanted = ", ".join("n" if size is None else str(size) for size in shape)
            raise ValueError(f"{source}: expected {name} of shape ({wanted}), got {got}")
    for name in ("f", "vertex_ids"):
        indices = arrays.get(name, np.zeros(0, np.int64))
        if indices.size and not 0 <= indices.min() <= indices.max() < count:
            raise ValueError(f"{source}: {name} contains indices outside the {count} vertices")


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


def surface_vertices(arrays: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.int64] | None:
    """The 21 vertices that ``smplx`` appends to the joints.

    Args:
        arrays: Arrays of the body, from `read_body`.
        count: Number of its vertices.

    Returns:
        (21,) int64 indices of vertices; None if they are unknown.
    """
    if "vertex_ids" in arrays:
        return arrays["vertex_ids"].astype(np.int64)
    if count != SMPL_VERTICES:
        return None
    return np.array(SMPL_SURFACE, np.int64)


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
