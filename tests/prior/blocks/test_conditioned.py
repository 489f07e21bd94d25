"""Whole-pose posteriors of several batch axes against those of single contexts."""

import pytest
import torch

from flowprior import rotations
from flowprior.prior import BlockPrior
from flowprior.prior.blocks.checks import annotation_flags, own_context, reads_body
from tests.prior.blocks.made_up import (
    body_prior,
    evidence_hand,
    generator,
    hand_prior,
    prior_in_double,
    rotation_vectors,
)

BATCH = (2, 3)
EXTRA = (4, 2)
KNOWN = [(), ("body",), ("left_hand",), ("body", "right_hand"), ("left_hand", "right_hand")]


@pytest.fixture(scope="module")
def priors():
    body, one, two = body_prior(), hand_prior(1), hand_prior(2)
    return {
        "both": prior_in_double(BlockPrior(body, one, two)),
        "mirrored": prior_in_double(BlockPrior(body, "mirrored", two)),
        "evidence": prior_in_double(BlockPrior(body, evidence_hand(), None)),
        "bodiless": prior_in_double(BlockPrior(None, one, hand_prior(3, context_features=12))),
    }


def contexts() -> torch.Tensor:
    return torch.randn(*BATCH, 4, generator=generator(3)).double()


def poses(*shape: int, seed: int = 4) -> torch.Tensor:
    vector = rotation_vectors(*shape, seed=seed).double()
    return rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(vector))


def conditioned(prior, context, known, at=()):
    """The posterior of a context, with known blocks of a pose of its own."""
    hands = {} if prior.body is not None else {"left_hand": context}
    posterior = prior(context if prior.body is not None else None, **hands)
    whole = poses(*BATCH, 52, seed=5)[at]
    return posterior.with_known(whole, known) if known else posterior


@pytest.mark.parametrize("known", KNOWN, ids=lambda each: "+".join(each) or "nothing")
@pytest.mark.parametrize("name", ["both", "mirrored", "evidence", "bodiless"])
@torch.no_grad()
def test_each_context_has_its_own_posterior(priors, name, known):
    prior = priors[name]
    if name == "bodiless" and "body" not in known:
        pytest.skip("hands that depend on a body need one")
    whole = conditioned(prior, contexts(), known)
    assert whole.batch_shape == BATCH
    assert whole.event_shape == (52, 6)
    theta = poses(*BATCH, *EXTRA, 52)
    width = max(part.stop for part in prior.latent_parts.values())
    z = torch.randn(*BATCH, *EXTRA, width, generator=generator(6)).double()
    found = {
        "log_prob": whole.log_prob(theta),
        "encode": whole.encode(theta),
        "decode": whole.decode(z),
    }
    shapes = {"log_prob": (), "encode": (width,), "decode": (52, 6)}
    assert {key: value.shape for key, value in found.items()} == {
        key: (*BATCH, *EXTRA, *shape) for key, shape in shapes.items()
    }
    mode = whole.mode()
    for at in ((0, 0), (0, 2), (1, 1)):
        one = conditioned(prior, contexts()[at], known, at)
        assert one.batch_shape == ()
        torch.testing.assert_close(found["log_prob"][at], one.log_prob(theta[at]))
        torch.testing.assert_close(found["encode"][at], one.encode(theta[at]))
        torch.testing.assert_close(found["decode"][at], one.decode(z[at]))
        torch.testing.assert_close(mode[at], one.mode())
        torch.testing.assert_close(whole[at].log_prob(theta[at]), one.log_prob(theta[at]))
        spread = one.expand(torch.Size(EXTRA))
        assert spread.batch_shape == EXTRA
        torch.testing.assert_close(spread.log_prob(theta[at]), one.log_prob(theta[at]))
        torch.testing.assert_close(
            spread.mode(), one.mode().expand(*EXTRA, 52, 6), atol=1e-9, rtol=0
        )
    samples, log_prob = whole.sample_and_log_prob(5, generator=generator())
    assert samples.shape == (*BATCH, 5, 52, 6)
    torch.testing.assert_close(whole.log_prob(samples), log_prob, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.sample(5, generator=generator()), samples)
    assert whole.entropy(num_samples=2, generator=generator()).shape == BATCH


@torch.no_grad()
def test_hands_given_bodies_with_further_axes(priors):
    prior = priors["both"]
    posterior = prior(contexts())
    theta = poses(*BATCH, *EXTRA, 52)
    for name in ("left_hand", "right_hand"):
        hand = posterior.hand(name, theta)
        assert hand.batch_shape == (*BATCH, *EXTRA)
        one = prior(contexts()[1, 2]).hand(name, theta[1, 2, 3, 1])
        torch.testing.assert_close(hand.mode()[1, 2, 3, 1], one.mode())
        single = posterior.hand(name, theta[0, 0, 0, 0])  # the same body for all
        assert single.batch_shape == BATCH
        expected = prior(contexts()[1, 0]).hand(name, theta[0, 0, 0, 0]).mode()
        torch.testing.assert_close(single.mode()[1, 0], expected)
    with pytest.raises(ValueError, match=r"^there is no prior of 'head'; hands are left_hand, rig"):
        posterior.hand("head", theta)
    assert priors["evidence"](contexts()).hand("left_hand", theta).batch_shape == ()


