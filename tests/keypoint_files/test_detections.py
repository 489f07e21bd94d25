import json

import numpy as np
import pytest

from flowprior.keypoint_files.detections import (
    inspect,
    matches,
    read_detections,
)
from flowprior.skeleton import (
    BODY_25,
    BODY_25B,
    BODY_67,
    COCO_17,
    COCO_18,
    COCO_WHOLEBODY_133,
    SMPL_24,
)
from tests.conftest import REAL_DATA
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
        assert found.skeleton is COCO_WHOLEBODY_133
        np.testing.assert_array_equal(found.keypoints_2d[0, :17], coco.keypoints_2d[0])
        plain, _ = read_detections(real(f"coco/{name}.json"), hands=False)
        np.testing.assert_array_equal(plain.keypoints_2d[0], coco.keypoints_2d[0])

    def test_boxes_without_keypoints(self):
        path = real("coco/test_coco_det_AP_H_56.json")
        with pytest.raises(ValueError, match="a list of 118 objects with bbox, category_id"):
            read_detections(path)

    def test_halpe_in_a_folder_of_frames(self):
        folder = real("openpose/p2s_batch_cam04")
        found, report = read_detections(folder)
        assert report.clean
        assert found.skeleton is COCO_17
        assert found.image_names[0] == "frame_00001"
        content = json.loads((folder / "frame_00001.json").read_text(encoding="utf-8"))["people"][0]
        flat = content["pose_keypoints_2d"]
        ankle = COCO_17.index("left_ankle")  # the first 17 of Halpe's 26 are COCO's
        np.testing.assert_allclose(found.keypoints_2d[0, ankle], flat[45:48], rtol=1e-5)
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
        assert (len(found), found.skeleton, report.warnings) == (1, BODY_67, {})
        assert (found.keypoints_2d[0, 25:, 2] > 0.1).sum() > 10  # of its hands
        keypoints = found.keypoints_2d[0]
        nose, shoulder = BODY_25.index("nose"), BODY_25.index("left_shoulder")
        np.testing.assert_allclose(keypoints[nose], [66.4171, 47.0342, 0.614349], rtol=1e-5)
        np.testing.assert_allclose(keypoints[shoulder], [82.9632, 58.1474, 0.693141], rtol=1e-5)
        with pytest.raises(ValueError, match="found an object with bbox"):
            read_detections(real("openpose/im1010_bbox.json"))

    def test_named_landmarks_of_mediapipe(self):
        found, report = read_detections(real("mediapipe/person.json"))
        assert report.clean
        assert found.skeleton is BODY_25
        keypoints = found.keypoints_2d[0]
        np.testing.assert_allclose(keypoints[0], [1864.27, 3128.29, 1], rtol=1e-6)
        assert upright(keypoints, BODY_25)
        assert not keypoints[[BODY_25.index("neck"), BODY_25.index("mid_hip")]].any()
        assert found.image_size.tolist() == [[4016, 6016]]
        knee = found.joints_3d[0, SMPL_24.index("left_knee")]
        ankle = found.joints_3d[0, SMPL_24.index("left_ankle")]
        assert 0.3 < np.linalg.norm(knee[:3] - ankle[:3]) < 0.5  # metres
        assert np.isnan(found.joints_3d[0, SMPL_24.index("pelvis"), 0])


