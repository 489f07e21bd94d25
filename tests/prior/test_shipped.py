"""The priors that ship with the library: their files, and what they know of people."""

import json
import os
from pathlib import Path

import pytest
import torch

import flowprior
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.files.model_folder import BUNDLED
from flowprior.keypoints import example_keypoints
from flowprior.prior import MotionPrior
from flowprior.skeleton import COCO_17, SMPL_24
from tests.processes import run_python

NAMES = ("flowprior/people", "flowprior/body-pose")
ARM = [COCO_17.index("left_elbow"), COCO_17.index("left_wrist")]


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope="module")
def people():
    return ConditionalPosePrior.from_pretrained("flowprior/people").freeze()


@pytest.fixture(scope="module")
def body_pose():
    return ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# --- files ---


def test_together_they_stay_below_20_mb():
    files = [path for name in NAMES for path in BUNDLED[name].iterdir()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.name for path in files} == {"README.md", "config.json", "model.safetensors"}


@pytest.mark.parametrize("name", NAMES)
def test_they_load_without_hub_and_repository(name, tmp_path):
    code = (
        "import sys\nfrom flowprior import ConditionalPosePrior\n"
        f"ConditionalPosePrior.from_pretrained({name!r})\n"
        "assert not {'huggingface_hub', 'smplx', 'examples'} & set(sys.modules)\n"
    )
    path = str(Path(flowprior.__file__).parents[1])
    run_python(code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})


@pytest.mark.parametrize("name", NAMES)
def test_cards_name_data_people_and_limits(name):
    card = (BUNDLED[name] / "README.md").read_text()
    for said in (
        "mocap.cs.cmu.edu",
        "EIA-0196217",
        'license: "mit"',
        "Not for",
        "hands",
        "subjects",
    ):
        assert said in card
    assert "python -m tools.priors" in card


@pytest.mark.parametrize(
    ("name", "joints", "kinds", "rest"),
    [
        (NAMES[0], 24, ["keypoints_2d", "joints_3d"], [22, 23]),
        (NAMES[1], 23, ["rotations", "joints_3d"], [21, 22]),
    ],
)
def test_configurations(name, joints, kinds, rest):
    config = json.loads((BUNDLED[name] / "config.json").read_text())
    assert (config["joints"], config["rest_joints"]) == (joints, rest)
    assert sorted(config["evidence"]) == sorted(kinds)


# --- people ---


@torch.no_grad()
def test_the_mode_is_seen_where_the_keypoints_are(people, body):
    keypoints = example_keypoints()
    points = body.keypoints(people.given(keypoints_2d=keypoints).mode(), COCO_17)[:, :2]
    ours, theirs = (p - p.mean(dim=0) for p in (points, keypoints[:, :2]))
    scale = (ours * theirs).sum() / ours.square().sum()
    assert scale > 0
    off = (scale * ours - theirs).norm(dim=-1) / 400  # of the person's height
    assert off.mean() < 0.05


@torch.no_grad()
def test_hidden_joints_are_uncertain_and_others_are_not(people, body):
    clear = example_keypoints()
    hidden = clear.clone()
    hidden[ARM, 2] = 0
    posterior = people.given(keypoints_2d=torch.stack([clear, hidden]))
    found = posterior.joint_uncertainty(body, num_samples=300, generator=seeded())
    wrist, knee = SMPL_24.index("left_wrist"), SMPL_24.index("right_knee")
    assert found.std_mm[1, wrist] > 1.25 * found.std_mm[0, wrist]
    assert found.std_mm[1, wrist] > 1.25 * found.std_mm[1, SMPL_24.index("right_wrist")]
    assert found.std_mm[1, knee] < 1.3 * found.std_mm[0, knee]


@torch.no_grad()
def test_less_evidence_means_more_entropy(people):
    keypoints = example_keypoints()
    entropy = [people.given(keypoints_2d=keypoints).entropy()]
    for joints in (ARM, [*ARM, *range(11, 17)]):
        few = keypoints.clone()
        few[list(joints), 2] = 0
        entropy.append(people.given(keypoints_2d=few).entropy())
    entropy.append(people.given().entropy())
    assert torch.stack(entropy).diff().gt(0).all()


