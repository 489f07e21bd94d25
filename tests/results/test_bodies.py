"""The body of fits, and its poses."""

import dataclasses

import numpy as np
import pytest

from flowprior.body import BodyModel
from flowprior.results.bodies import body_of, pose_bodies
from tests.results.helpers import small_fits

BODY = BodyModel()


def test_the_body_of_a_file_has_to_be_given():
    fits = small_fits(1)
    assert body_of(fits).name == "embedded body"
    assert body_of(fits, BODY) is BODY
    theirs = dataclasses.replace(fits, body="SMPL_NEUTRAL.pkl")
    assert body_of(theirs, BODY) is BODY
    with pytest.raises(ValueError, match=r"body SMPL_NEUTRAL\.pkl.*pass body="):
        body_of(theirs)
    with pytest.raises(ValueError, match=r"10 shape coefficients.* has 4"):
        body_of(fits, BodyModel(num_betas=4))


def test_fits_with_fingers_belong_to_a_body_with_fingers():
    fits = small_fits(1, joints=52)
    assert body_of(fits).name == "embedded body with hands"
    with pytest.raises(ValueError, match=r"52 joints of SMPL-H, embedded body has 24"):
        body_of(fits, BODY)


@pytest.mark.parametrize("part", ["left_hand_pose", "right_hand_pose"])
def test_bodies_have_the_hands_of_the_fits(part):
    fits = small_fits(2, joints=52)
    body = body_of(fits)
    posed = pose_bodies(fits, body)
    other = dataclasses.replace(fits, **{part: getattr(fits, part) + 0.5})
    moved = np.linalg.norm(pose_bodies(other, body).joints - posed.joints, axis=-1).max(axis=0) > 0
    # The knuckle turns in its place.
    joints = body.parts[part]
    assert moved[joints.start + 1 : joints.stop].sum() >= 10
    assert not moved[: joints.start + 1].any()
    assert not moved[joints.stop :].any()
