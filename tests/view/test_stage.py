"""The state of the viewer: what follows from each choice."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprior.body import BodyModel
from flowprior.results.bodies import pose_bodies
from flowprior.skeleton import SMPL_24
from flowprior.view.meshes import poses_of
from flowprior.view.stage import Stage, photo_plane
from tests.view.people import with_hands

WRIST = SMPL_24.index("left_wrist")


@pytest.fixture
def stage(prior, body, fits):
    return Stage(fits, body, prior)


def joints(stage):
    return stage.body_on_screen()[1]


@given(
    width=st.floats(10, 4000),
    height=st.floats(10, 4000),
    focal=st.floats(100, 5000),
    shift=st.floats(-100, 100),
    depth=st.floats(0.5, 50),
)
def test_a_photo_projects_onto_itself(width, height, focal, shift, depth):
    centre = np.array([width / 2 + shift, height / 2 - shift])
    plane = photo_plane(np.array([width, height]), focal, centre, depth)
    for sign, corner in ((-1, (0, 0)), (1, (width, height))):
        point = plane.centre + sign * np.array([plane.width, plane.height, 0]) / 2
        pixel = focal * point[:2] / point[2] + centre
        np.testing.assert_allclose(pixel, corner, atol=1e-6 * max(width, height))


def test_it_begins_with_the_fit_in_front_of_the_photo(stage, fits):
    np.testing.assert_allclose(joints(stage), fits.joints[0], atol=1e-4)
    assert stage.photo().centre[2] > stage.body_on_screen()[0][:, 2].max()
    assert stage.people(stage.image) == [0, 1]
    assert len(stage.others()) == 1
    assert stage.joint_colours().shape == (24, 3)
    assert stage.report() == "No joint is placed."


def test_samples_and_directions_replace_each_other(stage):
    fit = joints(stage)
    stage.show_sample(2)
    np.testing.assert_allclose(joints(stage), stage.sample_joints()[1], atol=1e-5)
    stage.show_direction(0, 2.0)
    assert stage.sample == 0
    moved = joints(stage)
    most = SMPL_24.index(stage.directions.names(0, 1)[0].replace(" ", "_"))
    assert np.linalg.norm(moved - fit, axis=-1)[most] > 0.03
    stage.show_direction(0, 0.0)
    np.testing.assert_allclose(joints(stage), fit, atol=0.002)
    stage.show_sample(0)
    assert stage.amounts == [0.0] * 4
    np.testing.assert_allclose(joints(stage), fit, atol=1e-5)
    with pytest.raises(ValueError, match="from 0 to 6"):
        stage.show_sample(7)


def test_placed_joints_stay_until_they_are_released(stage):
    fit = joints(stage)
    place = fit[WRIST] + [0.05, -0.1, 0]
    knee = SMPL_24.index("right_knee")
    stage.move(WRIST, place)
    assert np.linalg.norm(joints(stage)[WRIST] - place) < 0.02
    stage.settle()
    assert np.linalg.norm(joints(stage)[WRIST] - place) < 0.01
    assert "left wrist" in stage.report()
    certain = stage.joint_colours()[WRIST]
    assert (certain == stage.scale.colours(1.0)).all()
    stage.move(knee, fit[knee] + [0, 0, -0.05])
    stage.settle()
    assert set(stage.placed) == {WRIST, knee}
    assert np.linalg.norm(joints(stage)[WRIST] - place) < 0.015
    stage.release(knee)
    assert set(stage.placed) == {WRIST}
    stage.release()
    np.testing.assert_allclose(joints(stage), fit, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be placed"):
        stage.move(0, fit[0])


def test_another_person_is_shown_as_fitted(stage, fits):
    stage.show_sample(1)
    stage.move(WRIST, joints(stage)[WRIST])
    stage.select(1)
    np.testing.assert_allclose(joints(stage), fits.joints[1], atol=1e-4)
    assert (stage.sample, stage.placed) == (0, {})


def test_a_person_without_a_fit_is_shown_as_such(prior, body, fits):
    fits = dataclasses.replace(
        fits, body_pose=np.where([[[True]], [[False]]], np.nan, fits.body_pose)
    )
    stage = Stage(fits, body, prior)
    assert stage.body_on_screen() is None
    assert stage.report() == "This person was not fitted."
    stage.show_sample(0)
    stage.show_direction(0, 1.0)
    stage.move(WRIST, np.zeros(3))
    stage.settle()
    stage.release()
    assert len(stage.sample_joints()) == 0
    assert (stage.joint_colours() == stage.scale.colours(np.nan)).all()
    assert len(stage.others()) == 1


def test_images_of_unknown_size_have_no_photo_and_nobody_is_an_error(prior, body, fits):
    unknown = dataclasses.replace(fits, image_size=np.full((2, 2), np.nan))
    assert Stage(unknown, body, prior).photo() is None
    with pytest.raises(ValueError, match="nobody"):
        Stage(fits[:0], body, prior)


def test_hands_are_posed_and_follow_the_wrist(prior, fits):
    body = BodyModel(hands=True)
    bent = with_hands(fits)
    stage = Stage(bent, body, prior)
    vertices, shown = stage.body_on_screen()
    expected = pose_bodies(bent[:1], body)
    np.testing.assert_allclose(vertices, expected.vertices[0], atol=1e-4)
    assert shown.shape == (24, 3)
    assert stage.joint_colours().shape == (24, 3)
    flat = Stage(with_hands(fits, flexion=0.0), body, prior).body_on_screen()[0]
    assert np.linalg.norm(flat - vertices, axis=-1).max() > 0.03
    stage.show_sample(1)  # of the file, with flat hands
    sampled = poses_of(bent, 0, body).vertices[1]
    np.testing.assert_allclose(stage.body_on_screen()[0], sampled, atol=1e-4)
    stage.move(WRIST, shown[WRIST] + [0.05, -0.2, 0.0])
    stage.settle()
    moved = stage.body_on_screen()[0]
    # The fingers keep their distances from each other.
    finger = np.argsort(-np.linalg.norm(flat - vertices, axis=-1))[:10]
    before, after = (
        np.linalg.norm(each[finger][:, None] - each[finger], axis=-1) for each in (vertices, moved)
    )
    np.testing.assert_allclose(after, before, atol=2e-3)
    assert np.linalg.norm(moved[finger] - vertices[finger], axis=-1).min() > 0.03
