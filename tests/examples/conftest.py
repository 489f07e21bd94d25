"""Shared fixtures: nearly every program loads the embedded poses."""

import copy
import functools
from unittest import mock

import pytest

from examples.data import poses


@pytest.fixture(autouse=True, scope="session")
def _embedded_poses_sampled_once():
    """Sample the poses of a seed, which takes more than a second, once in each process."""
    once = functools.cache(poses._procedural)

    def sample(*arguments):
        return copy.deepcopy(once(*arguments))

    with mock.patch.object(poses, "_procedural", sample):
        yield
