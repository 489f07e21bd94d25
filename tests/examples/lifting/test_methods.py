import dataclasses
import math

import pytest
import torch

from examples.lifting.baselines import FactorisedLifter, MixtureLifter, MultiHeadLifter
from examples.lifting.methods import (
    FlowLifter,
    GaussianLifter,
    ModeRegressor,
    Regressor,
    StudentLifter,
    TrainedLifter,
    TrainingPoses,
    gaussian_around,
    isotropic_around,
    student_around,
)
from examples.lifting.model import LiftingModel

WIDTH = {"width": 16, "num_blocks": 1}
MAKE = {
    "flow": lambda: FlowLifter(LiftingModel(**WIDTH, hidden_features=8), mode_weight=1.0),
    "regressor first": lambda: FlowLifter(
        LiftingModel(**WIDTH, hidden_features=8), mode_loss="mpjpe", regressor_share=0.5
    ),
    "original": lambda: FlowLifter(LiftingModel(**WIDTH, hidden_features=8, preset="prohmr")),
    "affine": lambda: FlowLifter(LiftingModel(**WIDTH, hidden_features=8, coupling="affine")),
    "flow as regressor": lambda: ModeRegressor(LiftingModel(**WIDTH, hidden_features=8)),
    "regressor": lambda: Regressor(**WIDTH),
    "regressor with keypoints": lambda: Regressor(**WIDTH, skip=True),
    "heads": lambda: MultiHeadLifter(4, 0.1, **WIDTH),
    "heads with keypoints": lambda: MultiHeadLifter(4, 0.1, **WIDTH, skip=True),
    "mixture": lambda: MixtureLifter(3, **WIDTH),
    "isotropic mixture": lambda: MixtureLifter(3, isotropic=True, **WIDTH),
    "factorised": lambda: FactorisedLifter(**WIDTH),
    "gaussian": lambda: isotropic_around(Regressor(**WIDTH), 0.1, torch.zeros(1)),
    "student t": lambda: StudentLifter(Regressor(**WIDTH), 0.1 * torch.eye(48), 4.0),
    "training poses": lambda: TrainingPoses(torch.randn(50, 16, 3)),
}
DENSE = ("flow", "original", "affine", "mixture", "isotropic mixture", "factorised", "gaussian")
DENSE += ("student t",)


@pytest.fixture(params=MAKE)
def lifter(request, views):
    lifter = MAKE[request.param]()
    if isinstance(lifter, TrainedLifter):
        lifter.train()
        lifter.loss(views)
    return lifter.eval()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def settle(lifter, views, part="both"):
    """Take a step, so that no weight is zero any more, and leave the gradients of the next."""
    lifter.train()
    lifter.zero_grad(set_to_none=True)
    lifter.loss_of(part, views).backward()
    torch.optim.AdamW(lifter.parameters(), 1e-3).step()
    lifter.zero_grad(set_to_none=True)
    lifter.loss_of(part, views).backward()


def unmoved(module):
    """Names of the parameters without a gradient."""
    return {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()}


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
        # What starts at zero keeps the layers before it from learning in the first step.
        settle(lifter, views)
        without = unmoved(lifter)
        if isinstance(lifter, ModeRegressor):  # the mode does not depend on the flow
            flow = {f"model.prior.flow.{n}" for n, _ in lifter.model.prior.flow.named_parameters()}
            assert without == flow
        else:
            assert without == set()


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


