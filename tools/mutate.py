"""Change one thing of the flow or of the rotations at a time and see whether a test notices.

    python -m tools.mutate                                  # all of it; goes on where it stopped
    python -m tools.mutate flowprior/flow/actnorm.py        # some of it, anew

Each change, a mutant, runs in a fork of a process that has imported PyTorch and pytest already: the
fork compiles the changed module in place of the file and runs those tests, the quickest first, that
reach the changed line. A mutant that no test notices is a survivor. Survivors must be answered in
``tests/MUTANTS.md``, which says why they change nothing that a caller could see; the exit code is 1
if one is not. Results are in ``outputs/mutants.jsonl``, one line per mutant.

Libraries for this start a new interpreter per mutant, which for PyTorch costs more than the tests.
"""

import argparse
import ast
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MODULES = ("flowprior/flow", "flowprior/rotations.py")
TESTS = ("tests/flow", "tests/test_rotations.py", "tests/test_spaces.py", "tests/test_prior.py")
ANSWERS = ROOT / "tests" / "MUTANTS.md"
RESULTS = ROOT / "outputs" / "mutants.jsonl"
# Compiling takes longer than all other tests together and computes the same.
LEFT_OUT = ("compile", "sizes_of_the_paper")
PREIMPORTED = ("hypothesis", "numpy", "roma", "safetensors.torch", "torch", "torch.func")
TIMEOUT_S = 120
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
        scope: Function or class that holds the change; empty at the level of the module.
        before: The changed line as it was, normalised.
        after: The line as it is then.
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
        """What it is called in the answers, as long as its line stands as it does."""
        return f"{self.path} {self.scope or '(module)'}: `{self.before}` -> `{self.after}`"


@dataclass(frozen=True)
class _Place:
    """A node and where it stands."""

    node: ast.AST
    parent: ast.AST
    statement: ast.stmt
    scope: str
    at_import: bool


def mutants_of(path: str) -> Iterator[Mutant]:
    """Every mutant of a file.

    Args:
        path: The file, from the root of the repository.

    Yields:
        The mutants, in the order of the file.
    """
    source = (ROOT / path).read_text(encoding="utf-8")
    for number, place in enumerate(_nodes(ast.parse(source))):
        for variant in range(len(list(_variants(place.node)))):
            before, after = _changed_lines(source, number, variant)
            last = place.statement.end_lineno or place.statement.lineno
            if isinstance(place.statement, (ast.If, ast.For, ast.While, ast.With)):
                last = place.statement.body[0].lineno - 1
            lines = (place.statement.lineno, max(last, place.statement.lineno))
            yield Mutant(path, place.scope, before, after, lines, number, variant, place.at_import)


def mutated(source: str, node: int, variant: int) -> ast.Module:
    """The module with one change made."""
    tree = ast.parse(source)
    place = list(_nodes(tree))[node]
    replacement = list(_variants(place.node))[variant]
    for name, value in ast.iter_fields(place.parent):
        if value is place.node:
            setattr(place.parent, name, replacement)
        elif isinstance(value, list):
            value[:] = [replacement if each is place.node else each for each in value]
    return ast.fix_missing_locations(tree)


def _nodes(tree: ast.Module) -> Iterator[_Place]:
    """Nodes that may be changed: no docstrings, annotations, decorators, messages, exports."""

    def visit(
        node: ast.AST, parent: ast.AST, statement: ast.stmt, scope: str, at_import: bool
    ) -> Iterator[_Place]:
        if isinstance(node, ast.stmt):
            statement = node
        if _is_prose(node, parent):
            return
        yield _Place(node, parent, statement, scope, at_import)
        if isinstance(node, ast.Raise):
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
    """What a node may become."""
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
    elif isinstance(value, str):
        yield ast.Constant(value + "?")


def _changed_lines(source: str, node: int, variant: int) -> tuple[str, str]:
    """The lines of the changed statement that differ, normalised, cut to what is near."""
    old = ast.unparse(ast.parse(source)).splitlines()
    new = ast.unparse(mutated(source, node, variant)).splitlines()
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    first, second = (
        " / ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (old, new)
    )
    return first, second


def reach(tests: Sequence[str]) -> tuple[dict[tuple[str, int], set[str]], dict[str, float]]:
    """Run all tests once and see which lines each of them reaches, and how long it takes.

    Args:
        tests: Files and folders.

    Returns:
        Tests by (file, line), and seconds by test.

    Raises:
        RuntimeError: A test fails as things are.
    """
    by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
    seconds: dict[str, float] = {}
    prefix = f"{ROOT / 'flowprior'}{os.sep}"

    class Tracer(_Quiet):
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            def on_line(frame: FrameType, event: str, _: object) -> Any:
                if event == "line":
                    file = os.path.relpath(frame.f_code.co_filename, ROOT)
                    by_line[file, frame.f_lineno].add(item.nodeid)
                return on_line

            def on_call(frame: FrameType, event: str, _: object) -> Any:
                return on_line if frame.f_code.co_filename.startswith(prefix) else None

            start = time.perf_counter()
            sys.settrace(on_call)
            try:
                return (yield)
            finally:
                sys.settrace(None)
                seconds[item.nodeid] = time.perf_counter() - start

    def trace() -> dict[str, Any]:
        code = pytest.main([*_OPTIONS, *tests], plugins=[Tracer(lambda _: True)])
        lines = [[file, line, sorted(names)] for (file, line), names in by_line.items()]
        return {"code": int(code), "lines": lines, "seconds": seconds}

    found = _in_fork(trace, 3600)
    if found is None or found["code"]:
        raise RuntimeError(f"the tests fail without any change: {found and found['code']}")
    return {(file, line): set(names) for file, line, names in found["lines"]}, found["seconds"]


_OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)),
    *("-W", "ignore:Module already imported"),
)


class _Quiet:
    """Picks tests, the quickest first, and searches for no smaller example of what fails."""

    def __init__(self, wanted: Callable[[str], bool], seconds: Mapping[str, float] = {}) -> None:
        self.wanted, self.seconds = wanted, seconds
        self.failed = ""

    def pytest_configure(self, config: pytest.Config) -> None:
        import hypothesis

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutants", deadline=None, derandomize=True, max_examples=10, phases=phases
        )
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            item
            for item in items
            if self.wanted(item.nodeid) and not any(word in item.nodeid for word in LEFT_OUT)
        ]
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid


def judge(mutant: Mutant, tests: set[str], seconds: Mapping[str, float]) -> tuple[str, str]:
    """Whether a test notices a mutant.

    Args:
        mutant: The change.
        tests: Those that reach it.
        seconds: How long each takes.

    Returns:
        ``"killed"``, ``"survived"`` or ``"timeout"``, and the test that noticed.
    """
    if not tests:
        return "survived", "no test reaches it"
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    code = compile(mutated(source, mutant.node, mutant.variant), ROOT / mutant.path, "exec")

    def run() -> dict[str, Any]:
        _put_in_place(ROOT / mutant.path, code)
        plugin = _Quiet(tests.__contains__, seconds)
        files = sorted({test.partition("::")[0] for test in tests})
        return {
            "code": int(pytest.main([*_OPTIONS, *files], plugins=[plugin])),
            "by": plugin.failed,
        }

    found = _in_fork(run, TIMEOUT_S)
    if found is None:
        return "timeout", ""
    return ("killed", found["by"] or "import") if found["code"] else ("survived", "")


def _put_in_place(path: Path, code: CodeType) -> None:
    """Let the import of one file run other code."""
    original = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        return code if Path(self.path) == path else original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def _in_fork(work: Callable[[], dict[str, Any]], timeout_s: float) -> dict[str, Any] | None:
    """The result of some work in a fork of this process; None if it takes too long or dies."""
    reader, writer = os.pipe()
    complaints = os.fdopen(os.dup(2), "w")
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            with os.fdopen(writer, "w", encoding="utf-8") as stream_out:
                json.dump(work(), stream_out)
        except BaseException:
            traceback.print_exc(file=complaints)
        finally:
            complaints.flush()
            os._exit(0)
    os.close(writer)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(int(timeout_s))
    try:
        with os.fdopen(reader, encoding="utf-8") as stream_in:
            text = stream_in.read()
        os.waitpid(child, 0)
    finally:
        signal.alarm(0)
    return json.loads(text) if text else None


def answers() -> dict[str, str]:
    """Answers by the key of the mutant: items ``- KEY`` of the page, the answer indented below."""
    found: dict[str, str] = {}
    key = ""
    for line in ANSWERS.read_text(encoding="utf-8").splitlines() if ANSWERS.exists() else ():
        if line.startswith("- "):
            key = line.removeprefix("- ")
        elif key and line.startswith("  "):
            found[key] = f"{found.get(key, '')} {line.strip()}".strip()
        else:
            key = ""
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the mutants; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("modules", nargs="*", help="files or folders (default: all)")
    parser.add_argument("--survivors", action="store_true", help="only those known to survive")
    args = parser.parse_args(argv)
    os.chdir(ROOT)
    for name in PREIMPORTED:
        importlib.import_module(name)
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
    print(f"{len(found)} mutants of {len(files)} files, {len(todo)} to run", flush=True)
    by_line, seconds = reach(TESTS) if todo else ({}, {})
    by_file: dict[str, set[str]] = defaultdict(set)
    for (file, _), tests in by_line.items():
        by_file[file] |= tests
    start = time.perf_counter()
    with RESULTS.open("a", encoding="utf-8") as results:
        for number, mutant in enumerate(todo):
            lines = range(mutant.lines[0], mutant.lines[1] + 1)
            tests = set().union(*(by_line.get((mutant.path, line), ()) for line in lines))
            status, by = judge(mutant, by_file[mutant.path] if mutant.at_import else tests, seconds)
            known[mutant.key] = {"key": mutant.key, "status": status, "by": by, **asdict(mutant)}
            print(json.dumps(known[mutant.key]), file=results, flush=True)
            if status == "survived":
                print(f"{number + 1}: {mutant.key}  {by}", flush=True)
    answered = answers()
    counts = Counter(known[mutant.key]["status"] for mutant in found)
    survivors = [each.key for each in found if known[each.key]["status"] == "survived"]
    new = [key for key in survivors if key not in answered]
    print(
        f"{len(found)} mutants: {counts['killed'] + counts['timeout']} noticed, "
        f"{len(survivors)} survive, {len(survivors) - len(new)} of them answered; "
        f"{time.perf_counter() - start:.0f} s"
    )
    for key in new:
        print(f"not answered: {key}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
