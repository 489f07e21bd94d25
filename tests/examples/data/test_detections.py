import json

import numpy as np
import pytest

from examples.data.coco import read_coco
from examples.data.detections import (
    inspect,
    matches,
    read_detections,
)
from examples.data.openpose import read_openpose
from examples.data.registry import survey
from examples.data.report import Report
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import BODY_25, BODY_25B, COCO_17, COCO_18
from tests.conftest import REAL_DATA


def person(joints=25, seed=0):
    """Keypoints (J, 3) of someone in the order of OpenPose or COCO, facing the camera."""
    skeleton = {25: BODY_25, 18: COCO_18, 17: COCO_17}[joints]
    coco = dict(zip(COCO_17.joint_names, example_keypoints()[:, :2].double().numpy(), strict=True))
    coco["neck"] = (coco["left_shoulder"] + coco["right_shoulder"]) / 2
    coco["mid_hip"] = (coco["left_hip"] + coco["right_hip"]) / 2
    for side, outward in (("left", 8), ("right", -8)):
        for name, step in (("big_toe", (1, 2)), ("small_toe", (2, 1)), ("heel", (-1, 1))):
            coco[f"{side}_{name}"] = coco[f"{side}_ankle"] + outward * np.array(step)
    rng = np.random.default_rng(seed)
    places = rng.uniform(1, 2) * np.array([coco[name] for name in skeleton.joint_names])
    conf = rng.uniform(0.2, 1, (joints, 1))
    return np.concatenate([places + rng.uniform(0, 300, 2), conf], axis=1).round(3)


def flat(joints=25, seed=0):
    """Keypoints of someone as a list x, y, confidence, x, ..."""
    return person(joints, seed).ravel().tolist()


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
            "74 numbers, which is no known joint set (51, 54, 75, 78, 399, 408)": [f"{name} 4"],
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
            ({"keypoints": flat(17)[:-1]}, "25 keypoints without confidences"),
            ({"keypoints": [1.0] * 34}, "17 keypoints without confidences"),
            ({"keypoints": [[1.0, 2.0]] * 17}, "17 keypoints without confidences"),
            ({"keypoints": [[1.0, 2.0, 1], [3.0]]}, "keypoints that are not numbers"),
            ({"keypoints": None}, "no keypoints"),
            (
                {"keypoints": [1, 1, 2] * 16},
                "48 numbers, which is no known joint set (51, 54, 75, 78, 399, 408)",
            ),
            ({"keypoints": [0] * 51}, "no keypoint of confidence above 0.1"),
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
        with pytest.raises(ValueError, match="an object with images and annotations that have"):
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


LEFT_WRIST, RIGHT_WRIST = COCO_17.index("left_wrist"), COCO_17.index("right_wrist")
LIMBS = [f"{side}_{joint}" for side in ("left", "right")
         for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")]  # fmt: skip


def coco_of(names, category=None, people=1):
    """Annotations of people whose keypoints have names, each keypoint of COCO at its place."""
    placed = dict(zip(COCO_17.joint_names, person(17).tolist(), strict=True))
    keypoints = []
    for number, name in enumerate(names):
        x, y, _ = placed.get(name[1], (300 + number, 300, 1))
        keypoints += [x, y, 2]
    entry = {"image_id": 1, "category_id": 1, "keypoints": keypoints}
    listed = {"id": 1, "name": "person", "keypoints": [name for name, _ in names]}
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [entry] * people,
        "categories": [listed | (category or {})],
    }


def plain(*names):
    return [(name, name) for name in names]


