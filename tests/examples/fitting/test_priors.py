import pytest
import torch

from examples.fitting.priors import (
    KeypointPrior,
    PoseMixture,
    keypoint_context_features,
    keypoint_squares,
)
from flowprior.checkpoint import CheckpointError


def test_features_do_not_depend_on_place_or_size(people):
    seen = people.keypoints[:5].clone()
    seen[:, 7, 2] = 0
    moved = seen.clone()
    moved[..., :2] = 3 * seen[..., :2] - 170
    features = keypoint_context_features(seen)
    assert features.shape == (5, 75)
    torch.testing.assert_close(features, keypoint_context_features(moved), atol=1e-4, rtol=1e-4)
    assert (features.unflatten(1, (25, 3))[:, 7] == 0).all()
    assert features.abs().max() <= 1


def test_unseen_keypoints_may_hold_anything(people):
    seen = people.keypoints[:3].clone()
    seen[:, :20, 2] = 0
    other = seen.clone()
    other[:, :20, :2] = 7e4
    assert torch.equal(keypoint_context_features(seen), keypoint_context_features(other))


def test_squares_are_there_without_keypoints():
    centre, side = keypoint_squares(torch.zeros(2, 25, 3))
    assert centre.isfinite().all()
    assert (side > 0).all()


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
