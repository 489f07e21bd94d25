"""Risk-coverage curves, AUSE and coverage per person."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.metrics import ause, coverage_by_group, risk_coverage

ERRORS = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=30).map(torch.tensor)


@given(error=ERRORS)
def test_the_order_of_the_errors_is_perfect(error):
    assert ause(error, error) == pytest.approx(0.0, abs=1e-9)
    curve = risk_coverage(error, 3 * error + 1)
    torch.testing.assert_close(curve.risk, curve.oracle)


@given(error=ERRORS, seed=st.integers(0, 99))
def test_no_order_is_better_than_the_oracle(error, seed):
    unsure = torch.rand(len(error), generator=torch.Generator().manual_seed(seed))
    curve = risk_coverage(error, unsure)
    assert (curve.risk >= curve.oracle - 1e-9).all()
    assert float(curve.risk[-1]) == pytest.approx(float(error.double().mean()), abs=1e-9)
    assert float(curve.coverage[-1]) == 1.0
    assert (curve.oracle.diff() >= -1e-9).all()


@given(error=ERRORS)
def test_a_constant_keeps_the_mean_error(error):
    curve = risk_coverage(error, torch.ones_like(error))
    torch.testing.assert_close(curve.risk, error.double().mean().expand(len(error)))


def test_ties_count_as_a_random_order():
    error, unsure = torch.tensor([1.0, 5.0, 3.0, 7.0]), torch.tensor([0.0, 1.0, 1.0, 2.0])
    curve = risk_coverage(error, unsure)
    torch.testing.assert_close(curve.risk, torch.tensor([1.0, 2.5, 3.0, 4.0], dtype=torch.float64))
    both = [risk_coverage(error[[0, *each, 3]], torch.arange(4.0)) for each in ((1, 2), (2, 1))]
    torch.testing.assert_close(curve.risk, (both[0].risk + both[1].risk) / 2)


def test_by_hand():
    # Kept in the order 2, 1, 4: means 2, 1.5, 7/3. The oracle: 1, 1.5, 7/3. The mean error is 7/3.
    error, unsure = torch.tensor([2.0, 1.0, 4.0]), torch.tensor([0.1, 0.2, 0.3])
    assert ause(error, unsure) == pytest.approx((1 / 3) / (7 / 3))
    assert ause(torch.zeros(3), unsure) == 0.0


@given(scale=st.floats(0.01, 100.0), shift=st.floats(-5.0, 5.0))
def test_only_the_order_matters(scale, shift):
    error = torch.tensor([2.0, 1.0, 4.0, 3.0, 8.0], dtype=torch.float64)
    unsure = torch.tensor([0.3, 0.2, 0.1, 0.9, 0.4], dtype=torch.float64)
    assert ause(error, scale * unsure + shift) == pytest.approx(ause(error, unsure))
    assert ause(scale * error, unsure) == pytest.approx(ause(error, unsure))
    assert ause(error.reshape(5, 1), unsure.reshape(5, 1)) == ause(error, unsure)


def test_people_have_the_same_weight():
    error = torch.tensor([[1.0, 3.0], [1.0, 1.0], [5.0, 5.0]])
    radius = torch.full((3, 2), 2.0)
    found = coverage_by_group(error, radius, ["a", "a", "b"])
    assert found.groups == ("a", "b")
    assert found.counts.tolist() == [2, 1]
    assert found.coverage.tolist() == [[1.0, 0.5], [0.0, 0.0]]
    assert found.mean.tolist() == [0.5, 0.25]
    numbers = coverage_by_group(error, radius, torch.tensor([4, 4, 2]))
    assert numbers.groups == (4, 2)
    assert torch.equal(numbers.coverage, found.coverage)


@given(error=ERRORS, radius=st.floats(0.0, 100.0))
def test_one_person_is_the_plain_share(error, radius):
    found = coverage_by_group(error, torch.full_like(error, radius), [0] * len(error))
    assert float(found.mean) == pytest.approx(float((error <= radius).double().mean()))


def test_mismatched_input_is_an_error():
    some = torch.ones(3)
    for error, unsure, match in (
        (some, torch.ones(2), "one shape"),
        (some[:0], some[:0], "at least one"),
        (some, some * torch.nan, "NaN"),
        (-some, some, "negative"),
    ):
        with pytest.raises(ValueError, match=match):
            risk_coverage(error, unsure)
    with pytest.raises(TypeError):
        ause([1.0], some)
    with pytest.raises(ValueError, match="N groups"):
        coverage_by_group(some, some, [1, 2])
    with pytest.raises(ValueError, match="one shape"):
        coverage_by_group(some, some[:2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least 1"):
        coverage_by_group(some[:0], some[:0], [])
    with pytest.raises(ValueError, match="NaN"):
        coverage_by_group(some * torch.nan, some, [1, 2, 3])
