"""Putting a changed module in the place of the imported one."""

import ast
import importlib
from types import FunctionType, ModuleType
from typing import Any

from tools.mutate.changes import ROOT, Mutant, mutated

__all__ = ["put_in_place", "renew"]


def put_in_place(path: str, mutant: Mutant | None = None) -> None:
    """Replace everything that a module defines by the definitions of its changed source.

    Args:
        path: The module's file, from the root of the repository.
        mutant: The change; None for the source as it is.
    """
    name = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    source = (ROOT / path).read_text(encoding="utf-8")
    tree = ast.parse(source) if mutant is None else mutated(source, mutant.node, mutant.variant)
    changed = ModuleType(name)
    changed.__file__ = str(ROOT / path)
    exec(compile(tree, changed.__file__, "exec"), changed.__dict__)
    renew(importlib.import_module(name), changed, name)


def renew(real: Any, changed: Any, module: str) -> None:
    """Copy constants, defaults and code of a changed module or class to the original."""
    for name, new in list(vars(changed).items()):
        old = vars(real).get(name)
        if isinstance(new, type):
            if new.__module__ == module and name in vars(real):
                renew(old, new, module)
        elif isinstance(new, (bool, int, float, str, tuple, frozenset)) or new is None:
            if not name.startswith(("__", "_abc")):
                setattr(real, name, new)
        elif isinstance(new, list) and isinstance(old, list):
            old[:] = new
        elif isinstance(new, dict) and isinstance(old, dict) and not name.startswith("__"):
            if not any(isinstance(value, type) for value in new.values()):
                old.clear()
                old.update(new)
        else:
            pairs = list(zip(_functions(old), _functions(new), strict=True))
            if any(len(a.__code__.co_freevars) != len(b.__code__.co_freevars) for a, b in pairs):
                setattr(real, name, new)  # the use of super() has changed
                continue
            for before, after in pairs:
                if before.__module__ == module:
                    before.__code__ = after.__code__
                    before.__defaults__ = after.__defaults__
                    before.__kwdefaults__ = after.__kwdefaults__


def _functions(value: object) -> list[FunctionType]:
    """The Python functions behind a function, method or property."""
    if isinstance(value, property):
        return [each for part in (value.fget, value.fset) for each in _functions(part)]
    if isinstance(value, (staticmethod, classmethod)):
        return _functions(value.__func__)
    if not isinstance(value, FunctionType):
        return []
    return [value, *_functions(getattr(value, "__wrapped__", None))]