MPII = [
    *plain("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *plain("pelvis", "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow"),
    *plain("right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
]
POSETRACK = [
    *plain("nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder"),
    *plain("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *plain("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
]
H36M = [
    *plain("root", "right_hip", "right_knee"), ("right_foot", "right_ankle"),
    *plain("left_hip", "left_knee"), ("left_foot", "left_ankle"),
    *plain("spine", "thorax", "neck_base", "head", "left_shoulder", "left_elbow", "left_wrist"),
    *plain("right_shoulder", "right_elbow", "right_wrist"),
]  # fmt: skip
CAPITALS = [
    ("".join(word.capitalize() for word in name.replace("left", "l").split("_")), name)
    for name in reversed(LIMBS)
]
ANIMAL = plain(
    "L_Eye", "R_Eye", "Nose", "Neck", "Root of tail", "L_Shoulder", "L_Elbow", "L_F_Paw",
    "R_Shoulder", "R_Elbow", "R_F_Paw", "L_Hip", "L_Knee", "L_B_Paw", "R_Hip", "R_Knee", "R_B_Paw",
)  # fmt: skip


class TestJointSetsByName:
    @pytest.mark.parametrize("names", [MPII, POSETRACK, H36M, CAPITALS], ids=len)
    def test_other_sets_are_mapped_to_coco(self, tmp_path, names):
        found, report = read_coco(write(tmp_path / "x.json", coco_of(names)))
        assert report.clean
        assert found.skeleton is COCO_17
        for joint, name in enumerate(COCO_17.joint_names):
            x, y, conf = found.keypoints_2d[0, joint]
            assert conf == (name in {meaning for _, meaning in names})
            if conf:
                np.testing.assert_allclose((x, y), person(17)[joint, :2], rtol=1e-6)
        assert found.keypoints_2d[0, LEFT_WRIST, 0] > found.keypoints_2d[0, RIGHT_WRIST, 0]

    def test_coco_under_its_own_names_stays_as_it_is(self, tmp_path):
        content = coco_of(plain(*COCO_17.joint_names))
        found, _ = read_coco(write(tmp_path / "x.json", content))
        np.testing.assert_allclose(found.keypoints_2d[0, :, :2], person(17)[:, :2], rtol=1e-6)

    @pytest.mark.parametrize("names", [ANIMAL, plain(*COCO_17.joint_names)], ids=["paws", "coco"])
    def test_animals_are_left_out(self, tmp_path, names):
        content = coco_of(names, {"name": "antelope", "supercategory": "Bovidae"}, people=3)
        found, report = read_coco(write(tmp_path / "x.json", content))
        assert (len(found), report.rows) == (0, 3)
        assert report.left_out["not a person but antelope"].count == 3

    def test_names_that_are_no_body(self, tmp_path):
        names = plain(*(f"finger {number}" for number in range(17)))
        _, report = read_coco(write(tmp_path / "x.json", coco_of(names)))
        reason = "joint set that is not a person's (finger 0, finger 1, finger 2, ...)"
        assert reasons(report) == {reason: ["entry 0"]}

    def test_another_number_of_names(self, tmp_path):
        content = coco_of(MPII)
        content["annotations"][0]["keypoints"] += [1, 1, 2]
        _, report = read_coco(write(tmp_path / "x.json", content))
        assert reasons(report) == {"17 keypoints, but 16 names": ["entry 0"]}

    @pytest.mark.parametrize("count", [26, 133, 136])
    def test_sets_that_begin_with_coco(self, tmp_path, count):
        more = [500.0, 500.0, 0.9] * (count - 17)
        results = write(tmp_path / "x.json", [{"image_id": 1, "keypoints": flat(17) + more}])
        folder = write(tmp_path / "folder/1.json", openpose(flat(17) + more)).parent
        for path in (results, folder):
            found, report = read_detections(path)
            assert report.clean
            assert found.skeleton is COCO_17
            np.testing.assert_allclose(found.keypoints_2d[0], person(17), rtol=1e-6)

    def test_a_set_of_the_user(self, tmp_path):
        path = write(tmp_path / "x_keypoints.json", openpose(flat(25)))
        assert read_detections(path)[1].clean
        for skeleton in (BODY_25B, "BODY-25B", "body_25b"):
            found, report = read_detections(path, skeleton=skeleton)
            assert found.skeleton is BODY_25B
            ((warning, _),) = report.warnings.items()
            assert warning.endswith('They fit BODY-25, which skeleton="BODY-25" reads')
        with pytest.raises(ValueError, match="no joint set 'BODY-26'; known sets: SMPL-24"):
            read_detections(path, skeleton="BODY-26")
        _, report = read_openpose(path, skeleton=COCO_18)
        assert list(report.left_out) == ["25 keypoints, not 18 of COCO-18"]


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
        for given in (folder, tmp_path):
            surveyed = survey([given])
            assert [report.rows for report in surveyed.reports] == [7]
            assert str(surveyed).count("OpenPose detections") == 1

    def test_a_damaged_file_among_other_names(self, tmp_path):
        for number in range(3):
            write(tmp_path / f"{number}.json", openpose(flat(seed=number)) if number else "{")
        assert matches(tmp_path)
        (report,) = survey([tmp_path]).reports
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
        assert len(survey([tmp_path]).reports) == 2
        (tmp_path / "results.json").unlink()
        assert matches(tmp_path)
        np.savez(tmp_path / "poses.npz", a=1)
        assert not matches(tmp_path)


NESTED = person(17).tolist()
SCORES = [score for *_, score in NESTED]
PLACES = [place for *place, _ in NESTED]


class TestOtherDetectors:
    @pytest.mark.parametrize(
        ("content", "image"),
        [
            ([{"image_id": 7, "category_id": 0, "keypoints": NESTED}], "000000000007.jpg"),
            ([{"image_id": 7, "category_id": 1, "keypoints": [NESTED]}], "000000000007.jpg"),
            ([{"image_name": "a.jpg", "category_id": 1, "keypoints": flat(17)}], "a.jpg"),
            ([{"keypoints": PLACES, "keypoint_scores": SCORES, "bbox": [[1, 2, 3, 4]]}], "k"),
            ([{"frame_id": 3, "instances": [{"keypoints": NESTED}]}], "k"),
            ({"meta_info": {}, "instance_info": [{"keypoints": NESTED}]}, "k"),
            (
                {"meta_info": {}, "instance_info": [{"frame_id": 1, "instances": []},
                 {"frame_id": 2, "instances": [{"keypoints": NESTED}]}]},
                "k_000002",
            ),
            (
                {"images": [{"id": "1", "file_name": "a.jpg"}],
                 "annotations": [{"image_id": 1, "category_id": 1, "keypoints": flat(17)}]},
                "a.jpg",
            ),
            (
                [{"name": "person", "class": 0, "keypoints": {"x": [x for x, _ in PLACES],
                 "y": [y for _, y in PLACES], "visible": SCORES}}],
                "k",
            ),
            ({"people": [{"names": list(COCO_17.joint_names), "keypoints_2d": NESTED}]}, "k"),
        ],
        ids=["yolo", "nested", "image_name", "inferencer", "frames", "instances", "video",
             "text ids", "ultralytics", "names"],
    )  # fmt: skip
    def test_what_can_be_read(self, tmp_path, content, image):
        path = write(tmp_path / "k.json", content)
        assert matches(path)
        found, report = read_detections(path)
        assert report.clean
        assert (report.rows, found.image_names.tolist()) == (1, [image])
        assert found.skeleton is COCO_17
        np.testing.assert_allclose(found.keypoints_2d[0], person(17), rtol=1e-6)

    def test_rtpose(self, tmp_path):
        content = {"version": 0.1, "bodies": [{"joints": flat(18)}]}
        found, report = read_detections(write(tmp_path / "a.json", content))
        assert report.clean
        assert found.skeleton is COCO_18

    @pytest.mark.parametrize(
        "content",
        [
            {"version": 1.3, "people": None},
            {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []},
            {"meta_info": {}, "instance_info": []},
            [{"frame_id": 0, "instances": []}],
        ],
        ids=["openpose", "coco", "mmpose", "frames"],
    )
    def test_nobody(self, tmp_path, content):
        path = write(tmp_path / "k.json", content)
        assert matches(path)
        found, report = read_detections(path)
        assert (len(found), report.rows, report.clean) == (0, 0, True)

    @pytest.mark.parametrize(
        ("entry", "reason"),
        [
            ({"category_id": 16, "name": "dog"}, "not a person but dog"),
            ({"category_id": 1, "name": None}, "not a person"),  # YOLO counts from 0
            ({"keypoints": [1.0] * 36}, "18 keypoints without confidences"),
            ({"keypoints": {"x": [1], "y": []}}, "keypoints without columns x, y and visible of "
             "one length"),
            ({"keypoints": "none"}, "keypoints that are not numbers"),
            ({"image_id": None}, "entry without an image that is known"),
            ({"image_id": True}, "entry without an image that is known"),
        ],
    )  # fmt: skip
    def test_nobody_is_dropped_silently(self, tmp_path, entry, reason):
        good = {"image_id": 1, "category_id": 0, "keypoints": NESTED}
        found, report = read_detections(write(tmp_path / "k.json", [good, good | entry, 3]))
        assert report.rows == 3
        assert len(found) == 1
        assert report.left_out.keys() == {reason, "entry without an image that is known"}
        assert sum(finding.count for finding in report.left_out.values()) == 2

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ([{"bbox": [1, 2, 3, 4], "score": 1}], "a list of 1 objects with bbox, score"),
            ({f"k{number:02d}": 0 for number in range(50)}, "k06, k07, ...$"),
            ({"shapes": [], "imagePath": "a.jpg"}, "an object with imagePath, shapes"),
            ([[1, 2]], "a list of 1"),
        ],
    )
    def test_other_files_are_described(self, tmp_path, content, found):
        path = write(tmp_path / "k.json", content)
        assert not matches(path)
        with pytest.raises(ValueError, match=found) as caught:
            read_detections(path)
        assert str(path) in str(caught.value)

    def test_images_of_results_by_their_stem(self, tmp_path):
        for name in ("bus.png", "7.jpg", "000000000008.jpg"):
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / name).touch()
        ids = ("bus", 7, 8, "gone")
        results = [{"image_id": number, "keypoints": flat(17)} for number in ids]
        path = write(tmp_path / "k.json", results)
        found, report = read_detections(path, tmp_path / "images")
        assert found.image_names.tolist() == ["bus.png", "7.jpg", "000000000008.jpg"]
        assert reasons(report) == {"missing image": ["entry 3"]}


