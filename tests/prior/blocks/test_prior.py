"""Whole poses from blocks: a body and its hands."""

import copy
import math
import pickle

import pytest
import torch

from flowprior import rotations
from flowprior.body import mirror_pose
from flowprior.prior import BLOCKS, BlockPrior
from flowprior.skeleton import SMPL_24, SMPLH_52
from tests.prior.blocks.made_up import (
    BODY,
    LEFT,
    RIGHT,
    body_prior,
    evidence_hand,
    generator,
    hand_prior,
    rotation_vectors,
)

# --- the density ---


def test_samples_and_mode_have_the_joints_of_smpl_h(prior, context):
    posterior = prior(context)
    assert posterior.batch_shape == (3,)
    assert posterior.event_shape == (SMPLH_52.num_joints, 6)
    assert posterior.sample(5).shape == (3, 5, 52, 6)
    assert posterior.mode().shape == (3, 52, 6)
    assert prior.sample(context, 0).shape == (3, 0, 52, 6)


def test_the_density_is_the_product_of_the_blocks(prior, context):
    theta = prior.sample(context, 4, generator=generator())
    body = torch.cat([theta[..., BODY, :], prior.body.space.rest[22:].expand(3, 4, 2, 6)], dim=-2)
    arms = {"left": (18, 20), "right": (19, 21)}
    expected = prior.body(context).log_prob(body)
    for side, hand, part in (("left", prior.left_hand, LEFT), ("right", prior.right_hand, RIGHT)):
        joints = list(arms[side])
        assert [SMPL_24.joint_names[joint] for joint in joints] == [
            f"{side}_elbow",
            f"{side}_wrist",
        ]
        arm = theta[..., joints, :].flatten(-2)
        own = torch.cat([context[:, None].expand(3, 4, 4), arm], dim=-1)
        expected = expected + hand(own).log_prob(theta[..., part, :])
    torch.testing.assert_close(prior.log_prob(theta, context), expected, rtol=1e-5, atol=1e-4)


def test_bodies_among_samples_are_those_of_the_body_alone(prior, context):
    posterior = prior(context)
    alone = posterior.body.sample(6, generator=generator(5))
    whole = posterior.sample(6, generator=generator(5))
    assert torch.equal(whole[..., BODY, :], alone[..., :22, :])
    assert torch.equal(posterior.mode()[:, BODY], posterior.body.mode()[:, :22])


@torch.no_grad()
def test_integrating_out_the_hands_leaves_the_density_of_the_body(prior, context):
    # Importance sampling with hands from another density than their own.
    whole = prior(context[:1]).sample(1, generator=generator(6))
    count = 20_000
    theta = whole.expand(1, count, 52, 6).clone()
    proposal = torch.zeros(1, count)
    for hand, part, joints, seed in (
        (prior.left_hand, LEFT, (18, 20), 8),
        (prior.right_hand, RIGHT, (19, 21), 9),
    ):
        own = torch.cat([context[:1], whole[:, 0, list(joints)].flatten(1)], dim=1).detach()
        drawn = hand(own + 0.1 * torch.randn(own.shape, generator=generator(seed)))
        found = drawn.sample_and_log_prob(count, generator=generator(seed))
        theta[..., part, :] = found[0]
        proposal = proposal + found[1]
    weight = prior(context[:1]).log_prob(theta) - proposal
    estimate = weight.logsumexp(dim=-1) - math.log(count)
    assert 1 / weight.softmax(dim=-1).square().sum() > 100  # effective samples
    body = torch.cat([whole[..., BODY, :], prior.body.space.rest[22:].expand(1, 1, 2, 6)], dim=-2)
    expected = prior.body(context[:1]).log_prob(body)
    assert float(estimate) == pytest.approx(float(expected), abs=0.2)
    assert weight.std() > 0.1  # the proposal is another density


