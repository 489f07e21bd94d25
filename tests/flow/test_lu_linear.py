import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.flow import LULinear
from flowprior.flow.lu_linear import _unit_inverse as unit_inverse
from tests.flow.helpers import assert_close, draw


def random_layer(features: int, seed: int = 0) -> LULinear:
    layer = LULinear(features).double()
    for index, parameter in enumerate(layer.parameters()):
        noise = draw(*parameter.shape, seed=seed + index)
        parameter.data += 0.3 * noise / features**0.5
    return layer


def test_new_layer_is_the_identity():
    layer = LULinear(5).double()
    x = draw(7, 5)
    y, log_abs_det = layer(x)
    assert_close(y, x, 1e-7)
    assert_close(log_abs_det, 0.0, 1e-7)


def test_entries_are_row_major_with_a_positive_diagonal():
    layer = LULinear(3).double()
    layer.lower_entries.data = torch.tensor([1.0, 2.0, 3.0]).double()
    layer.upper_entries.data = torch.tensor([4.0, 5.0, 6.0]).double()
    layer.unconstrained_upper_diag.data = torch.tensor([-1e3, 0.0, 1e3]).double()
    lower, upper = layer.factors(torch.float64)
    assert_close(lower, [[1, 0, 0], [1, 1, 0], [2, 3, 1]], 1e-12)
    softplus0 = torch.tensor(2.0).double().log().item()
    expected = [[1e-3, 4, 5], [0, softplus0 + 1e-3, 6], [0, 0, 1e3 + 1e-3]]
    assert_close(upper, expected, 1e-12)


@given(features=st.integers(1, 9), seed=st.integers(0, 99))
def test_inverse_and_log_abs_det(features, seed):
    layer = random_layer(features, seed)
    x = draw(2, 4, features, seed=seed)
    y, log_abs_det = layer(x)
    assert_close(layer.inverse(y), x, 1e-10)
    weight = torch.autograd.functional.jacobian(lambda row: layer(row)[0], x[0, 0])
    assert_close(log_abs_det, torch.linalg.slogdet(weight).logabsdet, 1e-10)
    assert_close(y, x @ weight.mT + layer.bias, 1e-10)


def test_both_directions_have_right_gradients():
    layer = random_layer(4)
    x = draw(3, 4).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(method, x, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(_Direction(layer, method), _under(parameters), (x,))

    assert torch.autograd.gradcheck(lambda *a: call("forward", *a), (x, *values))
    assert torch.autograd.gradcheck(lambda *a: call("inverse", *a), (x, *values))


class _Direction(torch.nn.Module):
    def __init__(self, layer, method):
        super().__init__()
        self.layer = layer
        self.method = method

    def forward(self, x):
        return getattr(self.layer, self.method)(x)


def _under(parameters):
    return {f"layer.{name}": value for name, value in parameters.items()}


def test_no_rows():
    layer = random_layer(4)
    assert layer.inverse(layer(draw(0, 4))[0]).shape == (0, 4)


@given(features=st.integers(1, 9), seed=st.integers(0, 99), upper=st.booleans())
def test_unit_triangular_matrices_are_inverted_by_products(features, seed, upper):
    triangular = draw(3, features, features, seed=seed).tril(-1) + torch.eye(features).double()
    triangular = triangular.mT if upper else triangular
    found = unit_inverse(triangular)
    assert found.dtype == torch.float64
    assert_close(found @ triangular, torch.eye(features).expand(3, -1, -1), 1e-8)


def test_factors_are_where_the_weights_are():
    layer = LULinear(4).to("meta")
    assert all(each.device.type == "meta" for each in layer.factors(torch.float32))
    assert unit_inverse(torch.empty(2, 4, 4, device="meta")).device.type == "meta"
