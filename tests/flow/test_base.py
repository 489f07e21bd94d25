import copy
import itertools
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flowprior.flow import BASES, ConditionalFlow, Normal, StudentT, standard_normal_log_prob
from flowprior.flow import base as base_module
from flowprior.flow.base import DEGREES_OF_FREEDOM, make_base
from tests.flow.helpers import assert_close, draw

bases = pytest.mark.parametrize(
    "base",
    [Normal(), StudentT(3.0).double(), StudentT(7.5).double(), StudentT(200.0).double()],
    ids=["normal", "t with 3", "t with 7.5", "t with 200"],
)


def sample(base, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return base.sample(shape, torch.float64, torch.device("cpu"), generator)


# --- density -------------------------------------------------------------------------------------


def test_the_normal_density_is_standard_on_every_axis():
    z = draw(2, 3, 4)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    assert_close(standard_normal_log_prob(z), expected, 1e-12)
    assert_close(Normal().log_prob(z), expected, 1e-12)


@given(features=st.integers(1, 80), nu=st.floats(2.01, 1e4), scale=st.floats(0.0, 100.0))
def test_the_t_density_equals_that_of_scipy(features, nu, scale):
    z = scale * draw(5, features)
    nu = float(torch.tensor(nu))  # the buffer is in single precision
    expected = stats.multivariate_t(shape=torch.eye(features).numpy(), df=nu).logpdf(z.numpy())
    actual = StudentT(nu).log_prob(z)
    torch.testing.assert_close(actual, torch.tensor(expected).reshape(5), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("nu", [2.5, 8.0])
def test_one_latent_has_the_t_density_of_torch(nu):
    z = draw(50, 1)
    expected = torch.distributions.StudentT(torch.tensor(nu).double()).log_prob(z[:, 0])
    assert_close(StudentT(nu).log_prob(z), expected, 1e-12)


def test_a_t_of_many_degrees_of_freedom_is_normal():
    z = draw(20, 6)
    assert_close(StudentT(1e8).log_prob(z), Normal().log_prob(z), 1e-5)
    assert_close(StudentT(1e8).entropy(6, torch.float64), Normal().entropy(6, torch.float64), 1e-5)


@bases
def test_densities_integrate_to_one(base):
    # Over the radius, by substitution r = tan a: the tails of a t are long.
    angle = (torch.arange(200_000, dtype=torch.float64) + 0.5) * (math.pi / 2 / 200_000)
    radius = angle.tan()
    for features in (1, 2, 5):
        z = radius[:, None] * torch.eye(features, dtype=torch.float64)[:1]
        log_area = math.log(2) + features / 2 * math.log(math.pi) - math.lgamma(features / 2)
        log_shell = log_area + (features - 1) * radius.log() - 2 * angle.cos().log()
        mass = (base.log_prob(z) + log_shell).exp().sum() * (math.pi / 2 / 200_000)
        assert_close(mass, 1.0, 1e-6)


@bases
def test_the_peak_is_at_zero_and_the_density_falls_with_the_length(base):
    z = draw(10, 4)
    along = base.log_prob(torch.linspace(0, 5, 30).double()[:, None, None] * z)
    assert (along.diff(dim=0) < 0).all()
    turned = z @ torch.linalg.qr(draw(4, 4, seed=3)).Q
    assert_close(base.log_prob(turned), base.log_prob(z), 1e-12)


@bases
def test_energy_is_twice_the_drop_from_the_peak(base):
    z = draw(3, 5, 4)
    energy = base.energy(z)
    assert energy.shape == (3, 5)
    assert (energy > 0).all()
    peak = base.log_prob(torch.zeros(4, dtype=torch.float64))
    assert_close(energy, 2 * (peak - base.log_prob(z)), 1e-12)
    assert base.energy(torch.zeros(2, 4)).eq(0).all()
    if isinstance(base, Normal):
        assert_close(energy, z.square().sum(-1), 1e-12)


@bases
def test_gradients(base):
    z = draw(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(base.log_prob, (z,))
    assert torch.autograd.gradcheck(base.energy, (z,))


@bases
@pytest.mark.parametrize("features", [1, 6, 72])
def test_the_closed_entropy_is_the_mean_surprise_of_samples(base, features):
    surprise = -base.log_prob(sample(base, 40_000, features))
    error = surprise.std() / math.sqrt(len(surprise))
    assert (surprise.mean() - base.entropy(features, torch.float64)).abs() < 4 * error


def test_entropies_equal_those_of_scipy():
    for features in (1, 3, 10):
        expected = stats.multivariate_t(shape=torch.eye(features).numpy(), df=5).entropy()
        assert_close(StudentT(5.0).entropy(features, torch.float64), float(expected), 1e-9)
        expected = features * float(stats.norm.entropy())
        assert_close(Normal().entropy(features, torch.float64), expected, 1e-12)


# --- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Normal(), StudentT(6.0)], ids=["normal", "t"])
def test_samples_follow_the_density(base):
    features, count = 5, 20_000
    z = sample(base, count, features)
    # The variance of a t is nu / (nu - 2); that of its estimate is finite for nu above 4.
    variance = 1.0 if isinstance(base, Normal) else 1.5
    assert (z.mean(dim=0).abs() < 5 * math.sqrt(variance / count)).all()
    covariance = z.T @ z / count
    assert_close(covariance, variance * torch.eye(features), 0.1)
    squares = z.square().sum(dim=-1).numpy()
    law = stats.chi2(features) if isinstance(base, Normal) else stats.f(features, 6, 0, features)
    assert stats.kstest(squares, law.cdf).pvalue > 1e-3


def test_the_entries_of_a_t_latent_are_large_together():
    z = sample(StudentT(3.0), 4000, 50).square().mean(dim=-1).log()
    # Independent entries would have a spread of about sqrt(2 / 50).
    assert z.std() > 0.6


@bases
def test_a_generator_decides_the_samples(base):
    assert torch.equal(sample(base, 4, 3), sample(base, 4, 3))
    assert not torch.equal(sample(base, 4, 3), sample(base, 4, 3, seed=1))
    torch.manual_seed(5)
    first = base.sample((2, 3), torch.float32, torch.device("cpu"))
    torch.manual_seed(5)
    assert torch.equal(base.sample((2, 3), torch.float32, torch.device("cpu")), first)
    assert first.dtype == torch.float32


@bases
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 4, 3)])
def test_shapes(base, shape):
    z = base.sample(shape, torch.float64, torch.device("cpu"))
    assert z.shape == shape
    assert base.log_prob(z).shape == base.energy(z).shape == shape[:-1]


