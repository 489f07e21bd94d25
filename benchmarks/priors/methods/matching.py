"""Riemannian flow matching on SO(3)^21."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.priors.data import JOINTS, Stream, log_haar
from benchmarks.priors.methods.base import LatentMethod, Search, filled_in
from benchmarks.priors.methods.networks import TimedNetwork
from benchmarks.priors.training import Clock, Recipe, optimise
from flowprior import rotations

__all__ = ["Matching"]


@dataclass(frozen=True)
class MatchingSettings(Search):
    """Settings; change them on validation subjects only.

    Attributes:
        hidden: Width of the network.
        blocks: Residual blocks of two layers.
        rate: Highest learning rate.
        spread: Size of the source density relative to the data's, joint by joint.
        steps: Midpoint steps of generation.
        completion_steps: Midpoint steps of a completion.
        resample: Times each step of a completion is repeated, with fresh noise in between.
        few_steps: Euler steps of latents that are optimised.
        density_steps: Midpoint steps of log-densities.
    """

    candidates: int = 8
    starts: int = 2
    iterations: int = 40
    hidden: int = 512
    blocks: int = 2
    rate: float = 1e-3
    spread: float = 1.0
    steps: int = 50
    completion_steps: int = 25
    resample: int = 2
    few_steps: int = 6
    density_steps: int = 25


class Matching(LatentMethod):
    """A velocity on the manifold that carries a wrapped Gaussian to the poses along geodesics.

    The network is an MLP of four layers 512 wide between an input and an output layer. Completions
    impute the known rotations at every step; measurements are explained by optimising the source
    through a few steps of the integration.

    Args:
        settings: Settings.

    References:
        Chen and Lipman, *Flow Matching on General Geometries*, 2024; Ben-Hamu et al., *D-Flow:
        Differentiating through Flows for Controlled Generation*, 2024.
    """

    name = "matching"
    middle: Tensor
    scale: Tensor

    def __init__(self, settings: MatchingSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or MatchingSettings()
        self.search = self.settings
        self.network = TimedNetwork(
            9 * JOINTS, 3 * JOINTS, self.settings.hidden, self.settings.blocks
        )
        self.register_buffer("middle", torch.eye(3).repeat(JOINTS, 1, 1))
        self.register_buffer("scale", torch.ones(JOINTS, 1))

    def fit(self, stream: Stream, clock: Clock) -> int:
        """As :meth:`Method.fit`."""
        recipe = Recipe(rate=self.settings.rate)
        self._measure(stream.batch(20_000))

        def loss() -> Tensor:
            end = stream.batch(recipe.batch)
            time = torch.rand(len(end), 1, generator=stream.generator)
            with torch.no_grad():
                noise = torch.randn(len(end), 3 * JOINTS, generator=stream.generator)
                start = self._source(noise)
                velocity = rotations.matrix_to_rotvec(start.mT @ end)
                between = start @ rotations.rotvec_to_matrix(time[..., None] * velocity)
                velocity = (velocity / self.scale).flatten(start_dim=-2)
            return (self._scaled_velocity(between, time) - velocity).square().mean()

        self.train()
        steps = optimise(loss, self.network.parameters(), clock, recipe)
        self.eval()
        return steps

    @torch.no_grad()
    def _measure(self, matrix: Tensor) -> None:
        """Set the middle and the size of the source: the mean rotations and their spread."""
        u, _, vh = torch.linalg.svd(matrix.mean(dim=0))
        sign = torch.ones(JOINTS, 3)
        sign[:, 2] = torch.linalg.det(u @ vh)
        self.middle.copy_(u * sign[:, None] @ vh)
        away = rotations.matrix_to_rotvec(self.middle.mT @ matrix)
        self.scale.copy_(away.square().mean(dim=(0, -1)).sqrt().clamp(0.03, 0.8)[:, None])

    def _source(self, z: Tensor) -> Tensor:
        """Standard normal z (..., 63) -> poses of the source density (..., 21, 3, 3)."""
        away = self.settings.spread * self.scale * z.unflatten(-1, (JOINTS, 3))
        return self.middle @ rotations.rotvec_to_matrix(away)

    def _scaled_velocity(self, matrix: Tensor, time: Tensor) -> Tensor:
        return self.network((self.middle.mT @ matrix).flatten(start_dim=-3), time)

    def _velocity(self, matrix: Tensor, time: float) -> Tensor:
        """Velocity (n, 21, 3) in the rotating frames."""
        times = matrix.new_full((len(matrix), 1), time)
        return self.scale * self._scaled_velocity(matrix, times).unflatten(-1, (JOINTS, 3))

    def _step(self, matrix: Tensor, time: float, size: float, *, midpoint: bool = True) -> Tensor:
        velocity = self._velocity(matrix, time)
        if midpoint:
            half = matrix @ rotations.rotvec_to_matrix(size / 2 * velocity)
            velocity = self._velocity(half, time + size / 2)
        return matrix @ rotations.rotvec_to_matrix(size * velocity)

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.draw`."""
        matrix = self._source(self.draw_latents(count, generator))
        size = 1 / self.settings.steps
        for number in range(self.settings.steps):
            matrix = self._step(matrix, number * size, size)
        return matrix

    def decode(self, z: Tensor) -> Tensor:
        """As :meth:`LatentMethod.decode`, in a few Euler steps."""
        matrix, size = self._source(z), 1 / self.settings.few_steps
        for number in range(self.settings.few_steps):
            matrix = self._step(matrix, number * size, size, midpoint=False)
        return matrix

    @torch.no_grad()
    def encode(self, matrix: Tensor) -> Tensor:
        """As :meth:`LatentMethod.encode`: the integration backwards."""
        size = 1 / self.settings.few_steps
        for number in range(self.settings.few_steps, 0, -1):
            matrix = self._step(matrix, number * size, -size)
        away = rotations.matrix_to_rotvec(self.middle.mT @ matrix)
        return (away / (self.settings.spread * self.scale)).flatten(start_dim=-2)

    @torch.no_grad()
    def complete(
        self, matrix: Tensor, known: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """As :meth:`Method.complete`: generation in which known rotations follow their geodesics.

        Each step is repeated: the pose goes back to the time before it on the geodesics from a
        fresh source to the pose it is heading for, which lets known and unknown rotations agree.
        """
        settings = self.settings
        target = matrix.repeat_interleave(count, dim=0)
        given, size = known[:, None, None], 1 / settings.completion_steps
        source = self._source(self.draw_latents(len(target), generator))
        x = source
        for number in range(settings.completion_steps):
            time = number * size
            for repeat in range(settings.resample):
                if repeat:
                    heading = x @ rotations.rotvec_to_matrix(
                        (1 - time - size) * self._velocity(x, time + size)
                    )
                    source = self._source(self.draw_latents(len(target), generator))
                    x = _between(source, torch.where(given, target, heading), time)
                x = torch.where(given, _between(source, target, time), x)
                x = self._step(x, time, size)
        return filled_in(x.unflatten(0, (len(matrix), count)), matrix, known)

    @torch.no_grad()
    def log_prob(self, matrix: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.log_prob`, with an unbiased estimate of the divergence.

        Along fields that turn with the pose, the divergence is the sum of each component's
        derivative along its own field, because the group is unimodular.
        """
        size, total = 1 / self.settings.density_steps, matrix.new_zeros(len(matrix))
        for number in range(self.settings.density_steps, 0, -1):
            middle = self._step(matrix, number * size, -size / 2)
            time = (number - 0.5) * size
            probe = torch.randn(len(matrix), JOINTS, 3, generator=generator)
            with torch.enable_grad():
                turn = torch.zeros_like(probe).requires_grad_()
                velocity = self._velocity(middle @ rotations.rotvec_to_matrix(turn), time)
                (slope,) = torch.autograd.grad((velocity * probe).sum(), turn)
            total = total - size * (slope * probe).sum(dim=(-2, -1))
            matrix = matrix @ rotations.rotvec_to_matrix(-size * velocity.detach())
        spread = self.settings.spread * self.scale
        away = rotations.matrix_to_rotvec(self.middle.mT @ matrix)
        gauss = -(away / spread).square() / 2 - spread.log() - 0.5 * math.log(2 * math.pi)
        return total + gauss.sum(dim=(-2, -1)) - log_haar(away).sum(dim=-1)


def _between(start: Tensor, end: Tensor, time: float) -> Tensor:
    """Poses at a time from 0 to 1 of the geodesics between two poses."""
    return start @ rotations.rotvec_to_matrix(time * rotations.matrix_to_rotvec(start.mT @ end))
