"""The posterior of a person given joints that the user has placed."""

import numpy as np
import pytest
import torch

from flowprior import ConditionalPosePrior
from flowprior.skeleton import COCO_17, SMPL_24
from flowprior.view.placing import PersonPosterior, released_keypoints
from tests.view.people import people

WRIST, OTHER = SMPL_24.index("left_wrist"), SMPL_24.index("right_wrist")


@pytest.fixture(scope="module")
def person(prior, body, fits):
    return PersonPosterior(prior, body, fits, 0, num_samples=8)


@pytest.fixture(scope="module")
def place(person):
    return person.joints[WRIST].numpy() + np.array([0.1, -0.15, -0.1])


@pytest.fixture(scope="module")
def answer(person, place):
    return person.given({WRIST: place})


def test_the_fit_is_that_of_the_file(person, fits):
    fit = person.fit()
    np.testing.assert_allclose(person.joints.numpy(), fits.joints[0], atol=1e-4)
    assert (fit.confidence == fits.joint_confidence[0]).all()
    assert (fit.std_mm == fits.joint_std_mm[0]).all()
    assert fit.samples.shape == (6, 24, 3, 3)
    torch.testing.assert_close(
        person.pose(fit.posterior, torch.zeros(72)), fit.theta, atol=1e-3, rtol=0
    )


def test_nothing_placed_is_the_fit(person):
    assert person.given({}).theta is person.fit().theta


def test_a_placed_joint_is_where_the_user_has_put_it(person, answer, place):
    joints = person.joints_of(answer.theta).numpy()
    assert 1000 * np.linalg.norm(joints[WRIST] - place) < 15
    assert answer.error_mm[WRIST] == pytest.approx(
        1000 * np.linalg.norm(joints[WRIST] - place), abs=0.01
    )
    assert np.abs(joints[0] - person.joints[0].numpy()).max() < 1e-5
    # Other limbs stay where their keypoints are in the image.
    knees = [SMPL_24.index("left_knee"), SMPL_24.index("right_knee")]
    before, after = (each[knees, :2] / each[knees, 2:] for each in (person.joints.numpy(), joints))
    assert np.abs(after - before).max() * person.joints[0, 2].item() < 0.06


def test_the_placed_joint_is_certain_in_samples_and_colours(person, answer, place):
    samples = person.joints_of(answer.samples).numpy()
    assert np.median(np.linalg.norm(samples[:, WRIST] - place, axis=-1)) < 0.01
    assert answer.std_mm[WRIST] < 25
    assert answer.confidence[WRIST] > 0.95
    assert answer.std_mm[OTHER] > 50
    assert person.fit().std_mm[WRIST] > 50


def test_answers_are_repeatable(person, answer, place):
    again = person.given({WRIST: place})
    assert torch.equal(again.theta, answer.theta)
    assert torch.equal(again.samples, answer.samples)


def test_without_keypoints_other_limbs_are_less_certain(person, answer, place):
    free = person.given({WRIST: place}, keep_keypoints=False)
    ankles = [SMPL_24.index("left_ankle"), SMPL_24.index("right_ankle")]
    assert (free.std_mm[ankles] > answer.std_mm[ankles]).all()


def test_a_body_follows_a_joint_while_it_moves(person, place):
    fit, start = person.fit(), person.joints[WRIST].numpy()
    still = person.follow(fit, {WRIST: start})
    assert (person.joints_of(still) - person.joints).abs().max() < 0.001
    for share in (0.25, 0.5, 0.75, 1.0):
        target = start + share * (place - start)
        theta = person.follow(fit, {WRIST: target})
        away = person.joints_of(theta)[WRIST].numpy() - target
        assert np.linalg.norm(away) < 0.2 * np.linalg.norm(target - start)


def test_placing_a_joint_releases_the_keypoints_of_its_limb():
    names = {
        joint: {COCO_17.joint_names[each] for each in released_keypoints(SMPL_24.index(joint))}
        for joint in SMPL_24.joint_names
    }
    assert names["left_wrist"] == {"left_elbow", "left_wrist"}
    assert names["right_shoulder"] == {"right_shoulder", "right_elbow", "right_wrist"}
    assert names["left_foot"] == {"left_knee", "left_ankle"}
    assert names["head"] == {"nose", "left_eye", "right_eye", "left_ear", "right_ear"}
    assert names["spine2"] == names["pelvis"] == set()


@pytest.mark.parametrize("joint", [-1, 0, 24])
def test_the_pelvis_and_unknown_joints_cannot_be_placed(person, joint):
    with pytest.raises(ValueError, match="cannot be placed"):
        person.given({joint: np.zeros(3)})


def test_priors_with_other_evidence_and_people_without_a_fit_are_errors(prior, body):
    fits = people(1)
    pose_only = ConditionalPosePrior.from_pretrained("flowprior/body-pose")
    with pytest.raises(ValueError, match="this one takes"):
        PersonPosterior(pose_only, body, fits, 0)
    fits.body_pose[0] = np.nan
    with pytest.raises(ValueError, match="was not fitted"):
        PersonPosterior(prior, body, fits, 0)
