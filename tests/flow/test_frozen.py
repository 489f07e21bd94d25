import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.flow import ConditionalFlow, FrozenFlow, stack
from flowprior.flow.conditioner_dtype import faster_conditioner_dtype
from tests.flow.helpers import assert_close, draw, random_flow

sizes = st.fixed_dictionaries(
    {
        "features": st.integers(2, 9),
        "context_features": st.integers(0, 5),
        "num_steps": st.integers(1, 5),
        "num_blocks": st.integers(0, 3),
        "batch_norm": st.booleans(),
        "seed": st.integers(0, 1000),
    }
)
options = st.fixed_dictionaries(
    {
        "coupling": st.sampled_from(["additive", "affine", "spline"]),
        "context_norm": st.booleans(),
        "batch_norm": st.booleans(),
        "num_steps": st.integers(1, 3),
        "num_blocks": st.integers(0, 2),
        "context_features": st.integers(0, 4),
        "features": st.integers(2, 7),
    }
)


def scrambled_flow(features: int = 6, context_features: int = 4, **kwargs) -> ConditionalFlow:
    """A float64 flow with every weight and running statistic away from its start."""
    flow = ConditionalFlow(features, context_features, hidden_features=16, **kwargs).double()
    with torch.no_grad():
        for value in flow.parameters():
            value.add_(0.2 * torch.randn_like(value))
        for name, value in flow.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                value.normal_()
            elif name.endswith("initialized"):
                value.fill_(True)
    flow.temperature.fill_(1.3)
    return flow.eval()


def assert_same_flow(actual, expected, x, context, tolerance=1e-9) -> None:
    for ours, theirs in zip(actual(x, context), expected(x, context), strict=True):
        assert_close(ours, theirs, tolerance)
    for ours, theirs in zip(actual.inverse(x, context), expected.inverse(x, context), strict=True):
        assert_close(ours, theirs, tolerance)
    assert_close(actual.log_prob(x, context), expected.log_prob(x, context), tolerance)
    if expected.has_exact_mode:
        assert_close(actual.mode(context), expected.mode(context), tolerance)
    if expected.has_closed_entropy:
        assert_close(actual.entropy(context), expected.entropy(context), tolerance)


@given(size=sizes)
def test_it_equals_the_flow_of_the_reference(size):
    flow, _ = random_flow(**size)
    context = draw(4, size["context_features"])
    assert_same_flow(flow.freeze(), flow, draw(4, 3, size["features"]), context)


@given(kwargs=options)
def test_it_equals_the_flow_of_every_option(kwargs):
    flow = scrambled_flow(**kwargs)
    x, context = draw(3, 2, kwargs["features"]), draw(3, kwargs["context_features"])
    assert_same_flow(flow.freeze(), flow, x, context)


def test_the_legacy_forward_is_frozen_as_such():
    flow = scrambled_flow(lu_forward="legacy")
    assert_same_flow(flow.freeze(), flow, draw(3, 6), draw(3, 4))


@given(kwargs=options)
def test_inverse_and_log_det_agree_with_the_jacobian(kwargs):
    frozen = scrambled_flow(**kwargs).freeze()
    x, context = draw(2, kwargs["features"]), draw(2, kwargs["context_features"])
    z, log_abs_det = frozen(x, context)
    back, inverse_log_abs_det = frozen.inverse(z, context)
    assert_close(back, x, 1e-8)
    assert_close(log_abs_det + inverse_log_abs_det, torch.zeros(2), 1e-8)
    for row in range(2):
        jacobian = torch.func.jacrev(lambda v, row=row: frozen(v, context[row])[0])(x[row])
        assert_close(log_abs_det[row], torch.linalg.slogdet(jacobian)[1], 1e-8)


def test_gradients_reach_x_and_context_but_no_weight():
    flow = scrambled_flow(context_norm=True)
    frozen = flow.freeze()
    x, context = draw(3, 6).requires_grad_(), draw(3, 4).requires_grad_()
    for model in (frozen.log_prob, lambda z, c: frozen.inverse(z, c)[0]):
        assert torch.autograd.gradcheck(model, (x, context))
    expected = torch.autograd.grad(flow.log_prob(x, context).sum(), (x, context))
    actual = torch.autograd.grad(frozen.log_prob(x, context).sum(), (x, context))
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs, 1e-9)
    assert not list(frozen.parameters())


def test_in_float32_it_is_as_exact_as_the_flow():
    flow, _ = random_flow(144, 64, hidden_features=128, scale=0.5)
    x, context = draw(8, 144), draw(8, 64)
    exact, z = flow.log_prob(x, context), flow(x, context)[0]
    flow = flow.float()
    frozen = flow.freeze()
    assert frozen.dtype == torch.float32
    x, z, context = x.float(), z.float(), context.float()
    assert_close(frozen.log_prob(x, context), exact, 1e-3)
    assert_close(frozen.inverse(z, context)[0], x, 1e-4)
    assert_close(frozen.inverse(frozen(x, context)[0], context)[0], x, 1e-4)


