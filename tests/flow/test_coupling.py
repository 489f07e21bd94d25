import math

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


def test_an_affine_coupling_scales_by_exp_of_2_at_most():
    moving, numbers = torch.ones(2, 1), torch.tensor([[[1e6, 0.5]], [[-1e6, 0.5]]])
    moved, log_abs_det = COUPLINGS["affine"].move(moving, numbers, inverse=False)
    assert_close(moved[:, 0], [math.exp(2) + 0.5, math.exp(-2) + 0.5], 1e-6)
    assert_close(log_abs_det, [2.0, -2.0], 1e-6)


def test_a_contracting_coupling_never_expands_and_rests_at_zero():
    moving, numbers = torch.ones(4, 1), torch.tensor([1e6, -1e6, 0.3, 0.0])
    numbers = torch.stack((numbers, torch.full((4,), 0.5)), dim=-1)[:, None]
    moved, log_abs_det = COUPLINGS["contracting"].move(moving, numbers, inverse=False)
    assert_close(log_abs_det, [-2.0, -2.0, -2 * math.tanh(0.3**2 / 2), 0.0], 1e-6)
    assert_close(moved[:, 0], log_abs_det.exp() + 0.5, 1e-6)
    assert log_abs_det[3] == 0
    assert not COUPLINGS["contracting"].expands
    assert not COUPLINGS["additive"].expands
    assert COUPLINGS["affine"].expands
    assert COUPLINGS["spline"].expands


@kinds
def test_an_anchored_conditioner_has_neither_batch_norm_nor_dropout(kind):
    for options in ({"batch_norm": True}, {"dropout": 0.1}):
        with pytest.raises(ValueError, match="neither batch norm nor dropout"):
            COUPLINGS[kind](4, 2, 8, 1, odd_moves=True, anchored=True, **options)


def test_small_scales_are_exact():
    numbers = torch.tensor([[1e-3, 0.0]])
    assert_close(COUPLINGS["affine"].move(torch.ones(1), numbers, inverse=False)[1], 1e-3, 1e-9)


def test_how_many_numbers_each_feature_needs():
    assert {name: kind.numbers_per_feature for name, kind in COUPLINGS.items()} == {
        "additive": 1,
        "affine": 2,
        "contracting": 2,
        "spline": 23,  # 8 bins: widths, heights and the 7 slopes between them
    }
