"""Comparison of two sets of poses: Fréchet distance, precision and recall, nearest poses.

All of them use one description of a pose without trained weights: its joints in metres and, with a
smaller weight, the first two columns of its rotations, which show twists that move no joint.
"""

import numpy as np
import torch
from torch import Tensor

from benchmarks.priors.data import JOINTS, Kinematics

__all__ = [
    "average_pairwise_distance",
    "describe",
    "fourier_features",
    "frechet_distance",
    "nearest_distance",
    "precision_and_recall",
]

ROTATION_WEIGHT = 0.1
FEATURES = 64
# Lengths of the Fourier features, metres; two random training poses are 1.2 apart.
LENGTHS = (2.0, 1.0)
NEIGHBOURS = 3


def describe(matrix: Tensor, kinematics: Kinematics) -> Tensor:
    """Poses (N, 21, 3, 3) -> (N, 189): 63 coordinates in metres, 126 weighted matrix entries."""
    joints = kinematics(matrix)[:, 1:].flatten(start_dim=1)
    return torch.cat((joints, ROTATION_WEIGHT * matrix[..., :2].flatten(start_dim=1)), dim=1)


def fourier_features(description: Tensor) -> Tensor:
    """Random Fourier features of descriptions (N, 189), the same for everyone: (N, 64) float64.

    References:
        Rahimi and Recht, *Random Features for Large-Scale Kernel Machines*, 2007.
    """
    # NumPy promises that this generator's numbers never change.
    source = np.random.RandomState(0)
    width = description.shape[-1]
    frequencies = source.standard_normal((width, FEATURES))
    frequencies[:, ::2] /= LENGTHS[0]
    frequencies[:, 1::2] /= LENGTHS[1]
    phases = source.uniform(0, 2 * np.pi, FEATURES)
    angles = description.double() @ torch.from_numpy(frequencies) + torch.from_numpy(phases)
    return angles.cos() * 2**0.5


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of descriptions (N, 189), (M, 189).

    References:
        Heusel et al., *GANs Trained by a Two Time-Scale Update Rule*, 2017.
    """
    one, two = fourier_features(first), fourier_features(second)
    means = (one.mean(dim=0) - two.mean(dim=0)).square().sum()
    a, b = one.T.cov(), two.T.cov()
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float(means + a.trace() + b.trace() - 2 * cross)


def precision_and_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Shares of generated poses inside the real ones' manifold, and of real ones in theirs.

    A manifold is the union of balls that reach from each pose to its third neighbour.

    Args:
        generated: Descriptions (N, 189).
        real: Descriptions (N, 189), as many, because the balls shrink with their number.

    Returns:
        Precision and recall.

    References:
        Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative
        Models*, 2019.
    """
    return _share_inside(generated, real), _share_inside(real, generated)


def _share_inside(points: Tensor, manifold: Tensor) -> float:
    radius = torch.cdist(manifold, manifold).kthvalue(1 + NEIGHBOURS, dim=1).values
    return float((torch.cdist(points, manifold) <= radius).any(dim=1).double().mean())


def nearest_distance(matrix: Tensor, training: Tensor, kinematics: Kinematics) -> float:
    """Mean over poses (N, 21, 3, 3) of the distance to the nearest of the training poses, mm.

    The distance is the root mean square over the 21 joints.
    """
    nearest = torch.full((len(matrix),), torch.inf)
    joints = kinematics(matrix)[:, 1:].flatten(start_dim=1)
    for block in training.split(10_000):
        others = kinematics(block)[:, 1:].flatten(start_dim=1)
        nearest = nearest.minimum(torch.cdist(joints, others).amin(dim=1))
    return 1000 * float(nearest.mean()) / JOINTS**0.5


def average_pairwise_distance(joints: Tensor) -> Tensor:
    """Mean distance of joints between two of n poses: (..., n, K, 3) metres -> (...), mm."""
    n = joints.shape[-3]
    flat = joints.transpose(-3, -2)
    distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return 1000 * distance.sum(dim=(-2, -1)).mean(dim=-1) / (n * (n - 1))
