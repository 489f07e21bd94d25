import pytest

from examples.prohmr.embedded import write_dataset


@pytest.fixture(scope="session")
def painted(made_once):
    """A data set of 60 rendered images, 48 pixels wide; copy it to change it."""
    return made_once("painted", lambda folder: write_dataset(folder, 60, size=48, seed=0))
