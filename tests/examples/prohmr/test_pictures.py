"""Pictures: the camera of a crop agrees with the projection of labels."""

import numpy as np
import pytest
import torch

from examples.data.crops import MEAN, STD
from examples.data.weak_perspective import crop_translation, project_to_crop
from examples.prohmr.pictures import crop_camera, crop_picture


@pytest.mark.parametrize("side", [64, 224, 300])
def test_the_camera_is_that_of_the_labels(side):
    camera = torch.tensor([0.8, 0.1, -0.2], dtype=torch.float64)
    points = torch.randn(9, 3, dtype=torch.float64) * 0.4
    labels = project_to_crop(points, crop_translation(camera))
    # A crop's pixel is size (u + 0.5), from the centre of the first; cameras count from its edge.
    expected = side * (labels.numpy() + 0.5) + 0.5
    np.testing.assert_allclose(crop_camera(camera, side).project(points.numpy()), expected)


def test_crop_is_restored_to_its_picture():
    pixels = torch.randint(0, 256, (3, 16, 16)).float()
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    picture = crop_picture((pixels / 255 - mean) / std, 16)
    np.testing.assert_array_equal(picture, pixels.permute(1, 2, 0).byte().numpy())
