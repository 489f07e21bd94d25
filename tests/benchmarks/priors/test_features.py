"""Comparison of sets of poses."""

import pytest
import torch

from benchmarks.priors.data import JOINTS, Kinematics
from benchmarks.priors.features import (
    average_pairwise_distance,
    describe,
    fourier_features,
    frechet_distance,
    nearest_distance,
    precision_and_recall,
)
from flowprior import rotations


@pytest.fixture(scope="module")
def described(training):
    return describe(training.matrix, Kinematics())


def test_fourier_features_never_change():
    features = fourier_features(torch.linspace(0, 1, 189)[None])
    assert features.shape == (1, 64)
    expected = torch.tensor([-0.8565159369262438, -1.412351666194378], dtype=torch.float64)
    torch.testing.assert_close(features[0, :2], expected, rtol=1e-6, atol=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero(described):
    assert frechet_distance(described, described) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_is_symmetric_and_grows_with_the_difference(described):
    near, far = described + 0.02, described + 0.1
    assert frechet_distance(near, described) == pytest.approx(
        frechet_distance(described, near), rel=1e-4
    )
    assert frechet_distance(near, described) < frechet_distance(far, described)


def test_twists_are_part_of_the_description():
    kinematics = Kinematics()
    vectors = torch.zeros(2, JOINTS, 3)
    vectors[1, -1, 0] = 1.0  # the right wrist, about the arm
    still, twisted = describe(rotations.rotvec_to_matrix(vectors), kinematics)
    assert torch.equal(still[: 3 * JOINTS], twisted[: 3 * JOINTS])
    assert not torch.equal(still, twisted)


def test_precision_and_recall():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(300, 5, generator=generator)
    same = torch.randn(300, 5, generator=generator)
    assert min(precision_and_recall(same, real)) > 0.75
    # One pose over and over is precise but covers nothing, noise everywhere is the opposite.
    precision, recall = precision_and_recall(0.01 * same, real)
    assert precision > 0.95
    assert recall < 0.1
    precision, recall = precision_and_recall(4 * same, real)
    assert precision < 0.3
    assert recall > 0.8


def test_nearest_distance(training):
    kinematics = Kinematics()
    assert nearest_distance(training.matrix[:10], training.matrix, kinematics) < 1.0  # mm, rounding
    bent = training.matrix[:10].clone()
    bent[:, 0] = bent[:, 0] @ rotations.rotvec_to_matrix(torch.tensor([1.0, 0, 0]))
    assert nearest_distance(bent, training.matrix, kinematics) > 10


def test_average_pairwise_distance():
    joints = torch.tensor([0.0, 1.0, 3.0])[:, None, None].expand(3, 2, 3) / 3**0.5
    assert average_pairwise_distance(joints).item() == pytest.approx(2000)
    assert average_pairwise_distance(joints.expand(4, 3, 2, 3)).shape == (4,)
