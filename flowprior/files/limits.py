"""Limits on files: what a file may demand of its reader, checked before the work is done.

A few bytes can ask for any amount of memory or time: by nesting, by naming one part many times, by
compression, by sizes that are only announced. Every reader of this library and of its examples
checks these limits first. It raises ``ValueError``, for model files
:class:`~flowprior.files.model_file.CheckpointError`, with the file's name.

The limits admit the largest files of the field. To read a larger one of your own, raise the
constant before reading::

    import flowprior.files.limits
    flowprior.files.limits.MAX_PIXELS = 2**30
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
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
    "require_pixels",
    "require_regular",
    "require_spread",
]

MAX_FILE_BYTES = 4 * 2**30
"""Size of a file that is read as a whole: a pickle, JSON, ``.npy``."""

MAX_CONFIG_BYTES = 2**20
"""Size of a configuration, YAML or JSON."""

MAX_EXPANDED_BYTES = 2**28
"""Memory that any file may expand to; larger files may also use :data:`MAX_EXPANSION`."""

MAX_EXPANSION = 40
"""Memory that a file may expand to, in multiples of its size."""

MAX_DEPTH = 100
"""Depth of nested containers."""

MAX_PIXELS = 2**27
"""Pixels of an image."""

MAX_COLLISIONS = 1000
"""Keys of one dictionary that share a hash. A lookup compares them one by one."""

# Formats spend at least a byte on so many pixels: PNG packs 8 to a byte and deflates 1032 to 1.
_PIXELS_PER_BYTE = 10_000

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class Refusal(Exception):
    """Why a file is not read, in words to be put after its name."""


def require_regular(
    path: str | os.PathLike[str], error: Callable[[str], ValueError] = ValueError
) -> int:
    """Check that a path is a regular file: reading a pipe or device may never end.

    Args:
        path: The file.
        error: The exception to raise.

    Returns:
        Its size in bytes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a regular file; the exception comes from ``error``.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "not a regular file")
        raise error(f"{os.fspath(path)} is {kind}, not a file")
    return found.st_size


def read_limited(
    path: str | os.PathLike[str],
    limit: int | None = None,
    error: Callable[[str], ValueError] = ValueError,
) -> bytes:
    """Read a whole regular file of limited size.

    Args:
        path: The file.
        limit: Its largest size in bytes; :data:`MAX_FILE_BYTES` if None.
        error: The exception to raise.

    Returns:
        The content.

    Raises:
        OSError: The file cannot be read; FileNotFoundError if there is none.
        ValueError: It is not a regular file, or is too large; the exception comes from ``error``.
    """
    size, limit = require_regular(path, error), MAX_FILE_BYTES if limit is None else limit
    if size > limit:
        raise error(
            f"{os.fspath(path)} has {size} bytes; at most {limit} are read, see "
            "flowprior.files.limits"
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
        OSError: The file cannot be read; FileNotFoundError if there is none.
        ValueError: It is not a regular file, too large, nested too deeply or not JSON; the
            exception comes from ``error``.
    """
    try:
        return parse_json(read_limited(path, limit, error))
    except Refusal as refusal:
        raise error(f"{os.fspath(path)} {refusal}") from None


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401
    """Parse JSON that is nested at most :data:`MAX_DEPTH` deep.

    Args:
        text: The JSON.

    Raises:
        Refusal: It is nested deeper, or not JSON.
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
    """Check how much memory a file needs.

    Args:
        expanded: Bytes that its content takes when expanded.
        size: Bytes of the file.

    Raises:
        Refusal: It is more than :data:`MAX_EXPANDED_BYTES` and :data:`MAX_EXPANSION` allow.
    """
    if expanded > max(MAX_EXPANDED_BYTES, MAX_EXPANSION * size):
        raise Refusal(
            f"expands from {size} to {expanded} bytes; it is damaged or was made to exhaust "
            "memory. If you trust it, raise flowprior.files.limits.MAX_EXPANDED_BYTES"
        )


def require_pixels(width: int, height: int, size: int) -> None:
    """Check the size of an image before it is decoded.

    Args:
        width: Pixels across.
        height: Pixels down.
        size: Bytes of the file.

    Raises:
        Refusal: The image has more than :data:`MAX_PIXELS`, or more than its bytes can hold.
    """
    if width * height > MAX_PIXELS:
        raise Refusal(
            f"is an image of {width} x {height} pixels; at most {MAX_PIXELS} pixels are read. If "
            "you trust it, raise flowprior.files.limits.MAX_PIXELS"
        )
    if width * height > _PIXELS_PER_BYTE * size:
        raise Refusal(
            f"announces an image of {width} x {height} pixels in {size} bytes; it is damaged"
        )


def require_spread(keys: Iterable[Hashable]) -> None:
    """Check that the keys of a dictionary do not collide, which takes quadratic time.

    Args:
        keys: The keys, each once.

    Raises:
        Refusal: More than :data:`MAX_COLLISIONS` of them share a hash.
    """
    if max(Counter(map(hash, keys)).values(), default=0) > MAX_COLLISIONS:
        raise Refusal("has a dictionary whose keys collide; it was made to waste time")
