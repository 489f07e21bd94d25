"""Limits on the memory and time that a file can make its reader use.

A few bytes can demand any amount of memory or time: through nesting, repeated references,
compression, or declared sizes. Every reader of the library and of its examples checks these limits
before it does the work. It raises ``ValueError`` with the file's name; for model files it raises
:class:`~flowprior.files.model_file.CheckpointError`.

The limits permit the largest files of the field. To read a larger file that you trust, raise the
constant first::

    import flowprior.files.limits
    flowprior.files.limits.MAX_PIXELS = 2**30
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

__all__ = [
    "MAX_COLLISIONS",
    "MAX_CONFIG_BYTES",
    "MAX_DEPTH",
    "MAX_EXPANDED_BYTES",
    "MAX_EXPANSION",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "Refusal",
    "parse_json",
    "read_json",
    "read_limited",
    "require_expanded",
    "require_path",
    "require_pixels",
    "require_regular",
    "require_spread",
]

MAX_FILE_BYTES = 4 * 2**30
"""Largest size in bytes of a file that is read as a whole: a pickle, JSON, ``.npy``."""

MAX_CONFIG_BYTES = 2**20
"""Largest size in bytes of a configuration, YAML or JSON."""

MAX_EXPANDED_BYTES = 2**28
"""Bytes to which any file may expand; for larger files see :data:`MAX_EXPANSION`."""

MAX_EXPANSION = 40
"""Multiple of its own size to which a file may always expand."""

MAX_DEPTH = 100
"""Largest depth of nested containers."""

MAX_PIXELS = 2**27
"""Largest number of pixels of an image."""

MAX_COLLISIONS = 1000
"""Largest number of keys of one dictionary with the same hash: a lookup compares all of them."""

# No format stores more pixels in a byte: PNG packs 8 per byte and compresses at most 1032 to 1.
_PIXELS_PER_BYTE = 10_000

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class Refusal(Exception):
    """A file is not read; the message continues a sentence that begins with the file's name."""


def require_regular(
    path: str | os.PathLike[str], error: Callable[[str], ValueError] = ValueError
) -> int:
    """Check that a path is a regular file, because reading a pipe or a device may never end.

    Args:
        path: The file.
        error: The exception to raise.

    Returns:
        The size of the file in bytes.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a regular file; ``error`` creates the exception.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "not a regular file")
        raise error(f"{os.fspath(path)} is {kind}, not a file")
    return found.st_size


def require_path(path: Path | str) -> Path:
    """Return the path if it exists.

    Args:
        path: A file or folder.

    Raises:
        FileNotFoundError: The path does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    return path


def read_limited(
    path: str | os.PathLike[str],
    limit: int | None = None,
    error: Callable[[str], ValueError] = ValueError,
) -> bytes:
    """Read a regular file of limited size.

    Args:
        path: The file.
        limit: Its largest size in bytes; :data:`MAX_FILE_BYTES` if None.
        error: The exception to raise.

    Returns:
        The content.

    Raises:
        OSError: If the file cannot be read; FileNotFoundError if it does not exist.
        ValueError: If it is not a regular file, or is too large; ``error`` creates the exception.
    """
    size, limit = require_regular(path, error), MAX_FILE_BYTES if limit is None else limit
    if size > limit:
        raise error(
            f"{os.fspath(path)} has {size} bytes; the limit is {limit}, see flowprior.files.limits"
        )
    with open(path, "rb") as file:
        return file.read()


def read_json(
    path: str | os.PathLike[str],
    limit: int | None = None,
    error: Callable[[str], ValueError] = ValueError,
) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Args:
        path: The file.
        limit: Its largest size in bytes; :data:`MAX_FILE_BYTES` if None.
        error: The exception to raise.

    Returns:
        Its content.

    Raises:
        OSError: If the file cannot be read; FileNotFoundError if it does not exist.
        ValueError: If it is not a regular file, too large, nested too deeply or not JSON; ``error``
            creates the exception.
    """
    try:
        return parse_json(read_limited(path, limit, error))
    except Refusal as refusal:
        raise error(f"{os.fspath(path)} {refusal}") from None


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401
    """Parse JSON that is nested at most :data:`MAX_DEPTH` levels deep.

    Args:
        text: The JSON.

    Raises:
        Refusal: If the text is nested more deeply, or is not JSON.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"is not JSON, or damaged ({error!s:.200})") from error
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return content
    raise Refusal(f"is nested more than {MAX_DEPTH} levels deep")


def require_expanded(expanded: int, size: int) -> None:
    """Check how much memory the content of a file needs.

    Args:
        expanded: Size of the expanded content in bytes.
        size: Size of the file in bytes.

    Raises:
        Refusal: If it exceeds both :data:`MAX_EXPANDED_BYTES` and :data:`MAX_EXPANSION`.
    """
    if expanded > max(MAX_EXPANDED_BYTES, MAX_EXPANSION * size):
        raise Refusal(
            f"expands from {size} to {expanded} bytes; it is damaged or was crafted to exhaust "
            "memory. If you trust it, raise flowprior.files.limits.MAX_EXPANDED_BYTES"
        )


def require_pixels(width: int, height: int, size: int) -> None:
    """Check the size of an image before it is decoded.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        size: Size of the file in bytes.

    Raises:
        Refusal: If the image has more than :data:`MAX_PIXELS`, or more than a file of this size
            can store.
    """
    if width * height > MAX_PIXELS:
        raise Refusal(
            f"is an image of {width} x {height} pixels; the limit is {MAX_PIXELS} pixels. If "
            "you trust it, raise flowprior.files.limits.MAX_PIXELS"
        )
    if width * height > _PIXELS_PER_BYTE * size:
        raise Refusal(
            f"declares an image of {width} x {height} pixels in {size} bytes; it is damaged"
        )


def require_spread(keys: Iterable[Hashable]) -> None:
    """Check that few keys of a dictionary share a hash, because collisions take quadratic time.

    Args:
        keys: The distinct keys.

    Raises:
        Refusal: If more than :data:`MAX_COLLISIONS` of them share a hash.
    """
    if max(Counter(map(hash, keys)).values(), default=0) > MAX_COLLISIONS:
        raise Refusal("has a dictionary whose keys collide; it was crafted to waste time")
