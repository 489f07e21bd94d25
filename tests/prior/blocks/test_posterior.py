"""The posterior of a whole pose."""

import math

import pytest
import torch

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.prior import BLOCKS, BlockPrior
from flowprior.skeleton import SMPLH_52
from tests.prior.blocks.made_up import (
    BODY,
    LEFT,
    RIGHT,
    body_prior,
    evidence_hand,
    generator,
    hand_prior,
    prior_in_double,
    rotation_vectors,
)

# --- known blocks ---


@pytest.mark.parametrize("blocks", [("body",), ("left_hand",), ("body", "right_hand"), BLOCKS])
def test_known_blocks_stay_exact_and_leave_the_density(prior, context, blocks):
    pose = rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(rotation_vectors(3, 52)))
    posterior = prior(context).with_known(pose, blocks)
    theta = posterior.sample(4, generator=generator())
    for name in BLOCKS:
        part = prior.parts[name]
        known = pose[:, None, part].expand(3, 4, -1, 6)
        assert torch.equal(theta[..., part, :], known) is (name in blocks)
        assert torch.equal(posterior.mode()[:, part], pose[:, part]) is (name in blocks)
    # The density of the known blocks and that of the others give the whole.
    others = [name for name in BLOCKS if name not in blocks]
    whole = torch.where(torch.isfinite(theta), theta, 0)
    rest = prior(context).with_known(whole[:, 0], others)
    total = posterior.log_prob(whole[:, 0]) + rest.log_prob(whole[:, 0])
    torch.testing.assert_close(total, prior.log_prob(whole[:, 0], context), rtol=1e-5, atol=1e-4)
    assert posterior.log_prob(theta).shape == (3, 4)


def test_blocks_become_known_one_after_another(prior, context):
    first, second = (rotation_vectors(3, 52, seed=seed) for seed in (1, 2))
    step = prior(context).with_known(first, ("body",)).with_known(second, ("right_hand",))
    mode = rotations.rot6d_to_matrix(step.mode())
    for part, source in ((BODY, first), (RIGHT, second)):
        expected = rotations.rotvec_to_matrix(source[:, part])
        torch.testing.assert_close(mode[:, part], expected, rtol=0, atol=1e-6)


def test_unknown_blocks_may_hold_any_values(prior, context):
    pose = rotation_vectors(3, 52)
    pose[:, LEFT] = torch.nan
    theta = prior(context).with_known(pose, ("body", "right_hand")).sample(2)
    assert theta.isfinite().all()
    with pytest.raises(ValueError, match="NaN or infinity in left_hand"):
        prior(context).with_known(pose, ("left_hand",))


# --- two hands without a body ---


def test_hands_without_a_body_are_beside_one_at_rest():
    hand = evidence_hand()
    prior = BlockPrior(left_hand="mirrored", right_hand=hand)
    assert list(prior.latent_parts) == ["left_hand", "right_hand"]
    posterior = prior()
    assert posterior.body is None
    theta = posterior.sample(4, generator=generator())
    rest = rotations.matrix_to_rot6d(torch.eye(3)).expand(4, 22, 6)
    assert theta.shape == (4, 52, 6)
    assert torch.equal(theta[:, BODY], rest)
    alone = hand.given()
    expected = alone.log_prob(theta[:, RIGHT])
    known = posterior.with_known(theta[0], ("left_hand",))
    torch.testing.assert_close(known.log_prob(theta), expected, rtol=1e-5, atol=1e-4)
    left = posterior.log_prob(theta) - expected
    sign = torch.tensor([-1.0, 1.0, 1.0, -1.0, 1.0, 1.0])
    mirrored = theta[:, LEFT] * sign * torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(left, alone.log_prob(mirrored), rtol=1e-4, atol=1e-3)
    assert prior.has_exact_mode