def test_density_does_not_depend_on_the_form_of_theta(prior, context):
    vectors = rotation_vectors(3, 52)
    matrix = rotations.rotvec_to_matrix(vectors)
    expected = prior.log_prob(matrix, context)
    for form in (vectors, rotations.matrix_to_rot6d(matrix)):
        torch.testing.assert_close(prior.log_prob(form, context), expected, rtol=1e-5, atol=1e-4)


def test_hands_follow_the_forearm(prior, context):
    theta = rotations.rotvec_to_matrix(rotation_vectors(3, 52))
    turned = theta.clone()
    turned[:, 20] = theta[:, 21]  # the left wrist
    posterior = prior(context)
    for name, moves in (("left_hand", True), ("right_hand", False)):
        modes = [posterior.hand(name, each).mode() for each in (theta, turned)]
        assert torch.equal(*modes) is not moves


def test_gradients_reach_every_block_and_the_context(prior, context):
    context = context.clone().requires_grad_()
    theta = prior(context).sample(2, generator=generator())
    prior(context).log_prob(theta.detach()).sum().backward()
    assert context.grad.abs().sum() > 0
    for name in BLOCKS:
        assert any(p.grad is not None and p.grad.any() for p in getattr(prior, name).parameters())
    prior.zero_grad(set_to_none=True)


# --- hands of several kinds ---


