import pickle

import cv2
import numpy as np
import pytest

from examples.data import threedpw
from flowprior.skeleton import BODY_25, COCO_18
from tests.examples.data.made import write_images

FRAMES = 5


def sequence(people=2, frames=FRAMES, seed=0):
    random = np.random.default_rng(seed)
    camera = np.tile(np.eye(4), (frames, 1, 1))
    for frame in range(frames):
        camera[frame, :3, :3] = cv2.Rodrigues(random.normal(size=3))[0]
        camera[frame, :3, 3] = random.uniform((-1, -1, 3), (1, 1, 5))
    poses2d = random.uniform(100, 400, (people, frames, 3, 18))
    poses2d[:, :, 2] = random.uniform(0.2, 1, (people, frames, 18))
    return {
        "sequence": "downtown_cafe_00",
        "poses": [random.normal(0, 0.4, (frames, 72)) for _ in range(people)],
        "betas": [random.normal(size=10) for _ in range(people)],
        "trans": [random.normal(size=(frames, 3)) for _ in range(people)],
        "genders": ["m", "f"][:people],
        "cam_poses": camera,
        "campose_valid": [np.ones(frames, int) for _ in range(people)],
        "poses2d": list(poses2d),
        "jointPositions": [random.normal(size=(frames, 72)) for _ in range(people)],
        "cam_intrinsics": np.array([[1961.8, 0, 540], [0, 1969.2, 960], [0, 0, 1]]),
        "texture_maps": [],
    }


