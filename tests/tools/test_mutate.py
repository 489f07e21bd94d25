"""Mutation testing: mutants, samples, replacement of modules, a run on a small package."""

import ast
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processes import run
from tools.mutate import __main__ as command
from tools.mutate import changes, forks
from tools.mutate.changes import Mutant, files_of, mutants_of, mutated
from tools.mutate.forks import in_fork
from tools.mutate.samples import interval, stratified
from tools.mutate.substitution import put_in_place

ROOT = Path(__file__).parents[2]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")


def mutants_in(source, tmp_path, monkeypatch):
    monkeypatch.setattr(changes, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    return list(mutants_of("module.py"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a + b", {"a - b"}),
        ("a < b", {"a <= b"}),
        ("a and b", {"a or b"}),
        ("not a", {"a"}),
        ("-a", {"a"}),
        ("a if b else c", {"c if b else a"}),
        ("a.detach()", {"a"}),
        ("a.to(b)", {"a"}),
        ("a.sum(b, keepdim=c)", {"a.sum(b)"}),
        ("f(True)", {"f(False)"}),
        ("f(3)", {"f(4)"}),
        ("f(0.5)", {"f(1.0)"}),
        ("f('word')", {"f('word?')"}),
        ("f('a sentence')", set()),
        ("torch.ones()", set()),
    ],
)
def test_changes_of_an_expression(line, expected, tmp_path, monkeypatch):
    found = mutants_in(f"def call():\n    return {line}\n", tmp_path, monkeypatch)
    assert {each.after for each in found} == {f"return {each}" for each in expected}
    assert all(each.scope == "call" and not each.at_import for each in found)


def test_prose_is_not_changed(tmp_path, monkeypatch):
    source = '''"""Docstring."""
import math
__all__ = ["a"]
def call(x: int = X) -> "word":
    """Docstring."""
    assert x == 3
    raise ValueError(f"{x + 1} is wrong")
'''
    found = mutants_in(source, tmp_path, monkeypatch)
    assert [each.after for each in found] == ["pass"]


def test_a_line_of_a_class_or_a_module_runs_at_import(tmp_path, monkeypatch):
    source = "A = 1\nclass C:\n    B = 2\n    def f(self):\n        return 3\n"
    found = mutants_in(source, tmp_path, monkeypatch)
    assert [each.at_import for each in found] == [True, True, False]
    assert [each.scope for each in found] == ["", "C", "C.f"]
    assert [each.lines for each in found] == [(1, 1), (3, 3), (5, 5)]


def test_long_lines_are_shortened_around_the_change(tmp_path, monkeypatch):
    words = [f"word_{number}" for number in range(200)]
    found = mutants_in(f"TABLE = {words!r}\n", tmp_path, monkeypatch)
    assert len({each.key for each in found}) == len(words)
    for mutant, word in zip(found, words, strict=True):
        assert f"'{word}'" in mutant.before
        assert f"'{word}?'" in mutant.after
        assert len(mutant.after) < 300


@pytest.mark.parametrize("path", ["flowprior/flow/held.py", "flowprior/prior/picking.py"])
def test_a_mutant_changes_one_statement(path):
    source = (ROOT / path).read_text(encoding="utf-8")
    original = ast.unparse(ast.parse(source)).splitlines()
    mutants = list(mutants_of(path))
    assert mutants
    for mutant in mutants:
        lines = ast.unparse(mutated(source, mutant.node, mutant.variant)).splitlines()
        assert len(lines) == len(original)
        changed = [(a, b) for a, b in zip(original, lines, strict=True) if a != b]
        assert changed
        assert " / ".join(a.strip() for a, _ in changed) == mutant.before
        assert " / ".join(b.strip() for _, b in changed) == mutant.after


def test_a_part_that_does_not_exist():
    with pytest.raises(FileNotFoundError, match="there is no flowprior/flows"):
        files_of("flowprior/flows")


def some_mutants(sizes):
    return [
        Mutant(f"{file}.py", "", "", "", (1, 1), node, 0, False)
        for file, size in enumerate(sizes)
        for node in range(size)
    ]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 100), st.integers(0, 9))
def test_samples_are_stratified(sizes, count, seed):
    mutants = some_mutants(sizes)
    drawn = stratified(mutants, count, seed)
    count = min(count, len(mutants))
    assert len(drawn) == count == len(set(drawn))
    assert set(drawn) <= set(mutants)
    assert stratified(mutants, count, seed) == drawn
    by_file = Counter(each.path for each in drawn)
    for file, size in enumerate(sizes):
        assert abs(by_file[f"{file}.py"] - count * size / len(mutants)) < 1


def test_another_seed_gives_another_sample():
    mutants = some_mutants([50, 50])
    assert set(stratified(mutants, 20, 0)) != set(stratified(mutants, 20, 1))


@given(st.integers(1, 500), st.floats(0, 1))
def test_intervals_are_wilsons(count, share):
    stats = pytest.importorskip("scipy.stats")
    successes = round(share * count)
    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


@needs_fork
def test_forks(monkeypatch):
    assert in_fork(lambda: {"pid": os.getpid()}, 60)["pid"] != os.getpid()
    assert in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL), 60) is None

    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        in_fork(lambda: {"share": 1 / 0}, 60)

    def busy():
        while True:
            pass

    assert in_fork(busy, 1) is None
    monkeypatch.setattr(forks, "WALL", 0.1)
    assert in_fork(lambda: time.sleep(600), 1) is None


