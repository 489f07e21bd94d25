"""Boxes that cut limbs off: selected people, remaining keypoints, unchanged ground truth."""

import numpy as np
import pytest

from examples.data.ambiguous import cut_limbs
from examples.data.annotations import Annotations, prohmr_rows
from examples.data.columns import Columns
from flowprior.files.report import Report
from flowprior.skeleton import BODY_25, PROHMR_44


@pytest.fixture
def people():
    """40 people who stand: heads at the top of a box of 200, feet at its bottom."""
    heights = {"nose": 10, "shoulder": 40, "elbow": 70, "wrist": 95, "hip": 100, "knee": 140}
    points = np.zeros((40, 25, 3), np.float32)
    for joint, name in enumerate(BODY_25.joint_names):
        y = next((y for part, y in heights.items() if part in name), 190 if "ankle" in name else 12)
        points[:, joint] = [100 + (10 if "left" in name else -10), y, 1]
    columns = {
        "imgname": [f"{row}.jpg" for row in range(40)],
        "center": np.full((40, 2), 100.0),
        "scale": np.full(40, 240.0),
        "body_keypoints_2d": points,
        "body_keypoints_3d": np.ones((40, 25, 4)),
    }
    return prohmr_rows(Columns(columns, ""), Report("", ""))


def test_boxes_leave_legs_out_and_what_they_leave_out_is_not_seen(people):
    cut = cut_limbs(people)
    assert (cut.box_size < people.box_size).all()
    seen = cut.keypoints_2d[..., 2] > 0
    for side in ("left", "right"):
        assert not seen[:, PROHMR_44.index(f"{side}_ankle")].any()
        assert seen[:, PROHMR_44.index(f"{side}_eye")].all()
    inside = (
        np.abs(cut.keypoints_2d[..., :2] - cut.center[:, None]) <= cut.box_size[:, None, None] / 2
    )
    assert inside[seen].all()
    # Cut at the hips, the shoulders and the neck.
    assert len(np.unique(cut.box_size.round(2))) == 3


def test_what_is_judged_stays_and_the_seed_decides(people):
    cut, again, other = cut_limbs(people), cut_limbs(people), cut_limbs(people, seed=1)
    np.testing.assert_array_equal(cut.keypoints_3d, people.keypoints_3d)
    np.testing.assert_array_equal(cut.box_size, again.box_size)
    assert (cut.box_size != other.box_size).any()
    assert (people.keypoints_2d[:, :25, 2] == 1).all()  # not written to


def test_somebody_who_is_hidden_already_keeps_the_box(people):
    people.keypoints_2d[0, :, 2] = 0
    people.keypoints_2d[0, 11, 2] = 1  # an ankle alone
    cut = cut_limbs(people)
    assert cut.box_size[0] == people.box_size[0]
    np.testing.assert_array_equal(cut.keypoints_2d[0], people.keypoints_2d[0])
    assert len(cut_limbs(Annotations.empty())) == 0