def test_hands_follow_a_known_body_whose_prior_is_missing(context):
    left, right = hand_prior(1), hand_prior(2)
    hands, whole = BlockPrior(None, left, right), BlockPrior(body_prior(), left, right)
    posterior = hands(context)
    pose = rotation_vectors(3, 52)
    for verb in (posterior.sample, posterior.mode, posterior.entropy):
        with pytest.raises(ValueError, match=r"depends on the body, which is missing: posterior"):
            verb()
    given = posterior.with_known(pose, ("body",))
    expected = whole(context).with_known(pose, ("body",))
    assert torch.equal(given.log_prob(pose), expected.log_prob(pose))
    assert torch.equal(given.mode(), expected.mode())
    assert torch.equal(given.entropy(), expected.entropy())
    sampled = (each.sample(2, generator=generator()) for each in (given, expected))
    assert torch.equal(*sampled)
    valid = torch.tensor([[True, True, True], [True, False, True], [False, True, True]])
    loss = hands.nll(pose, context, valid)
    alone = [
        given[rows].hand(name, pose[rows]).log_prob(pose[rows, part])
        for name, part, rows in (("left_hand", LEFT, [0]), ("right_hand", RIGHT, [0, 1]))
    ]
    torch.testing.assert_close(loss, -sum(each.mean() for each in alone), rtol=1e-5, atol=1e-4)


def test_evidence_about_a_missing_body_is_an_error():
    prior = BlockPrior(right_hand=evidence_hand())
    with pytest.raises(ValueError, match="the body is missing, so it takes no joints_3d"):
        prior.given(joints_3d=torch.zeros(24, 3))
    with pytest.raises(ValueError, match="at least one block"):
        BlockPrior()


# --- latents and the exact density ---


@pytest.mark.parametrize("blocks", [(), ("body",), ("left_hand",), ("body", "right_hand")])
def test_latents_of_a_pose_and_back(prior, context, blocks):
    pose = rotation_vectors(3, 52)
    posterior = prior(context).with_known(pose, blocks) if blocks else prior(context)
    theta = posterior.sample(4, generator=generator())
    z = posterior.encode(theta)
    assert z.shape == (3, 4, 72 + 45 + 45)
    for name in BLOCKS:
        assert bool(z[..., prior.latent_parts[name]].any()) is (name not in blocks)
    torch.testing.assert_close(posterior.decode(z), theta, rtol=0, atol=1e-4)
    noise = torch.randn(z.shape, generator=generator(1))
    body = prior.latent_parts["body"]
    noise[..., body][..., -6:] = 0  # SMPL's hands, which are at rest
    again = posterior.encode(posterior.decode(noise))
    free = torch.cat(
        [
            torch.ones(part.stop - part.start) * (name not in blocks)
            for name, part in prior.latent_parts.items()
        ]
    )
    torch.testing.assert_close(again, noise * free, rtol=0, atol=2e-3)


def log_determinant(jacobian):
    return jacobian.slogdet().logabsdet


def free_latents(prior):
    """Entries of the latents that are not held, and so are part of the density."""
    held = len(prior.body.rest_joints) * prior.body.flow.features // prior.body.space.joints
    stop = prior.latent_parts["body"].stop
    width = prior.latent_parts["right_hand"].stop
    return [entry for entry in range(width) if not stop - held <= entry < stop]


def test_density_on_rotations_against_the_full_jacobian(context):
    base = {"base": "normal"}
    exact = prior_in_double(
        BlockPrior(body_prior(**base), hand_prior(1, **base), hand_prior(2, **base))
    )
    posterior = exact(context[0].double())
    vectors = rotation_vectors(52).double()
    free = free_latents(exact)

    def latents(flat):
        return posterior.encode(flat.unflatten(0, (52, 3)))[free]

    jacobian = torch.autograd.functional.jacobian(latents, vectors.flatten())
    assert jacobian.shape == (156, 156)
    z = latents(vectors.flatten())
    normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum()
    # The Haar measure of mass 1 over rotation vectors.
    angle = vectors.norm(dim=-1)
    haar = (2 * (1 - angle.cos()) / angle.square() / (8 * math.pi**2)).log().sum()
    expected = normal + log_determinant(jacobian) - haar
    torch.testing.assert_close(posterior.log_prob(vectors), expected, rtol=0, atol=1e-5)
    # Hands depend on the arms, so the blocks do not factorise.
    assert jacobian[66:, 51:66].abs().max() > 1e-3


