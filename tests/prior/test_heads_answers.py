"""Answers of regressors as centres: every representation, and the context with an answer."""

import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.prior.heads import (
    context_with_answer,
    theta_from_parts,
    theta_from_rot6d,
    theta_from_rotvec,
    to_smpl_24,
)


def poses(*batch, seed=0):
    torch.manual_seed(seed)
    return roma.random_rotmat(batch)


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
@given(joints=st.integers(2, 5), scale=st.floats(0.5, 3.0))
def test_6d_vectors_of_any_length(layout, joints, scale):
    theta = poses(2, joints)
    x = scale * rotations.matrix_to_rot6d(theta, layout)
    torch.testing.assert_close(theta_from_rot6d(x, layout), theta)
    torch.testing.assert_close(theta_from_rot6d(x.flatten(1), layout), theta)


def test_rotation_vectors():
    theta = poses(2, 5)
    x = rotations.matrix_to_rotvec(theta)
    torch.testing.assert_close(theta_from_rotvec(x), theta)
    torch.testing.assert_close(theta_from_rotvec(x.flatten(1)), theta)


@pytest.mark.parametrize("root_axes", [1, 0])
def test_parts(root_axes):
    theta = poses(2, 24)
    root = theta[:, :1] if root_axes else theta[:, 0]
    assert torch.equal(theta_from_parts(root, theta[:, 1:]), theta)


@pytest.mark.parametrize("joints", [22, 52, 53, 55])
def test_the_smpl_family_shares_22_joints(joints):
    theta = poses(3, joints)
    found = to_smpl_24(theta)
    assert torch.equal(found[:, :22], theta[:, :22])
    assert torch.equal(found[:, 22:], torch.eye(3).expand(3, 2, 3, 3))


def test_smpl_is_unchanged():
    theta = poses(2, 24)
    assert to_smpl_24(theta) is theta


def test_a_context_with_an_answer():
    features, theta = torch.randn(2, 7), poses(2, 24)
    context = context_with_answer(features, theta)
    assert torch.equal(context[:, :7], features)
    assert torch.equal(context[:, 7:], rotations.matrix_to_rot6d(theta).flatten(1))
    points = torch.randn(2, 70, 3)
    assert torch.equal(context_with_answer(features, points)[:, 7:], points.flatten(1))
    three = torch.randn(2, 3, 3)  # three points, not a matrix
    assert context_with_answer(features, three).shape == (2, 7 + 9)
    half = context_with_answer(features.bfloat16(), theta)
    assert half.dtype == torch.float32
    assert context_with_answer(features[:0], theta[:0]).shape == (0, 7 + 144)


@pytest.mark.parametrize("space", ["so3", "rot6d"])
def test_the_mode_is_the_answer_to_the_last_bit(space):
    prior = ConditionalPosePrior(4 + 144, space=space, hidden_features=8, head_features=0).eval()
    features, theta = torch.randn(3, 4), poses(3, 24)
    posterior = prior(context_with_answer(features, theta), centre=theta)
    assert torch.equal(posterior.mode(), rotations.matrix_to_rot6d(theta))


def test_points_stay_exact_too():
    prior = ConditionalPosePrior(4 + 210, joints=70, space="points", hidden_features=8).eval()
    features, points = torch.randn(3, 4), torch.randn(3, 70, 3)
    posterior = prior(context_with_answer(features, points), centre=points)
    assert torch.equal(posterior.mode(), points)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: theta_from_rot6d(torch.zeros(2, 143), "rows"),
            r"flat \(..., 6 J\), got \(2, 143\)",
        ),
        (lambda: theta_from_rot6d(torch.zeros(2, 144), "cols"), "layout must be one of"),
        (lambda: theta_from_rotvec(torch.zeros(2, 4)), r"flat \(..., 3 J\), got \(2, 4\)"),
        (lambda: theta_from_rotvec(torch.zeros(2, 0)), "rotation vectors must be"),
        (lambda: theta_from_parts(torch.zeros(2, 6), poses(2, 23)), "convert 6D vectors"),
        (lambda: theta_from_parts(poses(3, 1), poses(2, 23)), "different batches"),
        (lambda: to_smpl_24(poses(2, 127)), r"J one of 22 .* got \(2, 127, 3, 3\)"),
        (lambda: to_smpl_24(torch.zeros(2, 72)), r"got \(2, 72\)"),
        (lambda: context_with_answer(torch.zeros(3, 4), poses(2, 24)), "different batches"),
    ],
)
def test_bad_shapes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_arrays_are_refused():
    with pytest.raises(TypeError, match=r"^x must be a .* torch\.as_tensor converts"):
        theta_from_rotvec([[0.0, 0.0, 0.0]])
