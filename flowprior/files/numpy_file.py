"""Reading NumPy's files, pickled ones too, without running anything that is inside them.

Body models and data sets of this field come as pickles: the official SMPL files (of Python 2, with
objects of the dead package ``chumpy``), the sequences of 3DPW, archives whose arrays are pickled
dictionaries. ``pickle.load`` and ``numpy.load(allow_pickle=True)`` run whatever such a file says.
Here arrays are rebuilt from parts that are checked; other objects stay
:class:`~flowprior.files.sealed_pickle.Inert`.

What an array looks like in a pickle is read off NumPy (``ndarray.__reduce__``), what a sparse
matrix looks like off SciPy, and a ``chumpy`` array off the files themselves: ``Ch`` holds its value
as ``x``, ``Select`` an array ``a``, the indices ``idxs`` into it and a ``preferred_shape``.
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

__all__ = ["read_npy", "read_npz", "read_pickle"]

Array: TypeAlias = NDArray[Any]

# No regressor or weight of any body model has more entries; a made-up shape can.
LARGEST_DENSE = 2**25
ADVICE = "If you made this file yourself, save its arrays with numpy.savez instead."


def read_pickle(path: str | os.PathLike[str]) -> object:
    """Read a pickle of arrays, of Python 2 or 3, running nothing of it.

    Args:
        path: The file, such as an official SMPL ``.pkl`` or a sequence of 3DPW.

    Returns:
        Its content, usually a dictionary. Arrays, NumPy scalars, sparse matrices and the arrays of
        ``chumpy`` come as NumPy arrays and scalars; strings of Python 2 are read as Latin-1.
        ``OrderedDict``, ``defaultdict``, ``Counter`` and other subclasses of ``dict`` come as
        dictionaries, ``deque`` and subclasses of ``list`` as lists. Objects of other classes are
        :class:`~flowprior.files.sealed_pickle.Inert`, with arrays in their ``args`` and ``state``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no pickle, is damaged, exceeds the limits of
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
    # On bytes that make no sense, pickle and numpy raise almost anything.
    except Exception as error:
        found = not_the_file(path)
        if not found or found == PICKLE:
            found = (
                f"is no pickle, or a damaged one of {len(program)} bytes "
                f"({type(error).__name__}: {error!s:.200})"
            )
        raise ValueError(f"{path} {found}") from error


def read_npz(
    path: str | os.PathLike[str], keys: Collection[str] | None = None
) -> dict[str, Array | object]:
    """Read an ``.npz`` file, pickled entries included, running nothing of it.

    Args:
        path: The file, as ``numpy.savez`` or ``numpy.savez_compressed`` write it.
        keys: Read these of its entries alone, where there are such; all if None.

    Returns:
        Its arrays by name. An entry that is one pickled object, as VideoPose3D's ``positions_3d``
        is, comes as that object.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no ``.npz`` file, is damaged, exceeds the limits of
            :mod:`~flowprior.files.limits`, or one of its entries refers to code that has no place
            in a data file.
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
        # As above, and zipfile too.
        except Exception as error:
            raise ValueError(
                f"{path} is not an .npz file, or a damaged one "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error


def read_npy(path: str | os.PathLike[str]) -> Array:
    """Read an ``.npy`` file of numbers or text.

    Args:
        path: The file, as ``numpy.save`` writes it.

    Returns:
        The array.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no ``.npy`` file, is damaged, holds pickled objects, or exceeds the limits
            of :mod:`~flowprior.files.limits`.
    """
    content = read_limited(path)
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        found = not_the_file(path) or "does not start like one"
        raise ValueError(f"{os.fspath(path)} is not an .npy file: it {found}")
    try:
        # From memory: where a header announces gigabytes, a file would make room for them.
        if _holds_objects(io.BytesIO(content), len(content)):
            raise Refusal(f"holds pickled objects instead of numbers. {ADVICE}")
        return _sound(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))
    except Refusal as refusal:
        raise ValueError(f"{os.fspath(path)} {refusal}") from None
    # As above.
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)} is a damaged .npy file ({type(error).__name__}: {error!s:.200})"
        ) from error


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array | object:
    # NumPy writes no other; an LZMA stream may demand gigabytes to be unpacked.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refusal(f"has an entry {info.filename!r} that numpy did not compress")
    with archive.open(info) as entry:
        if _holds_objects(entry, info.file_size):
            content = _loads(entry.read())
            if not isinstance(content, np.ndarray):
                raise Refusal(f"has an entry {info.filename!r} that is no array")
            return content.item() if content.ndim == 0 else content
    with archive.open(info) as entry:
        return _sound(np.lib.format.read_array(entry, allow_pickle=False))


def _holds_objects(entry: IO[bytes], size: int) -> bool:
    """Read the header of an ``.npy`` file.

    Args:
        entry: The file, at its start.
        size: Its size in bytes.

    Returns:
        Whether what follows the header is a pickle.

    Raises:
        Refusal: The array that is announced does not fit the file.
    """
    # Version 3.0 differs from 2.0 by the encoding of names.
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
        raise Refusal(f"announces an array of {announced} bytes in a file of {size} bytes")
    return False


def _sound(array: Array) -> Array:
    """An array whose text is text: Python fails later on numbers that are no characters."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).view(np.uint32)
        if codes.max() > sys.maxunicode:
            raise Refusal("has text with characters that do not exist")
    return array


