"""Change one expression of the flow or the rotations at a time and check that a test notices.

    python -m tools.mutate                                  # everything; resumes an earlier run
    python -m tools.mutate flowprior/flow/actnorm.py        # one file or folder, from scratch

Each mutant runs in a fork of a process that has imported the library and collected all tests. The
fork replaces the code of the module's functions by that of the changed source and runs the tests
that reach the changed line, the most promising first. A mutant that no test notices survives.
``tests/MUTANTS.md`` gives the reason for each survivor that no caller can observe; if one is not
listed there, the exit code is 1. Results are in ``outputs/mutants.jsonl``.

mutmut 3.8 works the same way, but changes neither constants of modules and classes nor decorated
functions, except static and class methods. 297 of our 1162 mutants are there: 84 in constants, 213
in functions under ``in_full_precision``, ``torch.no_grad``, ``property`` and ``lasting``. It skips
ten of the eleven public functions of ``flowprior/rotations.py``. For
``flowprior/flow/lu_linear.py``, with the tests of that layer and of the frozen flow, on one core:

=======  =======  =========  ==========
tool     mutants  survivors  CPU time
=======  =======  =========  ==========
mutmut   142      14         104 s
ours     41       6          69 s
=======  =======  =========  ==========

mutmut's additional mutants mostly drop an argument or replace it by None. Each of its survivors
changes an expression that a survivor of ours changes too, or passes None for a dtype, a device or a
flag.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import json
import math
import os
import random
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MODULES = ("flowprior/flow", "flowprior/rotations.py")
TESTS = (
    "tests/flow",
    "tests/test_rotations.py",
    "tests/prior/test_spaces.py",
    "tests/prior/test_conditional.py",
)
EXPLAINED = ROOT / "tests" / "MUTANTS.md"
RESULTS = ROOT / "outputs" / "mutants.jsonl"
REACH = ROOT / "outputs" / "mutants-reach.json"
# Tests of compilation take longer than all others together and repeat their computations.
LEFT_OUT = ("compile", "sizes_of_the_paper")
CPU_S = 120
MEMORY = 8 * 2**30

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
    return first, second


class Runner:
    """A pytest plugin that collects the tests once and then runs mutants instead of tests.

    Args:
        mutants: The mutants to run.
        report: Called with each result: the mutant, its status and the test that noticed it.
        slowest_s: Tests that take longer are left out.
    """

    def __init__(
        self,
        mutants: Sequence[Mutant],
        report: Callable[[Mutant, str, str], None],
        slowest_s: float = math.inf,
    ) -> None:
        self.mutants, self.report, self.slowest_s = mutants, report, slowest_s
        self.items: dict[str, pytest.Item] = {}
        self.by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.kills: Counter[str] = Counter()
        self.failed = ""

    def pytest_configure(self) -> None:
        """Turn off hypothesis's shrinking of failing examples."""
        import hypothesis

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutants", deadline=None, derandomize=True, max_examples=10, phases=phases
        )
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the tests named in `LEFT_OUT`."""
        items[:] = [each for each in items if not any(word in each.nodeid for word in LEFT_OUT)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note which test failed."""
        if report.failed:
            self.failed = report.nodeid

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all mutants."""
        if session.testsfailed:
            raise session.Interrupted("a test module cannot be collected")
        self.items = {item.nodeid: item for item in session.items}
        self._trace()
        for mutant in self.mutants:
            self.report(mutant, *self._judge(mutant))
        return True

    def _trace(self) -> None:
        """Run all tests once and record which lines each reaches and how long it takes."""
        prefix = f"{ROOT / 'flowprior'}{os.sep}"

        def trace() -> dict[str, Any]:
            reached: list[tuple[str, list[tuple[str, int]], float]] = []
            for name, item in self.items.items():
                lines: set[tuple[str, int]] = set()

                def on_line(
                    frame: FrameType, event: str, _: object, lines: set[Any] = lines
                ) -> Any:
                    lines.add((frame.f_code.co_filename, frame.f_lineno))
                    return sys.gettrace() and on_line

                def on_call(frame: FrameType, event: str, _: object, on_line: Any = on_line) -> Any:
                    return on_line if frame.f_code.co_filename.startswith(prefix) else None

                start = time.perf_counter()
                sys.settrace(on_call)
                try:
                    self._run(item)
                finally:
                    sys.settrace(None)
                if self.failed:
                    return {"failed": self.failed}
                reached.append((name, list(lines), time.perf_counter() - start))
            return {"failed": "", "reached": reached}

        state = _state_of(self.items)
        if REACH.exists() and (found := json.loads(REACH.read_text()))["state"] == state:
            print("using the lines recorded by the last run", flush=True)
        else:
            traced = _in_fork(trace, 3600)
            if traced is None or traced["failed"]:
                failed = "" if traced is None else traced["failed"]
                raise pytest.UsageError(f"this test fails without any change: {failed}")
            found = {"state": state, **traced}
            REACH.write_text(json.dumps(found))
        for name, lines, seconds in found["reached"]:
            self.seconds[name] = seconds
            for file, line in lines:
                self.by_line[os.path.relpath(file, ROOT), line].add(name)

    def _judge(self, mutant: Mutant) -> tuple[str, str]:
        """Run a mutant; returns killed, survived or timeout, and the test that noticed it."""
        lines = range(mutant.lines[0], mutant.lines[1] + 1)
        tests = set().union(*(self.by_line.get((mutant.path, line), ()) for line in lines))
        if mutant.at_import:
            every = (each for (file, _), each in self.by_line.items() if file == mutant.path)
            tests = set().union(*every)
        tests = {name for name in tests if self.seconds[name] <= self.slowest_s}
        if not tests:
            return "survived", "no test reaches it"

        def run() -> dict[str, Any]:
            try:
                _put_in_place(mutant)
            except Exception as error:
                return {"by": f"import ({type(error).__name__})"}
            for name in sorted(tests, key=self._promise, reverse=True):
                self._run(self.items[name])
                if self.failed:
                    break
            return {"by": self.failed}

        found = _in_fork(run, CPU_S)
        if found is None:
            return "timeout", ""
        self.kills[found["by"]] += 1
        return ("killed", found["by"]) if found["by"] else ("survived", "")

    def _promise(self, test: str) -> float:
        """Expected number of mutants that a test notices per second."""
        return (1 + self.kills[test]) / (0.005 + self.seconds[test])

    def _run(self, item: pytest.Item) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def _state_of(tests: Iterable[str]) -> str:
    """Digest of the collected tests and of the sources of package and tests."""
    digest = hashlib.sha256("\n".join(tests).encode())
    for path in sorted((*ROOT.glob("flowprior/**/*.py"), *ROOT.glob("tests/**/*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _put_in_place(mutant: Mutant) -> None:
    """Replace everything that the module defines by the definitions of the changed source."""
    path = ROOT / mutant.path
    name = mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    source = path.read_text(encoding="utf-8")
    code = compile(mutated(source, mutant.node, mutant.variant), path, "exec")
    changed = ModuleType(name)
    changed.__file__ = str(path)
    exec(code, changed.__dict__)
    _renew(importlib.import_module(name), changed, name)


def _renew(real: Any, changed: Any, module: str) -> None:
    """Copy constants, defaults and code of a changed module or class to the original."""
    for name, new in list(vars(changed).items()):
        old = vars(real).get(name)
        if isinstance(new, type):
            if new.__module__ == module and name in vars(real):
                _renew(old, new, module)
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


def _in_fork(work: Callable[[], dict[str, Any]], cpu_s: int) -> dict[str, Any] | None:
    """Run a function in a fork and return its result; None if it takes too long or dies."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            # CPU time, so that other programs do not matter.
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
            devnull = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(devnull, stream)
            with os.fdopen(writer, "w", encoding="utf-8") as result:
                json.dump(work(), result)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader, encoding="utf-8") as result:
            text = result.read()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return json.loads(text) if text else None


