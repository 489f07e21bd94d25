"""Two people who walk past each other, as a detector writes them: files of single frames."""

import json
import math

import numpy as np
import torch

from flowprior.body import BodyModel
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import BODY_25

FPS, FOCAL, WIDTH, HEIGHT = 30.0, 900.0, 1280, 720
MISSED = range(20, 30)
"""Frames in which the detector misses the second person."""


def walkers(frames=48, body=None):
    """Rotations (2, frames, 24, 3, 3) and translations (2, frames, 3) in the camera's axes."""
    body = body or BodyModel()
    time = torch.arange(frames) / FPS
    swing = torch.sin(2 * math.pi * 1.1 * time)
    pose = torch.zeros(2, frames, 24, 3)
    for person, sign in ((0, 1.0), (1, -1.0)):
        own = pose[person]
        own[:, 1, 0], own[:, 2, 0] = -0.15 + 0.35 * sign * swing, -0.15 - 0.35 * sign * swing
        own[:, 4, 0] = 0.35 + 0.3 * sign * swing
        own[:, 5, 0] = 0.35 - 0.3 * sign * swing
        own[:, 16, 2], own[:, 17, 2] = -1.2, 1.2
        own[:, 18, 1], own[:, 19, 1] = -0.4 - 0.2 * swing, 0.4 + 0.2 * swing
    rotation = rotvec_to_matrix(pose)
    upright = rotvec_to_matrix(torch.tensor([math.pi, 0.0, 0.0]))
    for person, turn in ((0, 0.9), (1, -0.9)):
        facing = rotvec_to_matrix(torch.tensor([0.0, turn, 0.0]))
        rotation[person, :, 0] = upright @ facing
    across = 1.2 * (2 * time / time[-1] - 1)
    transl = torch.zeros(2, frames, 3)
    transl[0, :, 0], transl[1, :, 0] = across, -across
    transl[0, :, 2], transl[1, :, 2] = 4.2, 5.0
    transl[..., 1] = 0.1
    return rotation, transl


def keypoints(frames=48, noise_px=2.0, seed=0):
    """(2, frames, 25, 3) keypoints with noise; zero where the detector misses somebody."""
    body = BodyModel()
    rotation, transl = walkers(frames, body)
    points = body.keypoints(rotation, BODY_25, None, transl)
    pixels = FOCAL * points[..., :2] / points[..., 2:] + torch.tensor([WIDTH, HEIGHT]) / 2
    draw = torch.Generator().manual_seed(seed)
    pixels = pixels + noise_px * torch.randn(pixels.shape, generator=draw)
    found = torch.cat([pixels, torch.full((*pixels.shape[:-1], 1), 0.9)], dim=-1).numpy()
    found[1, [frame for frame in MISSED if frame < frames]] = 0
    return found.astype(np.float64)


def write(folder, found, seed=0):
    """Write a folder of OpenPose files, with the people of each in random order."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(found.shape[1]):
        people = [person[frame] for person in found if person[frame].any()]
        draw.shuffle(people)
        entries = [
            {"person_id": [-1], "pose_keypoints_2d": np.round(each, 2).reshape(-1).tolist()}
            for each in people
        ]
        file = folder / f"walk_{frame:012d}_keypoints.json"
        file.write_text(json.dumps({"version": 1.3, "people": entries}))
    return folder
