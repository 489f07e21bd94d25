"""How fast joints change their motion: the rates of the random walk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from flowprior.rotations import matrix_to_rotvec
from flowprior.skeleton import SMPL_24

__all__ = ["DEFAULT_RATES", "MotionRates"]

DEGREES_OF_FREEDOM = 4.0
"""Of Student's t distribution of accelerations: most are small, some are large."""

STEP_SECONDS = 0.1
VELOCITY_LOOSENESS = 30.0
SHRINKAGE = 0.3  # of correlations
THINNEST = 0.4  # axis of a joint, of the joint's rate: no joint is a perfect hinge
SIZE = 3 * SMPL_24.num_joints


@dataclass(frozen=True)
class MotionRates:
    r"""Rates of a random walk of rotations and translations in continuous time.

    Accelerations are white noise: over a time step :math:`\Delta` the velocity changes by a
    standard deviation of :math:`s\,\Delta^{1/2}`, so the second difference of a rotation has
    :math:`s\,\Delta^{3/2}`, at any frame rate. Rates of velocities work in the same way, one order
    lower. Joints move together, and knees and elbows about one axis, so accelerations have a
    covariance.

    Args:
        acceleration: 24 rates s, one per joint of SMPL, radians / s^1.5.
        velocity: 24 rates, radians / s^0.5.
        transl_acceleration: Of the translation, metres / s^1.5.
        transl_velocity: Of the translation, metres / s^0.5.
        covariance: (72, 72) of the accelerations about the joints' axes, divided by the rates of
            their joints; the identity if None.

    Raises:
        ValueError: If there are not 24 rates, one is not positive, or the covariance has another
            shape.
    """

    acceleration: tuple[float, ...]
    velocity: tuple[float, ...]
    transl_acceleration: float
    transl_velocity: float
    covariance: Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        joints = SMPL_24.num_joints
        if len(self.acceleration) != joints or len(self.velocity) != joints:
            raise ValueError(f"expected {joints} rates of accelerations and of velocities")
        every = (*self.acceleration, *self.velocity)
        every += (self.transl_acceleration, self.transl_velocity)
        if not all(0 < rate < math.inf for rate in every):
            raise ValueError("rates must be positive and finite")
        if self.covariance is not None and self.covariance.shape != (SIZE, SIZE):
            raise ValueError(
                f"the covariance must be ({SIZE}, {SIZE}), got {tuple(self.covariance.shape)}"
            )

    @classmethod
    def learn(
        cls,
        rotations: Sequence[Tensor],
        transl: Sequence[Tensor],
        fps: float,
        *,
        looseness: float = 3.5,
    ) -> "MotionRates":
        """Learn the rates from clips; left and right are taken as mirror images.

        Joints of motion capture tremble from frame to frame and move in steps of a tenth of a
        second, so differences are taken over this time: the rates of feet and wrists would be three
        times as high from consecutive frames, those of hips and elbows the same.

        Args:
            rotations: Rotations (F, 24, 3, 3) of each clip.
            transl: Translations (F, 3) of each clip, metres.
            fps: Frames per second.
            looseness: Factor of the root mean square of the accelerations. Those of one motion are
                no white noise, and people that were not recorded move faster than those that were;
                the default was chosen on the validation clips. The velocities have the factor 30,
                which matters where little is known: lower ones, which expect slow motions, were
                worse.

        Returns:
            The rates.

        Raises:
            ValueError: If no clip is longer than a fifth of a second.
        """
        step = max(1, round(STEP_SECONDS * fps))
        turns, changes, moves, bends = [], [], [], []
        for turned, place in zip(rotations, transl, strict=True):
            for start in range(min(step, len(turned) - 2 * step)):
                some, points = turned[start::step], place[start::step]
                turns.append(matrix_to_rotvec(some[:-1].mT @ some[1:]))
                changes.append(turns[-1].diff(dim=0))
                moves.append(points.diff(dim=0)[:, None])
                bends.append(points.diff(n=2, dim=0)[:, None])
        if not turns:
            raise ValueError("the clips are too short to learn rates from")
        change = _both_sides(torch.cat(changes))
        rate = fps / step
        second, first = looseness * rate**1.5, VELOCITY_LOOSENESS * rate**0.5
        return cls(
            tuple((second * _scale(change)).tolist()),
            tuple((first * _scale(_both_sides(torch.cat(turns)))).tolist()),
            float(second * _scale(torch.cat(bends))),
            float(first * _scale(torch.cat(moves))),
            _relative_covariance(change),
        )


def _both_sides(rotvec: Tensor) -> Tensor:
    """Changes (N, 24, 3) and their mirror images, in double precision."""
    sides = torch.tensor([1.0, -1.0, -1.0]).to(rotvec)
    return torch.cat([rotvec, rotvec[:, list(SMPL_24.flip)] * sides]).double()


def _scale(x: Tensor) -> Tensor:
    """Root mean square (J,) of the coordinates of vectors (N, J, 3)."""
    return x.double().square().mean(dim=(0, 2)).clamp(min=1e-9).sqrt()


def _relative_covariance(change: Tensor) -> Tensor:
    """Covariance (72, 72) of changes (N, 24, 3) over the scales of their joints."""
    joint = _scale(change).repeat_interleave(3)
    flat = change.flatten(start_dim=1)
    axis = (flat.square().mean(dim=0).sqrt() / joint).clamp(min=THINNEST)
    axis = torch.where(joint > 1e-4, axis, 1)
    flat = flat / (axis * joint)
    # All joints of a frame are fast or slow together: fast frames alone would decide.
    energy = flat.square().mean(dim=1, keepdim=True)
    flat = flat / (energy + energy.median()).sqrt()
    correlation = flat.mT @ flat
    size = correlation.diagonal().clamp(min=1e-9).sqrt()
    correlation = (1 - SHRINKAGE) * correlation / size[:, None] / size
    correlation.diagonal().fill_(1)
    return (axis[:, None] * correlation * axis).float()


def _default_rates() -> MotionRates:
    file = resources.files("flowprior") / "assets" / "motion_rates.npz"
    with resources.as_file(file) as path, np.load(path) as values:
        move, speed = values["transl"].tolist()
        return MotionRates(
            tuple(values["acceleration"].tolist()),
            tuple(values["velocity"].tolist()),
            move,
            speed,
            torch.from_numpy(values["covariance"]),
        )


DEFAULT_RATES = _default_rates()
"""Rates of 251 training clips of the CMU Graphics Lab Motion Capture Database.

``python -m tools.motion_rates`` makes them. The hands are at rest there.
"""