def test_a_bfloat16_conditioner_moves_samples_little_and_densities_not_at_all():
    flow = ConditionalFlow(48, 16, hidden_features=128).eval()
    with torch.no_grad():
        for name, value in flow.named_parameters():
            if name.endswith(("linears.1.weight", "output.weight")):
                value.normal_(std=128**-0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a CPU without such arithmetic
        rough = flow.freeze(torch.bfloat16)
    z, context = torch.randn(4, 200, 48), torch.randn(4, 16)
    exact = flow.inverse(z, context)[0]
    off = (rough.inverse(z, context)[0] - exact) / exact.std(dim=1, keepdim=True)
    assert 0 < off.square().mean().sqrt() < 0.02
    assert rough.inverse(z, context)[0].dtype == torch.float32
    assert torch.equal(rough.log_prob(exact, context), flow.freeze().log_prob(exact, context))


def test_a_dtype_without_fractions_is_refused():
    with pytest.raises(ValueError, match="floating point"):
        ConditionalFlow(4, 2).freeze(torch.int8)


def test_error_names_a_processor_without_the_arithmetic(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with pytest.warns(UserWarning, match="bfloat16"):
        ConditionalFlow(4, 2).freeze(torch.bfloat16)


def test_frozen_flow_stays_in_evaluation_mode():
    flow = scrambled_flow(batch_norm=True, dropout=0.5)
    frozen = flow.freeze()
    x, context = draw(5, 6), draw(5, 4)
    before = frozen.log_prob(x, context)
    assert not frozen.train().training
    assert not any(module.training for module in frozen.modules())
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
    flow.temperature.fill_(9.0)
    assert torch.equal(frozen.log_prob(x, context), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frozen_flow_shares_no_memory_and_has_no_gradient(dtype):
    flow = scrambled_flow(context_norm=True, batch_norm=True).to(dtype)
    frozen = flow.freeze()
    theirs = {value.data_ptr() for value in flow.state_dict(keep_vars=True).values()}
    for name, value in frozen.named_buffers():
        assert value.data_ptr() not in theirs, name
        assert not value.requires_grad
        assert value.is_contiguous(), name
        assert value.dtype in (dtype, torch.int64)
    assert not any(name.endswith(("order", "place")) for name in frozen.state_dict())
    assert not list(frozen.parameters())


def test_it_takes_another_dtype_for_the_inverse_alone():
    frozen = scrambled_flow().float().freeze(torch.float64)
    step = frozen.steps[0]
    assert step.conditioner.input.dtype == torch.float32
    assert step.inverse_conditioner.input.dtype == torch.float64
    assert scrambled_flow().freeze(torch.float64).steps[0].inverse_conditioner is None
    assert scrambled_flow().freeze().steps[0].inverse_conditioner is None


@pytest.mark.parametrize(
    ("capability", "dtype", "warns"),
    [
        ("AVX2", torch.bfloat16, True),
        ("DEFAULT", torch.float16, True),
        ("AVX512", torch.bfloat16, False),
        ("AVX2", torch.float64, False),
    ],
)
def test_only_processors_without_the_arithmetic_are_named(monkeypatch, capability, dtype, warns):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ConditionalFlow(4, 2, hidden_features=8).freeze(dtype)
    assert bool(caught) == warns


def test_copies_and_moves_keep_the_numbers():
    frozen = scrambled_flow().freeze()
    x, context = draw(5, 6), draw(5, 4)
    expected = frozen.log_prob(x, context)
    for other in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert isinstance(other, FrozenFlow)
        assert torch.equal(other.log_prob(x, context), expected)
    single = copy.deepcopy(frozen).float()
    assert single.log_prob(x.float(), context.float()).dtype == torch.float32


@pytest.mark.parametrize("make", [lambda f: f, ConditionalFlow.freeze], ids=["flow", "frozen"])
@pytest.mark.parametrize("context_features", [0, 4])
def test_results_do_not_depend_on_the_size_of_the_blocks(monkeypatch, make, context_features):
    flow = make(scrambled_flow(context_features=context_features, context_norm=True))
    batch = (3, 2) if context_features else ()
    z, context = draw(*batch, 7, 5, 6), draw(*batch, 4) if context_features else None
    with torch.no_grad():
        expected = flow.inverse(z, context), flow.forward(z, context)
        for size in (1, 4, 5, 36, 100):
            monkeypatch.setattr(stack, "CPU_BLOCK", size)
            actual = flow.inverse(z, context), flow.forward(z, context)
            for ours, theirs in zip(actual, expected, strict=True):
                assert_close(ours[0], theirs[0], 1e-10)
                assert_close(ours[1], theirs[1], 1e-10)


def test_samples_of_a_seed_do_not_depend_on_the_size_of_the_blocks(monkeypatch):
    flow, context = scrambled_flow().freeze(), draw(3, 4)

    def sample() -> torch.Tensor:
        return flow.sample(context, 50, generator=torch.Generator().manual_seed(3))

    expected = sample()
    monkeypatch.setattr(stack, "CPU_BLOCK", 7)
    assert_close(sample(), expected, 1e-10)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_compiles_as_one_graph(frozen):
    flow = scrambled_flow(context_norm=True, num_steps=2)
    model = flow.freeze() if frozen else flow
    x, context = draw(3, 6), draw(3, 4)
    torch.compiler.reset()
    log_prob = torch.compile(model.log_prob, backend="aot_eager", fullgraph=True)
    assert_close(log_prob(x, context), model.log_prob(x, context), 1e-10)
    decode = torch.compile(model.inverse, backend="aot_eager", fullgraph=True)
    z = draw(3, 700, 6)
    assert_close(decode(z, context)[0], model.inverse(z, context)[0], 1e-10)


@pytest.mark.slow
def test_a_training_step_compiles_as_one_graph():
    flow = scrambled_flow(context_norm=True, num_steps=2)
    x, context = draw(8, 6), draw(8, 4)
    torch.compiler.reset()

    def loss(x, context):
        return -flow.log_prob(x, context).mean() + flow.mode(context).abs().mean()

    gradients = []
    for call in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        flow.zero_grad()
        call(x, context).backward()
        gradients.append([p.grad.clone() for p in flow.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, 1e-10)


def test_frozen_flow_does_not_depend_on_the_original_weights():
    frozen = scrambled_flow(context_norm=True, batch_norm=True).eval().freeze()
    tensors = [*frozen.parameters(), *frozen.buffers()]
    for module in frozen.modules():
        tensors += [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
    assert tensors
    assert all(not value.requires_grad and value.grad_fn is None for value in tensors)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 1), (1,), (2, 1, 3)])
def test_contexts_in_any_batch(shape):
    flow = scrambled_flow(context_norm=True).eval()
    context, x = draw(*shape, 4), draw(*shape, 6)
    assert_close(flow.freeze().log_prob(x, context), flow.log_prob(x, context), 1e-9)
    assert_close(flow.freeze().mode(context), flow.mode(context), 1e-9)


def test_bfloat16_networks_take_a_single_context():
    flow = scrambled_flow(context_norm=True).float().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a CPU without such arithmetic
        frozen = flow.freeze(conditioner_dtype=torch.bfloat16)
    x = frozen.sample(torch.zeros(1, 4), 5)
    assert x.shape == (1, 5, 6)
    assert x.dtype == torch.float32


def test_it_is_in_evaluation_mode_from_the_start():
    frozen = scrambled_flow().train().freeze()
    assert not any(module.training for module in frozen.modules())
    assert not any(module.training for module in frozen.train().modules())


# --- the choice of a dtype -----------------------------------------------------------------------


@pytest.fixture
def amx(monkeypatch):
    """Say whether the processor has AMX."""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)

    def say(supported: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: supported, raising=False)

    return say


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, None)])
def test_auto_takes_bfloat16_where_the_processor_has_amx(amx, supported, dtype):
    amx(supported)
    frozen = scrambled_flow().float().freeze("auto")
    rough = frozen.steps[0].inverse_conditioner
    assert (None if rough is None else rough.input.dtype) == dtype
    assert frozen.steps[0].conditioner.input.dtype == torch.float32


