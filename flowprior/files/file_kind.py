"""Identify a file's actual format, for error messages."""

import os
import zipfile
import zlib
from pathlib import Path

__all__ = ["CHECKPOINT", "EMPTY", "PICKLE", "SAFETENSORS", "not_the_file"]

EMPTY = "is empty: the download or copy may have been interrupted"
"""Description of an empty file."""

CHECKPOINT = "is a PyTorch checkpoint"
"""Description of a file that ``torch.save`` wrote."""

PICKLE = "is a pickle"
"""Description of a pickle, possibly a damaged one."""

SAFETENSORS = "is a safetensors file"
"""Description of a safetensors file, possibly a damaged one."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_HEAD_BYTES = 2**16
_JOBLIB = (
    "was written by joblib.dump: read it with joblib.load and save its arrays with numpy.savez, or "
    "its content with pickle.dump"
)
_SIGNATURES = {
    b"\x89HDF": "is an HDF5 file",
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"BZh": "is compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "is compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it first",
    b"7z\xbc\xaf": "is a 7z archive: unpack it first",
    b"Rar!": "is a RAR archive: unpack it first",
    b"\x93NUMPY": "is an .npy file of one array",
    b"PAR1": "is a Parquet file",
    b"\x89PNG": "is a PNG image",
    b"\xff\xd8\xff": "is a JPEG image",
    b"%PDF": "is a PDF document",
    b"MATLAB 7.3": "is a MATLAB v7.3 file: read it with h5py or mat73 and save its arrays with "
    "numpy.savez",
    b"MATLAB 5.0": "is a MATLAB file: read it with scipy.io.loadmat and save its arrays with "
    "numpy.savez",
}


def not_the_file(path: str | os.PathLike[str]) -> str:
    """Identify the format of an unexpected file by its content.

    Args:
        path: A regular file.

    Returns:
        A clause that follows the file's name in a message, such as :data:`EMPTY`; "" if the format
        is unknown.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return EMPTY
    if head.startswith(LFS_POINTER):
        return "is a Git LFS pointer, not the file itself: run git lfs pull to fetch the file"
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "is a web page, perhaps a login or licence page: log in or accept the licence in a "
            "browser, and download the file there"
        )
    if head.startswith(b"PK"):
        return _zip_kind(Path(path))
    for signature, words in _SIGNATURES.items():
        if head.startswith(signature):
            return words
    if b"joblib.numpy_pickle" in _inflated(head):
        return _JOBLIB
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(path):
        return SAFETENSORS
    if head.startswith(b"\x80") and head[1:2] in b"\x02\x03\x04\x05":
        return PICKLE
    return ""


def _inflated(head: bytes) -> bytes:
    """Decompress the start of a zlib stream, as joblib writes; return other content unchanged."""
    try:
        return zlib.decompressobj().decompress(head, _HEAD_BYTES)
    except zlib.error:
        return head


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return "starts like a zip archive, but is truncated or damaged"
    if any(name.endswith("/data.pkl") for name in names):
        return CHECKPOINT
    if names and all(name.endswith(".npy") for name in names):
        return "is an .npz archive of arrays"
    return f"is a zip archive: unpack it first; it contains {', '.join(names[:3]) or 'nothing'}"