class TestParts:
    """The error of the mode trains the regressor, the NLL trains the flow."""

    def lifter(self, views, **options):
        model = LiftingModel(**WIDTH, hidden_features=8, dropout=0.3)
        lifter = FlowLifter(model, mode_loss="mpjpe", **options).train()
        lifter.loss(views)
        return lifter

    def regressor(self, lifter):
        return {n for n, _ in lifter.named_parameters() if ".flow." not in n}

    def flow(self, lifter):
        return {n for n, _ in lifter.named_parameters() if ".flow." in n}

    def test_the_regressor_s_phase_does_not_train_the_flow(self, views):
        lifter = self.lifter(views, regressor_share=0.5)
        settle(lifter, views, "regressor")
        assert unmoved(lifter) == self.flow(lifter)

    def test_phase_of_the_flow_trains_only_the_flow(self, views):
        lifter = self.lifter(views, regressor_share=0.5)
        settle(lifter, views, "flow")
        assert unmoved(lifter) == self.regressor(lifter)
        assert all(p.grad is None for n, p in lifter.named_parameters() if ".flow." not in n)

    def test_phase_of_the_flow_does_not_change_the_answer(self, views):
        lifter = self.lifter(views, regressor_share=0.5)
        for _ in range(2):
            settle(lifter, views, "regressor")
        before = {k: v.clone() for k, v in lifter.state_dict().items() if ".flow." not in k}
        answer = lifter.eval().point(views).detach()
        density = lifter.log_prob(views, views.relative).detach()
        for _ in range(3):
            settle(lifter, views, "flow")
        lifter.eval()
        assert lifter.model.encoder.training is False
        after = lifter.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert torch.equal(lifter.point(views), answer)
        assert not torch.equal(lifter.log_prob(views, views.relative), density)

    def test_the_nll_of_both_parts_does_not_train_the_regressor(self, views):
        lifter = self.lifter(views)
        settle(lifter, views)
        gradients = []
        for lifter.nll_weight in (0.0, 1.0):
            lifter.zero_grad(set_to_none=True)
            torch.manual_seed(3)
            lifter.loss(views).backward()
            gradients.append({n: p.grad for n, p in lifter.named_parameters() if ".flow." not in n})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-8)

    def test_the_original_has_one_network_for_both(self, views):
        lifter = MAKE["original"]()
        lifter.mode_weight = 0.0
        settle(lifter, views)
        assert unmoved(lifter) == set()

    def test_the_sum_of_the_parts(self, views):
        lifter = self.lifter(views).eval()
        parts = lifter.loss_of("regressor", views) + lifter.loss_of("flow", views)
        torch.testing.assert_close(lifter.loss_of("both", views), parts)
        torch.testing.assert_close(lifter.loss(views), parts)

    def test_settled_views_leave_the_mode_of_training(self, views):
        lifter = self.lifter(views)
        lifter.loss_of("flow", views)
        assert lifter.model.encoder.training

    def test_mode_is_the_answer_of_the_head(self, views):
        lifter = self.lifter(views)
        settle(lifter, views)
        lifter.eval()
        context = lifter.model.context(views.keypoints, views.visible)
        assert torch.equal(lifter.point(views), lifter.model.prior.head(context))


class TestCalibration:
    def test_it_fits_the_width_and_leaves_the_answer(self, many_views):
        lifter = FlowLifter(LiftingModel(**WIDTH, hidden_features=8, base="student_t")).train()
        lifter.loss(many_views)
        with torch.no_grad():
            lifter.model.prior.flow.temperature.fill_(0.2)
        lifter.eval()
        point = lifter.point(many_views).detach()
        before = lifter.log_prob(many_views, many_views.relative).mean()
        fitted = lifter.calibrate(many_views)
        assert set(fitted) == {"temperature", "degrees_of_freedom"}
        assert lifter.log_prob(many_views, many_views.relative).mean() > before + 10
        assert torch.equal(lifter.point(many_views), point)

    @pytest.mark.parametrize("name", ["original", "regressor", "mixture"])
    def test_others_stay_as_they_are(self, name, many_views):
        lifter = MAKE[name]().train()
        lifter.loss(many_views)
        before = {k: v.clone() for k, v in lifter.eval().state_dict().items()}
        assert lifter.calibrate(many_views) == {}
        after = lifter.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())


