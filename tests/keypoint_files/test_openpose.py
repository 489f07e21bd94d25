import numpy as np
import pytest

from flowprior.files.report import Report
from flowprior.keypoint_files.detections import (
    matches,
    read_detections,
)
from flowprior.keypoint_files.openpose import read_openpose
from flowprior.skeleton import BODY_25, BODY_25B, BODY_67, COCO_18, shared_joints
from tests.conftest import REAL_DATA
from tests.keypoint_files.written import flat, openpose, person, reasons, write


class TestOpenPose:
    def test_several_people_in_one_file(self, tmp_path):
        path = write(tmp_path / "street_keypoints.json", openpose(flat(seed=1), flat(seed=2)))
        found, report = read_openpose(path)
        assert report.clean
        assert (report.rows, report.kept, len(found)) == (2, 2, 2)
        assert found.skeleton is BODY_25
        assert found.image_names.tolist() == ["street", "street"]
        assert found.person.tolist() == [0, 1]
        assert found.image_dir is None
        expected = np.array(flat(seed=2)).reshape(25, 3)
        np.testing.assert_allclose(found.keypoints_2d[1], expected, rtol=1e-6)
        low, high = expected[:, :2].min(axis=0), expected[:, :2].max(axis=0)
        np.testing.assert_allclose(found.center[1], (low + high) / 2, rtol=1e-6)
        assert found.box_size[1] == pytest.approx(1.2 * (high - low).max())
        assert found.prohmr_44.shape == (2, 44, 3)

    @pytest.mark.parametrize("key", ["pose_keypoints_2d", "pose_keypoints"])
    def test_the_model_of_eighteen_and_the_older_key(self, tmp_path, key):
        path = write(tmp_path / "x_keypoints.json", openpose(flat(18), key=key))
        found, report = read_openpose(path)
        assert found.skeleton is COCO_18
        assert report.facts["keypoints"] == "COCO-18"

    def test_a_folder_beside_its_images(self, tmp_path):
        for name in ("a.jpg", "b.PNG", "unseen.jpg", "notes.txt"):
            (tmp_path / name).touch()
        write(tmp_path / "b_keypoints.json", openpose(flat(seed=1)))
        write(tmp_path / "a_keypoints.json", openpose(flat(seed=2), flat(seed=3)))
        write(tmp_path / "gone_keypoints.json", openpose(flat(seed=4)))
        found, report = read_openpose(tmp_path)
        assert found.image_names.tolist() == ["a.jpg", "a.jpg", "b.PNG"]
        assert found.image_dir == tmp_path
        assert reasons(report) == {"missing image": ["gone_keypoints.json, person 0"]}
        assert (report.rows, report.kept) == (4, 3)
        assert report.facts == {
            "files": "3, 0 without a person",
            "images": str(tmp_path),
            "images without detections": "1",
            "keypoints": "BODY-25",
        }

    def test_folders_of_keypoints_and_images_side_by_side(self, tmp_path):
        write(tmp_path / "keypoints/a_keypoints.json", openpose(flat()))
        (tmp_path / "images").mkdir()
        (tmp_path / "images/a.jpg").touch()
        for path in (tmp_path, tmp_path / "keypoints", tmp_path / "keypoints/a_keypoints.json"):
            found, report = read_openpose(path)
            assert report.clean
            assert (found.image_dir / found.image_names[0]).resolve() == tmp_path / "images/a.jpg"

    def test_images_in_a_given_folder(self, tmp_path):
        path = write(tmp_path / "a_keypoints.json", openpose(flat()))
        (tmp_path / "photos").mkdir()
        found, report = read_openpose(path, tmp_path / "photos")
        assert reasons(report) == {"missing image": ["a_keypoints.json, person 0"]}
        assert len(found) == 0
        (tmp_path / "photos/a.jpeg").touch()
        assert read_openpose(path, tmp_path / "photos")[0].image_names.tolist() == ["a.jpeg"]
        with pytest.raises(FileNotFoundError, match=r"no folder of images: .*nowhere"):
            read_openpose(path, tmp_path / "nowhere")

    def test_an_image_without_anyone(self, tmp_path):
        write(tmp_path / "a_keypoints.json", openpose())
        write(tmp_path / "b_keypoints.json", openpose(flat()))
        found, report = read_openpose(tmp_path)
        assert report.clean
        assert found.image_names.tolist() == ["b"]
        assert report.facts["files"] == "2, 1 without a person"
        nobody, report = read_openpose(tmp_path / "a_keypoints.json")
        assert len(nobody) == report.rows == 0
        assert nobody.keypoints_2d.shape == (0, 25, 3)
        assert nobody.center.shape == (0, 2)

    def test_every_fault_of_a_person_is_counted(self, tmp_path):
        unseen = [0.0] * 75
        one = [0.0] * 72 + [5.0, 6.0, 0.9]
        same = [5.0, 6.0, 0.9] * 25
        damaged = flat(seed=2)
        damaged[0], damaged[5] = float("nan"), -0.5
        people = [
            flat(),
            unseen,
            one,
            same,
            flat()[:-1],
            [],
            [*flat()[:-1], "0.5"],
            [*flat()[:-1], None],
            [*flat()[:-1], True],
            [*flat()[:-1], 10**400],
            flat(18),
            damaged,
        ]
        content = openpose(*people)
        content["people"] += [{"person_id": [-1]}, 3, {"pose_keypoints_2d": {"x": 1}}]
        found, report = read_openpose(write(tmp_path / "x_keypoints.json", content))
        name = "x_keypoints.json, person"
        known = "51, 54, 75, 78, 201, 210, 399, 408"
        assert reasons(report) == {
            f"74 numbers, which is no known joint set ({known})": [f"{name} 4"],
            "no keypoints": [f"{name} 5", f"{name} 12"],
            "keypoints that are not numbers": [f"{name} {n}" for n in (6, 7, 8)],
            "COCO-18 among BODY-25": [f"{name} 10"],
            "entry that is no object": [f"{name} 13"],
            "keypoints without columns x, y and visible of one length": [f"{name} 14"],
            "no keypoint of confidence above 0.1": [f"{name} 1"],
            "box without extent": [f"{name} 2", f"{name} 3"],
        }
        assert report.left_out["keypoints that are not numbers"].count == 4
        assert sum(finding.count for finding in report.left_out.values()) == 13
        assert {reason: finding.examples for reason, finding in report.ignored.items()} == {
            "NaN or infinity in a 2D keypoint": [f"{name} 11, keypoint 0 nose"],
            "confidence of a 2D keypoint below 0 or above 1.5": [f"{name} 11, keypoint 1 neck"],
        }
        assert report.rows == 15
        assert report.kept == len(found) == 2
        assert found.person.tolist() == [0, 11]
        assert np.isfinite(found.keypoints_2d).all()

    def test_doubtful_keypoints_are_not_boxed(self, tmp_path):
        keypoints = person()
        keypoints[:, 2] = 0.9
        keypoints[3] = (5000, 5000, 0.1)  # at the threshold
        keypoints[4] = (0, 0, 0.0012)
        path = write(tmp_path / "x_keypoints.json", openpose(keypoints.ravel().tolist()))
        found, report = read_openpose(path)
        assert report.clean
        seen = np.delete(keypoints, (3, 4), axis=0)[:, :2]
        assert found.box_size[0] == pytest.approx(1.2 * np.ptp(seen, axis=0).max(), rel=1e-5)
        assert found.keypoints_2d[0, 3, 2] == pytest.approx(0.1)
        assert read_openpose(path, min_conf=0)[0].box_size[0] > 4000
        assert len(read_openpose(path, min_conf=0.95)[0]) == 0

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "not JSON, or damaged"),
            ("", "not JSON, or damaged"),
            (b"\xff\xfe\x00", "not JSON, or damaged"),
            ("[" * 100_000, "not JSON, or damaged"),
            ({"version": 1.3}, "expected an object with people, found an object with version"),
            ({"people": 3}, "expected an object with people"),
            ([1, 2], "found a list of 2"),
            ("3", "found int"),
        ],
    )
    def test_a_file_of_something_else(self, tmp_path, content, message):
        path = tmp_path / "bad_keypoints.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write(path, content)
        with pytest.raises(ValueError, match=message) as caught:
            read_openpose(path)
        assert str(path) in str(caught.value)
        with pytest.raises(ValueError, match=message):
            read_openpose(tmp_path)
        write(tmp_path / "good_keypoints.json", openpose(flat()))
        found, report = read_openpose(tmp_path)
        assert len(found) == 1
        (example,) = report.left_out["file that cannot be read"].examples
        assert example.startswith("bad_keypoints.json: ")
        assert str(tmp_path) not in example

    def test_missing_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file or folder"):
            read_openpose(tmp_path / "nowhere.json")
        with pytest.raises(
            FileNotFoundError, match=r"no file \*_keypoints\.json or other JSON in the folder"
        ):
            read_openpose(tmp_path)

    def test_a_real_detection(self):
        path = REAL_DATA / "openpose_person.json"
        if not path.exists():
            pytest.skip(
                "no real detection beside the repository: ../shared/data/openpose_person.json"
            )
        found, report = read_detections(path)
        assert report.clean
        assert found.image_names.tolist() == ["openpose_person.jpg"]
        assert (found.image_dir / found.image_names[0]).is_file()
        keypoints = found.keypoints_2d[0]
        assert np.flatnonzero(keypoints[:, 2] == 0).tolist() == [BODY_25.index("right_eye")]
        nose, heel = keypoints[BODY_25.index("nose")], keypoints[BODY_25.index("right_heel")]
        np.testing.assert_allclose(nose, [1811.64, 3114.26, 0.120928], rtol=1e-6)
        assert heel[1] > nose[1] + 2000
        # From the top of the left eye to the left small toe.
        assert found.box_size[0] == pytest.approx(1.2 * (5523.06 - 2991.3), rel=1e-5)


