"""The finger angles of a fit: limits, symmetry, and the directions in which fingers bend."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting.finger_angles import NUM_ANGLES, finger_angles
from flowprior.skeleton import BODY_67

LEFT, RIGHT = slice(25, 46), slice(46, 67)


@pytest.fixture(scope="module")
def body():
    return BodyModel(hands=True)


@pytest.fixture(scope="module")
def hands(body):
    return finger_angles(body)


def posed(body, hands, x):
    """Keypoints of both hands (P, 21, 3) for variables x (P, 22), the body in its rest pose."""
    rest = torch.eye(3).expand(len(x), 22, 3, 3)
    theta = torch.cat([rest, *(hand.rotations(x) for hand in hands)], dim=1)
    points = body.keypoints(theta, BODY_67)
    return points[:, LEFT], points[:, RIGHT]


@given(st.integers(0, 10_000), st.floats(0, 100))
def test_angles_stay_within_their_limits(hands, seed, scale):
    x = scale * torch.randn(4, NUM_ANGLES, generator=torch.Generator().manual_seed(seed))
    for hand in hands:
        found = hand.angles(x).flatten(1) @ hand.place
        assert (found >= hand.rest - hand.low - 1e-5).all()
        assert (found <= hand.rest + hand.high + 1e-5).all()


def test_the_most_likely_hand_is_the_one_at_rest(hands):
    for hand in hands:
        x = torch.zeros(1, NUM_ANGLES, requires_grad=True)
        found = hand.angles(x).flatten(1) @ hand.place
        torch.testing.assert_close(found[0], hand.rest)
        hand.penalty(x).sum().backward()
        assert not x.grad.any()


def test_angles_are_smooth_at_rest(hands):
    x = torch.zeros(1, NUM_ANGLES, dtype=torch.float64)
    for hand in hands:
        exact = hand.to(x)
        step = 1e-6 * torch.eye(NUM_ANGLES, dtype=torch.float64)
        ahead, behind = (exact.angles(x + sign * step) for sign in (1, -1))
        there = exact.angles(x)
        torch.testing.assert_close(ahead - there, there - behind, atol=1e-9, rtol=1e-3)


def test_equal_variables_mirror_the_hands(body, hands):
    x = torch.randn(5, NUM_ANGLES, generator=torch.Generator().manual_seed(0))
    left, right = posed(body, hands, x)
    torch.testing.assert_close(left * torch.tensor([-1.0, 1, 1]), right, atol=2e-4, rtol=0)


def test_flexion_bends_all_fingertips_towards_the_palm(body, hands):
    x = torch.zeros(2, NUM_ANGLES)
    flexions = [4 * finger + joint for finger in range(4) for joint in range(3)]
    x[0, flexions] = -1.5
    for points in posed(body, hands, x):
        tips = points[:, [8, 12, 16, 20]]
        wrist, middle = points[0, 0], points[0, 9]
        # Below the palm, and closer to the wrist.
        assert (tips[1, :, 1] < tips[0, :, 1] - 0.01).all()
        assert ((tips[1] - wrist).norm(dim=-1) < (tips[0] - wrist).norm(dim=-1)).all()
        assert (middle - wrist).norm() > 0.05


def test_neighbouring_fingers_bend_together(hands):
    hand = hands[0]
    covariance = hand.mixing @ hand.mixing.mT
    torch.testing.assert_close(covariance.diagonal(), torch.ones(NUM_ANGLES), atol=1e-5, rtol=0)
    index, middle, little, ring = 0, 4, 8, 12
    assert covariance[index, middle] > covariance[index, ring] > covariance[index, little] > 0


def test_rotations_are_proper(hands):
    x = 2 * torch.randn(6, NUM_ANGLES, generator=torch.Generator().manual_seed(1))
    for hand in hands:
        turned = hand.rotations(x)
        eye = torch.eye(3).expand_as(turned)
        torch.testing.assert_close(turned @ turned.mT, eye, atol=1e-5, rtol=0)
        assert (torch.linalg.det(turned) > 0).all()
        assert (rotations.matrix_to_rotvec(turned).norm(dim=-1) < torch.pi).all()


def test_a_body_without_fingers_is_refused():
    with pytest.raises(ValueError, match="no fingers: use BodyModel"):
        finger_angles(BodyModel())