def test_one_hand_prior_serves_both_hands(context):
    hand = hand_prior(1, context_features=12)
    prior = BlockPrior(body_prior(), "mirrored", hand)
    pose = rotation_vectors(3, 52)
    image = mirror_pose(pose, SMPLH_52)
    right, left = (
        BlockPrior(prior.body, **blocks)(context).with_known(theta, ("body",)).log_prob(theta)
        for blocks, theta in (
            ({"right_hand": hand}, pose),
            ({"left_hand": "mirrored", "right_hand": hand}, image),
        )
    )
    alone = prior(context).with_known(image, ("body", "right_hand")).log_prob(image)
    torch.testing.assert_close(alone, right, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(left, right)
    mode = prior(context).with_known(pose, ("body",)).mode()
    mirrored = prior(context).with_known(image, ("body",)).mode()
    matrix = rotations.rot6d_to_matrix(mode)
    expected = mirror_pose(matrix, SMPLH_52)
    torch.testing.assert_close(rotations.rot6d_to_matrix(mirrored), expected, rtol=0, atol=1e-5)


def test_a_hand_alone_with_the_arm_needs_no_context():
    prior = BlockPrior(
        body_prior(context_features=0, anchored=True), hand_prior(1, context_features=12)
    )
    assert prior().sample(3).shape == (3, 52, 6)
    assert prior().log_prob(prior().sample(3)).shape == (3,)
    assert not prior.has_exact_mode


def test_hands_that_do_not_depend_on_the_body():
    body = body_prior(context_features=0, anchored=True)
    prior = BlockPrior(body, evidence_hand(), hand_prior(1, context_features=0, anchored=True))
    assert prior.has_exact_mode
    posterior = prior()
    theta = posterior.sample(4, generator=generator())
    assert theta.shape == (4, 52, 6)
    top = posterior.log_prob(posterior.mode())
    assert (posterior.log_prob(theta) < top).all()


def test_a_body_without_a_root_has_one_joint_less():
    body = body_prior(joints=23, rest_joints=(21, 22), context_features=0, anchored=True)
    hand = hand_prior(1, context_features=12)
    prior, whole = BlockPrior(body, hand), BlockPrior(body_prior(), hand)
    pose = rotation_vectors(52)
    modes = [
        prior().hand("left_hand", pose[1:]).mode(),
        whole(torch.zeros(4)).hand("left_hand", pose).mode(),
    ]
    assert prior().sample(2).shape == (2, 51, 6)
    torch.testing.assert_close(*modes)


def test_smpl_h_bodies_need_no_rest_joints(context):
    prior = BlockPrior(body_prior(joints=22, rest_joints=()), hand_prior())
    assert prior.sample(context, 2).shape == (3, 2, 52, 6)


def test_hands_have_contexts_of_their_own(prior, context):
    other = context + 1
    pose = rotation_vectors(3, 52)
    shared, own = prior(context), prior(context, left_hand=other)
    assert torch.equal(own.body.mode(), shared.body.mode())
    for name, same in (("left_hand", False), ("right_hand", True)):
        assert torch.equal(own.hand(name, pose).mode(), shared.hand(name, pose).mode()) is same


# --- missing and known blocks ---


def test_missing_hands_are_at_rest_and_outside_the_density(context):
    prior = BlockPrior(body_prior(), right_hand=hand_prior())
    theta = prior.sample(context, 4, generator=generator())
    rest = rotations.matrix_to_rot6d(torch.eye(3)).expand(3, 4, 15, 6)
    assert torch.equal(theta[..., LEFT, :], rest)
    changed = theta.clone()
    changed[..., LEFT, :] = theta[..., RIGHT, :]
    assert torch.equal(prior.log_prob(changed, context), prior.log_prob(theta, context))
    with pytest.raises(ValueError, match="no prior of 'left_hand'"):
        prior(context).hand("left_hand", theta)


def test_known_rotations_of_the_pose_reach_each_block():
    body = body_prior(
        context_features=None, evidence=("rotations",), encoder_features=8, rest_joints=(22, 23)
    )
    prior = BlockPrior(body, "mirrored", evidence_hand())
    pose = rotation_vectors(2, 52)
    pose[:, [3, 24, 40]] = torch.nan
    theta = prior.given(rotations=pose).sample(5)
    known = [joint for joint in range(52) if joint not in (3, 24, 40)]
    expected = rotations.rotvec_to_matrix(pose[:, None, known]).expand(2, 5, -1, 3, 3)
    found = rotations.rot6d_to_matrix(theta[..., known, :])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert theta[:, :, [3, 24, 40]].std(dim=1).min() > 1e-3
    assert prior.given().batch_shape == ()


# --- training ---


def test_people_without_hands_train_the_body_alone(prior, context):
    theta = rotation_vectors(3, 52)
    theta[:2, 22:] = torch.nan
    valid = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0]])
    loss = prior.nll(theta, context, valid)
    loss.backward()
    body = torch.cat([theta[:, :22], torch.zeros(3, 2, 3)], dim=1)
    expected = prior.body.nll(body, context)
    own = torch.cat(
        [
            context,
            rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(theta[:, [18, 20]])).flatten(1),
        ],
        dim=1,
    )
    expected = expected + prior.left_hand.nll(theta[2:, LEFT], own[2:])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    assert any(weight.grad.any() for weight in prior.left_hand.flow.parameters())
    assert not any(
        weight.grad is not None and weight.grad.any() for weight in prior.right_hand.parameters()
    )
    prior.zero_grad(set_to_none=True)


def test_one_flag_per_person_stands_for_all_blocks(prior, context):
    theta, valid = rotation_vectors(3, 52), torch.tensor([True, False, True])
    expected = prior.nll(theta, context, valid[:, None].expand(3, 3))
    assert torch.equal(prior.nll(theta, context, valid), expected)
    torch.testing.assert_close(expected, prior.nll(theta[[0, 2]], context[[0, 2]]))


def test_every_block_takes_its_noise_from_the_generator(prior, context):
    trained = copy.deepcopy(prior).train()
    theta = prior.sample(context, generator=generator())[:, 0].detach()
    for number in range(3):
        flags = (torch.arange(3) <= number).expand(3, 3)  # the hands take the body's flag too
        first = trained.nll(theta, context, flags, generator=generator(1))
        assert torch.equal(trained.nll(theta, context, flags, generator=generator(1)), first)
        assert not torch.equal(trained.nll(theta, context, flags, generator=generator(2)), first)


