import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior._checks import require_tensor
from flowprior.flow import ConditionalFlow, LULinear, stack
from tests import oracle
from tests.flow.helpers import assert_close, draw, load_oracle, random_flow

sizes = st.fixed_dictionaries(
    {
        "features": st.integers(2, 9),
        "context_features": st.integers(0, 5),
        "num_steps": st.integers(1, 5),
        "num_blocks": st.integers(0, 2),
        "batch_norm": st.booleans(),
        "seed": st.integers(0, 1000),
    }
)


# --- the numbers ---------------------------------------------------------------------------------


@given(size=sizes)
def test_it_equals_the_reference(size):
    flow, state = random_flow(**size)
    x, context = draw(6, size["features"]), draw(6, size["context_features"])
    arrays = state, x.numpy(), context.numpy()
    z, log_abs_det = flow(x, context)
    expected_z, expected_log_abs_det = oracle.forward(*arrays)
    assert_close(z, expected_z, 1e-10)
    assert_close(log_abs_det, expected_log_abs_det, 1e-10)
    assert_close(flow.log_prob(x, context), oracle.log_prob(*arrays), 1e-10)
    assert_close(flow.inverse(x, context)[0], oracle.inverse(*arrays)[0], 1e-10)
    assert_close(flow.mode(context), oracle.mode(state, context.numpy()), 1e-10)
    assert_close(flow.entropy(context), np.full(6, oracle.entropy(state)), 1e-10)


@pytest.mark.parametrize(("features", "context_features"), [(144, 2048), (48, 1024)])
def test_the_sizes_of_the_paper_equal_the_reference(features, context_features):
    flow, state = random_flow(features, context_features, hidden_features=1024, scale=0.5)
    x, context = draw(3, features), draw(3, context_features)
    arrays = state, x.numpy(), context.numpy()
    z, _ = flow(x, context)
    assert_close(z, oracle.forward(*arrays)[0], 1e-10)
    assert_close(flow.log_prob(x, context), oracle.log_prob(*arrays), 1e-10)
    assert_close(flow.mode(context), oracle.mode(state, context.numpy()), 1e-10)
    samples, log_prob = flow.sample_and_log_prob(context, 2)
    for n in range(2):
        drawn = samples[:, n].detach().numpy()
        assert_close(log_prob[:, n], oracle.log_prob(state, drawn, context.numpy()), 1e-10)

    single = copy.deepcopy(flow).float()
    x, context = x.float(), context.float()
    assert_close(single.inverse(single(x, context)[0], context)[0], x, 1e-4)
    assert_close(single.log_prob(x, context), oracle.log_prob(*arrays), 1e-3)


@pytest.mark.parametrize(
    ("features", "context_features", "parameters"),
    [(144, 2048, 25_893_856), (48, 1024, 21_231_264)],
)
def test_the_original_preset_has_the_original_parameters(features, context_features, parameters):
    with torch.device("meta"):
        flow = ConditionalFlow(features, context_features, preset="prohmr")
    assert sum(p.numel() for p in flow.parameters()) == parameters
    assert {m.p for m in flow.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}


def test_training_mode_of_the_original_equals_the_reference():
    _, state = random_flow(6, 4)
    flow = load_oracle(state).train()
    x, context = draw(8, 6), draw(8, 4)
    expected, _ = oracle.forward(state, x.numpy(), context.numpy(), train=True)
    assert_close(flow(x, context)[0], expected, 1e-10)
    after = load_oracle(state).state_dict()
    for name, value in flow.state_dict().items():
        torch.testing.assert_close(value, after[name], rtol=0, atol=1e-12)


def test_a_new_flow_is_close_to_the_identity():
    flow = ConditionalFlow(144, 16)
    x = torch.randn(5, 144)
    assert (flow.eval()(x, torch.randn(5, 16))[0] - x).abs().max() < 0.03


