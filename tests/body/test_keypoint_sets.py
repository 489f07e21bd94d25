"""Keypoints as linear functions of joints and vertices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprior.body.keypoint_sets import KeypointSets, Rows, landmark_rows, vertex_rows
from flowprior.skeleton import COCO_17, H36M_17, PROHMR_19, PROHMR_44, SMPL_24, SMPL_45, mapping

JOINTS, VERTICES = 4, 9


def dense(rows):
    """(K, J + V) weights of joints and vertices."""
    weights = np.zeros((len(rows.joints), VERTICES))
    weights[:, rows.vertices] = rows.weights
    return np.concatenate([rows.joints, weights], axis=1)


matrices = st.integers(0, 2**31).map(
    lambda seed: (
        np.random.default_rng(seed).integers(-1, 2, (3, VERTICES)).astype(float)
        * (np.random.default_rng(seed + 1).random(VERTICES) < 0.5)
    )
)


@given(matrices, matrices)
def test_rows_join_as_matrices_do(first, second):
    one, other = (Rows.of_vertices(matrix, JOINTS) for matrix in (first, second))
    joined = Rows.of_joints(JOINTS) + one + other
    identity = np.eye(JOINTS, JOINTS + VERTICES)
    expected = [identity, *(np.pad(matrix, ((0, 0), (JOINTS, 0))) for matrix in (first, second))]
    np.testing.assert_array_equal(dense(joined), np.concatenate(expected))
    assert sorted(set(joined.vertices)) == joined.vertices.tolist()


@given(matrices, st.lists(st.integers(0, 2), max_size=5))
def test_taken_rows_need_their_own_vertices_only(matrix, chosen):
    rows = Rows.of_vertices(matrix, JOINTS).take(chosen)
    np.testing.assert_array_equal(dense(rows)[:, JOINTS:], matrix[chosen])
    assert np.any(rows.weights != 0, axis=0).all()


def test_vertices_and_points_of_triangles():
    np.testing.assert_array_equal(
        dense(vertex_rows([7, 2, 7], JOINTS))[:, JOINTS:], np.eye(VERTICES)[[7, 2, 7]]
    )
    triangles = np.array([[0, 3, 3], [8, 1, 0]])
    weights = np.array([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    found = dense(landmark_rows(triangles, weights, JOINTS))[:, JOINTS:]
    expected = np.zeros((2, VERTICES))
    expected[0, [0, 3]] = 0.5, 0.5
    expected[1, [8, 1, 0]] = 0.2, 0.3, 0.5
    np.testing.assert_allclose(found, expected)


def smpl(regressors=None):
    rows = Rows.of_joints(24) + vertex_rows(range(21), 24)
    return KeypointSets("body", 30, SMPL_24, [(SMPL_45, rows)], regressors)


def test_sets_of_a_body():
    sets = smpl()
    assert sets.default is SMPL_45
    rows = sets.rows(COCO_17)
    chosen = list(mapping(SMPL_45, COCO_17))
    np.testing.assert_array_equal(rows.joints, sets.rows(SMPL_45).joints[chosen])
    assert sets.rows(H36M_17) is None
    assert "COCO-17" in sets.names
    assert "H36M-17" not in sets.names
    with_extra = smpl({"PROHMR-19": np.full((19, 30), 1 / 30)})
    assert with_extra.default is PROHMR_44
    assert with_extra.rows(PROHMR_44).joints.shape == (44, 24)
    np.testing.assert_allclose(with_extra.rows(PROHMR_19).weights, 1 / 30)
    assert "H36M-17" in with_extra.names


def test_the_message_names_what_is_missing():
    message = smpl().missing(H36M_17)
    assert "body has no spine, thorax, nose, head of H36M-17" in message
    assert "(K, 30)" in message


@pytest.mark.parametrize("skeleton", [SMPL_24, SMPL_45])
def test_joints_need_no_vertices(skeleton):
    rows = smpl().rows(skeleton)
    assert (len(rows.vertices) == 0) == (skeleton is SMPL_24)
