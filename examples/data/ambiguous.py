"""Ambiguous views: boxes that cut limbs off, for any annotations.

Biggs et al. evaluate on an ambiguous Human3.6M (AH36M) whose crops leave limbs out.
`cut_limbs` derives such a set from any other data set, as ProHMR's augmentation does.
"""

import dataclasses

import numpy as np
import torch

from examples.data.annotations import Annotations
from examples.data.crop_augmentation import Augmentation, augment_boxes

__all__ = ["cut_limbs"]


def cut_limbs(people: Annotations, seed: int = 0) -> Annotations:
    """Shrink the boxes of people so that they cut at the hips, the shoulders or the neck.

    2D keypoints outside the new box lose their confidence. 3D keypoints, poses and shapes stay
    unchanged as the ground truth.

    Args:
        people: The people. Those with hidden limbs keep their box, see
            `examples.data.crop_augmentation.augment_boxes`.
        seed: Seed of the cuts.

    Returns:
        The same number of people.

    References:
        Biggs et al., *3D Multi-bodies*, 2020, for the idea; shares of the cuts as in
        ``nkolot/ProHMR``.
    """
    count = len(people)
    cut = Augmentation.none(count)
    generator = torch.Generator().manual_seed(seed)
    cut = dataclasses.replace(
        cut,
        extreme=torch.ones(count, dtype=torch.bool),
        extreme_choice=torch.rand(count, generator=generator),
    )
    keypoints = torch.from_numpy(people.keypoints_2d.copy())
    center, side = augment_boxes(
        torch.from_numpy(people.center), torch.from_numpy(people.box_size), keypoints, cut
    )
    inside = ((keypoints[..., :2] - center[:, None]).abs() <= side[:, None, None] / 2).all(dim=-1)
    changed = ((side != torch.from_numpy(people.box_size))[:, None] & ~inside)[..., None]
    return dataclasses.replace(
        people,
        center=center.numpy().astype(np.float32),
        box_size=side.numpy().astype(np.float32),
        keypoints_2d=torch.where(changed, 0.0, keypoints).numpy(),
    )
