"""Views of motion capture with 2D keypoints, and the poses that a posterior describes."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from examples.data.augment import mirror, mirror_rotvecs, turn_segments, vary_bones
from examples.data.virtual_views import Views, occlude, photograph
from examples.pinhole import flip_yz_rotations
from flowprior import rotations

__all__ = ["ROTATION_NOISE", "TARGETS", "Augmentation", "Example", "People", "load"]

TARGETS = ("joints", "pose")

# Noise of rotations in training and evaluation, because exact hinges have no finite density.
ROTATION_NOISE = math.radians(1.0)


@dataclass(frozen=True)
class Augmentation:
    """Changes of the people in training. All are mirrored half of the time.

    Args:
        stature: Standard deviation of the logarithm of a person's size.
        proportions: Standard deviation of the logarithm of each bone's length.
        turns: Size of random turns of the segments, see `turn_segments`. Targets of rotations turn,
            keypoints stay.
    """

    stature: float = 0.03
    proportions: float = 0.03
    turns: float = 1.0


@dataclass(frozen=True)
class Example:
    """Views with their truth.

    Attributes:
        views: B views, half of them with hidden joints.
        rotations: (B, 24, 3, 3), the root in a camera frame with y up, with noise.
        clean: The same without noise and random turns.
    """

    views: Views
    rotations: Tensor
    clean: Tensor


@dataclass(frozen=True)
class People:
    """Motion capture of some subjects.

    Attributes:
        joints: (N, 17, 3) in metres, y up.
        rotvecs: (N, 24, 3), rotation vectors.
        subject: (N,), number of the subject.
    """

    joints: Tensor
    rotvecs: Tensor
    subject: Tensor

    def evenly(self, count: int) -> Tensor:
        """Rows (count,), spread evenly over the frames, and so over the subjects."""
        return torch.linspace(0, len(self.joints) - 1, count).round().long()

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Random rows (count,)."""
        return torch.randint(len(self.joints), (count,), generator=generator)

    def examples(
        self,
        rows: Tensor,
        generator: torch.Generator,
        augmentation: Augmentation | None = None,
    ) -> Example:
        """Views of the poses ``rows`` (B,)."""
        joints, rotvecs = self.joints[rows], self.rotvecs[rows]
        if augmentation is not None:
            flip = torch.rand(len(rows), generator=generator)[:, None, None] < 0.5
            joints = vary_bones(
                torch.where(flip, mirror(joints), joints),
                generator,
                augmentation.stature,
                augmentation.proportions,
            )
            rotvecs = torch.where(flip, mirror_rotvecs(rotvecs), rotvecs)
        seen = photograph(joints, generator)
        turn, _ = roma.rigid_points_registration(joints, seen.joints)
        matrix = rotations.rotvec_to_matrix(rotvecs)
        # Rotate by pi about x, so that people are upright and half-turns are rare.
        upright = flip_yz_rotations(turn @ matrix[:, 0])
        clean = torch.cat((upright[:, None], matrix[:, 1:]), dim=1)
        jitter = ROTATION_NOISE * torch.randn(rotvecs.shape, generator=generator)
        turned = clean
        if augmentation is not None and augmentation.turns:
            turned = turn_segments(clean, augmentation.turns, generator)
        noisy = turned @ rotations.rotvec_to_matrix(jitter)
        return Example(occlude(seen, generator), noisy, clean)


def load(path: Path) -> dict[str, People]:
    """Read the three parts of the motion capture file, which share no subject."""
    with np.load(path, allow_pickle=False) as file:
        joints = torch.from_numpy(file["joints17"])
        rotvecs = torch.from_numpy(file["poses"]).reshape(-1, 24, 3)
        split = torch.from_numpy(file["split"])
        subject = torch.from_numpy(file["subject"]).long()
    return {
        name: People(joints[split == code], rotvecs[split == code], subject[split == code])
        for code, name in enumerate(("train", "val", "test"))
    }
