"""Bounds on the depth, size and cost of a pickle, computed without building its objects.

A pickle can reference a part of itself any number of times. Nested tuples overflow the C stack when
they are hashed, shared lists exceed any memory when they are expanded, and colliding keys make a
dictionary slow. `Sketch` derives all of this from the instructions alone.
"""

import pickletools
import sys
from typing import Any

from flowprior.files import limits
from flowprior.files.limits import Refusal, require_expanded

__all__ = ["Sketch"]

# Least memory of a number, a string or a container.
_NODE_BYTES = 32
# Python hashes an integer to its remainder modulo this number.
_HASH_MODULUS = sys.hash_info.modulus

_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_KEYED = {"SETITEM": 2, "SETITEMS": 2, "DICT": 2, "ADDITEMS": 1, "FROZENSET": 1}
_PLAIN = {
    *("LIST", "EMPTY_LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"),
    *("DICT", "EMPTY_DICT", "EMPTY_SET", "FROZENSET"),
}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"}
# Numbers and strings, whose argument is the value itself.
_VALUES = {
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg is not None and not opcode.stack_before and opcode.stack_after
} - {*_GETS, "GLOBAL", "PERSID"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


class _Part:
    """A container or object of a pickle; numbers and strings represent themselves.

    Attributes:
        depth: Levels of nested containers, including this one.
        size: Bytes it would take if nothing were shared.
        own: Bytes that do not belong to other parts.
        parts: The containers and objects in it.
        plain: Whether it is a list, tuple, dictionary or set.
        hash: Its hash.
        hashes: Number of its keys by hash.
    """

    __slots__ = ("depth", "hash", "hashes", "own", "parts", "plain", "size")

    def __init__(self, plain: bool) -> None:
        self.depth, self.plain = 1, plain
        self.size = self.own = _NODE_BYTES
        self.parts: list[_Part] = []
        self.hashes: dict[int, int] = {}
        self.hash = id(self)

    def __hash__(self) -> int:
        return self.hash


class Sketch:
    """Follows the instructions of a pickle and checks the limits.

    Args:
        size: Size of the pickle in bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._hashed = 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:  # noqa: ANN401
        """Process one instruction.

        Args:
            opcode: The instruction.
            argument: Its decoded argument.

        Raises:
            Refusal: If the result would be too deep, too large or too slow.
            ValueError: If the pickle is damaged.
        """
        name = opcode.name
        if name in _VALUES:
            if isinstance(argument, bytearray):  # not hashable
                part = _Part(plain=False)
                part.own = part.size = _size(argument)
                argument = part
            self._stack.append(argument)
        elif name in _PUTS:
            self._memo[int(argument)] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name == "MARK":
            self._stack.append(_MARK)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "POP":
            self._stack.pop()
        elif name == "POP_MARK":
            self._popped_to_mark()
        elif name == "STOP":
            _require_modest(self._top(), self._size)
        elif name not in ("PROTO", "FRAME"):
            self._build(name, opcode.stack_before)

    def _build(self, name: str, before: list[pickletools.StackObject]) -> None:
        taken: list[Any] = []
        count = len(before)
        if pickletools.markobject in before:
            taken = self._popped_to_mark()
            count = before.index(pickletools.markobject)
        if count:
            operands = self._stack[-count:]
            if len(operands) < count or _MARK in operands:
                raise ValueError(f"pickle instruction {name} without its operands")
            del self._stack[-count:]
            taken = operands + taken
        part = taken.pop(0) if name in _FILLS else _Part(name in _PLAIN)
        if not isinstance(part, _Part):
            raise ValueError(f"pickle instruction {name} on a {type(part).__name__}")
        if name in _KEYED:
            self._hash(part, taken[:: _KEYED[name]])
        for child in taken:
            size = _size(child)
            part.size += size
            if isinstance(child, _Part):
                part.parts.append(child)
                part.depth = max(part.depth, child.depth + 1)
            else:
                part.own += size
        if name in _TUPLES:
            part.hash = hash(tuple(taken))
        elif name == "FROZENSET":
            part.hash = hash(frozenset(taken))
        _check(part.depth, part.size, self._size)
        self._stack.append(part)

    def _hash(self, part: _Part, keys: list[Any]) -> None:
        """Count the keys of a container that share a hash, among those whose hash can be forged."""
        for key in keys:
            self._hashed += _size(key)
            made = isinstance(key, _Part) or (isinstance(key, int) and abs(key) >= _HASH_MODULUS)
            if made:
                value = hash(key)
                part.hashes[value] = part.hashes.get(value, 0) + 1
                if part.hashes[value] > limits.MAX_COLLISIONS:
                    raise Refusal(
                        "has a dictionary whose keys collide; it was crafted to waste time"
                    )
        require_expanded(self._hashed, self._size)

    def _top(self) -> Any:  # noqa: ANN401
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("pickle instruction without its operands")
        return self._stack[-1]

    def _popped_to_mark(self) -> list[Any]:
        taken = []
        while (part := self._stack.pop()) is not _MARK:
            taken.append(part)
        return taken[::-1]


def _size(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, _Part):
        return value.size
    return _NODE_BYTES + (len(value) if isinstance(value, (str, bytes, bytearray)) else 0)


def _check(depth: int, expanded: int, size: int) -> None:
    if depth > limits.MAX_DEPTH:
        raise Refusal(f"is nested more than {limits.MAX_DEPTH} levels deep")
    require_expanded(expanded, size)


def _require_modest(root: Any, size: int) -> None:  # noqa: ANN401
    """Check the whole result, because parts can grow after they were put into others."""
    if not isinstance(root, _Part):
        return
    # Depth and size by id, children first. Objects may refer to their own containers.
    done: dict[int, tuple[int, int]] = {}
    path = [(root, iter(root.parts))]
    places = {id(root): 0}
    while path:
        part, children = path[-1]
        child = next((child for child in children if id(child) not in done), None)
        if child is None:
            path.pop()
            del places[id(part)]
            found = [done[id(each)] for each in part.parts if id(each) in done]
            depth = 1 + max((depth for depth, _ in found), default=0)
            expanded = part.own + sum(expanded for _, expanded in found)
            _check(depth, expanded, size)
            done[id(part)] = depth, expanded
        elif id(child) not in places:
            places[id(child)] = len(path)
            path.append((child, iter(child.parts)))
        elif all(each.plain for each, _ in path[places[id(child)] :]):
            raise Refusal("contains itself")
