import functools

import pytest
import torch

from examples.data.poses import load_poses
from examples.lifting.views import PoseViews, ViewOptions


@functools.cache
def embedded():
    return load_poses(None, 0)


@pytest.fixture(scope="session")
def poses():
    """The embedded poses, made once."""
    return embedded()


@pytest.fixture(scope="session")
def views():
    """Twelve views, of which some lack joints."""
    source = PoseViews(torch.from_numpy(embedded().train), ViewOptions("mixed"))
    return source.held_out(12, torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def many_views():
    source = PoseViews(torch.from_numpy(embedded().val), ViewOptions("crop"))
    return source.held_out(300, torch.Generator().manual_seed(1))
