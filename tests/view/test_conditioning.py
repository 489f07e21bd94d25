"""Posteriors conditioned on the places of joints."""

import pytest
import torch

from flowprior.skeleton import SMPL_24
from flowprior.view.conditioning import Conditioning
from flowprior.view.directions import latent_scale

SIGMA = torch.full((3,), 0.005)
WRIST, OTHER = SMPL_24.index("left_wrist"), SMPL_24.index("right_wrist")


@pytest.fixture(scope="module")
def posterior(prior, fits):
    return prior.given(keypoints_2d=torch.from_numpy(fits.keypoints_2d[0]))


@pytest.fixture(scope="module")
def wrist(body):
    return lambda theta: body.keypoints(theta, SMPL_24)[..., WRIST, :]


@pytest.fixture(scope="module")
def target(posterior, wrist):
    with torch.no_grad():
        return wrist(posterior.mode()) + torch.tensor([0.05, -0.1, -0.05])


def test_samples_have_the_joint_at_its_place_and_spread_elsewhere(
    posterior, body, wrist, target, prior
):
    condition = Conditioning(posterior, wrist, SIGMA)
    with torch.no_grad():
        poses = posterior.sample(64)
        z = condition(posterior.encode(poses), target)
        found, before = (body.keypoints(each, SMPL_24) for each in (posterior.decode(z), poses))
    away = (found[:, WRIST] - target).norm(dim=-1)
    assert away.median() < 0.003
    assert (away < 0.05).float().mean() > 0.95
    assert (before[:, WRIST] - target).norm(dim=-1).median() > 0.05
    torch.testing.assert_close(found[:, OTHER].std(0), before[:, OTHER].std(0), rtol=0.4, atol=0.02)


def test_the_mode_is_the_nearest_latent_with_the_joint_at_its_place(posterior, wrist, target):
    condition = Conditioning(posterior, wrist, SIGMA)
    z = condition(torch.zeros(1, 72), target, steps=12)[0]

    def objective(z):
        with torch.no_grad():
            away = (wrist(posterior.decode(z)) - target) / SIGMA
        return (z / latent_scale(posterior)).square().sum(-1) + away.square().sum(dim=-1)

    near = z + 0.05 * torch.nn.functional.normalize(torch.randn(200, 72), dim=-1)
    assert objective(near).min() > 0.9 * objective(z)
    assert objective(z) < 0.2 * objective(torch.zeros(72))


def test_a_joint_that_is_already_there_moves_nothing(posterior, wrist):
    condition = Conditioning(posterior, wrist, SIGMA)
    with torch.no_grad():
        place = wrist(posterior.mode())
    assert condition(torch.zeros(1, 72), place).abs().max() < 1e-3
