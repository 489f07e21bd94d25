import numpy as np
import pytest
import torch

from examples.pinhole import flip_yz, flip_yz_rotations, project


def test_a_point_by_hand_in_tensors_and_arrays():
    points = torch.tensor([[[1.0, -2.0, 4.0]]], dtype=torch.float64)
    pixels = project(points, 100.0, torch.tensor([50.0, 60.0]))
    assert pixels.tolist() == [[[75.0, 10.0]]]
    assert project(points.numpy(), 100.0, np.array([50.0, 60.0])).tolist() == [[[75.0, 10.0]]]
    assert project(points).tolist() == [[[0.25, -0.5]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flip_negates_y_and_z_and_keeps_the_dtype(dtype):
    points = torch.tensor([[1.0, 2.0, -3.0]], dtype=dtype)
    flipped = flip_yz(points)
    assert flipped.dtype == dtype
    assert flipped.tolist() == [[1.0, -2.0, 3.0]]
    array = flip_yz(points.numpy())
    assert array.dtype == points.numpy().dtype
    assert array.tolist() == flipped.tolist()
    assert torch.equal(flip_yz(flipped), points)


def test_flipped_rotations_rotate_to_flipped_points():
    matrix = torch.linalg.qr(torch.randn(4, 3, 3, dtype=torch.float64)).Q
    points = torch.randn(4, 3, dtype=torch.float64)
    rotated = (matrix @ points[..., None])[..., 0]
    found = (flip_yz_rotations(matrix) @ points[..., None])[..., 0]
    torch.testing.assert_close(found, flip_yz(rotated))
