"""Mutants: the changes of one expression of a module."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Mutant", "files_of", "mutants_of", "mutated"]

ROOT = Path(__file__).parents[2]
# Longer lines are shortened.
LONG = 400

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
OPTIONAL_KEYWORDS = frozenset(
    ("copy", "device", "dtype", "generator", "keepdim", "max", "min", "persistent", "strict")
)
MODULE_NAMES = frozenset(("torch", "F", "math", "roma", "nn", "rotations", "itertools", "copy"))


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: The file, from the root of the repository.
        scope: Function or class that contains the change; empty at module level.
        before: The original line, normalised.
        after: The changed line, normalised.
        lines: First and last line of the changed statement.
        node: Number of the changed node, in the order of `_nodes`.
        variant: Number of the change of this node, in the order of `_variants`.
        at_import: Whether the line runs when the module is imported.
    """

    path: str
    scope: str
    before: str
    after: str
    lines: tuple[int, int]
    node: int
    variant: int
    at_import: bool

    @property
    def key(self) -> str:
        """Name of the mutant in ``tests/MUTANTS.md``; it changes when the line changes."""
        return f"{self.path} {self.scope or '(module)'}: `{self.before}` -> `{self.after}`"


@dataclass(frozen=True)
class _Place:
    """A node and its position in the module."""

    node: ast.AST
    parent: ast.AST
    statement: ast.stmt
    scope: str
    at_import: bool


def files_of(part: str) -> list[str]:
    """The Python files of a folder, or a file itself, from the root of the repository.

    Raises:
        FileNotFoundError: If there is no such file or folder.
    """
    path = ROOT / part
    if not path.exists():
        raise FileNotFoundError(f"there is no {part}")
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [each.relative_to(ROOT).as_posix() for each in found]


def mutants_of(path: str) -> Iterator[Mutant]:
    """Generate every mutant of a file.

    Args:
        path: The file, from the root of the repository.

    Yields:
        The mutants, in the order of the file.
    """
    source = (ROOT / path).read_text(encoding="utf-8")
    for number, place in enumerate(_nodes(ast.parse(source))):
        for variant, changed in enumerate(list(_variants(place.node))):
            before, after = _changed_lines(place, changed)
            last = place.statement.end_lineno or place.statement.lineno
            if isinstance(place.statement, (ast.If, ast.For, ast.While, ast.With)):
                last = place.statement.body[0].lineno - 1
            lines = (place.statement.lineno, max(last, place.statement.lineno))
            yield Mutant(path, place.scope, before, after, lines, number, variant, place.at_import)


def mutated(source: str, node: int, variant: int) -> ast.Module:
    """Parse a module and apply one change."""
    tree = ast.parse(source)
    place = list(_nodes(tree))[node]
    _replace(place.parent, place.node, list(_variants(place.node))[variant])
    return ast.fix_missing_locations(tree)


def _replace(parent: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for name, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, name, new)
        elif isinstance(value, list):
            value[:] = [new if each is old else each for each in value]


def _nodes(tree: ast.Module) -> Iterator[_Place]:
    """Nodes to change: no docstrings, annotations, decorators, messages or exports."""

    def visit(
        node: ast.AST, parent: ast.AST, statement: ast.stmt, scope: str, at_import: bool
    ) -> Iterator[_Place]:
        if isinstance(node, ast.stmt):
            statement = node
        if _is_prose(node, parent):
            return
        yield _Place(node, parent, statement, scope, at_import)
        negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        if isinstance(node, ast.Raise) or negative:
            return
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases"):
                continue
            inner, import_time = scope, at_import
            if name == "body" and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{scope}.{node.name}".lstrip(".")
                import_time = at_import and isinstance(node, ast.ClassDef)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, node, statement, inner, import_time)

    for statement in tree.body:
        yield from visit(statement, tree, statement, "", True)


def _is_prose(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Assert)):
        return True
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id == "__all__" or (
            isinstance(node.value, ast.Subscript)
            and (node.targets[0].id[0].isupper() and not node.targets[0].id.isupper())
        )
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        return called in ("cast", "warnings.warn", "super().__init__")
    return isinstance(parent, ast.Constant)


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Replacements of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        swapped = SWAPS[type(node.ops[0])]()
        yield ast.Compare(node.left, [swapped], node.comparators)  # type: ignore[list-item]
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        yield ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)  # type: ignore[arg-type]
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(SWAPS[type(node.op)](), node.values)  # type: ignore[arg-type]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If) and not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Raise) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Call):
        method = node.func
        if (
            isinstance(method, ast.Attribute)
            and (not node.args or method.attr in ("to", "expand"))
            and not (isinstance(method.value, ast.Name) and method.value.id in MODULE_NAMES)
            and ast.unparse(method.value) not in ("self", "super()")
        ):
            yield method.value
        for keyword in node.keywords:
            if keyword.arg in OPTIONAL_KEYWORDS:
                kept = [each for each in node.keywords if each is not keyword]
                yield ast.Call(node.func, node.args, kept)


def _constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(2 * value if value else 1.0)
    elif isinstance(value, str) and " " not in value:
        yield ast.Constant(value + "?")


def _changed_lines(place: _Place, variant: ast.AST) -> tuple[str, str]:
    """The lines of the changed statement that differ, normalised."""
    old = ast.unparse(place.statement).splitlines()
    _replace(place.parent, place.node, variant)
    whole = variant if place.node is place.statement else place.statement
    new = ast.unparse(ast.fix_missing_locations(whole)).splitlines()
    _replace(place.parent, variant, place.node)
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    first, second = (
        " / ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (old, new)
    )
    return _shortened(first, second)


def _shortened(first: str, second: str) -> tuple[str, str]:
    """Two lines; of long ones, such as tables, the surroundings of the difference."""
    if max(len(first), len(second)) <= LONG:
        return first, second
    shortest = min(len(first), len(second))
    start = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    rest = shortest - start
    end = next((i for i in range(rest) if first[-1 - i] != second[-1 - i]), rest)
    begin = max(0, start - LONG // 4)
    texts = (each[begin : len(each) - max(0, end - LONG // 4)] for each in (first, second))
    before, after = (f"... {text} ..." for text in texts)
    return before, after
