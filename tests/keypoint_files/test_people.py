import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprior.files.report import Report
from flowprior.keypoint_files.people import (
    Detections,
    clean_keypoints,
    joint_places,
    keypoint_boxes,
    to_prohmr_44,
)
from flowprior.skeleton import BODY_25, COCO_17, COCO_18, LSP_14, PROHMR_44


def people(number, joints=25, seed=0):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, 1000, (number, joints, 3)).astype(np.float32)
    keypoints[..., 2] = rng.uniform(0.1, 1, (number, joints))
    return keypoints


class TestClean:
    def test_sound_keypoints_stay_as_they_are(self):
        keypoints = people(5)
        keypoints[0, 0] = 0  # not detected
        keypoints[1, 1, 2] = 1.04  # OpenPose does
        report = Report("here", "people")
        np.testing.assert_array_equal(
            clean_keypoints(keypoints, joint_places(["x"] * 5, BODY_25), report), keypoints
        )
        assert report.clean

    def test_faults_lose_their_confidence_and_are_counted(self):
        keypoints = people(3).astype(np.float64)
        keypoints[0, 0, 0] = np.nan
        keypoints[0, 1, 2] = np.nan
        keypoints[1, 2, 1] = -np.inf
        keypoints[1, 3, 0] = 1e300
        keypoints[2, 4, 2] = -0.2
        keypoints[2, 5, 2] = 97.0
        report = Report("here", "people")
        cleaned = clean_keypoints(keypoints, joint_places(["a", "b", "c"], BODY_25), report)
        assert {reason: finding.examples for reason, finding in report.ignored.items()} == {
            "NaN or infinity in a 2D keypoint": [
                "a, keypoint 0 nose",
                "a, keypoint 1 neck",
                "b, keypoint 2 right_shoulder",
            ],
            "2D keypoint beyond 100000 pixels": ["b, keypoint 3 right_elbow"],
            "confidence of a 2D keypoint below 0 or above 1.5": [
                "c, keypoint 4 right_wrist",
                "c, keypoint 5 left_shoulder",
            ],
        }
        lost = np.zeros((3, 25), bool)
        lost[[0, 0, 1, 1, 2, 2], range(6)] = True
        assert (cleaned[lost] == 0).all()
        np.testing.assert_allclose(cleaned[~lost], keypoints[~lost], rtol=1e-6)

    def test_nobody(self):
        cleaned = clean_keypoints(
            np.zeros((0, 25, 3)), joint_places([], BODY_25), Report("here", "people")
        )
        assert cleaned.shape == (0, 25, 3)

    def test_other_units_are_refused(self):
        report = Report("here.json", "people")
        place = joint_places(["x"] * 3, BODY_25)
        scaled, scores = people(3), people(3)
        scaled[..., :2] /= 1000
        scores[..., 2] *= 7
        for values, message in ((scaled, "pixels are expected"), (scores, "probabilities from")):
            with pytest.raises(ValueError, match=f"here.json: 2D keypoints .* {message}"):
                clean_keypoints(values, place, report)


class TestBoxes:
    def test_of_a_known_person(self):
        keypoints = np.zeros((1, 25, 3), np.float32)
        keypoints[0, :3] = [[100, 200, 0.9], [300, 250, 0.5], [150, 600, 0.2]]
        center, side = keypoint_boxes(keypoints)
        np.testing.assert_allclose(center, [[200, 400]])
        np.testing.assert_allclose(side, [480])
        center, side = keypoint_boxes(keypoints, enlarge=1, min_conf=0.3)
        np.testing.assert_allclose(center, [[200, 225]])
        np.testing.assert_allclose(side, [200])

    def test_people_without_an_extent(self):
        keypoints = np.zeros((3, 25, 3), np.float32)
        keypoints[1, 0] = (10, 20, 1)
        keypoints[2, :2] = (10, 20, 1)
        assert (keypoint_boxes(keypoints)[1] == 0).all()
        center, side = keypoint_boxes(keypoints[:0])
        assert center.shape == (0, 2)
        assert side.shape == (0,)

    @given(st.integers(0, 2**32 - 1), st.floats(-500, 500), st.floats(0.1, 10))
    def test_they_move_and_grow_with_the_person(self, seed, shift, scale):
        keypoints = people(4, seed=seed)
        moved = keypoints.copy()
        moved[..., :2] = scale * keypoints[..., :2] + np.float32(shift)
        center, side = keypoint_boxes(keypoints)
        new_center, new_side = keypoint_boxes(moved)
        np.testing.assert_allclose(new_center, scale * center + shift, rtol=1e-4, atol=0.1)
        np.testing.assert_allclose(new_side, scale * side, rtol=1e-4)
        reach = np.abs(keypoints[..., :2] - center[:, None]).max(axis=(1, 2))
        np.testing.assert_allclose(reach, side / 2.4, rtol=1e-4)


class TestFortyFour:
    def test_openpose_and_zeros(self):
        keypoints = people(3)
        placed = to_prohmr_44(keypoints, BODY_25)
        np.testing.assert_array_equal(placed[:, :25], keypoints)
        assert (placed[:, 25:] == 0).all()

    @pytest.mark.parametrize("skeleton", [COCO_17, COCO_18], ids=lambda s: s.name)
    def test_each_joint_of_coco_goes_to_its_namesake(self, skeleton):
        keypoints = people(3, skeleton.num_joints)
        placed = to_prohmr_44(keypoints, skeleton)
        for joint, name in enumerate(skeleton.joint_names):
            np.testing.assert_array_equal(placed[:, PROHMR_44.index(name)], keypoints[:, joint])
        assert (placed[..., 2] > 0).sum() == 3 * skeleton.num_joints
        assert (placed[:, 25:] == 0).all()

    def test_annotations_of_lsp_are_the_extra_ones(self):
        placed = to_prohmr_44(people(2, 14), LSP_14)
        assert (placed[:, :25] == 0).all()
        assert (placed[:, 25:39, 2] > 0).all()

    def test_any_leading_axes(self):
        assert to_prohmr_44(people(6).reshape(2, 3, 25, 3), BODY_25).shape == (2, 3, 44, 3)


def test_rows_are_selected_together():
    keypoints = people(4)
    center, side = keypoint_boxes(keypoints)
    names = np.array(["a", "a", "b", "c"])
    everybody = Detections(names, np.arange(4), keypoints, BODY_25, center, side, None)
    some = everybody[everybody.image_names == "a"]
    assert len(some) == 2
    assert some.person.tolist() == [0, 1]
    np.testing.assert_array_equal(some.center, center[:2])
    np.testing.assert_array_equal(everybody[[3, 1]].prohmr_44[:, :25], keypoints[[3, 1]])
