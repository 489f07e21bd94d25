import pytest
import torch

from flowprior.flow import COUPLINGS, AdditiveCoupling
from tests.flow.helpers import assert_close, draw

kinds = pytest.mark.parametrize("kind", COUPLINGS)


def make(kind: str, features: int, odd_moves: bool = True):
    layer = COUPLINGS[kind](features, 3, 16, 1, odd_moves=odd_moves, batch_norm=False, dropout=0.0)
    for parameter in layer.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return layer.double()


@kinds
@pytest.mark.parametrize("features", [2, 5, 8])
@pytest.mark.parametrize("odd_moves", [True, False])
def test_one_half_rests_and_the_inverse_returns_the_other(kind, features, odd_moves):
    layer = make(kind, features, odd_moves)
    x, projected = draw(4, features), layer.conditioner.project_context(draw(4, 3))
    y, forward = layer(x, projected)
    rest = int(not odd_moves)
    assert torch.equal(y[:, rest::2], x[:, rest::2])
    assert not torch.isclose(y[:, 1 - rest :: 2], x[:, 1 - rest :: 2]).any()
    back, inverse = layer.inverse(y, projected)
    assert_close(back, x, 1e-8)
    assert_close(forward + inverse, torch.zeros_like(forward), 1e-8)


@kinds
def test_log_abs_det_equals_the_jacobian(kind):
    layer = make(kind, 5)
    projected = layer.conditioner.project_context(draw(3))
    jacobian = torch.func.jacrev(lambda x: layer(x, projected)[0])(draw(5))
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assert_close(layer(draw(5), projected)[1], expected.detach(), 1e-10)
    assert (expected.abs() < 1e-12) == (kind == "additive")
    assert COUPLINGS[kind].keeps_volume == (kind == "additive")


@kinds
def test_gradients(kind):
    layer = make(kind, 4)
    x, projected = draw(2, 4).requires_grad_(), draw(2, 16).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x, projected))
    assert torch.autograd.gradcheck(layer.inverse, (x, projected))


def test_a_volume_kept_costs_no_rows():
    assert make("additive", 4)(draw(7, 4), draw(7, 16))[1].shape == ()
    assert AdditiveCoupling.keeps_volume
