import pytest
import torch

from flowprior.prior import BlockPrior
from tests.prior.blocks.made_up import body_prior, generator, hand_prior


@pytest.fixture(scope="module")
def prior():
    return BlockPrior(body_prior(), hand_prior(1), hand_prior(2)).eval()


@pytest.fixture(scope="module")
def context():
    return torch.randn(3, 4, generator=generator(3))
