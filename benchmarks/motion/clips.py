"""Clips of motion capture, and the points that their skeletons have in common."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowprior.fitting.sequence import PointRig
from flowprior.fitting.sequence.rig import global_rotations
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import H36M_17, SMPL_24

FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
"""From the data's axes (y up) to those of a camera (y down)."""

SPLITS = {"train": 0, "val": 1, "test": 2}

# Joint, its parent, and the joints of SMPL in whose axes the vector between them is constant.
EDGES: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (1, 0, (0,)),
    (2, 1, (2,)),
    (3, 2, (5,)),
    (4, 0, (0,)),
    (5, 4, (1,)),
    (6, 5, (4,)),
    (7, 0, (0, 3)),
    (8, 7, (3, 6, 9)),
    (9, 8, (9, 12)),
    (10, 9, (12, 15)),
    (11, 8, (9, 13)),
    (12, 11, (16,)),
    (13, 12, (18,)),
    (14, 8, (9, 14)),
    (15, 14, (17,)),
    (16, 15, (19,)),
)
OWN_SPREAD_M = 0.004  # of each number of a skeleton beside what the training people share


@dataclass(frozen=True)
class Clip:
    """A clip in the axes of a camera.

    Args:
        name: Its name.
        subject: Its person.
        rotation: (F, 24, 3, 3) joint rotations.
        joints: (F, 17, 3) joints of Human3.6M relative to the hip, metres.
        root: (F, 3) the hip, metres.
    """

    name: str
    subject: str
    rotation: Tensor
    joints: Tensor
    root: Tensor

    def __len__(self) -> int:
        return len(self.joints)


def load_clips(path: Path, split: str) -> list[Clip]:
    """The clips of a split of ``cmu_clips.npz``."""
    with np.load(path) as file:
        data = dict(file)
    found = []
    for index in np.flatnonzero(data["clip_split"] == SPLITS[split]):
        start = int(data["clip_start"][index])
        some = slice(start, start + int(data["clip_length"][index]))
        pose = torch.from_numpy(data["poses"][some]).reshape(-1, SMPL_24.num_joints, 3)
        rotation = rotvec_to_matrix(pose)
        rotation = torch.cat([FLIP @ rotation[:, :1], rotation[:, 1:]], dim=1)
        joints, root = (torch.from_numpy(data[key][some]) @ FLIP for key in ("joints17", "root"))
        name, subject = (str(data[f"clip_{key}"][index]) for key in ("name", "subject"))
        found.append(Clip(name, subject, rotation, joints, root))
    return found


def learned_rig(clips: list[Clip], shapes: int = 48) -> PointRig:
    """The 17 joints of Human3.6M as points of a rig, with shapes like those of the people.

    Each person's skeleton follows from least squares. Their mean, and their covariance with a small
    spread of each number, define the average shape and standard normal coefficients.

    Args:
        clips: Training clips.
        shapes: Number of shape coefficients.
    """
    skeletons = []
    for subject in sorted({clip.subject for clip in clips}):
        vectors = _skeleton([clip for clip in clips if clip.subject == subject])
        skeletons += [vectors, _mirrored(vectors)]
    table = torch.stack([torch.cat(vectors) for vectors in skeletons])
    mean = table.mean(dim=0)
    away = table - mean
    covariance = away.mT @ away / len(table)
    covariance = covariance + torch.diag(0.1 * covariance.diagonal() + OWN_SPREAD_M**2)
    values, directions = torch.linalg.eigh(covariance)
    directions = (directions * values.sqrt()).flip(1)[:, :shapes]
    arms = torch.stack([_arms(mean), *(_arms(each) for each in directions.T)])
    return PointRig(torch.zeros(1 + shapes, 3), arms.float(), H36M_17)


def _skeleton(clips: list[Clip]) -> list[Tensor]:
    rotation = torch.cat([clip.rotation for clip in clips]).double()
    joints = torch.cat([clip.joints for clip in clips]).double()
    turned = global_rotations(rotation)
    vectors = []
    for joint, parent, frames in EDGES:
        axes = turned[:, list(frames)].transpose(1, 2).flatten(start_dim=-2)
        target = (joints[:, joint] - joints[:, parent])[..., None]
        ridge = 1e-3 * len(joints) * torch.eye(axes.shape[-1], dtype=axes.dtype)
        normal = (axes.mT @ axes).sum(dim=0) + ridge
        vectors.append(torch.linalg.solve(normal, (axes.mT @ target).sum(dim=0))[:, 0])
    return vectors


def _mirrored(vectors: list[Tensor]) -> list[Tensor]:
    by_joint = {edge[0]: (edge[2], each) for edge, each in zip(EDGES, vectors, strict=True)}
    sides = torch.tensor([-1.0, 1.0, 1.0], dtype=vectors[0].dtype)
    result = []
    for joint, _, frames in EDGES:
        theirs, vector = by_joint[H36M_17.flip[joint]]
        parts = dict(zip((SMPL_24.flip[f] for f in theirs), vector.split(3), strict=True))
        result.append(torch.cat([parts[frame] * sides for frame in frames]))
    return result


def _arms(vectors: Tensor) -> Tensor:
    arms = torch.zeros(H36M_17.num_joints, SMPL_24.num_joints, 3, dtype=vectors.dtype)
    place = 0
    for joint, parent, frames in EDGES:
        arms[joint] += arms[parent]
        for frame in frames:
            arms[joint, frame] += vectors[place : place + 3]
            place += 3
    return arms
