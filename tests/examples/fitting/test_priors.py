import pytest
import torch

from examples.fitting.choices import KINDS, PRIOR_FILE, PretrainedPrior, PriorFolder, open_priors
from examples.fitting.priors import KeypointPrior
from examples.fitting.train_prior import CONDITIONAL, fit_mixture
from flowprior import ConditionalPosePrior
from flowprior.files import model_file
from flowprior.files.model_file import CheckpointError
from flowprior.fitting import AnglePose, DensityPose, LatentPose
from flowprior.fitting.mixture import PoseMixture
from flowprior.keypoints import keypoint_context
from flowprior.skeleton import BODY_25


def test_keypoint_prior_is_read_as_it_was_written(priors, people, tmp_path):
    model = priors.network
    model.save(tmp_path)
    again = KeypointPrior.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(people.keypoints).mode(), again(people.keypoints).mode())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        KeypointPrior.load(tmp_path)
    model.prior.save(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a KeypointPrior"):
        KeypointPrior.load(tmp_path)


def test_the_head_reads_the_keypoints_beside_the_features(priors, people):
    model = priors.network
    context = model.context(people.keypoints)
    features = 3 * BODY_25.num_joints
    assert context.shape[-1] == model.config["width"] + features
    assert torch.equal(context[:, -features:], keypoint_context(people.keypoints))
    mode = model(people.keypoints).mode()
    assert torch.equal(mode, model.prior.head(context))
    assert mode.std(dim=0).max() > 0
    samples = model(people.keypoints).sample(20, generator=torch.Generator().manual_seed(0))
    log_prob = model(people.keypoints).log_prob(torch.cat([mode[:, None], samples], dim=1))
    assert (log_prob[:, 1:] <= log_prob[:, :1]).all()


def test_a_file_from_before_there_were_heads(people, tmp_path):
    old = KeypointPrior(
        8, skip=False, space="rot6d", anchored=False, hidden_features=8, context_norm=False
    ).eval()
    names = ("width", "hidden_features", "context_norm")
    config = {"class": "KeypointPrior"} | {name: old.config[name] for name in names}
    model_file.save(tmp_path / "model.safetensors", model_file.ModelFile(old.state_dict(), config))
    again = KeypointPrior.load(tmp_path)
    assert again.config == old.config
    with torch.no_grad():
        assert torch.equal(again(people.keypoints).mode(), old(people.keypoints).mode())


def test_contexts_of_a_network_of_the_user_s_go_to_its_own_prior(priors, people, tmp_path):
    """`prior.safetensors` beside the keypoint prior, as `examples.prohmr.contexts` writes it."""
    (tmp_path / CONDITIONAL).mkdir()
    folder = PriorFolder(tmp_path, torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match=r"prior\.safetensors"):
        _ = folder.of_contexts
    priors.network.save(tmp_path / CONDITIONAL)
    context = torch.zeros(1, priors.network.prior.context_features)
    same = folder.of_contexts(context).mode()
    assert torch.equal(same, folder.conditional(context).mode())
    ConditionalPosePrior(5).save(tmp_path / CONDITIONAL / PRIOR_FILE)
    folder = PriorFolder(tmp_path, torch.device("cpu"))
    assert folder.of_contexts(torch.zeros(1, 5)).mode().shape == (1, 24, 6)
    assert torch.equal(same, folder.conditional(context).mode())


def test_mixture_is_that_of_scikit_learn(tmp_path):
    from sklearn.mixture import GaussianMixture

    poses = 0.3 * torch.randn(600, 69) + torch.randint(2, (600, 1))
    mixture = fit_mixture(poses, components=2)
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


def test_priors_first_used_in_inference_mode_have_gradients_later(priors):
    folder = PriorFolder(priors.folder, torch.device("cpu"))
    with torch.inference_mode():
        networks = folder.network.prior, folder.conditional, folder.unconditional
        mixture = folder.mixture
    zeros = torch.zeros(1, priors.network.prior.context_features)
    for prior, context in zip(networks, (zeros, zeros, None), strict=True):
        z = torch.zeros(1, prior.flow.features, requires_grad=True)
        prior(context).decode(z).square().sum().backward()
        assert z.grad.isfinite().all()
    pose = torch.zeros(2, 69, requires_grad=True)
    mixture.energy(pose).sum().backward()
    assert pose.grad.isfinite().all()


def test_a_context_does_not_depend_on_who_else_is_there(priors, people):
    everybody = priors.context(people.keypoints)
    for count in (1, 2, 3, 8, 31, 32, 33, 63):
        torch.testing.assert_close(
            priors.context(people.keypoints[:count]), everybody[:count], rtol=0, atol=0
        )
    spoiled_one = people.keypoints.clone()
    spoiled_one[5] = torch.nan
    found = priors.context(spoiled_one)
    assert found.isfinite().all()
    torch.testing.assert_close(found[6:], everybody[6:], rtol=0, atol=0)
    assert priors.context(people.keypoints[:0]).shape == (0, everybody.shape[1])


def test_unknown_kinds_raise(priors):
    with pytest.raises(ValueError, match="must be one of conditional"):
        priors.variables("flow", torch.zeros(1, 25, 3))


def test_pretrained_priors_have_every_kind_but_the_mixture(library, people):
    seen = people.keypoints[:3]
    for name in ("flowprior/people", str(library["flowprior/people"])):
        priors = open_priors(name, torch.device("cpu"))
        assert isinstance(priors, PretrainedPrior)
        assert set(priors.kinds) == set(KINDS) - {"mixture"}
        for kind in priors.kinds:
            pose = priors.variables(kind, seen)
            assert pose.theta(pose.start(3)).shape == (3, 24, 6)
            assert isinstance(pose, LatentPose if kind.endswith("conditional") else AnglePose)
            other = priors.variables(kind, seen, theta=True)
            assert isinstance(other, DensityPose if kind.endswith("conditional") else AnglePose)
    pose = priors.variables("conditional", seen)
    torch.testing.assert_close(pose.theta(pose.start(3)), priors.posterior(seen).mode())
    with pytest.raises(ValueError, match="mixture does not ship"):
        priors.variables("mixture", seen)
    with pytest.raises(ValueError, match="contexts of your own network"):
        priors.variables("conditional", seen, context=torch.zeros(3, 5))
    with pytest.raises(ValueError, match="must be one of conditional"):
        priors.variables("flow", seen)


def test_the_name_tells_pretrained_priors_from_folders(library, prior_dir):
    assert isinstance(open_priors(str(prior_dir), torch.device("cpu")), PriorFolder)
    with pytest.raises(FileNotFoundError, match="or leave out --prior for the one of the library"):
        open_priors("nowhere", torch.device("cpu"))
    with pytest.raises(ValueError, match="does not take 2D keypoints"):
        open_priors("flowprior/body-pose", torch.device("cpu"))
