"""Try the built package where nothing else of this repository is: in an environment of its own.

    python -m tools.clean_room .venv-package
    python -m tools.clean_room .venv-oldest --python python3.10 --constraints constraints-oldest.txt

What it does, stopping at the first thing that fails:

1. build the sdist, and the wheel from it; compare that wheel with one built from the working tree,
   look for every file of the package, the licences and the metadata;
2. make an empty environment, install torch, then the wheel alone, and time from there to the first
   log-density;
3. run the README's lines, in an empty folder;
4. with `--extras`, ask pip whether each extra can be installed alone;
5. install the wheel's extra `body` and what the tests need, and run the library's tests, copied to
   a folder of their own.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).parents[1]
EXTRAS = ("body", "demo", "examples", "docs", "dev")
TEST_PACKAGES = ("pytest", "hypothesis", "scipy")
# Tests of what the wheel does not have.
NOT_OF_THE_LIBRARY = ("examples", "docs", "tools")
FIRST_LOG_PROB_S = 60
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

FIRST_LOG_PROB = """
import torch
from flowprior import ConditionalPosePrior
prior = ConditionalPosePrior(context_features=2048).eval()
log_prob = prior.log_prob(torch.zeros(2, 24, 3), torch.zeros(2, 2048))
assert log_prob.shape == (2,) and log_prob.isfinite().all()
"""

# Without the extra, a body is refused in words that name it.
NO_BODY = """
from flowprior.body import BodyModel
try:
    BodyModel()
except ImportError as error:
    assert "pip install 'flowprior[body]'" in str(error), error
else:
    raise SystemExit("smplx came without the extra [body]")
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all.

    Args:
        argv: The arguments; those of the process if None.

    Returns:
        The exit code, 0: what fails raises.
    """
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="flowprior-") as folder:
        outside = Path(folder)
        with _step("build"):
            sdist, wheel = build(outside / "dist")
            check_wheel(wheel, sdist)
        room = Room(args.environment.resolve(), outside, args.constraints)
        with _step("torch in an empty environment"):
            room.create(args.python)
            room.install("torch")
        start = time.monotonic()
        with _step("the wheel, and a first log-density"):
            room.install(str(wheel))
            room.run("-c", FIRST_LOG_PROB)
        elapsed = time.monotonic() - start
        if elapsed > FIRST_LOG_PROB_S:
            raise SystemExit(f"{elapsed:.0f} s to a first log-density: more than a minute")
        room.run("-c", NO_BODY)
        with _step("the README's lines"):
            for lines in readme_blocks(ROOT / "README.md"):
                room.run("-W", "error", "-c", lines)
        if args.extras:
            with _step("extras"):
                for extra in EXTRAS:
                    room.install("--dry-run", f"{wheel}[{extra}]")
        with _step("the library's tests"):
            room.install(f"{wheel}[body]", *TEST_PACKAGES)
            room.test(args.pytest)
    return 0


class Room:
    """An environment, and a folder from where the repository cannot be imported.

    Args:
        environment: Where the virtual environment is made; what is there is replaced.
        folder: Where everything runs.
        constraints: The versions to install; None for the newest.
    """

    def __init__(self, environment: Path, folder: Path, constraints: Path | None) -> None:
        self.environment = environment
        self.folder = folder
        self.constraints = constraints
        self.python = environment / "bin" / "python"
        # Nothing of the caller's environment may help; caches and indices of pip may.
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def create(self, python: str) -> None:
        """Make the environment anew with an interpreter."""
        subprocess.run([python, "-m", "venv", "--clear", str(self.environment)], check=True)

    def install(self, *what: str) -> None:
        """Give pip arguments of ``pip install``."""
        if self.constraints is not None:
            what = ("--constraint", str(self.constraints.resolve()), *what)
        quiet = ("--quiet", "--disable-pip-version-check")
        self.run("-m", "pip", "install", *quiet, *what)

    def run(self, *arguments: str) -> None:
        """Run the environment's interpreter in the folder; fail as it fails."""
        done = subprocess.run(
            [str(self.python), *arguments], cwd=self.folder, env=self.variables, check=False
        )
        if done.returncode:
            raise SystemExit(done.returncode)

    def test(self, options: Sequence[str]) -> None:
        """Run the library's tests, copied, against what is installed."""
        shutil.copytree(
            ROOT / "tests",
            self.folder / "tests",
            ignore=shutil.ignore_patterns(*NOT_OF_THE_LIBRARY, "__pycache__"),
        )
        shutil.copy(ROOT / "pyproject.toml", self.folder)  # pytest's settings
        where = (
            "import flowprior, torch; print('torch', torch.__version__, 'at', torch.__file__); "
            f"assert flowprior.__file__.startswith({str(self.environment)!r}), flowprior.__file__"
        )
        self.run("-c", where)
        self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *options)