class TestUnits:
    @pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-0.5, 0.5)])
    def test_normalised_coordinates(self, tmp_path, low, high):
        scaled = person(25)
        scaled[:, :2] = low + (high - low) * scaled[:, :2] / 1500
        coco = scaled[:17].ravel().tolist()
        paths = [
            write(tmp_path / "op/a_keypoints.json", openpose(scaled.ravel().tolist())),
            tmp_path / "op",
            write(tmp_path / "coco.json", annotations(keypoints=coco)),
            write(tmp_path / "results.json", [{"image_id": 1, "keypoints": coco}]),
        ]
        for path in paths:
            with pytest.raises(ValueError, match="as normalised ones do, but pixels") as caught:
                read_detections(path)
            assert str(path) in str(caught.value)
            assert "pixel_keypoints" in str(caught.value)
            assert survey([path]).exit_code == 2

    def test_scores_that_are_no_probabilities(self, tmp_path):
        scores = person(17)
        scores[:, 2] = np.linspace(0.8, 7, 17)
        path = write(tmp_path / "k.json", [{"image_id": 1, "keypoints": scores.ravel().tolist()}])
        with pytest.raises(ValueError, match=r"confidences lie below 0 or above 1\.5 \(from"):
            read_detections(path)

    def test_small_people_are_in_pixels(self, tmp_path):
        tiny = person(25)
        tiny[:, :2] /= 1000
        far = tiny.copy()
        far[:, :2] += (600, 300)
        for people in ([far], [tiny, person()]):
            path = write(
                tmp_path / "a_keypoints.json", openpose(*(p.ravel().tolist() for p in people))
            )
            assert len(read_detections(path)[0]) == len(people)


