"""Flows whose every layer maps the origin to the origin, and their steps, plain and frozen."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from flowprior.flow import (
    ActNorm,
    AdditiveCoupling,
    AnchoredStep,
    ConditionalFlow,
    FrozenAnchoredStep,
    LULinear,
    StudentT,
)
from tests.flow.helpers import assert_close, draw

COUPLINGS = ("additive", "contracting", "none")
BASES = ("normal", "student_t")
options = st.fixed_dictionaries(
    {
        "features": st.integers(2, 9),
        "context_features": st.integers(0, 4),
        "coupling": st.sampled_from(COUPLINGS),
        "base": st.sampled_from(BASES),
        "context_norm": st.booleans(),
        "num_steps": st.integers(1, 4),
        "num_blocks": st.integers(0, 2),
        "hidden_features": st.integers(1, 16),
        "seed": st.integers(0, 999),
    }
)
every_kind = pytest.mark.parametrize(
    "kind",
    [{"coupling": coupling, "base": base} for coupling in COUPLINGS for base in BASES],
    ids=lambda kind: "-".join(kind.values()),
)


def make(features: int = 5, context_features: int = 3, *, seed: int = 0, **kwargs):
    """An anchored float64 flow far from new, in evaluation mode."""
    torch.manual_seed(seed)
    kwargs = {"hidden_features": 16, "num_blocks": 1, "num_steps": 3, **kwargs}
    flow = ConditionalFlow(features, context_features, anchored=True, **kwargs).double()
    for index, parameter in enumerate(flow.parameters()):
        parameter.data += 0.2 * draw(*parameter.shape, seed=seed + index)
    for step in flow.steps:
        step.actnorm.initialized.fill_(True)
    flow.temperature.fill_(1.3)
    if isinstance(flow.base, StudentT):
        flow.base.degrees_of_freedom.fill_(6.0)
    return flow.eval()


def bfloat16(flow):
    """Frozen with bfloat16 conditioners, also where they are slow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flow.freeze(torch.bfloat16)


def in_any_form(flow):
    """The flow, and what is made of it for inference."""
    single = copy.deepcopy(flow).float()
    return [flow, flow.freeze(), bfloat16(flow), single, single.freeze(), bfloat16(single),
            copy.deepcopy(flow).bfloat16()]  # fmt: skip


# --- the origin ----------------------------------------------------------------------------------


