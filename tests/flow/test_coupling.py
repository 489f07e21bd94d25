import pytest
import torch

from flowprior.flow import AdditiveCoupling
from tests.flow.helpers import assert_close, draw


def make(features: int, odd_moves: bool) -> AdditiveCoupling:
    layer = AdditiveCoupling(features, 3, 16, 1, odd_moves=odd_moves, batch_norm=False, dropout=0.0)
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter)
    return layer.double()


@pytest.mark.parametrize("features", [2, 5, 8])
@pytest.mark.parametrize("odd_moves", [True, False])
def test_one_half_rests_and_the_inverse_returns_the_other(features, odd_moves):
    layer = make(features, odd_moves)
    x, projected = draw(4, features), layer.conditioner.project_context(draw(4, 3))
    y = layer(x, projected)
    rest = int(not odd_moves)
    assert torch.equal(y[:, rest::2], x[:, rest::2])
    assert not torch.isclose(y[:, 1 - rest :: 2], x[:, 1 - rest :: 2]).any()
    assert_close(layer.inverse(y, projected), x, 1e-12)


def test_volume_is_kept():
    layer = make(5, True)
    projected = layer.conditioner.project_context(draw(3))
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x, projected), draw(5))
    assert_close(torch.linalg.slogdet(jacobian).logabsdet, 0.0, 1e-12)
