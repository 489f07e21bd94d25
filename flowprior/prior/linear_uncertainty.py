"""Uncertainty of joints without samples: flow and forward kinematics, linearised at the mode."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.prior.uncertainty import PosedBody, on_body, places_on, positions

__all__ = ["angles_of", "change_of_rotations", "directions", "lengths_of", "move_joints"]

NODES = 512


def directions(size: int) -> Tensor:
    """Latents (D, D) over whose plus and minus differences are taken.

    They are orthogonal, as long as typical samples, sqrt(D), and every entry of each is used: a
    tangent at the mode itself describes samples badly, because the flow bends on the way to them.
    The rows are those of the discrete cosine transform.

    References:
        Arasaratnam and Haykin, *Cubature Kalman Filters*, 2009, for points at this distance.
    """
    row = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (row + 0.5) * row[:, None])
    basis[0] /= math.sqrt(2)
    return math.sqrt(2) * basis


def change_of_rotations(positive: Tensor, negative: Tensor) -> Tensor:
    """How vectors in the chart change along each direction: (B, J, 3, D).

    Args:
        positive: (B, D, 3 J) decoded :func:`directions`.
        negative: (B, D, 3 J) decoded directions with the opposite sign.
    """
    change = (positive - negative) / (2 * math.sqrt(positive.shape[1]))
    return change.unflatten(-1, (-1, 3)).movedim(1, -1)


def move_joints(change: Tensor, mode: Tensor, body: PosedBody, betas: Tensor | None) -> Tensor:
    """How the joints of a body move along each direction: (B, K, 3, D) in mm.

    Args:
        change: (B, J, 3, D), how the rotation of each joint turns, about axes of its own frame.
        mode: (B, J, 3, 3) rotations.
        body: The body, of K joints.
        betas: (B, 10) or None.
    """
    skeleton = body.skeleton
    places = positions(body, mode[:, None], skeleton, betas)[:, 0]
    local = on_body(mode, skeleton)
    turns = change.new_zeros(*local.shape[:2], *change.shape[2:])
    source, target = places_on(mode.shape[1], skeleton)
    turns[:, list(target)] = change[:, list(source)]
    whole: dict[int, Tensor] = {}
    moved: dict[int, Tensor] = {}
    turned: dict[int, Tensor] = {}
    for joint in _from_the_root(skeleton.parents):
        parent = skeleton.parents[joint]
        if parent < 0:
            whole[joint], moved[joint] = local[:, joint], torch.zeros_like(turns[:, joint])
            turned[joint] = whole[joint] @ turns[:, joint]
            continue
        bone = places[:, joint] - places[:, parent]
        # A turn w of the parent's frame moves its child by w x bone.
        moved[joint] = moved[parent] + torch.cross(turned[parent], bone[..., None], dim=1)
        whole[joint] = whole[parent] @ local[:, joint]
        turned[joint] = turned[parent] + whole[joint] @ turns[:, joint]
    return torch.stack([moved[joint] for joint in range(len(moved))], dim=1)


def _from_the_root(parents: Sequence[int]) -> list[int]:
    """The joints in an order in which parents come first."""
    depth = [0] * len(parents)
    for joint, parent in enumerate(parents):
        while parent >= 0:
            depth[joint], parent = depth[joint] + 1, parents[parent]
    return sorted(range(len(parents)), key=depth.__getitem__)


def lengths_of(covariance: Tensor, degrees_of_freedom: Tensor | None) -> Tensor:
    """Lengths of vectors with a normal or Student's t distribution, at fixed nodes.

    Args:
        covariance: (B, K, 3, 3) scale matrices.
        degrees_of_freedom: () of a Student's t; None for a normal distribution.

    Returns:
        (B, n, K), ascending.
    """
    scale = torch.linalg.eigvalsh(covariance).clamp(min=0)  # (B, K, 3)
    nodes = _nodes(degrees_of_freedom).to(scale)
    return (nodes.square() @ scale.mT).clamp(min=0).sqrt().sort(dim=1).values


def angles_of(lengths: Tensor) -> Tensor:
    """Angles in degrees of vectors of given lengths in the chart of rotations."""
    along = torch.stack((lengths, *(2 * (torch.zeros_like(lengths),))), dim=-1)
    turned = rotations.chart_to_matrix(along.clamp(max=rotations.CHART_RADIUS))
    cosine = (turned[..., 1, 1] + turned[..., 2, 2]) / 2
    sine = turned[..., 2, 1]
    return torch.rad2deg(torch.atan2(sine.abs(), cosine))


def _nodes(degrees_of_freedom: Tensor | None) -> Tensor:
    """Points (n, 3) of equal weight: evenly spread normal vectors, stretched for a Student's t."""
    even = torch.quasirandom.SobolEngine(4).draw(NODES + 1, dtype=torch.float64)[1:]
    even = even * (1 - 1 / NODES) + 0.5 / NODES
    normal = math.sqrt(2) * torch.erfinv(2 * even - 1)
    points = normal[:, :3]
    if degrees_of_freedom is not None:
        # Wilson and Hilferty: the cube root of a chi-square over its degrees of freedom is normal.
        part = 2 / (9 * degrees_of_freedom.double().cpu())
        ratio = (1 - part + normal[:, 3] * part.sqrt()).clamp(min=0.05) ** 3
        points = points / ratio.sqrt()[:, None]
    return points