def explained() -> set[str]:
    """Keys of the mutants that ``tests/MUTANTS.md`` explains.

    The page lists one or more items ``- KEY``, followed by an indented reason.
    """
    found: set[str] = set()
    keys: set[str] = set()
    for line in EXPLAINED.read_text(encoding="utf-8").splitlines():
        if line.startswith("- "):
            keys.add(line.removeprefix("- "))
            continue
        if line.startswith("  "):
            found |= keys
        keys.clear()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the mutants; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("modules", nargs="*", help="files or folders (default: all)")
    parser.add_argument("--survivors", action="store_true", help="only known survivors")
    parser.add_argument(
        "--slowest", type=float, default=math.inf, metavar="S", help="leave out slower tests"
    )
    args = parser.parse_args(argv)
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the fork
    files = [
        str(path)
        for name in args.modules or MODULES
        for path in (sorted(Path(name).rglob("*.py")) if Path(name).is_dir() else [Path(name)])
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    known: dict[str, dict[str, Any]] = {}
    if RESULTS.exists():
        rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
        known = {row["key"]: row for row in rows}
    found = [mutant for file in files for mutant in mutants_of(file)]
    if args.survivors:
        todo = [each for each in found if known.get(each.key, {}).get("status") == "survived"]
    else:
        todo = [each for each in found if args.modules or each.key not in known]
    # In random order, so that an interrupted run samples all files.
    random.Random(0).shuffle(todo)
    print(f"{len(found)} mutants of {len(files)} files, {len(todo)} to run", flush=True)
    start = time.perf_counter()
    with RESULTS.open("a", encoding="utf-8") as results:

        def report(mutant: Mutant, status: str, by: str) -> None:
            known[mutant.key] = {"key": mutant.key, "status": status, "by": by, **asdict(mutant)}
            print(json.dumps(known[mutant.key]), file=results, flush=True)
            if status == "survived":
                print(f"{mutant.key}  {by}", file=sys.__stderr__, flush=True)

        if todo:
            options = ("-q", "-p", "no:cacheprovider", "--capture=no", "--rootdir", str(ROOT))
            code = pytest.main([*options, *TESTS], plugins=[Runner(todo, report, args.slowest)])
            if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                return 2
    known_equivalent = explained()
    counts = Counter(known[mutant.key]["status"] for mutant in found)
    survivors = [each.key for each in found if known[each.key]["status"] == "survived"]
    new = [key for key in survivors if key not in known_equivalent]
    print(
        f"{len(found)} mutants: {counts['killed'] + counts['timeout']} noticed, "
        f"{len(survivors)} survive, {len(survivors) - len(new)} of them explained; "
        f"{time.perf_counter() - start:.0f} s"
    )
    for key in new:
        print(f"not explained: {key}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