def test_density_of_6d_vectors_against_the_full_jacobian(context):
    options = {"space": "rot6d", "anchored": False, "coupling": "affine", "head_features": 0}
    prior = prior_in_double(
        BlockPrior(
            body_prior(joints=22, rest_joints=(), **options),
            hand_prior(1, **options),
            hand_prior(2, **options),
        )
    )
    posterior = prior(context[0].double())
    rot6d = rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(rotation_vectors(52).double()))

    def latents(flat):
        return posterior.encode(flat.unflatten(0, (52, 6)))

    jacobian = torch.autograd.functional.jacobian(latents, rot6d.flatten())
    z = latents(rot6d.flatten())
    normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum()
    expected = normal + log_determinant(jacobian)
    torch.testing.assert_close(posterior.log_prob(rot6d), expected, rtol=0, atol=1e-5)


def test_samples_come_with_their_density(prior, context):
    for posterior in (
        prior(context),
        prior(context).with_known(rotation_vectors(3, 52), ("body",)),
    ):
        theta, found = posterior.sample_and_log_prob(5, generator=generator())
        assert torch.equal(theta, posterior.sample(5, generator=generator()))
        torch.testing.assert_close(found, posterior.log_prob(theta), rtol=1e-4, atol=1e-2)
    assert posterior.sample_and_log_prob(0)[1].shape == (3, 0)


# --- entropy ---


def test_entropy_is_exact_where_no_hand_depends_on_an_unknown_body(prior, context):
    apart = BlockPrior(
        body_prior(), evidence_hand(), hand_prior(3, context_features=0, anchored=True)
    )
    posterior = apart(context)
    assert posterior.has_exact_entropy
    expected = posterior.body.entropy() + apart.left_hand.given().entropy()
    expected = expected + apart.right_hand().entropy()
    torch.testing.assert_close(posterior.entropy(num_samples=1), expected)
    pose = rotation_vectors(3, 52)
    known = prior(context).with_known(pose, ("body",))
    assert known.has_exact_entropy
    expected = sum(known.hand(name, pose).entropy() for name in ("left_hand", "right_hand"))
    torch.testing.assert_close(known.entropy(num_samples=1), expected)
    assert torch.equal(prior(context).with_known(pose, BLOCKS).entropy(), torch.zeros(3))


def test_entropy_of_hands_that_depend_on_the_body_is_an_unbiased_estimate(prior, context):
    posterior = prior(context)
    assert not posterior.has_exact_entropy
    found = posterior.entropy(num_samples=400, generator=generator())
    assert torch.equal(found, posterior.entropy(num_samples=400, generator=generator()))
    # The mean of -log p is the other estimate, with much more noise.
    with torch.no_grad():
        log_prob = posterior.sample_and_log_prob(4000, generator=generator(1))[1]
    error = log_prob.std(dim=-1) / math.sqrt(4000)
    assert ((found + log_prob.mean(dim=-1)).abs() < 5 * error + 0.05).all()
    bodies = posterior.sample(50, generator=generator(2))
    each = posterior.hand("left_hand", bodies).entropy()
    assert each.std(dim=-1).min() > 1e-3  # it does depend on the body


def test_entropy_without_a_closed_form(context):
    affine = {"anchored": False, "coupling": "affine", "head_features": 0}
    prior = BlockPrior(body_prior(), hand_prior(1, **affine))
    posterior = prior(context)
    found = posterior.entropy(num_samples=2000, generator=generator())
    with torch.no_grad():
        log_prob = posterior.sample_and_log_prob(4000, generator=generator(1))[1]
    error = log_prob.std(dim=-1) * (1 / math.sqrt(4000) + 1 / math.sqrt(2000))
    assert ((found + log_prob.mean(dim=-1)).abs() < 5 * error).all()
    with pytest.raises(ValueError, match="num_samples"):
        posterior.entropy(num_samples=0)


# --- uncertainty of joints ---


