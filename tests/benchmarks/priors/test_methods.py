"""Every prior of the contest after a short training."""

import math

import pytest
import torch

from benchmarks.priors.__main__ import make
from benchmarks.priors.data import JOINTS, ROTATION_NOISE, Kinematics, Stream
from benchmarks.priors.methods import METHODS
from benchmarks.priors.methods.diffusion import DiffusionSettings, _process
from benchmarks.priors.methods.mixture import Mixture, MixtureSettings
from benchmarks.priors.methods.ours import random_joints, random_known
from benchmarks.priors.observations import Observation
from benchmarks.priors.training import WARM_UP, Recipe, optimise
from flowprior import rotations

SEARCHING = ("vae", "mixture", "matching", "flow", "ours")
# Small networks, so that a few steps are quick.
SMALL = [
    *("vae.hidden=32", "vae.latents=8", "vae.rate=0.005"),
    *("mixture.components=2", "mixture.subset=400"),
    *("diffusion.hidden=32", "diffusion.steps=10", "diffusion.completion_steps=10"),
    *("diffusion.inference_steps=20", "matching.hidden=32", "matching.steps=6"),
    *("matching.completion_steps=5", "matching.few_steps=3", "matching.density_steps=5"),
    *("flow.hidden=16", "flow.steps=2", "ours.encoder=16", "ours.head=16", "ours.hidden=16"),
    "ours.steps=2",
    *(f"{name}.candidates=4" for name in SEARCHING),
    *(f"{name}.iterations=20" for name in SEARCHING),
    *(f"{name}.completion_iterations=8" for name in SEARCHING),
]
NAMES = [name for name in METHODS if name != "shipped"]


class Steps:
    """A clock that counts looks at it, not seconds."""

    def __init__(self, count):
        self.count, self.looks = count, 0
        self.budget = self.seconds = 0.0

    @property
    def progress(self):
        self.looks += 1
        return (self.looks - 1) / self.count


@pytest.fixture(scope="module")
def methods(training):
    made = {}
    for name in NAMES:
        torch.manual_seed(0)
        method = make(name, SMALL)
        assert method.fit(Stream(training.matrix, torch.Generator().manual_seed(0)), Steps(6))
        made[name] = method.eval()
    return made


@pytest.fixture(params=NAMES)
def method(request, methods):
    return methods[request.param]


def same(first, second):
    return (first - second).abs().max().item()


def are_rotations(matrix):
    identity = torch.eye(3).expand_as(matrix)
    return same(matrix.mT @ matrix, identity) < 1e-3 and bool((torch.linalg.det(matrix) > 0).all())


def test_generates_poses(method):
    drawn = method.draw(5, torch.Generator().manual_seed(0))
    assert drawn.shape == (5, JOINTS, 3, 3)
    assert are_rotations(drawn)
    assert not drawn.requires_grad
    assert same(drawn, method.draw(5, torch.Generator().manual_seed(0))) == 0
    assert same(drawn[0], drawn[1]) > 1e-2


def test_completions_keep_what_is_known(method, held_out):
    known = torch.arange(JOINTS) % 3 > 0
    matrix = held_out.matrix[:3]
    blank = torch.where(known[:, None, None], matrix, torch.eye(3))
    answers = method.complete(blank, known, 4, torch.Generator().manual_seed(0))
    assert answers.shape == (3, 4, JOINTS, 3, 3)
    assert are_rotations(answers)
    assert torch.equal(answers[:, :, known], matrix[:, None, known].expand(-1, 4, -1, -1, -1))
    assert same(answers[:, 0], answers[:, 1]) > 1e-3


def test_measured_joints_are_explained(method, held_out):
    kinematics = Kinematics()
    truth = kinematics(held_out.matrix[:3])
    observation = Observation(truth, torch.ones_like(truth), 0.005)
    found = method.infer(observation, torch.Generator().manual_seed(0))
    assert are_rotations(found)
    assert not found.requires_grad
    plain = method.draw(3, torch.Generator().manual_seed(0))
    error, other = ((kinematics(each) - truth).norm(dim=-1).mean() for each in (found, plain))
    assert error < 0.75 * other


def test_measured_rotations_are_explained(method, held_out):
    matrix = held_out.matrix[:3]
    observation = Observation(
        rotations=matrix, known=torch.ones(3, JOINTS), rotation_sigma=math.radians(2)
    )
    found = method.infer(observation, torch.Generator().manual_seed(0))
    plain = method.draw(3, torch.Generator().manual_seed(0))
    angle, other = (rotations.geodesic_distance(each, matrix).mean() for each in (found, plain))
    # Codes of a VAE with so little training barely move the pose.
    assert angle < (1.05 if method.name == "vae" else 0.8) * other


