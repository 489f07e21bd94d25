import numpy as np
import pytest
import torch

from examples.data.kinematics import joints17_from_rotations
from examples.data.poses import SPLITS, load_poses
from flowprior.skeleton import H36M_17
from tests.examples.data.motion_files import (
    INDEX,
    joints_arrays,
    smplh_arrays,
    smplx_arrays,
    split_arrays,
    write,
)


def bone_lengths(joints):
    parents, children = np.array(H36M_17.bones).T
    return np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)


class TestSplitFile:
    def test_its_own_split_is_kept(self, tmp_path):
        arrays = joints_arrays()
        poses = load_poses(write(tmp_path / "poses.npz", arrays))
        np.testing.assert_array_equal(poses.train, arrays["joints17"][:6])
        np.testing.assert_array_equal(poses.val, arrays["joints17"][6:8])
        np.testing.assert_array_equal(poses.test, arrays["joints17"][8:])
        assert poses.subjects == {"train": ("a", "b"), "val": ("c",), "test": ("d",)}
        for split in SPLITS:
            assert len(poses.subject_of[split]) == len(poses.part(split))
            assert set(poses.subject_of[split]) == set(poses.subjects[split])
        assert "poses.npz" in poses.source
        assert poses.report.clean

    def test_rotations_come_row_by_row_with_the_joints(self, tmp_path):
        arrays = split_arrays()
        arrays["joints17"][1, 0, 0] = np.nan
        poses = load_poses(write(tmp_path / "poses.npz", arrays))
        kept = [0, *range(2, 6)]
        np.testing.assert_array_equal(poses.train, arrays["joints17"][kept])
        np.testing.assert_allclose(
            poses.rotvecs("train"), arrays["poses"][kept].reshape(-1, 24, 3), atol=1e-6
        )
        assert poses.rotvecs("val").shape == (2, 24, 3)

    def test_a_file_of_joints_alone_has_no_rotations(self, tmp_path):
        poses = load_poses(write(tmp_path / "poses.npz", joints_arrays()))
        assert not poses.has_rotvecs
        with pytest.raises(ValueError, match=r"poses\.npz: expected poses with SMPL's rotations"):
            poses.rotvecs("train")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"split": None}, "split missing, found joints17, subject, subject_names"),
            ({"joints17": np.zeros((12, 51), np.float32)}, r"\(N, 17, 3\).*\(12, 51\)"),
            ({"joints17": np.zeros((12, 17, 3), int)}, "floating-point dtype"),
            ({"split": np.zeros(5, np.int8)}, "split to be 12 integers"),
            ({"subject": np.zeros(12)}, "subject to be 12 integers"),
            ({"subject": np.full(12, 9)}, "outside the 4 subject_names"),
            ({"split": np.zeros(12, np.int8)}, "no usable pose has the split code of test"),
            ({"subject": np.zeros(12, np.int8)}, "held out too: a"),
        ],
    )
    def test_other_content_is_refused(self, tmp_path, changes, message):
        path = write(tmp_path / "poses.npz", joints_arrays(**changes))
        with pytest.raises(ValueError, match=message):
            load_poses(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_poses_that_are_not_finite_are_left_out_and_counted(self, tmp_path, value):
        joints = joints_arrays()["joints17"]
        joints[9, 3, 1] = value
        poses = load_poses(write(tmp_path / "poses.npz", joints_arrays(joints17=joints)))
        np.testing.assert_array_equal(poses.test, joints[[8, 10, 11]])
        assert (poses.report.rows, poses.report.kept) == (12, 11)
        assert poses.report.left_out[
            "joints17 with NaN, infinity or beyond 100 m, millimetres perhaps"
        ].examples == ["pose 9"]

    def test_nothing_usable_in_a_part(self, tmp_path):
        joints = joints_arrays()["joints17"]
        joints[8:] = np.nan
        with pytest.raises(ValueError, match="no usable pose has the split code of test"):
            load_poses(write(tmp_path / "poses.npz", joints_arrays(joints17=joints)))

    def test_files_that_are_no_archives(self, tmp_path):
        text = tmp_path / "text.npz"
        text.write_text("hello", encoding="utf-8")
        whole = write(tmp_path / "whole.npz", joints_arrays()).read_bytes()
        cut = tmp_path / "cut.npz"
        cut.write_bytes(whole[: len(whole) // 2])
        empty = tmp_path / "empty.npz"
        empty.touch()
        np.save(tmp_path / "array.npy", np.zeros(3))
        for path in (text, cut, empty, tmp_path / "array.npy"):
            with pytest.raises(ValueError, match=path.name):
                load_poses(path)

    def test_missing_path(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*nowhere"):
            load_poses(tmp_path / "nowhere")

    def test_the_motion_capture_file(self, mocap_file):
        poses = load_poses(mocap_file)
        assert (len(poses.train), len(poses.val), len(poses.test)) == (45675, 10695, 3995)
        assert poses.subjects["test"] == ("cmu03", "cmu05")
        assert poses.report.clean
        joints = poses.train
        assert np.median(joints[:, INDEX["head"], 1]) > 0.5
        assert np.median(joints[:, INDEX["left_foot"], 1]) < -0.7
        # The same sizes as the embedded people, within what bodies differ.
        ours = bone_lengths(load_poses().train).mean(axis=0)
        np.testing.assert_allclose(bone_lengths(joints).mean(axis=0), ours, atol=0.07)
        # The rotations put limbs where the joints have them.
        posed = joints17_from_rotations(torch.from_numpy(poses.rotvecs("test"))).numpy()
        for parent, child in (("left_hip", "left_knee"), ("right_elbow", "right_wrist")):
            ours, theirs = (
                x[:, INDEX[child]] - x[:, INDEX[parent]] for x in (posed, poses.part("test"))
            )
            cosine = (ours * theirs).sum(-1) / np.prod(
                [np.linalg.norm(x, axis=-1) for x in (ours, theirs)], axis=0
            )
            assert np.median(cosine) > 0.99


class TestEmbedded:
    def test_every_pose_has_its_rotations(self):
        poses = load_poses(seed=1)
        assert poses.has_rotvecs
        assert poses.report.kept == sum(len(poses.part(split)) for split in SPLITS)
        for split in SPLITS:
            rotvecs = torch.from_numpy(poses.rotvecs(split)[::100])
            posed = joints17_from_rotations(rotvecs).numpy()
            joints = poses.part(split)[::100]
            # Another body in the same pose: limbs point the same way.
            for parent, child in (("left_hip", "left_knee"), ("right_elbow", "right_wrist")):
                ours, theirs = (x[:, INDEX[child]] - x[:, INDEX[parent]] for x in (posed, joints))
                ours, theirs = (x / np.linalg.norm(x, axis=-1)[:, None] for x in (ours, theirs))
                np.testing.assert_allclose(ours, theirs, atol=1e-3)


class TestAmassFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        for subject in range(10):
            for clip in range(2):
                changes = {"gender": np.array(b"male")} if clip else {}
                write(
                    tmp_path / f"CMU/{subject:02d}/{subject:02d}_{clip:02d}_poses.npz",
                    smplh_arrays(seed=2 * subject + clip, **changes),
                )
            write(tmp_path / f"CMU/{subject:02d}/shape.npz", {"betas": np.zeros(16)})
        return tmp_path

    def test_split_by_subject_and_thinned_to_ten_per_second(self, folder):
        poses = load_poses(folder)
        assert {split: len(poses.subjects[split]) for split in SPLITS} == {
            "train": 8,
            "val": 1,
            "test": 1,
        }
        names = sorted(name for split in SPLITS for name in poses.subjects[split])
        assert names == [f"CMU/{subject:02d}" for subject in range(10)]
        assert len(poses.test) == 2 * 5  # 60 frames at 120 per second, every 12th, two clips
        assert load_poses(folder).subjects == poses.subjects
        assert poses.subject_of["train"].tolist() == np.repeat(poses.subjects["train"], 10).tolist()
        assert poses.report.clean
        assert (poses.report.rows, poses.report.kept) == (100, 100)

    def test_z_up_is_turned_to_y_up(self, folder):
        poses = load_poses(folder)
        joints = poses.train
        assert joints.dtype == np.float32
        assert (joints[:, INDEX["head"], 1] > 0.5).all()
        assert (joints[:, INDEX["left_foot"], 1] < -0.6).all()
        # Facing -y in the file is facing +z here; the left side stays on the left.
        assert (joints[:, INDEX["left_hip"], 0] > 0).all()
        assert joints[:, INDEX["nose"], 2].mean() > 0.02
        again = joints17_from_rotations(torch.from_numpy(poses.rotvecs("train")))
        np.testing.assert_array_equal(joints, again)

    def test_frames_are_those_of_the_shared_kinematics(self, tmp_path):
        arrays = [smplh_arrays(seed=seed) for seed in range(2)]
        for seed, clip in enumerate(arrays):
            write(tmp_path / f"{seed}/clip.npz", clip)
        poses = load_poses(tmp_path)
        first = int(poses.subjects["train"][0])
        rotvecs = torch.zeros(5, 24, 3)
        rotvecs[:, :22] = torch.from_numpy(arrays[first]["poses"][::12, :66]).view(5, 22, 3)
        x, y, z = joints17_from_rotations(rotvecs).numpy().transpose(2, 0, 1)
        np.testing.assert_allclose(poses.train, np.stack([x, z, -y], -1), atol=1e-6)
        assert poses.val.shape == (0, 17, 3)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"poses": np.zeros((5, 60))}, "clip that cannot be read"),
            ({"poses": np.full((60, 156), np.nan)}, "pose with NaN or infinity"),
            ({"mocap_framerate": None}, "clip of unknown frame rate"),
            ({"mocap_framerate": np.array(0.0)}, "clip of unknown frame rate"),
        ],
    )
    def test_a_bad_clip_is_left_out_and_named(self, tmp_path, changes, reason):
        for name in ("a", "b"):
            write(tmp_path / name / "good.npz", smplh_arrays())
        write(tmp_path / "b/bad.npz", smplh_arrays(**changes))
        poses = load_poses(tmp_path)
        assert len(poses.train) == len(poses.test) == 5
        (found, finding), *others = poses.report.left_out.items()
        assert found.startswith(reason)
        assert "b/bad.npz" in finding.examples[0]
        assert not others

    def test_the_two_releases_together(self, tmp_path):
        write(tmp_path / "a/x_poses.npz", smplh_arrays(seed=1))
        write(tmp_path / "b/x_stageii.npz", smplx_arrays(seed=1))
        poses = load_poses(tmp_path)
        np.testing.assert_allclose(poses.train, poses.test, atol=1e-6)

    def test_folders_without_clips(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no \.npz file"):
            load_poses(tmp_path)
        write(tmp_path / "a/shape.npz", {"betas": np.zeros(16), "gender": np.array("male")})
        with pytest.raises(ValueError, match="found betas, gender"):
            load_poses(tmp_path)
        write(tmp_path / "a/clip.npz", smplh_arrays())
        with pytest.raises(ValueError, match="at least two subject folders"):
            load_poses(tmp_path)
