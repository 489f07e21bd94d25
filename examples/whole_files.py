"""Atomic file writing: a file is complete or absent, whatever kills the program that writes it."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "prepare_folder",
    "remove_partials",
    "save_npz",
    "whole_file",
    "write_json",
    "write_text",
]

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")  # also what `flowprior.checkpoint` leaves


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` once it is written and on disk.

    If the block fails, the temporary file is removed and whatever stood at ``path`` stays. If the
    process is killed, a file that ends in ``.partial`` is left; `remove_partials` deletes it.

    Args:
        path: The file to create or replace, in a folder that exists.

    Yields:
        The path to write to.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            # Name the file that the caller wanted, not the temporary one beside it.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    # The new name must be on disk too before anyone relies on it.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_partials(folder: Path) -> None:
    """Delete the temporary files that killed programs left in a folder and below it.

    No other program may be writing there.
    """
    for path in folder.rglob(".*.partial"):
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


def prepare_folder(folder: Path) -> None:
    """Create the folder of a program's results; delete what killed runs of it left unfinished.

    Raises:
        OSError: The folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a compressed ``.npz`` file atomically."""
    # numpy appends .npz to a path, but not to an open file.
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
