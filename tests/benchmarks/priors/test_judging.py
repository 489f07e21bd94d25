"""Tasks of the contest, judged on methods whose figures are known."""

import torch

from benchmarks.priors.data import JOINTS, Kinematics
from benchmarks.priors.judging import MASKS, NAMES, Sizes, judge, moved_by, reference
from benchmarks.priors.methods.base import Method
from benchmarks.priors.observations import Observation
from flowprior import rotations

SIZES = Sizes(poses=8, generated=40)


class Knowing(Method):
    """Answers with the truth."""

    name = "knowing"

    def __init__(self, poses):
        super().__init__()
        self.poses = poses

    def fit(self, stream, clock):
        return 0

    def draw(self, count, generator):
        return self.poses.evenly(count)

    def complete(self, matrix, known, count, generator):
        truth = self.poses.evenly(SIZES.poses)[: len(matrix)]
        assert torch.equal(matrix[:, known], truth[:, known])
        if len(matrix) > 1:  # hidden rotations are withheld
            assert torch.equal(matrix[:, ~known], torch.eye(3).expand_as(matrix[:, ~known]))
        return truth[:, None].repeat(1, count, 1, 1, 1)

    def infer(self, observation, generator):
        assert len(observation) == SIZES.poses
        return self.poses.evenly(SIZES.poses)


def test_the_truth_has_no_error(held_out, training):
    figures = judge(Knowing(held_out), held_out, training, SIZES, seed=0)
    assert figures["frechet"] < 1e-4
    assert figures["precision"] == figures["recall"] == 1
    assert "nll" not in figures
    for name in MASKS:
        assert figures[f"{name}_min_mm"] < 1e-3
        assert figures[f"{name}_mean_mm"] < 1e-3
        assert figures[f"{name}_spread"] < 1e-3
    for name in ("ik_all", "ik_five", "ik_five_points", "ik_noisy", "ik_2d", "missing", "denoised"):
        assert figures[f"{name}_mm"] < 1e-3
    assert figures["noisy_rotations_mm"] > 20


def test_the_data_has_figures_of_generation(held_out, training):
    figures = reference(held_out, training, SIZES)
    assert figures["nearest_mm"] < 1
    assert figures["apd_mm"] > 0


def test_hidden_rotations_move_the_joints_below():
    def names(mask):
        return {NAMES[joint] for joint in moved_by(MASKS[mask])}

    assert names("left_leg") == {"left_knee", "left_ankle", "left_foot"}
    assert names("arms") == {
        f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist")
    }
    assert "spine1" not in names("trunk")
    assert {"head", "left_wrist"} <= names("trunk")


def test_every_other_joint_stays(training):
    kinematics = Kinematics()
    for hidden in MASKS.values():
        matrix = training.matrix[:5].clone()
        before = kinematics(matrix)
        rows = [NAMES.index(name) - 1 for name in hidden]
        matrix[:, rows] = matrix[:, rows] @ rotations.rotvec_to_matrix(torch.tensor([0.3, 0.2, 0]))
        moved = (kinematics(matrix) - before).norm(dim=-1).amax(dim=0) > 1e-5
        assert moved.nonzero()[:, 0].tolist() == moved_by(hidden)


def test_misfit_counts_what_was_measured(training):
    kinematics = Kinematics()
    truth, others = training.matrix[:3], training.matrix[3:6]
    joints, problem = kinematics(truth), torch.arange(3)
    seen = torch.ones_like(joints)
    seen[:, 5:] = 0
    seen[..., 2] = 0
    observation = Observation(joints, seen, joint_sigma=0.1)
    assert observation.misfit(truth, problem, kinematics).abs().max() < 1e-6
    away = (kinematics(others) - joints)[:, :5, :2]
    expected = away.square().sum(dim=(1, 2)) / (2 * 0.1**2)
    torch.testing.assert_close(observation.misfit(others, problem, kinematics), expected)
    assert observation.whole_joints() is None

    known = torch.zeros(3, JOINTS)
    known[:, 4] = 1
    turned = Observation(rotations=truth, known=known, rotation_sigma=0.2)
    angle = rotations.geodesic_distance(truth[:, 4], others[:, 4])
    torch.testing.assert_close(
        turned.misfit(others, problem, kinematics), angle.square() / (2 * 0.2**2)
    )


def test_whole_joints_are_nan_where_unknown(training):
    joints = Kinematics()(training.matrix[:2])
    seen = torch.ones_like(joints)
    seen[1, 3] = 0
    whole = Observation(joints, seen).whole_joints()
    assert whole.isnan().nonzero()[:, :2].unique(dim=0).tolist() == [[1, 3]]