def body_25b():
    """The person in the order of BODY_25B."""
    points = dict(zip(BODY_25.joint_names, person(25).tolist(), strict=True))
    points |= {"upper_neck": points["neck"], "head_top": points["nose"]}
    return [number for name in BODY_25B.joint_names for number in points[name]]


class TestImplausibleLimbs:
    def test_body_25b_read_as_body_25(self, tmp_path):
        path = write(tmp_path / "x_keypoints.json", openpose(body_25b(), body_25b()))
        found, report = read_openpose(path)
        assert (len(found), report.clean) == (2, False)
        ((reason, finding),) = report.warnings.items()
        assert reason.startswith("limbs implausible for BODY-25: are the keypoints in another")
        assert reason.endswith('They fit BODY-25B, which skeleton="BODY-25B" reads')
        assert finding.count == 2
        assert "  warning: 2 people, limbs implausible" in str(report)
        found, report = read_openpose(path, skeleton="BODY-25B")
        assert report.clean
        np.testing.assert_allclose(
            found.prohmr_44[0, :25, :2][found.prohmr_44[0, :25, 2] > 0],
            np.delete(person(25), (1, 8), axis=0)[:, :2],
            rtol=1e-6,
        )

    @pytest.mark.parametrize("joints", [17, 18, 25])
    @pytest.mark.parametrize("seed", range(4))
    def test_people_in_order_and_people_half_seen(self, tmp_path, joints, seed):
        half = person(joints, seed)
        half[::2, 2] = 0
        stooped = person(joints, seed)
        stooped[:, 1] = 300 + 0.3 * stooped[:, 1]
        people = [values.ravel().tolist() for values in (person(joints, seed), half, stooped)]
        _, report = read_openpose(write(tmp_path / "x_keypoints.json", openpose(*people)))
        assert report.clean

    def test_warnings_of_several_files_add_up(self, tmp_path):
        path = write(tmp_path / "x_keypoints.json", openpose(body_25b()))
        total = Report("all", "people")
        for _ in range(2):
            total.absorb(read_openpose(path)[1])
        assert [finding.count for finding in total.warnings.values()] == [2]


