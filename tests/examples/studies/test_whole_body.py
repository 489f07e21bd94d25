"""The study of whole-body fits: its hands, its measures, and a run with two people."""

import json
from types import SimpleNamespace

import pytest
import torch

from examples.studies.whole_body import (
    HIDDEN,
    hand_figures,
    hide_fingers,
    main,
    procedural_hands,
)
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton import COCO_WHOLEBODY_133


@pytest.fixture(scope="module")
def body():
    return BodyModel(hands=True)


def whole_poses(body, seed=0):
    """Theta (3, 52, 3, 3) with procedural fingers, the rest of the body at rest."""
    hands = procedural_hands(3, body, torch.Generator().manual_seed(seed))
    return torch.cat([torch.eye(3).expand(3, 22, 3, 3), hands], dim=1)


def test_a_turned_wrist_is_no_error_in_its_frame(body):
    theta = whole_poses(body)
    joints = body(theta).joints
    turned = theta.clone()
    turned[:, 20:22] = rotations.rotvec_to_matrix(torch.tensor([0.2, 0.1, 0.3]))
    found = hand_figures(SimpleNamespace(theta=turned, betas=torch.zeros(3, 10)), joints, body)
    assert found["fingers_wrist_frame_mm"] < 0.1
    assert found["fingers_wrist_shift_mm"] > 10
    other = torch.cat([theta[:, :22], whole_poses(body, seed=1)[:, 22:]], dim=1)
    found = hand_figures(SimpleNamespace(theta=other, betas=torch.zeros(3, 10)), joints, body)
    assert found["fingers_wrist_frame_mm"] > 1


def test_procedural_hands_close_towards_the_palm(body):
    theta = whole_poses(body)
    angle = rotations.matrix_to_rotvec(theta[:, 22:]).norm(dim=-1)
    assert angle.max() < torch.pi
    tips = [body.joint_names.index(f"{side}_middle3") for side in ("left", "right")]
    flat = body(torch.eye(3).expand(1, 52, 3, 3)).joints
    closed = body(theta).joints
    assert (closed[:, tips, 1].mean(dim=0) < flat[0, tips, 1] - 0.01).all()  # palms face down


def test_fingers_are_hidden_on_one_or_both_sides():
    keypoints = torch.ones(1, 133, 3)
    names = COCO_WHOLEBODY_133.meanings
    for side, count in (("", 16), ("right", 8)):
        gone = (hide_fingers(keypoints, HIDDEN, side)[0, :, 2] == 0).nonzero()[:, 0].tolist()
        assert len(gone) == count
        assert all("ring" in names[joint] or "pinky" in names[joint] for joint in gone)
        assert all(names[joint].startswith(side) for joint in gone)


@pytest.mark.slow
def test_two_people_are_fitted_and_written(tmp_path, capsys):
    assert main(["--people", "2", "--out", str(tmp_path)]) == 0
    assert "ring and little finger hidden" in capsys.readouterr().out
    results = json.loads((tmp_path / "val.json").read_text(encoding="utf-8"))["results"]
    assert set(results) >= {"24 joints", "whole body", "right hand hidden"}
    whole, hidden = results["whole body"], results["right hand hidden"]
    assert hidden["std_right_hand_mm"] > whole["std_right_hand_mm"] > 0
    assert 0 <= whole["fingers_in_90_regions"] <= 1


def test_unknown_subjects_are_an_error(tmp_path, capsys):
    assert main(["--subjects", "nobody", "--out", str(tmp_path)]) != 0
    assert "no people" in capsys.readouterr().err
