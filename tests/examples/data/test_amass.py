import numpy as np
import pytest
import torch

from examples.data.amass import holds_clips, read_amass
from flowprior.rotations import rotvec_to_matrix
from tests.examples.data.motion_files import smplh_arrays, smplx_arrays, write


def read_one(path, **options):
    motions, report = read_amass(path, **options)
    assert len(motions) == 1
    return motions[0], report


@pytest.mark.parametrize(
    ("name", "arrays", "kind"),
    [
        ("01_01_poses.npz", smplh_arrays(), "AMASS clip, SMPL-H"),
        ("01_01_stageii.npz", smplx_arrays(), "AMASS clip, SMPL-X"),
        ("01_01_stageii.npz", smplx_arrays(poses=None), "AMASS clip, SMPL-X"),
    ],
    ids=["SMPL-H", "SMPL-X", "SMPL-X in parts"],
)
def test_a_clip_of_each_release(tmp_path, name, arrays, kind):
    motion, report = read_one(write(tmp_path / "01" / name, arrays))
    assert report.clean
    assert (report.kind, report.unit, report.rows, report.kept) == (kind, "frame", 60, 60)
    assert (motion.subject, motion.sequence) == ("01", name.removesuffix(".npz"))
    assert motion.gender == "female"
    assert motion.frame_rate == pytest.approx(120)
    assert motion.rotvecs.shape == (60, 24, 3)
    assert motion.rotvecs.dtype == motion.transl.dtype == motion.betas.dtype == np.float32
    body = smplh_arrays()["poses"][:, 3:66].reshape(60, 21, 3)
    np.testing.assert_allclose(motion.body_pose[:, :21], body, atol=1e-6)
    assert (motion.body_pose[:, 21:] == 0).all()  # hands
    np.testing.assert_allclose(motion.betas, np.tile(arrays["betas"], (60, 1)), rtol=1e-6)
    np.testing.assert_array_equal(motion.frames, range(60))
    # z up to y up: the turn of a quarter that the file has is undone.
    np.testing.assert_allclose(motion.global_orient, 0, atol=1e-6)
    x, y, z = arrays["trans"].T
    np.testing.assert_allclose(motion.transl, np.stack([x, z, -y], -1), atol=1e-6)


def test_the_pelvis_has_a_part_in_transl(tmp_path):
    path = write(tmp_path / "x.npz", smplh_arrays(frames=3))
    pelvis = np.array([0.0, -0.22, 0.03])
    plain, exact = read_one(path)[0], read_one(path, pelvis=pelvis)[0]
    np.testing.assert_allclose(
        exact.transl - plain.transl, np.tile([0, 0.03 + 0.22, 0.22 - 0.03], (3, 1)), atol=1e-6
    )


def test_smpl_poses_keep_their_hands(tmp_path):
    poses = smplh_arrays()["poses"][:, :72]
    poses[:, 66:] = 0.2
    motion, _ = read_one(write(tmp_path / "x.npz", smplh_arrays(poses=poses)))
    np.testing.assert_allclose(motion.body_pose[:, 21:], 0.2, rtol=1e-6)


