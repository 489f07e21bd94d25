"""Change one expression of flow, prior or rotations at a time and check that a test notices.

    python -m tools.mutate --sample 100                     # 100 mutants of each part
    python -m tools.mutate flowprior/flow/actnorm.py        # all mutants of one file or folder
    python -m tools.mutate                                  # everything, which takes many hours

Each mutant runs in a fork of a process that has imported the library and collected all tests. The
fork replaces the code of the module's functions by that of the changed source and runs the tests
that reach the changed line, the most promising first. A mutant that no test notices survives; one
that crashes or takes several times as long as its tests counts as noticed and is listed.
``tests/MUTANTS.md`` gives the reason for each survivor that no caller can observe; if one is not
listed there, the exit code is 1. Results are in ``outputs/mutants.jsonl``.

mutmut 3.8 works the same way, but changes neither constants of modules and classes nor decorated
functions, except static and class methods. In flow and rotations, 297 of 1162 mutants were there:
84 in constants, 213 in functions under ``in_full_precision``, ``torch.no_grad``, ``property`` and
``lasting``. It skips ten of the eleven public functions of ``flowprior/rotations.py``. For
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
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from tools.mutate.changes import ROOT, Mutant, files_of, mutants_of
from tools.mutate.runner import TESTS, Runner
from tools.mutate.samples import interval, stratified

PARTS = ("flowprior/flow", "flowprior/prior", "flowprior/rotations.py")
EXPLAINED = ROOT / "tests" / "MUTANTS.md"
RESULTS = ROOT / "outputs" / "mutants.jsonl"


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
    args = _parser().parse_args(argv)
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the fork
    chosen: dict[str, list[Mutant]] = {}
    for part in args.parts or PARTS:
        every = [mutant for file in files_of(part) for mutant in mutants_of(file)]
        keys = {each.key for each in every}
        for key in sorted(explained() - keys):
            if key.startswith(part):
                print(f"explained, but no longer a mutant: {key}")
        chosen[part] = stratified(every, args.sample or len(every), args.seed)
        print(f"{part}: {len(chosen[part])} of {len(every)} mutants", flush=True)
    found = [mutant for mutants in chosen.values() for mutant in mutants]
    known = _known() if args.resume or args.survivors else {}
    if args.survivors:
        todo = [each for each in found if known.get(each.key, {}).get("status") == "survived"]
    else:
        todo = [each for each in found if each.key not in known]
    random.Random(args.seed).shuffle(todo)  # a run that is cut short has tried some of every part
    start = time.perf_counter()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as results:

        def report(mutant: Mutant, status: str, by: str) -> None:
            known[mutant.key] = {"key": mutant.key, "status": status, "by": by, **asdict(mutant)}
            print(json.dumps(known[mutant.key]), file=results, flush=True)
            if status != "killed":
                print(f"{status}: {mutant.key}  {by}", file=sys.__stderr__, flush=True)

        if todo:
            options = ["-q", "-p", "no:cacheprovider", "--capture=no", "--rootdir", str(ROOT)]
            if not args.slow:
                options += ["-m", "not slow"]
            runner = Runner(todo, report, args.budget, 60 * args.minutes)
            code = pytest.main([*options, *TESTS], plugins=[runner])
            if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                return 2
    print(f"{len(todo)} mutants in {time.perf_counter() - start:.0f} s")
    return 1 if _summary(chosen, known) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"files or folders (default: {' '.join(PARTS)})")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="draw N mutants of each part (default: all)"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="stop after M minutes"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    parser.add_argument("--resume", action="store_true", help="leave out mutants with a result")
    parser.add_argument("--survivors", action="store_true", help="only known survivors")
    parser.add_argument("--slow", action="store_true", help="also run tests marked as slow")
    parser.add_argument(
        "--budget",
        type=float,
        default=60.0,
        metavar="S",
        help="CPU seconds of the tests of one mutant, the most promising first (default: 60)",
    )
    return parser


def _known() -> dict[str, dict[str, Any]]:
    """The last result of each mutant of earlier runs, by its key."""
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {row["key"]: row for row in rows}


def _summary(chosen: dict[str, list[Mutant]], known: dict[str, dict[str, Any]]) -> list[str]:
    """Print the score of each part; returns the survivors without an explanation."""
    reasons, new = explained(), []
    for part, mutants in chosen.items():
        status = {each.key: known[each.key]["status"] for each in mutants if each.key in known}
        if not status:
            print(f"{part}: no mutant tried")
            continue
        survivors = [key for key, each in status.items() if each == "survived"]
        equivalent = sum(key in reasons for key in survivors)
        slow = [key for key, each in status.items() if each == "timeout"]
        noticed = len(status) - len(survivors)
        low, high = (100 * each for each in interval(noticed, len(status)))
        print(
            f"{part}: {noticed} of {len(status)} noticed, {100 * noticed / len(status):.1f} % "
            f"(95 % interval {low:.1f} to {high:.1f} %); {len(survivors)} survive, {equivalent} of "
            f"them explained; {len(slow)} ended by the time limit or a crash"
        )
        new += [key for key in survivors if key not in reasons]
    for key in new:
        print(f"not explained: {key}")
    return new


if __name__ == "__main__":
    sys.exit(main())