def test_the_first_training_batch_sets_every_actnorm():
    state = oracle.random_state_dict(6, 4, hidden_features=16)
    for name in state:
        if name.endswith("initialized"):
            state[name] = np.array(False)
    flow = load_oracle(state).train()
    x, context = 3 * draw(20, 6) + 1, draw(20, 4)
    assert not flow.is_initialized()
    z, _ = flow(x, context)
    assert flow.is_initialized()
    assert_close(z, oracle.forward(state, x.numpy(), context.numpy(), train=True)[0], 1e-10)


# --- the mathematics -----------------------------------------------------------------------------


@given(size=sizes)
def test_round_trip_both_ways(size):
    flow, _ = random_flow(**size)
    x, context = draw(4, 3, size["features"]), draw(4, size["context_features"])
    z, forward = flow(x, context)
    back, inverse = flow.inverse(z, context)
    assert_close(back, x, 1e-10)
    assert_close(forward + inverse, torch.zeros(4, 3), 1e-10)
    assert_close(flow(flow.inverse(x, context)[0], context)[0], x, 1e-10)


@given(size=sizes)
def test_log_abs_det_equals_the_full_jacobian(size):
    flow, _ = random_flow(**size)
    x, context = draw(size["features"]), draw(size["context_features"])
    for direction in (flow.forward, flow.inverse):
        jacobian, log_abs_det = (
            torch.func.jacrev(direction)(x, context)[0],
            direction(x, context)[1],
        )
        assert_close(log_abs_det, torch.linalg.slogdet(jacobian).logabsdet, 1e-8)


@pytest.mark.parametrize("training", [False, True])
def test_samples_carry_their_log_prob(training):
    flow, _ = random_flow(7, 4, batch_norm=False)
    flow.train(training)
    context = draw(3, 4)
    samples, log_prob = flow.sample_and_log_prob(context, 5)
    assert samples.shape == (3, 5, 7)
    assert_close(flow.log_prob(samples, context), log_prob.detach(), 1e-10)


def test_density_is_highest_at_the_mode():
    flow, _ = random_flow(6, 4)
    context = draw(3, 4)
    _, log_prob = flow.sample_and_log_prob(context, 1000)
    mode = flow.mode(context).detach().requires_grad_()
    at_mode = flow.log_prob(mode, context)
    assert (log_prob <= at_mode[:, None]).all()
    assert_close(torch.autograd.grad(at_mode.sum(), mode)[0], torch.zeros(3, 6), 1e-10)


def test_entropy_is_the_mean_surprise_of_samples():
    flow, _ = random_flow(6, 4)
    context = draw(2, 4)
    log_prob = flow.sample_and_log_prob(context, 20_000)[1].detach()
    error = log_prob.std() / math.sqrt(20_000)
    assert ((-log_prob.mean(dim=1) - flow.entropy(context)).abs() < 5 * error).all()


def test_the_density_integrates_to_one():
    flow, _ = random_flow(2, 3, batch_norm=False)
    context = draw(3)
    centre = flow.mode(context).detach()
    axis = torch.linspace(-20, 20, 401, dtype=torch.float64)
    grid = centre + torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(grid, context).exp().sum() * (axis[1] - axis[0]) ** 2
    assert_close(mass, 1.0, 1e-3)


