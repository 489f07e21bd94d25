"""A pytest plugin that runs mutants instead of tests."""

import hashlib
import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tools.mutate.changes import ROOT, Mutant
from tools.mutate.forks import in_fork
from tools.mutate.substitution import put_in_place

__all__ = ["TESTS", "Runner"]

TESTS = (
    "tests/flow",
    "tests/prior",
    "tests/test_rotations.py",
    "tests/test_autocast.py",
    "tests/test_weights.py",
)
REACH = ROOT / "outputs" / "mutants-reach.json"
# Tests of compilation take longer than all others together and repeat their computations.
LEFT_OUT = ("compile", "sizes_of_the_paper")
# Tests of compilation that are the only ones of a module. A trace function makes them many times
# slower, so they count as reaching every line of that module.
UNTRACED = {"tests/prior/test_export.py": "flowprior/prior/export.py"}
# A mutant has this many times the CPU time of its tests, and the seconds.
TIMES, SECONDS = 3, 20
# A test of the module's own file counts as one that has noticed as many of its mutants.
MIRRORED = 5


class Runner:
    """Collects the tests once and then runs mutants instead of tests.

    Args:
        mutants: The mutants to run.
        report: Called with each result: the mutant, its status and the test that noticed it.
        budget_s: CPU time in seconds of the tests of one mutant, the most promising first.
        wall_s: Seconds after which no further mutant is started.
    """

    def __init__(
        self,
        mutants: Sequence[Mutant],
        report: Callable[[Mutant, str, str], None],
        budget_s: float,
        wall_s: float = math.inf,
    ) -> None:
        self.mutants, self.report, self.budget_s = mutants, report, budget_s
        self.end = time.monotonic() + wall_s
        self.items: dict[str, pytest.Item] = {}
        self.by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.by_file: dict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.kills: Counter[tuple[str, str]] = Counter()
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
            if time.monotonic() > self.end:
                break
            self.report(mutant, *self._judge(mutant))
        return True

    def _trace(self) -> None:
        """Find out which lines each test reaches and how long it takes.

        The results of a file of tests are kept until it changes, or a helper, or a module of the
        library that it reaches.
        """
        files: dict[str, list[str]] = defaultdict(list)
        for name in self.items:
            files[name.partition("::")[0]].append(name)
        helpers = _digest(*(path for path in _tests() if not path.name.startswith("test_")))
        kept: dict[str, Any] = {}
        if REACH.exists():
            found = json.loads(REACH.read_text(encoding="utf-8"))
            kept = found["files"] if found["helpers"] == helpers else {}
        for file, names in files.items():
            state = _digest(ROOT / file)
            if file not in kept or kept[file]["state"] != state or _changed(kept[file]["sources"]):
                traced = in_fork(lambda names=names: self._trace_of(names), 3600)  # type: ignore[misc]
                if traced is None or traced["failed"]:
                    failed = file if traced is None else traced["failed"]
                    raise pytest.UsageError(f"this test fails without any change: {failed}")
                sources = {path for _, lines, _ in traced["reached"] for path, _ in lines}
                digests = {path: _digest(ROOT / path) for path in sorted(sources)}
                kept[file] = {"state": state, "sources": digests, **traced}
                text = json.dumps({"helpers": helpers, "files": kept})
                REACH.write_text(text, encoding="utf-8")
            for name, lines, seconds in kept[file]["reached"]:
                self.seconds[name] = seconds
                for path, line in lines:
                    self.by_line[path, line].add(name)
                    self.by_file[path].add(name)

    def _trace_of(self, names: Sequence[str]) -> dict[str, Any]:
        """Run tests; returns the lines that each reaches and its CPU time, traced.

        The modules are replaced by themselves first: only a change may make a test fail.
        """
        for path in {mutant.path for mutant in self.mutants}:
            put_in_place(path)
        prefix = f"{ROOT / 'flowprior'}{os.sep}"
        reached: list[tuple[str, list[tuple[str, int]], float]] = []
        for name, following in zip(names, [*names[1:], None], strict=True):
            lines: set[tuple[str, int]] = set()

            def on_line(frame: FrameType, event: str, _: object, lines: set[Any] = lines) -> Any:
                lines.add((frame.f_code.co_filename, frame.f_lineno))
                return sys.gettrace() and on_line

            def on_call(frame: FrameType, event: str, _: object, on_line: Any = on_line) -> Any:
                return on_line if frame.f_code.co_filename.startswith(prefix) else None

            whole = UNTRACED.get(name.partition("::")[0])
            if whole is not None:
                count = len((ROOT / whole).read_text(encoding="utf-8").splitlines())
                lines = {(str(ROOT / whole), line + 1) for line in range(count)}
            start = time.process_time()
            sys.settrace(on_call if whole is None else None)
            try:
                # A fixture that tests share is made again, so that each reaches its lines.
                self._run(name, None if whole is None else following)
            finally:
                sys.settrace(None)
            if self.failed:
                return {"failed": self.failed}
            from_root = [(os.path.relpath(file, ROOT), line) for file, line in sorted(lines)]
            reached.append((name, from_root, time.process_time() - start))
        return {"failed": "", "reached": reached}

    def _judge(self, mutant: Mutant) -> tuple[str, str]:
        """Run a mutant; returns killed, survived or timeout, and the test that noticed it."""
        tests: list[str] = []
        spent = 0.0
        for name in self._tests_of(mutant):
            if tests and spent + self.seconds[name] > self.budget_s:
                break
            tests.append(name)
            spent += self.seconds[name]
        if not tests:
            return "survived", "no test reaches it"

        def run() -> dict[str, Any]:
            try:
                put_in_place(mutant.path, mutant)
            except Exception as error:
                return {"by": f"import ({type(error).__name__})"}
            for name, following in zip(tests, [*tests[1:], None], strict=True):
                self._run(name, following)
                if self.failed:
                    break
            return {"by": self.failed}

        found = in_fork(run, TIMES * spent + SECONDS)
        if found is None:
            return "timeout", ""
        self.kills[mutant.path, found["by"]] += 1
        self.kills["", found["by"]] += 1
        return ("killed", found["by"]) if found["by"] else ("survived", "")

    def _tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that reach a mutant, those that notice the most mutants per second first."""
        lines = range(mutant.lines[0], mutant.lines[1] + 1)
        own = f"_{Path(mutant.path).stem}.py::"
        if mutant.at_import:  # a test that reads a constant runs no line of the module
            tests = self.by_file[mutant.path] | {name for name in self.seconds if own in name}
        else:
            tests = set().union(*(self.by_line.get((mutant.path, line), ()) for line in lines))

        def promise(name: str) -> tuple[float, str]:
            kills = 1 + self.kills["", name] + 10 * self.kills[mutant.path, name]
            return (kills + MIRRORED * (own in name)) / (0.01 + self.seconds[name]), name

        return sorted(tests, key=promise, reverse=True)

    def _run(self, name: str, following: str | None = None) -> None:
        """Run a test; fixtures that the following test shares stay."""
        item = self.items[name]
        item.config.hook.pytest_runtest_protocol(
            item=item, nextitem=None if following is None else self.items[following]
        )


def _tests() -> list[Path]:
    folders = [ROOT / each for each in TESTS if (ROOT / each).is_dir()]
    found = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted((*found, *ROOT.glob("tests/*.py")))


def _changed(digests: dict[str, str]) -> bool:
    """Whether a file has another digest, or is gone."""
    return any(
        not (ROOT / path).exists() or _digest(ROOT / path) != digest
        for path, digest in digests.items()
    )


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