class TestLosses:
    @pytest.mark.parametrize("name", ["flow", "original"])
    def test_the_flow_s_is_the_paper_s(self, name, views):
        lifter = MAKE[name]()
        lifter.nll_weight, lifter.mode_weight = 0.001, 1.0
        lifter.train()
        lifter.loss(views)
        lifter.eval()
        nll = -lifter.log_prob(views, views.relative).mean()
        mode = (lifter.point(views) - views.relative).abs().sum() / len(views)
        torch.testing.assert_close(lifter.loss(views), 0.001 * nll + mode)

    def test_the_error_of_the_mode(self, views):
        lifter = MAKE["flow"]().eval()
        error = (lifter.point(views) - views.relative).detach()
        for kind, expected in (
            ("l1", error.abs().sum() / len(views)),
            ("mpjpe", error.norm(dim=-1).mean()),
        ):
            lifter.mode_loss, lifter.mode_weight = kind, 3.0
            torch.testing.assert_close(lifter.loss_of("regressor", views), 3 * expected)

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
        read = lifter.model.reader(views.keypoints, views.visible)
        assert lifter.model.encoder(read).dtype == torch.bfloat16
        assert lifter.model.context(views.keypoints, views.visible).dtype == torch.float32
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

    @pytest.mark.parametrize("around", [gaussian_around, student_around])
    def test_too_few_views(self, views, around):
        with pytest.raises(ValueError, match="more than 48"):
            around(Regressor(**WIDTH).eval(), views)

    def test_a_density_is_torch_s(self, many_views):
        gaussian = gaussian_around(Regressor(**WIDTH).eval(), many_views)
        centre = gaussian.point(many_views).flatten(1)
        normal = torch.distributions.MultivariateNormal(centre, scale_tril=gaussian.factor)
        expected = normal.log_prob(many_views.relative.flatten(1))
        found = gaussian.log_prob(many_views, many_views.relative)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)

    @pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
    def test_sigma_is_a_length(self, sigma):
        with pytest.raises(ValueError, match="sigma"):
            isotropic_around(Regressor(**WIDTH), sigma, torch.zeros(1))


class TestStudent:
    class Biased(Regressor):
        """A regressor whose residuals are given."""

        def __init__(self, residual):
            super().__init__(**WIDTH)
            self.residual = residual

        def point(self, views):
            return views.relative - self.residual

    def drawn(self, nu, views, number=4000):
        """Views and a regressor whose residuals have a known distribution."""
        torch.manual_seed(0)
        truth = StudentLifter(self.Biased(0.0), torch.diag(torch.linspace(0.01, 0.1, 48)), nu)
        many = views[torch.zeros(number, dtype=torch.long)]
        samples = truth.sample(many[:1], number, seeded())[0]
        return many, self.Biased(samples - many.relative[0])

    @pytest.mark.parametrize("nu", [4.0, 16.0])
    def test_it_finds_the_distribution_of_the_residuals(self, nu, views):
        many, lifter = self.drawn(nu, views)
        found = student_around(lifter, many)
        assert float(found.base.degrees_of_freedom) == pytest.approx(nu, rel=0.3)
        expected = torch.linspace(0.01, 0.1, 48)
        torch.testing.assert_close(found.factor.diagonal(), expected, rtol=0.1, atol=0)
        assert found.factor.tril(-1).abs().max() < 0.02

    def test_it_is_likelier_than_a_gaussian_if_the_tails_are_heavy(self, views):
        many, lifter = self.drawn(4.0, views)
        student, gaussian = (f(lifter, many) for f in (student_around, gaussian_around))
        truth = many.relative
        assert student.log_prob(many, truth).mean() > gaussian.log_prob(many, truth).mean() + 5
        assert torch.equal(student.point(many), gaussian.point(many))

    def test_with_many_degrees_of_freedom_it_is_the_gaussian(self, views):
        many = views[torch.zeros(2000, dtype=torch.long)]
        noise = 0.05 * torch.randn(2000, 16, 3, generator=seeded())
        lifter = self.Biased(noise)
        student, gaussian = (f(lifter, many) for f in (student_around, gaussian_around))
        truth = many.relative
        torch.testing.assert_close(
            student.log_prob(many, truth).mean(),
            gaussian.log_prob(many, truth).mean(),
            rtol=0.01,
            atol=0,
        )
        assert isinstance(student, GaussianLifter)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FlowLifter(LiftingModel(**WIDTH), mode_loss="l2"), "mode_loss"),
        (lambda: FlowLifter(LiftingModel(**WIDTH), regressor_share=1.0), "regressor_share"),
        (lambda: FlowLifter(LiftingModel(**WIDTH), mode_weight=0.0), "mode_weight"),
        (
            lambda: FlowLifter(LiftingModel(**WIDTH, preset="prohmr"), regressor_share=0.5),
            "no regressor",
        ),
        (lambda: Regressor("l1"), "mpjpe"),
        (lambda: MultiHeadLifter(0), "heads"),
        (lambda: MultiHeadLifter(4, 1.0), "relaxation"),
        (lambda: MixtureLifter(0), "components"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