def test_gradients():
    flow, _ = random_flow(5, 3)
    x, context = draw(2, 5).requires_grad_(), draw(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(flow.log_prob, (x, context))
    assert torch.autograd.gradcheck(lambda z, c: flow.inverse(z, c)[0], (x, context))


def test_every_parameter_gets_a_gradient_from_log_prob_and_from_samples():
    for call in (lambda f, x, c: f.log_prob(x, c), lambda f, x, c: f.sample(c, 2)):
        flow, _ = random_flow(5, 3)
        call(flow, draw(4, 5), draw(4, 3)).square().sum().backward()
        for name, parameter in flow.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("preset", ["default", "prohmr"])
def test_rows_do_not_see_their_neighbours(preset):
    flow, _ = random_flow(6, 4, batch_norm=preset == "prohmr")
    x, context = draw(8, 6), draw(8, 4)
    together = flow.log_prob(x, context)
    for row in range(8):
        alone = flow.log_prob(x[row : row + 1], context[row : row + 1])[0]
        assert_close(alone, together[row].detach(), 1e-10)


def test_our_preset_is_the_same_in_training():
    flow, _ = random_flow(6, 4, batch_norm=False)
    x, context = draw(8, 6), draw(8, 4)
    evaluated = flow.log_prob(x, context)
    assert torch.equal(flow.train().log_prob(x, context), evaluated)


# --- shapes --------------------------------------------------------------------------------------


def test_leading_axes():
    flow, _ = random_flow(6, 4)
    context = draw(2, 3, 4)
    assert flow.sample(context, 5).shape == (2, 3, 5, 6)
    assert flow.sample(context, 0).shape == (2, 3, 0, 6)
    assert flow.mode(context).shape == (2, 3, 6)
    assert flow.entropy(context).shape == (2, 3)
    assert flow.log_prob(draw(2, 3, 6), context).shape == (2, 3)
    assert flow.log_prob(draw(2, 3, 5, 7, 6), context).shape == (2, 3, 5, 7)
    assert flow.sample(draw(0, 4), 5).shape == (0, 5, 6)
    assert flow.sample(draw(4), 5).shape == (5, 6)


def test_a_row_shares_its_context_over_extra_axes():
    flow, _ = random_flow(6, 4)
    x, context = draw(3, 5, 6), draw(3, 4)
    repeated = context[:, None].expand(3, 5, 4)
    assert_close(flow.log_prob(x, context), flow.log_prob(x, repeated).detach(), 1e-12)


def test_without_context():
    flow, _ = random_flow(6, 0)
    assert flow.sample(None, 5).shape == (5, 6)
    assert flow.mode().shape == (6,)
    assert flow.entropy().shape == ()
    x = draw(3, 6)
    assert_close(flow.log_prob(x), flow.log_prob(x, draw(3, 0)).detach(), 1e-12)


def test_a_projected_context_stands_in_for_the_context():
    flow, _ = random_flow(6, 4)
    x, context = draw(3, 6), draw(3, 4)
    projected = flow.project_context(context)
    assert projected.batch_shape == (3,)
    assert torch.equal(flow.log_prob(x, projected), flow.log_prob(x, context))
    assert torch.equal(flow.mode(projected), flow.mode(context))


def test_a_generator_decides_the_samples():
    flow, _ = random_flow(6, 4)
    draws = [
        flow.sample(draw(3, 4), 5, generator=torch.Generator().manual_seed(seed))
        for seed in (7, 7, 8)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


# --- devices, dtypes, transforms -----------------------------------------------------------------


def test_no_tensor_is_born_on_the_cpu():
    flow = ConditionalFlow(6, 4, preset="prohmr", hidden_features=16).to("meta")
    context = torch.empty(3, 4, device="meta")
    for training in (True, False):
        flow.train(training)
        results = [
            *flow(torch.empty(3, 6, device="meta"), context),
            *flow.inverse(torch.empty(3, 6, device="meta"), context),
            *flow.sample_and_log_prob(context, 2),
            flow.mode(context),
            flow.entropy(context),
        ]
        assert all(result.is_meta for result in results)


def test_the_default_dtype_does_not_matter():
    flow, _ = random_flow(6, 4)
    x, context = draw(3, 6), draw(3, 4)
    expected = flow.log_prob(x, context)
    try:
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            assert torch.equal(flow.log_prob(x, context), expected)
            assert flow.sample(context).dtype == torch.float64
            assert copy.deepcopy(flow).float().mode(context.float()).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast_changes_nothing():
    flow, _ = random_flow(6, 4)
    flow.float()
    x, context = draw(3, 6).float(), draw(3, 4).float()
    expected = flow.log_prob(x, context)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow.log_prob(x, context), expected)
        assert_close(flow.inverse(flow(x, context)[0], context)[0], x, 1e-4)


def test_half_precision_weights_compute_in_single():
    flow, _ = random_flow(6, 4)
    flow.bfloat16()
    x, context = draw(3, 6).bfloat16(), draw(3, 4).bfloat16()
    z, log_abs_det = flow(x, context)
    assert z.dtype == log_abs_det.dtype == torch.float32
    assert_close(flow.inverse(z, context)[0], x.float(), 0.05)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(clone):
    flow, _ = random_flow(6, 4)
    x, context = draw(3, 6), draw(3, 4)
    assert torch.equal(clone(flow).log_prob(x, context), flow.log_prob(x, context))


def test_function_transforms():
    flow, _ = random_flow(6, 4)
    x, context = draw(3, 6), draw(3, 4)
    log_prob = flow.log_prob(x, context).detach()
    assert_close(torch.func.vmap(flow.log_prob)(x, context), log_prob, 1e-12)
    shared = torch.func.vmap(flow.log_prob, in_dims=(0, None))(x, context[0])
    assert_close(shared[0], log_prob[0], 1e-12)
    gradient = torch.func.vmap(torch.func.grad(flow.log_prob))(x, context)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(flow.log_prob(leaf, context).sum(), leaf)[0]
    assert_close(gradient, expected, 1e-10)


@pytest.mark.slow
def test_it_compiles_into_one_graph():
    flow, _ = random_flow(6, 4, num_steps=2, num_blocks=1)
    x, context = draw(3, 6), draw(3, 4)

    def both_ways(x, context):
        z, log_abs_det = flow(x, context)
        return flow.inverse(z, context)[0], log_abs_det

    compiled = torch.compile(both_ways, fullgraph=True, backend="aot_eager")
    back, log_abs_det = compiled(x, context)
    assert_close(back, x, 1e-10)
    assert_close(log_abs_det, flow(x, context)[1].detach(), 1e-12)


def test_sampling_and_evaluating_leave_the_state_alone():
    flow = ConditionalFlow(6, 4, hidden_features=16, preset="prohmr").double().eval()
    before = copy.deepcopy(flow.state_dict())
    flow.sample(draw(3, 4), 2)
    flow.log_prob(draw(3, 6), draw(3, 4))
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())


