"""The prior over hands that ships with the library."""

import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel, hand_points
from flowprior.files.model_folder import BUNDLED
from flowprior.fitting import inverse_kinematics
from flowprior.prior import BlockPrior
from flowprior.skeleton import MANO_16, MANO_21
from tools.priors.hand_chain import HandChain
from tools.priors.hand_drawing import TIPS
from tools.priors.hand_poses import FLEXION_DEGREES, sample_hands, wrong_way

NAME = "flowprior/hands-procedural"


@pytest.fixture(scope="module")
def prior():
    return ConditionalPosePrior.from_pretrained(NAME).freeze()


@pytest.fixture(scope="module")
def body():
    return BodyModel(hands=True)


@pytest.fixture(scope="module")
def chain(body):
    return HandChain(body)


@pytest.fixture(scope="module")
def truth(chain):
    """Hands that the training has not seen, (40, 15, 3)."""
    return sample_hands(40, generator(123), chain)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distance_mm(chain, theta, truth, points=slice(1, 16)):
    """Mean distance of points of poses (..., 15, 6)."""
    found = chain(rotations.rot6d_to_matrix(theta))
    expected = chain(rotations.rotvec_to_matrix(truth))
    return 1000 * float((found - expected)[:, points].norm(dim=-1).mean())


def test_files_are_small_and_the_card_is_honest():
    files = {path.name: path for path in BUNDLED[NAME].iterdir()}
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert sum(path.stat().st_size for path in files.values()) < 1.5e6
    card = files["README.md"].read_text(encoding="utf-8")
    for text in ("procedural, not captured", "**Not for**", "e-hand.com", "--bfloat16"):
        assert text in card


@torch.no_grad()
def test_generated_fingers_bend_the_right_way(prior, chain):
    samples = prior.given().sample(300, generator=generator())
    vectors = rotations.matrix_to_rotvec(rotations.rot6d_to_matrix(samples))
    for finger in ("index", "middle", "ring", "pinky"):
        flat = torch.zeros(1, 15, 3)
        axis = -wrong_way(flat, f"{finger}2", 1.0, chain)[0, MANO_16.index(f"{finger}2") - 1]
        degrees = torch.rad2deg(
            vectors[:, MANO_16.index(f"{finger}2") - 1] @ torch.nn.functional.normalize(axis, dim=0)
        )
        low, high = FLEXION_DEGREES["pip"]
        assert ((degrees > low - 15) & (degrees < high + 15)).float().mean() > 0.95
        assert degrees.std() > 15


@torch.no_grad()
def test_hands_bent_backwards_are_less_likely(prior, chain, truth):
    marginal = prior.given()
    density = marginal.log_prob(truth)
    for joint in ("index2", "middle3", "pinky2"):
        assert (density > marginal.log_prob(wrong_way(truth, joint, 60.0, chain))).all()


@torch.no_grad()
def test_points_determine_the_pose(prior, chain, truth):
    points = chain(rotations.rotvec_to_matrix(truth))
    assert distance_mm(chain, prior.given(joints_3d=points).mode(), truth) < 5
    tips = torch.full_like(points, torch.nan)
    tips[:, [0, *TIPS]] = points[:, [0, *TIPS]]
    some = distance_mm(chain, prior.given(joints_3d=tips).mode(), truth)
    average = prior.given().mode().expand(40, 15, 6)
    assert some < 0.4 * distance_mm(chain, average, truth)


@torch.no_grad()
def test_a_missing_finger_follows_the_others(prior, chain, truth):
    theta = rotations.rotvec_to_matrix(truth)
    average = prior.given().mode().expand(40, 15, 6)
    for finger in ("middle", "ring"):
        known = torch.ones(15, dtype=torch.bool)
        unknown = [MANO_16.index(f"{finger}{n}") - 1 for n in (1, 2, 3)]
        known[unknown] = False
        mode = prior.given(rotations=theta, known=known).mode()
        tip = [MANO_21.index(finger)]
        assert distance_mm(chain, mode, truth, tip) < 0.8 * distance_mm(chain, average, truth, tip)
        kept = rotations.rot6d_to_matrix(mode)[:, known]
        torch.testing.assert_close(kept, theta[:, known], rtol=0, atol=1e-6)


def test_fingertips_are_reached(prior, body, chain, truth):
    points = chain(rotations.rotvec_to_matrix(truth[:4]))
    tips = torch.full_like(points, torch.nan)
    tips[:, list(TIPS)] = points[:, list(TIPS)]
    found = inverse_kinematics(prior, tips, body=body, num_samples=4)
    assert found.theta.shape == (4, 15, 6)
    assert found.error_mm.max() < 3
    reached = hand_points(body, found.theta)[:, list(TIPS)]
    error = 1000 * (reached - points[:, list(TIPS)]).norm(dim=-1).mean(dim=-1)
    torch.testing.assert_close(error, found.error_mm, rtol=1e-3, atol=0.01)
    assert not found.transl.any()
    with pytest.raises(ValueError, match="21, 3"):
        inverse_kinematics(prior, torch.zeros(24, 3))


@torch.no_grad()
def test_with_the_prior_of_people_it_is_a_whole_body(prior, body, truth, chain):
    people = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()
    whole = BlockPrior(people, "mirrored", prior)
    points = chain(rotations.rotvec_to_matrix(truth[:2]))
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    posterior = whole.given(left_hand_joints_3d=mirrored, right_hand_joints_3d=points)
    theta = posterior.sample(3, generator=generator())
    assert theta.shape == (2, 3, 52, 6)
    assert posterior.log_prob(theta).shape == (2, 3)
    mode = posterior.mode()
    left = hand_points(body, mode[:, whole.parts["left_hand"]], side="left")
    right = hand_points(body, mode[:, whole.parts["right_hand"]])
    for found, expected in ((left, mirrored), (right, points)):
        assert 1000 * (found - expected)[:, 1:].norm(dim=-1).mean() < 6
