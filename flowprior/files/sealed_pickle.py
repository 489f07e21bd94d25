"""An unpickler that imports and calls nothing, shared by all readers of pickled files.

Unpickling normally imports and calls whatever a pickle names. `SealedUnpickler` does neither: it
replaces the names that a reader restores (tensors, arrays) by stand-ins that build them from
checked parts, turns objects of any other class into :class:`Inert`, which have their contents
without their code, and rejects names that have no place in a data file.

The restriction follows the Python documentation (``pickle``, "Restricting Globals").
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
    """An object whose class is not loaded; its entries are those of a subclass of ``dict``.

    The ``__module__`` and ``__qualname__`` of its type are those of the class.

    Attributes:
        args: Arguments of the constructor.
        state: The state from which unpickling would set the attributes.
        elements: Elements, if the class is a subclass of ``list`` or ``set``.
    """

    args: tuple[Any, ...]
    state: Any
    elements: list[Any]

    # Some pickle instructions do not call __init__.
    def __new__(cls, /, *args: object, **_: object) -> "Inert":
        """Accept any arguments."""
        self = super().__new__(cls)
        self.args, self.state, self.elements = args, None, []
        return self

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    # Without this method, unpickling would set any attribute, including methods.
    def __setstate__(self, state: object) -> None:
        self.state = state

    def append(self, element: object) -> None:
        """Append an element; unpickling a list calls this."""
        self.elements.append(element)

    def extend(self, elements: Iterable[object]) -> None:
        """Append elements; unpickling a list calls this."""
        self.elements.extend(elements)

    # An object can be the key of a dictionary.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__}, not loaded>"


class SealedUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing.

    Args:
        program: The pickle.
        restored: Stand-ins by the full name they replace. All must be classes with a
            ``__setstate__``, because a pickle could permanently set attributes of other objects.
        advice: A sentence for the error message: what the owner of a rejected file can do.
        encoding: Encoding of the strings of Python 2.

    Raises:
        Refusal: If the pickle is nested too deeply or would exhaust memory or time; when loading,
            if it names code that has no place in a data file.
        ValueError: If the pickle has instructions that would bypass this class.
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
        """Return the stand-in for a name; nothing is imported."""
        module = _PYTHON2_MODULES.get(module, module)
        full_name = f"{module}.{name}"
        if full_name in self._restored:
            return self._restored[full_name]
        if not _is_data(full_name):
            raise Refusal(
                f"refers to code that has no place in a data file: {full_name!r:.200}. Nothing "
                f"was executed. {self._advice}"
            )
        made = type(name, (Inert,), {"__module__": module, "__qualname__": name})
        self._restored[full_name] = made
        return made


def _checked(program: bytes) -> bytes:
    """Reject instructions that the unpickler executes without calling :class:`SealedUnpickler`.

    Those allocate whatever size the pickle declares, return registered extensions, or hash keys of
    any depth. Decoding the instructions fails if a string or number extends beyond the end.

    Returns:
        The pickle without frames. If a frame ends inside an instruction, the unpickler drops the
        first part of it, and would execute another program than the one checked here.
    """
    pieces, start = [], 0
    sketch = Sketch(len(program))
    for opcode, argument, position in pickletools.genops(program):
        if opcode.name in _PUTS and int(argument or 0) > len(program):
            raise ValueError(f"a memo index that does not fit a pickle of {len(program)} bytes")
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

# Names of the standard library that legitimate pickles contain. All others are rejected: they would
# not be executed, but only a malicious file uses them.
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

# From other packages: classes, recognised by a capitalised name, and the few functions that restore
# tensors and arrays.
_CLASS_NAME = re.compile(r"(\w+\.)*_*[A-Z]\w*")
_FUNCTION_NAME = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.(bool|device|(bfloat|bits|complex|float|q?u?int)\d\w*)"
    r"|torch\.serialization\._get_layout"
    r"|numpy\.(dtype|ndarray|(bool|bytes|complex|float|str|u?int)\d*_?)"
    r"|numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)"
)


def _is_data(name: str) -> bool:
    """Whether the name of a global suggests that it is data."""
    if name.split(".", 1)[0] in sys.stdlib_module_names:
        return name in _STANDARD_NAMES or _TYPING_NAME.fullmatch(name) is not None
    return any(pattern.fullmatch(name) for pattern in (_CLASS_NAME, _FUNCTION_NAME))