def test_depth_may_be_unknown(method, held_out):
    truth = Kinematics()(held_out.matrix[:2])
    flat = torch.ones_like(truth)
    flat[..., 2] = 0
    found = method.infer(Observation(truth, flat, 0.005), torch.Generator().manual_seed(0))
    assert found.shape == (2, JOINTS, 3, 3)


def test_densities(method, held_out, training):
    generator = torch.Generator().manual_seed(0)
    value = method.log_prob(held_out.matrix, generator)
    if method.name in ("vae", "diffusion"):
        assert value is None
        return
    assert value.shape == (len(held_out),)
    odd = rotations.rotvec_to_matrix(torch.randn(40, JOINTS, 3, generator=generator))
    assert value.mean() > method.log_prob(odd, generator).mean()


def test_weights_return(methods):
    for name, method in methods.items():
        method.log_prob(method.draw(1, torch.Generator()), torch.Generator())
        again = make(name, SMALL)
        again.load_state_dict(method.state_dict())
        again.eval()
        first, second = (each.draw(3, torch.Generator().manual_seed(1)) for each in (again, method))
        assert same(first, second) < 1e-6, name


def test_the_vae_has_the_size_of_vposer():
    assert sum(each.numel() for each in make("vae", []).parameters()) == pytest.approx(
        936_000, rel=0.01
    )


def test_settings_are_changed_by_name():
    assert make("vae", ["vae.beta=0.5", "flow.hidden=3"]).settings.beta == 0.5
    assert make("flow", ["flow.hidden=8"]).settings.hidden == 8
    with pytest.raises(ValueError, match="vae has no setting 'gamma'"):
        make("vae", ["vae.gamma=1"])


def gaussian_mixture():
    """One Gaussian with known covariance, as a mixture of two equal ones."""
    mixture = Mixture(MixtureSettings(components=2))
    generator = torch.Generator().manual_seed(0)
    factor = 0.05 * torch.randn(63, 63, generator=generator)
    covariance = factor @ factor.T + 0.01 * torch.eye(63)
    mean = 0.2 * torch.randn(63, generator=generator)
    mixture.means.copy_(mean)
    mixture.covariances.copy_(covariance)
    return mixture, mean, covariance


def test_the_mixture_completes_as_a_gaussian_does():
    mixture, mean, covariance = gaussian_mixture()
    known = torch.arange(JOINTS) < 12
    given = known.repeat_interleave(3)
    x = mixture.draw_latents(1, torch.Generator().manual_seed(1))
    answers = mixture.complete(mixture.decode(x), known, 4000, torch.Generator().manual_seed(2))
    vectors = rotations.matrix_to_rotvec(answers[0]).flatten(start_dim=1)[:, ~given]
    gain = torch.linalg.solve(covariance[given][:, given], covariance[given][:, ~given])
    expected = mean[~given] + (x[0, given] - mean[given]) @ gain
    left = covariance[~given][:, ~given] - covariance[~given][:, given] @ gain
    error = (vectors.mean(dim=0) - expected).abs()
    assert (error < 5 * (left.diagonal() / 4000).sqrt()).all()
    ratio = vectors.var(dim=0) / left.diagonal()
    assert (ratio - 1).abs().max() < 0.12


def test_the_mixtures_density_is_that_of_rotations():
    # Over one joint, the density must integrate to 1 over Haar measure: here by random rotations.
    mixture = Mixture(MixtureSettings(components=1))
    spread = 0.7
    mixture.covariances.copy_(spread**2 * torch.eye(63))
    generator = torch.Generator().manual_seed(0)
    quaternions = torch.nn.functional.normalize(torch.randn(20_000, 4, generator=generator), dim=-1)
    angle = 2 * quaternions[:, 0].abs().acos()
    axis = torch.nn.functional.normalize(quaternions[:, 1:], dim=-1) * quaternions[:, :1].sign()
    turned = torch.eye(3).repeat(20_000, JOINTS, 1, 1)
    turned[:, 0] = rotations.rotvec_to_matrix(axis * angle[:, None])
    others = mixture.log_prob(torch.eye(3).repeat(1, JOINTS, 1, 1), generator)[0] * 20 / 21
    total = (mixture.log_prob(turned, generator) - others).exp().mean()
    assert total.item() == pytest.approx(1, abs=0.05)


