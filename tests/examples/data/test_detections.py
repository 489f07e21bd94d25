import json

import numpy as np
import pytest

from examples.data.detections import (
    inspect,
    matches,
    read_coco,
    read_detections,
    read_openpose,
)
from flowprior.skeleton import BODY_25, COCO_17, COCO_18
from tests.conftest import REAL_DATA


def flat(joints=25, seed=0):
    """Keypoints of someone as a list x, y, confidence, x, ..."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(100, 900, (joints, 3))
    values[:, 2] = rng.uniform(0.2, 1, joints)
    return values.round(3).ravel().tolist()


def openpose(*people, key="pose_keypoints_2d"):
    """A file as OpenPose writes it."""
    empty = {"face_keypoints_2d": [], "hand_left_keypoints_2d": [], "pose_keypoints_3d": []}
    entries = [{"person_id": [-1], key: keypoints} | empty for keypoints in people]
    return {"version": 1.3, "people": entries}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def reasons(report):
    return {reason: finding.examples for reason, finding in report.left_out.items()}


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
        assert reasons(report) == {
            "keypoints that are not 75 or 54 numbers": [f"{name} {n}" for n in (4, 5, 6)],
            "COCO-18 among BODY-25": [f"{name} 10"],
            "no keypoint of confidence above 0": [f"{name} 1"],
            "box without extent": [f"{name} 2", f"{name} 3"],
        }
        assert report.left_out["keypoints that are not 75 or 54 numbers"].count == 9
        assert {reason: finding.examples for reason, finding in report.ignored.items()} == {
            "NaN or infinity in a 2D keypoint": [f"{name} 11, keypoint 0 nose"],
            "confidence of a 2D keypoint below 0 or above 1.5": [f"{name} 11, keypoint 1 neck"],
        }
        assert report.rows == 15
        assert report.kept == len(found) == 2
        assert found.person.tolist() == [0, 11]
        assert np.isfinite(found.keypoints_2d).all()

    def test_doubtful_keypoints_are_not_boxed(self, tmp_path):
        keypoints = np.array(flat()).reshape(25, 3)
        keypoints[:, 2] = 0.9
        keypoints[3] = (5000, 5000, 0.1)
        path = write(tmp_path / "x_keypoints.json", openpose(keypoints.ravel().tolist()))
        assert read_openpose(path)[0].box_size[0] > 4000
        found, _ = read_openpose(path, min_conf=0.3)
        assert found.box_size[0] < 1000
        assert found.keypoints_2d[0, 3, 2] == pytest.approx(0.1)
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
        with pytest.raises(FileNotFoundError, match=r"no file \*_keypoints\.json in the folder"):
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


def annotations(**changes):
    """A file of annotations as COCO's person_keypoints_val2017.json."""
    keypoints = np.array(flat(17)).reshape(17, 3)
    keypoints[:, 2] = 2
    keypoints[3] = (0, 0, 0)
    keypoints[4, 2] = 1
    entry = {
        "id": 1,
        "image_id": 139,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 16,
        "keypoints": keypoints.ravel().tolist(),
        "bbox": [100.0, 200.0, 50.0, 300.0],
        "area": 9000.0,
    }
    return {
        "info": {},
        "images": [
            {"id": 139, "file_name": "val/000000000139.jpg", "width": 640, "height": 426},
            {"id": 140, "file_name": "val/000000000140.jpg", "width": 640, "height": 426},
        ],
        "annotations": [entry | changes],
        "categories": [{"id": 1, "name": "person"}],
    }