def test_nll_is_minus_the_mean_density(prior, context):
    theta = rotation_vectors(3, 52)
    torch.testing.assert_close(prior.nll(theta, context), -prior.log_prob(theta, context).mean())


def test_hands_with_evidence_are_trained_beside_a_body_with_a_context(context):
    prior = BlockPrior(body_prior(), right_hand=evidence_hand())
    theta = rotation_vectors(3, 52)
    torch.testing.assert_close(prior.nll(theta, context), -prior.log_prob(theta, context).mean())


# --- bad input ---


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"body": lambda: body_prior(rest_joints=())}, r"needs rest_joints=\(22, 23\)"),
        ({"body": lambda: hand_prior()}, "24 or 22 joint rotations"),
        ({"body": lambda: body_prior(space="points", joints=24)}, "24 or 22 joint rotations"),
        ({"left_hand": lambda: "mirrored"}, "no other hand"),
        ({"left_hand": lambda: "other"}, '"mirrored" if the other hand'),
        ({"left_hand": lambda: "mirrored", "right_hand": lambda: "mirrored"}, "the other hand"),
        ({"left_hand": lambda: body_prior()}, "15 joint rotations of MANO"),
        (
            {"left_hand": lambda: hand_prior(layout="rows")},
            "layout 'rows', the other blocks 'columns'",
        ),
        ({"left_hand": lambda: hand_prior(context_features=5)}, "plus 12 numbers"),
    ],
)
def test_unsuitable_blocks(blocks, message):
    made = {"body": body_prior, **blocks}
    with pytest.raises(ValueError, match=message):
        BlockPrior(**{name: make() for name, make in made.items()})


def test_blocks_that_are_no_priors():
    with pytest.raises(TypeError, match="body must be"):
        BlockPrior("flowprior/people")
    with pytest.raises(TypeError, match="left_hand must be"):
        BlockPrior(body_prior(), torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p, c: p(c).log_prob(torch.zeros(3, 24, 3)), "24 joints"),
        (lambda p, c: p(c).log_prob(torch.zeros(2, 52, 3)), "batch shape"),
        (lambda p, c: p(c).with_known(torch.zeros(3, 52, 3), ("head",)), "some of"),
        (lambda p, c: p(c).with_known(torch.zeros(3, 52, 3), "body"), "some of"),
        (lambda p, c: p(c, left_hand=c[:, :2]), "left_hand needs a context"),
        (lambda p, c: p.nll(torch.zeros(3, 52, 3), c, torch.ones(3, 2)), "valid must be"),
        (lambda p, c: p.given(known=torch.ones(52)), "rotations is missing"),
        (lambda p, c: p.given(), "takes a context"),
        (lambda p, c: BlockPrior(p.body)(c, left_hand=c), "left_hand takes no context"),
    ],
)
def test_bad_arguments(prior, context, act, message):
    with pytest.raises(ValueError, match=message):
        act(prior, context)


def test_evidence_about_hands_that_take_none():
    body = body_prior(context_features=None, evidence=("rotations",), encoder_features=8)
    prior = BlockPrior(body, hand_prior(1, context_features=12))
    with pytest.raises(ValueError, match="left_hand takes no evidence"):
        prior.given(left_hand_joints_3d=torch.zeros(21, 3))


# --- batches and dtypes ---


def test_empty_batches(prior):
    nobody = torch.zeros(0, 4)
    posterior = prior(nobody)
    assert posterior.sample(2).shape == (0, 2, 52, 6)
    assert posterior.mode().shape == (0, 52, 6)
    assert posterior.log_prob(torch.zeros(0, 3, 52, 3)).shape == (0, 3)
    assert prior.nll(torch.zeros(0, 52, 3), nobody) == 0


def test_several_batch_axes(prior, context):
    contexts = torch.stack([context, 2 * context])
    theta = rotation_vectors(2, 3, 5, 52)
    found = prior(contexts).log_prob(theta)
    for row in range(2):
        expected = prior(contexts[row]).log_prob(theta[row])
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-4)


