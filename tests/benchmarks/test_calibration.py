"""The benchmark of calibrated joints: its statistics, and one run on few poses."""

import json

import pytest
import torch

from benchmarks.calibration.__main__ import main, signed_rank
from benchmarks.calibration.picking import reprojection
from benchmarks.calibration.study import largest, pooled
from benchmarks.calibration.views import CLEAR, HIDDEN, MIXED, make_views
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton import COCO_17
from tests.tools.test_priors import rotvecs, write_people

__all__ = ["rotvecs"]


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


def test_the_signed_rank_is_that_of_wilcoxon():
    assert signed_rank(torch.tensor([1.0, -2.0, 3.0])) == pytest.approx(2 / 14**0.5)
    few = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert signed_rank(few) == -signed_rank(-few)
    assert signed_rank(few.abs()) > 5


def test_settings_show_the_same_bodies(body, rotvecs):
    people = {"a": rotvecs[:10], "b": rotvecs[10:30]}
    clear, mixed = (make_views(people, each, body, 3) for each in (CLEAR, MIXED))
    assert torch.equal(clear.examples.theta, mixed.examples.theta)
    assert clear.people == ("a",) * 10 + ("b",) * 20
    assert (clear.examples.keypoints_2d[..., 2] > 0.1).all()
    assert not (mixed.examples.keypoints_2d[..., 2] > 0.1).all()
    for keypoints, _ in HIDDEN.values():
        views = make_views(people, CLEAR, body, 3, keypoints)
        lost = (views.examples.keypoints_2d[..., 2] <= 0.1).all(dim=0)
        assert {COCO_17.joint_names[i] for i in lost.nonzero().flatten()} == set(keypoints)


def test_the_true_pose_is_likely(body, rotvecs):
    views = make_views({"a": rotvecs[:40]}, CLEAR, body, 3)
    theta = rotations.matrix_to_rot6d(views.examples.theta)[:, None]
    turned = rotations.matrix_to_rot6d(
        views.examples.theta
        @ rotations.rotvec_to_matrix(torch.tensor([0.5, 0.0, 0.0])).expand(40, 24, 3, 3)
    )[:, None]
    both = reprojection(torch.cat([theta, turned], dim=1), views.examples.keypoints_2d, body)
    assert (both[:, 0] > both[:, 1]).double().mean() > 0.9


def test_ways_to_fit_by_hand():
    errors = torch.cat([torch.full((50, 24), 1.0), torch.full((10, 24), 3.0)])
    groups = torch.tensor([0] * 50 + [1] * 10)
    assert largest(errors, torch.ones(60, 24), groups).eq(3).all()
    assert pooled(errors, torch.ones(60, 24), groups).eq(3).all()
    assert pooled(errors[:50], torch.ones(50, 24), groups[:50]).eq(1).all()


@pytest.mark.slow
def test_one_run(tmp_path, rotvecs):
    path = write_people(tmp_path / "people.npz", rotvecs)
    options = ["--data", str(path), "--out", str(tmp_path / "out"), "--per-person", "5"]
    assert main([*options, "--dropout-steps", "1"]) == 0
    found = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    assert len(found["coverage, as shipped, all keypoints, 90%"]["positions"]["joints"]) == 21
    assert found["one answer, all keypoints"]["best of 100 (oracle)"][0] > 0
    assert (tmp_path / "out" / "risk.png").stat().st_size > 10_000
    assert main(["--data", str(tmp_path / "missing.npz"), "--out", str(tmp_path)]) == 2
