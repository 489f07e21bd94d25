import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.flow import AnchoredConditioner
from tests.flow.helpers import assert_close, draw

sizes = st.fixed_dictionaries(
    {
        "in_features": st.integers(1, 6),
        "out_features": st.integers(1, 6),
        "context_features": st.integers(0, 4),
        "hidden_features": st.integers(1, 20),
        "num_blocks": st.integers(0, 3),
    }
)


def make(seed: int = 0, **size: int) -> AnchoredConditioner:
    """A float64 network with every weight away from its start."""
    network = AnchoredConditioner(**size).double()
    for index, parameter in enumerate(network.parameters()):
        parameter.data += 0.3 * draw(*parameter.shape, seed=seed + index)
    return network


@given(size=sizes, seed=st.integers(0, 999), scale=st.floats(0, 1e6))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_output_at_the_origin_is_exactly_zero(dtype, size, seed, scale):
    network = make(seed, **size)
    context = (scale * draw(3, size["context_features"], seed=seed)).clamp(-1e3, 1e3)
    network = network.to(dtype)
    projected = network.project_context(context.to(dtype))
    out = network(torch.zeros(3, size["in_features"], dtype=dtype), projected)
    assert out.shape == (3, size["out_features"])
    assert out.eq(0).all()


@given(size=sizes)
def test_conditioner_equals_its_formula(size):
    network, x = make(**size), draw(4, size["in_features"])
    context = draw(4, size["context_features"])
    thresholds = network.threshold.expand(4, -1)
    if size["context_features"]:
        thresholds = thresholds + context @ network.context_weight.mT
    first, *others = thresholds.split(size["hidden_features"], dim=-1)
    hidden = (x @ network.input.weight.mT + first).relu() - first.relu()
    for block, threshold in zip(network.blocks, others, strict=True):
        hidden = hidden + (hidden @ block.weight.mT + threshold).relu() - threshold.relu()
    expected = hidden @ network.output.weight.mT
    projected = network.project_context(context)
    assert projected.shape == (4, (1 + size["num_blocks"]) * size["hidden_features"])
    assert_close(network(x, projected), expected.detach(), 1e-12)


def test_the_context_enters_every_layer():
    network = make(in_features=3, out_features=2, context_features=2, hidden_features=8,
                   num_blocks=2)  # fmt: skip
    x, projected = draw(5, 3), network.project_context(draw(5, 2)).detach().requires_grad_()
    slopes = torch.autograd.grad(network(x, projected).square().sum(), projected)[0]
    assert all(part.abs().max() > 0 for part in slopes.chunk(3, dim=-1))


def test_every_parameter_gets_a_gradient():
    network = make(in_features=3, out_features=2, context_features=2, hidden_features=8,
                   num_blocks=1)  # fmt: skip
    network(draw(5, 3), network.project_context(draw(5, 2))).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_gradients():
    network = make(in_features=3, out_features=2, context_features=2, hidden_features=8,
                   num_blocks=1)  # fmt: skip
    x, context = draw(2, 3).requires_grad_(), draw(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, c: network(x, network.project_context(c)), (x, context)
    )


def test_no_layer_has_a_bias():
    network = make(in_features=3, out_features=2, context_features=2, hidden_features=8,
                   num_blocks=1)  # fmt: skip
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert len(layers) == 3
    assert all(layer.bias is None for layer in layers)
    assert network.threshold.shape == (16,)


def test_one_context_is_shared_by_many_rows():
    network = make(in_features=3, out_features=2, context_features=2, hidden_features=8,
                   num_blocks=1)  # fmt: skip
    x, context = draw(4, 7, 3), draw(4, 2)
    projected = network.project_context(context)
    shared = network(x, projected[:, None])
    repeated = network(x, projected[:, None].expand(4, 7, -1))
    assert shared.shape == (4, 7, 2)
    assert_close(shared, repeated.detach(), 1e-12)
    assert network(x[:, :0], projected[:, None]).shape == (4, 0, 2)


def test_without_a_context_there_is_one_set_of_thresholds():
    network = make(in_features=3, out_features=2, context_features=0, hidden_features=8,
                   num_blocks=1)  # fmt: skip
    assert network.context_weight is None
    projected = network.project_context(draw(5, 0))
    assert projected.shape == (5, 16)
    assert torch.equal(projected[0], network.threshold)


def test_half_precision_weights_return_the_dtype_of_x():
    network = make(in_features=3, out_features=2, context_features=2, hidden_features=8,
                   num_blocks=1).bfloat16()  # fmt: skip
    x, context = draw(5, 3).float(), draw(5, 2).float()
    out = network(x, network.project_context(context))
    assert out.dtype == torch.float32
    assert_close(out, network.double()(x, network.project_context(context)).detach(), 0.05)
