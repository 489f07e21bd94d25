"""Crops of regions equal crops of whole images."""

import cv2
import numpy as np
import pytest
import torch

from examples.data.crop_augmentation import draw_augmentation
from examples.data.crops import Regions, make_crops
from examples.data.images import ImageDataset, collate, decode
from tests.examples.data.test_images import people


@pytest.mark.parametrize(("box_size", "tolerance"), [(150.0, 0.01), (400.0, 0.5), (700.0, 0.5)])
def test_crops_of_regions_are_those_of_images(tmp_path, box_size, tolerance):
    random = np.random.default_rng(0)
    # Detail down to three pixels of the smallest crop.
    detail = int(3 * 1000 / max(0.7 * box_size, 224))
    small = random.integers(0, 256, (max(12, detail), max(16, detail), 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.resize(small, (1000, 800)))
    n = 3
    rows = people(
        n,
        imgname=np.array(["a.png"] * n),
        center=random.uniform((200, 200), (800, 600), (n, 2)),
        scale=np.full(n, box_size),
    )
    dataset = ImageDataset(rows, tmp_path)
    batch = collate([dataset[row] for row in range(n)])
    drawn = draw_augmentation(n, torch.Generator().manual_seed(0))
    drawn.extreme[:] = False
    image = torch.from_numpy(decode(tmp_path / "a.png")).permute(2, 0, 1).expand(n, -1, -1, -1)
    whole = Regions.whole(image, batch.center, batch.box_size)
    made = [make_crops(each, batch.labels, drawn) for each in (batch.regions, whole)]
    assert torch.equal(made[0].crop_from_image, made[1].crop_from_image)
    assert torch.equal(made[0].labels.keypoints_2d, made[1].labels.keypoints_2d)
    difference = 255 * 0.225 * (made[0].images - made[1].images).abs()
    assert difference.mean() < tolerance
