"""Made-up poses of the contest."""

import pytest
import torch

from benchmarks.priors.data import JOINTS, Poses
from flowprior import rotations


def made_up(count, seed, size=0.3):
    """Poses whose joints bend together."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(4, 3 * JOINTS, generator=torch.Generator().manual_seed(99))
    vectors = torch.randn(count, 4, generator=generator) @ weights / 2
    vectors = vectors + 0.1 * torch.randn(count, 3 * JOINTS, generator=generator)
    matrix = rotations.rotvec_to_matrix(size * vectors.unflatten(-1, (JOINTS, 3)))
    return Poses(matrix, torch.zeros(count, dtype=torch.long))


@pytest.fixture(scope="session")
def training():
    return made_up(400, 0)


@pytest.fixture(scope="session")
def held_out():
    return made_up(40, 1)
