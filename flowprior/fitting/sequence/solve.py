"""Gauss-Newton over windows of a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowprior.fitting.sequence.evidence import Measurement, State
from flowprior.fitting.sequence.motion_term import MotionTerm
from flowprior.fitting.sequence.normal import NormalEquations, Step
from flowprior.fitting.sequence.pose_term import PoseTerm
from flowprior.fitting.sequence.walk import Walk
from flowprior.rotations import rotvec_to_matrix

__all__ = ["KnownShape", "Problem", "Solved"]

# Weak pulls that keep directions that nothing determines where they are, per rad^2 and m^2.
DAMPING = 1.0
TRANSL_DAMPING = 1e-3
LONGEST_TURN = 0.6  # radians, of a joint in one step
EXPAND_EVERY = 2
PRECISE_FPS = 60.0
"""Above it, in float64: the random walk grows with the cube of the rate, other terms do not."""


@dataclass(frozen=True)
class Solved:
    """Solved windows.

    Args:
        state: The windows.
        step: The last step, for covariances.
    """

    state: State
    step: Step


@dataclass(frozen=True)
class KnownShape:
    """Normal distributions of shapes, from other windows.

    Args:
        mean: (Q, S).
        information: (Q, S, S) inverse covariance.
    """

    mean: Tensor
    information: Tensor


@dataclass(frozen=True)
class Problem:
    """Windows of frames, with what is known of them.

    Args:
        measurement: What was measured.
        walk: The random walk.
        pose: The pose prior; None without.
        joints: The joints whose rotations are variables.
        fit_shape: Whether the shape is a variable.
        motion: The motion prior beside the random walk; None without.
        known_shape: What is known of the shapes besides; standard normal if None.
    """

    measurement: Measurement
    walk: Walk
    pose: PoseTerm | None
    joints: tuple[int, ...]
    fit_shape: bool
    motion: MotionTerm | None = None
    known_shape: KnownShape | None = None

    @torch.no_grad()
    def minimise(self, state: State, iterations: int, late: int = 1) -> Solved:
        """Take steps from a start.

        Args:
            state: The start.
            iterations: Number of steps.
            late: Steps before the priors, which are expanded around poses, join in.
        """
        step = None
        for number in range(iterations):
            pose = self.pose if number >= late else None
            if pose is not None and (number - late) % EXPAND_EVERY == 0:
                pose.linearise(state.rotation)
            motion = self.motion if number >= late else None
            step = self._step(state, pose, motion, rough=number < late)
            state = self._moved(state, step)
        assert step is not None
        return Solved(state, step)

    def _step(
        self, state: State, pose: PoseTerm | None, motion: MotionTerm | None, *, rough: bool
    ) -> Step:
        windows, frames = state.rotation.shape[:2]
        size = 3 * len(self.joints) + 3
        shapes = state.shape.shape[-1] if self.fit_shape else 0
        like = state.transl.double() if self.walk.fps > PRECISE_FPS else state.transl
        system = NormalEquations(
            like, windows, frames, size, shapes, state.person, len(state.shape)
        )
        self.measurement.add_to(system, state, self.joints)
        self.walk.add_to(system, state.rotation.to(like), like, rough=rough)
        if pose is not None:
            pose.add_to(system, state.rotation, self.joints)
        if motion is not None:
            motion.add_to(system, state.rotation, self.joints)
        if shapes and self.known_shape is None:
            system.shape_hessian += torch.eye(shapes).to(state.shape)
            system.shape_gradient += state.shape
        elif shapes and self.known_shape is not None:
            information, away = self.known_shape.information, state.shape - self.known_shape.mean
            system.shape_hessian += information
            system.shape_gradient += (information @ away[..., None])[..., 0]
        damping = torch.full((size,), DAMPING).to(like)
        damping[-3:] = TRANSL_DAMPING
        return system.solve(damping).to(state.transl)

    def _moved(self, state: State, step: Step) -> State:
        size = 3 * len(self.joints)
        turn = step.move[..., :size].unflatten(-1, (-1, 3))
        length = turn.norm(dim=-1, keepdim=True)
        turn = turn * (LONGEST_TURN / length.clamp(min=LONGEST_TURN))
        rotation = state.rotation.clone()
        own = list(self.joints)
        rotation[:, :, own] = rotation[:, :, own] @ rotvec_to_matrix(turn)
        shape = state.shape + step.shape if self.fit_shape else state.shape
        return replace(
            state, rotation=rotation, transl=state.transl + step.move[..., size:], shape=shape
        )


def moving_joints(*groups: Sequence[int]) -> tuple[int, ...]:
    """The joints of any of the groups, ascending."""
    return tuple(sorted({joint for group in groups for joint in group}))
