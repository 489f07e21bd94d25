import math

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


def test_spline_is_monotone_on_its_interval():
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


def test_bins_and_slopes_have_a_least_size():
    # All width in the first bin, equal heights, and slopes of zero between the bins.
    numbers = torch.cat([torch.tensor([1e3]), torch.zeros(15), torch.full((7,), -1e3)]).double()
    knots = torch.tensor([5 - (7 - k) * 0.01 for k in range(7)], dtype=torch.float64)
    image, log_derivative = rational_quadratic_spline(knots, numbers.expand(7, 23))
    assert_close(image, [-BOUND + 1.25 * (k + 1) for k in range(7)], 1e-9)
    assert_close(log_derivative, torch.full((7,), math.log(1e-3)), 1e-6)


def test_the_ends_have_slope_1():
    x = torch.tensor([-BOUND + 1e-9, BOUND - 1e-9], dtype=torch.float64)
    _, log_derivative = rational_quadratic_spline(x, draw(23).expand(2, 23))
    assert_close(log_derivative, torch.zeros(2), 1e-6)


def test_the_image_of_one_bin_is_the_formula_of_the_paper():
    # One bin from (-5, -5) to (5, 5) with slopes 1 is the identity; two have one inner knot.
    numbers = torch.tensor([0.4, -0.3, 0.2, -0.1, 0.7], dtype=torch.float64)
    x = torch.linspace(-4.9, 4.9, 41, dtype=torch.float64)

    def ends(pair):
        share = 1e-3 + (1 - 2e-3) * pair.softmax(0)
        return 10 * share[0] - 5

    xk, yk = ends(numbers[:2]), ends(numbers[2:4])
    inner = 1e-3 + torch.nn.functional.softplus(numbers[4] + math.log(math.expm1(0.999)))
    first = x < xk
    x0, x1 = torch.where(first, -5, xk), torch.where(first, xk, 5)
    y0, y1 = torch.where(first, -5, yk), torch.where(first, yk, 5)
    d0, d1 = torch.where(first, 1, inner), torch.where(first, inner, 1)
    s, t = (y1 - y0) / (x1 - x0), (x - x0) / (x1 - x0)
    expected = y0 + (y1 - y0) * (s * t**2 + d0 * t * (1 - t)) / (
        s + (d1 + d0 - 2 * s) * t * (1 - t)
    )
    image, _ = rational_quadratic_spline(x, numbers.expand(41, 5))
    assert_close(image, expected, 1e-10)
