"""Which blocks the people of a data set are annotated with."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.prior import BlockPrior
from flowprior.prior.blocks.annotation import repeated_poses
from tests.prior.blocks.made_up import (
    LEFT,
    RIGHT,
    body_prior,
    evidence_hand,
    generator,
    hand_prior,
    rotation_vectors,
)


@given(
    copies=st.integers(0, 15),
    others=st.integers(0, 20),
    repeats=st.integers(2, 12),
    seed=st.integers(0, 9),
)
def test_only_poses_with_enough_copies_are_repeated(copies, others, repeats, seed):
    poses = rotation_vectors(others + 1, 15, seed=seed)
    theta = torch.cat([poses[:1].expand(copies, 15, 3), poses[1:]])
    order = torch.randperm(len(theta), generator=generator(seed))
    found = repeated_poses(theta[order], repeats)
    least = max(2, min(repeats, len(theta)))
    expected = (order < copies) & (copies >= least)
    assert torch.equal(found, expected)


def test_constant_hands_are_not_annotated():
    """Issue 28 of nghorbani/amass: hands of most subjects never move."""
    prior = BlockPrior(body_prior(), "mirrored", evidence_hand())
    theta = rotation_vectors(60, 52)
    theta[:25, LEFT] = 0.0  # flat
    theta[:22, RIGHT] = theta[0, RIGHT].clone()  # the mean pose
    theta[40, RIGHT] = torch.nan
    theta[50, 3] = torch.nan
    theta[51:54, LEFT] = 0.1  # too few to tell
    found = prior.annotated(theta)
    expected = torch.ones(60, 3, dtype=torch.bool)
    expected[:25, 1] = False
    expected[:22, 2] = False
    expected[40, 2] = False
    expected[50, 0] = False
    assert torch.equal(found, expected)
    assert torch.equal(
        prior.annotated(theta, repeats=3)[51:54, 1], torch.zeros(3, dtype=torch.bool)
    )
    assert prior.annotated(theta[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match="one pose per person"):
        prior.annotated(theta[0])


def test_a_hand_prior_is_not_trained_on_constant_hands(context):
    prior = BlockPrior(body_prior(), "mirrored", hand_prior(1)).train()
    people = torch.cat([context, context, context, context])
    theta = rotation_vectors(12, 52)
    theta[:, 22:] = 0.1
    prior.nll(theta, people, prior.annotated(theta)).backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in prior.body.parameters())
    for weight in prior.right_hand.parameters():
        assert weight.grad is None or not weight.grad.any()


def test_values_of_hands_that_are_not_annotated_do_not_matter(context):
    prior = BlockPrior(body_prior(), hand_prior(1), hand_prior(2))
    theta, valid = rotation_vectors(3, 52), torch.tensor([[1, 0, 1], [1, 1, 0], [1, 0, 0]])
    found = []
    for value in (0.3, torch.nan):
        theta[0, LEFT] = theta[1, RIGHT] = theta[2, 22:] = value
        prior.zero_grad()
        prior.nll(theta, context, valid).backward()
        found.append(
            [weight.grad.clone() for weight in prior.parameters() if weight.grad is not None]
        )
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("theta", "repeats", "error", "message"),
    [
        ([0.0], 10, TypeError, "theta"),
        (torch.tensor(0.0), 10, ValueError, "one pose per row"),
        (torch.zeros(3, 15, 3), 1, ValueError, "repeats"),
    ],
)
def test_bad_arguments(theta, repeats, error, message):
    with pytest.raises(error, match=message):
        repeated_poses(theta, repeats)