class TestFolders:
    @pytest.mark.parametrize(
        "name", ["frame_{:05d}.json", "cam01.{:04d}.json", "{:012d}_pose.json"]
    )
    def test_other_file_names_are_one_set_with_one_report(self, tmp_path, name):
        folder = tmp_path / "cam"
        for number in range(7):
            write(folder / name.format(number), openpose(flat(seed=number)))
            (folder / name.format(number).replace(".json", ".png")).touch()
        assert matches(folder)
        found, report = read_detections(folder)
        assert (report.rows, len(found), report.clean) == (7, 7, True)
        assert found.image_names[3] == name.format(3).replace(".json", ".png")

    def test_a_damaged_file_among_other_names(self, tmp_path):
        for number in range(3):
            write(tmp_path / f"{number}.json", openpose(flat(seed=number)) if number else "{")
        assert matches(tmp_path)
        _, report = read_detections(tmp_path)
        assert (report.rows, report.kept) == (3, 2)
        assert list(report.left_out) == ["file that cannot be read"]

    def test_openpose_names_come_first(self, tmp_path):
        write(tmp_path / "a_keypoints.json", openpose(flat()))
        write(tmp_path / "calibration.json", {"cameras": []})
        found, report = read_openpose(tmp_path)
        assert (len(found), report.clean) == (1, True)

    def test_folders_of_several_kinds_are_none(self, tmp_path):
        write(tmp_path / "people.json", openpose(flat()))
        write(tmp_path / "results.json", [{"image_id": 1, "keypoints": flat(17)}])
        assert not matches(tmp_path)
        (tmp_path / "results.json").unlink()
        assert matches(tmp_path)
        np.savez(tmp_path / "poses.npz", a=1)
        assert not matches(tmp_path)