def test_the_defaults_are_those_of_the_documentation():
    flow, original = ConditionalFlow(6, 3), ConditionalFlow(6, 3, preset="prohmr")
    same = {
        "hidden_features": 1024,
        "num_steps": 4,
        "num_blocks": 2,
        "coupling": "additive",
        "lu_forward": "exact",
        "anchored": False,
        "base": "normal",
    }
    ours = {"preset": "default", "batch_norm": False, "dropout": 0.0, "context_norm": True}
    theirs = {"preset": "prohmr", "batch_norm": True, "dropout": 0.5, "context_norm": False}
    assert flow.options == same | ours
    assert original.options == same | theirs
    assert ConditionalFlow(6).context_features == 0
    assert len(flow.steps) == 4
    assert all(step.coupling.keeps_volume for step in flow.steps)
    assert not any(step.linear.legacy_forward for step in flow.steps)
    conditioner = flow.steps[0].coupling.conditioner
    assert conditioner.output.in_features == 1024
    assert len(conditioner.blocks) == 2
    assert all(step.actnorm.context_weight.shape == (12, 3) for step in flow.steps)
    blocks = original.steps[0].coupling.conditioner.blocks
    assert {block.dropout.p for block in blocks} == {0.5}


def test_the_smallest_flow():
    flow = ConditionalFlow(2, 1, hidden_features=1, num_steps=1, num_blocks=0).double().eval()
    x, context = draw(3, 2), draw(3, 1)
    assert_close(flow.inverse(flow(x, context)[0], context)[0], x, 1e-9)
    assert flow.entropy(context).shape == (3,)


def test_a_context_projected_by_another_flow_is_refused():
    flow, other = (random_flow(6, 4, num_steps=steps)[0] for steps in (2, 3))
    projected, x = other.project_context(draw(3, 4)), draw(3, 6)
    for call in (flow.forward, flow.inverse, lambda _, c: flow.entropy(c)):
        with pytest.raises(ValueError, match="longer"):
            call(x, projected)


