"""Conformal factors against the documented steps, written with lists."""

import math

import pytest
import torch

from flowprior.prior import JointFactors
from flowprior.prior.joint_factors import LEVELS, fit_factors, numbered

JOINTS = 4
SOME = (0.1, 0.5, 0.9)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _sorted_quantile(values, level):
    """Quantile of a list by linear interpolation."""
    values = sorted(values)
    position = level * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (position - low) * (values[high] - values[low])


def _t_middles(degrees):
    """Quantiles of Student's t of 1 or 2 degrees of freedom at the middles of 15 parts."""
    found = []
    for k in range(15):
        p = (k + 0.5) / 15
        if degrees == 1:
            found.append(math.tan(math.pi * (p - 0.5)))
        else:
            found.append((2 * p - 1) / math.sqrt(2 * p * (1 - p)))
    return found


@pytest.mark.parametrize("people", [2, 3])
def test_factors_against_loops(people):
    """The documented steps, written with lists, for people of different sizes and a gap."""
    sizes = (5, 9, 7)[:people]
    owner = torch.tensor([g for g, size in enumerate(sizes) for _ in range(size)])
    errors = torch.rand(len(owner), JOINTS, generator=seeded()).double() + 0.1
    errors = errors * (1 + owner[:, None])
    radii = torch.rand(len(SOME), len(owner), JOINTS, generator=seeded()).double() + 0.5
    radii[:, owner == 0, 3] = 0.0  # nobody knows joint 3 of the first person
    flip = (0, 2, 1, 3)
    found = fit_factors(errors, radii, owner, SOME, flip)
    for row, level in enumerate(SOME):
        own, each = {}, {}
        for joint in range(JOINTS):
            for g in range(people):
                scores = [
                    math.log(float(errors[n, j] / radii[row, n, j]))
                    for j in (joint, flip[joint])
                    for n in range(len(owner))
                    if owner[n] == g and radii[row, n, j] > 0
                ]
                if scores:
                    own[joint, g] = _sorted_quantile(scores, level)
                    grid = [(k + 0.5) / 100 for k in range(100)]
                    each[joint, g] = [_sorted_quantile(scores, q) for q in grid]
        variances = {}
        for joint in range(JOINTS):
            seen = [own[joint, g] for g in range(people) if (joint, g) in own]
            mean = sum(seen) / len(seen)
            if len(seen) > 1:
                variances[joint] = sum((x - mean) ** 2 for x in seen) / (len(seen) - 1)
        shared = sum(variances.values()) / len(variances)
        for joint in range(JOINTS):
            whose = [g for g in range(people) if (joint, g) in own]
            centre = sum(own[joint, g] for g in whose) / len(whose)
            variance = (variances.get(joint, shared) + shared) / 2
            scale = math.sqrt(variance * (1 + 1 / len(whose)))
            pool = [
                score - own[joint, g] + centre + scale * t
                for g in whose
                for score in each[joint, g]
                for t in _t_middles(people - 1)
            ]
            expected = math.exp(_sorted_quantile(pool, level))
            assert float(found[row, joint]) == pytest.approx(expected, rel=2e-3)
    assert torch.equal(found[:, 1], found[:, 2])


def test_factors_between_levels_are_interpolated():
    table = torch.tensor([[1.0, 2.0], [3.0, 6.0], [4.0, 4.0]])
    factors = JointFactors(table, 10 * table, 7, torch.tensor([0.25, 0.5, 0.75]))
    assert repr(factors) == "JointFactors(people=7)"
    expected = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 6.0], [4.0, 4.0], [4.0, 4.0]])
    torch.testing.assert_close(factors.at("positions", 5), expected)
    torch.testing.assert_close(factors.at("rotations", 5), 10 * expected)
    between = factors.at("positions", 9)[3]  # at level 3/8
    torch.testing.assert_close(between, torch.tensor([2.0, 4.0]))
    assert factors.double().at("positions", 3).dtype == torch.float64
    assert torch.equal(JointFactors(table, table, 2).levels, torch.tensor(LEVELS))


def test_people_are_numbered_in_their_order():
    assert numbered(["b", "a", "b"], 3).tolist() == [0, 1, 0]
    assert numbered(torch.tensor([[7], [3]]), 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="each of the 2 poses is, got 3"):
        numbered([1, 2, 3], 2)
    with pytest.raises(ValueError, match=r"^groups holds 1 people"):
        numbered([1, 1], 2)
    with pytest.raises(ValueError, match=r"^groups holds 0 people"):
        numbered([], 0)
