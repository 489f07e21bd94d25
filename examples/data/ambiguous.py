"""People with limbs cut off, of any annotations: boxes about a part of the body.

Biggs et al. evaluate on an ambiguous Human3.6M (AH36M) whose crops leave limbs out. Where that is
not at hand, `cut_limbs` makes such a set of any other, in the way of ProHMR's augmentation.
"""

import dataclasses

import numpy as np
import torch

from examples.data.annotations import Annotations
from examples.data.crop_augmentation import Augmentation, augment_boxes

__all__ = ["cut_limbs"]


def cut_limbs(people: Annotations, seed: int = 0) -> Annotations:
    """The same people in boxes that cut them at the hips, the shoulders or the neck.

    The network sees the box alone, and nobody the 2D keypoints outside of it: they lose their
    confidence. 3D keypoints, poses and shapes stay as they are, for they are to be judged.

    Args:
        people: The people. Those of whom limbs are hidden already keep their box, see
            `examples.data.crop_augmentation.augment_boxes`.
        seed: Of where each is cut.

    Returns:
        As many people.

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
