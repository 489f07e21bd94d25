"""One answer from a posterior."""

import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from tests.prior.test_evidence import make, masks, poses


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def posterior():
    with torch.no_grad():
        yield make().given(rotations=poses(4, 23), known=masks(4, 23))


def test_the_mode_is_the_mode(posterior):
    assert torch.equal(posterior.pick(), posterior.mode())


@pytest.mark.parametrize("answer", ["mean", "medoid"])
def test_known_joints_stay_exact(posterior, answer):
    chosen = posterior.pick(answer, num_samples=9, generator=seeded())
    known = masks(4, 23)
    assert torch.equal(chosen[known], poses(4, 23)[known])
    matrix = rotations.rot6d_to_matrix(chosen)
    assert torch.linalg.det(matrix).sub(1).abs().max() < 1e-4


def test_the_mean_is_the_rotation_with_the_least_squares(posterior):
    samples = rotations.rot6d_to_matrix(posterior.sample(9, generator=seeded()))
    mean = rotations.rot6d_to_matrix(posterior.pick("mean", num_samples=9, generator=seeded()))

    def cost(pose):
        return (samples - pose[:, None]).square().sum(dim=(1, -2, -1))

    turned = mean @ rotations.rotvec_to_matrix(0.05 * torch.randn(4, 23, 3))
    assert (cost(mean) <= cost(turned) + 1e-4).all()


def test_the_medoid_is_the_sample_nearest_to_all(posterior):
    samples = posterior.sample(12, generator=seeded())
    matrix = rotations.rot6d_to_matrix(samples)
    apart = (matrix[:, :, None] - matrix[:, None]).square().sum(dim=(-2, -1)).sqrt()
    index = apart.sum(dim=(2, 3)).argmin(dim=1)
    chosen = posterior.pick("medoid", num_samples=12, generator=seeded())
    assert torch.equal(chosen, samples[torch.arange(4), index])


def test_weights_select_samples(posterior):
    samples = posterior.sample(7, generator=seeded())

    def only_the_third(theta):
        assert torch.equal(theta, samples)
        return torch.where(torch.arange(7) == 2, 0.0, -1e4).expand(4, 7)

    chosen = posterior.pick(
        "weighted", num_samples=7, log_likelihood=only_the_third, generator=seeded()
    )
    torch.testing.assert_close(chosen, samples[:, 2], atol=1e-4, rtol=0)


@torch.no_grad()
def test_importance_weights_are_exact_densities():
    prior = make()
    theta, known = poses(4, 23), masks(4, 23)
    posterior = prior.given(rotations=theta, known=known)
    # Nothing is known of it either, so every sample has the same weight, and half counts half.
    samples = posterior.sample(7, generator=seeded())
    found = posterior.pick(
        "weighted",
        num_samples=7,
        log_likelihood=lambda theta: posterior.log_prob(theta),
        marginal=posterior,
        generator=seeded(),
    )
    plain = posterior.pick(
        "weighted",
        num_samples=7,
        log_likelihood=lambda theta: posterior.log_prob(theta),
        generator=seeded(),
    )
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)
    marginal = prior.given()
    weight = marginal.expand(samples.shape[:1]).log_prob(samples) - posterior.log_prob(samples)
    chosen = posterior.pick(
        "weighted",
        num_samples=7,
        log_likelihood=lambda theta: torch.zeros(4, 7),
        marginal=marginal,
        generator=seeded(),
    )
    weight = weight.softmax(dim=-1)
    matrix = rotations.rot6d_to_matrix(samples).movedim(1, 2)
    mean = rotations.mean_rotation(matrix, weight[:, None])
    mean = torch.where(known[..., None], theta, rotations.matrix_to_rot6d(mean))
    torch.testing.assert_close(chosen, mean, atol=1e-4, rtol=0)


@torch.no_grad()
def test_points_and_batches_of_any_shape():
    prior = ConditionalPosePrior(3, joints=5, space="points", hidden_features=8).eval()
    for batch in ((), (0,), (2, 3)):
        posterior = prior(torch.zeros(*batch, 3))
        for answer in ("mode", "mean", "medoid"):
            assert posterior.pick(answer, num_samples=4).shape == (*batch, 5, 3)
    samples = posterior.sample(4, generator=seeded())
    mean = posterior.pick("mean", num_samples=4, generator=seeded())
    torch.testing.assert_close(mean, samples.mean(dim=2))


def test_mismatched_input_is_an_error(posterior):
    with pytest.raises(ValueError, match="answer must be one of"):
        posterior.pick("median")
    with pytest.raises(ValueError, match="belongs to the answer"):
        posterior.pick("weighted")
    with pytest.raises(ValueError, match="belongs to the answer"):
        posterior.pick("mean", log_likelihood=lambda theta: theta[..., 0, 0])
    with pytest.raises(ValueError, match=r"must return \(4, 100\)"):
        posterior.pick("weighted", log_likelihood=lambda theta: theta[..., 0])
    with pytest.raises(ValueError, match="marginal belongs"):
        posterior.pick("mean", marginal=posterior)