def test_em_finds_two_groups():
    generator = torch.Generator().manual_seed(0)
    vectors = 0.02 * torch.randn(600, JOINTS, 3, generator=generator)
    vectors[:200, 3] += torch.tensor([0.8, 0, 0])
    mixture = Mixture(MixtureSettings(components=2, subset=600))
    mixture.fit(Stream(rotations.rotvec_to_matrix(vectors), generator), Steps(60))
    weights, order = mixture.log_weights.exp().sort()
    assert weights[0].item() == pytest.approx(1 / 3, abs=0.05)
    bend = mixture.means[order][:, 9]
    assert bend.tolist() == pytest.approx([0.8, 0.0], abs=0.02)
    angle = mixture.covariances[0].diagonal()[0].sqrt().item()
    assert angle == pytest.approx(math.hypot(0.02, ROTATION_NOISE), rel=0.2)


def test_flow_matchings_source_has_the_density_it_samples(methods, held_out):
    # Without a velocity, the density of a pose is that of the source.
    matching = make("matching", SMALL)
    torch.nn.init.zeros_(matching.network.output.weight)
    torch.nn.init.zeros_(matching.network.output.bias)
    matching.scale.fill_(0.3)
    mixture = Mixture(MixtureSettings(components=1))
    mixture.covariances.copy_(0.09 * torch.eye(63))
    generator = torch.Generator().manual_seed(0)
    poses = held_out.matrix[:6]
    torch.testing.assert_close(
        matching.log_prob(poses, generator),
        mixture.log_prob(poses, generator),
        rtol=1e-4,
        atol=1e-2,
    )


def test_flow_matching_is_inverted_by_encoding(methods, held_out):
    matching = make("matching", [*SMALL, "matching.few_steps=40"])
    matching.load_state_dict(methods["matching"].state_dict())
    decoded = matching.decode(matching.encode(held_out.matrix[:4]))
    angle = rotations.geodesic_distance(decoded, held_out.matrix[:4])
    assert angle.max().item() < 0.1


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_diffusion_samples_a_gaussian_from_its_best_estimates(prediction, monkeypatch):
    method = make("diffusion", [*SMALL, f"diffusion.prediction={prediction}"])
    spread = 0.5

    def best(noisy, time):
        signal, noise = _process(time)
        clean = signal * spread**2 * noisy / (signal**2 * spread**2 + noise**2)
        return clean if prediction == "x0" else (noisy - signal * clean) / noise

    monkeypatch.setattr(method.network, "forward", best)
    x = torch.zeros(2000, 63)
    drawn = method._generate(x, None, 100, torch.Generator().manual_seed(0))
    assert drawn.std().item() == pytest.approx(spread, rel=0.03)  # 100 steps lose 2 %
    assert drawn.mean().abs().item() < 0.01

    given = torch.arange(63) < 20
    x[:, given] = 0.3
    drawn = method._generate(x, given, 100, torch.Generator().manual_seed(0))
    assert (drawn[:, given].mean() - 0.3).abs().item() < 0.03
    assert drawn[:, ~given].std().item() == pytest.approx(spread, rel=0.06)


def test_diffusion_completes_in_two_ways(methods, held_out):
    known = torch.arange(JOINTS) > 5
    found = []
    for completion in ("optimise", "impute"):
        method = make("diffusion", [*SMALL, f"diffusion.completion={completion}"])
        method.load_state_dict(methods["diffusion"].state_dict())
        found.append(
            method.complete(held_out.matrix[:2], known, 2, torch.Generator().manual_seed(0))
        )
    assert DiffusionSettings().completion in ("optimise", "impute")
    assert same(*found) > 1e-3


def test_random_evidence_covers_everything():
    generator = torch.Generator().manual_seed(0)
    known = random_known(2000, generator)
    share = known.float().mean(dim=1)
    assert (share == 0).any()
    assert (share == 1).any()
    assert 0.3 < share.mean() < 0.7
    joints = random_joints(torch.zeros(2000, 22, 3), generator)
    seen = ~joints.isnan().any(dim=-1)
    assert seen.all(dim=1).float().mean() > 0.25
    assert (seen.sum(dim=1) < 6).any()
    assert joints.nan_to_num().abs().max() < 0.2


def test_training_ends_with_the_budget():
    weight = torch.nn.Parameter(torch.ones(3))
    steps = optimise(
        lambda: weight.square().sum(), [weight], Steps(200), Recipe(rate=0.05, decay=0.0)
    )
    assert steps == 200
    assert weight.norm() < 0.1
    assert 0 < WARM_UP < 0.2