def _loads(program: bytes) -> object:
    restored: dict[str, type[object]] = {"numpy.dtype": _Dtype, "numpy.ndarray": _NdarrayClass}
    # Bytes, as Python 3 writes them for Python 2.
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
    """Turns what was restored into plain objects, each once, however often it occurs.

    Args:
        size: Of the pickle in bytes. Parts of it can be named many times over, so the arrays may
            only grow to a small multiple of it.
    """

    def __init__(self, size: int) -> None:
        self._room = 4 * size + 2**20
        self._dense_room = LARGEST_DENSE
        self._done: dict[int, object] = {}
        self._sources: list[object] = []  # kept alive: an id is good for a living object only
        self._foreign: list[Inert] = []

    def whole(self, value: object) -> object:
        """The plain object, with arrays in the objects of other classes too."""
        made = self.plain(value)
        while self._foreign:
            foreign, known = self._foreign.pop(), len(self._sources)
            try:
                contents = self.plain([foreign.args, foreign.state])
            except Refusal:
                if self._room < 0 or self._dense_room < 0:
                    raise
                # Of a dtype that is not read here, such as the dates of a table: it stays as it is.
                for source in self._sources[known:]:
                    self._done.pop(id(source), None)
                continue
            assert isinstance(contents, list)
            foreign.args, foreign.state = contents
        return made

    def plain(self, value: object) -> object:
        """The plain object."""
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
            made = self._done[key] = entries  # before it is filled: it may contain itself
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
        """Put plain keys and entries into a dictionary."""
        plain = [(self.plain(key), self.plain(entry)) for key, entry in pairs]
        if not all(isinstance(key, str) for key, _ in plain):
            require_spread(key for key, _ in plain)
        items.update(plain)
        return items

    def array(self, shape: object, dtype: object, order: Literal["C", "F"], data: object) -> Array:
        """An array of announced shape and dtype, if the data that is there fits them."""
        if not isinstance(dtype, _Dtype):
            raise Refusal("has an array without a dtype")
        if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
            raise Refusal(f"has an array of shape {reprlib.repr(shape)}")
        kind, count = dtype.build(self), math.prod(shape)
        self._room -= count * kind.itemsize
        if self._room < 0:
            raise Refusal("announces more arrays than it holds; it was made to exhaust memory")
        if kind.hasobject:
            if not isinstance(data, list) or len(data) != count:
                raise Refusal(f"announces an array of {count} objects, but does not hold it")
            objects = np.empty(count, dtype=object)
            for index, entry in enumerate(data):
                objects[index] = self.plain(entry)
            return objects.reshape(shape)
        data = self.plain(data) if isinstance(data, _Bytes) else data
        if isinstance(data, str):  # the bytes of Python 2
            data = data.encode("latin1")
        if not isinstance(data, bytes | bytearray) or len(data) != count * kind.itemsize:
            raise Refusal(
                f"announces an array of {count * kind.itemsize} bytes, but does not hold it"
            )
        native = kind.newbyteorder("=")
        if not len(data):
            return np.zeros(shape, native)
        # A copy, which is writable and does not hold on to the whole file.
        array = np.frombuffer(data, kind).reshape(shape, order=order)
        return _sound(array.astype(native))

    def dense(self, shape: object) -> NDArray[np.float64]:
        """Zeros of the shape of a sparse matrix."""
        if (
            not isinstance(shape, tuple)
            or len(shape) != 2
            or any(type(n) is not int or n < 0 for n in shape)
        ):
            raise Refusal(f"has a sparse matrix of shape {reprlib.repr(shape)}")
        self._dense_room -= math.prod(shape)
        if self._dense_room < 0:
            raise Refusal(f"has a sparse matrix of shape {shape}, too large to be written out")
        return np.zeros(shape)

    def _object(self, value: Inert) -> object:
        """What an object of a class that is not loaded stands for; itself if for nothing else."""
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
        """The array that an object of chumpy stands for; None for an expression."""
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
                raise Refusal("has a chumpy array that is selected by no indices")
            self._room -= indices.size * source.itemsize
            if self._room < 0:
                raise Refusal("announces more arrays than it holds; it was made to exhaust memory")
            chosen = source.ravel()[indices]
            return np.asarray(chosen.reshape(state.get("preferred_shape", chosen.shape)))
        return None


