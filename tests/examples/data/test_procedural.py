import numpy as np
import pytest
import torch

from examples.data.kinematics import joints17_from_rotations
from examples.data.poses import SPLITS, load_poses
from examples.data.procedural import LIMITS, sample_angles, sample_person, sample_poses
from flowprior.skeleton import H36M_17

INDEX = {name: joint for joint, name in enumerate(H36M_17.joint_names)}


def bone_lengths(joints):
    parents, children = np.array(H36M_17.bones).T
    return np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)


@pytest.fixture(scope="module")
def poses():
    return load_poses(seed=3)


def test_shape_units_and_root(poses):
    for split in SPLITS:
        joints = poses.part(split)
        assert joints.dtype == np.float32
        assert joints.shape[1:] == (17, 3)
        assert len(joints) >= 2000
        assert np.isfinite(joints).all()
        assert np.abs(joints[:, 0]).max() == 0
        assert np.abs(joints).max() < 1.5


def test_the_same_seed_gives_the_same_poses(poses):
    def first(seed):
        rng = np.random.default_rng(seed)
        return sample_poses(sample_person(rng), 1000, rng)[0]

    np.testing.assert_array_equal(first(3), poses.train[:1000])
    assert not np.array_equal(first(4), poses.train[:1000])


def test_no_person_is_in_two_parts(poses):
    names = [name for split in SPLITS for name in poses.subjects[split]]
    assert len(names) == len(set(names))
    thighs = [
        set(bone_lengths(poses.part(split))[:, INDEX["left_knee"] - 1].round(4)) for split in SPLITS
    ]
    assert not thighs[0] & thighs[2]


def test_angles_stay_within_their_limits_without_piling_up_there():
    angles = sample_angles(5000, np.random.default_rng(0), habit=np.full(len(LIMITS), 5.0))
    low, high, _ = np.array(list(LIMITS.values())).T
    assert (angles >= low).all()
    assert (angles <= high).all()
    assert ((angles == low) | (angles == high)).mean() < 1e-3


def test_angles_are_correlated_as_in_people():
    angles = sample_angles(20000, np.random.default_rng(0))
    column = {name: angles[:, i] for i, name in enumerate(LIMITS)}

    def correlation(a, b):
        return np.corrcoef(column[a], column[b])[0, 1]

    assert correlation("left_knee", "left_hip_flexion") > 0.4
    assert correlation("left_knee", "right_knee") > 0.3
    assert correlation("tilt", "bend") > 0.5
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(angles.T))[::-1]
    assert eigenvalues[:8].sum() > 0.6 * eigenvalues.sum()


def test_left_and_right_are_equally_common():
    rng = np.random.default_rng(0)
    joints = np.concatenate([sample_poses(sample_person(rng), 200, rng)[0] for _ in range(40)])
    heights = joints[..., 1].mean(axis=0)
    np.testing.assert_allclose(heights, heights[list(H36M_17.flip)], atol=0.02)


def test_any_heading():
    rng = np.random.default_rng(0)
    joints, _ = sample_poses(sample_person(rng), 4000, rng)
    across = joints[:, INDEX["left_hip"]] - joints[:, INDEX["right_hip"]]
    heading = np.arctan2(across[:, 2], across[:, 0])
    counts, _ = np.histogram(heading, bins=8, range=(-np.pi, np.pi))
    assert counts.min() > 400


def test_rotations_put_the_joints_where_they_are():
    rng = np.random.default_rng(0)
    person = sample_person(rng)
    joints, rotvecs = sample_poses(person, 50, rng)
    assert rotvecs.shape == (50, 24, 3)
    again = joints17_from_rotations(torch.from_numpy(rotvecs), person.offsets)
    np.testing.assert_allclose(joints, again, atol=1e-6)
