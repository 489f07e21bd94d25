"""Poses of fits, and packed positions."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowprior.body import BodyModel
from flowprior.view.meshes import STEP_M, pack, poses_of, unpack
from tests.view.people import people

BODY = BodyModel()


@given(
    positions=arrays(np.float64, (3, 5, 3), elements=st.floats(-16, 16)),
    origin=arrays(np.float64, 3, elements=st.floats(-0.3, 0.3)),
)
def test_packed_positions_are_unpacked_to_half_a_step(positions, origin):
    near = origin + np.clip(positions - origin, -16, 16)
    found = unpack(pack(near, origin), 5, origin)
    assert np.abs(found - near).max() <= STEP_M / 2 + 1e-9


def test_packed_bodies_are_smaller_than_half_of_float32():
    poses = poses_of(people(1, samples=16), 0, BODY)
    text = pack(poses.vertices, poses.joints[0, 0])
    assert len(base64.b64decode(text)) < 0.4 * poses.vertices.astype(np.float32).nbytes


@pytest.mark.parametrize("value", [17.0, np.nan, np.inf])
def test_positions_that_do_not_fit_are_an_error(value):
    with pytest.raises(ValueError, match="within 16 m"):
        pack(np.full((1, 2, 3), value), np.zeros(3))


def test_the_first_pose_is_the_fit():
    fits = people(2)
    for row in range(2):
        poses = poses_of(fits, row, BODY)
        assert poses.vertices.shape == (5, BODY.num_vertices, 3)
        np.testing.assert_allclose(poses.joints[0], fits.joints[row], atol=1e-5)
        assert np.abs(poses.joints[1:, 15] - poses.joints[0, 15]).max() > 0.01
        # Samples turn about the pelvis.
        np.testing.assert_allclose(poses.joints[1:, 0], poses.joints[:1, 0].repeat(4, 0), atol=1e-5)
    assert len(poses_of(fits, 0, BODY, 2).vertices) == 3
    assert len(poses_of(fits, 0, BODY, 0).vertices) == 1


def test_people_without_a_fit_have_no_poses_and_damaged_samples_are_left_out():
    fits = people(2)
    fits.body_pose[0] = np.nan
    fits.samples[1, 2] = np.nan
    assert poses_of(fits, 0, BODY) is None
    assert len(poses_of(fits, 1, BODY).vertices) == 4
    fits.transl[1] = np.inf
    assert poses_of(fits, 1, BODY) is None