@torch.no_grad()
def test_joints_of_the_whole_pose_have_an_uncertainty(context):
    body = BodyModel(hands=True)
    prior = BlockPrior(body_prior(), "mirrored", evidence_hand())
    posterior = prior(context)
    found = posterior.joint_uncertainty(body, num_samples=40, generator=generator())
    assert found.radius_90_mm.shape == found.std_degrees.shape == (3, 52)
    # The bodies among samples are those of the body alone.
    alone = posterior.body.joint_uncertainty(
        body, num_samples=40, calibrated=False, generator=generator()
    )
    torch.testing.assert_close(found.std_mm[:, :22], alone.std_mm[:, :22], rtol=1e-4, atol=1e-2)
    assert found.std_degrees[:, 22:].min() > 1
    pose = posterior.mode()
    known = posterior.with_known(pose, ("body", "left_hand"))
    found = known.joint_uncertainty(body, num_samples=20, betas=torch.zeros(10))
    assert found.std_mm[:, :37].abs().max() < 1e-2
    fingertips = [SMPLH_52.index(f"right_{finger}3") for finger in ("index", "ring", "thumb")]
    assert found.std_mm[:, fingertips].min() > 0.1
    single = prior(context[0]).joint_uncertainty(body, num_samples=2)
    assert single.radius_50_degrees.shape == (52,)
    assert prior(context[:0]).joint_uncertainty(body).std_mm.shape == (0, 52)
    with pytest.raises(ValueError, match="num_samples"):
        posterior.joint_uncertainty(body, num_samples=1)


# --- batches ---


@pytest.mark.parametrize("rows", [1, slice(1, 3), [2, 0], torch.tensor([True, False, True]), ...])
@pytest.mark.parametrize("known", [(), ("body",), ("right_hand",)])
def test_selected_contexts(prior, context, rows, known):
    pose = rotation_vectors(3, 52)
    posterior = prior(context).with_known(pose, known) if known else prior(context)
    some = posterior[rows]
    assert some.batch_shape == context[rows].shape[:-1]
    torch.testing.assert_close(
        some.log_prob(pose[rows]), posterior.log_prob(pose)[rows], rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(some.mode(), posterior.mode()[rows], rtol=0, atol=1e-5)


def test_selection_of_broadcast_parts(context):
    prior = BlockPrior(body_prior(), "mirrored", evidence_hand())
    posterior = prior(context)
    assert posterior.hands["right_hand"].batch_shape == ()
    assert posterior[[0, 2]].sample(2).shape == (2, 2, 52, 6)
    known = prior(context[0]).with_known(rotation_vectors(3, 52), ("left_hand",))
    assert known.batch_shape == (3,)
    assert known[1].mode().shape == (52, 6)
    assert len(list(posterior)) == 3
    for wrong in (3, (0, 0)):
        with pytest.raises(IndexError, match=r"from contexts of batch shape \(3,\)"):
            posterior[wrong]


def test_no_row_depends_on_another(prior, context):
    theta = rotation_vectors(3, 2, 52)
    expected = prior(context).log_prob(theta)
    others = context.clone()
    others[0], theta[0] = 100.0, theta[0].flip(0)
    torch.testing.assert_close(prior(others).log_prob(theta)[1:], expected[1:], rtol=0, atol=0)
    alone = prior(context[1:2]).log_prob(theta[1:2])
    torch.testing.assert_close(alone, expected[1:2], rtol=1e-5, atol=1e-4)
    assert torch.equal(prior(others).mode()[1:], prior(context).mode()[1:])


def test_empty_posteriors(prior):
    nobody = prior(torch.zeros(0, 4))
    assert nobody.entropy(num_samples=3).shape == (0,)
    assert nobody.encode(torch.zeros(0, 52, 3)).shape == (0, 162)
    assert nobody.decode(torch.zeros(0, 2, 162)).shape == (0, 2, 52, 6)
    assert nobody[:0].sample_and_log_prob(2)[1].shape == (0, 2)


def test_bad_latents(prior, context):
    posterior = prior(context)
    for z, message in (
        (torch.zeros(3, 100), r"z must be \(..., 162\)"),
        (torch.zeros(2, 162), "batch shape"),
        (torch.full((3, 162), torch.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            posterior.decode(z)


def test_it_prints_what_it_is(prior, context):
    posterior = prior(context).with_known(rotation_vectors(3, 52), ("body",))
    assert repr(posterior) == (
        "BlockPosterior(batch_shape=(3,), joints=52, density of left_hand, right_hand, known: body)"
    )
