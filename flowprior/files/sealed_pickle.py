"""Unpickling that can reach nothing but stand-ins: what all readers of pickled files share.

Unpickling imports what a pickle names and calls it. `SealedUnpickler` never does: what a reader
restores (tensors, arrays) it builds itself from checked parts, an object of any other class becomes
:class:`Inert`, its contents without its code, and names that have no place in a data file are
refused.

The way to restrict unpickling is that of the Python documentation (``pickle``, "Restricting
Globals").
"""

import io
import pickle
import pickletools
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from flowprior.files.limits import Refusal
from flowprior.files.pickle_sketch import Sketch

__all__ = ["Inert", "SealedUnpickler"]


class Inert(dict[Any, Any]):
    """An object whose class is not loaded; its entries, if it is a kind of dictionary.

    Its type is named like that class: ``__module__`` and ``__qualname__``.

    Attributes:
        args: What it was constructed from.
        state: What its attributes were to be set from.
        elements: Its elements, if it is a kind of list or set.
    """

    args: tuple[Any, ...]
    state: Any
    elements: list[Any]

    # Not all ways of unpickling call __init__.
    def __new__(cls, /, *args: object, **_: object) -> "Inert":
        """Construct from anything."""
        self = super().__new__(cls)
        self.args, self.state, self.elements = args, None, []
        return self

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    # Where this is missing, unpickling sets any attribute, methods included.
    def __setstate__(self, state: object) -> None:
        self.state = state

    def append(self, element: object) -> None:
        """Take an element, as unpickling a list demands."""
        self.elements.append(element)

    def extend(self, elements: Iterable[object]) -> None:
        """Take elements, as unpickling a list demands."""
        self.elements.extend(elements)

    # It may be the key of a dictionary.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__}, not loaded>"


class SealedUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing.

    Args:
        program: The pickle.
        restored: Stand-ins that restore something, by full name. All must be classes with a
            ``__setstate__``, as a pickle could set attributes of anything else, for good.
        advice: What the owner of a refused file can do, a sentence.
        encoding: Of the strings of Python 2.

    Raises:
        Refusal: The pickle is nested too deeply, or was made to exhaust memory or time; when
            loading, it names code that has no place in a data file.
        ValueError: The pickle has instructions that would get around this class.
    """

    def __init__(
        self,
        program: bytes,
        restored: Mapping[str, type[object]],
        advice: str,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__(io.BytesIO(_checked(program)), encoding=encoding)
        self._restored = dict(restored)
        self._advice = advice

    def find_class(self, module: str, name: str) -> type[object]:
        """The stand-in for a name. Nothing is imported."""
        module = _PYTHON2_MODULES.get(module, module)
        full_name = f"{module}.{name}"
        if full_name in self._restored:
            return self._restored[full_name]
        if not _is_data(full_name):
            raise Refusal(
                f"refers to code that has no place in a data file: {full_name!r:.200}. Nothing "
                f"was run. {self._advice}"
            )
        made = type(name, (Inert,), {"__module__": module, "__qualname__": name})
        self._restored[full_name] = made
        return made


def _checked(program: bytes) -> bytes:
    """Refuse what the unpickler would do without asking :class:`SealedUnpickler`.

    That is allocating whatever the pickle announces, returning registered extensions, and hashing
    keys of any depth. Decoding the instructions here fails where a text or number is announced that
    goes beyond the end.

    Returns:
        The pickle without its division into frames: where a frame ends amid an instruction, the
        unpickler drops the first part, and would read another program than was checked.
    """
    pieces, start = [], 0
    sketch = Sketch(len(program))
    for opcode, argument, position in pickletools.genops(program):
        if opcode.name in _PUTS and int(argument or 0) > len(program):
            raise ValueError(f"a memo that does not fit a pickle of {len(program)} bytes")
        if opcode.name in _UNCHECKED:
            raise ValueError(f"pickle instruction {opcode.name}")
        if opcode.name == "FRAME":
            pieces.append(program[start:position])
            start = int(position or 0) + 9
        sketch.follow(opcode, argument)
    return b"".join((*pieces, program[start:]))


_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_UNCHECKED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}

_PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}

# What an honest pickle takes from the standard library. Everything else of it is refused: nothing
# of it would run, but only a file made to do harm has a use for it.
_PATHS = "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"
_STANDARD = {
    "_codecs": "encode",
    "_operator": "getitem",
    "argparse": "Namespace",
    "builtins": "Ellipsis NotImplemented bool bytearray bytes complex dict float frozenset int "
    "list long object range set slice str tuple type unicode xrange",
    "collections": "ChainMap Counter OrderedDict UserDict UserList defaultdict deque",
    "copyreg": "__newobj__ __newobj_ex__ _reconstructor",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "types": "GenericAlias SimpleNamespace UnionType",
    "uuid": "UUID",
}
_STANDARD_NAMES = frozenset(
    f"{module}.{name}" for module, names in _STANDARD.items() for name in names.split()
)
_TYPING_NAME = re.compile(r"typing\.[A-Z]\w*")

# Of other packages: classes, by the convention that their names start with a capital, and the few
# functions that restore tensors and arrays.
_CLASS_NAME = re.compile(r"(\w+\.)*_*[A-Z]\w*")
_FUNCTION_NAME = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.(bool|device|(bfloat|bits|complex|float|q?u?int)\d\w*)"
    r"|torch\.serialization\._get_layout"
    r"|numpy\.(dtype|ndarray|(bool|bytes|complex|float|str|u?int)\d*_?)"
    r"|numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)"
)


def _is_data(name: str) -> bool:
    """Whether a global is a kind of data, as far as its name tells."""
    if name.split(".", 1)[0] in sys.stdlib_module_names:
        return name in _STANDARD_NAMES or _TYPING_NAME.fullmatch(name) is not None
    return any(pattern.fullmatch(name) for pattern in (_CLASS_NAME, _FUNCTION_NAME))
