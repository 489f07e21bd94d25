"""Further descents from the best points."""

import pytest
import torch

from flowprior.fitting.restarts import minimize_again
from flowprior.fitting.solver import Status, minimize


def wavy(x, rows=None):
    """A bowl with a ditch every unit: many minima, the least of them at 0."""
    return (0.1 * x.square() + 1 - torch.cos(2 * torch.pi * x)).sum(dim=-1)


def solve(x):
    return minimize(wavy, x, max_iterations=100)


def starts(problems=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(problems, 2, generator=generator, dtype=torch.float64)


def kicks(number=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, 2, generator=generator, dtype=torch.float64)


def test_each_is_at_least_as_good_and_most_are_better():
    once, again = solve(starts()), minimize_again(solve, starts(), kicks())
    assert (again.value <= once.value).all()
    assert (again.value < once.value - 0.01).double().mean() > 0.5
    torch.testing.assert_close(wavy(again.x), again.value)
    assert (again.iterations > once.iterations).all()
    assert (again.evaluations > once.evaluations).all()


def test_no_kicks_are_one_descent():
    once, again = solve(starts()), minimize_again(solve, starts(), kicks(0))
    assert torch.equal(once.x, again.x)
    assert torch.equal(once.status, again.status)


def test_a_problem_alone_is_the_problem_in_company():
    x0 = starts()
    together = minimize_again(solve, x0, kicks())
    for row in (0, 7, 19):
        alone = minimize_again(solve, x0[row : row + 1], kicks())
        torch.testing.assert_close(alone.x[0], together.x[row], atol=1e-8, rtol=0)


def test_a_kick_of_zero_gets_l_bfgs_off_a_kink():
    # The nonsmooth Chebyshev-Rosenbrock function of Nesterov, least at 1, where it is 0.
    def kinked(x, rows=None):
        folds = (x[:, 1:] - 2 * x[:, :-1].abs() + 1).abs().sum(dim=-1)
        return (x[:, 0] - 1).abs() / 4 + folds

    generator = torch.Generator().manual_seed(3)
    x0 = 3 * torch.randn(32, 4, generator=generator, dtype=torch.float64)

    def descend(x):
        return minimize(kinked, x, max_iterations=200)

    once = descend(x0)
    again = minimize_again(descend, x0, torch.zeros(3, 4, dtype=torch.float64))
    assert (again.value < once.value - 1e-3).double().mean() > 0.5
    assert again.value.mean() < 0.5 * once.value.mean()


def test_a_problem_that_was_not_finite_gets_another_chance_and_keeps_the_rest():
    def holed(x, rows=None):
        return torch.where(x[:, 0] > 5, torch.nan, wavy(x))

    x0 = torch.tensor([[6.0, 0.0], [0.3, 0.3]], dtype=torch.float64)

    def descend(x):
        return minimize(holed, x, max_iterations=100)

    alone = descend(x0)
    assert alone.status[0] == Status.NON_FINITE
    assert alone.status[1] == Status.CONVERGED_GRADIENT
    again = minimize_again(descend, x0, torch.tensor([[-2.0, 0.0]], dtype=torch.float64))
    assert again.value.isfinite().all()
    assert again.value[1] <= alone.value[1]


@pytest.mark.parametrize(
    ("kicks", "words"),
    [
        (torch.zeros(2, 3), r"expected kicks of shape \(R, 2\)"),
        (torch.zeros(2), r"expected kicks of shape \(R, 2\)"),
        (torch.full((1, 2), torch.nan), "finite"),
    ],
)
def test_other_kicks_are_refused(kicks, words):
    with pytest.raises(ValueError, match=words):
        minimize_again(solve, starts(), kicks)
