"""One pose from samples: their mean, or the one nearest to all."""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.prior.spaces import PoseSpace, RotationSpace

__all__ = ["ANSWERS", "mean_pose", "medoid"]

ANSWERS = ("mode", "mean", "medoid", "weighted")
"""What :meth:`flowprior.PosePosterior.pick` can choose."""

# Entries of the largest temporary of distances between samples.
BLOCK = 2**22


def mean_pose(space: PoseSpace, samples: Tensor, weight: Tensor) -> Tensor:
    """The mean (*batch, J, k) of samples (*batch, n, J, k) with weights (*batch, n).

    For rotations it is the rotation with the least weighted sum of squared Frobenius distances.
    """
    if not isinstance(space, RotationSpace):
        return (weight[..., None, None] * samples).sum(dim=-3)
    matrix = space.to_matrix(samples).movedim(-4, -3)  # (*batch, J, n, 3, 3)
    mean = rotations.mean_rotation(matrix, weight[..., None, :])
    return rotations.matrix_to_rot6d(mean, space.layout)


def medoid(space: PoseSpace, samples: Tensor) -> Tensor:
    """The sample (*batch, J, k) with the least sum of distances to the others.

    The distance of two poses is the sum over the joints of their distances, Frobenius distances of
    matrices for rotations.
    """
    numbers = space.to_matrix(samples) if isinstance(space, RotationSpace) else samples
    batch, count = samples.shape[:-3], samples.shape[-3]
    each = numbers.flatten(start_dim=len(batch) + 2)
    rows = each.reshape(batch.numel(), *each.shape[-3:]).transpose(1, 2)
    size = max(1, BLOCK // (count * count * space.joints))
    chosen = [torch.cdist(some, some).sum(dim=(1, -1)).argmin(dim=-1) for some in rows.split(size)]
    flat = samples.reshape(batch.numel(), *samples.shape[-3:])
    index = torch.cat(chosen)
    return flat[torch.arange(len(flat), device=flat.device), index].reshape(
        *batch, *samples.shape[-2:]
    )