@pytest.mark.parametrize(
    ("limit", "dtype"),
    [("AVX2", None), ("AVX512_CORE_BF16", None), ("AVX512_CORE_AMX", torch.bfloat16),
     ("default", torch.bfloat16)],
)  # fmt: skip
def test_auto_obeys_a_limit_on_instructions(amx, monkeypatch, limit, dtype):
    amx(True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert faster_conditioner_dtype(torch.float32, torch.device("cpu")) == dtype


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), None), ((8, 0), torch.bfloat16)])
def test_auto_follows_the_compute_capability(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert faster_conditioner_dtype(torch.float32, torch.device("cuda:1")) == dtype


def test_auto_never_warns_and_leaves_densities_alone():
    flow = scrambled_flow().float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # whatever the CPU has
        frozen = flow.freeze("auto")
    x, context = draw(5, 6).float(), draw(5, 4).float()
    assert torch.equal(frozen.log_prob(x, context), flow.freeze().log_prob(x, context))


@pytest.mark.parametrize("convert", [torch.nn.Module.double, lambda flow: flow.to("meta")])
def test_auto_keeps_the_dtype_without_alternative(amx, convert):
    amx(True)
    assert convert(scrambled_flow().float()).freeze("auto").steps[0].inverse_conditioner is None


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="floating point or 'auto', got 'fast'"):
        scrambled_flow().freeze("fast")


@pytest.mark.parametrize(
    "options",
    [{}, {"coupling": "spline"}, {"batch_norm": True}, {"anchored": True, "base": "student_t"}],
    ids=str,
)
def test_nothing_of_a_frozen_flow_takes_a_gradient(options):
    frozen = ConditionalFlow(4, 3, hidden_features=8, num_steps=2, **options).freeze()
    values = [*frozen.parameters(), *frozen.buffers()]
    assert values
    assert not any(value.requires_grad for value in values)