def test_a_large_training_batch_sets_every_actnorm_from_all_rows(monkeypatch):
    rows, context = draw(40, 6), draw(40, 4)
    flows = [random_flow(6, 4)[0].train() for _ in range(2)]
    for flow, block in zip(flows, (4, 512), strict=True):
        monkeypatch.setattr(stack, "CPU_BLOCK", block)
        for step in flow.steps:
            step.actnorm.initialized.fill_(False)
            step.actnorm._seen_initialized = False
        with torch.no_grad():
            flow(rows, context)
    for ours, theirs in zip(flows[0].parameters(), flows[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.log_prob(draw(3, 5), draw(3, 4)), r"x must have shape \(..., 6\), got \(3, 5"),
        (lambda f: f.log_prob(draw(3, 6), draw(3, 5)), r"context must have shape \(..., 4\)"),
        (lambda f: f.log_prob(draw(3, 6), draw(2, 4)), r"batch shape \(2,\)"),
        (lambda f: f.log_prob(draw(6), draw(2, 4)), r"leading shape \(\)"),
        (lambda f: f.inverse(draw(3, 5), draw(3, 4)), r"z must have shape"),
        (lambda f: f.log_prob(draw(3, 6)), r"needs a context of shape \(..., 4\)"),
        (lambda f: f.sample(draw(3, 4), -1), r"num_samples must be a whole number"),
        (lambda f: f.sample(draw(3, 4), 2.0), r"num_samples must be a whole number"),
        (lambda f: f.log_prob(draw(3, 6).long(), draw(3, 4)), r"x must be floating point"),
        (lambda f: f.float().mode(draw(3, 4)), r"context is torch.float64, .* torch.float32"),
        (lambda f: f.mode(draw(3, 4).to("meta")), r"context is on meta"),
        (lambda f: f.mode(torch.tensor(1.0)), r"context must have shape \(..., 4\), got \(\)"),
    ],
)
def test_bad_calls(call, message):
    flow, _ = random_flow(6, 4)
    with pytest.raises(ValueError, match=message):
        call(flow)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"preset": "glow"}, "preset must be one of"),
        ({"features": 1}, "features must be a whole number of at least 2, got 1"),
        ({"context_features": -1}, "context_features must be a whole number of at least 0"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1"),
        ({"hidden_features": 0}, "hidden_features must be a whole number of at least 1"),
        ({"num_blocks": -1}, "num_blocks must be a whole number of at least 0"),
        ({"context_features": "4"}, "context_features must be a whole number"),
        ({"dropout": 1.5}, "dropout"),
    ],
)
def test_bad_sizes(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ConditionalFlow(**{"features": 6, "context_features": 4, **kwargs})


def test_an_unconditional_flow_takes_no_context():
    flow, _ = random_flow(6, 0)
    with pytest.raises(ValueError, match=r"takes no context .* shape \(3, 4\)"):
        flow.mode(draw(3, 4))
    assert flow.mode(draw(3, 0)).shape == (3, 6)


@pytest.mark.parametrize("value", [[1.0], (1.0,), np.ones(1)], ids=["list", "tuple", "array"])
def test_conversion_hint_only_for_convertible_input(value):
    with pytest.raises(TypeError, match=r"torch\.as_tensor converts arrays"):
        require_tensor("x", value)
    with pytest.raises(TypeError, match=r"got dict$"):
        require_tensor("x", {"x": value})


def test_counts_of_numpy_are_counts():
    flow, _ = random_flow(6, 4)
    assert flow.sample(draw(3, 4), np.int64(2)).shape == (3, 2, 6)


def test_arrays_are_refused_by_name():
    flow, _ = random_flow(6, 4)
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got ndarray"):
        flow.log_prob(np.zeros((3, 6)), draw(3, 4))


def test_one_sample_if_no_number_is_given():
    flow = ConditionalFlow(4, 2, hidden_features=8)
    assert flow.sample(torch.zeros(3, 2)).shape == (3, 1, 4)
    assert flow.freeze().sample(torch.zeros(3, 2)).shape == (3, 1, 4)


@pytest.mark.parametrize("context_features", [0, 2])
def test_error_for_a_context_that_is_not_a_tensor(context_features):
    flow = ConditionalFlow(4, context_features, hidden_features=8)
    with pytest.raises(TypeError, match=r"^context must be a torch.Tensor"):
        flow.project_context(np.zeros((3, 2)))


def test_legacy_lu_is_that_of_every_step():
    flow = ConditionalFlow(4, 2, hidden_features=8, num_steps=3, lu_forward="legacy")
    exact = ConditionalFlow(4, 2, hidden_features=8, num_steps=3)
    for module in (*flow.modules(), *exact.modules()):
        if isinstance(module, LULinear):
            assert module.legacy_forward == any(module is other for other in flow.modules())


def test_one_sample_with_its_density_if_no_number_is_given():
    flow = ConditionalFlow(4, 2, hidden_features=8)
    x, log_prob = flow.sample_and_log_prob(torch.zeros(3, 2))
    assert (x.shape, log_prob.shape) == ((3, 1, 4), (3, 1))


@pytest.mark.parametrize(
    "index",
    [0, -1, slice(1, 3), [2, 0, 2], torch.tensor([True, False, True]), (1, 0), (..., 1), ()],
    ids=str,
)
def test_contexts_are_selected_as_tensors_are(index):
    flow = ConditionalFlow(4, 2, hidden_features=8, context_norm=True)
    context, rows = torch.randn(3, 2, 2), torch.arange(6).reshape(3, 2)[index]
    selected = flow.project_context(context).select(index)
    expected = flow.project_context(context.flatten(0, 1)[rows])
    assert selected.batch_shape == rows.shape
    for step, wanted in zip(selected.steps, expected.steps, strict=True):
        torch.testing.assert_close(step.hidden, wanted.hidden)
        torch.testing.assert_close(step.norm, wanted.norm)


@pytest.mark.parametrize("index", [3, (0, 0, 0), (..., 2)], ids=str)
def test_a_selection_outside_the_batch(index):
    projected = ConditionalFlow(4, 2, hidden_features=8).project_context(torch.randn(3, 2, 2))
    with pytest.raises(IndexError):
        projected.select(index)


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [({}, True, False), ({"preset": "prohmr"}, True, True), ({"batch_norm": True}, True, True)],
    ids=str,
)
def test_dependence_on_the_batch(options, before, after):
    flow = ConditionalFlow(4, 2, hidden_features=8, **options)
    assert flow.depends_on_batch == before
    flow(torch.randn(5, 4), torch.randn(5, 2))
    assert flow.depends_on_batch == after
    assert not flow.eval().depends_on_batch


