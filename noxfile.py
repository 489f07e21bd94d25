"""Sessions that test the built package, each in a new environment.

    nox -s dist       # build into dist/ and check the archives
    nox -s package    # with the versions of constraints.txt
    nox -s guides     # the code of README, home page, quick start and guides
    nox -s oldest     # with the oldest supported versions, on Python 3.10
    nox -s newest     # with the newest versions of everything

Arguments after ``--`` go to pytest. ``--force-python`` selects another interpreter. The tests use
the archives in the folder ``FLOWPRIOR_DIST`` instead of building them, if that is set.
"""

import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nox
from packaging.metadata import Metadata

ROOT = Path(__file__).parent
EXTRAS = (
    *("anny", "bench", "body", "demo", "detect", "dev", "docs", "examples", "export", "fit"),
    *("hub", "video", "view"),
)
LICENCES = ("LICENSE", "flowprior/assets/LICENSE-anny.txt")
IN_SDIST = ("LICENSE", "README.md", "pyproject.toml", "constraints.txt", "Makefile", "noxfile.py")
TEST_PACKAGES = ("pytest", "pytest-xdist", "hypothesis", "scipy")
# Folders of tests of what the wheel lacks.
NOT_IN_WHEEL = ("benchmarks", "examples", "docs", "tools")
# What the guides need besides the library; the `examples` extra has more.
GUIDE_EXTRAS = "body,demo,export,fit,view"
GUIDE_PACKAGES = (
    "body-models",
    "kornia",
    "opencv-python-headless",
    "pyrender",
    "scikit-learn",
    "transformers",
)
FIRST_LOG_PROB_S = 60
FIRST_FIT_S = 30
FIRST_COMMAND_S = 60
# Where PyPI's page finds pictures and files of the repository; the tag follows.
ON_GITHUB = (
    "https://raw.githubusercontent.com/flowprior/flowprior/v",
    "https://github.com/flowprior/flowprior/blob/v",
)
LINK = re.compile(r"\]\(([^)\s]+)")

FIRST_LOG_PROB = """
import torch
from flowprior import ConditionalPosePrior
prior = ConditionalPosePrior(context_features=2048).eval()
log_prob = prior.log_prob(torch.zeros(2, 24, 3), torch.zeros(2, 2048))
assert log_prob.shape == (2,) and log_prob.isfinite().all()
"""

# Bodies and fitting need no optional package.
FIRST_FIT = """
import importlib.util
import torch
from flowprior.body import BodyModel
from flowprior.fitting import fit_keypoints
from flowprior.keypoints import example_keypoints
for name in ("smplx", "examples"):
    assert importlib.util.find_spec(name) is None, name
body = BodyModel()
assert body(torch.zeros(2, 24, 3)).vertices.isfinite().all()
fits = fit_keypoints(example_keypoints(), body=body)
assert fits.theta.shape == (1, 24, 3, 3) and fits.error_px.isfinite().all()
"""

FIRST_KEYPOINTS = """
import json
from flowprior.keypoints import example_keypoints
points = example_keypoints().flatten().tolist()
with open("keypoints.json", "w") as file:
    json.dump([{"image_id": "person.jpg", "category_id": 1, "keypoints": points}], file)
"""

FIRST_RESULTS = """
from pathlib import Path
from flowprior.results import Fits
assert len(Fits.load("results")) == 1
found = {path.relative_to("results").as_posix() for path in Path("results").rglob("*.*")}
expected = {"people/person.jpg_0.json", "overlays/person.jpg.png", "meshes/person.jpg.glb"}
assert expected | {"fits.npz", "index.html", "run.json"} <= found, found
"""

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["package"]


@nox.session
def dist(session: nox.Session) -> None:
    """Build wheel and sdist into dist/, and check their contents and metadata."""
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    wheel, sdist = build(session, out)
    pinned = ("--constraint", str(ROOT / "constraints.txt"))
    session.install("--disable-pip-version-check", *pinned, "twine", "check-wheel-contents")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", "--package", str(ROOT / "flowprior"), str(wheel))


