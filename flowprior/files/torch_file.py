"""A safe reader for PyTorch checkpoints.

A ``.pt`` or ``.ckpt`` file is a zip archive of one pickle and a raw record for each tensor storage.
Unpickling normally imports and calls whatever the pickle names. This reader replaces every name by
a harmless stand-in: it rebuilds tensors, and objects of any other class (the configuration, the
state of callbacks) become :class:`~flowprior.files.sealed_pickle.Inert`.

``torch.load(weights_only=True)`` is not sufficient: even if a class is allowed, it rejects items of
a subclass of ``dict``, the form of every ``yacs`` configuration ("Can only SETITEM for dict,
collections.OrderedDict, collections.Counter").

The format is that of ``torch.save`` since PyTorch 1.6 (``torch/serialization.py``).
"""

import math
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from flowprior.files.file_kind import EMPTY, SAFETENSORS, not_the_file
from flowprior.files.limits import Refusal
from flowprior.files.model_file import CheckpointError
from flowprior.files.sealed_pickle import Inert, SealedUnpickler

__all__ = ["read_torch_file"]


def read_torch_file(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """Read a file written by ``torch.save`` or Lightning without executing anything in it.

    The values of the tensors are not checked: they may be NaN, and of any dtype.

    Args:
        path: The file, in the zip format that PyTorch has written since version 1.6.

    Returns:
        The dictionary in the file. Tensors are on the CPU, do not require gradients, and share
        memory as they did when saved. Objects of other classes are
        :class:`~flowprior.files.sealed_pickle.Inert`; references to classes and functions are
        subclasses of it.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is not a checkpoint, is damaged, declares more data than it
            contains, or refers to code that has no place in a checkpoint.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a file; pass the checkpoint file")
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(64)
        if not head.startswith(b"PK\x03\x04"):
            raise CheckpointError(f"{path} {_describe(path, head)}")
        try:
            content = _read(file, size)
        except Refusal as refusal:
            raise CheckpointError(f"{path} {refusal}") from None
        # On invalid bytes, zipfile, pickle and torch raise almost any exception.
        except Exception as error:
            raise CheckpointError(
                f"{path} is truncated or damaged: compare its size ({size} bytes) with the "
                f"original's and copy it again ({type(error).__name__}: {error!s:.200})"
            ) from error
    if type(content) is dict or isinstance(content, _Dict):
        return content
    kind = type(content)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    raise CheckpointError(
        f"{path} holds one {name:.200} instead of a dictionary of weights; save "
        "model.state_dict() rather than the model"
    )


_LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"


def _describe(path: str | os.PathLike[str], head: bytes) -> str:
    """Describe a file that is not a zip archive, for error messages."""
    if _LEGACY_MAGIC in head[:16]:
        return (
            "is in the format of PyTorch before 1.6, which is not supported; convert it with "
            "torch.save(torch.load(path, map_location='cpu', weights_only=True), new_path)"
        )
    found = not_the_file(path) or "does not start like a file written by torch.save"
    if found == SAFETENSORS:
        return (
            f"{SAFETENSORS}, not a PyTorch checkpoint: if flowprior wrote it, "
            "ConditionalPosePrior.load reads it"
        )
    return found if found == EMPTY else f"is not a PyTorch checkpoint: it {found}"


def _read(file: BinaryIO, size: int) -> object:
    with zipfile.ZipFile(file) as archive, warnings.catch_warnings():
        # Damaged strings cause warnings about invalid escapes.
        warnings.simplefilter("ignore")
        records = _Records(archive, size)
        return _Unpickler(records.read("data.pkl"), records).load_unsealed()


class _Records:
    """The records of a ``torch.save`` archive, checked before any is read.

    Args:
        archive: The open archive.
        size: Size of the file in bytes; no more than that is read from it.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        infos = archive.infolist()
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) < len(infos):
            raise Refusal("has several records with the same name")
        for info in infos:
            # torch.save never compresses or encrypts, so a small file cannot become a huge one.
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise Refusal("is a compressed or encrypted zip, not a PyTorch checkpoint")
        announced = sum(info.file_size for info in infos)
        if announced > size:
            raise Refusal(f"declares {announced} bytes of data in a file of {size} bytes")
        roots = [name[:-8] for name in self._infos if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise Refusal("is a zip archive, but not a PyTorch checkpoint: it has no data.pkl")
        self._root = roots[0]
        if self._root + "constants.pkl" in self._infos:
            raise Refusal("is a TorchScript program; save the weights with torch.save")
        # Files older than this record are little-endian.
        order = b"little"
        if self._root + "byteorder" in self._infos:
            order = self.read("byteorder")
        if order != sys.byteorder.encode():
            raise Refusal(f"was written on a machine with another byte order ({order!r:.20})")

    def size(self, name: str) -> int:
        """Size of a record in bytes."""
        return self._infos[self._root + name].file_size

    def read(self, name: str) -> bytes:
        """A whole record."""
        return self._archive.read(self._infos[self._root + name])


class _Dict(dict[Any, Any]):
    """Replaces ordered and default dictionaries; drops their attributes."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass


class _Storage(Inert):
    """The content (N,) of one or several tensors, and these tensors."""

    content: Tensor
    views: list[Tensor]


class _Sealed(Tensor):
    """A tensor during unpickling, on which no function can be called.

    The unpickler would call a tensor's ``add`` to fill a set, its ``__setitem__`` to fill a
    dictionary, and its ``__setstate__`` to set attributes. A pickle could use them to change
    weights, or to exhaust memory by broadcasting.
    """

    def __new__(
        cls,
        storage: object,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: object,
    ) -> "_Sealed":
        """Create a view of a storage, after checking that it is within bounds."""
        if not isinstance(storage, _Storage):
            raise TypeError(f"a tensor of a {type(storage).__name__}")
        if any(type(n) is not int or not 0 <= n < 2**63 for n in (offset, *size, *stride)):
            raise ValueError("a tensor with negative or fractional sizes")
        if len(size) > 64:
            raise ValueError(f"a tensor of {len(size)} axes")
        count = len(storage.content)
        if 0 not in size:
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
            # A view that repeats elements passes the first test but would grow when copied.
            if last >= count or math.prod(size) > count:
                raise Refusal(
                    f"has a tensor of shape {size} with strides {stride} in a storage of {count} "
                    "elements; it is damaged or was crafted to exhaust memory"
                )
        view = storage.content.as_strided(size, stride, offset).as_subclass(cls)
        storage.views.append(view)
        return view

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> NoReturn:
        raise TypeError("a tensor is used before the end of the pickle")


class _Parameter(Inert):
    """Replaces the functions that turn a tensor into a parameter."""

    def __new__(cls, tensor: object, /, *_: object) -> object:  # type: ignore[misc]
        """Return the tensor itself."""
        return tensor


class _Unpickler(SealedUnpickler):
    """An unpickler that rebuilds the tensors of an archive.

    Args:
        program: The pickle.
        records: The records with the contents of the tensors.
    """

    def __init__(self, program: bytes, records: _Records) -> None:
        super().__init__(
            program,
            _RESTORED,
            "If you created this file yourself, save only its weights: "
            "torch.save({'state_dict': model.state_dict()}, path)",
        )
        self._records = records
        self._storages: dict[tuple[str, torch.dtype], _Storage] = {}

    def load_unsealed(self) -> object:
        """Load the content, with ordinary tensors."""
        content = self.load()
        for storage in self._storages.values():
            for view in storage.views:
                view.__class__ = Tensor
        return content

    def persistent_load(self, pid: tuple[Any, ...]) -> object:
        """Read the storage that a persistent id declares, after checking its size."""
        kind, type_, key, _, count = pid
        dtype = _STORAGE_DTYPES.get(f"{type_.__module__}.{type_.__qualname__}")
        if kind != "storage" or dtype is None or not isinstance(key, str) or type(count) is not int:
            raise TypeError("a persistent id of an unknown storage")
        if (key, dtype) not in self._storages:
            record = f"data/{key}"
            announced, present = count * dtype.itemsize, self._records.size(record)
            if announced != present:
                raise Refusal(
                    f"declares {announced} bytes for {record}, which has {present}; it is damaged "
                    "or was crafted to exhaust memory"
                )
            # frombuffer rejects an empty buffer and warns about a read-only one.
            buffer = bytearray(self._records.read(record)) or bytearray(1)
            content = torch.frombuffer(buffer, dtype=torch.uint8)[:present]
            storage = self._storages[key, dtype] = _Storage()
            # A bool with another byte than 0 or 1 is undefined behaviour.
            storage.content = content != 0 if dtype == torch.bool else content.view(dtype)
            storage.views = []
        return self._storages[key, dtype]


_RESTORED: dict[str, type[object]] = {
    "collections.OrderedDict": _Dict,
    "collections.defaultdict": _Dict,
    "torch._utils._rebuild_tensor": _Sealed,
    "torch._utils._rebuild_tensor_v2": _Sealed,
    "torch._utils._rebuild_parameter": _Parameter,
    "torch._utils._rebuild_parameter_with_state": _Parameter,
}

_STORAGE_DTYPES = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ShortStorage": torch.int16,
    "torch.storage.UntypedStorage": torch.uint8,
}
