"""Painted people: every keypoint is a dot in a colour of its own, which a detector finds again."""

import numpy as np
import torch

from flowprior.body import BodyModel
from flowprior.detect import DetectedPeople
from flowprior.fitting import facing
from flowprior.rotations import rot6d_to_matrix, rotvec_to_matrix
from flowprior.skeleton import COCO_17

WIDTH, HEIGHT = 320, 360
FOCAL = 420.0
RADIUS = 4
COLOURS = np.array([[255, 255 - 14 * joint, 14 * joint] for joint in range(17)], np.uint8)


def keypoints(frames, body=None):
    """Keypoints (frames, 17, 3) of somebody who lowers an arm, in the camera of the pictures."""
    body = body or BodyModel()
    pose = torch.zeros(frames, 24, 3)
    pose[:, 16, 2] = torch.linspace(0.2, -1.2, frames)  # the left shoulder
    pose[:, 17, 2] = 1.2
    matrix = rotvec_to_matrix(pose)
    matrix[:, 0] = rot6d_to_matrix(facing(torch.full((frames,), 20.0)))
    points = body.keypoints(matrix, COCO_17) + torch.tensor([0.0, 0.0, 2.9])
    points = points - torch.tensor([0.0, 0.15, 0.0])
    pixels = FOCAL * points[..., :2] / points[..., 2:] + torch.tensor([WIDTH, HEIGHT]) / 2
    return torch.cat([pixels, torch.ones(frames, 17, 1)], dim=-1).numpy()


def picture(points):
    """(H, W, 3) dots at keypoints (17, 3) on grey."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for (px, py, _), colour in zip(points, COLOURS, strict=True):
        image[(x - px) ** 2 + (y - py) ** 2 <= RADIUS**2] = colour
    return image


class DotDetector:
    """Finds the dots of one painted person."""

    name = "dots"
    skeleton = COCO_17

    def __init__(self):
        self.pictures = 0

    def __call__(self, image):
        self.pictures += 1
        found = np.zeros((17, 3), np.float32)
        for joint, colour in enumerate(COLOURS):
            rows, columns = np.nonzero(
                (np.abs(image.astype(int) - colour.astype(int)) <= 4).all(axis=-1)
            )
            if len(rows) > 8:
                found[joint] = columns.mean(), rows.mean(), 1
        seen = found[:, 2].sum() > 8
        return DetectedPeople(found[None] if seen else np.zeros((0, 17, 3), np.float32))

    def close(self):
        pass
