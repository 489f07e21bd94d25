import numpy as np
import pytest
import torch

from examples.data.h36m import (
    ACTIONS,
    TEST_SUBJECTS,
    canonical_action,
    inspect,
    matches,
    read_h36m,
    read_h36m_world,
)
from examples.data.h36m_cameras import CAMERAS
from examples.data.poses import load_poses
from examples.data.virtual_views import FOCAL_PX, IMAGE_PX
from examples.pinhole import project
from flowprior.skeleton import COCO_17, H36M_17, MPII_16
from tests.examples.data.lifting_files import (
    COCO_SIDES,
    H36M_SIDES,
    MOVING,
    MPII_SIDES,
    boxed,
    made_up_cameras,
    positions_2d,
    positions_3d,
    write_2d,
    write_3d,
    write_metadata,
)


@pytest.fixture
def folder(tmp_path):
    positions = positions_3d()
    write_3d(tmp_path / "data_3d_h36m.npz", positions)
    write_2d(tmp_path / "data_2d_h36m_gt.npz", positions_2d(positions))
    return tmp_path


def reasons(report):
    return {reason: finding.count for reason, finding in report.left_out.items()}


class TestActions:
    def test_fifteen(self):
        assert len(ACTIONS) == 15

    @pytest.mark.parametrize(
        ("sequence", "action"),
        [
            ("Directions", "Directions"),
            ("Directions 1", "Directions"),
            ("TakingPhoto 1", "Photo"),
            ("WalkingDog", "WalkDog"),
            ("WalkTogether 1", "WalkTogether"),
            ("SittingDown 2", "SittingDown"),
            ("Sitting_1", "Sitting"),
            ("_ALL", None),
            ("Jumping 1", None),
            ("", None),
        ],
    )
    def test_names(self, sequence, action):
        assert canonical_action(sequence) == action


class TestViews:
    def test_joints_in_the_camera_and_keypoints_in_the_image(self, folder):
        pairs, report = read_h36m(folder, subjects=("S9",), every=3)
        assert report.clean
        assert len(pairs) == report.rows == report.kept == 4 * 4 * 4  # recordings, cameras, frames
        assert pairs.skeleton_2d is pairs.skeleton_3d is H36M_17
        assert set(pairs.action) == {"Directions", "WalkDog", "Photo"}
        rows = (pairs.sequence == "WalkDog 1") & (pairs.camera == "58860488")
        some = pairs[rows]
        np.testing.assert_array_equal(some.frame, [0, 3, 6, 9])
        world = positions_3d()["S9"]["WalkDog 1"][::3, MOVING].astype(np.float64)
        camera = made_up_cameras()["S9", "58860488"]
        np.testing.assert_allclose(
            some.keypoints_3d + some.root[:, None], camera.to_camera(world), atol=1e-5
        )
        assert (some.keypoints_3d[:, 0] == 0).all()
        assert some.target.shape == (4, 16, 3)
        np.testing.assert_allclose(
            some.keypoints_2d[..., :2], camera.project(camera.to_camera(world)), atol=1e-2
        )
        assert (some.keypoints_2d[..., 2] == 1).all()
        np.testing.assert_array_equal(some.image_size, [[1000, 1000]] * 4)
        np.testing.assert_array_equal(pairs[pairs.camera == "54138969"].image_size[0], [1000, 1002])

    def test_the_camera_frame_is_that_of_the_virtual_cameras(self, folder):
        views = read_h36m(folder, subjects=("S1",))[0].views()
        # The same axes and almost the same lens.
        error = (project(views.joints, FOCAL_PX, IMAGE_PX / 2) - views.keypoints).norm(dim=-1)
        assert error.median() < 40
        assert views.visible.all()
        assert (views.joints[..., 2] > 1).all()

    def test_true_detections_are_the_projection(self, folder):
        projected, _ = read_h36m(folder, subjects=None)
        detected, report = read_h36m(
            folder / "data_3d_h36m.npz", folder / "data_2d_h36m_gt.npz", subjects=None
        )
        np.testing.assert_allclose(projected.keypoints_2d, detected.keypoints_2d, atol=1e-2)
        np.testing.assert_array_equal(projected.keypoints_3d, detected.keypoints_3d)
        assert report.facts["keypoints"].endswith("data_2d_h36m_gt.npz, H36M-17")

    def test_subjects_of_either_part(self, tmp_path):
        subjects = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
        path = write_3d(tmp_path / "x.npz", positions_3d(frames=2, subjects=subjects))
        train, _ = read_h36m(path)
        test, _ = read_h36m(path, subjects=TEST_SUBJECTS)
        assert set(train.subject) == {"S1", "S5", "S6", "S7", "S8"}
        assert set(test.subject) == {"S9", "S11"}

    def test_the_corrupt_recording_is_left_out(self, folder):
        pairs, report = read_h36m(folder, subjects=("S11",), cameras=CAMERAS[:2])
        assert reasons(report) == {"S11 Directions, which is corrupt": 20}
        assert report.rows - 20 == report.kept == len(pairs)
        assert set(pairs.sequence) == {"Directions 1", "WalkDog 1", "Photo"}

    def test_seventeen_joints_are_taken_as_they_are(self, tmp_path):
        positions = positions_3d(subjects=("S1",))
        fewer = {"S1": {name: joints[:, MOVING] for name, joints in positions["S1"].items()}}
        pairs, _ = read_h36m(write_3d(tmp_path / "a.npz", positions), subjects=("S1",))
        same, _ = read_h36m(write_3d(tmp_path / "b.npz", fewer), subjects=("S1",))
        np.testing.assert_array_equal(pairs.keypoints_3d, same.keypoints_3d)


