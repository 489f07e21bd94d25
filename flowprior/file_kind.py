"""What a file is that is not what was asked for, in words for the person who has it."""

import os
import zipfile
from pathlib import Path

__all__ = ["CHECKPOINT", "EMPTY", "PICKLE", "SAFETENSORS", "not_the_file"]

EMPTY = "is empty: perhaps its download or copy was broken off"
"""Said of a file without content."""

CHECKPOINT = "is a PyTorch checkpoint"
"""Said of what ``torch.save`` writes."""

PICKLE = "is a pickle"
"""Said of a pickle, perhaps a damaged one."""

SAFETENSORS = "is a safetensors file"
"""Said of a safetensors file, perhaps a damaged one."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def not_the_file(path: str | os.PathLike[str]) -> str:
    """Say what stands in place of a file: the usual accidents of downloading it.

    Args:
        path: A file that is there.

    Returns:
        Words to be put after its name, such as :data:`EMPTY`; "" if nothing is known about it.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return EMPTY
    if head.startswith(LFS_POINTER):
        return "is a pointer of Git LFS, not the file itself: git lfs pull fetches that"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "is a web page: perhaps the one that asks to log in or to accept a licence; "
            "do that in a browser and download the file there"
        )
    if head.startswith(b"PK"):
        return _zip_kind(Path(path))
    if head.startswith(b"\x89HDF"):
        return "is an HDF5 file"
    if head.startswith(b"\x1f\x8b"):
        return "is compressed by gzip: unpack it first"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(path):
        return SAFETENSORS
    if head.startswith(b"\x80") and head[1:2] in b"\x02\x03\x04\x05":
        return PICKLE
    return ""


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return "starts like a zip archive, but is cut short or damaged"
    if any(name.endswith("/data.pkl") for name in names):
        return CHECKPOINT
    if names and all(name.endswith(".npy") for name in names):
        return "is an .npz archive of arrays"
    return f"is a zip archive: unpack it first; it holds {', '.join(names[:3]) or 'nothing'}"