# --- fits ----------------------------------------------------------------------------------------


def test_a_fit_of_the_normal_is_the_root_mean_square():
    z = 1.7 * draw(500, 6)
    scale = Normal().fit(z.square().sum(-1), 6)
    assert_close(scale, z.square().mean().sqrt(), 1e-12)


@pytest.mark.parametrize("nu", [4.0, 8.0, 20.0])
@pytest.mark.parametrize("true_scale", [1e-3, 0.6, 40.0])
def test_a_fit_recovers_degrees_of_freedom_and_scale(nu, true_scale):
    z, base = true_scale * sample(StudentT(nu), 20_000, 24), StudentT()
    scale = base.fit(z.square().sum(-1), 24)
    assert scale / true_scale == pytest.approx(1, abs=0.02)
    # The neighbours of nu on the grid are the resolution.
    place = DEGREES_OF_FREEDOM.index(nu)
    assert base.degrees_of_freedom.item() in DEGREES_OF_FREEDOM[place - 1 : place + 2]


def test_no_other_parameters_of_the_grid_are_more_likely_than_the_fit():
    z, base = 1.3 * sample(StudentT(7.0), 2000, 8), StudentT()

    def likelihood(nu: float, scale: float) -> torch.Tensor:
        return StudentT(nu).log_prob(z / scale).mean() - 8 * math.log(scale)

    scale = float(base.fit(z.square().sum(-1), 8))
    best = likelihood(float(base.degrees_of_freedom), scale)
    for nu in DEGREES_OF_FREEDOM:
        for factor in (0.9, 0.97, 1.0, 1.03, 1.1):
            assert likelihood(nu, factor * scale) <= best + 1e-12