class TestRates:
    def test_thinned_out_by_the_true_rate(self, tmp_path):
        path = write(tmp_path / "x.npz", smplh_arrays(frames=130))
        motion, report = read_one(path, rate_hz=10)
        np.testing.assert_array_equal(motion.frames, range(0, 130, 12))
        assert motion.frame_rate == 10
        assert (report.rows, report.kept) == (11, 11)

    def test_slower_recordings_are_kept_whole(self, tmp_path):
        path = write(tmp_path / "x.npz", smplh_arrays(mocap_framerate=np.array(8)))
        motion, _ = read_one(path, rate_hz=10)
        assert len(motion) == 60
        assert motion.frame_rate == 8

    def test_the_duration_tells_a_missing_rate(self, tmp_path):
        arrays = smplx_arrays(mocap_frame_rate=None)
        motion, report = read_one(write(tmp_path / "x.npz", arrays), rate_hz=10)
        assert len(motion) == 5
        assert report.facts["frame rate"] == "120 Hz"

    def test_a_duration_that_contradicts_the_rate_is_reported(self, tmp_path):
        arrays = smplx_arrays(mocap_frame_rate=np.array(240.0))
        motion, report = read_one(write(tmp_path / "x.npz", arrays))
        assert motion.frame_rate == 240
        finding = report.ignored["mocap_time_length that does not fit the frame rate"]
        assert finding.examples == ["60 frames at 240 Hz in 0.5 s"]

    @pytest.mark.parametrize(
        "rate", [None, np.array(0.0), np.array(np.nan), np.array("fast"), np.zeros(2)]
    )
    def test_without_any_rate(self, tmp_path, rate):
        path = write(tmp_path / "x.npz", smplh_arrays(mocap_framerate=rate))
        motion, report = read_one(path)
        assert motion.frame_rate is None
        assert report.facts["frame rate"] == "unknown"
        assert ("frame rate that is no positive number" in report.ignored) == (rate is not None)
        motions, report = read_amass(path, rate_hz=10)
        assert not motions
        assert (report.rows, report.kept) == (60, 0)
        finding = report.left_out["clip of unknown frame rate, not to be thinned out to 10 Hz"]
        assert finding.count == 60


