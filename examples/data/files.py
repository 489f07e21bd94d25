"""Helpers of the readers in this folder: archive keys, checked arrays, names of rows."""

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior.files.limits import require_regular

__all__ = ["files_of_type", "npz_keys", "number_array", "numbered"]


def npz_keys(path: Path) -> frozenset[str]:
    """Names of the arrays of an ``.npz`` file, without reading them; empty for other files."""
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return frozenset()
    return frozenset(name.removesuffix(".npy") for name in names if name.endswith(".npy"))


def files_of_type(folder: Path, suffix: str, *, below: bool = False) -> list[Path]:
    """List the files of a folder that have a suffix, in lower or upper case, by name.

    Args:
        folder: The folder; the result is empty if it is not a folder.
        suffix: In lower case, with its dot.
        below: Whether to search subfolders, at any depth.

    Returns:
        Their paths, sorted.
    """
    found = folder.rglob("*") if below else folder.glob("*")
    return sorted(file for file in found if file.suffix.lower() == suffix and file.is_file())


def number_array(
    content: Mapping[str, object],
    key: str,
    shape: tuple[int | None, ...],
    source: str | os.PathLike[str],
) -> NDArray[Any]:
    """Read an entry of a file as an array of numbers with an expected shape.

    Args:
        content: The file.
        key: The entry.
        shape: Expected size of each axis; None accepts any size.
        source: Name of the file in the message.

    Returns:
        The array, of an integer or floating-point dtype.

    Raises:
        ValueError: The entry is missing, is not an array of real numbers, or has another shape.
    """
    if key not in content:
        raise ValueError(f"{source}: expected the key {key}, found {_listed(content)}")
    value = content[key]
    array = value if isinstance(value, np.ndarray) else np.asarray(None)
    fits = array.ndim == len(shape) and all(
        size in (None, found) for size, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiu":
        wanted = ", ".join("N" if size is None else str(size) for size in shape)
        wanted += "," if len(shape) == 1 else ""
        raise ValueError(
            f"{source}: expected {key} to be numbers of shape ({wanted}), "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array


def numbered(unit: str, rows: Iterable[int] | NDArray[Any]) -> list[str]:
    """Names of rows for a report: "frame 3", "frame 8".

    Args:
        unit: The word for a row.
        rows: Indices, or a mask (N,) of bool.
    """
    if isinstance(rows, np.ndarray) and rows.dtype == bool:
        rows = np.flatnonzero(rows)
    return [f"{unit} {row}" for row in rows]


def _listed(content: Mapping[str, object]) -> str:
    return ", ".join(sorted(content)) or "none"
