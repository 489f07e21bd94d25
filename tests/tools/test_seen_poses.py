"""Tables of what the priors have seen, from small data and hardly trained priors."""

import numpy as np
import pytest
import torch

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24
from tests.fitting.people import Priors
from tools import seen_poses
from tools.seen_poses import NAMED_POSES, filled, log_densities, named_poses, nearest_standing


@pytest.fixture(scope="module")
def priors():
    return Priors()


@pytest.fixture
def data(tmp_path):
    """Poses of three subjects, one per part."""
    generator = np.random.default_rng(0)
    poses = 0.2 * generator.standard_normal((12, 72)).astype(np.float32)
    poses[0, :3] = (np.pi, 0, 0)
    subject = np.repeat([0, 1, 3], 4).astype(np.int16)
    path = tmp_path / "poses.npz"
    np.savez(
        path,
        poses=poses,
        subject=subject,
        split=np.array([0, 1, 2], np.int8)[[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]],
        subject_names=np.array(["cmu01", "cmu60", "cmu61", "cmu05"]),
    )
    return path


def test_named_poses_are_what_they_are_called():
    joints = BodyModel()(named_poses()).joints
    joints = joints - joints[:, :1]
    rows = {pose.name: row for pose, row in zip(NAMED_POSES, joints, strict=True)}

    def place(pose, joint):
        return rows[pose][SMPL_24.index(joint)]

    def below(pose, lower, upper):
        return place(pose, upper)[1] - place(pose, lower)[1] > 0.2

    assert below("standing, arms down", "left_wrist", "left_shoulder")
    assert below("arms overhead", "head", "left_wrist")
    sitting = "sitting on a chair"
    assert place(sitting, "left_knee")[2] > 0.25
    assert below(sitting, "left_ankle", "left_knee")
    assert below("handstand", "left_wrist", "head")
    assert below("handstand", "head", "left_ankle")
    assert (
        place("front splits", "left_ankle")[2]
        > 0.6
        > -0.4
        > place("front splits", "right_ankle")[2]
    )
    assert place("side splits", "left_ankle")[0] > 0.6
    for pose in ("lying on the back, arms down", "lying on the face, arms down"):
        assert (place(pose, "head") - place(pose, "left_ankle"))[1].abs() < 0.2
    fours = "on all fours"
    assert below(fours, "left_wrist", "left_shoulder")
    assert below(fours, "left_knee", "left_hip")
    assert place("a knee bent backwards (impossible)", "left_ankle")[2] > 0.2


def test_other_joints_are_those_of_a_recorded_person():
    recorded = torch.stack([named_poses()[2], named_poses()[0]])
    recorded[1, SMPL_24.index("left_wrist")] = rotations.rotvec_to_matrix(torch.tensor([0.1, 0, 0]))
    standing = nearest_standing(recorded)
    assert torch.equal(standing[1:], recorded[1, 1:])
    poses = named_poses(standing)
    assert torch.equal(poses[0], standing)
    wrist = SMPL_24.index("left_wrist")
    assert torch.equal(poses[:, wrist], standing[wrist].expand(len(poses), 3, 3))


def test_densities_of_people_do_not_depend_on_their_heading(priors):
    world = named_poses()[:3]
    turn = torch.tensor([0.0, 2 * torch.pi / seen_poses.HEADINGS, 0.0])
    turned = world.clone()
    turned[:, 0] = rotations.rotvec_to_matrix(turn) @ world[:, 0]
    for prior in (priors.people, priors.body_pose):
        found = log_densities(prior, world)
        torch.testing.assert_close(found, log_densities(prior, turned), atol=0.01, rtol=1e-3)
    # Only a prior with a root tells a lying person from a standing one.
    lying = world[:1].clone()
    lying[:, 0] = rotations.rotvec_to_matrix(torch.tensor([-torch.pi / 2, 0, 0])) @ lying[:, 0]
    body, people = (log_densities(each, torch.cat([world[:1], lying])) for each in
                    (priors.body_pose, priors.people))  # fmt: skip
    assert body[0] == body[1]
    assert people[0] != people[1]


def test_the_page_is_filled_once_and_again(data, priors, tmp_path, capsys):
    for name, prior in (("people", priors.people), ("body-pose", priors.body_pose)):
        prior.save_pretrained(tmp_path / name)
    page = tmp_path / "page.md"
    page.write_text(seen_poses.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    arguments = ["--data", data, "--page", page, "--every", "1"]
    arguments += ["--people", tmp_path / "people", "--body-pose", tmp_path / "body-pose"]
    texts = []
    for _ in range(2):
        assert seen_poses.main([*map(str, arguments)]) == 0
        texts.append(page.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert "| 01 | 4 | training | climbing" in texts[0]
    assert "| 60 | 4 | validation | salsa |" in texts[0]
    assert "61" not in [line.split("|")[1].strip() for line in texts[0].splitlines() if "|" in line]
    assert "| 120° to 180° | 25.0 % |" in texts[0]
    for pose in NAMED_POSES:
        assert f"| {pose.name} | " in texts[0]
    assert texts[0].count("written by") == 3


def test_faults_are_named(data, tmp_path, capsys):
    with pytest.raises(ValueError, match="no place for lean"):
        filled("nothing", {"lean": "|"})
    assert seen_poses.main(["--data", str(tmp_path / "missing.npz")]) == 2
    assert "missing.npz" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", poses=np.zeros((2, 72)))
    assert seen_poses.main(["--data", str(tmp_path / "other.npz")]) == 2
    assert "has no split, subject, subject_names" in capsys.readouterr().err