def _reconstructed(value: Inert) -> Inert:
    """The object itself, where pickle protocols 0 and 1 wrap it in a call that makes it."""
    kind = value.args[0] if value.args else None
    if type(value).__qualname__ != "_reconstructor" or not isinstance(kind, type):
        return value
    if not issubclass(kind, Inert):
        return value
    made = kind()
    made.state = value.state
    # What it has as a kind of dictionary or list.
    content = value.args[2] if len(value.args) > 2 else None
    if type(content) is dict:
        made.update(content)
    elif type(content) is list:
        made.elements = content
    return made


class _NdarrayClass(Inert):
    """Stands for the class ``numpy.ndarray``, which pickles name and never call."""


class _Lazy(Inert):
    """What becomes an array or a dictionary once the whole pickle is read."""

    def build(self, thaw: _Thaw) -> object:
        """The array, scalar, dtype or dictionary."""
        raise NotImplementedError


class _Mapping(_Lazy):
    """A dictionary of the package collections: its entries, or what it was constructed from."""

    def build(self, thaw: _Thaw) -> dict[object, object]:
        items: dict[object, object] = {}
        for source in self.args:
            if isinstance(source, dict) and not isinstance(source, Inert):
                thaw.fill(items, source.items())
            elif isinstance(source, list):  # as Python 2 wrote them
                pairs = [tuple(pair) for pair in source if isinstance(pair, list | tuple)]
                if len(pairs) < len(source) or any(len(pair) != 2 for pair in pairs):
                    raise Refusal("has an ordered dictionary that is made of no pairs")
                thaw.fill(items, pairs)
        return thaw.fill(items, self.items())


class _Bytes(_Lazy):
    """Bytes: nothing, or (text, "latin1")."""

    def build(self, thaw: _Thaw) -> bytes:
        if not self.args:
            return b""
        if len(self.args) != 2 or type(self.args[0]) is not str or self.args[1] != "latin1":
            raise Refusal("has bytes that are none")
        return self.args[0].encode("latin1")


class _Dtype(_Lazy):
    """A dtype: its code, and its byte order once the state is set."""

    def build(self, thaw: _Thaw) -> np.dtype[Any]:
        """The dtype, of numbers, booleans, strings or objects."""
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
            raise Refusal("has an array without its content")
        _, shape, dtype, fortran, data = self.state
        return thaw.array(shape, dtype, "F" if fortran else "C", data)


class _Buffer(_Lazy):
    """An array as pickle protocol 5 writes it: (data, dtype, shape, order)."""

    def build(self, thaw: _Thaw) -> Array:
        if len(self.args) != 4:
            raise Refusal("has an array without its content")
        data, dtype, shape, order = self.args
        return thaw.array(shape, dtype, "F" if order == "F" else "C", data)


class _Scalar(_Lazy):
    """A NumPy scalar: (dtype, data)."""

    def build(self, thaw: _Thaw) -> object:
        if len(self.args) != 2:
            raise Refusal("has a number without its content")
        return thaw.array((), self.args[0], "C", self.args[1])[()]


class _Sparse(_Lazy):
    """A sparse matrix: its attributes, of which ``data`` holds the entries that are not zero."""

    def parts(self, thaw: _Thaw, *names: str) -> list[Array]:
        """The dense matrix, all zeros, its entries and the attributes of those names, all flat."""
        if not isinstance(self.state, dict):
            raise Refusal("has a sparse matrix without its content")
        shape = thaw.plain(self.state.get("_shape", self.state.get("shape")))
        found = {name: thaw.plain(self.state.get(name)) for name in ("data", *names)}
        for name, part in found.items():
            kinds = "fiub" if name == "data" else "iu"
            if not isinstance(part, np.ndarray) or part.ndim != 1 or part.dtype.kind not in kinds:
                raise Refusal(f"has a sparse matrix without its {name}")
        return [thaw.dense(shape), *(np.asarray(part) for part in found.values())]

    @staticmethod
    def add(dense: Array, rows: Array, columns: Array, entries: Array) -> None:
        """Add entries to the places they are at; several in one place add up."""
        for places, count in zip((rows, columns), dense.shape, strict=True):
            if len(places) != len(entries):
                raise Refusal(
                    f"has a sparse matrix of {len(entries)} entries in {len(places)} places"
                )
            if len(places) and not 0 <= places.min() <= places.max() < count:
                raise Refusal("has a sparse matrix with an entry outside of it")
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
        # SciPy may keep room for more entries.
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
