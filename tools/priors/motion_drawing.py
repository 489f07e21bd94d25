"""Training examples of the motion prior: three consecutive poses, and what is known of the last."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel, mirror_pose
from flowprior.skeleton import SMPL_24
from tools.priors.drawing import mixed_views, pose

__all__ = ["Clips", "Steps", "draw_steps", "load_clips"]

FPS = 30.0
LONGEST = 4.0  # frames of the recording between two poses
PAST_NOISE = math.radians(0.3)  # of the two past poses, in half of the examples, at most
UP = 0.7  # share of the examples with a direction of gravity
STILL = 0.1  # share without a velocity
JOINTS_3D, KEYPOINTS_2D = 0.2, 0.2  # shares of the batches with evidence
OTHER_RATES = 0.35  # share of the batches between the rates that need no interpolation
JOINT_NOISE_M = (0.003, 0.1)


@dataclass(frozen=True)
class Clips:
    """Clips of motion capture, y up.

    Args:
        rotation: (F, 24, 3, 3) rotations of all clips.
        start: (N,) first frames of the clips.
        length: (N,) their numbers of frames.
    """

    rotation: Tensor
    start: Tensor
    length: Tensor

    def frames(self, reach: int) -> Tensor:
        """Indices of all frames with at least ``reach`` frames of their clip before them."""
        place = torch.arange(len(self.rotation)) - self.start.repeat_interleave(self.length)
        return (place >= reach).nonzero()[:, 0]

    def mirrored(self) -> "Clips":
        """These clips and their mirror images."""
        return Clips(
            torch.cat([self.rotation, mirror_pose(self.rotation, SMPL_24)]),
            torch.cat([self.start, self.start + len(self.rotation)]),
            self.length.repeat(2),
        )


def load_clips(path: Path, split: int) -> Clips:
    """The clips of a split of ``cmu_clips.npz``: 0 training, 1 validation, 2 test people.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no such clips.
    """
    with np.load(path, allow_pickle=False) as file:
        names = ("poses", "clip_start", "clip_length", "clip_split")
        missing = [name for name in names if name not in file.files]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: it is no file of clips")
        data = {name: file[name] for name in names}
    chosen = np.flatnonzero(data["clip_split"] == split)
    if not len(chosen):
        raise ValueError(f"{path} holds no clips of split {split}")
    parts, starts, at = [], [], 0
    for index in chosen:
        first, count = int(data["clip_start"][index]), int(data["clip_length"][index])
        parts.append(data["poses"][first : first + count])
        starts.append(at)
        at += count
    rotvecs = torch.from_numpy(np.concatenate(parts)).float().unflatten(-1, (-1, 3))
    length = torch.from_numpy(data["clip_length"][chosen].astype(np.int64))
    return Clips(rotations.rotvec_to_matrix(rotvecs), torch.tensor(starts), length)


@dataclass(frozen=True)
class Steps:
    """N next poses and what is known before them, all with the same time between poses.

    Args:
        theta: (N, 24, 3, 3) next poses.
        previous: (N, 2, 24, 3, 3), the first NaN where the velocity is unknown.
        up: (N, 3), NaN where unknown.
        fps: Poses per second.
        keypoints_2d: (N, 17, 3), or None for a batch without.
        joints_3d: (N, 24, 3), or None for a batch without.
    """

    theta: Tensor
    previous: Tensor
    up: Tensor
    fps: float
    keypoints_2d: Tensor | None = None
    joints_3d: Tensor | None = None


def stride_of(generator: torch.Generator) -> float:
    """Frames of the recording between two poses, for a batch."""
    where, which = torch.rand(2, generator=generator).tolist()
    if where < OTHER_RATES:
        return 1 + (LONGEST - 1) * which
    return 1.0 + int(LONGEST * which**2)  # the highest rate in half of the others


@torch.no_grad()
def draw_steps(
    clips: Clips, count: int, body: BodyModel, generator: torch.Generator, *, evidence: bool = True
) -> Steps:
    """Draw a batch.

    Args:
        clips: The clips.
        count: Number N of poses.
        body: The body of which evidence is drawn.
        generator: Source of everything random.
        evidence: Whether some batches have evidence about the next poses.
    """
    stride = stride_of(generator)
    frames = clips.frames(math.ceil(2 * stride))
    rows = frames[torch.randint(len(frames), (count,), generator=generator)]
    theta = clips.rotation[rows]
    past = torch.stack([_between(clips.rotation, rows, n * stride) for n in (2, 1)], dim=1)
    size = PAST_NOISE * torch.rand(count, 1, 1, 1, generator=generator)
    size = size * (torch.rand(count, 1, 1, 1, generator=generator) < 0.5)
    noise = size * torch.randn(past.shape[:-1], generator=generator)
    noise[..., 22:, :] = 0
    past = past @ rotations.rotvec_to_matrix(noise)
    up = theta.new_tensor([0.0, 1.0, 0.0]).expand(count, 3)
    kind = float(torch.rand((), generator=generator))
    keypoints = joints = None
    if evidence and kind < KEYPOINTS_2D + JOINTS_3D:
        rotvecs = rotations.matrix_to_rotvec(theta)
        posed = pose(rotvecs, body, generator)
        if kind < KEYPOINTS_2D:
            seen = mixed_views(posed, generator)
            turn = seen.theta[:, 0] @ theta[:, 0].mT
            theta, keypoints = seen.theta, seen.keypoints_2d
            past[:, :, 0] = turn[:, None] @ past[:, :, 0]
            up = (turn @ up[..., None])[..., 0]
        else:
            joints = _measured(posed.joints, generator)
    known = torch.rand(count, 1, generator=generator) < UP
    up = torch.where(known, up, torch.nan)
    still = torch.rand(count, generator=generator) < STILL
    past[still, 0] = torch.nan
    return Steps(theta, past, up, FPS / stride, keypoints, joints)


def _measured(joints: Tensor, generator: torch.Generator) -> Tensor:
    """Joints (N, 24, 3) with noise; some are missing."""
    count, number = joints.shape[:2]
    low, high = (math.log(each) for each in JOINT_NOISE_M)
    size = torch.exp(low + (high - low) * torch.rand(count, 1, 1, generator=generator))
    lost = torch.rand(count, number, 1, generator=generator) < 0.3 * torch.rand(
        count, 1, 1, generator=generator
    )
    measured = joints + size * torch.randn(joints.shape, generator=generator)
    return torch.where(lost, torch.nan, measured)


def _between(rotation: Tensor, rows: Tensor, back: float) -> Tensor:
    """Rotations ``back`` frames before some frames, interpolated along geodesics."""
    whole = math.ceil(back)
    early = rotation[rows - whole]
    share = whole - back
    if share < 1e-9:
        return early
    turn = rotations.matrix_to_rotvec(early.mT @ rotation[rows - whole + 1])
    return early @ rotations.rotvec_to_matrix(share * turn)
