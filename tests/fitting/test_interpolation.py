import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.fitting import interpolate, interpolate_latents
from tests.fitting.people import random_poses


@pytest.fixture(scope="module")
def ends():
    theta = rotations.matrix_to_rot6d(random_poses(8, 3))[:, 1:]
    return theta[:4], theta[4:]


@given(st.integers(2, 7), st.integers(1, 5), st.integers(0, 1000))
def test_latents_turn_and_stretch_steadily(steps, features, seed):
    start, end = torch.randn(2, 3, features, generator=torch.Generator().manual_seed(seed)).double()
    path = interpolate_latents(start, end, steps)
    assert path.shape == (3, steps, features)
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end)
    torch.testing.assert_close(path, interpolate_latents(end, start, steps).flip(1))
    lengths = path.norm(dim=-1)
    if features > 1:
        assert (lengths.diff(dim=1).std(dim=1, correction=0) < 1e-6).all()
        units = path / lengths[..., None]
        cosines = (units[:, 1:] * units[:, :-1]).sum(dim=-1)
        assert (cosines.amax(dim=1) - cosines.amin(dim=1) < 1e-6).all()


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.5, -1.0])
def test_the_path_is_straight_where_directions_do_not_differ(factor):
    start = torch.tensor([[0.3, -2.0, 1.0]])
    path = interpolate_latents(start, factor * start, 5)
    share = torch.linspace(0, 1, 5)[:, None]
    torch.testing.assert_close(path[0], (1 - share) * start + share * factor * start)


def test_latents_keep_gradients_at_zero():
    start = torch.zeros(1, 4, requires_grad=True)
    interpolate_latents(start, torch.ones(1, 4), 4).sum().backward()
    assert start.grad.isfinite().all()


def test_both_ends_are_exact(priors, ends):
    start, end = ends
    path = interpolate(priors.body_pose, start, end, 6)
    assert path.shape == (4, 6, 23, 6)
    assert torch.equal(path[:, 0], start)
    assert torch.equal(path[:, -1], end)
    assert torch.equal(interpolate(priors.body_pose, start, end, 2), torch.stack([start, end], 1))
    # The computed ends agree with the given ones, so the path has no jump there.
    fine = rotations.rot6d_to_matrix(interpolate(priors.body_pose, start, end, 400))
    turned = rotations.geodesic_distance(fine[:, 1:], fine[:, :-1])
    assert turned.max() < 0.05


def test_the_path_runs_through_the_latents(priors, ends):
    posterior = priors.body_pose.given()
    path = interpolate(posterior, *ends, 5)
    z = interpolate_latents(*(posterior.encode(end) for end in ends), 5)
    torch.testing.assert_close(posterior.encode(path), z, atol=1e-3, rtol=1e-3)


def test_joints_outside_the_density_turn_steadily(priors, ends):
    start, end = ends
    path = rotations.rot6d_to_matrix(interpolate(priors.body_pose, start, end, 5))[:, :, 21:]
    turned = rotations.geodesic_distance(path[:, 1:], path[:, :-1])
    assert turned.min() > 0
    torch.testing.assert_close(turned, turned[:, :1].expand_as(turned), atol=1e-3, rtol=1e-3)


def test_known_joints_that_agree_stay(priors, ends):
    start, end = (each.clone() for each in ends)
    known = torch.arange(23) % 3 == 0
    end[:, known] = start[:, known]
    posterior = priors.body_pose.given(rotations=start, known=known.expand(4, -1))
    path = interpolate(posterior, start, end, 4)
    torch.testing.assert_close(path[:, :, known], start[:, None, known].expand(-1, 4, -1, -1),
                               atol=1e-5, rtol=0)  # fmt: skip


def test_one_posterior_serves_any_batch(priors, ends):
    start, end = (each.unflatten(0, (2, 2)) for each in ends)
    path = interpolate(priors.body_pose.given(), start, end, 3)
    torch.testing.assert_close(path.flatten(0, 1), interpolate(priors.body_pose, *ends, 3))
    empty = interpolate(priors.body_pose, start[:0], end[:0], 3)
    assert empty.shape == (0, 2, 3, 23, 6)
    one = interpolate(priors.body_pose, ends[0][0], ends[1][0], 3)
    torch.testing.assert_close(one, path[0, 0])


def test_points_are_poses_too():
    torch.manual_seed(0)
    posterior = ConditionalPosePrior(4, joints=5, space="points", hidden_features=8)(torch.zeros(4))
    start, end = 0.3 * torch.randn(2, 5, 3)
    path = interpolate(posterior, start, end, 3)
    assert path.shape == (3, 5, 3)
    assert torch.equal(path[0], start)
    assert torch.equal(path[-1], end)


def test_faults_are_named(priors, ends):
    start, end = ends
    with pytest.raises(ValueError, match="num_steps must be a whole number of at least 2"):
        interpolate(priors.body_pose, start, end, 1)
    with pytest.raises(ValueError, match="same shape"):
        interpolate(priors.body_pose, start, end[0], 3)
    with pytest.raises(ValueError, match="NaN or infinity"):
        interpolate(priors.body_pose, start, end * torch.nan, 3)
    with pytest.raises(TypeError, match="expected a ConditionalPosePrior"):
        interpolate("flowprior/body-pose", start, end, 3)
    with pytest.raises(ValueError, match="not evidence"):
        interpolate(priors.unconditional, start, end, 3)
