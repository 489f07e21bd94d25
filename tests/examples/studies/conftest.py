import pytest

from examples.data.poses import load_poses


@pytest.fixture(scope="session")
def poses():
    """The embedded poses."""
    return load_poses(None, 0)