class TestHands:
    HAND = np.column_stack([np.linspace(100, 160, 21), np.full(21, 80.0), np.full(21, 0.5)])

    def file(self, tmp_path, *people):
        return write(tmp_path / "x_keypoints.json", {"people": list(people)})

    def test_hands_follow_the_body(self, tmp_path):
        entry = {
            "pose_keypoints_2d": flat(seed=1),
            "hand_left_keypoints_2d": [],
            "hand_right_keypoints_2d": self.HAND.ravel().tolist(),
        }
        path = self.file(tmp_path, entry)
        for skeleton in (None, "BODY-67"):
            found, report = read_openpose(path, skeleton=skeleton)
            assert report.clean
            assert found.skeleton is BODY_67
            np.testing.assert_allclose(found.keypoints_2d[0, 46:], self.HAND, rtol=1e-6)
            assert not found.keypoints_2d[0, 25:46].any()
        plain, _ = read_openpose(path, hands=False)
        assert plain.skeleton is BODY_25
        np.testing.assert_array_equal(plain.keypoints_2d[0], found.keypoints_2d[0, :25])
        # The wrist of the body stays, though the root of the hand means the same joint.
        np.testing.assert_array_equal(plain.prohmr_44, found.prohmr_44)

    @pytest.mark.parametrize("joints", [17, 18, 25])
    def test_bodies_are_mapped_by_name(self, tmp_path, joints):
        hand = self.HAND.ravel().tolist()
        entry = {"pose_keypoints_2d": flat(joints), "hand_left_keypoints_2d": hand}
        found, _ = read_openpose(self.file(tmp_path, entry))
        assert found.skeleton is BODY_67
        np.testing.assert_allclose(found.keypoints_2d[0, 25:46], self.HAND, rtol=1e-6)
        plain, _ = read_openpose(tmp_path, hands=False)
        source, target = shared_joints(plain.skeleton, BODY_25)
        np.testing.assert_array_equal(
            found.keypoints_2d[0, list(target)], plain.keypoints_2d[0, list(source)]
        )

    def test_the_order_of_body_25b_is_noticed(self, tmp_path):
        places = dict(zip(BODY_25.joint_names, person(25), strict=True))
        top = places["nose"] - [0, 20, 0]
        rows = [places.get(name, top) for name in BODY_25B.joint_names]
        entry = {
            "pose_keypoints_2d": np.ravel(rows).tolist(),
            "hand_left_keypoints_2d": self.HAND.ravel().tolist(),
        }
        path = self.file(tmp_path, entry)
        _, report = read_openpose(path)
        assert [each.endswith('skeleton="BODY-25B" reads') for each in report.warnings] == [True]
        found, report = read_openpose(path, skeleton="BODY-25B")
        assert report.clean
        assert found.skeleton is BODY_67
        knee = BODY_67.index("left_knee")
        np.testing.assert_allclose(found.keypoints_2d[0, knee], places["left_knee"], rtol=1e-6)

    @pytest.mark.parametrize("order", [1, -1])
    def test_people_without_hands_stay_among_people_with_hands(self, tmp_path, order):
        hand = self.HAND.ravel().tolist()
        people = [
            {"pose_keypoints_2d": flat(seed=1), "hand_left_keypoints_2d": hand},
            {"pose_keypoints_2d": flat(seed=2), "hand_left_keypoints_2d": []},
        ][::order]
        found, report = read_openpose(self.file(tmp_path, *people))
        assert report.clean
        assert found.skeleton is BODY_67
        assert found.keypoints_2d[:, 25:46].any(axis=(1, 2)).tolist() == [True, False][::order]
        seeds = [person(25, seed) for seed in (1, 2)][::order]
        np.testing.assert_allclose(found.keypoints_2d[:, :25], seeds, rtol=1e-6)

    def test_a_damaged_hand_is_reported(self, tmp_path):
        entry = {"pose_keypoints_2d": flat(seed=1), "hand_left_keypoints_2d": [1.0, 2.0]}
        good = {"pose_keypoints_2d": flat(seed=2), "hand_left_keypoints_2d": []}
        found, report = read_openpose(self.file(tmp_path, entry, good))
        assert len(found) == 1
        assert "hand without 21 keypoints and their confidences" in reasons(report)
