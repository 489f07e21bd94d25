"""First guesses of a motion: averages and gaps of rotations."""

import math

import torch

from flowprior.fitting.sequence.start import smooth_rotations, without_gaps
from flowprior.rotations import geodesic_distance, rotvec_to_matrix


def about_x(degrees):
    """Rotations (1, T, 1, 3, 3) about the x axis."""
    angle = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return rotvec_to_matrix(torch.stack([angle, 0 * angle, 0 * angle], dim=-1))[None, :, None]


def test_rotations_are_averaged_on_so3():
    """GAGAvatar_track#4: the mean of the vectors of 179 and -179 degrees would be no rotation."""
    rotation = about_x([179.0, -179.0] * 10)
    mean = smooth_rotations(rotation, torch.ones(1, 20, dtype=torch.bool), 3.0)
    away = torch.rad2deg(geodesic_distance(mean, about_x([180.0] * 20)))
    assert away.max() < 0.6
    torch.testing.assert_close(mean @ mean.mT, torch.eye(3).double().expand_as(mean))


def test_gaps_are_filled_along_the_short_way():
    """GAGAvatar_track#4: from 170 to -170 degrees through 180, not through 0."""
    known = torch.tensor([[True, False, False, False, True]])
    rotation = torch.where(known[:, :, None, None, None], about_x([170.0, 0, 0, 0, -170]), 0)
    expected = about_x([170.0, 175, 180, 185, 190])
    torch.testing.assert_close(without_gaps(rotation, known), expected)
