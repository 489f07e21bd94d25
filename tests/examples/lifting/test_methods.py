import dataclasses
import math

import pytest
import torch

from examples.lifting.baselines import FactorisedLifter, MixtureLifter, MultiHeadLifter
from examples.lifting.methods import (
    FlowLifter,
    ModeRegressor,
    Regressor,
    TrainedLifter,
    TrainingPoses,
    gaussian_around,
    isotropic_around,
)
from examples.lifting.model import LiftingModel

WIDTH = {"width": 16, "num_blocks": 1}
MAKE = {
    "flow": lambda: FlowLifter(LiftingModel(**WIDTH, hidden_features=8), mode_weight=1.0),
    "affine": lambda: FlowLifter(LiftingModel(**WIDTH, hidden_features=8, coupling="affine")),
    "flow as regressor": lambda: ModeRegressor(LiftingModel(**WIDTH, hidden_features=8)),
    "regressor": lambda: Regressor(**WIDTH),
    "heads": lambda: MultiHeadLifter(4, 0.1, **WIDTH),
    "mixture": lambda: MixtureLifter(3, **WIDTH),
    "isotropic mixture": lambda: MixtureLifter(3, isotropic=True, **WIDTH),
    "factorised": lambda: FactorisedLifter(**WIDTH),
    "gaussian": lambda: isotropic_around(Regressor(**WIDTH), 0.1, torch.zeros(1)),
    "training poses": lambda: TrainingPoses(torch.randn(50, 16, 3)),
}
DENSE = ("flow", "affine", "mixture", "isotropic mixture", "factorised", "gaussian")


@pytest.fixture(params=MAKE)
def lifter(request, views):
    lifter = MAKE[request.param]()
    if isinstance(lifter, TrainedLifter):
        lifter.train()
        lifter.loss(views)
    return lifter.eval()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class TestProtocol:
    def test_shapes(self, lifter, views):
        assert lifter.point(views).shape == (12, 16, 3)
        assert lifter.sample(views, 7, seeded()).shape == (12, 7, 16, 3)
        log_prob = lifter.log_prob(views, views.relative)
        assert log_prob is None or log_prob.shape == (12,)
        hypotheses = lifter.hypotheses(views)
        assert hypotheses is None or hypotheses.shape[::2] == (12, 16)

    def test_samples_are_those_of_the_generator(self, lifter, views):
        first = lifter.sample(views, 4, seeded(3))
        assert torch.equal(first, lifter.sample(views, 4, seeded(3)))

    def test_a_view_does_not_depend_on_the_others(self, lifter, views):
        alone = lifter.point(views[3:4])
        torch.testing.assert_close(lifter.point(views)[3:4], alone, rtol=1e-4, atol=1e-4)
        log_prob = lifter.log_prob(views, views.relative)
        if log_prob is not None:
            alone = lifter.log_prob(views[3:4], views.relative[3:4])
            torch.testing.assert_close(log_prob[3:4], alone, rtol=1e-4, atol=1e-3)

    def test_the_truth_is_not_read(self, lifter, views):
        blind = dataclasses.replace(views, joints=torch.full_like(views.joints, math.nan))
        assert torch.equal(lifter.point(blind), lifter.point(views))
        assert torch.equal(lifter.sample(blind, 2, seeded()), lifter.sample(views, 2, seeded()))

    def test_hidden_keypoints_are_not_read(self, lifter, views):
        moved = views.keypoints + 500.0 * ~views.visible[..., None]
        blind = dataclasses.replace(views, keypoints=moved)
        torch.testing.assert_close(lifter.point(blind), lifter.point(views))

    def test_every_weight_learns(self, lifter, views):
        if not isinstance(lifter, TrainedLifter):
            return
        lifter.train()
        lifter.loss(views).backward()
        without = [n for n, p in lifter.named_parameters() if p.grad is None or not p.grad.any()]
        if isinstance(lifter, ModeRegressor):  # z = 0 is what the last coupling reads
            without.remove("model.prior.flow.steps.3.coupling.conditioner.input.weight")
        assert without == []


