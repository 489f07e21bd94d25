"""Kill programs at random moments, restart them and compare their files with an uninterrupted run.

    python -m tools.kill_runs --kills 20

Each program is forked from a process that has already imported it, so that a run with tiny settings
takes a few seconds. Half of the kills come after a random fraction of the time of an uninterrupted
run, the others before a random write (creating, renaming, linking or deleting a file); a third of
the runs are killed twice. A kill sends SIGKILL to the program's main process only: its children
must notice and exit.
"""

import argparse
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from examples.data.procedural import sample_person, sample_poses
from flowprior.files import model_file
from flowprior.keypoints import example_keypoints

__all__ = [
    "GONE_S",
    "PATIENCE_S",
    "PROGRAMS",
    "Outcome",
    "Program",
    "descendants",
    "differences",
    "kill",
    "main",
    "preloaded",
    "start",
]

TOKEN = "FLOWPRIOR_KILL_RUNS"
PATIENCE_S = 600.0  # time limit of a run that takes a few seconds
GONE_S = 240.0  # time in which the children of a killed program must exit on a busy machine
CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir"}
# Entries that differ between runs: times, and the command, which contains the folder.
VARYING = {
    *("seconds", "seconds_of_last_run", "step_s", "images_per_s", "command"),
    "of_which_waiting_for_images_s",
}


@dataclass(frozen=True)
class Program:
    """A program to kill.

    Args:
        module: Its module, with ``main(argv)``.
        argv: Its arguments; ``{inputs}`` and ``{out}`` are replaced by the two folders.
        needs: Programs that write its inputs, into folders with their names.
        code: Exit code of an uninterrupted run.
    """

    module: str
    argv: str
    needs: tuple[str, ...] = ()
    code: int = 0


ANNOTATE = "{inputs}/shards {out} --prior {inputs}/prior --chunk 3 --steps 8 --device cpu"
PROGRAMS = {
    "painting": Program(
        "examples.prohmr.embedded",
        "--data {inputs}/poses.npz --out {out} --images 50 --groups 2 --size 48",
    ),
    "lifting": Program(
        "examples.lifting.train",
        "--data {inputs}/poses.npz --out {out} --device cpu --steps 12 width=8 num_blocks=1 "
        "hidden_features=8 flow_steps=2 flow_blocks=1 batch_size=8 dropout=0.3 val_views=40 "
        "val_every=4 checkpoint_every=2",
    ),
    "lifting-demo": Program(
        "examples.lifting.demo",
        "--data {inputs}/poses.npz --out {out} --steps 3 --device cpu",
    ),
    "prohmr": Program(
        "examples.prohmr.train",
        "--data {inputs}/painting --out {out} --device cpu --steps 6 size=32 head_features=8 "
        "hidden_features=16 flow_steps=2 batch_size=8 precision=32-true workers=0 val_images=2 "
        "val_samples=2 val_every=3 checkpoint_every=1",
        needs=("painting",),
    ),
    "prior": Program(
        "examples.fitting.train_prior", "--data {inputs}/poses.npz --out {out} --steps 3"
    ),
    "annotate": Program(
        "examples.fitting.annotate", f"{ANNOTATE} --workers 0", needs=("prior",), code=1
    ),
    "annotate-ray": Program(
        "examples.fitting.annotate", f"{ANNOTATE} --workers 1", needs=("prior",), code=1
    ),
}


