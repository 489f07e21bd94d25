"""Atomic writes of a program's results: text, JSON, arrays. See `flowprior.files.whole_file`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowprior.files.whole_file import remove_partials, whole_file

__all__ = [
    "prepare_folder",
    "save_npz",
    "write_json",
    "write_text",
]


def prepare_folder(folder: Path) -> None:
    """Create the folder of a program's results and delete the partial files of killed runs.

    Raises:
        OSError: The folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on Windows


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a compressed ``.npz`` file atomically."""
    # numpy appends .npz to a path, but not to an open file.
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
