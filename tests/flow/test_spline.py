import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.flow.spline import BOUND, rational_quadratic_spline
from tests.flow.helpers import assert_close, draw

inputs = st.floats(-2 * BOUND, 2 * BOUND)


@given(inputs)
def test_zero_numbers_make_the_identity(value):
    x = torch.tensor(value, dtype=torch.float64)
    image, log_derivative = rational_quadratic_spline(x, torch.zeros(23, dtype=torch.float64))
    assert_close(image, x, 1e-12)
    assert_close(log_derivative, 0.0, 1e-12)


@given(inputs, st.integers(0, 1000), st.sampled_from([0.1, 1.0, 5.0]))
def test_inverse_and_derivative(value, seed, size):
    x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    numbers = size * draw(23, seed=seed)
    image, log_derivative = rational_quadratic_spline(x, numbers)
    back, inverse = rational_quadratic_spline(image, numbers, inverse=True)
    assert_close(back, x.detach(), 1e-6)
    assert_close(log_derivative + inverse, 0.0, 1e-5)
    (slope,) = torch.autograd.grad(image, x)
    assert_close(log_derivative, slope.log(), 1e-8)


def test_it_is_monotone_and_keeps_its_interval():
    x = torch.linspace(-BOUND, BOUND, 2001, dtype=torch.float64)
    image, _ = rational_quadratic_spline(x, 2 * draw(23).expand(2001, 23))
    assert (image.diff() > 0).all()
    assert_close(image[[0, -1]], [-BOUND, BOUND], 1e-10)


def test_outside_it_is_the_identity():
    x = torch.tensor([-100.0, -BOUND, BOUND, 100.0], dtype=torch.float64)
    image, log_derivative = rational_quadratic_spline(x, draw(4, 23))
    assert torch.equal(image, x)
    assert torch.equal(log_derivative, torch.zeros_like(x))


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients(inverse):
    x, numbers = draw(6).requires_grad_(), draw(6, 11).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, n: rational_quadratic_spline(x, n, inverse=inverse), (x, numbers)
    )


def test_single_precision_round_trip():
    x, numbers = draw(1000).float(), draw(1000, 23).float()
    image, _ = rational_quadratic_spline(x, numbers)
    back, _ = rational_quadratic_spline(image, numbers, inverse=True)
    assert (back - x).abs().quantile(0.99) < 1e-4


def test_extreme_numbers_stay_finite():
    x, numbers = 5 * draw(2000).float(), 20 * draw(2000, 23).float()
    for inverse in (False, True):
        result = rational_quadratic_spline(x.requires_grad_(), numbers, inverse=inverse)
        assert all(part.isfinite().all() for part in result)