class TestFoldersOfOtherFormats:
    def test_a_file_of_coco_results_per_image(self, tmp_path):
        for number in range(3):
            entries = [{"keypoints": flat(17, number), "image_id": f"{number}.jpg"}]
            write(tmp_path / f"{number}.json", entries)
        found, report = read_detections(tmp_path)
        assert found.image_names.tolist() == ["0.jpg", "1.jpg", "2.jpg"]
        assert (report.rows, report.kept, report.facts["files"]) == (3, 3, "3")
        np.testing.assert_allclose(found.keypoints_2d[2], person(17, 2), rtol=1e-6)

    def test_damaged_files_and_other_joint_sets_are_left_out(self, tmp_path):
        write(tmp_path / "0.json", [{"keypoints": flat(17), "image_id": "0.jpg"}])
        write(tmp_path / "1.json", "[{")
        write(tmp_path / "2.json", [{"keypoints": flat(25), "image_id": "2.jpg"}])
        found, report = read_detections(tmp_path)
        assert found.image_names.tolist() == ["0.jpg"]
        left = reasons(report)
        assert left["file that cannot be read"][0].startswith("1.json: ")
        assert left["BODY-25 among COCO-17"] == ["2.json"]

    def test_the_results_of_vitpose_in_transformers(self, tmp_path):
        points = person(17)
        entry = {
            "keypoints": points[:, :2].tolist(),
            "scores": points[:, 2].tolist(),
            "labels": list(range(17)),
            "bbox": [0.0, 0.0, 9.0, 9.0],
        }
        found, _ = read_detections(write(tmp_path / "photo.json", [entry]))
        assert (found.image_names.tolist(), found.skeleton) == (["photo"], COCO_17)
        np.testing.assert_allclose(found.keypoints_2d[0], points, rtol=1e-6)

    def test_sizes_of_annotated_images(self, tmp_path):
        found, _ = read_detections(write(tmp_path / "a.json", annotations()))
        assert found.image_size.tolist() == [[640, 426]]
        found, _ = read_detections(write(tmp_path / "b.json", openpose(flat())))
        assert found.image_size is None

    def test_a_folder_of_mediapipe(self, tmp_path):
        rows = [{"x": 0.01 * row, "y": 0.02 * row, "z": 0, "visibility": 0.9} for row in range(33)]
        for name, key in (("a", "pose_landmarks"), ("b", "poseLandmarks")):
            content = {"image": {"width": 100, "height": 200}, key: {"landmark": rows}}
            write(tmp_path / f"{name}.json", content | {"pose_world_landmarks": [rows]})
        size = {"width": 9, "height": 9}
        write(tmp_path / "c.json", {"pose_landmarks": rows[:5], "image": size})
        found, report = read_detections(tmp_path)
        assert (found.image_names.tolist(), report.rows) == (["a", "b"], 3)
        assert "expected 33 landmarks" in reasons(report)["file that cannot be read"][0]
        elbow = found.keypoints_2d[1, BODY_25.index("right_elbow")]
        np.testing.assert_allclose(elbow, [14, 56, 0.9], rtol=1e-5)
        space = found.joints_3d[1, SMPL_24.index("right_elbow")]
        np.testing.assert_allclose(space, [0.14, 0.28, 0, 0.9], rtol=1e-5)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"pose_landmarks": [{"x": 1}] * 33, "image": {"width": 9, "height": 9}}, "4 numbers"),
            ({"pose_landmarks": [{"x": 0.5, "y": 0.5, "z": 0}] * 33}, "size of the image"),
            ({"people": [{"world_landmarks_m": []}], "width": 5, "height": 5}, "keypoints_2d"),
        ],
    )
    def test_damaged_landmarks(self, tmp_path, content, message):
        path = write(tmp_path / "a.json", content)
        with pytest.raises(ValueError, match=rf"a\.json: .*{message}"):
            read_detections(path)

    def test_the_picture_beside_normalised_landmarks_gives_the_size(self, tmp_path):
        images = pytest.importorskip("PIL.Image")
        rows = [{"x": 0.5, "y": 0.02 * row, "z": 0} for row in range(33)]
        path = write(tmp_path / "a.json", {"landmarks": rows})
        images.new("RGB", (300, 50)).save(tmp_path / "a.png")
        found, _ = read_detections(path)
        assert found.image_size.tolist() == [[300, 50]]
        assert found.keypoints_2d[0, BODY_25.index("left_knee")].tolist() == [150, 25, 1]
