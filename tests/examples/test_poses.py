import numpy as np
import pytest
import torch

from examples.data.kinematics import REST_OFFSETS, joints17_from_rotations
from examples.data.poses import SPLITS, load_poses
from examples.data.procedural import LIMITS, sample_angles, sample_person, sample_poses
from flowprior.skeleton import H36M_17, SMPL_24

INDEX = {name: joint for joint, name in enumerate(H36M_17.joint_names)}


def bone_lengths(joints):
    parents, children = np.array(H36M_17.bones).T
    return np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)


def rotvecs(**joints):
    pose = torch.zeros(1, SMPL_24.num_joints, 3, dtype=torch.float64)
    for name, rotvec in joints.items():
        pose[0, SMPL_24.joint_names.index(name)] = torch.tensor(rotvec, dtype=torch.float64)
    return pose


class TestKinematics:
    def test_rest_pose_is_symmetric_upright_and_faces_forwards(self):
        rest = joints17_from_rotations(rotvecs())[0]
        mirrored = rest[list(H36M_17.flip)] * torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(rest, mirrored)
        assert rest[0].tolist() == [0, 0, 0]
        heights = [rest[INDEX[name], 1] for name in ("left_foot", "hip", "spine", "nose", "head")]
        assert heights == sorted(heights)
        assert rest[INDEX["left_wrist"], 0] > 0.5  # the left side is at +x
        assert rest[INDEX["nose"], 2] > rest[INDEX["thorax"], 2]
        assert 1.5 < rest[INDEX["head"], 1] - rest[INDEX["left_foot"], 1] < 1.8

    def test_bending_a_knee_moves_that_foot_backwards(self):
        rest = joints17_from_rotations(rotvecs())[0]
        bent = joints17_from_rotations(rotvecs(left_knee=[torch.pi / 2, 0, 0]))[0]
        moved = [n for n, j in INDEX.items() if (bent[j] - rest[j]).norm() > 1e-9]
        assert moved == ["left_foot"]
        assert bent[INDEX["left_foot"], 2] < -0.4
        torch.testing.assert_close(bent[INDEX["left_foot"], 1], rest[INDEX["left_knee"], 1] + 0.02)

    def test_the_left_arm_hangs_with_a_negative_turn_about_z(self):
        hanging = joints17_from_rotations(rotvecs(left_shoulder=[0, 0, -torch.pi / 2]))[0]
        shoulder, wrist = hanging[INDEX["left_shoulder"]], hanging[INDEX["left_wrist"]]
        torch.testing.assert_close(shoulder[1] - wrist[1], torch.tensor(0.53).double())

    def test_root_turns_everything(self):
        pose = rotvecs(left_knee=[1.0, 0, 0], neck=[0.2, 0.3, 0], right_elbow=[0, 1.0, 0])
        turned = pose.clone()
        turned[0, 0] = torch.tensor([0.0, torch.pi / 2, 0])
        before, after = joints17_from_rotations(pose), joints17_from_rotations(turned)
        x, y, z = before.unbind(-1)
        torch.testing.assert_close(after, torch.stack([z, y, -x], dim=-1))

    def test_rotations_keep_bones_and_offsets_scale_them(self):
        generator = torch.Generator().manual_seed(0)
        pose = torch.randn(20, 24, 3, generator=generator, dtype=torch.float64)
        small = 0.8 * torch.tensor(REST_OFFSETS, dtype=torch.float64)
        joints = joints17_from_rotations(pose)
        torch.testing.assert_close(joints17_from_rotations(pose, small), 0.8 * joints)
        rigid = [  # bones within one rigid part
            child
            for child, name in enumerate(H36M_17.joint_names)
            if name.endswith(("knee", "foot", "hip", "elbow", "wrist", "head")) and child
        ]
        lengths = torch.from_numpy(bone_lengths(joints.numpy())[:, [c - 1 for c in rigid]])
        assert lengths.std(dim=0).max() < 1e-12

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match=r"\(\.\.\., 24, 3\), got \(5, 72\)"):
            joints17_from_rotations(torch.zeros(5, 72))


@pytest.fixture(scope="module")
def poses():
    return load_poses(seed=3)


