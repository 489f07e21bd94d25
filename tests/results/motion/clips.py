"""Procedural motions for the tests of their files."""

import math

import torch

from flowprior.rotations import rotvec_to_matrix


def motion(frames=12, joints=24, fps=30.0, seed=0):
    """Somebody upright in a camera's axes who turns about the vertical and bends every joint.

    Returns rotations (frames, joints, 3, 3) and translations (frames, 3).
    """
    draw = torch.Generator().manual_seed(seed)
    time = torch.arange(frames)[:, None, None] / fps
    phase = 6 * torch.rand(joints, 3, generator=draw)
    pose = 0.7 * torch.sin(2 * math.pi * 0.7 * time + phase)
    rotation = rotvec_to_matrix(pose)
    upright = torch.tensor([math.pi, 0.0, 0.0])
    turn = torch.stack([torch.zeros(frames), 2.5 * time[:, 0, 0], torch.zeros(frames)], dim=-1)
    rotation[:, 0] = rotvec_to_matrix(upright) @ rotvec_to_matrix(turn)
    transl = torch.cat([torch.sin(3 * time[:, :, 0]), 0.1 * time[:, :, 0], 4 + time[:, :, 0]], -1)
    return rotation, transl


def shape(count=10, seed=1):
    """(count,) shape coefficients of somebody."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))