@torch.no_grad()
def test_loss_is_the_sum_of_means_over_the_annotated(priors):
    prior, context = priors["both"], contexts()
    theta = poses(*BATCH, 52)
    valid = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]]).bool()
    loss = prior.nll(theta.flatten(0, 1), context.flatten(0, 1), valid)
    rows = theta.flatten(0, 1)
    posterior = prior(context.flatten(0, 1))
    body = posterior.body.log_prob(prior.layout.to_block("body", rows[:, :22]))
    expected = -body[valid[:, 0]].mean()
    for column, name in ((1, "left_hand"), (2, "right_hand")):
        each = posterior.hand(name, rows).log_prob(rows[:, prior.parts[name]])
        expected = expected - each[valid[:, 0] & valid[:, column]].mean()
    torch.testing.assert_close(loss, expected)
    shaped = prior.nll(theta, context, valid.reshape(*BATCH, 3))
    torch.testing.assert_close(shaped, expected)


def test_flags_of_annotation():
    theta = torch.zeros(*BATCH, 52, 6)
    some = torch.tensor([[1, 0, 1], [0, 1, 0]])
    for valid, expected in ((None, torch.ones(BATCH).bool()), (some, some.bool())):
        flags = annotation_flags(valid, theta)
        assert list(flags) == ["body", "left_hand", "right_hand"]
        assert all(torch.equal(each, expected) for each in flags.values())
    each = torch.rand(*BATCH, 3, generator=generator()) < 0.5
    for column, value in enumerate(annotation_flags(each, theta).values()):
        assert torch.equal(value, each[..., column])
    with pytest.raises(ValueError, match=r"^valid must be \(2, 3\) or \(2, 3, 3\), .* got \(3,\)$"):
        annotation_flags(torch.ones(3), theta)
    with pytest.raises(TypeError, match=r"^valid must be a torch\.Tensor"):
        annotation_flags([True], theta)


def test_what_a_hand_reads():
    arm, both, nothing = (hand_prior(context_features=width) for width in (12, 13, 0))
    assert [reads_body(each) for each in (arm, both, nothing, evidence_hand())] == [
        True,
        True,
        False,
        False,
    ]
    assert own_context("left_hand", arm, torch.zeros(2, 9)) is None
    context = torch.zeros(2, 3, 1)
    assert own_context("left_hand", both, context) is context
    for given, got in ((None, "none"), (torch.zeros(2, 2), r"\(2, 2\)")):
        message = rf"^right_hand needs a context \(\.\.\., 1\), beside 12 numbers .* got {got}$"
        with pytest.raises(ValueError, match=message):
            own_context("right_hand", both, given)


def test_messages_name_the_block(priors):
    prior, context = priors["both"], contexts()
    posterior = prior(context)
    bad = poses(*BATCH, 52)
    bad[0, 0, 30] = torch.nan
    for act, message in (
        (lambda: posterior.with_known(bad, ("left_hand",)), r"^theta holds NaN .* in left_hand,"),
        (lambda: posterior.with_known(bad, ("arm",)), r"^blocks must be some of \('body', 'left_h"),
        (lambda: posterior[:, :, 0], r"^cannot select .* from contexts of batch shape \(2, 3\)"),
        (
            lambda: posterior.log_prob(poses(3, 2, 52)),
            r"^theta has leading shape \(3, 2\), but the",
        ),
        (lambda: posterior.log_prob(poses(2, 52)), r"batch shape \(2, 3\): several poses stand"),
        (lambda: posterior.sample(-1), r"num_samples"),
        (lambda: posterior.entropy(num_samples=0), r"^num_samples\b[^?]"),
        (
            lambda: priors["bodiless"](None, left_hand=context).mode(),
            r"^left_hand depends on the b",
        ),
        (
            lambda: priors["evidence"](context, left_hand=context),
            "^left_hand takes no context: its",
        ),
        (lambda: priors["evidence"](context, right_hand=context), "right_hand .*: it is missing$"),
        (lambda: prior.given(left_hand_joints_3d=torch.zeros(21, 3)), "context"),
    ):
        with pytest.raises((ValueError, IndexError), match=message):
            act()
    with pytest.raises(ValueError, match=r"^theta must be \(N, J, k\), one pose per person, got 4"):
        prior.annotated(bad)
    with pytest.raises(ValueError, match=r"^theta must be \(N, J, k\), one pose per person, got 2"):
        prior.annotated(bad[0, 0])
    posterior.with_known(bad, ("body", "right_hand"))
    with pytest.raises(TypeError, match=r"^z must be a torch\.Tensor"):
        posterior.decode([0.0])


def test_a_frozen_block_cannot_be_trained(priors):
    frozen = BlockPrior(body_prior().freeze(), hand_prior(1), None)
    with pytest.raises(TypeError, match=r"^body is frozen: only a ConditionalPosePrior"):
        frozen.nll(torch.zeros(2, 52, 3), torch.zeros(2, 4))
    with pytest.raises(TypeError, match=r"^left_hand is frozen"):
        BlockPrior(body_prior(), hand_prior(1).freeze()).nll(
            torch.zeros(2, 52, 3), torch.zeros(2, 4)
        )