class TestProcedural:
    def test_shape_units_and_root(self, poses):
        for split in SPLITS:
            joints = poses.part(split)
            assert joints.dtype == np.float32
            assert joints.shape[1:] == (17, 3)
            assert len(joints) >= 2000
            assert np.isfinite(joints).all()
            assert np.abs(joints[:, 0]).max() == 0
            assert np.abs(joints).max() < 1.5

    def test_the_same_seed_gives_the_same_poses(self, poses):
        np.testing.assert_array_equal(load_poses(seed=3).test, poses.test)
        assert not np.array_equal(load_poses(seed=4).test[:5], poses.test[:5])

    def test_no_person_is_in_two_parts(self, poses):
        names = [name for split in SPLITS for name in poses.subjects[split]]
        assert len(names) == len(set(names))
        thighs = [
            set(bone_lengths(poses.part(split))[:, INDEX["left_knee"] - 1].round(4))
            for split in SPLITS
        ]
        assert not thighs[0] & thighs[2]

    def test_angles_stay_within_their_limits_without_piling_up_there(self):
        angles = sample_angles(5000, np.random.default_rng(0), habit=np.full(len(LIMITS), 5.0))
        low, high, _ = np.array(list(LIMITS.values())).T
        assert (angles >= low).all()
        assert (angles <= high).all()
        assert ((angles == low) | (angles == high)).mean() < 1e-3

    def test_angles_are_correlated_as_in_people(self):
        angles = sample_angles(20000, np.random.default_rng(0))
        column = {name: angles[:, i] for i, name in enumerate(LIMITS)}

        def correlation(a, b):
            return np.corrcoef(column[a], column[b])[0, 1]

        assert correlation("left_knee", "left_hip_flexion") > 0.4
        assert correlation("left_knee", "right_knee") > 0.3
        assert correlation("tilt", "bend") > 0.5
        eigenvalues = np.linalg.eigvalsh(np.corrcoef(angles.T))[::-1]
        assert eigenvalues[:8].sum() > 0.6 * eigenvalues.sum()

    def test_left_and_right_are_equally_common(self):
        rng = np.random.default_rng(0)
        joints = np.concatenate([sample_poses(sample_person(rng), 200, rng) for _ in range(40)])
        heights = joints[..., 1].mean(axis=0)
        np.testing.assert_allclose(heights, heights[list(H36M_17.flip)], atol=0.02)

    def test_any_heading(self):
        rng = np.random.default_rng(0)
        joints = sample_poses(sample_person(rng), 4000, rng)
        across = joints[:, INDEX["left_hip"]] - joints[:, INDEX["right_hip"]]
        heading = np.arctan2(across[:, 2], across[:, 0])
        counts, _ = np.histogram(heading, bins=8, range=(-np.pi, np.pi))
        assert counts.min() > 400


