"""Fits for the tests of the views: two images with two people and one."""

import dataclasses

import numpy as np
import torch

from flowprior.body import BodyModel
from flowprior.results import Fits
from flowprior.results.bodies import pose_bodies
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


def with_hands(fits: Fits, flexion=0.6) -> Fits:
    """The same people on the body with hands, with bent fingers on the left.

    What is uncertain about the fingers is that of the wrists.
    """
    people, samples = len(fits), fits.samples.shape[1]
    parents = [20] * 15 + [21] * 15
    wider = {
        name: np.concatenate([getattr(fits, name)[:, :22], getattr(fits, name)[:, parents]], axis=1)
        for name in (
            *("joint_std_mm", "joint_radius_50_mm", "joint_radius_90_mm", "joint_confidence"),
            *("rotation_std_deg", "rotation_radius_90_deg", "joint_direction"),
        )
    }
    fingers = np.zeros((people, 15, 3), np.float32)
    left = fingers + np.float32([0, 0, -flexion])
    drawn = np.zeros((people, samples, 30, 3), np.float32)
    changed = dataclasses.replace(
        fits,
        body_pose=fits.body_pose[:, :21],
        left_hand_pose=left,
        right_hand_pose=fingers,
        hands=np.array([["fitted", "at rest"]] * people, np.str_).reshape(-1, 2),
        joints=np.concatenate([fits.joints[:, :22], fits.joints[:, parents]], axis=1),
        samples=np.concatenate([fits.samples[:, :, :22], drawn], axis=2),
        **wider,
    )
    joints = pose_bodies(changed, BodyModel(hands=True)).joints
    return dataclasses.replace(changed, joints=joints)


def sequence(frames=6, samples=3, fps=20.0, photo="") -> Fits:
    """A person in all frames who raises an arm and moves right, and another in the second half."""
    fits = people(2 * frames, samples, photo)
    track = np.arange(2 * frames) % 2
    frame = np.arange(2 * frames) // 2
    turns = fits.body_pose[track].copy()
    turns[:, 15, 2] += 0.3 * frame
    transl = fits.transl[track] + np.stack([0.05 * frame, 0 * frame, 0 * frame], axis=-1)
    moved = dataclasses.replace(
        fits,
        image=np.array([f"walk_{number:04d}" for number in frame], np.str_),
        person=track,
        global_orient=fits.global_orient[track],
        body_pose=turns,
        betas=fits.betas[track],
        transl=transl,
        samples=np.concatenate([fits.global_orient[track], turns], axis=1)[:, None]
        + np.random.default_rng(0).normal(0, 0.05, (2 * frames, samples, 24, 3)),
        fps=fps,
    )
    return moved[(track == 0) | (frame >= frames // 2)]