@nox.session
def package(session: nox.Session) -> None:
    """Test the wheel with the versions of constraints.txt, without slow tests.

    In random order and as on a processor without vector instructions, which the tests of the
    repository do not cover.
    """
    session.env["ATEN_CPU_CAPABILITY"] = "default"
    options = ("-n", "2", "-m", "not slow", "-p", "randomly")
    _test_wheel(session, "constraints.txt", options, packages=(*TEST_PACKAGES, "pytest-randomly"))


@nox.session
def guides(session: nox.Session) -> None:
    """Run the code of README, home page, quick start and guides with the wheel."""
    constraints = str(ROOT / "constraints.txt")
    _isolate(session)
    with tempfile.TemporaryDirectory(prefix="flowprior-") as folder, session.chdir(folder):
        wheel = _wheel(session, Path(folder))
        with _timed(session, "packages of the guides"):
            session.install(
                *("--disable-pip-version-check", "--constraint", constraints),
                *("--no-compile", "torch"),  # Python compiles what the pages import
                *(f"{wheel}[{GUIDE_EXTRAS}]", *GUIDE_PACKAGES),
            )
        with _timed(session, "code of README and guides"):
            _run_docs(session, wheel, constraints, *(session.posargs or ("--jobs", "2")))


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """Test the wheel with the oldest supported versions."""
    _test_wheel(session, "constraints-oldest.txt", ("-n", "2"))


@nox.session
def newest(session: nox.Session) -> None:
    """Test the wheel with the newest versions; resolve each extra."""
    _test_wheel(session, None, ("-n", "2"), extras=EXTRAS)


def _test_wheel(
    session: nox.Session,
    constraints: str | None,
    options: Sequence[str],
    extras: Sequence[str] = (),
    packages: Sequence[str] = TEST_PACKAGES,
) -> None:
    """Build the package, install the wheel alone, and test it outside the repository.

    Args:
        session: Session whose environment is empty.
        constraints: File of the versions to install; None for the newest.
        options: Arguments of pytest if the user gives none.
        extras: Extras for which pip must find a consistent set of packages.
        packages: What the tests need.
    """
    _isolate(session)
    pinned = ["--constraint", str(ROOT / constraints)] if constraints else []

    def install(*packages: str) -> None:
        session.install("--disable-pip-version-check", *pinned, *packages)

    def python(*arguments: str) -> None:
        session.run("python", *arguments)

    with tempfile.TemporaryDirectory(prefix="flowprior-") as folder:
        outside = Path(folder)
        wheel = _wheel(session, outside)
        with session.chdir(outside):
            install("torch")
            with _timed(session, "wheel and first log-density", FIRST_LOG_PROB_S):
                install(str(wheel))
                python("-c", FIRST_LOG_PROB)
            with _timed(session, "first fit", FIRST_FIT_S):
                python("-W", "error", "-c", FIRST_FIT)
            with _timed(session, "first results of the command", FIRST_COMMAND_S):
                install(f"{wheel}[fit]")
                python("-c", FIRST_KEYPOINTS)
                session.run("flowprior", "fit", "keypoints.json", "--out", "results")
            python("-c", FIRST_RESULTS)
            _run_docs(session, wheel, pinned[-1] if pinned else None, str(ROOT / "README.md"))
            for extra in extras:
                install("--dry-run", "--quiet", f"{wheel}[{extra}]")
            install(*packages)
            ignored = shutil.ignore_patterns(*NOT_IN_WHEEL, "__pycache__")
            shutil.copytree(ROOT / "tests", outside / "tests", ignore=ignored)
            shutil.copy(ROOT / "pyproject.toml", outside)  # pytest's settings
            environment = str(Path(session.virtualenv.location).resolve())
            python(
                "-c",
                "import flowprior, torch; print('torch', torch.__version__, 'at', torch.__file__); "
                f"assert flowprior.__file__.startswith({environment!r}), flowprior.__file__",
            )
            with _timed(session, "tests"):
                python(
                    "-m", "pytest", "-q", "-p", "no:cacheprovider", *(session.posargs or options)
                )


def _isolate(session: nox.Session) -> None:
    """Keep the caller's settings out of the session, whose programs use one thread."""
    session.env.update({name: None for name in os.environ if name.startswith("PYTHON")})
    # On a busy machine, several threads take many times as long as one for matrices of this size.
    session.env["OMP_NUM_THREADS"] = "1"


