"""Fits for the tests of the views: two images with two people and one."""

import dataclasses

import numpy as np
import torch

from flowprior.body import BodyModel
from flowprior.results import Fits
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import COCO_17
from tests.results.helpers import small_fits


def people(count=3, samples=4, photo="") -> Fits:
    """Fits whose joints and keypoints are those of their bodies."""
    fits = small_fits(count, samples)
    body = BodyModel()
    theta, betas, transl = (
        torch.from_numpy(value) for value in (fits.rotations, fits.betas, fits.transl)
    )
    matrix = rotvec_to_matrix(theta)
    joints = body(matrix, betas, transl).joints.numpy()
    points = body.keypoints(matrix, COCO_17, betas, transl).numpy()
    pixels = fits.focal_px[:, None, None] * points[..., :2] / points[..., 2:]
    keypoints = np.concatenate(
        [pixels + fits.centre_px[:, None], np.ones_like(pixels[..., :1])], axis=-1
    )
    return dataclasses.replace(
        fits,
        joints=joints,
        keypoints_2d=keypoints,
        transl=fits.transl,
        image_path=np.array([str(photo)] * count, np.str_),
    )


def picture(path, size=(640, 480)):
    """Write a picture with a red left half and a green right half."""
    from PIL import Image

    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0] = 255
    pixels[:, size[0] // 2 :, 1] = 255
    Image.fromarray(pixels).save(path)
    return path