def build(folder: Path) -> tuple[Path, Path]:
    """Build the package.

    Args:
        folder: Where the files go.

    Returns:
        The sdist, and the wheel that was built from it.

    Raises:
        SystemExit: The wheel differs from one built from the working tree.
    """
    command = [sys.executable, "-m", "build", "--outdir"]
    with tempfile.TemporaryDirectory() as direct:
        for arguments in ([str(folder)], [direct, "--wheel"]):
            done = subprocess.run(
                [*command, *arguments], cwd=ROOT, check=False, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
        (sdist,) = folder.glob("*.tar.gz")
        (wheel,) = folder.glob("*.whl")
        (from_the_tree,) = Path(direct).glob("*.whl")
        if content(wheel) != content(from_the_tree):
            raise SystemExit("the sdist's wheel is not that of the working tree")
    return sdist, wheel


def content(wheel: Path) -> dict[str, bytes]:
    """What each file of a wheel holds."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_wheel(wheel: Path, sdist: Path) -> None:
    """Look for everything that has to be in the two archives.

    Args:
        wheel: The wheel.
        sdist: The sdist.

    Raises:
        SystemExit: Something is missing, or there is something that is not of the package.
        ExceptionGroup: The metadata does not follow the specification.
    """
    files = content(wheel)
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "flowprior").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    needed = {"flowprior/py.typed", "flowprior/assets/embedded_body.npz"}
    found = {name for name in files if ".dist-info/" not in name}
    if found != package or not needed <= found:
        raise SystemExit(f"in only one of wheel and tree: {sorted(found ^ (package | needed))}")

    (name,) = (name for name in files if name.endswith(".dist-info/METADATA"))
    metadata = Metadata.from_email(files[name], validate=True)
    for licence in metadata.license_files or []:
        kept = files.get(f"{Path(name).parent}/licenses/{licence}")
        if kept != (ROOT / licence).read_bytes():
            raise SystemExit(f"the wheel lacks the licence {licence}")
    if not {"LICENSE", "flowprior/assets/LICENSE-anny.txt"} <= set(metadata.license_files or []):
        raise SystemExit(f"licence files are {metadata.license_files}")
    if not set(EXTRAS) <= set(metadata.provides_extra or []):
        raise SystemExit(f"extras are {metadata.provides_extra}")

    with tarfile.open(sdist) as archive:
        members = {member.partition("/")[2] for member in archive.getnames()}
    wanted = package | {"LICENSE", "README.md", "pyproject.toml", "constraints.txt", "Makefile"}
    if not wanted <= members:
        raise SystemExit(f"the sdist lacks {sorted(wanted - members)}")


def readme_blocks(readme: Path) -> list[str]:
    """The Python blocks of a page; SystemExit if there are none."""
    blocks = BLOCK.findall(readme.read_text(encoding="utf-8"))
    if not blocks:
        raise SystemExit(f"{readme} has no Python")
    return blocks


@contextmanager
def _step(name: str) -> Iterator[None]:
    print(f"== {name}", flush=True)
    start = time.monotonic()
    yield
    print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.clean_room",
        description="Build the package and try it in an environment of its own.",
    )
    parser.add_argument("environment", type=Path, help="folder of the environment, made anew")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of the environment (default: this)"
    )
    parser.add_argument(
        "--constraints", type=Path, help="file of the versions to install (default: the newest)"
    )
    parser.add_argument(
        "--extras", action="store_true", help="ask pip whether each extra can be installed"
    )
    parser.add_argument("pytest", nargs="*", help="after --, arguments of pytest")
    return parser


if __name__ == "__main__":
    sys.exit(main())