def test_normal_latents_get_nearly_normal_tails():
    base = StudentT(3.0)
    scale = base.fit(sample(Normal(), 20_000, 24).square().sum(-1), 24)
    assert base.degrees_of_freedom > 200
    assert scale == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("value", [0.0, 1e-20, 1.0, 1e15])
@pytest.mark.parametrize("rows", [1, 50])
def test_a_fit_of_equal_latents_is_finite(name, value, rows):
    base = make_base(name)
    scale = base.fit(torch.full((rows,), value).square(), 6)
    assert scale.isfinite()
    assert scale > 0
    z = torch.full((rows, 6), value / math.sqrt(6))
    assert base.log_prob(z / scale.float()).isfinite().all()


@pytest.mark.parametrize("name", BASES)
def test_a_flow_can_be_calibrated_on_the_origin_alone(name):
    flow = ConditionalFlow(4, 2, hidden_features=8, anchored=True, base=name).eval()
    context = torch.randn(9, 2)
    assert flow.calibrate(torch.zeros(9, 4), context) > 0
    assert flow.log_prob(torch.zeros(9, 4), context).isfinite().all()
    assert flow.entropy(context).isfinite().all()
    assert flow.sample(context, 3).isfinite().all()


# --- construction and state ----------------------------------------------------------------------


@pytest.mark.parametrize("nu", [2.0, 0.0, -3.0, math.inf, math.nan])
def test_bad_degrees_of_freedom(nu):
    with pytest.raises(ValueError, match="degrees_of_freedom must be above 2 and finite"):
        StudentT(nu)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"base must be one of .*'student_t'.*, got 'cauchy'"):
        make_base("cauchy")
    with pytest.raises(ValueError, match="base must be one of"):
        ConditionalFlow(4, base="cauchy")


def test_names_are_those_of_the_classes():
    assert set(BASES) == {"normal", "student_t"}
    assert all(kind.name == name for name, kind in BASES.items())
    assert all(isinstance(make_base(name), kind) for name, kind in BASES.items())


@bases
@pytest.mark.parametrize(
    "clone",
    [lambda b: b.frozen(4), copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))],
    ids=["frozen", "deepcopy", "pickle"],
)
def test_copies_do_not_share_tensors(base, clone):
    other, z = clone(base), draw(3, 4)
    assert type(other) is type(base)
    torch.testing.assert_close(other.log_prob(z), base.log_prob(z), rtol=1e-6, atol=1e-6)
    theirs = {each.data_ptr() for each in other.buffers()}
    assert not theirs & {each.data_ptr() for each in base.buffers()}


def test_a_t_is_saved_with_its_flow_and_frozen_with_it():
    flow = ConditionalFlow(4, 2, hidden_features=8, base="student_t").double().eval()
    flow.base.degrees_of_freedom.fill_(5.0)
    frozen = flow.freeze()
    other = ConditionalFlow(4, 2, hidden_features=8, base="student_t").double().eval()
    other.load_state_dict(flow.state_dict())
    assert other.base.degrees_of_freedom == 5
    flow.base.degrees_of_freedom.fill_(9.0)
    assert frozen.base.degrees_of_freedom == 5
    assert "base.degrees_of_freedom" in frozen.state_dict()
    assert not any(name.startswith("base") for name in ConditionalFlow(4).state_dict())


def test_the_degrees_of_freedom_of_the_grid_survive_half_precision():
    grid = torch.tensor(DEGREES_OF_FREEDOM)
    assert torch.equal(grid.bfloat16().float(), grid)
    assert torch.equal(grid.half().float(), grid)


def test_the_grid_of_degrees_of_freedom_has_no_gap():
    grid = base_module.DEGREES_OF_FREEDOM
    # With two or fewer there is no variance; a thousand are normal.
    assert 2 < grid[0] <= 3
    assert grid[-1] >= 1000
    assert all(1 < high / low <= 2 for low, high in itertools.pairwise(grid))
