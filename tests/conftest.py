"""What all tests share: one thread, reproducible examples, and where real data may lie."""

from pathlib import Path

import hypothesis
import pytest
import torch

# Small matrices gain nothing from more, and lose much where another program uses the cores.
torch.set_num_threads(1)

hypothesis.settings.register_profile("flowprior", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("flowprior")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def mocap_file():
    """The CMU motion capture file, where a developer has it beside the repository."""
    path = REAL_DATA / "cmu_mocap.npz"
    if not path.exists():
        pytest.skip(
            "real motion capture is not beside the repository: ../shared/data/cmu_mocap.npz"
        )
    return path
