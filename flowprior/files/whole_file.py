"""Atomic file writes: a file is complete or absent, whatever interrupts the program."""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, which neither deletes nor renames an open file
    fcntl = None

__all__ = ["PARTIAL", "remove_partials", "whole_file", "write_whole"]

PARTIAL = ".partial"
"""Suffix of a file that is being written, or that a killed program left behind."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Provide a temporary file that replaces ``path`` when the block ends.

    The new content is on disk before it replaces the old one. If the block raises, the
    temporary file is deleted and ``path`` stays as it is. If the process is killed, a hidden file
    with the suffix ``.partial`` remains; the next write to the same path deletes it.

    Symbolic links are followed: the target is replaced and the link stays. An existing file keeps
    its permissions (and its owner, if the user may set it); the umask determines those of a new
    file.

    Args:
        path: The file to create or replace, in an existing folder.

    Yields:
        The path of an empty file in the same folder, to write to.

    Raises:
        PermissionError: If ``path`` is write-protected, even if the user could write anyway.
        OSError: If the file cannot be written, or ``path`` is a folder, a device or a pipe.
    """
    path = Path(path)
    try:
        target = Path(os.path.realpath(path))
        before = _status(target)
        remove_partials(target.parent, target.name)
        partial, lock = _create(target, private=before is not None)
    except OSError as error:
        raise _about(path, error) from error
    with contextlib.ExitStack() as held:
        held.callback(os.close, lock)
        try:
            yield partial
            with open(partial, "r+b") as file:
                os.fsync(file.fileno())
            if before is not None:
                _copy_permissions(before, partial)
            if fcntl is None:
                held.close()
            os.replace(partial, target)
        except BaseException as error:
            if fcntl is None:
                held.close()
            with contextlib.suppress(OSError):
                partial.unlink()
            if (
                isinstance(error, OSError)
                and error.errno
                and error.filename in (None, str(partial))
            ):
                raise _about(path, error) from error
            raise
    # The new name must also be on disk before a program relies on it.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically, as `whole_file` does.

    Args:
        path: The file to create or replace, in an existing folder.
        content: The content of the file.

    Raises:
        PermissionError: If ``path`` is write-protected.
        OSError: If the file cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_bytes(content)


def remove_partials(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """Delete the temporary files that killed programs left in a folder.

    Files that a running program on this machine is writing are kept.

    Args:
        folder: The folder.
        name: Delete only temporary files for the file with this name. If None, delete all of them,
            also in subfolders.
    """
    stem = r".+" if name is None else re.escape(name)
    pattern = re.compile(rf"\.{stem}\.[0-9a-f]{{8}}{re.escape(PARTIAL)}", re.DOTALL)
    for parent, _, files in os.walk(folder):
        for file in filter(pattern.fullmatch, files):
            with contextlib.suppress(OSError):
                _remove_if_abandoned(Path(parent, file))
        if name is not None:
            break


def _status(target: Path) -> os.stat_result | None:
    """Status of the file to replace; None if there is none, OSError if it must stay."""
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is a device or a pipe, not a regular file")
    # The system lets root write anywhere and lets any user replace a protected file.
    if not found.st_mode & 0o222 or not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is write-protected")
    return found


def _create(target: Path, *, private: bool) -> tuple[Path, int]:
    """Create a file next to the target; returns its path and a descriptor that locks it."""
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
        # Content that an existing file hides from other users stays hidden during the write.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        lock = os.open(partial, flags, 0o600 if private else 0o666)
        _try_lock(lock)
        # Another program may have deleted it as abandoned before it was locked.
        if partial.exists():
            return partial, lock
        os.close(lock)


def _try_lock(descriptor: int) -> bool:
    """Lock a file for this process; False if another process holds it or locks are unsupported."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_if_abandoned(partial: Path) -> None:
    if fcntl is None:
        partial.unlink()  # fails while the writing process has it open
        return
    descriptor = os.open(partial, os.O_RDWR)
    try:
        if _try_lock(descriptor):
            partial.unlink()
    finally:
        os.close(descriptor)


def _copy_permissions(before: os.stat_result, partial: Path) -> None:
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # only root may change the owner
            now = partial.stat()
            if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
                os.chown(partial, before.st_uid, before.st_gid)
    os.chmod(partial, stat.S_IMODE(before.st_mode))


def _about(path: Path, error: OSError) -> OSError:
    """The same error for the file that the user named instead of the partial file."""
    return OSError(error.errno, error.strerror, str(path))
