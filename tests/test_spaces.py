import pytest
import roma
import torch

from flowprior import rotations
from flowprior.spaces import PointSpace, Rot6dSpace, make_space
from tests.flow.helpers import assert_close


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
@pytest.mark.parametrize("batch", [(), (5,), (2, 5), (0,)])
def test_every_form_of_a_rotation_is_the_same_vector(layout, batch):
    space = Rot6dSpace(24, layout)
    matrix = roma.random_rotmat((*batch, 24), dtype=torch.float64)
    rot6d = rotations.matrix_to_rot6d(matrix, layout)
    expected = rot6d.reshape(*batch, 144)
    for theta in (rot6d, expected, matrix, rotations.matrix_to_rotvec(matrix)):
        assert_close(space.to_vector(theta), expected, 1e-10)
    assert_close(space.to_pose(expected), rot6d, 0)
    assert_close(space.to_matrix(expected), matrix, 1e-10)


@pytest.mark.parametrize("joints", [1, 2, 3, 6, 16])
def test_any_number_of_joints(joints):
    space = Rot6dSpace(joints)
    rot6d = torch.randn(4, joints, 6)
    assert torch.equal(space.to_vector(rot6d), rot6d.reshape(4, -1))
    matrix = roma.random_rotmat((4, joints))
    assert space.to_vector(matrix).shape == (4, 6 * joints)
    assert space.features == 6 * joints


def test_points():
    space = PointSpace(16)
    points = torch.randn(4, 16, 3)
    assert torch.equal(space.to_vector(points), points.reshape(4, 48))
    assert torch.equal(space.to_vector(points.reshape(4, 48)), points.reshape(4, 48))
    assert torch.equal(space.to_pose(points.reshape(4, 48)), points)


@pytest.mark.parametrize("shape", [(4, 23, 6), (4, 72), (4, 24, 4), (4, 24, 2, 3), (), (143,)])
def test_other_shapes_are_refused_and_accepted_ones_named(shape):
    with pytest.raises(ValueError, match=r"accepted are 6D \(..., 24, 6\), .*\(..., 24, 3\)"):
        Rot6dSpace(24).to_vector(torch.zeros(shape))


def test_flat_rotation_vectors_are_told_what_to_do():
    with pytest.raises(ValueError, match=r"theta.unflatten\(-1, \(24, 3\)\)"):
        Rot6dSpace(24).to_vector(torch.zeros(4, 72))


@pytest.mark.parametrize("form", [lambda m: m, rotations.matrix_to_rotvec])
def test_half_precision_is_raised_before_it_is_encoded(form):
    theta = form(roma.random_rotmat((4, 24))).half()
    vector = Rot6dSpace(24).to_vector(theta)
    assert torch.equal(vector, Rot6dSpace(24).to_vector(theta.float()))


def test_points_refuse_rotations():
    with pytest.raises(ValueError, match=r"keypoints \(..., 16, 3\)"):
        PointSpace(16).to_vector(torch.zeros(4, 16, 6))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("quaternion", 24, "columns"), "space must be one of"),
        (("rot6d", 24, "column"), "layout must be one of"),
        (("rot6d", 0, "columns"), "joints must be a whole number of at least 1"),
    ],
)
def test_bad_names(args, message):
    with pytest.raises(ValueError, match=message):
        make_space(*args)