def _wheel(session: nox.Session, folder: Path) -> Path:
    """Find the wheel in ``FLOWPRIOR_DIST``, or build it in a folder."""
    with _timed(session, "build"):
        if built := os.environ.get("FLOWPRIOR_DIST"):
            return archives(ROOT / built)[0]
        return build(session, folder / "dist")[0]


def _run_docs(session: nox.Session, wheel: Path, constraints: str | None, *arguments: str) -> None:
    """Run the code of pages in the environment of the session."""
    script = str(ROOT / "tools" / "run_docs.py")
    pinned = {"PIP_CONSTRAINT": constraints} if constraints else {}
    session.run("python", script, "--wheel", str(wheel), *arguments, env=pinned)


@contextmanager
def _timed(session: nox.Session, name: str, limit_s: float | None = None) -> Iterator[None]:
    """Log how long a step takes; fail the session if it takes longer than the limit."""
    start = time.monotonic()
    yield
    elapsed = time.monotonic() - start
    session.log(f"{name}: {elapsed:.0f} s")
    if limit_s is not None and elapsed > limit_s:
        session.error(f"{name} took {elapsed:.0f} s, more than {limit_s:.0f} s")


def build(session: nox.Session, folder: Path) -> tuple[Path, Path]:
    """Build wheel and sdist into an empty folder, check them and return their paths."""
    command = (sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    session.run(*command, external=True, silent=True)
    wheel, sdist = archives(folder)
    check_archives(wheel, sdist)
    return wheel, sdist


def archives(folder: Path) -> tuple[Path, Path]:
    """Find wheel and sdist; SystemExit if the folder does not contain one of each."""
    wheels, sdists = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise SystemExit(f"{folder} contains {len(wheels)} wheels and {len(sdists)} sdists, not 1")
    return wheels[0], sdists[0]


def check_archives(wheel: Path, sdist: Path) -> None:
    """Compare the built archives with the working tree.

    The wheel is built from the sdist, so a file that the sdist lacks is missing from the wheel.

    Args:
        wheel: The wheel.
        sdist: The sdist.

    Raises:
        SystemExit: A file is missing, differs from the working tree, or does not belong to the
            package; or the metadata has other licences, extras or another description.
        ExceptionGroup: The metadata violates the specification.
    """
    files = content(wheel)
    tree = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "flowprior").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name: data for name, data in files.items() if ".dist-info/" not in name}
    bodies = ("embedded_body", "embedded_body_with_hands")
    needed = {"flowprior/py.typed", *(f"flowprior/assets/{body}.npz" for body in bodies)}
    if different := sorted(found.keys() ^ (tree.keys() | needed)):
        raise SystemExit(f"only in the wheel or only in the working tree: {different}")
    if different := sorted(name for name, data in found.items() if data != tree[name]):
        raise SystemExit(f"the wheel differs from the working tree: {different}")

    (name,) = (name for name in files if name.endswith(".dist-info/METADATA"))
    metadata = Metadata.from_email(files[name], validate=True)
    _check_description(metadata.description or "", str(metadata.version))
    if set(metadata.license_files or ()) != set(LICENCES):
        raise SystemExit(f"licence files are {metadata.license_files}")
    for licence in LICENCES:
        if files.get(f"{Path(name).parent}/licenses/{licence}") != (ROOT / licence).read_bytes():
            raise SystemExit(f"the wheel lacks the licence {licence}")
    if set(metadata.provides_extra or ()) != set(EXTRAS):
        raise SystemExit(f"extras are {metadata.provides_extra}")

    with tarfile.open(sdist) as archive:
        members = {member.partition("/")[2] for member in archive.getnames()}
    if missing := sorted((tree.keys() | set(IN_SDIST)) - members):
        raise SystemExit(f"the sdist lacks {missing}")


def _check_description(description: str, version: str) -> None:
    """Check that PyPI's page is README.md, and that its links work there."""
    if relative := [link for link in LINK.findall(description) if not link.startswith("https://")]:
        raise SystemExit(f"relative links in the description: {relative}")
    for address in ON_GITHUB:
        description = description.replace(f"{address}{version}/", "")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if description.strip() != readme.strip():
        raise SystemExit("the description is not README.md")


def content(wheel: Path) -> dict[str, bytes]:
    """Read the files of a wheel, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
