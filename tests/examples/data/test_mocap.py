import numpy as np
import pytest

from examples.data.mocap import (
    inspect,
    matches,
    read_motion,
    read_prohmr_mocap,
    read_split_poses,
)
from tests.examples.data.motion_files import (
    joints_arrays,
    prohmr_mocap_arrays,
    smplh_arrays,
    split_arrays,
    write,
)


class TestSplitPoses:
    def test_recordings(self, tmp_path):
        arrays = split_arrays()
        path = write(tmp_path / "poses.npz", arrays)
        motions, report = read_motion(path)
        assert report.clean
        assert report.kept == report.rows == 12
        assert [(m.subject, m.sequence, len(m)) for m in motions] == [
            ("a", "a_1", 2),
            ("a", "a_2", 1),
            ("b", "b_1", 3),
            ("c", "c_1", 2),
            ("d", "d_1", 4),
        ]
        np.testing.assert_array_equal(motions[0].frames, [4, 8])
        rotvecs = np.concatenate([motion.rotvecs for motion in motions])
        np.testing.assert_allclose(rotvecs, arrays["poses"].reshape(12, 24, 3), atol=1e-6)
        assert motions[0].transl is None
        assert motions[0].frame_rate is None
        assert motions[0].betas.shape == (2, 10)

    def test_faults_are_counted(self, tmp_path):
        arrays = split_arrays()
        arrays["joints17"] = arrays["joints17"].astype(np.float64)
        arrays["joints17"][0, 5, 1] = 1e300
        arrays["poses"][0, 3] = np.nan  # a row counts once
        arrays["poses"][1, 3] = np.inf
        arrays["poses"][2, 3] = 120.0
        arrays["split"][3] = 7
        poses, report = read_split_poses(write(tmp_path / "poses.npz", arrays))
        assert (report.rows, report.kept, len(poses)) == (12, 8, 8)
        assert {reason: finding.examples for reason, finding in report.left_out.items()} == {
            "joints17 with NaN, infinity or beyond 100 m, millimetres perhaps": ["pose 0"],
            "split other than 0, 1 or 2": ["pose 3"],
            "pose with NaN or infinity": ["pose 1"],
            "rotation of more than two turns, degrees perhaps": ["pose 2"],
        }
        np.testing.assert_array_equal(poses.joints, arrays["joints17"][4:].astype(np.float32))
        assert len(poses.rotvecs) == len(poses.subject) == len(poses.frame) == 8
        assert report.facts == {
            "subjects": "3",
            "split": "train 2, val 2, test 4",
            "SMPL rotations": "yes",
        }

    def test_joints_alone(self, tmp_path):
        path = write(tmp_path / "poses.npz", joints_arrays())
        poses, report = read_split_poses(path)
        assert poses.rotvecs is None
        assert report.facts["SMPL rotations"] == "no"
        with pytest.raises(ValueError, match="a file with joints only"):
            read_motion(path)
        assert inspect(path) == report

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"poses": np.zeros((12, 22, 3))}, r"poses of shape \(T, 72\) .* of 22 joints"),
            ({"poses": np.zeros((5, 72))}, r"poses to be numbers of shape \(12, N\)"),
            ({"sequence": np.full(12, 5)}, "outside the 5 sequence_names"),
            ({"frame": np.zeros(3, int)}, "frame to be 12 integers"),
        ],
    )
    def test_other_content_is_refused(self, tmp_path, changes, message):
        path = write(tmp_path / "poses.npz", split_arrays(**changes))
        with pytest.raises(ValueError, match=message):
            read_split_poses(path)

    def test_the_motion_capture_file(self, mocap_file):
        assert matches(mocap_file)
        motions, report = read_motion(mocap_file)
        assert report.clean
        assert report.rows == report.kept == sum(map(len, motions)) == 60365
        assert report.facts["split"] == "train 45675, val 10695, test 3995"
        assert len({motion.subject for motion in motions}) == int(report.facts["subjects"])
        assert all((motion.body_pose[:, 21:] == 0).all() for motion in motions)


class TestProhmrMocap:
    def test_the_first_three_numbers_are_dropped(self, tmp_path):
        arrays = prohmr_mocap_arrays()
        path = write(tmp_path / "cmu_mocap.npz", arrays)
        motion, report = read_prohmr_mocap(path)
        assert report.clean
        assert (motion.global_orient == 0).all()
        np.testing.assert_allclose(
            motion.body_pose.reshape(6, 69), arrays["body_pose"][:, 3:], atol=1e-6
        )
        np.testing.assert_allclose(motion.betas, arrays["betas"], rtol=1e-6)
        assert motion.transl is None
        assert [len(motion) for motion in read_motion(path)[0]] == [6]

    def test_faults_are_counted(self, tmp_path):
        arrays = prohmr_mocap_arrays()
        arrays["body_pose"][0, 0] = np.nan  # dropped anyway
        arrays["body_pose"][1, 9] = np.nan
        arrays["body_pose"][2, 9] = 180.0
        arrays["betas"][1, 3] = np.nan  # a row counts once
        arrays["betas"][4, 3] = 1e300
        motion, report = read_prohmr_mocap(write(tmp_path / "x.npz", arrays))
        np.testing.assert_array_equal(motion.frames, [0, 3, 5])
        assert (report.rows, report.kept) == (6, 3)
        assert {reason: finding.examples for reason, finding in report.left_out.items()} == {
            "pose with NaN or infinity": ["pose 1"],
            "rotation of more than two turns, degrees perhaps": ["pose 2"],
            "betas of NaN or beyond 100": ["pose 4"],
        }

    def test_no_poses(self, tmp_path):
        path = write(tmp_path / "x.npz", prohmr_mocap_arrays(rows=0))
        assert read_motion(path)[0] == []
        assert inspect(path).rows == 0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"body_pose": np.zeros((6, 69))}, r"shape \(T, 72\) .* of 23 joints without"),
            ({"body_pose": np.array(["a"])}, "body_pose to be numbers"),
            ({"betas": np.zeros((5, 10))}, r"betas to be numbers of shape \(6, N\)"),
            ({"betas": None}, "expected the key betas, found body_pose"),
        ],
    )
    def test_other_content_is_refused(self, tmp_path, changes, message):
        path = write(tmp_path / "x.npz", prohmr_mocap_arrays(**changes))
        with pytest.raises(ValueError, match=message):
            read_prohmr_mocap(path)


def test_which_files_match(tmp_path):
    clip = write(tmp_path / "amass/a/x_poses.npz", smplh_arrays())
    split = write(tmp_path / "split.npz", joints_arrays())
    prohmr = write(tmp_path / "prohmr.npz", prohmr_mocap_arrays())
    for path in (clip, clip.parents[1], split, prohmr):
        assert matches(path)
        assert inspect(path).clean
    annotations = write(tmp_path / "other/images.npz", prohmr_mocap_arrays(imgname=np.array(["a"])))
    text = tmp_path / "other/text.npz"
    text.write_text("hello", encoding="utf-8")
    for path in (annotations, text, tmp_path / "other", tmp_path / "nowhere"):
        assert not matches(path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"text\.npz is not an \.npz file"):
        inspect(text)
