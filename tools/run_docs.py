"""Run the commands and the Python of README, home page, quick start and guides, in order.

    python tools/run_docs.py --wheel dist/flowprior-0.1.0-py3-none-any.whl

The interpreter is that of an environment with the wheel, as ``nox -s guides`` makes it. Each page
has a new folder, which contains what a reader has: the example programs of a clone and a file of
keypoints. The Python blocks of a page share a namespace, and a warning is an error. ``pip install
'.[fit]'`` and ``pip install 'flowprior[fit]'`` install the wheel, or nothing without ``--wheel``.

A comment before a block states why it is not run, or why one of its commands is not::

    <!-- not run: trains for hours -->
    <!-- not run `flowprior view`: serves until Ctrl-C -->
"""

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

__all__ = ["Block", "Outcome", "Skipped", "blocks_of", "commands_of", "main", "pages", "run_page"]

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("how-to", "coming-from")  # of docs: the guides
GIVEN = {"keypoints.json": Path("examples", "keypoints", "people.json")}
BLOCK = re.compile(
    r"(?P<marks>(?:^<!-- not run\b[^\n]* -->\n+)*)"
    r"^```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"<!-- not run(?: `(?P<command>[^`]+)`)?: (?P<reason>.+?) -->")
INSTALL = re.compile(r"\bpip install '(?:\.|flowprior)\[(?P<extras>[\w,]+)\]'")


@dataclass(frozen=True)
class Skipped:
    """Something that is not run.

    Attributes:
        place: Page and line.
        what: The command, or what kind of block it is.
        reason: Why.
    """

    place: str
    what: str
    reason: str


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        place: Page and line of its first line.
        line: That line, from 1.
        language: "bash" or "python".
        code: What to run; empty if all of it is left out.
        skipped: What is left out.
    """

    place: str
    line: int
    language: str
    code: str
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Outcome:
    """What happened to a page.

    Attributes:
        page: Its name.
        python: Number of its Python blocks that ran.
        commands: Number of its commands that ran.
        skipped: What did not run.
        seconds: How long it took.
        error: Output and traceback of the block that failed; None if none did.
    """

    page: str
    python: int
    commands: int
    skipped: tuple[Skipped, ...]
    seconds: float
    error: str | None


def pages(root: Path = ROOT) -> list[Path]:
    """List README, home page, quick start and guides in the order of the navigation.

    Args:
        root: Root of the repository.

    Returns:
        Paths of the pages.
    """
    home = root / "docs" / "index.md"
    entry = re.compile(rf"^((?:{'|'.join(FOLDERS)})/[\w-]+)$", re.MULTILINE)
    guides = entry.findall(home.read_text(encoding="utf-8"))
    names = ["quick-start", *guides]
    return [root / "README.md", home, *(root / "docs" / f"{name}.md" for name in names)]


def commands_of(code: str) -> list[str]:
    """Split a block of shell code into its commands, with continued lines.

    Args:
        code: The block.

    Returns:
        The commands, without empty lines.
    """
    return [each for each in re.split(r"(?<!\\)\n", code) if each.strip()]


def blocks_of(text: str, name: str) -> list[Block]:
    """Extract the shell and Python blocks of a page.

    Args:
        text: The page.
        name: Its name in messages.

    Returns:
        The blocks in order.

    Raises:
        ValueError: A comment is not of the form above, or names a command that the block does not
            have.
    """
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        place, language, code = f"{name}:{line}", match["language"], match["code"]
        marks = list(MARK.finditer(match["marks"]))
        if len(marks) != match["marks"].count("<!--"):
            raise ValueError(f"{place}: unreadable comment: {match['marks'].strip()}")
        skipped = []
        for mark in marks:
            if mark["command"] is None:
                what = " && ".join(commands_of(code)) if language == "bash" else "Python"
                skipped.append(Skipped(place, what, mark["reason"]))
                code = ""
                continue
            lines = commands_of(code) if language == "bash" else []
            left = [each for each in lines if not each.startswith(mark["command"])]
            if len(left) == len(lines):
                raise ValueError(f"{place}: no command starts with {mark['command']!r}")
            skipped += [
                Skipped(place, each.partition("  #")[0], mark["reason"])
                for each in lines
                if each not in left
            ]
            code = "".join(f"{each}\n" for each in left)
        found.append(Block(place, line, language, code, tuple(skipped)))
    return found


def run_page(path: Path, folder: Path, wheel: Path | None) -> Outcome:
    """Run the blocks of a page in order, in one namespace.

    Changes the current folder and the import path of this process.

    Args:
        path: The page.
        folder: Where its code runs; created with what a reader has.
        wheel: What ``pip install '.[fit]'`` installs; None if the environment has everything.

    Returns:
        What ran; the first error ends the page.
    """
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    start, python, commands, error = time.monotonic(), 0, 0, None
    skipped: list[Skipped] = []
    unused = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=unused)
    for given, source in GIVEN.items():
        shutil.copy(ROOT / source, folder / given)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    binaries = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    namespace: dict[str, object] = {"__name__": "__main__"}
    output = io.StringIO()
    try:
        for block in blocks_of(path.read_text(encoding="utf-8"), name):
            skipped += block.skipped
            if not block.code:
                continue
            if block.language == "python":
                # Empty lines before the code: a traceback then has the page's own line numbers.
                compiled = compile("\n" * (block.line - 1) + block.code, name, "exec")
                with warnings.catch_warnings(), contextlib.redirect_stdout(output):
                    warnings.simplefilter("error")
                    exec(compiled, namespace)
                python += 1
            elif os.name != "posix":
                skipped.append(Skipped(block.place, block.code.strip(), "needs a POSIX shell"))
            else:
                install = f"python -m pip install '{wheel}[\\g<extras>]'" if wheel else "true"
                code = INSTALL.sub(install, block.code)
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", code],
                    env={**os.environ, "PATH": binaries},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                output.write(done.stdout)
                if done.returncode:
                    raise RuntimeError(f"{block.place}: exit code {done.returncode}: {code}")
                commands += len(commands_of(block.code))
    except Exception:
        error = f"{output.getvalue()[-3000:]}\n{traceback.format_exc()}"
    finally:
        sys.path.remove(str(folder))
        os.chdir(ROOT)
    return Outcome(name, python, commands, tuple(skipped), time.monotonic() - start, error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pages; print what ran, and what did not and why.

    Args:
        arguments: Those of the command line; None for ``sys.argv``.

    Returns:
        Exit code: 0 if everything succeeded.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, help="default: README, home page, guides")
    parser.add_argument("--wheel", type=Path, help="what `pip install '.[fit]'` installs")
    parser.add_argument("--jobs", type=int, default=1, help="pages at a time (default: 1)")
    options = parser.parse_args(arguments)
    wheel = options.wheel.resolve() if options.wheel else None
    paths = [path.resolve() for path in options.pages] or pages()
    start, outcomes = time.monotonic(), []
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool,
    ):
        folders = [Path(name, f"page_{number}") for number in range(len(paths))]
        for outcome in pool.map(run_page, paths, folders, [wheel] * len(paths)):
            state = "FAILED" if outcome.error else f"{outcome.seconds:.1f} s"
            counts = f"{outcome.python} Python blocks, {outcome.commands} commands"
            print(f"{outcome.page}: {counts}, {state}", flush=True)
            if outcome.error:
                print(outcome.error, flush=True)
            outcomes.append(outcome)
    skipped = [each for outcome in outcomes for each in outcome.skipped]
    seconds = time.monotonic() - start
    print(f"\n{len(paths)} pages, {seconds:.0f} s; not run: {len(skipped)}")
    for each in skipped:
        print(f"  {each.place}: {each.what}\n    {each.reason}")
    return 1 if any(outcome.error for outcome in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