@pytest.fixture
def written(tmp_path):
    def write(content, name="downtown_cafe_00.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
        return tmp_path / name

    return write


def findings(found):
    return {reason: (finding.count, finding.examples[0]) for reason, finding in found.items()}


class TestCleanSequence:
    def test_rows_are_people_in_frames(self, written):
        content = sequence()
        found, report = threedpw.read_sequence(written(content))
        assert report.clean
        assert report.rows == report.kept == len(found.annotations) == 2 * FRAMES
        assert found.name == "downtown_cafe_00"
        assert found.person.tolist() == [0] * FRAMES + [1] * FRAMES
        assert found.frame.tolist() == [*range(FRAMES)] * 2
        assert found.annotations.gender.tolist() == ["male"] * FRAMES + ["female"] * FRAMES
        assert found.annotations.imgname[3] == "imageFiles/downtown_cafe_00/image_00003.jpg"
        np.testing.assert_allclose(found.intrinsics, content["cam_intrinsics"], rtol=1e-6)
        assert report.facts["focal length"] == "1961.8 px"
        np.testing.assert_allclose(
            found.annotations.body_pose[FRAMES:], content["poses"][1][:, 3:], rtol=1e-6
        )
        np.testing.assert_allclose(
            found.annotations.betas, np.repeat(content["betas"], FRAMES, axis=0), rtol=1e-6
        )

    def test_root_and_joints_turn_with_the_camera(self, written):
        content = sequence()
        rows, _ = threedpw.read(written(content))
        for row in range(len(rows)):
            person, frame = divmod(row, FRAMES)
            camera = content["cam_poses"][frame]
            world = cv2.Rodrigues(content["poses"][person][frame, :3])[0]
            root = cv2.Rodrigues(rows.global_orient[row].astype(float))[0]
            np.testing.assert_allclose(root, camera[:3, :3] @ world, atol=1e-5)
            joints = content["jointPositions"][person][frame].reshape(24, 3)
            left_knee = camera @ [*joints[4], 1]
            joint = BODY_25.index("left_knee")
            np.testing.assert_allclose(rows.keypoints_3d[row, joint, :3], left_knee[:3], atol=1e-5)
        annotated = np.flatnonzero(rows.keypoints_3d[0, :, 3])
        assert annotated.tolist() == list(range(1, 15))

    def test_keypoints_of_openpose_find_their_places(self, written):
        content = sequence()
        rows, _ = threedpw.read(written(content))
        for joint, name in enumerate(COCO_18.joint_names):
            np.testing.assert_allclose(
                rows.keypoints_2d[FRAMES:, BODY_25.index(name)],
                content["poses2d"][1][:, :, joint],
                rtol=1e-6,
            )
        assert not rows.keypoints_2d[:, BODY_25.index("mid_hip")].any()
        assert not rows.keypoints_2d[:, 19:].any()

    def test_boxes_lie_around_the_keypoints_that_are_seen(self, written):
        content = sequence()
        content["poses2d"][0][0, 2] = 0
        content["poses2d"][0][0, :, [3, 7]] = [(100, 50, 0.5), (140, 350, 0.5)]
        content["poses2d"][0][0, :, 9] = (900, 900, 0)
        content["poses2d"][0][0, :, 10] = (np.nan, 900, 0)
        rows, report = threedpw.read(written(content))
        np.testing.assert_allclose(rows.center[0], (120, 200))
        np.testing.assert_allclose(rows.box_size[0], 1.2 * 300)
        assert report.clean

    @pytest.mark.parametrize(
        "betas", [np.arange(300.0), np.arange(16.0)[None], np.arange(10.0) + np.zeros((FRAMES, 1))]
    )
    def test_ten_betas_are_taken(self, written, betas):
        rows, _ = threedpw.read(written({**sequence(1), "betas": [betas]}))
        np.testing.assert_array_equal(rows.betas, np.tile(np.arange(10.0), (FRAMES, 1)))

    @pytest.mark.parametrize("key", ["jointPositions", "cam_intrinsics"])
    def test_keys_that_may_be_missing(self, written, key):
        content = sequence()
        del content[key]
        found, report = threedpw.read_sequence(written(content))
        assert report.clean
        assert found.annotations.keypoints_3d.any() == (key != "jointPositions")
        assert (found.intrinsics is None) == (key == "cam_intrinsics")

    def test_people_with_different_numbers_of_frames_are_an_error(self, written):
        content = sequence()
        content["poses"][1] = content["poses"][1][:3]
        with pytest.raises(ValueError, match=r"person 1: expected .* of shape \(N, .*N = 3"):
            threedpw.read(written(content))


class TestFaults:
    def test_frames_that_are_left_out(self, written):
        content = sequence()
        content["campose_valid"][0][[1, 3]] = 0
        content["campose_valid"][1][4] = 0
        content["cam_poses"][1, 0, 0] = np.nan
        content["cam_poses"][2, :3, :3] *= -1
        content["poses2d"][1][0, 2] = 0
        content["poses2d"][1][3] = np.nan
        found, report = threedpw.read_sequence(written(content))
        assert findings(report.left_out) == {
            "camera pose not valid": (3, "frame 1 of person 0"),
            "camera pose is no rotation": (3, "frame 2 of person 0"),
            "no 2D keypoint": (2, "frame 0 of person 1"),
        }
        assert not report.ignored
        assert (report.rows, report.kept) == (10, 2)
        assert found.person.tolist() == [0, 0]
        assert found.frame.tolist() == [0, 4]

    def test_a_single_keypoint_makes_no_box(self, written):
        content = sequence(1)
        content["poses2d"][0][2, 2, 1:] = 0
        found, report = threedpw.read_sequence(written(content))
        assert findings(report.left_out) == {"box of no size": (1, "frame 2 of person 0")}
        assert found.frame.tolist() == [0, 1, 3, 4]

    def test_values_that_are_ignored(self, written):
        content = sequence()
        content["poses"][1][2, 40] = np.nan
        content["poses"][0][1, 0] = np.inf
        content["poses2d"][0][3, 0, 5] = np.nan
        content["jointPositions"][0][0, 3 * 4] = np.nan
        content["genders"][1] = "x"
        content["campose_valid"][0] = np.array([1, 1, 1, 1, 2])
        rows, report = threedpw.read(written(content))
        assert findings(report.ignored) == {
            "campose_valid other than 0 and 1": (1, "frame 4 of person 0"),
            "NaN or infinity in the pose": (2, "frame 1 of person 0"),
            "NaN or infinity in a 2D keypoint": (
                1,
                "frame 3 of person 0, keypoint 5 left_shoulder",
            ),
            "NaN or infinity in a 3D keypoint": (1, "frame 0 of person 0, keypoint 13 left_knee"),
            "unknown gender, taken as neutral": (5, "frame 0 of person 1"),
        }
        assert np.flatnonzero(~rows.has_body_pose).tolist() == [1, 6]
        assert np.isfinite(rows.global_orient).all()

    def test_missing_images(self, written, tmp_path):
        content = sequence()
        names = [f"imageFiles/downtown_cafe_00/image_0000{frame}.jpg" for frame in range(4)]
        write_images(tmp_path, names)
        rows, report = threedpw.read(written(content), images=tmp_path)
        assert findings(report.left_out) == {"image missing": (2, "frame 4 of person 0")}
        assert len(rows) == 8


class TestFiles:
    def test_a_folder_of_sequences(self, written, tmp_path):
        content = sequence(1)
        content["campose_valid"][0][0] = 0
        written(sequence(), "b.pkl")
        written(content, "a.pkl")
        rows, report = threedpw.read(tmp_path)
        assert len(rows) == report.kept == 14
        assert report.rows == 15
        assert report.facts["sequences"] == "2"
        ((reason, (count, place)),) = findings(report.left_out).items()
        assert (reason, count) == ("camera pose not valid", 1)
        assert place.endswith("a.pkl: frame 0 of person 0")
        assert threedpw.matches(tmp_path)
        assert threedpw.inspect(tmp_path).kept == 14

    def test_matches(self, written, tmp_path):
        assert threedpw.matches(written(sequence()))
        assert not threedpw.matches(written({"poses": []}, "other.pkl"))
        (tmp_path / "noise.pkl").write_bytes(b"noise")
        assert not threedpw.matches(tmp_path / "noise.pkl")
        assert not threedpw.matches(tmp_path / "nothing.pkl")
        (tmp_path / "empty").mkdir()
        assert not threedpw.matches(tmp_path / "empty")
        with pytest.raises(FileNotFoundError, match=r"no \.pkl file in the folder"):
            threedpw.read(tmp_path / "empty")

    @pytest.mark.parametrize("key", threedpw.KEYS)
    def test_a_missing_key_is_named(self, written, key):
        content = sequence()
        del content[key]
        with pytest.raises(ValueError, match=f"expected the keys .*{key}.*, found "):
            threedpw.read(written(content))

    def test_something_else(self, written):
        with pytest.raises(ValueError, match="found no keys"):
            threedpw.read(written([1, 2]))

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("cam_poses", np.zeros((FRAMES, 3, 4)), r"cam_poses of shape \(N, 4, 4\)"),
            ("cam_poses", np.zeros((2, 4, 4)), r"cam_poses of shape .*N = 5"),
            ("poses2d", [np.zeros((FRAMES, 18, 3))] * 2, r"poses2d of shape \(N, 3, 18\)"),
            ("poses", [np.zeros((FRAMES, 156))] * 2, r"poses of shape \(N, 72\)"),
            (
                "jointPositions",
                [np.zeros((FRAMES, 24, 3))] * 2,
                r"jointPositions of shape \(N, 72\)",
            ),
            ("betas", [np.zeros(8)] * 2, r"at least 10 betas.*\(8,\)"),
            ("betas", [np.zeros((2, 10))] * 2, r"once or for each of 5 frames"),
            ("betas", [np.zeros(10)], r"betas to have an entry for each of the 2 people"),
            ("campose_valid", 1, r"campose_valid to have an entry for each of the 2 people"),
            ("cam_intrinsics", np.zeros(4), r"cam_intrinsics of shape \(3, 3\)"),
            ("cam_intrinsics", np.diag([4.2, 4.2, 1]), "principal point in pixels"),
            (
                "cam_intrinsics",
                np.array([[4.2, 0, 540], [0, 4.2, 960], [0, 0, 1]]),
                "probably in millimetres",
            ),
            ("cam_intrinsics", np.full((3, 3), np.nan), "expected finite numbers"),
        ],
    )
    def test_a_wrong_shape_is_named(self, written, key, value, message):
        with pytest.raises(ValueError, match=message):
            threedpw.read(written({**sequence(), key: value}))