def test_evidence_about_one_hand_is_broadcast():
    body = body_prior(context_features=0, anchored=True)
    hand = hand_prior(context_features=None, evidence=("joints_3d",), encoder_features=8)
    prior = BlockPrior(body, "mirrored", hand)
    points = torch.randn(3, 21, 3, generator=generator())
    assert prior().batch_shape == ()
    assert prior.given(right_hand_joints_3d=points).sample(2).shape == (3, 2, 52, 6)
    people = BlockPrior(
        body_prior(context_features=None, evidence=("joints_3d",), encoder_features=8),
        "mirrored",
        hand,
    )
    posterior = people.given(left_hand_joints_3d=points)
    assert posterior.batch_shape == (3,)
    assert posterior.sample(4).shape == (3, 4, 52, 6)
    assert posterior.mode().shape == (3, 52, 6)
    assert posterior.log_prob(posterior.sample(4)).shape == (3, 4)


def test_contexts_of_one_hand_are_broadcast(prior, context):
    theta = rotation_vectors(3, 5, 52)
    expected = prior(context[:1].expand(3, 4), right_hand=context)
    for shared in (context[0], context[:1]):
        found = prior(shared, right_hand=context)
        assert found.batch_shape == (3,)
        torch.testing.assert_close(found.log_prob(theta), expected.log_prob(theta))
        torch.testing.assert_close(found.mode(), expected.mode())


def test_hands_without_a_context_do_not_read_that_of_the_body(context):
    body, hand = body_prior(), hand_prior(context_features=0, anchored=True)
    theta = rotation_vectors(3, 52)
    found = BlockPrior(body, left_hand=hand, right_hand=None)(context)
    expected = BlockPrior(body)(context).log_prob(theta) + hand().log_prob(theta[:, LEFT])
    torch.testing.assert_close(found.log_prob(theta), expected)


def test_arrays_are_refused_by_name(prior, context):
    with pytest.raises(TypeError, match=r"^valid must be a torch\.Tensor, got list"):
        prior.nll(rotation_vectors(3, 52), context, [True] * 3)
    hand = hand_prior(context_features=None, evidence=("joints_3d",), encoder_features=8)
    hands = BlockPrior(left_hand=hand, right_hand=hand)
    for name in ("left_hand_joints_3d", "right_hand_joints_3d"):
        with pytest.raises(TypeError, match=rf"^{name} must be a torch\.Tensor, got list"):
            hands.given(**{name: [0.0]})


@torch.no_grad()
def test_points_of_a_mirrored_hand_are_mirrored():
    body = body_prior(context_features=0, anchored=True)
    hand = hand_prior(context_features=None, evidence=("joints_3d",), encoder_features=8)
    prior = BlockPrior(body, "mirrored", hand)
    points = 0.1 * torch.randn(3, 21, 3, generator=generator())
    axes = torch.tensor([-1.0, 1.0, 1.0])
    left = prior.given(left_hand_joints_3d=points).mode()[:, LEFT]
    right = prior.given(right_hand_joints_3d=points * axes).mode()[:, RIGHT]
    assert right.std(dim=0).max() > 1e-4  # it depends on the points
    image = torch.diag(axes) @ rotations.rot6d_to_matrix(right) @ torch.diag(axes)
    torch.testing.assert_close(rotations.rot6d_to_matrix(left), image, rtol=0, atol=1e-5)


def test_double_precision_and_copies(prior, context):
    exact = copy.deepcopy(prior).double()
    theta = rotation_vectors(3, 52)
    found = exact.log_prob(theta.double(), context.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), prior.log_prob(theta, context), rtol=1e-4, atol=1e-2)
    again = pickle.loads(pickle.dumps(prior))
    assert torch.equal(again.log_prob(theta, context), prior.log_prob(theta, context))
