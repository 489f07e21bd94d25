"""The estimator: parameters, uncertainty and samples of people, and what 3D joints change."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.results import Fits
from flowprior.results.estimator import Estimator, Sighting
from flowprior.skeleton import BODY_25, BODY_67, COCO_17, COCO_18, SMPL_24, shared_joints
from tests.command import painted


@functools.cache
def people_prior():
    return ConditionalPosePrior.from_pretrained("flowprior/people").freeze()


@functools.cache
def estimator(**options):
    return Estimator(people_prior(), **({"max_iterations": 5} | options))


def seen(count=1, skeleton=COCO_17):
    points = painted.keypoints(max(count, 2))[:count]
    source, target = shared_joints(COCO_17, skeleton)
    placed = np.zeros((count, skeleton.num_joints, 3), np.float32)
    placed[:, list(target)] = points[:, list(source)]
    return Sighting(
        [f"{row}.jpg" for row in range(count)],
        [""] * count,
        np.zeros(count, np.int64),
        placed,
        skeleton,
        np.tile(np.float32([painted.WIDTH, painted.HEIGHT]), (count, 1)),
        np.full(count, painted.FOCAL, np.float32),
    )


def test_the_body_appears_at_the_keypoints():
    fits = estimator(max_iterations=40)(seen(2))
    body = BodyModel()
    matrix = rotations.rotvec_to_matrix(torch.from_numpy(fits.rotations))
    points = body.keypoints(matrix, COCO_17, torch.from_numpy(fits.betas)).numpy()
    points = points + fits.transl[:, None]
    pixels = fits.focal_px[:, None, None] * points[..., :2] / points[..., 2:]
    pixels = pixels + fits.centre_px[:, None]
    distance = np.linalg.norm(pixels - fits.keypoints_2d[..., :2], axis=-1).mean(axis=1)
    np.testing.assert_allclose(distance, fits.reprojection_px, rtol=1e-3)
    assert (distance < 0.02 * painted.HEIGHT).all()
    joints = body(matrix, torch.from_numpy(fits.betas), torch.from_numpy(fits.transl)).joints
    np.testing.assert_allclose(joints.numpy(), fits.joints, atol=1e-5)


def test_hidden_joints_are_less_certain():
    people = seen(2)
    hidden = people.keypoints_2d.copy()
    hidden[1] = hidden[0]
    hidden[1, [COCO_17.index(f"left_{name}") for name in ("elbow", "wrist")], 2] = 0
    fits = estimator()(dataclasses.replace(people, keypoints_2d=hidden))
    wrist, other = SMPL_24.index("left_wrist"), SMPL_24.index("right_wrist")
    growth = fits.joint_std_mm[1, [wrist, other]] / fits.joint_std_mm[0, [wrist, other]]
    assert growth[0] > 1.15
    assert growth[0] > growth[1] + 0.1
    assert fits.joint_confidence[1, wrist] < fits.joint_confidence[0, wrist]
    assert (fits.joint_radius_50_mm <= fits.joint_radius_90_mm).all()
    np.testing.assert_allclose(np.linalg.norm(fits.joint_direction[:, 1:], axis=-1), 1, rtol=1e-4)


def test_confidence_grows_with_the_distance():
    near, far = (estimator(within_mm=distance)(seen()) for distance in (30.0, 300.0))
    assert near.confidence_distance_mm == 30
    assert (near.joint_confidence <= far.joint_confidence).all()
    assert near.joint_confidence.mean() < far.joint_confidence.mean()


def test_samples_vary_around_the_fit():
    fits = estimator(num_samples=6)(seen())
    assert fits.samples.shape == (1, 6, 24, 3)
    pose = rotations.rotvec_to_matrix(torch.from_numpy(fits.rotations))
    drawn = rotations.rotvec_to_matrix(torch.from_numpy(fits.samples))
    angle = torch.rad2deg(rotations.geodesic_distance(drawn, pose[:, None]))
    assert 1 < float(angle[..., :22].mean()) < 40
    assert float(angle.std(dim=1).mean()) > 0.5


def test_results_are_reproducible_and_depend_on_the_seed():
    first, again = estimator()(seen()), estimator()(seen())
    other = estimator(seed=1)(seen())
    np.testing.assert_array_equal(first.samples, again.samples)
    np.testing.assert_array_equal(first.body_pose, other.body_pose)
    assert not np.array_equal(first.samples, other.samples)


def test_other_joint_sets_become_body_25():
    fits = estimator(max_iterations=3)(seen(1, COCO_18))
    assert fits.skeleton is BODY_25
    left = fits.keypoints_2d[0, BODY_25.index("left_wrist")]
    np.testing.assert_allclose(left, painted.keypoints(2)[0, COCO_17.index("left_wrist")])


def test_joints_in_metres_reduce_the_uncertainty_of_depth():
    people = seen()
    fits = estimator()(people)
    space = np.zeros((1, 24, 4), np.float32)
    space[..., :3] = fits.joints
    space[..., 3] = 1
    space[0, SMPL_24.index("left_wrist"), 3] = 0
    told = estimator()(dataclasses.replace(people, joints_3d=space))
    elbow, wrist = SMPL_24.index("right_elbow"), SMPL_24.index("left_wrist")
    assert told.joint_std_mm[0, elbow] < 0.7 * fits.joint_std_mm[0, elbow]
    assert told.joint_std_mm[0, wrist] > told.joint_std_mm[0, elbow]


def test_visibility_weighs_joints_in_metres():
    people = seen()
    fits = estimator()(people)

    def spread(conf):
        space = np.concatenate([fits.joints, np.full((1, 24, 1), conf)], axis=-1)
        space = space.astype(np.float32)
        return estimator()(dataclasses.replace(people, joints_3d=space)).joint_std_mm[0].mean()

    assert spread(1.0) < spread(0.5) < spread(0.0)


def test_joints_in_metres_beside_hands_at_rest():
    people = seen(2)
    joints = BodyModel()(torch.zeros(24, 3)).joints.numpy() * [1, -1, -1]
    conf = np.full((2, 24, 1), 0.7)
    space = np.concatenate([np.tile(joints, (2, 1, 1)), conf], axis=-1).astype(np.float32)
    fits = estimator(hands=True)(dataclasses.replace(people, joints_3d=space))
    assert fits.hands.tolist() == [["at rest"] * 2] * 2
    assert fits.samples.shape == (2, 16, 52, 3)
    # Hands that nobody saw vary as their prior does.
    assert (fits.rotation_std_deg[:, 22:] > 3).all()
    assert np.isfinite(fits.joint_radius_90_mm).all()


def test_a_prior_without_the_root():
    fits = Estimator("flowprior/body-pose", max_iterations=3)(seen())
    root = rotations.rotvec_to_matrix(torch.from_numpy(fits.global_orient[0, 0]))
    drawn = rotations.rotvec_to_matrix(torch.from_numpy(fits.samples[0, :, 0]))
    degrees = torch.rad2deg(rotations.geodesic_distance(drawn, root))
    assert 0 < float(degrees.mean()) < 40
    assert np.isfinite(fits.log_prob).all()


def test_people_without_keypoints_have_no_fit():
    people = seen(2)
    empty = people.keypoints_2d.copy()
    empty[1] = 0
    fits = estimator(max_iterations=3)(dataclasses.replace(people, keypoints_2d=empty))
    assert fits.status[1] == "no_keypoints"
    assert np.isnan(fits.body_pose[1]).all()
    assert np.isnan(fits.joint_confidence[1]).all()
    assert np.isfinite(fits.body_pose[0]).all()


def test_nobody():
    fits = estimator()(seen(2).rows(0, 0))
    assert len(fits) == 0
    assert fits.keypoint_set == "coco_17"


def test_a_prior_of_other_joints_is_refused():
    with pytest.raises(ValueError, match="SMPL's 24 joints, or of the 23"):
        Estimator(ConditionalPosePrior(0, joints=5, hidden_features=8))
    with pytest.raises(FileNotFoundError):
        Estimator("no/such-folder/at-all")


def test_fingers_give_the_pose_of_smplh(tmp_path):
    people = seen(2, BODY_67)
    # The left fingers of the first person, about the wrist.
    wrist = people.keypoints_2d[0, BODY_67.index("left_wrist"), :2]
    turn = np.linspace(0, 3, 20)
    people.keypoints_2d[0, 26:46, :2] = wrist + 4 * np.stack([np.cos(turn), np.sin(turn)], 1)
    people.keypoints_2d[0, 26:46, 2] = 0.9
    fits = estimator()(people)
    assert fits.hands.tolist() == [["fitted", "at rest"], ["at rest", "at rest"]]
    assert fits.body_pose.shape == (2, 21, 3)
    assert fits.samples.shape == (2, 16, 52, 3)
    assert fits.skeleton is BODY_67
    assert np.isfinite(fits.joint_std_mm).all()
    np.testing.assert_allclose(fits.right_hand_pose[0], fits.right_hand_pose[1], atol=1e-5)
    assert not np.allclose(fits.left_hand_pose[0], fits.left_hand_pose[1], atol=1e-2)
    whole = BodyModel(hands=True)
    theta = torch.from_numpy(fits.rotations)
    joints = whole(theta, torch.from_numpy(fits.betas), torch.from_numpy(fits.transl)).joints
    np.testing.assert_allclose(joints, fits.joints, atol=1e-5)
    fits.save(tmp_path / "fits.npz")
    again = Fits.load(tmp_path)
    np.testing.assert_array_equal(again.left_hand_pose, fits.left_hand_pose)
    assert Fits.joined([again[:1], again[1:]]).hands.tolist() == fits.hands.tolist()


def test_nobody_with_fingers_is_no_error():
    fits = estimator()(seen(0, BODY_67))
    assert fits.left_hand_pose.shape == (0, 15, 3)
    assert len(fits) == 0