def test_the_seventeen_of_thirtytwo_joints():
    assert MOVING == [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]


class TestFaults3D:
    def test_every_one_is_counted(self, tmp_path):
        positions = positions_3d(subjects=("S1",))
        joints = positions["S1"]
        joints["Directions"][4, 2, 0] = np.nan
        joints["Directions"][5, 4, 0] = np.nan  # a toe: not one of the 17
        joints["Photo"] *= 1000  # millimetres
        joints["Jumping"] = joints["WalkDog 1"]
        joints["Waiting"] = np.zeros((10, 96), np.float32)
        joints["Eating"] = None
        joints["Posing"] = np.zeros((0, 32, 3), np.float32)
        pairs, report = read_h36m(write_3d(tmp_path / "x.npz", positions), subjects=("S1",))
        assert reasons(report) == {
            "3D joint of NaN or infinity": 4,
            "recording with joints beyond 100 m, millimetres perhaps": 40,
            "recording of none of the 15 actions": 40,
            "recording that is no numbers of shape (T, 32, 3)": 2,
        }
        assert report.ignored["recording without frames"].examples == ["S1 Posing"]
        example = report.left_out["3D joint of NaN or infinity"].examples[0]
        assert example == "S1 Directions, camera 54138969, frame 4"
        assert len(pairs) == report.kept == report.rows - 86 == 116
        assert np.isfinite(pairs.keypoints_3d).all()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"positions_3d": boxed({"S1": 3})}, "recordings of S1 as a dictionary"),
            ({"positions_3d": np.zeros(3)}, "positions_3d to be a dictionary by subject, found"),
            ({"positions": np.zeros(3)}, "found positions"),
            ({"positions_3d": boxed({"S2": {}})}, "of the subjects S1, found S2"),
        ],
    )
    def test_other_content_is_refused(self, tmp_path, content, message):
        np.savez(tmp_path / "x.npz", **content)
        write_metadata(tmp_path)
        with pytest.raises(ValueError, match=message):
            read_h36m(tmp_path / "x.npz", subjects=None if "S1" in str(content) else ("S1",))

    def test_no_usable_rows(self, tmp_path):
        path = write_3d(tmp_path / "x.npz", {"S1": {"Jumping": positions_3d()["S1"]["Photo"]}})
        pairs, report = read_h36m(path, subjects=("S1",))
        assert len(pairs) == report.kept == 0
        assert pairs.keypoints_3d.shape == (0, 17, 3)

    def test_code_in_the_pickle_is_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        np.savez(tmp_path / "x.npz", positions_3d=boxed({"S1": Trap()}))
        write_metadata(tmp_path)
        with pytest.raises(ValueError, match=r"x\.npz"):
            read_h36m(tmp_path / "x.npz")
        assert not (tmp_path / "ran").exists()

    def test_arguments(self, folder):
        with pytest.raises(ValueError, match="expected every to be 1 or more, got 0"):
            read_h36m(folder, every=0)
        with pytest.raises(ValueError, match=r"expected subjects among S1, .* got S2"):
            read_h36m(folder, subjects=("S2",))
        with pytest.raises(ValueError, match=r"expected cameras among 54138969, .* got 1"):
            read_h36m(folder, cameras=("1",))
        with pytest.raises(FileNotFoundError, match=r"data_3d_h36m\.npz"):
            read_h36m(folder.parent)
        with pytest.raises(FileNotFoundError):
            read_h36m(folder, folder / "data_2d_nothing.npz")


