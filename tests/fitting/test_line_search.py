import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.fitting.line_search import CURVATURE, DECREASE, LineSearch, cubic_minimum


def along(function, step):
    x = step.clone().requires_grad_()
    value = function(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


CURVES = {
    "bowl": lambda t: (t - 3).square(),
    "far": lambda t: (t / 500 - 1).square(),
    "near": lambda t: (1e4 * t - 1).square(),
    "quartic": lambda t: (t - 1) ** 4 - t,
    "wavy": lambda t: (t - 5).square() + 3 * (2 * t).sin(),
    "robust": lambda t: (t - 4).square() / (1 + (t - 4).square()) + 0.01 * t.square(),
    "walled": lambda t: -t - (2 - t).log(),
}


def run(function, first, most=40):
    zero = torch.zeros_like(first)
    value, slope = along(function, zero)
    search = LineSearch.start(value, slope[:, None], slope, first)
    steps = torch.full_like(first, torch.nan)
    values, gradients = steps.clone(), steps.clone()
    left = torch.ones_like(first, dtype=torch.bool)
    for _ in range(most):
        new_value, new_slope = along(function, search.step)
        outcome = search.observe(
            new_value, new_slope, new_slope[:, None], torch.full_like(first, 1e-14), most
        )
        ended = left & outcome.found
        steps = torch.where(ended, outcome.step, steps)
        values = torch.where(ended, outcome.value, values)
        gradients = torch.where(ended, outcome.gradient[:, 0], gradients)
        left &= ~(outcome.found | outcome.failed)
        if not left.any():
            break
    return value, slope, steps, values, gradients


@pytest.mark.parametrize("name", CURVES)
@given(first=st.lists(st.floats(1e-5, 1e4), min_size=1, max_size=8))
def test_steps_obey_the_strong_wolfe_conditions(name, first):
    first = torch.tensor(first, dtype=torch.float64)
    value, slope, step, after, gradient = run(CURVES[name], first)
    assert (step > 0).all()
    fell, steep = along(CURVES[name], step)
    torch.testing.assert_close(fell, after)
    torch.testing.assert_close(steep, gradient)
    assert (fell <= value + DECREASE * step * slope + 1e-12).all()
    assert (steep.abs() <= -CURVATURE * slope).all()


def test_a_search_does_not_see_its_neighbours():
    first = torch.tensor([0.01, 1.0, 300.0], dtype=torch.float64)
    together = run(CURVES["wavy"], first)[2]
    alone = torch.cat([run(CURVES["wavy"], one[None])[2] for one in first])
    assert torch.equal(together, alone)


@given(st.floats(-3, 3), st.floats(0.1, 2))
def test_cubic_minimum_is_that_of_a_cubic(place, width):
    # (t - a)^2 (t + 3) near a: a minimum at a for a > -1.
    a = torch.tensor([place + 3.5], dtype=torch.float64)

    def cubic(t):
        return (t - a).square() * (t + 3)

    ends = a - width, a + 0.7 * width
    points = [(end, *along(cubic, end)) for end in ends]
    torch.testing.assert_close(cubic_minimum(*points, *ends), a)
    torch.testing.assert_close(cubic_minimum(*points[::-1], *ends), a)
    bounded = cubic_minimum(*points, ends[0], a - width / 2)
    torch.testing.assert_close(bounded, a - width / 2)


def test_cubic_minimum_of_nothing_is_the_middle():
    one, zero = torch.ones(1), torch.zeros(1)
    flat = cubic_minimum((zero, zero, -one), (one, -one, -one), zero, one)
    lost = cubic_minimum((zero, zero, -one), (one, one * torch.inf, zero), zero, one)
    assert flat.isfinite().all()
    assert lost == 0.5
