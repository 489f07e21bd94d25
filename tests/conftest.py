"""Shared by all tests: one thread, reproducible examples, folders made once, data, a browser."""

import locale
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import hypothesis
import pytest
import torch

from tests.view.browser import NAMES, chromium_path, launched

# Small matrices gain nothing from more, and lose much where another program uses the cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for programs that tests start

hypothesis.settings.register_profile(
    "flowprior",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine
)
hypothesis.settings.load_profile("flowprior")

if locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"):

    def _skip(*_: object, **__: object) -> None:
        pytest.skip("torch.compile reads files of torch in the locale's encoding, not in UTF-8")

    torch.compile = _skip

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Fill a folder once, for all processes that share the tests; tests must not change it.

    Call it with a name and a function that fills the folder it is given.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        made = base / name
        with filelock.FileLock(base / f"{name}.lock"):
            if not made.exists():
                partial = Path(tempfile.mkdtemp(dir=base))
                fill(partial)
                partial.rename(made)
        return made

    return folder


@pytest.fixture
def mocap_file():
    """The CMU motion capture file, where a developer has it beside the repository."""
    path = REAL_DATA / "cmu_mocap.npz"
    if not path.exists():
        pytest.skip(
            "real motion capture is not beside the repository: ../shared/data/cmu_mocap.npz"
        )
    return path


@pytest.fixture(scope="session")
def chromium():
    """A headless browser with WebGL on the processor, where the machine has one."""
    path = chromium_path()
    if path is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)}")
    pytest.importorskip("playwright.sync_api", reason="Playwright is missing: flowprior[dev]")
    with launched(path) as browser:
        yield browser