class TestCoco:
    def test_annotations(self, tmp_path):
        content = annotations()
        content["annotations"].append(content["annotations"][0] | {"id": 2})
        path = write(tmp_path / "person_keypoints.json", content)
        found, report = read_coco(path)
        assert report.clean
        assert (report.kind, report.rows, report.kept) == ("COCO keypoint annotations", 2, 2)
        assert found.skeleton is COCO_17
        assert found.image_names.tolist() == ["val/000000000139.jpg"] * 2
        assert found.person.tolist() == [0, 1]
        assert found.image_dir is None
        conf = found.keypoints_2d[0, :, 2]
        assert conf.tolist() == [1, 1, 1, 0, *[1] * 13]
        assert report.facts == {"images": "1 with people, 2 listed", "keypoints": "COCO-17"}
        expected = np.array(content["annotations"][0]["keypoints"]).reshape(17, 3)[conf > 0, :2]
        assert found.box_size[0] == pytest.approx(1.2 * np.ptp(expected, axis=0).max(), rel=1e-6)

    def test_results(self, tmp_path):
        results = [
            {"image_id": 139, "category_id": 1, "keypoints": flat(17), "score": 0.9},
            {"image_id": "photos/x.png", "category_id": 1, "keypoints": flat(17), "score": 0.1},
        ]
        found, report = read_coco(write(tmp_path / "results.json", results))
        assert report.clean
        assert report.kind == "COCO keypoint results"
        assert found.image_names.tolist() == ["000000000139.jpg", "photos/x.png"]
        np.testing.assert_allclose(
            found.keypoints_2d[0], np.array(flat(17)).reshape(17, 3), rtol=1e-6
        )

    def test_boxes_of_the_file(self, tmp_path):
        path = write(tmp_path / "x.json", annotations())
        found, _ = read_coco(path, boxes="bbox")
        np.testing.assert_allclose(found.center, [[125, 350]])
        np.testing.assert_allclose(found.box_size, [360])
        with pytest.raises(ValueError, match='"keypoints" or "bbox", got \'both\''):
            read_coco(path, boxes="both")

    @pytest.mark.parametrize(
        "bbox", [None, [1, 2, 3], [0, 0, 0, 5], [0, 0, -1, 5], [0, 0, float("nan"), 5], [1e300] * 4]
    )
    def test_boxes_that_are_none(self, tmp_path, bbox):
        path = write(tmp_path / "x.json", annotations(bbox=bbox))
        assert len(read_coco(path)[0]) == 1
        found, report = read_coco(path, boxes="bbox")
        assert len(found) == 0
        assert reasons(report) == {"box without extent": ["entry 0"]}

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"iscrowd": 1}, "crowd"),
            ({"num_keypoints": 0}, "no keypoint labelled"),
            ({"category_id": 18}, "not a person"),
            ({"image_id": 999}, "entry without an image that is known"),
            ({"image_id": None}, "entry without an image that is known"),
            ({"image_id": [139]}, "entry without an image that is known"),
            ({"keypoints": flat(17)[:-1]}, "keypoints that are not 51 numbers"),
            ({"keypoints": None}, "keypoints that are not 51 numbers"),
            ({"keypoints": [0] * 51}, "no keypoint of confidence above 0"),
            ({"keypoints": [1, 1, 2] + [0] * 48}, "box without extent"),
        ],
    )
    def test_faults_of_a_person_are_counted(self, tmp_path, changes, reason):
        found, report = read_coco(write(tmp_path / "x.json", annotations(**changes)))
        assert len(found) == report.kept == 0
        assert report.rows == 1
        assert reasons(report) == {reason: ["entry 0"]}

    def test_faults_of_keypoints_are_counted(self, tmp_path):
        content = annotations()
        keypoints = content["annotations"][0]["keypoints"]
        keypoints[0], keypoints[5], keypoints[6] = float("inf"), -1, 1e9
        found, report = read_coco(write(tmp_path / "x.json", content))
        assert {reason: finding.examples for reason, finding in report.ignored.items()} == {
            "NaN or infinity in a 2D keypoint": ["entry 0, keypoint 0 nose"],
            "2D keypoint beyond 100000 pixels": ["entry 0, keypoint 2 right_eye"],
            "confidence of a 2D keypoint below 0 or above 1.5": ["entry 0, keypoint 1 left_eye"],
        }
        assert found.keypoints_2d[0, :, 2].tolist() == [0] * 4 + [1] * 13

    def test_entries_that_are_no_objects(self, tmp_path):
        content = annotations()
        content["annotations"] = [3, None, *content["annotations"]]
        content["images"] += [3, {"id": 5}, {"file_name": "x"}, {"id": {}, "file_name": "x"}]
        found, report = read_coco(write(tmp_path / "x.json", content))
        assert len(found) == 1
        assert report.left_out["entry without an image that is known"].count == 2

    def test_missing_images(self, tmp_path):
        path = write(tmp_path / "x.json", annotations())
        (tmp_path / "images/val").mkdir(parents=True)
        found, report = read_coco(path, tmp_path / "images")
        assert reasons(report) == {"missing image": ["entry 0"]}
        (tmp_path / "images/val/000000000139.jpg").touch()
        found, report = read_coco(path, tmp_path / "images")
        assert report.clean
        assert (found.image_dir / found.image_names[0]).is_file()
        with pytest.raises(FileNotFoundError, match="no folder of images"):
            read_coco(path, tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "content",
        [
            [],
            {},
            [{"image_id": 1, "bbox": [0, 0, 1, 1]}],
            {"annotations": [{"keypoints": []}]},
            {"images": [], "annotations": [{"segmentation": []}]},
            openpose(flat()),
        ],
    )
    def test_files_of_something_else(self, tmp_path, content):
        path = write(tmp_path / "x.json", content)
        with pytest.raises(ValueError, match="expected an object with images and annotations"):
            read_coco(path)


def test_matches_and_inspect(tmp_path):
    one = write(tmp_path / "op/a_keypoints.json", openpose(flat()))
    coco = write(tmp_path / "coco/person.json", annotations())
    results = write(tmp_path / "coco/results.json", [{"image_id": 1, "keypoints": flat(17)}])
    for path, kind in (
        (one, "OpenPose detections"),
        (one.parent, "OpenPose detections"),
        (coco, "COCO keypoint annotations"),
        (results, "COCO keypoint results"),
    ):
        assert matches(path)
        report = inspect(path)
        assert report.clean
        assert (report.kind, report.kept) == (kind, 1)
    write(one.parent / "0_keypoints.json", "{")
    assert matches(one.parent)
    assert not matches(tmp_path)
    write(tmp_path / "other/coco_keypoints.json", annotations())
    damaged = write(tmp_path / "other/damaged.json", "{")
    config = write(tmp_path / "other/config.json", {"a": 1})
    text = write(tmp_path / "other/people.txt", openpose(flat()))
    for path in (damaged, config, text, tmp_path / "other", coco.parent, tmp_path / "nowhere.json"):
        assert not matches(path)
