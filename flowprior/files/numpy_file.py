"""Safe readers for NumPy's files and for pickles of arrays.

Body models and data sets of the field are distributed as pickles: the official SMPL files (from
Python 2, with objects of the abandoned package ``chumpy``), the sequences of 3DPW, archives whose
arrays are pickled dictionaries. ``pickle.load`` and ``numpy.load(allow_pickle=True)`` execute any
code that such a file contains. These readers execute nothing: they rebuild arrays from checked
parts and return other objects as :class:`~flowprior.files.sealed_pickle.Inert`.

The pickled form of an array follows NumPy (``ndarray.__reduce__``), that of a sparse matrix SciPy,
and that of a ``chumpy`` array the SMPL files: ``Ch`` stores its value as ``x``; ``Select`` stores
an array ``a``, indices ``idxs`` into it and a ``preferred_shape``.
"""

import io
import math
import os
import re
import reprlib
import sys
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowprior.files.file_kind import PICKLE, not_the_file
from flowprior.files.limits import (
    Refusal,
    read_limited,
    require_expanded,
    require_regular,
    require_spread,
)
from flowprior.files.sealed_pickle import Inert, SealedUnpickler

__all__ = ["read_npy", "read_npy_object", "read_npz", "read_pickle"]

Array: TypeAlias = NDArray[Any]

# Regressors and weights of body models have fewer entries; a forged shape can have more.
LARGEST_DENSE = 2**25
ADVICE = "If you created this file yourself, save its arrays with numpy.savez instead."


def read_pickle(path: str | os.PathLike[str]) -> object:
    """Read a pickle of arrays, written by Python 2 or 3, without executing anything in it.

    Args:
        path: The file, such as an official SMPL ``.pkl`` or a sequence of 3DPW.

    Returns:
        The content, usually a dictionary. Arrays, NumPy scalars, sparse matrices and ``chumpy``
        arrays become NumPy arrays and scalars; strings of Python 2 are decoded as Latin-1.
        ``OrderedDict``, ``defaultdict``, ``Counter`` and other subclasses of ``dict`` become
        dictionaries; ``deque`` and subclasses of ``list`` become lists. Objects of other classes
        become :class:`~flowprior.files.sealed_pickle.Inert`, with arrays in their ``args`` and
        ``state``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a pickle, is damaged, exceeds the limits of
            :mod:`~flowprior.files.limits`, or refers to code that has no place in a data file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a pickle")
    program = read_limited(path)
    try:
        return _loads(program)
    except Refusal as refusal:
        raise ValueError(f"{path} {refusal}") from None
    # On invalid bytes, pickle and NumPy raise almost any exception.
    except Exception as error:
        found = not_the_file(path)
        if not found or found == PICKLE:
            found = (
                f"is not a pickle, or a damaged one of {len(program)} bytes "
                f"({type(error).__name__}: {error!s:.200})"
            )
        raise ValueError(f"{path} {found}") from error


def read_npz(
    path: str | os.PathLike[str], keys: Collection[str] | None = None
) -> dict[str, Array | object]:
    """Read an ``.npz`` file, including pickled entries, without executing anything in it.

    Args:
        path: The file, as written by ``numpy.savez`` or ``numpy.savez_compressed``.
        keys: Names of the entries to read, if present; all entries if None.

    Returns:
        Arrays by name. An entry that is a single pickled object, such as VideoPose3D's
        ``positions_3d``, is returned as that object.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not an ``.npz`` file, is damaged, exceeds the limits of
            :mod:`~flowprior.files.limits`, or refers to code that has no place in a data file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not an .npz file")
    size = require_regular(path)
    with path.open("rb") as stream:
        if stream.read(4)[:2] != b"PK":
            found = not_the_file(path) or "does not start like a zip archive"
            raise ValueError(f"{path} is not an .npz file: it {found}")
        stream.seek(0)
        try:
            with zipfile.ZipFile(stream) as archive:
                entries = {
                    info.filename.removesuffix(".npy"): info
                    for info in archive.infolist()
                    if info.filename.endswith(".npy")
                    and (keys is None or info.filename.removesuffix(".npy") in keys)
                }
                require_expanded(sum(info.file_size for info in entries.values()), size)
                return {key: _read_entry(archive, info) for key, info in entries.items()}
        except Refusal as refusal:
            raise ValueError(f"{path} {refusal}") from None
        # As above; zipfile also raises almost any exception.
        except Exception as error:
            raise ValueError(
                f"{path} is not an .npz file, or a damaged one "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error


def read_npy(path: str | os.PathLike[str]) -> Array:
    """Read an ``.npy`` file of numbers or text.

    Args:
        path: The file, as written by ``numpy.save``.

    Returns:
        The array.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not an ``.npy`` file, is damaged, contains pickled objects, or
            exceeds the limits of :mod:`~flowprior.files.limits`.
    """
    found = _read_npy(path, objects=False)
    assert isinstance(found, np.ndarray)
    return found


def read_npy_object(path: str | os.PathLike[str]) -> Array | object:
    """Read an ``.npy`` file that may contain pickled objects, without executing anything in it.

    Args:
        path: The file, as written by ``numpy.save``, such as ARCTIC's ``.mano.npy``.

    Returns:
        The array, or the object of a file that contains a single one.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not an ``.npy`` file, is damaged, exceeds the limits of
            :mod:`~flowprior.files.limits`, or refers to code that has no place in a data file.
    """
    return _read_npy(path, objects=True)


def _read_npy(path: str | os.PathLike[str], *, objects: bool) -> Array | object:
    content = read_limited(path)
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        found = not_the_file(path) or "does not start like one"
        raise ValueError(f"{os.fspath(path)} is not an .npy file: it {found}")
    try:
        # Read from memory: from a file, NumPy would allocate whatever the header declares.
        stream = io.BytesIO(content)
        if not _holds_objects(stream, len(content)):
            return _sound(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))
        if not objects:
            raise Refusal(f"contains pickled objects instead of numbers. {ADVICE}")
        return _unpickled(stream.read(), "contains a pickle")
    except Refusal as refusal:
        raise ValueError(f"{os.fspath(path)} {refusal}") from None
    # As above.
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)} is a damaged .npy file ({type(error).__name__}: {error!s:.200})"
        ) from error


