"""The synthetic data set: annotations match the pictures."""

import cv2
import numpy as np
import pytest
import torch

from examples.data import annotations, view_groups
from examples.data.mocap import read_motion
from examples.prohmr.embedded import Studio, main, write_views
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.metrics import pa_mpjpe
from flowprior.skeleton import PROHMR_44, PROHMR_PELVIS

LIMBS = [
    PROHMR_44.index(f"{side}_{joint}")
    for side in ("left", "right")
    for joint in ("shoulder", "elbow", "hip", "knee")
]


@pytest.fixture(scope="module")
def scenes():
    from examples.data.procedural import sample_person, sample_poses

    rng = np.random.default_rng(0)
    _, rotvecs = sample_poses(sample_person(rng), 24, rng)
    return Studio(size=128).paint(rotvecs, rng)


def test_joints_lie_within_the_painted_body(scenes):
    inside = 0
    for scene in scenes:
        near = cv2.dilate(scene.painting.body, np.ones((3, 3), np.uint8)) > 0
        for x, y, seen in scene.keypoints_2d[LIMBS]:
            if seen:
                assert near[round(y), round(x)]
                inside += 1
    assert inside > 100


def test_the_outline_is_where_the_surface_projects(scenes):
    whole = 0
    for scene in scenes:
        if scene.keypoints_2d[:, 2].all():  # nothing in front, nothing cut
            y, x = np.nonzero(scene.painting.body > 127)
            low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
            np.testing.assert_allclose((low + high) / 2, scene.center, atol=1.0)
            assert 1.2 * (high - low + 1).max() == pytest.approx(scene.box_size, abs=2.4)
            whole += 1
    assert whole > 3


def test_hidden_joints_are_marked(scenes):
    assert any(not scene.keypoints_2d[:, 2].all() for scene in scenes)
    for scene in scenes:
        x, y, seen = scene.keypoints_2d.T
        outside = (x < -0.5) | (y < -0.5) | (x > 127.5) | (y > 127.5)
        assert not seen[outside].any()


def test_pose_and_shape_give_the_keypoints(scenes):
    body = BodyModel().double()
    pose = torch.from_numpy(np.stack([scene.pose for scene in scenes]))
    betas = torch.from_numpy(np.stack([scene.betas for scene in scenes]))
    found = body.keypoints(pose, PROHMR_44, betas=betas).numpy()
    truth = np.stack([scene.keypoints_3d for scene in scenes])
    found -= found[:, [PROHMR_PELVIS]]
    truth = truth - truth[:, [PROHMR_PELVIS]]
    np.testing.assert_allclose(found, truth, atol=1e-9)


def test_2d_and_3d_are_of_one_camera(scenes):
    for scene in scenes:
        plane = scene.keypoints_3d[:, :2] / scene.keypoints_3d[:, 2:]
        x, y = scene.keypoints_2d[:, :2].T
        # One focal length and the middle of the picture explain all points.
        focal = ((x - 63.5) * plane[:, 0] + (y - 63.5) * plane[:, 1]).sum() / (plane**2).sum()
        np.testing.assert_allclose(np.column_stack([x, y]), focal * plane + 63.5, atol=1e-6)


def test_the_files_are_read_as_prohmrs(painted):
    for name, count in {"train": 54, "val": 2, "test": 4}.items():
        rows, report = annotations.read(painted / f"{name}.npz", painted / "images")
        assert report.clean
        assert len(rows) == count
        assert rows.has_body_pose.all()
        assert rows.has_betas.all()
    motions, report = read_motion(painted / "mocap.npz")
    assert report.clean
    assert sum(map(len, motions)) == 20_000


def test_the_subject_of_each_pose_is_recorded(painted):
    subjects = {
        name: np.load(painted / f"{name}.npz")["subject"].tolist()
        for name in ("train", "val", "test")
    }
    assert {name: len(column) for name, column in subjects.items()} == {
        "train": 54,
        "val": 2,
        "test": 4,
    }
    assert not set(subjects["train"]) & (set(subjects["val"]) | set(subjects["test"]))


def test_views_are_of_one_person(tmp_path):
    write_views(tmp_path, 2, views=3, size=64, seed=1)
    groups, report = view_groups.read(tmp_path / "views.pkl", tmp_path / "images")
    assert report.clean
    assert [len(group) for group in groups] == [3, 3]
    for views in groups:
        for column in (views.body_pose, views.betas):
            np.testing.assert_array_equal(column, column[[0, 0, 0]])
        root = rotations.rotvec_to_matrix(torch.from_numpy(views.global_orient))
        turned = torch.rad2deg(rotations.geodesic_distance(root, root[[1, 2, 0]]))
        # A third of a turn, up to 15 degrees for each of two views and what the heights add.
        assert ((turned > 75) & (turned < 165)).all()
        joints = torch.from_numpy(views.keypoints_3d[..., :3])
        assert pa_mpjpe(joints[:1], joints[1:]).max() < 1e-5
    with pytest.raises(ValueError, match="two views or more, got 2 of 1"):
        write_views(tmp_path, 2, views=1)


def test_boxes_of_views_are_those_of_images(tmp_path):
    write_views(tmp_path, 1, size=64)
    (views,), _ = view_groups.read(tmp_path / "views.pkl")
    points = views.keypoints_2d[..., :2]
    side = (points.max(axis=1) - points.min(axis=1)).max(axis=1)
    assert ((views.box_size > 1.15 * side) & (views.box_size < 1.6 * side)).all()


def test_the_same_seed_paints_the_same(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_views(tmp_path / name, 1, views=2, size=48, seed=seed)
    painted = [
        [file.read_bytes() for file in sorted((tmp_path / name).rglob("*.jpg"))] for name in "abc"
    ]
    assert len(painted[0]) == 2
    assert painted[0] == painted[1] != painted[2]


def test_too_few_images_and_no_poses_are_named(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--images", "3"]) == 2
    assert "at least 50 images" in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--data", str(tmp_path / "none.npz")]) == 2
    assert "none.npz" in capsys.readouterr().err
