"""The fingers of a fit: the prior's density, its mirror image, and the priors that are accepted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting.hand_pose import DEFAULT_HANDS, HandPose, both_hands, hand_poses
from flowprior.fitting.pose_variables import DensityPose, LatentPose, variables_of
from flowprior.prior import BlockPrior
from flowprior.skeleton import BODY_25, BODY_67

LEFT, RIGHT = slice(25, 46), slice(46, 67)
LIKE = torch.zeros(1)


@pytest.fixture(scope="module")
def body():
    return BodyModel(hands=True)


@pytest.fixture(scope="module")
def hands():
    return hand_poses(DEFAULT_HANDS, 4, LIKE)


def small_prior(coupling="additive", context=0, seed=0):
    """A prior over hands, hardly trained."""
    torch.manual_seed(seed)
    prior = ConditionalPosePrior(
        context,
        joints=15,
        hidden_features=16,
        num_steps=2,
        coupling=coupling,
        anchored=coupling == "additive",
    )
    theta = rotations.rotvec_to_matrix(0.3 * torch.randn(64, 15, 3))
    prior.nll(theta, torch.randn(64, context) if context else None)  # initialises ActNorm
    return prior.eval()


def variables(people=4, seed=0, size=45):
    return torch.randn(people, size, generator=torch.Generator().manual_seed(seed))


def posed(body, left, right):
    """Keypoints of both hands (P, 21, 3) for theta (P, 15, 6), the body in its rest pose."""
    rest = rotations.matrix_to_rot6d(torch.eye(3)).expand(len(left), 22, 6)
    points = body.keypoints(torch.cat([rest, left, right], dim=1), BODY_67)
    return points[:, LEFT], points[:, RIGHT]


def test_a_fit_starts_from_the_most_likely_hand(hands):
    mode = ConditionalPosePrior.from_pretrained(DEFAULT_HANDS).given().mode()
    for hand in hands:
        x = hand.start(4)
        assert x.shape == (4, hand.size)
        torch.testing.assert_close(hand.penalty(x), torch.zeros(4))
        assert (hand.penalty(x + variables()) > 0).all()
    right = hands[1].theta(hands[1].start(4))
    torch.testing.assert_close(right, mode.expand(4, 15, 6), atol=1e-5, rtol=0)


@given(st.integers(0, 10_000))
def test_equal_variables_mirror_the_hands(body, hands, seed):
    x = variables(seed=seed)
    left, right = posed(body, *(hand.theta(x) for hand in hands))
    torch.testing.assert_close(left * torch.tensor([-1.0, 1, 1]), right, atol=2e-4, rtol=0)


@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_the_penalty_is_the_density_of_the_prior(coupling):
    prior = small_prior(coupling).double().freeze()
    posterior = prior(None)
    like = torch.zeros(1, dtype=torch.float64)
    kind = LatentPose if coupling == "additive" else DensityPose
    for hand in hand_poses((prior, posterior), 4, like):
        assert isinstance(hand.fingers, kind)
        x = hand.start(4) + 0.1 * variables().double()
        with torch.no_grad():
            here, start = (posterior.log_prob(hand.theta(each)) for each in (x, hand.start(4)))
            torch.testing.assert_close(
                hand.penalty(x) - hand.penalty(hand.start(4)), 2 * (start - here)
            )


def test_a_pair_serves_both_hands_as_they_are():
    one, other = small_prior(seed=1), small_prior(seed=2)
    left, right = hand_poses((one, other), 4, LIKE)
    x, y = variables(seed=3), variables(seed=4)
    found = both_hands(left, x, right, y)
    for theta, prior, z in zip(found, (one, other), (x, y), strict=True):
        expected = rotations.rot6d_to_matrix(prior(None).decode(z))
        torch.testing.assert_close(rotations.rot6d_to_matrix(theta), expected)


def test_both_hands_of_one_prior_are_evaluated_together(hands):
    left, right = hands
    x, y = variables(seed=3), variables(seed=4)
    together = both_hands(left, x, right, y)
    for found, expected in zip(together, (left.theta(x), right.theta(y)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_posteriors_with_a_context_for_each_person():
    prior = small_prior(context=3)
    contexts = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    left, right = hand_poses((prior(contexts[0]), prior(contexts[1])), 4, LIKE)
    x, rows = variables(2), torch.tensor([3, 0])
    expected = prior(contexts[1])[rows].decode(x)
    torch.testing.assert_close(right.select(rows).theta(x), expected)
    assert left.sample(rows, 3).shape == (2, 3, 15, 6)
    with pytest.raises(ValueError, match="one context for each of 5 people"):
        hand_poses((prior(contexts[0]), prior(contexts[1])), 5, LIKE)


def test_blocks_give_their_hands():
    prior, body = small_prior(), ConditionalPosePrior(0, joints=22, hidden_features=8).eval()
    x, y = variables(seed=3), variables(seed=4)
    for blocks in (BlockPrior(body, "mirrored", prior), BlockPrior(body, prior, "mirrored")):
        for source in (blocks, blocks(None)):
            left, right = hand_poses(source, 4, LIKE)
            assert left.mirrored != right.mirrored
            theta = torch.cat(
                [body(None).mode().expand(4, 22, 6), *both_hands(left, x, right, y)], 1
            )
            with torch.no_grad():
                here = blocks(None).log_prob(theta)
                start = torch.cat(
                    [theta[:, :22], left.theta(left.start(4)), right.theta(right.start(4))], 1
                )
                fall = blocks(None).log_prob(start) - here
            torch.testing.assert_close(
                left.penalty(x) + right.penalty(y), 2 * fall, rtol=1e-3, atol=1e-2
            )


def test_blocks_without_hands_of_their_own_are_refused():
    prior, body = small_prior(), ConditionalPosePrior(0, joints=22, hidden_features=8).eval()
    with pytest.raises(ValueError, match="the prior has no left_hand"):
        hand_poses(BlockPrior(body, None, prior), 4, LIKE)
    follows = ConditionalPosePrior(12, joints=15, hidden_features=8)
    for blocks in (
        BlockPrior(body, "mirrored", follows),
        BlockPrior(body, "mirrored", follows)(None),
    ):
        with pytest.raises(ValueError, match="left_hand depends on the body"):
            hand_poses(blocks, 4, LIKE)


def test_samples_are_those_of_the_prior(hands):
    generator = torch.Generator().manual_seed(0)
    prior = ConditionalPosePrior.from_pretrained(DEFAULT_HANDS)
    with torch.no_grad():
        expected = prior.given().sample(3000, generator=generator).std(dim=0)
        for hand in hands:
            found = hand.sample(torch.arange(2), 1500, generator=generator)
            assert found.shape == (2, 1500, 15, 6)
            torch.testing.assert_close(
                found.flatten(0, 1).std(dim=0), expected, atol=0.03, rtol=0.1
            )


def test_what_is_no_prior_of_hands_is_an_error(hands):
    with pytest.raises(ValueError, match="over the 15 joint rotations of a hand, got one over 24"):
        hand_poses("flowprior/people", 4, LIKE)
    with pytest.raises(ValueError, match="a context of 3 numbers"):
        hand_poses(small_prior(context=3), 4, LIKE)
    with pytest.raises(TypeError, match="expected a prior over hands"):
        hand_poses(None, 4, LIKE)
    with pytest.raises(ValueError, match="a pair of priors, left and right, got 1"):
        hand_poses((small_prior(),), 4, LIKE)
    with pytest.raises(ValueError, match=r"hands_prior has torch\.float64"):
        hand_poses(small_prior().double(), 4, LIKE)
    with pytest.raises(ValueError, match="over a body, got one over a hand"):
        variables_of(DEFAULT_HANDS, torch.zeros(1, 25, 3), BODY_25)
    assert isinstance(hands[0], HandPose)
