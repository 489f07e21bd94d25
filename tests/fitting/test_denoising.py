import math

import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.fitting import denoise
from tests.fitting.people import random_poses

SIGMA = 0.3


@pytest.fixture(scope="module")
def noisy():
    return rotations.matrix_to_rot6d(random_poses(6, 5))[:, 1:]


def angles(first, second):
    """Angles between poses (..., J, 6), radians."""
    matrices = (rotations.rot6d_to_matrix(each) for each in (first, second))
    return rotations.geodesic_distance(*matrices)


def objective(posterior, clean, noisy, sigma):
    """-2 log of the density of the pose times that of the noise, up to a constant."""
    turn = rotations.matrix_to_chart(
        rotations.rot6d_to_matrix(noisy).mT @ rotations.rot6d_to_matrix(clean)
    )
    squares = turn.square().sum(dim=-1)[..., :21]  # the hands are at rest
    return (squares / sigma**2).sum(dim=-1) - 2 * posterior.log_prob(clean)


def test_the_result_is_the_most_likely_pose(priors, noisy):
    posterior = priors.body_pose.given()
    clean = denoise(priors.body_pose, noisy, SIGMA)
    best = objective(posterior, clean, noisy, SIGMA)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-2, 0.1, 0.5):
        turn = rotations.rotvec_to_matrix(size * torch.randn(6, 23, 3, generator=generator))
        other = rotations.matrix_to_rot6d(rotations.rot6d_to_matrix(clean) @ turn)
        assert (objective(posterior, other, noisy, SIGMA) > best - 1e-2).all()
    for other in (noisy, posterior.mode().expand_as(noisy)):
        assert (objective(posterior, other, noisy, SIGMA) > best - 1e-2).all()


def test_sigma_weighs_the_pose_against_the_prior(priors, noisy):
    posterior = priors.body_pose.given()
    results = [denoise(priors.body_pose, noisy, sigma) for sigma in (1e-3, 0.1, 0.3, 1.0, 1e4)]
    assert angles(results[0], noisy)[:, :21].max() < 0.01
    assert angles(results[-1], posterior.mode().expand_as(noisy)).max() < 0.02
    densities = torch.stack([posterior.log_prob(each) for each in results])
    assert (densities.diff(dim=0) > -1e-2).all()


def test_joints_of_infinite_noise_are_ignored(priors, noisy):
    sigma = torch.full((23,), SIGMA)
    sigma[4] = math.inf
    other = noisy.clone()
    other[:, 4] = noisy[:, 7]
    torch.testing.assert_close(
        denoise(priors.body_pose, noisy, sigma), denoise(priors.body_pose, other, sigma),
        atol=2e-3, rtol=0,
    )  # fmt: skip


def test_known_joints_are_kept(priors, noisy):
    known = torch.zeros(6, 23, dtype=torch.bool)
    known[:, :5] = True
    clean = denoise(priors.body_pose.given(rotations=noisy, known=known), noisy, SIGMA)
    assert torch.equal(clean[known], noisy[known])
    assert angles(clean, noisy)[:, 5:21].mean() > 0.01
    rest = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(6, 2, 6)
    assert torch.equal(clean[:, 21:], rest)


def test_a_result_does_not_depend_on_the_others(priors, noisy):
    together = denoise(priors.body_pose, noisy, SIGMA)
    for row in (0, 5):
        assert torch.equal(denoise(priors.body_pose, noisy[row], SIGMA), together[row])
    sigma = torch.linspace(0.1, 0.5, 6 * 23).reshape(6, 23)
    known = torch.rand(6, 23, generator=torch.Generator().manual_seed(1)) < 0.3
    posterior = priors.body_pose.freeze().given(rotations=noisy, known=known)
    flat = denoise(posterior, noisy, sigma)
    folded = priors.body_pose.freeze().given(
        rotations=noisy.unflatten(0, (2, 3)), known=known.unflatten(0, (2, 3))
    )
    folded = denoise(folded, noisy.unflatten(0, (2, 3)), sigma.unflatten(0, (2, 3)))
    torch.testing.assert_close(folded.flatten(0, 1), flat, atol=2e-3, rtol=0)


@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_poses_in_any_form(layout, noisy):
    torch.manual_seed(0)
    prior = ConditionalPosePrior(0, joints=23, hidden_features=16, layout=layout)
    matrix = rotations.rot6d_to_matrix(noisy)
    prior.nll(matrix)
    posterior = prior.eval()()
    clean = denoise(posterior, matrix, 1e-3)
    expected = rotations.matrix_to_rot6d(matrix, layout)
    torch.testing.assert_close(clean, expected, atol=0.01, rtol=0)
    assert denoise(posterior, matrix[:0], 0.1).shape == (0, 23, 6)
    assert not clean.requires_grad


def test_faults_are_named(priors, noisy):
    prior = priors.body_pose
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="sigma must be above 0"):
            denoise(prior, noisy, sigma)
    with pytest.raises(ValueError, match=r"expected sigma as a number, \(23,\) or \(6, 23\)"):
        denoise(prior, noisy, torch.ones(24))
    with pytest.raises(ValueError, match="24 joints"):
        denoise(prior, torch.zeros(2, 24, 3), SIGMA)
    with pytest.raises(ValueError, match="one posterior for each pose"):
        denoise(prior.given(rotations=noisy[:2]), noisy, SIGMA)
    with pytest.raises(ValueError, match="NaN or infinity"):
        denoise(prior, noisy * torch.nan, SIGMA)
    points = ConditionalPosePrior(4, joints=5, space="points", hidden_features=8)(torch.zeros(4))
    with pytest.raises(ValueError, match="a prior over the rotations, got one"):
        denoise(points, torch.zeros(5, 3), SIGMA)