@torch.no_grad()
def test_3d_joints_decide_the_pose(people, body):
    theta = people.given(keypoints_2d=example_keypoints()).sample(20, generator=seeded())
    joints = body.keypoints(theta, SMPL_24)
    answer = body.keypoints(people.given(joints_3d=joints + 3.0).mode(), SMPL_24)
    error = ((answer - answer[:, :1]) - (joints - joints[:, :1])).norm(dim=-1)[:, 1:22]
    assert error.mean() < 0.05


# --- body-pose ---


@torch.no_grad()
def test_generated_poses_differ_and_are_likely(body_pose):
    posterior = body_pose.given()
    theta, log_prob = posterior.sample_and_log_prob(200, generator=seeded())
    matrix = rotations.rot6d_to_matrix(theta)
    angle = rotations.geodesic_distance(matrix[:100, :21], matrix[100:, :21])
    assert torch.rad2deg(angle).mean() > 10
    nonsense = rotations.matrix_to_rot6d(
        rotations.rotvec_to_matrix(torch.randn(200, 23, 3, generator=seeded()))
    )
    assert posterior.log_prob(nonsense).max() < log_prob.quantile(0.05)


@torch.no_grad()
def test_legs_follow_the_rest_of_the_body(body_pose, body):
    theta = body_pose.given().sample(50, generator=seeded())
    known = torch.ones(23, dtype=torch.bool)
    known[[SMPL_24.index(f"left_{name}") - 1 for name in ("hip", "knee", "ankle", "foot")]] = False
    posterior = body_pose.given(rotations=theta, known=known)
    assert torch.equal(posterior.sample(3)[:, :, known], theta[:, None, known].expand(50, 3, -1, 6))
    marginal = body_pose.given().mode().expand_as(theta)
    apart = [
        rotations.geodesic_distance(
            rotations.rot6d_to_matrix(answer[:, ~known]),
            rotations.rot6d_to_matrix(theta[:, ~known]),
        ).mean()
        for answer in (posterior.mode(), marginal)
    ]
    assert apart[0] < apart[1]


def test_motion_prior_knows_motion_from_jitter():
    motion = MotionPrior.from_pretrained("flowprior/motion").freeze()
    time = torch.arange(20) / 30
    pose = torch.zeros(20, 24, 3)
    pose[:, 16, 2], pose[:, 17, 2] = -1.1, 1.1  # the arms hang
    pose[:, 18, 1] = -0.5 - 0.4 * torch.sin(3 * time)
    clip = rotations.rotvec_to_matrix(pose)
    noise = 0.05 * torch.randn(20, 22, 3, generator=seeded())
    jittered = clip.clone()
    jittered[:, :22] = clip[:, :22] @ rotations.rotvec_to_matrix(noise)
    assert motion.log_prob(clip, fps=30) > motion.log_prob(jittered, fps=30) + 500
    motions = motion.rollout(clip[None, :2], 30, 3, fps=30, generator=seeded())
    turn = rotations.geodesic_distance(
        rotations.rot6d_to_matrix(motions[..., 1:, :, :]),
        rotations.rot6d_to_matrix(motions[..., :-1, :, :]),
    )[..., :22]
    assert turn.mean() < 0.1  # radians per frame
    assert turn.max() < 1.5


def test_motion_prior_expects_a_step_better_than_constant_velocity_when_a_motion_stops():
    """Which fast motions do, the next frame moves less far."""
    motion = MotionPrior.from_pretrained("flowprior/motion").freeze()
    first = torch.zeros(1, 24, 3)
    second = first.clone()
    second[:, 18, 1] = -0.5  # the elbow, 15 radians per second
    previous = rotations.rotvec_to_matrix(torch.stack([first, second], dim=1))
    mode = rotations.rot6d_to_matrix(motion(previous, fps=30).mode())
    angle = rotations.geodesic_distance(mode[:, 18], torch.eye(3))
    assert 0.5 < angle < 1.0
