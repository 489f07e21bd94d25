"""What the flow's options promise: the context's own scale and shift, and other couplings."""

import math

import pytest
import torch

from flowprior.flow import ConditionalFlow
from tests.flow.helpers import assert_close, draw

OPTIONS = {
    "plain": {"context_norm": False},
    "context_norm": {"context_norm": True},
    "affine": {"context_norm": False, "coupling": "affine"},
    "spline": {"context_norm": False, "coupling": "spline"},
    "spline and context_norm": {"context_norm": True, "coupling": "spline"},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
exact_options = pytest.mark.parametrize("options", [OPTIONS["plain"], OPTIONS["context_norm"]])


def make(features: int = 5, context_features: int = 3, **options) -> ConditionalFlow:
    """A flow far from new, float64, in evaluation mode."""
    options = {"hidden_features": 16, "num_blocks": 1, **options}
    flow = ConditionalFlow(features, context_features, **options).double()
    for index, parameter in enumerate(flow.parameters()):
        parameter.data += 0.15 * draw(*parameter.shape, seed=index)
    for step in flow.steps:
        step.actnorm.initialized.fill_(True)
    flow.temperature.fill_(1.3)
    return flow.eval()


@every_option
@pytest.mark.parametrize("features", [2, 5])
def test_round_trip(options, features):
    flow, x, context = make(features, **options), draw(4, 3, features), draw(4, 3)
    z, forward = flow(x, context)
    back, inverse = flow.inverse(z, context)
    assert_close(back, x, 1e-8)
    assert_close(forward + inverse, torch.zeros(4, 3), 1e-8)


@every_option
def test_log_abs_det_equals_the_full_jacobian(options):
    flow, x, context = make(**options), draw(5), draw(3)
    for direction in (flow.forward, flow.inverse):
        jacobian = torch.func.jacrev(direction)(x, context)[0]
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert_close(direction(x, context)[1], expected.detach(), 1e-8)


@every_option
def test_gradients(options):
    flow = make(**options)
    x, context = draw(2, 5).requires_grad_(), draw(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(flow.log_prob, (x, context))
    assert torch.autograd.gradcheck(lambda z, c: flow.inverse(z, c)[0], (x, context))


@every_option
def test_samples_carry_their_log_prob_in_training_too(options):
    flow, context = make(**options).train(), draw(3, 3)
    flow(draw(10, 5), draw(10, 3))  # the first batch sets ActNorm
    samples, log_prob = flow.sample_and_log_prob(context, 4)
    assert_close(flow.log_prob(samples, context), log_prob.detach(), 1e-8)


@every_option
def test_the_density_integrates_to_one(options):
    flow, context = make(2, **options), draw(3)
    with torch.no_grad():
        centre = flow.mode(context)
        axis = torch.linspace(-20, 20, 501, dtype=torch.float64)
        grid = centre + torch.cartesian_prod(axis, axis)
        mass = flow.log_prob(grid, context).exp().sum() * (axis[1] - axis[0]) ** 2
    assert_close(mass, 1.0, 3e-3)


@exact_options
def test_the_mode_is_exact(options):
    flow, context = make(**options), draw(3, 3)
    assert flow.has_exact_mode
    mode = flow.mode(context).detach().requires_grad_()
    at_mode = flow.log_prob(mode, context)
    assert_close(torch.autograd.grad(at_mode.sum(), mode)[0], torch.zeros(3, 5), 1e-10)
    assert (flow.sample_and_log_prob(context, 1000)[1] <= at_mode[:, None]).all()


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_the_mode_is_climbed_to_where_volumes_bend(coupling):
    flow, context = make(coupling=coupling), draw(4, 3)
    assert not flow.has_exact_mode
    start = flow.log_prob(flow.inverse(torch.zeros(4, 5).double(), context)[0], context)
    mode = flow.mode(context).detach().requires_grad_()
    reached = flow.log_prob(mode, context)
    assert (reached >= start).all()
    assert (reached > start + 1e-3).any()
    alone = flow.mode(context[1:2])[0]  # rows do not see their neighbours
    assert_close(alone, mode[1].detach(), 1e-8)


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_climbing_works_under_inference_mode_and_passes_gradients_on(coupling):
    flow, context = make(coupling=coupling), draw(4, 3)
    with torch.inference_mode():
        assert flow.mode(context).isfinite().all()
    flow.mode(context).sum().backward()
    assert flow.steps[0].linear.bias.grad.abs().max() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in flow.parameters())


@every_option
def test_entropy_is_the_mean_surprise_of_samples(options):
    flow, context = make(**options), draw(2, 3)
    with torch.no_grad():
        log_prob = flow.sample_and_log_prob(context, 20_000)[1]
        entropy = flow.entropy(context, num_samples=20_000)
    error = log_prob.std() / math.sqrt(20_000)
    assert ((-log_prob.mean(dim=1) - entropy).abs() < 7 * error).all()


def test_only_the_context_makes_entropies_differ():
    context = draw(6, 3)
    assert make(context_norm=False).entropy(context).std() == 0
    assert make(context_norm=True).entropy(context).std() > 0.1


def test_a_new_context_norm_changes_nothing():
    flow = ConditionalFlow(5, 3, hidden_features=16, context_norm=True).double()
    same = ConditionalFlow(5, 3, hidden_features=16, context_norm=False).double()
    same.load_state_dict(
        {n: v for n, v in flow.state_dict().items() if "actnorm.context_weight" not in n}
    )
    x, context = draw(4, 5), 100 * draw(4, 3)
    flow.eval(), same.eval()
    assert_close(flow.log_prob(x, context), same.log_prob(x, context).detach(), 1e-12)


def test_the_context_terms_are_bounded():
    flow = make(context_norm=True)
    norm = flow.project_context(1e6 * draw(4, 3)).steps[0].norm
    assert norm.abs().max() <= 3.0


def test_number_of_ascent_steps(monkeypatch):
    flow, context, calls = make(**OPTIONS["affine"]), draw(2, 3), []
    base_log_prob = flow.base.log_prob

    def log_prob(z, features=None):
        calls.append(z.detach().clone())
        return base_log_prob(z, features)

    with monkeypatch.context() as patch:
        patch.setattr(flow.base, "log_prob", log_prob)
        for steps in (0, 3):
            calls.clear()
            mode = flow.mode(context, max_steps=steps)
            assert len(calls) == steps + 1
    assert torch.equal(calls[0], torch.zeros(2, 5, dtype=torch.float64))
    start = flow.inverse(torch.zeros(2, 5, dtype=torch.float64), context)[0]
    assert (flow.log_prob(mode, context) >= flow.log_prob(start, context)).all()
    assert_close(flow.mode(context, max_steps=0), start.detach(), 1e-12)


def test_mode_by_ascent_has_no_gradient_in_a_constant_flow():
    frozen = make(**OPTIONS["affine"]).freeze()
    assert not frozen.mode(draw(2, 3)).requires_grad


# --- temperature ---------------------------------------------------------------------------------


@every_option
def test_calibration_finds_the_most_likely_temperature(options):
    flow, context = make(**options), draw(400, 3)
    flow.temperature.fill_(1.0)
    with torch.no_grad():
        x = flow.inverse(1.4 * draw(400, 5, seed=9), context)[0]  # wider than the flow believes
        mode = flow.mode(context[:3])
        temperature = flow.calibrate(x, context)
        assert temperature == pytest.approx(1.4, rel=0.05)
        assert flow.forward(x, context)[0].square().mean() == pytest.approx(1.0, abs=1e-9)
        best = flow.log_prob(x, context).mean()
        for factor in (0.95, 1.05):
            flow.temperature.fill_(temperature * factor)
            assert flow.log_prob(x, context).mean() < best
        flow.temperature.fill_(temperature)
        if flow.has_exact_mode:
            assert_close(flow.mode(context[:3]), mode, 1e-12)
        assert flow.calibrate(x, context) == pytest.approx(temperature)


def test_calibration_needs_data():
    with pytest.raises(ValueError, match="no rows"):
        make().calibrate(draw(0, 5), draw(0, 3))


def test_returned_temperature_is_a_copy():
    flow, context = make(), draw(50, 3)
    first = flow.calibrate(draw(50, 5), context)
    before = first.clone()
    flow.calibrate(3 * draw(50, 5), context)
    assert first == before


def test_unknown_coupling():
    with pytest.raises(ValueError, match="coupling must be one of"):
        ConditionalFlow(5, 3, coupling="autoregressive")