@pytest.mark.parametrize("name", DENSE)
def test_log_prob_is_the_density_of_the_samples(name, views):
    """E_p[q / p] = 1 for every density q, such as p itself moved a little to one side."""
    lifter = MAKE[name]()
    if isinstance(lifter, TrainedLifter):
        lifter.train()
        lifter.loss(views)
    lifter.eval()
    view = views[:1]
    with torch.no_grad():
        samples = lifter.sample(view, 4000, seeded())[0]
        flat = samples.flatten(1).double()
        # Moved along three dimensions only, or the mean would need more samples than there are.
        moved = flat.clone()
        shift = 0.3 * flat.std(dim=0)[:3]
        moved[:, :3] -= shift
        many = dataclasses.replace(
            view,
            joints=view.joints.expand(4000, -1, -1),
            keypoints=view.keypoints.expand(4000, -1, -1),
            visible=view.visible.expand(4000, -1),
        )
        there = lifter.log_prob(many, samples)
        near = lifter.log_prob(many, moved.float().unflatten(1, (16, 3)))
    ratio = (near - there).double().exp()
    assert ratio.mean() == pytest.approx(1, abs=5 * float(ratio.std()) / math.sqrt(4000) + 0.01)


class TestLosses:
    def test_the_flow_s_is_the_paper_s(self, views):
        lifter = MAKE["flow"]()
        lifter.nll_weight, lifter.mode_weight = 0.001, 1.0
        lifter.train()
        lifter.loss(views)
        lifter.eval()
        nll = -lifter.log_prob(views, views.relative).mean()
        mode = (lifter.point(views) - views.relative).abs().sum() / len(views)
        torch.testing.assert_close(lifter.loss(views), 0.001 * nll + mode)

    def test_the_regressor_s(self, views):
        off = views.relative.norm(dim=-1)
        for kind, expected in (("mpjpe", off.mean()), ("mse", views.relative.square().mean())):
            lifter = Regressor(kind, **WIDTH)
            torch.nn.init.zeros_(lifter.head.weight)
            torch.nn.init.zeros_(lifter.head.bias)
            torch.testing.assert_close(lifter.loss(views), expected)

    def test_only_the_nearest_head_is_trained(self, views):
        lifter = MultiHeadLifter(4, 0.0, **WIDTH)
        error = 10 * (lifter.hypotheses(views) - views.relative[:, None]).norm(dim=-1).mean(dim=-1)
        # The scores' own term is at most a tenth of the logarithm of the heads.
        score = lifter.loss(views) - error.amin(dim=1).mean()
        assert 0 <= score <= 0.1 * 3 * math.log(4)

    def test_components_start_apart(self, views):
        _, _, means = MixtureLifter(3, **WIDTH)._parts(views)
        assert (means[:, 0] - means[:, 1]).abs().mean() > 0.01


def test_under_autocast_the_flow_is_float32(views):
    lifter = FlowLifter(LiftingModel(**WIDTH, hidden_features=8), 0.001, 1.0).train()
    lifter.loss(views)
    lifter.eval()
    prior = lifter.model.prior
    context = lifter.model.context(views.keypoints, views.visible)
    expected = prior.log_prob(views.relative, context)
    with torch.autocast("cpu", torch.bfloat16):
        assert lifter.model.context(views.keypoints, views.visible).dtype == torch.bfloat16
        assert lifter.loss(views).dtype == torch.float32
        assert lifter.sample(views, 3).dtype == torch.float32
        log_prob = prior.log_prob(views.relative, context)
    assert log_prob.dtype == torch.float32
    # The conditioners may compute in bfloat16; the bijection does not.
    torch.testing.assert_close(log_prob, expected, rtol=0.02, atol=0.5)


class TestGaussian:
    def test_covariance_is_that_of_the_residuals(self, many_views):
        lifter = Regressor(**WIDTH).eval()
        gaussian = gaussian_around(lifter, many_views)
        residual = (many_views.relative - lifter.point(many_views)).flatten(1).detach()
        expected = residual.mT @ residual / len(residual) + 0.0005**2 * torch.eye(48)
        torch.testing.assert_close(
            gaussian.factor @ gaussian.factor.mT, expected, atol=1e-5, rtol=0
        )

    def test_it_is_likelier_than_any_other_scale(self, many_views):
        gaussian = gaussian_around(Regressor(**WIDTH).eval(), many_views)
        best = gaussian.log_prob(many_views, many_views.relative).mean()
        for factor in (0.9, 1.1):
            gaussian.factor *= factor
            assert gaussian.log_prob(many_views, many_views.relative).mean() < best
            gaussian.factor /= factor

    def test_too_few_views(self, views):
        with pytest.raises(ValueError, match="more than 48"):
            gaussian_around(Regressor(**WIDTH).eval(), views)

    @pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
    def test_sigma_is_a_length(self, sigma):
        with pytest.raises(ValueError, match="sigma"):
            isotropic_around(Regressor(**WIDTH), sigma, torch.zeros(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Regressor("l1"), "mpjpe"),
        (lambda: MultiHeadLifter(0), "heads"),
        (lambda: MultiHeadLifter(4, 1.0), "relaxation"),
        (lambda: MixtureLifter(0), "components"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
