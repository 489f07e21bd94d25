"""Euler angles describe the rotations and do not jump."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.results.motion.euler import ORDERS, euler_angles
from flowprior.rotations import rotvec_to_matrix

transform = pytest.importorskip("scipy.spatial.transform", reason="SciPy multiplies rotations")


def composed(angles, order):
    """The product of the rotations in the order of the axes."""
    flat = transform.Rotation.from_euler(order, angles.reshape(-1, 3))
    return flat.as_matrix().reshape(*angles.shape[:-1], 3, 3)


@given(seed=st.integers(0, 1000), order=st.sampled_from(ORDERS))
def test_angles_give_the_rotations(seed, order):
    draw = np.random.default_rng(seed)
    rotation = transform.Rotation.from_quat(draw.normal(size=(8, 4))).as_matrix()
    rotation = rotation.reshape(4, 2, 3, 3)
    angles = euler_angles(rotation, order)
    np.testing.assert_allclose(composed(angles, order), rotation, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_right_angles_in_the_middle(order):
    middle = np.array([np.pi / 2, -np.pi / 2])
    angles = np.stack([[0.3, -0.4], middle, [0.2, 0.1]], axis=-1)[:, None]
    rotation = composed(angles, order)
    found = euler_angles(rotation, order)
    np.testing.assert_allclose(composed(found, order), rotation, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_full_turns_do_not_jump(axis, order):
    """Azure_Kinect_ROS_Driver#195: angles that wrap at 180 degrees."""
    vector = torch.zeros(200, 1, 3, dtype=torch.float64)
    vector[:, 0, axis] = torch.linspace(0, 4 * torch.pi, 200, dtype=torch.float64)
    angles = euler_angles(rotvec_to_matrix(vector).numpy(), order)
    assert np.abs(np.diff(angles, axis=0)).max() < 0.1
    assert angles[-1, 0, order.index("XYZ"[axis])] == pytest.approx(4 * np.pi)


def test_an_unknown_order():
    with pytest.raises(ValueError, match=r"order must be one of XYZ, .* got 'XYX'"):
        euler_angles(np.eye(3)[None, None], "XYX")
