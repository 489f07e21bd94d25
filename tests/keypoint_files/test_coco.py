import numpy as np
import pytest

from flowprior.keypoint_files.coco import read_coco
from flowprior.keypoint_files.detections import (
    read_detections,
)
from flowprior.keypoint_files.openpose import read_openpose
from flowprior.skeleton import BODY_25B, BODY_67, COCO_17, COCO_18, COCO_WHOLEBODY_133, MHR_70
from tests.keypoint_files.written import (
    LEFT_WRIST,
    RIGHT_WRIST,
    annotations,
    flat,
    openpose,
    person,
    reasons,
    write,
)


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
                "48 numbers, which is no known joint set (51, 54, 75, 78, 201, 210, 399, 408)",
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
            found, report = read_detections(path, hands=False)
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


WHOLE = np.concatenate(
    [person(17), np.column_stack([np.arange(116), np.arange(116) + 200, np.full(116, 0.5)])]
)
"""133 keypoints of somebody."""


class TestWholeBodies:
    def same(self, path, skeleton=COCO_WHOLEBODY_133, expected=WHOLE, **options):
        found, report = read_detections(path, **options)
        assert report.clean
        assert found.skeleton is skeleton
        np.testing.assert_allclose(found.keypoints_2d[0], expected, rtol=1e-6)

    def test_results_of_133_keypoints(self, tmp_path):
        flat_list = WHOLE.ravel().tolist()
        results = [{"image_id": 1, "category_id": 1, "keypoints": flat_list, "score": 0.9}]
        self.same(write(tmp_path / "x.json", results))

    @pytest.mark.parametrize("named", [False, True])
    def test_predictions_of_mmpose(self, tmp_path, named):
        instance = {
            "keypoints": WHOLE[:, :2].tolist(),
            "keypoint_scores": WHOLE[:, 2].tolist(),
            "bbox": [[0, 0, 9, 9]],
        }
        content = {"instance_info": [{"frame_id": 0, "instances": [instance]}]}
        if named:  # mmpose's names of the face differ from ours
            names = list(COCO_WHOLEBODY_133.joint_names)
            names[23:91] = [f"face-{number}" for number in range(68)]
            content["meta_info"] = {"keypoint_id2name": dict(enumerate(names))}
        self.same(write(tmp_path / "x.json", content))

    def test_the_arrays_of_coco_wholebody(self, tmp_path):
        cuts = {"foot_kpts": (17, 23), "face_kpts": (23, 91)}
        cuts |= {"lefthand_kpts": (91, 112), "righthand_kpts": (112, 133)}
        entry = {"image_id": 1, "category_id": 1, "keypoints": WHOLE[:17].ravel().tolist()}
        entry |= {name: WHOLE[slice(*cut)].ravel().tolist() for name, cut in cuts.items()}
        path = write(tmp_path / "x.json", [entry])
        self.same(path)
        self.same(path, COCO_17, WHOLE[:17], hands=False)
        # An invalid part is not labelled, whatever its numbers are.
        hidden = WHOLE.copy()
        hidden[91:112] = 0
        self.same(write(tmp_path / "y.json", [entry | {"lefthand_valid": False}]), expected=hidden)
        _, report = read_detections(write(tmp_path / "z.json", [entry | {"foot_kpts": [1.0]}]))
        assert "foot without 6 keypoints and their confidences" in reasons(report)

    def test_the_hands_and_feet_of_halpe(self, tmp_path):
        halpe = np.column_stack([np.arange(136), np.arange(136) + 300, np.full(136, 0.5)])
        path = write(tmp_path / "x.json", [{"image_id": 1, "keypoints": halpe.ravel().tolist()}])
        found, _ = read_detections(path)
        assert found.skeleton is BODY_67
        numbers = dict(zip(BODY_67.joint_names, found.keypoints_2d[0, :, 0], strict=True))
        # README of Fang-Haoshu/Halpe-FullBody
        expected = {"nose": 0, "left_ankle": 15, "left_big_toe": 20, "right_big_toe": 21}
        expected |= {"left_small_toe": 22, "right_heel": 25, "left_hand_root": 94}
        expected |= {"left_pinky_finger4": 114, "right_hand_root": 115, "right_thumb4": 119}
        assert {name: numbers[name] for name in expected} == expected

    @pytest.mark.parametrize("skeleton", [BODY_67, MHR_70], ids=lambda each: each.name)
    @pytest.mark.parametrize("named", [False, True])
    def test_67_and_70_keypoints(self, tmp_path, skeleton, named):
        count = skeleton.num_joints
        points = np.column_stack([np.arange(count), np.arange(count) + 300, np.full(count, 0.5)])
        if named and skeleton is MHR_70:
            content = coco_of(plain(*skeleton.joint_names))
            content["annotations"][0]["keypoints"] = (points * [1, 1, 4]).ravel().tolist()
            points[:, 2] = 1
        else:
            content = [{"image_id": 1, "keypoints": points.ravel().tolist()}]
        found, _ = read_detections(write(tmp_path / "x.json", content))
        assert found.skeleton is skeleton
        np.testing.assert_allclose(found.keypoints_2d[0], points, rtol=1e-6)