class TestDetections:
    def test_frames_beyond_the_motion_capture_are_cut_off(self, folder):
        path = write_2d(folder / "long.npz", positions_2d(positions_3d(), extra=5))
        longer, report = read_h36m(folder, path, subjects=("S1",))
        assert report.clean
        np.testing.assert_array_equal(
            longer.keypoints_2d,
            read_h36m(folder, folder / "data_2d_h36m_gt.npz", subjects=("S1",))[0].keypoints_2d,
        )

    def test_every_fault_is_counted(self, folder):
        found = positions_2d(positions_3d())["S1"]
        found["Directions"][0] = found["Directions"][0][:7]  # shorter than the motion capture
        found["Photo"][1] = None  # as in archives that lack a camera
        del found["WalkDog 1"]
        found["Directions 1"][2][3, 6] = np.nan
        found["Directions 1"][2][4] = np.inf
        pairs, report = read_h36m(
            folder, write_2d(folder / "x.npz", {"S1": found}), subjects=["S1"]
        )
        assert reasons(report) == {
            "frame without 2D keypoints": 3,
            "recording without 2D keypoints of shape (T, 17, 2)": 10 + 40,
            "no 2D keypoint": 1,
        }
        finding = report.ignored["NaN or infinity in a 2D keypoint"]
        assert finding.count == 18
        assert (
            finding.examples[0] == "S1 Directions 1, camera 58860488, frame 3, keypoint 6 left_foot"
        )
        assert len(pairs) == report.kept == report.rows - 54 == 106
        row = (pairs.sequence == "Directions 1") & (pairs.camera == "58860488") & (pairs.frame == 3)
        assert pairs.keypoints_2d[row][0, 6].tolist() == [0, 0, 0]

    def test_confidences_are_kept(self, folder):
        found = positions_2d(positions_3d())
        for recordings in found.values():
            for views in recordings.values():
                views[:] = [np.concatenate([v, np.full_like(v[..., :1], 0.5)], -1) for v in views]
        path = write_2d(folder / "x.npz", found)
        pairs, _ = read_h36m(folder, path, subjects=("S1",))
        assert (pairs.keypoints_2d[..., 2] == 0.5).all()

    @pytest.mark.parametrize(
        ("skeleton", "sides", "number"),
        [(COCO_17, COCO_SIDES, 17), (MPII_16, MPII_SIDES, 16), (H36M_17, H36M_SIDES, 17)],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_joint_sets_are_told_apart(self, folder, skeleton, sides, number):
        found = {"S1": {"WalkingDog_1": [np.full((10, number, 2), 500.0, np.float32)] * 4}}
        path = write_2d(folder / "x.npz", found, sides, number)
        pairs, report = read_h36m(folder, path, subjects=("S1",))
        assert pairs.skeleton_2d is skeleton
        assert set(pairs.sequence) == {"WalkDog 1"}
        assert report.facts["keypoints"].endswith(skeleton.name)
        visible = pairs.views().visible
        assert visible[:, H36M_17.index("left_wrist")].all()
        assert visible[:, H36M_17.index("thorax")].all() == (skeleton is not COCO_17)

    def test_unknown_joint_sets_are_refused(self, folder):
        path = write_2d(folder / "x.npz", positions_2d(positions_3d()), [[1], [2]], 17)
        with pytest.raises(ValueError, match="metadata with num_joints and keypoints_symmetry"):
            read_h36m(folder, path)
        np.savez(folder / "y.npz", positions_2d=boxed(positions_2d(positions_3d())))
        with pytest.raises(ValueError, match="got None"):
            read_h36m(folder, folder / "y.npz")


class TestWorld:
    def test_y_up_at_a_lower_rate(self, folder):
        poses, report = read_h36m_world(folder, 10)
        assert list(poses) == ["S1", "S9", "S11"]
        assert poses["S1"].shape == (4 * 2, 17, 3)
        assert (report.rows, report.kept) == (24, 22)  # less S11's corrupt recording
        world = positions_3d()["S1"]["Directions 1"][[0, 5]][:, MOVING]
        x, y, z = np.moveaxis(world - world[:, :1], -1, 0)
        np.testing.assert_allclose(poses["S1"][:2], np.stack([x, z, -y], -1), atol=1e-6)

    def test_as_poses_to_train_and_test_on(self, folder):
        for path in (folder, folder / "data_3d_h36m.npz"):
            poses = load_poses(path)
            assert poses.subjects == {"train": ("S1",), "val": (), "test": ("S9", "S11")}
            assert (len(poses.train), len(poses.val), len(poses.test)) == (8, 0, 14)
            assert not poses.has_rotvecs
            assert torch.from_numpy(poses.part("val")).shape == (0, 17, 3)

    def test_a_part_that_is_missing(self, tmp_path):
        path = write_3d(tmp_path / "x.npz", positions_3d(subjects=("S1", "S5")))
        with pytest.raises(ValueError, match="no usable pose of S9, S11"):
            load_poses(path)


def test_matches_and_inspect(folder):
    assert not matches(folder)  # so that each file in it is looked at
    assert matches(folder / "data_3d_h36m.npz")
    assert matches(folder / "data_2d_h36m_gt.npz")
    assert not matches(folder / "nowhere.npz")
    for path in (folder, folder / "data_3d_h36m.npz", folder / "data_2d_h36m_gt.npz"):
        report = inspect(path)
        assert (report.rows, report.kept) == (3 * 4 * 4 * 10, 3 * 4 * 4 * 10 - 40)
        assert report.facts["subjects"] == "S1, S9, S11"
        assert report.facts["recordings"] == "11"


class TestWithoutCalibration:
    def test_views_need_it(self, folder):
        (folder / "metadata.xml").rename(folder / "elsewhere.xml")
        with pytest.raises(
            FileNotFoundError, match=r"no .*metadata\.xml: views of Human3\.6M need"
        ):
            read_h36m(folder)
        pairs, report = read_h36m(folder, metadata=folder / "elsewhere.xml", subjects=("S1",))
        assert len(pairs) == report.kept > 0

    def test_poses_do_not(self, folder):
        (folder / "metadata.xml").unlink()
        poses, report = read_h36m_world(folder)
        found = inspect(folder / "data_3d_h36m.npz")
        assert found.kept == report.kept == sum(map(len, poses.values()))
        assert "metadata.xml" in found.facts["cameras"]
