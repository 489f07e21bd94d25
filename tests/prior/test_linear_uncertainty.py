"""Linearised uncertainty, part by part against definitions and finite differences."""

import math

import pytest
import torch

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.prior.linear_uncertainty import (
    NODES,
    _nodes,
    angles_of,
    change_of_rotations,
    directions,
    lengths_of,
    move_joints,
)
from flowprior.prior.uncertainty import positions
from flowprior.skeleton import SMPL_24


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [1, 2, 5, 66])
def test_directions_are_those_of_the_cosine_transform(size):
    axes = directions(size)
    assert axes.dtype == torch.float64
    torch.testing.assert_close(axes @ axes.T, size * torch.eye(size, dtype=torch.float64))
    for k in range(size):
        for n in range(size):
            scale = 1.0 if k == 0 else math.sqrt(2)
            expected = scale * math.cos(math.pi / size * (n + 0.5) * k)
            assert axes[k, n] == pytest.approx(expected, abs=1e-9)
        if size > 10 and k > 3:
            break


def test_changes_are_central_differences():
    draw = seeded()
    positive, negative = (
        torch.randn(2, 6, 12, generator=draw, dtype=torch.float64) for _ in range(2)
    )
    change = change_of_rotations(positive, negative)
    assert change.shape == (2, 4, 3, 6)
    for joint in range(4):
        for axis in range(3):
            column = 3 * joint + axis
            expected = (positive[..., column] - negative[..., column]) / math.sqrt(4 * 6)
            torch.testing.assert_close(change[:, joint, axis], expected)


@pytest.mark.parametrize("shaped", [False, True])
def test_joints_move_as_finite_differences_say(shaped):
    body, draw = BodyModel().double(), seeded()
    betas = torch.randn(2, 10, generator=draw, dtype=torch.float64) if shaped else None
    mode = rotations.rotvec_to_matrix(0.5 * torch.randn(2, 24, 3, generator=draw).double())
    change = torch.randn(2, 24, 3, 4, generator=draw, dtype=torch.float64)
    moved = move_joints(change, mode, body, betas)
    assert moved.shape == (2, 24, 3, 4)
    step = 1e-5
    for k in range(4):
        ends = []
        for sign in (1, -1):
            turn = rotations.rotvec_to_matrix(sign * step * change[..., k])
            ends.append(positions(body, (mode @ turn)[:, None], SMPL_24, betas)[:, 0])
        expected = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(moved[..., k], expected, atol=1e-3, rtol=1e-5)


def test_joints_of_a_prior_without_a_root_move_those_below():
    body, draw = BodyModel().double(), seeded()
    mode = rotations.rotvec_to_matrix(0.5 * torch.randn(1, 24, 3, generator=draw).double())
    mode[:, 0] = torch.eye(3)
    change = torch.randn(1, 24, 3, 2, generator=draw, dtype=torch.float64)
    change[:, 0] = 0
    torch.testing.assert_close(
        move_joints(change[:, 1:], mode[:, 1:], body, None), move_joints(change, mode, body, None)
    )


def covariances(*eigenvalues: float) -> torch.Tensor:
    """Matrices (2, 3, 3, 3) with the same eigenvalues and other axes."""
    draw = seeded(1)
    turn = rotations.rotvec_to_matrix(torch.randn(2, 3, 3, generator=draw).double())
    return turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.mT


def test_lengths_of_a_normal_distribution():
    lengths = lengths_of(covariances(4.0, 4.0, 4.0), None)
    assert lengths.shape == (2, NODES, 3)
    assert (lengths.diff(dim=1) >= 0).all()
    torch.testing.assert_close(lengths[0, :, 0], lengths[1, :, 2])
    # Maxwell: median 1.5382, 90 % 2.5003, mean square 3. So few nodes lack some of the tail.
    assert lengths[0, :, 0].quantile(0.5) == pytest.approx(2 * 1.5382, rel=0.01)
    assert lengths[0, :, 0].quantile(0.9) == pytest.approx(2 * 2.5003, rel=0.035)
    assert lengths.square().mean(dim=1)[0, 0] == pytest.approx(12, rel=0.04)
    # A line: the absolute value of a normal number.
    line = lengths_of(covariances(0.0, 0.0, 9.0), None)[1, :, 1]
    assert line.quantile(0.5) == pytest.approx(3 * 0.67449, rel=0.02)
    assert line.quantile(0.9) == pytest.approx(3 * 1.64485, rel=0.04)
    assert line.square().mean() == pytest.approx(9, rel=0.04)
    # Three unequal axes add their variances.
    assert lengths_of(covariances(1.0, 2.0, 6.0), None).square().mean(dim=1)[1, 2] == (
        pytest.approx(9, rel=0.04)
    )


@pytest.mark.parametrize(
    # Median and 90 % quantile of the length of a t vector: sqrt(3 F(3, nu)).
    ("nu", "median", "most"),
    [(5.0, 1.6497, 3.2952), (20.0, 1.5648, 2.6721)],
)
def test_lengths_of_a_t(nu, median, most):
    lengths = lengths_of(covariances(1.0, 1.0, 1.0), torch.tensor(nu))[0, :, 0]
    assert lengths.quantile(0.5) == pytest.approx(median, rel=0.015)
    assert lengths.quantile(0.9) == pytest.approx(most, rel=0.06)


def test_lengths_are_finite_where_rounding_makes_variances_negative():
    lengths = lengths_of(covariances(-1e-9, -1e-9, -1e-9), torch.tensor(3.0))
    assert not lengths.any()
    assert lengths.isfinite().all()


def test_nodes_are_even():
    """Every third of a normal distribution along each axis holds a third of the nodes."""
    nodes = _nodes(None)
    assert (nodes.shape, nodes.dtype) == ((NODES, 3), torch.float64)
    assert nodes.mean(dim=0).abs().max() < 0.01
    assert (nodes.square().mean(dim=0) - 1).abs().max() < 0.04
    for limit, share in ((-0.43073, 1 / 3), (0.43073, 2 / 3), (1.64485, 0.95)):
        assert ((nodes < limit).double().mean(dim=0) - share).abs().max() <= 4 / NODES
    assert NODES == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_are_those_of_the_chart(dtype):
    draw = seeded()
    vector = torch.randn(50, 3, generator=draw).to(dtype)
    vector = vector / vector.norm(dim=-1, keepdim=True)
    lengths = torch.linspace(0, 1.1 * rotations.CHART_RADIUS, 50, dtype=dtype)
    angles = angles_of(lengths)
    assert angles.dtype == dtype
    inside = lengths.clamp(max=rotations.CHART_RADIUS * (1 - 1e-6))
    matrix = rotations.chart_to_matrix(vector * inside[:, None])
    expected = torch.rad2deg(rotations.geodesic_distance(matrix, torch.eye(3, dtype=dtype)))
    torch.testing.assert_close(angles, expected, atol=0.1, rtol=0)
    assert angles[0] == 0
    assert angles[-1] == pytest.approx(180, abs=0.1)
    assert angles_of(lengths.reshape(5, 10)).shape == (5, 10)