@given(kwargs=options, scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_the_origin_is_kept_exactly_in_both_directions(kwargs, scale):
    flow = make(**kwargs)
    context = scale * draw(4, kwargs["context_features"], seed=kwargs["seed"])
    for model in in_any_form(flow):
        assert model.keeps_origin
        assert model.has_exact_mode
        origin = torch.zeros(4, 3, kwargs["features"], dtype=model.dtype)
        c = context.to(model.dtype)
        assert torch.equal(model(origin, c)[0], origin)
        assert torch.equal(model.inverse(origin, c)[0], origin)
        assert torch.equal(model.mode(c), origin[:, 0])


def test_only_anchored_flows_keep_it():
    assert not ConditionalFlow(4, 2, hidden_features=8).keeps_origin
    assert not ConditionalFlow(4, 2, hidden_features=8).freeze().keeps_origin


@given(kwargs=options)
def test_repr_of_a_flow(kwargs):
    flow = make(**kwargs)
    for model in (flow, flow.freeze()):
        assert model.has_closed_entropy == (kwargs["coupling"] != "contracting")
        for step in model.steps:
            assert step.keeps_origin
            assert step.peaks_at_zero
            assert step.keeps_volume == (kwargs["coupling"] != "contracting")


# --- the bijection -------------------------------------------------------------------------------


@given(kwargs=options)
def test_round_trip_both_ways(kwargs):
    flow = make(**kwargs)
    x, context = draw(4, 3, kwargs["features"]), draw(4, kwargs["context_features"])
    for model in (flow, flow.freeze()):
        z, forward = model(x, context)
        back, inverse = model.inverse(z, context)
        assert_close(back, x, 1e-9)
        assert_close(forward + inverse, torch.zeros(4, 3), 1e-9)
        assert_close(model(model.inverse(x, context)[0], context)[0], x, 1e-9)


@given(kwargs=options)
def test_log_abs_det_equals_the_full_jacobian(kwargs):
    flow = make(**kwargs)
    x, context = draw(kwargs["features"]), draw(kwargs["context_features"])
    for model in (flow, flow.freeze()):
        for direction in (model.forward, model.inverse):
            jacobian = torch.func.jacrev(lambda v, d=direction: d(v, context)[0])(x)
            expected = torch.linalg.slogdet(jacobian).logabsdet
            assert_close(direction(x, context)[1], expected.detach(), 1e-8)


@given(kwargs=options)
def test_freezing_changes_nothing(kwargs):
    flow = make(**kwargs)
    frozen = flow.freeze()
    assert all(isinstance(step, FrozenAnchoredStep) for step in frozen.steps)
    x, context = draw(4, 3, kwargs["features"]), draw(4, kwargs["context_features"])
    for ours, theirs in zip(frozen(x, context), flow(x, context), strict=True):
        assert_close(ours, theirs.detach(), 1e-9)
    for ours, theirs in zip(frozen.inverse(x, context), flow.inverse(x, context), strict=True):
        assert_close(ours, theirs.detach(), 1e-9)
    assert_close(frozen.log_prob(x, context), flow.log_prob(x, context).detach(), 1e-9)
    if flow.has_closed_entropy:
        assert_close(frozen.entropy(context), flow.entropy(context).detach(), 1e-9)


def test_the_temperature_scales_latents():
    flow, x, context = make(), draw(3, 5), draw(3, 3)
    z, log_abs_det = flow(x, context)
    flow.temperature.fill_(2.6)
    halved, less = flow(x, context)
    assert_close(halved, (z / 2).detach(), 1e-12)
    assert_close(less, (log_abs_det - 5 * math.log(2)).detach(), 1e-12)


# --- gradients -----------------------------------------------------------------------------------


@every_kind
def test_gradients_to_x_context_and_weights(kind):
    flow = make(4, 2, num_steps=2, hidden_features=5, **kind)
    x, context = draw(2, 4).requires_grad_(), draw(2, 2).requires_grad_()
    names, values = zip(*flow.named_parameters(), strict=True)

    class LogProb(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, x, context):
            return self.flow.log_prob(x, context)

    def log_prob(x, context, *values):
        lent = {f"flow.{name}": value for name, value in zip(names, values, strict=True)}
        return functional_call(LogProb(), lent, (x, context))

    assert torch.autograd.gradcheck(log_prob, (x, context, *values))
    assert torch.autograd.gradcheck(lambda z, c: flow.inverse(z, c)[0], (x, context))


@every_kind
def test_gradients_of_a_frozen_flow(kind):
    flow = make(**kind)
    frozen = flow.freeze()
    x, context = draw(3, 5).requires_grad_(), draw(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(frozen.log_prob, (x, context))
    assert torch.autograd.gradcheck(lambda z, c: frozen.inverse(z, c)[0], (x, context))
    expected = torch.autograd.grad(flow.log_prob(x, context).sum(), (x, context))
    actual = torch.autograd.grad(frozen.log_prob(x, context).sum(), (x, context))
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs, 1e-9)
    assert not list(frozen.parameters())


@every_kind
def test_every_parameter_gets_a_gradient_from_log_prob_and_from_samples(kind):
    for call in (lambda f, x, c: f.log_prob(x, c), lambda f, x, c: f.sample(c, 2)):
        flow = make(**kind)
        call(flow, draw(4, 5), draw(4, 3)).square().sum().backward()
        for name, parameter in flow.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


# --- mode and entropy ----------------------------------------------------------------------------


@given(kwargs=options)
def test_density_is_highest_at_the_origin(kwargs):
    flow = make(**kwargs)
    context = draw(3, kwargs["context_features"])
    origin = torch.zeros(3, kwargs["features"], dtype=torch.float64)
    generator = torch.Generator().manual_seed(kwargs["seed"])
    with torch.no_grad():
        for model in (flow, flow.freeze()):
            peak = model.log_prob(origin, context)[:, None]
            samples, log_prob = model.sample_and_log_prob(context, 300, generator=generator)
            assert (log_prob <= peak).all()
            assert_close(model.log_prob(samples, context), log_prob, 1e-7)
            for scale in (1e-3, 0.1, 10.0):
                points = scale * draw(3, 100, kwargs["features"], seed=kwargs["seed"])
                assert (model.log_prob(points, context) <= peak).all()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("coupling", ["additive", "none"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_closed_entropy_is_the_mean_surprise_of_samples(base, coupling, frozen):
    flow, context = make(coupling=coupling, base=base), draw(4, 3)
    model = flow.freeze() if frozen else flow
    count = 20_000
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        log_prob = model.sample_and_log_prob(context, count, generator=generator)[1]
        entropy = model.entropy(context)
    error = log_prob.std(dim=1) / math.sqrt(count)
    assert ((-log_prob.mean(dim=1) - entropy).abs() < 4 * error).all()
    assert entropy.std() > 0.1  # the context decides how certain the density is


def test_without_context_norm_the_entropy_is_the_same_everywhere():
    assert make(context_norm=False).entropy(draw(4, 3)).std() < 1e-12


@pytest.mark.parametrize("base", BASES)
def test_the_density_integrates_to_one(base):
    # In polar coordinates, the radius by substitution r = 2 tan a: the tails of a t are long.
    count = 400
    step = math.pi / 2 / count
    angle = (torch.arange(count, dtype=torch.float64) + 0.5) * step
    turn = 4 * angle[:, None]
    radius = 2 * angle.tan()
    x = torch.stack((radius * turn.cos(), radius * turn.sin()), dim=-1)
    area = radius * 2 / angle.cos().square() * step * (4 * step)
    for coupling in COUPLINGS:
        flow, context = make(2, coupling=coupling, base=base, hidden_features=8), draw(3)
        with torch.no_grad():
            mass = (flow.log_prob(x, context).exp() * area).sum()
        assert_close(mass, 1.0, 5e-3)


@every_kind
def test_calibration_finds_scale_and_tails(kind):
    flow = make(**kind)
    flow.temperature.fill_(1.0)
    context, generator = draw(3000, 3), torch.Generator().manual_seed(4)
    with torch.no_grad():
        z = flow.base.sample((3000, 5), torch.float64, torch.device("cpu"), generator)
        x = flow.inverse(1.4 * z, context)[0]
        mode = flow.mode(context[:3])
        assert flow.calibrate(x, context) == pytest.approx(1.4, rel=0.05)
        if isinstance(flow.base, StudentT):
            assert 4 <= flow.base.degrees_of_freedom <= 8
        assert torch.equal(flow.mode(context[:3]), mode)
        assert flow.calibrate(x, context) == pytest.approx(float(flow.temperature))


# --- shapes --------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("frozen", [False, True])
def test_leading_axes(kind, frozen):
    flow = make(**kind)
    flow = flow.freeze() if frozen else flow
    context = draw(2, 3, 3)
    assert flow.sample(context, 4).shape == (2, 3, 4, 5)
    assert flow.sample(context, 0).shape == (2, 3, 0, 5)
    assert flow.sample(context[:0], 4).shape == (0, 3, 4, 5)
    assert flow.mode(context).shape == (2, 3, 5)
    assert flow.mode(context[:0]).shape == (0, 3, 5)
    assert flow.entropy(context, num_samples=2).shape == (2, 3)
    assert flow.log_prob(draw(2, 3, 4, 2, 5), context).shape == (2, 3, 4, 2)
    assert flow.log_prob(draw(0, 5), draw(0, 3)).shape == (0,)
    assert flow.log_prob(draw(5), draw(3)).shape == ()


@every_kind
@pytest.mark.parametrize("frozen", [False, True])
def test_without_context(kind, frozen):
    flow = make(context_features=0, **kind)
    flow = flow.freeze() if frozen else flow
    x = draw(3, 5)
    assert flow.sample(None, 4).shape == (4, 5)
    assert torch.equal(flow.mode(), torch.zeros(5).double())
    assert flow.entropy(num_samples=2).shape == ()
    assert_close(flow.log_prob(x), flow.log_prob(x, draw(3, 0)).detach(), 1e-12)


@every_kind
@pytest.mark.parametrize("frozen", [False, True])
def test_rows_do_not_see_their_neighbours(kind, frozen):
    flow = make(**kind)
    flow = flow.freeze() if frozen else flow
    x, context = draw(6, 5), draw(6, 3)
    together = flow.log_prob(x, context)
    for row in range(6):
        alone = flow.log_prob(x[row : row + 1], context[row : row + 1])[0]
        assert_close(alone, together[row].detach(), 1e-10)
    repeated = flow.log_prob(x[:, None].expand(6, 4, 5), context)
    assert_close(repeated, together[:, None].expand(6, 4).detach(), 1e-10)


@every_kind
def test_a_projected_context_stands_in_for_the_context(kind):
    flow, x, context = make(**kind), draw(3, 5), draw(3, 3)
    for model in (flow, flow.freeze()):
        projected = model.project_context(context)
        assert projected.batch_shape == (3,)
        assert torch.equal(model.log_prob(x, projected), model.log_prob(x, context))
        chosen = projected.select([2, 0])
        expected = model.log_prob(x[[2, 0]], context[[2, 0]])
        assert_close(model.log_prob(x[[2, 0]], chosen), expected.detach(), 1e-12)
        wide = projected.expand(torch.Size([4, 3]))
        expected = model.log_prob(x, context).detach().expand(4, 3)
        assert_close(model.log_prob(x.expand(4, 3, 5), wide), expected, 1e-12)


# --- training ------------------------------------------------------------------------------------


def test_actnorm_without_shift_is_set_by_the_root_mean_square():
    layer = ActNorm(3, shift=False).double()
    rows = draw(50, 3) * torch.tensor([0.1, 2.0, 30.0]) + torch.tensor([1.0, 0.0, 5.0])
    y, log_abs_det = layer(rows)
    assert layer.is_initialized()
    assert layer.shift is None
    assert_close(y.square().mean(dim=0), torch.ones(3), 1e-12)
    assert_close(log_abs_det, -rows.square().mean(dim=0).sqrt().log().sum(), 1e-12)
    assert_close(layer.inverse(y), rows, 1e-12)
    assert layer(torch.zeros(2, 3).double())[0].eq(0).all()


def test_a_feature_that_is_always_zero_gets_a_bounded_scale():
    layer = ActNorm(2, shift=False).double()
    rows = draw(20, 2) * torch.tensor([1.0, 0.0])
    assert layer(rows)[0].isfinite().all()
    assert_close(layer.log_scale[1], math.log(1e3), 1e-9)


def test_the_first_training_batch_sets_every_step():
    flow = ConditionalFlow(5, 3, anchored=True, hidden_features=8).double().train()
    x, context = 3 * draw(40, 5) + 1, draw(40, 3)
    assert not flow.is_initialized()
    z, _ = flow(x, context)
    assert flow.is_initialized()
    assert_close(z.square().mean(dim=0), torch.ones(5), 0.2)
    assert torch.equal(flow.eval()(x, context)[0], z)


def test_training_and_evaluation_compute_one_density():
    flow, x, context = make(), draw(8, 5), draw(8, 3)
    expected = flow.log_prob(x, context)
    assert torch.equal(flow.train().log_prob(x, context), expected)
    assert not flow.depends_on_batch


def test_a_new_flow_is_close_to_the_identity():
    for coupling in COUPLINGS:
        flow = ConditionalFlow(72, 16, anchored=True, coupling=coupling).eval()
        x = torch.randn(5, 72)
        assert (flow(x, torch.randn(5, 16))[0] - x).abs().max() < 0.05


def test_a_few_steps_fit_a_scale_that_the_context_decides():
    torch.manual_seed(0)
    flow = ConditionalFlow(3, 1, anchored=True, hidden_features=8, num_blocks=1, num_steps=2)
    context = torch.rand(512, 1) * 2 - 1
    x = context.exp() * torch.randn(512, 3)
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        (-flow.log_prob(x, context).mean()).backward()
        optimizer.step()
    low, high = flow.eval().entropy(torch.tensor([[-0.8], [0.8]])).tolist()
    assert high - low == pytest.approx(3 * 1.6, abs=1.0)


# --- dtypes, copies, transforms ------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("frozen", [False, True])
def test_copies_compute_the_same(kind, clone, frozen):
    flow, x, context = make(**kind), draw(3, 5), draw(3, 3)
    flow = flow.freeze() if frozen else flow
    assert torch.equal(clone(flow).log_prob(x, context), flow.log_prob(x, context))


@every_kind
def test_state_dict_is_complete(kind):
    flow, other = make(**kind), ConditionalFlow(5, 3, anchored=True, hidden_features=16,
                                                num_blocks=1, num_steps=3, **kind)  # fmt: skip
    other = other.double().eval()
    other.load_state_dict(flow.state_dict())
    x, context = draw(3, 5), draw(3, 3)
    assert torch.equal(other.log_prob(x, context), flow.log_prob(x, context))
    assert other.is_initialized()
    frozen, again = flow.freeze(), make(seed=7, **kind).freeze()
    again.load_state_dict(frozen.state_dict())
    assert torch.equal(again.log_prob(x, context), frozen.log_prob(x, context))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_frozen_flow_shares_no_memory_and_needs_no_gradient(kind, dtype):
    flow = make(**kind).to(dtype)
    frozen = flow.freeze()
    theirs = {value.data_ptr() for value in flow.state_dict(keep_vars=True).values()}
    for name, value in frozen.named_buffers():
        assert value.data_ptr() not in theirs, name
        assert not value.requires_grad
        assert value.is_contiguous(), name
        assert value.dtype in (dtype, torch.int64)
    assert not frozen.train().training


@every_kind
def test_half_precision_weights_compute_in_single(kind):
    flow, x, context = make(**kind), draw(3, 5).bfloat16(), draw(3, 3).bfloat16()
    flow.bfloat16()
    z, log_abs_det = flow(x, context)
    assert z.dtype == log_abs_det.dtype == torch.float32
    assert_close(flow.inverse(z, context)[0], x.float(), 0.1)
    assert flow.freeze().log_prob(x, context).dtype == torch.float32
    assert flow.sample(context, 2).dtype == torch.float32


@every_kind
@pytest.mark.parametrize("frozen", [False, True])
def test_autocast_changes_nothing(kind, frozen):
    flow, x, context = make(**kind).float(), draw(3, 5).float(), draw(3, 3).float()
    flow = flow.freeze() if frozen else flow
    z = flow(x, context)[0].detach()
    calls = (lambda: flow.log_prob(x, context), lambda: flow.inverse(z, context)[0],
             lambda: flow.entropy(context, generator=torch.Generator().manual_seed(0)))  # fmt: skip
    expected = [call() for call in calls]
    with torch.autocast("cpu", torch.bfloat16):
        for call, value in zip(calls, expected, strict=True):
            assert torch.equal(call(), value)


@pytest.mark.parametrize("coupling", ["additive", "contracting"])
def test_a_bfloat16_conditioner_moves_samples_little_and_densities_not_at_all(coupling):
    flow = make(24, 8, coupling=coupling, hidden_features=32).float()
    rough, z, context = bfloat16(flow), draw(4, 200, 24).float(), draw(4, 8).float()
    exact = flow.inverse(z, context)[0].detach()
    off = (rough.inverse(z, context)[0] - exact) / exact.std(dim=1, keepdim=True)
    assert 0 < off.abs().median() < 0.01
    assert off.abs().quantile(0.9) < 0.05
    assert rough.inverse(z, context)[0].dtype == torch.float32
    assert torch.equal(rough.log_prob(exact, context), flow.freeze().log_prob(exact, context))
    step = rough.steps[0]
    assert step.conditioner.first.dtype == torch.float32
    assert step.inverse_conditioner.first.dtype == torch.bfloat16


@every_kind
@pytest.mark.parametrize("frozen", [False, True])
def test_function_transforms(kind, frozen):
    flow, x, context = make(**kind), draw(3, 5), draw(3, 3)
    flow = flow.freeze() if frozen else flow
    log_prob = flow.log_prob(x, context).detach()
    assert_close(torch.func.vmap(flow.log_prob)(x, context), log_prob, 1e-10)
    shared = torch.func.vmap(flow.log_prob, in_dims=(0, None))(x, context[0])
    assert_close(shared[0], log_prob[0], 1e-10)
    others = torch.func.vmap(flow.log_prob, in_dims=(None, 0))(x[0], context)
    assert_close(others[0], log_prob[0], 1e-10)
    slopes = torch.func.vmap(torch.func.jacrev(flow.log_prob))(x, context)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(flow.log_prob(leaf, context).sum(), leaf)[0]
    assert_close(slopes, expected, 1e-10)


def test_no_tensor_is_born_on_the_cpu():
    for kind in ({"coupling": "additive"}, {"coupling": "contracting"}, {"coupling": "none"}):
        flow = ConditionalFlow(6, 4, anchored=True, hidden_features=16, **kind).to("meta").eval()
        x, context = torch.empty(3, 6, device="meta"), torch.empty(3, 4, device="meta")
        for model in (flow, flow.freeze()):
            results = [*model(x, context), *model.inverse(x, context), model.mode(context),
                       *model.sample_and_log_prob(context, 2), model.entropy(context)]  # fmt: skip
            assert all(result.is_meta for result in results)


@pytest.mark.slow
@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("frozen", [False, True])
def test_it_compiles_as_one_graph(coupling, frozen):
    flow = make(num_steps=1, num_blocks=0, coupling=coupling, base="student_t")
    x, context, model = draw(3, 5), draw(3, 3), flow.freeze() if frozen else flow

    def everything(x, context):
        log_prob = model.log_prob(x, context)
        nll, back = -log_prob.mean(), model.inverse(x, context)[0]
        return log_prob, nll, back, model.mode(context), model.sample(context, 4)

    torch.compiler.reset()
    compiled = torch.compile(everything, backend="aot_eager", fullgraph=True)
    *exact, samples = compiled(x, context)
    for ours, theirs in zip(exact, everything(x, context), strict=False):
        assert_close(ours, theirs.detach(), 1e-10)
    assert samples.shape == (3, 4, 5)
    assert samples.isfinite().all()


# --- construction --------------------------------------------------------------------------------


def test_the_parts_of_a_flow():
    flow = ConditionalFlow(5, 3, anchored=True, hidden_features=8, num_blocks=1, num_steps=2)
    assert all(isinstance(step, AnchoredStep) for step in flow.steps)
    assert all(step.actnorm.context_weight.shape == (5, 3) for step in flow.steps)
    assert [step.coupling.odd_moves for step in flow.steps] == [True, False]
    names = {name for name, _ in flow.named_parameters()}
    assert not any(name.endswith(("shift", "bias")) for name in names)
    linear = ConditionalFlow(5, 3, anchored=True, coupling="none")
    assert all(step.coupling is None for step in linear.steps)
    assert linear.options["anchored"]
    assert linear.options["coupling"] == "none"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"coupling": "affine"}, "coupling of an anchored flow must be one of"),
        ({"coupling": "spline"}, "coupling of an anchored flow must be one of"),
        ({"batch_norm": True}, "no batch norm"),
        ({"dropout": 0.1}, "no batch norm, no dropout"),
        ({"preset": "prohmr"}, "got preset 'prohmr'"),
        ({"lu_forward": "legacy"}, "lu_forward 'legacy'"),
        ({"coupling": "none", "anchored": False}, "coupling must be one of"),
        ({"coupling": "contracting", "anchored": False}, "coupling must be one of"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ConditionalFlow(4, 2, **{"anchored": True, **kwargs})


@pytest.mark.parametrize("part", ["actnorm", "linear", "coupling"])
def test_a_step_takes_only_parts_that_keep_the_origin(part):
    def coupling(anchored: bool):
        return AdditiveCoupling(4, 2, 8, 1, odd_moves=True, anchored=anchored)

    parts = {
        "actnorm": ActNorm(4, 2, shift=part == "actnorm"),
        "linear": LULinear(4, bias=part == "linear"),
        "coupling": coupling(part != "coupling"),
    }
    with pytest.raises(ValueError, match="an anchored step needs ActNorm without a shift"):
        AnchoredStep(**parts)