@needs_fork
def test_modules_are_replaced_in_the_fork_alone():
    from flowprior.prior import So3Space, evidence, uncertainty

    def kept(mutant=None):
        put_in_place("flowprior/prior/uncertainty.py", mutant)
        return {"kept": uncertainty.KEPT}

    before = uncertainty.KEPT
    changed = next(
        each
        for each in mutants_of("flowprior/prior/uncertainty.py")
        if each.before.startswith("KEPT = ")
    )
    assert in_fork(kept, 60) == {"kept": before}
    assert in_fork(lambda: kept(changed), 60) == {"kept": before + 1}
    assert uncertainty.KEPT is before

    space = So3Space(24)

    def refused(mutant):
        put_in_place("flowprior/prior/evidence.py", mutant)
        try:
            evidence.Evidence(["nonsense"], space)
        except ValueError:
            return {"refused": True}
        except Exception:
            return {"refused": False}
        return {"refused": False}

    raising = [
        each
        for each in mutants_of("flowprior/prior/evidence.py")
        if each.scope == "Evidence.__init__" and each.after == "pass"
    ]
    assert in_fork(lambda: refused(None), 60) == {"refused": True}
    assert {"refused": False} in [in_fork(lambda each=each: refused(each), 60) for each in raising]


@needs_fork
def test_every_module_can_be_replaced_by_itself():
    def replace():
        for part in command.PARTS:
            for path in files_of(part):
                put_in_place(path)
        return {"done": True}

    assert in_fork(replace, 120) == {"done": True}


def test_explanations(tmp_path, monkeypatch):
    page = tmp_path / "MUTANTS.md"
    page.write_text(
        "# Title\n\n- one\n- two\n  The reason.\n- three\n\nText\n- four\n  Reason.\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(command, "EXPLAINED", page)
    assert command.explained() == {"one", "two", "four"}


SOURCE = """
FACTOR = 2

def scaled(x):
    return x * FACTOR

def counted(n):
    while n != 0:
        n -= 1
    return n

def unused(x):
    return x + 1
"""
TESTS = """
from flowprior.part.numbers import counted, scaled

def test_scaled():
    assert scaled(3) == 6

def test_counted():
    assert counted(3) == 0
"""
PROGRAM = """
import sys
from pathlib import Path
from tools.mutate import changes, forks, runner, substitution
root = Path.cwd()
for module in (changes, runner, substitution):
    module.ROOT = root
runner.REACH = root / "outputs" / "reach.json"
runner.SECONDS = 1
from tools.mutate import __main__ as command
command.ROOT = root
command.EXPLAINED = root / "tests" / "MUTANTS.md"
command.RESULTS = root / "outputs" / "mutants.jsonl"
command.TESTS = ("tests",)
sys.exit(command.main(["flowprior/part", *sys.argv[1:]]))
"""


@needs_fork
def test_a_whole_run(tmp_path):
    folder = tmp_path / "flowprior" / "part"
    folder.mkdir(parents=True)
    (tmp_path / "flowprior" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "numbers.py").write_text(SOURCE, encoding="utf-8")
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_numbers.py").write_text(TESTS, encoding="utf-8")
    reason = "- {}\n  Nothing uses it.\n"
    numbers = "flowprior/part/numbers.py"
    keys = [
        f"{numbers} unused: `return x + 1` -> `return x - 1`",
        f"{numbers} unused: `return x + 1` -> `return x + 2`",
    ]
    (tests / "MUTANTS.md").write_text(
        reason.format(keys[0]) + reason.format(f"{numbers} gone"), encoding="utf-8"
    )
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}}

    first = run([sys.executable, "-c", PROGRAM], **options)
    assert first.returncode == 1, first.stderr
    # FACTOR; *; !=, 0 and 1 of the loop, and the two of the unused function.
    assert "flowprior/part: 7 of 7 mutants" in first.stdout
    assert "5 of 7 noticed, 71.4 %" in first.stdout
    assert "2 survive, 1 of them explained; 1 ended by the time limit" in first.stdout
    assert f"not explained: {keys[1]}" in first.stdout
    assert f"not explained: {keys[0]}" not in first.stdout
    assert f"explained, but no longer a mutant: {numbers} gone" in first.stdout
    assert "timeout" in first.stderr

    (tests / "MUTANTS.md").write_text("".join(map(reason.format, keys)), encoding="utf-8")
    resumed = run([sys.executable, "-c", PROGRAM, "--resume"], **options)
    assert resumed.returncode == 0, resumed.stderr
    assert "0 mutants in" in resumed.stdout

    (tests / "test_numbers.py").write_text(
        TESTS + "\n\ndef test_unused():\n    from flowprior.part.numbers import unused\n\n"
        "    assert unused(1) == 2\n",
        encoding="utf-8",
    )
    again = run([sys.executable, "-c", PROGRAM, "--survivors"], **options)
    assert again.returncode == 0, again.stderr
    assert "2 mutants in" in again.stdout
    assert "7 of 7 noticed, 100.0 %" in again.stdout