def test_initialisation_without_noise_is_the_original_s():
    x, context = torch.randn(5, 4), torch.randn(5, 2)
    for preset, initialized in (("default", False), ("prohmr", True)):
        flow = ConditionalFlow(4, 2, hidden_features=8, preset=preset)
        flow.eval().initialize_without_noise(x, context)
        assert not flow.is_initialized()
        flow.train().initialize_without_noise(x, context)
        assert flow.is_initialized() == initialized


def test_contexts_expand_to_any_batch_that_broadcasts():
    flow = ConditionalFlow(4, 2, hidden_features=8, context_norm=True)
    projected = flow.project_context(torch.randn(2, 1, 2))
    expanded = projected.expand(torch.Size([5, 2, 3]))
    for step, more in zip(projected.steps, expanded.steps, strict=True):
        assert more.hidden.shape == (5, 2, 3, step.hidden.shape[-1])
        assert more.norm.shape == (5, 2, 3, 8)
        assert torch.equal(more.hidden[4, :, 2], step.hidden[:, 0])
        assert torch.equal(more.norm[4, :, 2], step.norm[:, 0])


@pytest.mark.parametrize("context_norm", [True, False])
def test_a_context_projected_in_inference_mode_has_a_mode_outside(context_norm):
    flow = ConditionalFlow(4, 2, hidden_features=8, coupling="affine", context_norm=context_norm)
    with torch.inference_mode():
        projected = flow.project_context(torch.randn(3, 2))
    assert flow.mode(projected, max_steps=3).isfinite().all()


def test_another_form_of_the_lu_is_refused():
    with pytest.raises(ValueError, match=r"lu_forward must be one of .*'exact'.* got 'new'"):
        ConditionalFlow(4, lu_forward="new")