class TestFaults:
    def test_frames_are_left_out_and_counted(self, tmp_path):
        arrays = smplh_arrays()
        arrays["poses"][12, 5] = np.nan
        arrays["poses"][24, 100] = np.nan  # a hand: not read
        arrays["poses"][25, 5] = np.nan  # between the beats: not looked at at 10 Hz
        arrays["poses"][36, 3] = 90.0
        arrays["trans"][48, 0] = 1e300
        path = write(tmp_path / "x.npz", arrays)
        motion, report = read_one(path, rate_hz=10)
        np.testing.assert_array_equal(motion.frames, [0, 24])
        assert len(motion.transl) == len(motion.betas) == len(motion) == 2
        assert (report.rows, report.kept) == (5, 2)
        assert {reason: finding.examples for reason, finding in report.left_out.items()} == {
            "pose with NaN or infinity": ["frame 12"],
            "rotation of more than two turns, degrees perhaps": ["frame 36"],
            "transl of NaN, infinity or beyond 100 m, millimetres perhaps": ["frame 48"],
        }
        assert read_amass(path)[1].kept == 56

    @pytest.mark.parametrize("gender", [b"\xc3\x28", "other", np.array(["male", "female"])])
    def test_unknown_gender(self, tmp_path, gender):
        path = write(tmp_path / "x.npz", smplh_arrays(gender=np.asarray(gender)))
        motion, report = read_one(path)
        assert motion.gender == "neutral"
        assert report.ignored["unknown gender, taken for neutral"].count == 1

    @pytest.mark.parametrize(
        "betas",
        [
            None,
            np.full(16, np.nan),
            np.full(16, 1e300),
            np.zeros((60, 16)),
            np.array("tall"),
            np.zeros(0),
        ],
    )
    def test_betas_of_no_use(self, tmp_path, betas):
        motion, report = read_one(write(tmp_path / "x.npz", smplh_arrays(betas=betas)))
        assert (motion.betas == np.zeros((60, 10))).all()
        assert list(report.ignored) == [
            "betas that are missing, of another shape, NaN or beyond 100"
        ]

    def test_a_clip_without_frames(self, tmp_path):
        path = write(tmp_path / "x.npz", smplx_arrays(frames=0))
        motions, report = read_amass(path, rate_hz=10)
        assert not motions
        assert (report.rows, report.kept) == (0, 0)
        assert report.ignored["clip without frames"].examples == ["the clip"]

    def test_no_translation(self, tmp_path):
        motion, report = read_one(write(tmp_path / "x.npz", smplh_arrays(trans=None)))
        assert motion.transl is None
        assert report.clean

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"poses": np.zeros((5, 60))}, r"poses of shape .* \(T, 156\).*\(5, 60\)"),
            ({"poses": np.zeros((5, 156), int)}, "got .* of int64"),
            ({"poses": np.zeros((5, 23, 3))}, "23 joints without the root"),
            ({"poses": None}, "expected the key poses, or root_orient and pose_body, found betas"),
            ({"trans": np.zeros((5, 3))}, r"trans to be numbers of shape \(60, 3\)"),
        ],
    )
    def test_a_file_that_is_no_clip_is_refused(self, tmp_path, changes, message):
        path = write(tmp_path / "bad.npz", smplh_arrays(**changes))
        with pytest.raises(ValueError, match=message) as caught:
            read_amass(path)
        assert "bad.npz" in str(caught.value)

    def test_missing_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file or folder"):
            read_amass(tmp_path / "nowhere.npz")
        with pytest.raises(FileNotFoundError, match=r"no \.npz file in or below"):
            read_amass(tmp_path)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        write(tmp_path / "CMU/01/01_01_poses.npz", smplh_arrays(seed=1))
        write(tmp_path / "CMU/01/shape.npz", {"betas": np.zeros(16)})
        write(tmp_path / "SFU/0005/walk_stageii.npz", smplx_arrays(seed=2, gender=np.array(b"?")))
        write(tmp_path / "SFU/0005/female_stagei.npz", smplx_arrays(seed=3))
        (tmp_path / "SFU/0005/cut_stageii.npz").write_bytes(b"PK\3\4 and no more")
        write(tmp_path / "SFU/0005/short_stageii.npz", smplx_arrays(frames=0))
        return tmp_path

    def test_every_clip_by_subject(self, folder):
        motions, report = read_amass(folder, rate_hz=10)
        assert [(motion.subject, motion.sequence) for motion in motions] == [
            ("CMU/01", "01_01_poses"),
            ("SFU/0005", "walk_stageii"),
        ]
        # The file that cannot be read is one row: how many frames it has is not known.
        assert (report.rows, report.kept) == (11, 10)
        unreadable = report.left_out["clip that cannot be read"]
        assert unreadable.examples[0].startswith("SFU/0005/cut_stageii.npz: is not an .npz file")
        assert report.ignored["clip without frames"].examples == [
            "SFU/0005/short_stageii.npz: the clip"
        ]
        assert report.ignored["unknown gender, taken for neutral"].count == 1
        assert report.facts == {
            "clips": "4, 2 with a usable frame",
            "subjects": "2",
            "frame rates": "120 Hz (3)",
            "genders": "female (1), neutral (1)",
            "files without motion": "2",
        }

    def test_suffixes_in_capitals(self, folder):
        before, _ = read_amass(folder, rate_hz=10)
        for file in list(folder.rglob("*.npz")):
            file.rename(file.with_suffix(".NPZ"))
        (folder / "folder.npz").mkdir()
        after, report = read_amass(folder, rate_hz=10)
        assert [motion.sequence for motion in after] == [motion.sequence for motion in before]
        assert report.facts["files without motion"] == "2"
        assert holds_clips(folder)

    def test_what_holds_clips(self, folder):
        assert holds_clips(folder)
        assert holds_clips(folder / "CMU/01/01_01_poses.npz")
        assert holds_clips(folder / "SFU/0005/walk_stageii.npz")
        assert not holds_clips(folder / "CMU/01/shape.npz")
        assert not holds_clips(folder / "SFU/0005/female_stagei.npz")
        assert not holds_clips(folder / "SFU/0005/cut_stageii.npz")
        images = write(folder / "other/x.npz", {"poses": np.zeros(1), "betas": 0, "imgname": ["a"]})
        assert not holds_clips(images)
        assert not holds_clips(folder / "other")
        assert not holds_clips(folder)  # something else is below it now
        assert not holds_clips(folder / "nowhere")


def test_orientations_of_any_heading(tmp_path):
    """The up axis of the file becomes y, whatever the pose."""
    arrays = smplh_arrays()
    arrays["poses"][:, :3] = np.random.default_rng(0).normal(size=(60, 3))
    motion, _ = read_one(write(tmp_path / "x.npz", arrays))
    before = rotvec_to_matrix(torch.from_numpy(arrays["poses"][:, :3])).numpy()
    after = rotvec_to_matrix(torch.from_numpy(motion.global_orient)).numpy()
    np.testing.assert_allclose(after[:, 1], before[:, 2], atol=1e-5)
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-5)
