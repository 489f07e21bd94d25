"""Tests of the training of the motion prior."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.prior import MotionPrior
from flowprior.rotations import geodesic_distance, matrix_to_rotvec
from tools.priors import motion
from tools.priors.__main__ import main
from tools.priors.motion_drawing import draw_steps, load_clips


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three clips, one for each split, of arms that swing."""
    generator = np.random.default_rng(0)
    length = np.array([40, 30, 20])
    frames = np.arange(length.sum())
    poses = np.zeros((len(frames), 24, 3), dtype=np.float32)
    poses[:, 1:22] = 0.1 * generator.standard_normal((1, 21, 3))
    poses[:, 16:18, 1] += np.sin(frames / 5)[:, None]
    poses += 0.002 * generator.standard_normal(poses.shape)
    poses[:, 22:] = 0
    start = np.concatenate([[0], length.cumsum()[:-1]])
    path = tmp_path / "clips.npz"
    np.savez(
        path,
        poses=poses.reshape(len(frames), 72),
        clip_start=start,
        clip_length=length,
        clip_split=np.arange(3),
    )
    return path


def test_clips(data: Path) -> None:
    clips = load_clips(data, 1)
    assert clips.rotation.shape == (30, 24, 3, 3)
    assert clips.frames(2).tolist() == list(range(2, 30))
    both = clips.mirrored()
    assert both.frames(29).tolist() == [29, 59]
    turn = matrix_to_rotvec(clips.rotation[:, 16])
    mirrored = matrix_to_rotvec(both.rotation[30:, 17]) * torch.tensor([1.0, -1.0, -1.0])
    torch.testing.assert_close(mirrored, turn, atol=1e-4, rtol=0)


def test_drawn_poses_follow_each_other(data: Path) -> None:
    clips, body = load_clips(data, 0), BodyModel()
    generator = torch.Generator().manual_seed(0)
    kinds = set()
    for _ in range(12):
        steps = draw_steps(clips, 8, body, generator)
        assert 7.5 <= steps.fps <= 30
        kinds.add((steps.keypoints_2d is None, steps.joints_3d is None))
        known = ~steps.previous[:, 0].isnan().any(dim=(1, 2, 3))
        for n, frames in ((1, 1), (0, 2)):
            some = known if n == 0 else torch.ones_like(known)
            gap = geodesic_distance(steps.previous[some, n], steps.theta[some])
            # The arms turn by at most a fifth of a radian per frame.
            assert gap.max() < 0.25 * frames * 30 / steps.fps + 0.05
        up = steps.up[~steps.up.isnan().any(dim=-1)]
        torch.testing.assert_close(up.norm(dim=-1), torch.ones(len(up)))
    assert len(kinds) == 3


def test_command_trains_resumes_and_writes_a_prior(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(motion, "SIZE", {"hidden_features": 8, "num_steps": 1, "head_features": 8})
    monkeypatch.setattr(motion, "EVALUATE_EVERY", 2)
    out = tmp_path / "motion"
    arguments = ["motion", "--data", str(data), "--out", str(out), "--batch", "8"]
    assert main([*arguments, "--steps", "2"]) == 0
    assert main([*arguments, "--steps", "4"]) == 0
    assert "resumed at step 2" in capsys.readouterr().out
    log = [
        json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["step"] for line in log] == [2, 4]
    prior = MotionPrior.from_pretrained(out)
    found = motion.motion_figures(prior, load_clips(data, 2))
    assert found["30 fps: NLL, nats"] < 0
    assert "30 fps: constant velocity, degrees" in (out / "README.md").read_text(encoding="utf-8")


def test_other_files_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "poses.npz", poses=np.zeros((3, 72)))
    arguments = ["motion", "--out", str(tmp_path / "out")]
    assert main(arguments) != 0
    assert "trained on clips" in capsys.readouterr().err
    assert main([*arguments, "--data", str(tmp_path / "poses.npz")]) != 0
    assert "it is no file of clips" in capsys.readouterr().err