def _unpickled(program: bytes, what: str) -> Array | object:
    """The array of the pickle behind a header, or the object of a single entry."""
    content = _loads(program)
    if not isinstance(content, np.ndarray):
        raise Refusal(f"{what} that is not an array")
    return content.item() if content.ndim == 0 else content


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array | object:
    # NumPy writes no other kinds; unpacking an LZMA stream can require gigabytes.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refusal(f"has an entry {info.filename!r} that NumPy did not compress")
    with archive.open(info) as entry:
        if _holds_objects(entry, info.file_size):
            return _unpickled(entry.read(), f"has an entry {info.filename!r}")
    with archive.open(info) as entry:
        return _sound(np.lib.format.read_array(entry, allow_pickle=False))


def _holds_objects(entry: IO[bytes], size: int) -> bool:
    """Read the header of an ``.npy`` file.

    Args:
        entry: The file, at its start.
        size: Its size in bytes.

    Returns:
        Whether a pickle follows the header.

    Raises:
        Refusal: If the declared array is larger than the file.
    """
    # Version 3.0 differs from 2.0 only in the encoding of names.
    version = np.lib.format.read_magic(entry)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        (3, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise Refusal(f"has an array in version {version} of NumPy's format, or a damaged one")
    shape, _, dtype = readers[version](entry)
    if dtype.hasobject:
        return True
    announced = math.prod(shape) * dtype.itemsize
    if announced > size:
        raise Refusal(f"declares an array of {announced} bytes in a file of {size} bytes")
    return False


def _sound(array: Array) -> Array:
    """Check the text of an array: Python would fail later on invalid characters."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).view(np.uint32)
        if codes.max() > sys.maxunicode:
            raise Refusal("has text with invalid characters")
    return array


def _loads(program: bytes) -> object:
    restored: dict[str, type[object]] = {"numpy.dtype": _Dtype, "numpy.ndarray": _NdarrayClass}
    # Python 3 writes bytes for Python 2 in this form.
    restored |= {"_codecs.encode": _Bytes, "builtins.bytes": _Bytes}
    for core in ("numpy.core", "numpy._core"):
        restored[f"{core}.multiarray._reconstruct"] = _Array
        restored[f"{core}.multiarray.scalar"] = _Scalar
        restored[f"{core}.numeric._frombuffer"] = _Buffer
    restored |= {
        f"collections.{name}": _Mapping for name in ("Counter", "OrderedDict", "defaultdict")
    }
    for kind, stand_in in {"csc": _Csc, "csr": _Csr, "coo": _Coo}.items():
        for module in (f"scipy.sparse.{kind}", f"scipy.sparse._{kind}"):
            restored[f"{module}.{kind}_matrix"] = restored[f"{module}.{kind}_array"] = stand_in
    frozen = SealedUnpickler(program, restored, ADVICE, encoding="latin1").load()
    return _Thaw(len(program)).whole(frozen)


class _Thaw:
    """Converts restored objects to plain ones, each once, even if it is referenced many times.

    Args:
        size: Size of the pickle in bytes. The arrays may only grow to a small multiple of it,
            because a pickle can reference its parts many times.
    """

    def __init__(self, size: int) -> None:
        self._room = 4 * size + 2**20
        self._dense_room = LARGEST_DENSE
        self._done: dict[int, object] = {}
        self._sources: list[object] = []  # keeps objects alive: ids are unique only while they live
        self._foreign: list[Inert] = []

    def whole(self, value: object) -> object:
        """Convert an object, and the arrays inside objects of other classes."""
        made = self.plain(value)
        while self._foreign:
            foreign, known = self._foreign.pop(), len(self._sources)
            try:
                contents = self.plain([foreign.args, foreign.state])
            except Refusal:
                if self._room < 0 or self._dense_room < 0:
                    raise
                # The dtype is not supported, such as the dates of a table: leave it unchanged.
                for source in self._sources[known:]:
                    self._done.pop(id(source), None)
                continue
            assert isinstance(contents, list)
            foreign.args, foreign.state = contents
        return made

    def plain(self, value: object) -> object:
        """Convert an object."""
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        self._sources.append(value)
        key = id(value)
        if isinstance(value, Inert):
            value = _reconstructed(value)
            made = value.build(self) if isinstance(value, _Lazy) else self._object(value)
        elif isinstance(value, tuple):
            made = tuple(self.plain(entry) for entry in value)
        elif isinstance(value, set | frozenset):
            members = [self.plain(entry) for entry in value]
            require_spread(members)
            made = type(value)(members)
        elif isinstance(value, list):
            entries: list[object] = []
            made = self._done[key] = entries  # registered first, because it may contain itself
            entries.extend(self.plain(entry) for entry in value)
        else:
            items: dict[object, object] = {}
            made = self._done[key] = items
            self.fill(items, value.items())
        self._done[key] = made
        return made

    def fill(
        self, items: dict[object, object], pairs: Iterable[tuple[object, object]]
    ) -> dict[object, object]:
        """Convert keys and entries and put them into a dictionary."""
        plain = [(self.plain(key), self.plain(entry)) for key, entry in pairs]
        if not all(isinstance(key, str) for key, _ in plain):
            require_spread(key for key, _ in plain)
        items.update(plain)
        return items

    def array(self, shape: object, dtype: object, order: Literal["C", "F"], data: object) -> Array:
        """Build an array, after checking that its data fits the declared shape and dtype."""
        if not isinstance(dtype, _Dtype):
            raise Refusal("has an array without a dtype")
        if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
            raise Refusal(f"has an array of shape {reprlib.repr(shape)}")
        kind, count = dtype.build(self), math.prod(shape)
        self._room -= count * kind.itemsize
        if self._room < 0:
            raise Refusal("declares more arrays than it contains; it was crafted to exhaust memory")
        if kind.hasobject:
            if not isinstance(data, list) or len(data) != count:
                raise Refusal(f"declares an array of {count} objects, but does not contain it")
            objects = np.empty(count, dtype=object)
            for index, entry in enumerate(data):
                objects[index] = self.plain(entry)
            return objects.reshape(shape)
        data = self.plain(data) if isinstance(data, _Bytes) else data
        if isinstance(data, str):  # bytes of Python 2
            data = data.encode("latin1")
        if not isinstance(data, bytes | bytearray) or len(data) != count * kind.itemsize:
            raise Refusal(
                f"declares an array of {count * kind.itemsize} bytes, but does not contain it"
            )
        native = kind.newbyteorder("=")
        if not len(data):
            return np.zeros(shape, native)
        # Copy: the result is writable and does not keep the whole file in memory.
        array = np.frombuffer(data, kind).reshape(shape, order=order)
        return _sound(array.astype(native))

    def dense(self, shape: object) -> NDArray[np.float64]:
        """Zeros with the shape of a sparse matrix."""
        if (
            not isinstance(shape, tuple)
            or len(shape) != 2
            or any(type(n) is not int or n < 0 for n in shape)
        ):
            raise Refusal(f"has a sparse matrix of shape {reprlib.repr(shape)}")
        self._dense_room -= math.prod(shape)
        if self._dense_room < 0:
            raise Refusal(f"has a sparse matrix of shape {shape}, too large for a dense array")
        return np.zeros(shape)

    def _object(self, value: Inert) -> object:
        """Convert an object whose class is not loaded; returned unchanged if nothing is known."""
        if type(value).__module__.partition(".")[0] == "chumpy" and isinstance(value.state, dict):
            made = self._chumpy(type(value).__qualname__, value.state)
            if made is not None:
                return made
        elif value:
            return self.fill({}, value.items())
        elif value.elements:
            return [self.plain(element) for element in value.elements]
        self._foreign.append(value)
        return value

    def _chumpy(self, name: str, state: dict[object, object]) -> Array | None:
        """The array that a chumpy object represents; None for an expression."""
        state = {
            key: self.plain(state[key])
            for key in ("x", "a", "idxs", "preferred_shape")
            if key in state
        }
        if name == "Ch" and "x" in state:
            return np.asarray(state["x"])
        if name == "Select" and {"a", "idxs"} <= state.keys():
            source, indices = np.asarray(state["a"]), np.asarray(state["idxs"])
            if indices.dtype.kind not in "biu":
                raise Refusal("has a chumpy array whose selection is not by indices")
            self._room -= indices.size * source.itemsize
            if self._room < 0:
                raise Refusal(
                    "declares more arrays than it contains; it was crafted to exhaust memory"
                )
            chosen = source.ravel()[indices]
            return np.asarray(chosen.reshape(state.get("preferred_shape", chosen.shape)))
        return None


def _reconstructed(value: Inert) -> Inert:
    """Unwrap an object that pickle protocols 0 and 1 store as a call that creates it."""
    kind = value.args[0] if value.args else None
    if type(value).__qualname__ != "_reconstructor" or not isinstance(kind, type):
        return value
    if not issubclass(kind, Inert):
        return value
    made = kind()
    made.state = value.state
    # Entries, if it is a subclass of dict or list.
    content = value.args[2] if len(value.args) > 2 else None
    if type(content) is dict:
        made.update(content)
    elif type(content) is list:
        made.elements = content
    return made


class _NdarrayClass(Inert):
    """Replaces the class ``numpy.ndarray``, which pickles reference but never call."""


class _Lazy(Inert):
    """An object that is converted after the whole pickle is read."""

    def build(self, thaw: _Thaw) -> object:
        """The array, scalar, dtype or dictionary."""
        raise NotImplementedError


class _Mapping(_Lazy):
    """A dictionary of the module ``collections``, from its entries or constructor arguments."""

    def build(self, thaw: _Thaw) -> dict[object, object]:
        items: dict[object, object] = {}
        for source in self.args:
            if isinstance(source, dict) and not isinstance(source, Inert):
                thaw.fill(items, source.items())
            elif isinstance(source, list):  # the form of Python 2
                pairs = [tuple(pair) for pair in source if isinstance(pair, list | tuple)]
                if len(pairs) < len(source) or any(len(pair) != 2 for pair in pairs):
                    raise Refusal("has an ordered dictionary whose entries are not pairs")
                thaw.fill(items, pairs)
        return thaw.fill(items, self.items())


class _Bytes(_Lazy):
    """Bytes: nothing, or (text, "latin1")."""

    def build(self, thaw: _Thaw) -> bytes:
        if not self.args:
            return b""
        if len(self.args) != 2 or type(self.args[0]) is not str or self.args[1] != "latin1":
            raise Refusal("has invalid bytes")
        return self.args[0].encode("latin1")


class _Dtype(_Lazy):
    """A dtype: its code in ``args`` and its byte order in ``state``."""

    def build(self, thaw: _Thaw) -> np.dtype[Any]:
        """Build a dtype of numbers, booleans, strings or objects."""
        code = self.args[0] if self.args else None
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?[biufcSUO]\d{0,9}", code):
            raise Refusal(f"has an array of an unusual dtype: {reprlib.repr(code)}")
        found = np.dtype(code)
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else None
        return found.newbyteorder("<" if order == "<" else ">") if order in ("<", ">") else found


class _Array(_Lazy):
    """An array as ``ndarray.__reduce__`` writes it: state (version, shape, dtype, order, data)."""

    def build(self, thaw: _Thaw) -> Array:
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise Refusal("has an array without content")
        _, shape, dtype, fortran, data = self.state
        return thaw.array(shape, dtype, "F" if fortran else "C", data)


class _Buffer(_Lazy):
    """An array as pickle protocol 5 writes it: (data, dtype, shape, order)."""

    def build(self, thaw: _Thaw) -> Array:
        if len(self.args) != 4:
            raise Refusal("has an array without content")
        data, dtype, shape, order = self.args
        return thaw.array(shape, dtype, "F" if order == "F" else "C", data)


class _Scalar(_Lazy):
    """A NumPy scalar: (dtype, data)."""

    def build(self, thaw: _Thaw) -> object:
        if len(self.args) != 2:
            raise Refusal("has a number without content")
        return thaw.array((), self.args[0], "C", self.args[1])[()]


class _Sparse(_Lazy):
    """A sparse matrix; its attribute ``data`` contains the nonzero entries."""

    def parts(self, thaw: _Thaw, *names: str) -> list[Array]:
        """A dense matrix of zeros, the nonzero entries, and the named attributes, all flat."""
        if not isinstance(self.state, dict):
            raise Refusal("has a sparse matrix without content")
        shape = thaw.plain(self.state.get("_shape", self.state.get("shape")))
        found = {name: thaw.plain(self.state.get(name)) for name in ("data", *names)}
        for name, part in found.items():
            kinds = "fiub" if name == "data" else "iu"
            if not isinstance(part, np.ndarray) or part.ndim != 1 or part.dtype.kind not in kinds:
                raise Refusal(f"has a sparse matrix without valid {name}")
        return [thaw.dense(shape), *(np.asarray(part) for part in found.values())]

    @staticmethod
    def add(dense: Array, rows: Array, columns: Array, entries: Array) -> None:
        """Add entries at their positions; entries at the same position add up."""
        for places, count in zip((rows, columns), dense.shape, strict=True):
            if len(places) != len(entries):
                raise Refusal(
                    f"has a sparse matrix of {len(entries)} entries with {len(places)} indices"
                )
            if len(places) and not 0 <= places.min() <= places.max() < count:
                raise Refusal("has a sparse matrix with an index out of range")
        np.add.at(dense, (rows, columns), entries)


class _Csr(_Sparse):
    """Compressed rows."""

    transposed = False

    def build(self, thaw: _Thaw) -> Array:
        dense, entries, indices, ends = self.parts(thaw, "indices", "indptr")
        target = dense.T if self.transposed else dense
        counts = np.asarray(np.diff(ends.astype(np.int64)), np.int64)
        if (
            len(ends) != len(target) + 1
            or (counts < 0).any()
            or ends[0] != 0
            or ends[-1] > len(entries)
        ):
            raise Refusal("has a sparse matrix whose indptr does not fit its entries")
        # SciPy may allocate more entries than it uses.
        used = slice(int(ends[-1]))
        rows = np.repeat(np.arange(len(target)), counts)
        self.add(target, rows, indices[used], entries[used])
        return dense


class _Csc(_Csr):
    """Compressed columns."""

    transposed = True


class _Coo(_Sparse):
    """Coordinates."""

    def build(self, thaw: _Thaw) -> Array:
        if isinstance(self.state, dict) and isinstance(self.state.get("coords"), tuple):
            self.state = self.state | dict(zip(("row", "col"), self.state["coords"], strict=True))
        dense, entries, rows, columns = self.parts(thaw, "row", "col")
        self.add(dense, rows, columns, entries)
        return dense
