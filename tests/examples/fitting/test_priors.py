import pytest
import torch

from examples.fitting.priors import KeypointPrior, PoseMixture
from flowprior.checkpoint import CheckpointError


def test_keypoint_prior_is_read_as_it_was_written(priors, people, tmp_path):
    model = priors.network
    model.save(tmp_path)
    again = KeypointPrior.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(people.keypoints).mode(), again(people.keypoints).mode())
    (tmp_path / "prior.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        KeypointPrior.load(tmp_path)
    KeypointPrior(width=32, hidden_features=32).prior.save(tmp_path / "prior.safetensors")
    with pytest.raises(CheckpointError, match="not from one model"):
        KeypointPrior.load(tmp_path)


def test_mixture_is_that_of_scikit_learn(tmp_path):
    from sklearn.mixture import GaussianMixture

    poses = 0.3 * torch.randn(600, 69) + torch.randint(2, (600, 1))
    mixture = PoseMixture.fit(poses, components=2)
    # With one component far better than the others, the energy is the exact density.
    reference = GaussianMixture(2, reg_covar=3e-4, random_state=0).fit(poses.double().numpy())
    density = torch.from_numpy(reference.score_samples(poses.double().numpy())).float()
    energy = mixture.energy(poses)
    torch.testing.assert_close(
        energy - energy.mean(), density.mean() - density, atol=0.3, rtol=1e-3
    )
    assert (energy >= 0).all()
    assert mixture.energy(mixture.means).min() < 1e-6
    mixture.save(tmp_path / "m.npz")
    assert torch.equal(PoseMixture.load(tmp_path / "m.npz").energy(poses), energy)
    assert mixture.to(torch.float64).means.dtype == torch.float64


def test_a_file_that_is_no_mixture_is_refused(prior_dir, tmp_path):
    import numpy as np

    np.savez(tmp_path / "other.npz", means=np.zeros(3))
    with pytest.raises(ValueError, match="no pose mixture: weights, "):
        PoseMixture.load(tmp_path / "other.npz")