def real(name):
    path = REAL_DATA / "files" / name
    if not path.exists():
        pytest.skip(f"no real file beside the repository: ../shared/data/files/{name}")
    return path


def upright(keypoints, skeleton):
    """Whether shoulders are above hips, hips above knees, knees above ankles."""
    y = dict(zip(skeleton.joint_names, keypoints[:, 1], strict=True))
    return all(
        y[f"{side}_shoulder"] < y[f"{side}_hip"] < y[f"{side}_knee"] < y[f"{side}_ankle"]
        for side in ("left", "right")
    )


class TestRealFiles:
    def test_coco(self):
        found, report = read_detections(real("coco/test_coco.json"))
        assert (report.rows, len(found)) == (14, 12)
        assert report.left_out["no keypoint labelled"].count == 2
        skier = found.keypoints_2d[found.image_names == "000000000785.jpg"][0]
        assert skier[LEFT_WRIST].tolist() == [449, 165, 1]
        assert skier[RIGHT_WRIST, 0] < skier[LEFT_WRIST, 0]

    @pytest.mark.parametrize("name", ["test_coco_wholebody", "test_keypoint_partition_metric"])
    def test_whole_bodies_are_the_same_people(self, name):
        found, _ = read_detections(real(f"coco/{name}.json"))
        coco, _ = read_detections(real("coco/test_coco.json"))
        assert found.skeleton is COCO_17
        np.testing.assert_array_equal(found.keypoints_2d[0], coco.keypoints_2d[0])

    def test_boxes_without_keypoints(self):
        path = real("coco/test_coco_det_AP_H_56.json")
        with pytest.raises(ValueError, match="a list of 118 objects with bbox, category_id"):
            read_detections(path)

    def test_halpe_in_a_folder_of_frames(self):
        folder = real("openpose/p2s_batch_cam04")
        surveyed = survey([folder])
        assert [report.rows for report in surveyed.reports] == [12]
        found, report = read_detections(folder)
        assert report.clean
        assert found.skeleton is COCO_17
        assert found.image_names[0] == "frame_00001"
        assert all(upright(keypoints, COCO_17) for keypoints in found.keypoints_2d)

    @pytest.mark.parametrize("name", ["p2s_single", "p2s_build_single", "p2s_multi"])
    def test_body_25b(self, name):
        folder = real(f"openpose/{name}_cam01_json")
        found, report = read_detections(folder)
        assert [key.endswith('which skeleton="BODY-25B" reads') for key in report.warnings] == [
            True
        ]
        found, report = read_detections(folder, skeleton="BODY-25B")
        assert not report.warnings
        limbs = found.keypoints_2d[:, 5:17, 2]  # some people of p2s_multi are made up, with 1
        clear = found.keypoints_2d[((limbs > 0.5) & (limbs < 1)).all(axis=1)]
        assert len(clear) > 8
        assert all(upright(keypoints, BODY_25B) for keypoints in clear)
        if name == "p2s_single":
            wrist = found.keypoints_2d[2, BODY_25B.index("left_wrist")]
            np.testing.assert_allclose(wrist, [568.226, 720.781, 0.658541], rtol=1e-6)

    def test_an_older_file_of_openpose(self):
        found, report = read_detections(real("openpose/im1010_openpose.json"))
        assert (len(found), found.skeleton, report.warnings) == (1, BODY_25, {})
        with pytest.raises(ValueError, match="found an object with bbox"):
            read_detections(real("openpose/im1010_bbox.json"))

    def test_named_landmarks_of_mediapipe(self):
        found, report = read_detections(real("mediapipe/person.json"))
        assert report.clean
        assert found.skeleton is COCO_17
        keypoints = found.keypoints_2d[0]
        np.testing.assert_allclose(keypoints[0], [1864.27, 3128.29, 1], rtol=1e-6)
        assert upright(keypoints, COCO_17)
