import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.lifting.phases import phase_of

shares = st.floats(0, 0.999)


@given(st.integers(1, 400), shares)
def test_phases_follow_each_other_and_cover_the_training(steps, share):
    phases = [phase_of(step, steps, share) for step in range(steps)]
    order = list(dict.fromkeys(phases))
    assert sum(phase.steps for phase in order) == steps
    assert [phase.start for phase in order] == [0, order[0].steps][: len(order)]
    assert all(p.start <= step < p.start + p.steps for step, p in enumerate(phases))
    parts = [phase.part for phase in order]
    assert parts in (["both"], ["flow"], ["regressor", "flow"])
    assert (parts == ["both"]) == (share == 0)


@given(st.integers(2, 400), st.floats(0.3, 0.999))
def test_the_share_is_that_of_the_regressor(steps, share):
    first = phase_of(0, steps, share)
    assert first.part == "regressor"
    assert abs(first.steps - share * steps) <= 1
    assert phase_of(steps - 1, steps, share).part == "flow"


def test_a_rate_in_two_phases():
    steps, share = 100, 0.6
    rates = [phase_of(step, steps, share).cosine(step) for step in range(steps)]
    assert rates[0] == rates[60] == 1
    assert rates[30] == pytest.approx(0.5)
    assert rates[80] == pytest.approx(0.5)
    assert rates[59] == pytest.approx(0.5 * (1 + math.cos(math.pi * 59 / 60)))
    assert phase_of(steps, steps, share).cosine(steps) == pytest.approx(0, abs=1e-12)


def test_warm_up_is_a_twentieth_of_a_phase():
    phase = phase_of(10, 1000, 0.8)
    assert [phase.warm_up(step) for step in (0, 19, 39, 400)] == [1 / 40, 0.5, 1, 1]
    flow = phase_of(800, 1000, 0.8)
    assert [flow.warm_up(step) for step in (800, 809, 900)] == [0.1, 1, 1]
    assert phase_of(0, 1, 0.0).warm_up(0) == 1