@dataclass
class Outcome:
    """The result of killing one program.

    Args:
        kills: Number of kills that hit a running program.
        before_writes: Number of them before a write.
        missed: Number of runs that ended before the kill.
        differing: Differences of the final files, by trial.
        left: Processes left behind, by trial.
        seconds: Time of an uninterrupted run.
        writes: Number of writes of an uninterrupted run.
    """

    kills: int = 0
    before_writes: int = 0
    missed: int = 0
    differing: dict[int, list[str]] = field(default_factory=dict)
    left: dict[int, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    writes: int = 0


@functools.cache
def preloaded() -> ForkServerContext:
    """A multiprocessing context that forks from a process that has imported all programs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({program.module for program in PROGRAMS.values()}))
    return context


@contextlib.contextmanager
def start(
    module: str,
    argv: Sequence[str],
    log: Path,
    *,
    out: Path | None = None,
    die_at: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ForkServerProcess]:
    """Run a program in a new process group, which is killed at the end of the block.

    Args:
        module: A module with ``main(argv)``, whose return value is the exit code.
        argv: Its arguments.
        log: File to which its output is appended. The time in seconds and the number of writes are
            written beside it, to a file that ends in ``.run``.
        out: Folder in which writes are counted.
        die_at: Number of the write before which the program kills itself; 0 for none.
        environment: Environment variables to set.
    """
    arguments = (module, list(argv), log, out, die_at, dict(environment or {}))
    process = preloaded().Process(target=_run, args=arguments)
    process.start()
    assert process.pid is not None
    try:
        yield process
    finally:
        process.kill()
        process.join(PATIENCE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _run(
    module: str,
    argv: list[str],
    log: Path,
    out: Path | None,
    die_at: int,
    environment: dict[str, str],
) -> None:
    """Run a program in the forked process."""
    os.setsid()
    os.environ |= environment
    os.environ[TOKEN] = str(log)  # its children inherit this
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    begin, writes = time.perf_counter(), 0
    prefix = f"{out}{os.sep}"

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal writes
        if event == "open":
            changes = isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR))
        else:
            changes = event in CHANGES
        if changes and isinstance(args[0], (str, os.PathLike)) and str(args[0]).startswith(prefix):
            writes += 1
            if writes == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    code = importlib.import_module(module).main(argv)
    log.with_suffix(".run").write_text(
        json.dumps([time.perf_counter() - begin, writes]), encoding="utf-8"
    )
    sys.exit(code)


def complete(name: str, inputs: Path, out: Path, log: Path) -> None:
    """Run a program of `PROGRAMS` without interruption; RuntimeError if it fails."""
    program = PROGRAMS[name]
    with start(program.module, _argv(program, inputs, out), log, out=out) as process:
        process.join(PATIENCE_S)
        code = process.exitcode
    if code != program.code:
        raise RuntimeError(f"{name} ended with {code}:\n{log.read_text(encoding='utf-8')[-4000:]}")


def _argv(program: Program, inputs: Path, out: Path) -> list[str]:
    # Split first, because the folders may contain spaces.
    return [word.format(inputs=inputs, out=out) for word in program.argv.split()]


def make_inputs(folder: Path) -> None:
    """Write poses of six people, and two shards of keypoints, one of them damaged."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    joints, poses = zip(*(sample_poses(sample_person(rng), 60, rng) for _ in range(6)), strict=True)
    np.savez(
        folder / "poses.npz",
        joints17=np.concatenate(joints),
        poses=np.concatenate(poses).reshape(-1, 72),
        split=np.repeat([0, 0, 0, 0, 1, 2], 60),
        subject=np.repeat(np.arange(6), 60),
        subject_names=np.array([f"person{number}" for number in range(6)]),
    )
    (folder / "shards").mkdir()
    points = np.repeat(example_keypoints().numpy()[None], 10, 0)
    points[..., :2] += rng.normal(0, 3, points[..., :2].shape)
    np.savez(folder / "shards" / "good.npz", keypoints_2d=points)
    (folder / "shards" / "bad.npz").write_bytes(b"PK\x03\x04 and no more")


def kill(name: str, kills: int, seed: int, folder: Path) -> Outcome:
    """Kill a program at random moments and compare its files with an uninterrupted run.

    Args:
        name: Name in `PROGRAMS`.
        kills: Number of kills.
        seed: Seed of the moments.
        folder: Folder for inputs, results and logs.

    Returns:
        Counts, differences and processes left behind.

    Raises:
        RuntimeError: A run that was not killed failed.
    """
    inputs = folder / "inputs"
    if not inputs.exists():
        make_inputs(inputs)
    for need in PROGRAMS[name].needs:
        if not (inputs / need).exists():
            complete(need, inputs, inputs / need, folder / f"{need}.log")
    program, rng = PROGRAMS[name], random.Random(f"{name} {seed}")
    whole, log = folder / name / "whole", folder / name / "whole.log"
    log.parent.mkdir()
    complete(name, inputs, whole, log)
    seconds, writes = json.loads(log.with_suffix(".run").read_text(encoding="utf-8"))
    outcome = Outcome(seconds=seconds, writes=writes)
    trial = 0
    while outcome.kills < kills and trial < 3 * kills:
        trial += 1
        out, log = folder / name / str(trial), folder / name / f"{trial}.log"
        for _ in range(2 if rng.random() < 1 / 3 else 1):
            wait, die_at = rng.uniform(0.0, outcome.seconds), 0
            if outcome.kills % 2:
                wait, die_at = PATIENCE_S, rng.randint(1, outcome.writes)
            argv = _argv(program, inputs, out)
            with start(program.module, argv, log, out=out, die_at=die_at) as process:
                process.join(wait)
                if process.exitcode is None:
                    process.kill()
                    process.join(PATIENCE_S)
                if process.exitcode == -signal.SIGKILL:
                    outcome.kills += 1
                    outcome.before_writes += die_at > 0
                else:
                    outcome.missed += 1
                if left := _left(log):
                    outcome.left[trial] = left
        complete(name, inputs, out, log)
        found = differences(whole, out)
        if found:
            outcome.differing[trial] = found
        else:
            shutil.rmtree(out)
    return outcome


def _left(log: Path) -> list[str]:
    """Wait for the processes that a program started; kill and return those that remain."""
    deadline = time.monotonic() + GONE_S
    while (found := descendants(log)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(found.values())


def descendants(log: Path) -> dict[int, str]:
    """Processes that have inherited the environment or the output of a program."""
    mark = f"{TOKEN}={log}\0".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            inherits = mark in (entry / "environ").read_bytes()
            inherits |= os.readlink(entry / "fd" / "1") == str(log)
            if inherits and b") Z " not in (entry / "stat").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = command.decode(errors="replace")[:200]
        except OSError:  # it has exited or belongs to another user
            continue
    return found


def differences(first: Path, second: Path) -> list[str]:
    """Files that differ between two folders, except for logs, times and commands."""
    listed = [
        {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.relative_to(folder).parts[0] != "logs"
        }
        for folder in (first, second)
    ]
    found = [f"only in {first if name in listed[0] else second}: {name}" for name in
             sorted(listed[0] ^ listed[1])]  # fmt: skip
    for name in sorted(listed[0] & listed[1]):
        one, other = (_content(folder / name) for folder in (first, second))
        place = _differs(one, other)
        if place is not None:
            found.append(f"{name}{place}")
    return found


def _content(path: Path) -> Any:
    """Read a file as nested dictionaries and lists of numbers, tensors and arrays."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".ckpt": lambda path: torch.load(path, weights_only=True),
        ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        ".npz": lambda path: dict(np.load(path)),
        ".parquet": lambda path: pq.read_table(path).to_pydict(),
        ".safetensors": lambda path: vars(model_file.load(path)),
    }
    return readers.get(path.suffix, Path.read_bytes)(path)


def _differs(one: Any, other: Any, place: str = "") -> str | None:
    """The first place where two contents differ; None if they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if key not in VARYING]
        pairs = [(f"{place}[{key!r}]", one.get(key), other.get(key)) for key in keys]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return place or ":"
        pairs = [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return None if same and torch.equal(one.nan_to_num(), other.nan_to_num()) else place or ":"
    elif isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape
        return None if same and one.tobytes() == other.tobytes() else place or ":"
    else:
        return None if one == other or (one != one and other != other) else place or ":"
    return next((found for where, a, b in pairs if (found := _differs(a, b, where))), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Kill programs; returns 1 if files differ or processes are left behind."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.kill_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("programs", nargs="*", help=f"{', '.join(PROGRAMS)} (default: all)")
    parser.add_argument(
        "--kills", type=int, default=20, metavar="N", help="kills of each program (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the moments")
    args = parser.parse_args(argv)
    unknown = [name for name in args.programs if name not in PROGRAMS]
    if unknown:
        parser.error(f"no program {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    folder = Path(tempfile.mkdtemp(prefix="kill_runs "))
    bad = False
    for name in args.programs or PROGRAMS:
        begin = time.perf_counter()
        outcome = kill(name, args.kills, args.seed, folder)
        print(
            f"{name}: {outcome.kills} kills ({outcome.before_writes} before one of "
            f"{outcome.writes} writes, {outcome.missed} too late), "
            f"{len(outcome.differing)} with other files, {len(outcome.left)} with processes left; "
            f"uninterrupted {outcome.seconds:.1f} s, total {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
        for trial, places in [*outcome.differing.items(), *outcome.left.items()]:
            bad = True
            print(f"  trial {trial}: {'; '.join(places[:5])}")
    if bad:
        print(f"see {folder}")
    else:
        shutil.rmtree(folder)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
