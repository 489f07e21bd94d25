"""How fast joints change their motion: the rates of the random walk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.rotations import matrix_to_rotvec
from flowprior.skeleton import SMPL_24

__all__ = ["DEFAULT_RATES", "MotionRates"]

DEGREES_OF_FREEDOM = 4.0
"""Of Student's t distribution of accelerations: most are small, some are large."""


@dataclass(frozen=True)
class MotionRates:
    r"""Rates of a random walk of rotations and translations in continuous time.

    Accelerations are white noise: over a time step :math:`\Delta` the velocity changes by a
    standard deviation of :math:`s\,\Delta^{1/2}`, so the second difference of a rotation has
    :math:`s\,\Delta^{3/2}`, at any frame rate. Rates of velocities work in the same way, one order
    lower.

    Args:
        acceleration: 24 rates s, one per joint of SMPL, radians / s^1.5.
        velocity: 24 rates, radians / s^0.5.
        transl_acceleration: Of the translation, metres / s^1.5.
        transl_velocity: Of the translation, metres / s^0.5.

    Raises:
        ValueError: If there are not 24 rates, or one is not positive.
    """

    acceleration: tuple[float, ...]
    velocity: tuple[float, ...]
    transl_acceleration: float
    transl_velocity: float

    def __post_init__(self) -> None:
        joints = SMPL_24.num_joints
        if len(self.acceleration) != joints or len(self.velocity) != joints:
            raise ValueError(f"expected {joints} rates of accelerations and of velocities")
        every = (*self.acceleration, *self.velocity)
        every += (self.transl_acceleration, self.transl_velocity)
        if not all(0 < rate < math.inf for rate in every):
            raise ValueError("rates must be positive and finite")

    @classmethod
    def learn(
        cls,
        rotations: Sequence[Tensor],
        transl: Sequence[Tensor],
        fps: float,
        *,
        looseness: float = 8.0,
    ) -> "MotionRates":
        """Learn the rates from clips.

        Args:
            rotations: Rotations (F, 24, 3, 3) of each clip.
            transl: Translations (F, 3) of each clip, metres.
            fps: Frames per second.
            looseness: Factor of the robust scale of the accelerations. People that were not
                recorded move faster than those that were; 8 was the best of 4, 8 and 16 on the
                validation clips. The velocities have three times this factor.

        Returns:
            The rates.
        """
        steps = [matrix_to_rotvec(each[:-1].mT @ each[1:]) for each in rotations]
        change = torch.cat([each[1:] - each[:-1] for each in steps])
        turn = torch.cat(steps)
        moves = [each[1:] - each[:-1] for each in transl]
        bend = torch.cat([each[1:] - each[:-1] for each in moves])
        move = torch.cat(moves)
        second, first = looseness * fps**1.5, 3 * looseness * fps**0.5
        return cls(
            tuple((second * _robust_scale(change)).tolist()),
            tuple((first * _robust_scale(turn)).tolist()),
            float(second * _robust_scale(bend[:, None])),
            float(first * _robust_scale(move[:, None])),
        )


def _robust_scale(x: Tensor) -> Tensor:
    """Scale (J,) per coordinate of vectors (N, J, 3) under Student's t distribution."""
    square = x.double().square().sum(dim=-1)
    scale = (square.mean(dim=0) / 3).clamp(min=1e-12)
    for _ in range(60):
        weight = (DEGREES_OF_FREEDOM + 3) / (DEGREES_OF_FREEDOM + square / scale)
        scale = ((weight * square).mean(dim=0) / 3).clamp(min=1e-9)
    return scale.sqrt()


DEFAULT_RATES = MotionRates(
    acceleration=(
        *(8.322, 12.233, 12.233, 8.741, 6.041, 6.041, 5.308, 12.106, 12.106, 6.318, 22.971, 22.971),
        *(5.991, 2.915, 2.915, 5.991, 13.723, 13.723, 9.984, 9.984, 23.093, 23.093, 0.05, 0.05),
    ),
    velocity=(
        *(1.32, 1.904, 1.904, 0.876, 1.234, 1.234, 0.589, 1.57, 1.57, 0.575, 1.63, 1.63),
        *(0.779, 0.55, 0.55, 0.779, 2.41, 2.41, 1.633, 1.633, 1.985, 1.985, 0.005, 0.005),
    ),
    transl_acceleration=1.708,
    transl_velocity=0.648,
)
"""Rates of 251 training clips of the CMU Graphics Lab Motion Capture Database, equal on both sides.

``MotionRates.learn`` gives them, before left and right are averaged. The hands are at rest there.
"""