def joints_arrays(**changes):
    rng = np.random.default_rng(0)
    arrays = {
        "joints17": rng.normal(size=(12, 17, 3)).astype(np.float32),
        "split": np.array([0] * 6 + [1] * 2 + [2] * 4, np.int8),
        "subject": np.array([0] * 3 + [1] * 3 + [2] * 2 + [3] * 4, np.int16),
        "subject_names": np.array(["a", "b", "c", "d"]),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def write(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


class TestJointsFile:
    def test_its_own_split_is_kept(self, tmp_path):
        arrays = joints_arrays()
        poses = load_poses(write(tmp_path / "poses.npz", arrays))
        np.testing.assert_array_equal(poses.train, arrays["joints17"][:6])
        np.testing.assert_array_equal(poses.val, arrays["joints17"][6:8])
        np.testing.assert_array_equal(poses.test, arrays["joints17"][8:])
        assert poses.subjects == {"train": ("a", "b"), "val": ("c",), "test": ("d",)}
        assert "poses.npz" in poses.source

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"split": None}, "split missing, found joints17, subject, subject_names"),
            ({"joints17": np.zeros((12, 51), np.float32)}, r"\(N, 17, 3\).*\(12, 51\)"),
            ({"joints17": np.zeros((12, 17, 3), int)}, "floating-point dtype"),
            ({"split": np.zeros(5, np.int8)}, "split to be 12 integers"),
            ({"subject": np.zeros(12)}, "subject to be 12 integers"),
            ({"subject": np.full(12, 9)}, "outside the 4 subject_names"),
            ({"split": np.zeros(12, np.int8)}, "no pose has the split code of test"),
            ({"subject": np.zeros(12, np.int8)}, "held out too: a"),
        ],
    )
    def test_other_content_is_refused(self, tmp_path, changes, message):
        path = write(tmp_path / "poses.npz", joints_arrays(**changes))
        with pytest.raises(ValueError, match=message):
            load_poses(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_non_finite_values_are_refused(self, tmp_path, value):
        joints = joints_arrays()["joints17"]
        joints[9, 3, 1] = value
        path = write(tmp_path / "poses.npz", joints_arrays(joints17=joints))
        with pytest.raises(ValueError, match="joints17 of 1 poses holds NaN or infinity"):
            load_poses(path)

    def test_files_that_are_no_archives(self, tmp_path):
        text = tmp_path / "text.npz"
        text.write_text("hello")
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
        joints = poses.train
        assert np.median(joints[:, INDEX["head"], 1]) > 0.5
        assert np.median(joints[:, INDEX["left_foot"], 1]) < -0.7
        # The same sizes as the embedded people, within what bodies differ.
        ours = bone_lengths(load_poses().train).mean(axis=0)
        np.testing.assert_allclose(bone_lengths(joints).mean(axis=0), ours, atol=0.07)


def amass_arrays(frames=60, seed=0, **changes):
    """A clip in the AMASS format, z up: someone stands and sways."""
    rng = np.random.default_rng(seed)
    poses = np.zeros((frames, 156))
    poses[:, :66] = 0.05 * rng.normal(size=(frames, 66))
    poses[:, 0] = np.pi / 2  # SMPL's y-up rest pose, raised to z up
    poses[:, 1:3] = 0
    poses[:, 66:] = 7.0  # hands: not read
    arrays = {
        "poses": poses,
        "trans": rng.normal(size=(frames, 3)),
        "betas": np.zeros(16),
        "dmpls": np.zeros((frames, 8)),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.00004577636719),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


class TestAmassFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        for subject in range(10):
            for clip in range(2):
                changes = {"gender": np.array(b"male")} if clip else {}
                write(
                    tmp_path / f"CMU/{subject:02d}/{subject:02d}_{clip:02d}_poses.npz",
                    amass_arrays(seed=2 * subject + clip, **changes),
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

    def test_z_up_is_turned_to_y_up(self, folder):
        joints = load_poses(folder).train
        assert joints.dtype == np.float32
        assert (joints[:, INDEX["head"], 1] > 0.5).all()
        assert (joints[:, INDEX["left_foot"], 1] < -0.6).all()
        # Facing -y in the file is facing +z here; the left side stays on the left.
        assert (joints[:, INDEX["left_hip"], 0] > 0).all()
        assert joints[:, INDEX["nose"], 2].mean() > 0.02

    def test_frames_are_those_of_the_shared_kinematics(self, tmp_path):
        arrays = [amass_arrays(seed=seed) for seed in range(2)]
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
        ("changes", "message"),
        [
            ({"poses": np.zeros((5, 60))}, r"poses of shape \(T, 156\).*\(5, 60\)"),
            ({"poses": np.full((5, 156), np.nan)}, "poses of 1 poses holds NaN"),
            ({"mocap_framerate": None}, "mocap_framerate, found betas, dmpls, gender, poses"),
            ({"mocap_framerate": np.array(0.0)}, "positive mocap_framerate, got 0.0"),
        ],
    )
    def test_a_bad_clip_is_named(self, tmp_path, changes, message):
        write(tmp_path / "a/good.npz", amass_arrays())
        write(tmp_path / "b/bad.npz", amass_arrays(**changes))
        with pytest.raises(ValueError, match=message) as caught:
            load_poses(tmp_path)
        assert "bad.npz" in str(caught.value)

    def test_smplx_spelling_and_pickled_extras(self, tmp_path):
        labels = np.empty(1, object)
        labels[0] = {"a": 1}
        changes = {"mocap_framerate": None, "mocap_frame_rate": np.array(30.0), "labels": labels}
        write(tmp_path / "a/x.npz", amass_arrays(**changes))
        write(tmp_path / "b/x.npz", amass_arrays(**changes))
        assert len(load_poses(tmp_path).test) == 20

    def test_folders_without_clips(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no \.npz file"):
            load_poses(tmp_path)
        write(tmp_path / "a/shape.npz", {"betas": np.zeros(16), "gender": np.array("male")})
        with pytest.raises(ValueError, match="found betas, gender"):
            load_poses(tmp_path)
        write(tmp_path / "a/clip.npz", amass_arrays())
        with pytest.raises(ValueError, match="at least two subject folders"):
            load_poses(tmp_path)
