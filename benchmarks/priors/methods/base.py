"""What every prior of the contest answers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.priors.data import JOINTS, Kinematics, Stream
from benchmarks.priors.observations import Observation
from benchmarks.priors.training import Clock
from flowprior.fitting import minimize
from flowprior.fitting.solver import Objective

__all__ = ["LatentMethod", "Method", "Search", "descend", "filled_in"]


class Method(nn.Module, ABC):
    """A prior over poses (21, 3, 3)."""

    name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.kinematics = Kinematics()

    @abstractmethod
    def fit(self, stream: Stream, clock: Clock) -> int:
        """Train until the clock's budget is spent; return the number of steps."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Generate poses (count, 21, 3, 3)."""

    @abstractmethod
    def complete(
        self, matrix: Tensor, known: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """Complete poses whose rotations are known in part.

        Args:
            matrix: (P, 21, 3, 3); unknown rotations hold anything.
            known: (21,) bool.
            count: Number n of answers for each pose.
            generator: Source of randomness.

        Returns:
            (P, n, 21, 3, 3), with the known rotations exact.
        """

    @abstractmethod
    def infer(self, observation: Observation, generator: torch.Generator) -> Tensor:
        """The most plausible poses (P, 21, 3, 3) that explain measurements."""

    def log_prob(self, matrix: Tensor, generator: torch.Generator) -> Tensor | None:
        """Log-density (P,) of poses (P, 21, 3, 3) w.r.t. Haar measure of mass 1; None if unknown.

        The generator serves estimates of the density.
        """
        return None


def filled_in(answers: Tensor, matrix: Tensor, known: Tensor) -> Tensor:
    """Answers (P, n, 21, 3, 3) with the known rotations of ``matrix`` (P, 21, 3, 3)."""
    return torch.where(known[:, None, None], matrix[:, None], answers)


@dataclass(frozen=True)
class Search:
    """Effort and weights of the optimisation of latents.

    Attributes:
        candidates: Latents drawn for each problem.
        starts: How many of the candidates, those that explain the measurements best, are descended
            from.
        iterations: Largest number of L-BFGS steps.
        completion_iterations: The same for completion.
        completion_sigma: Noise of the known rotations of a completion, radians.
    """

    candidates: int = 16
    starts: int = 3
    iterations: int = 60
    completion_iterations: int = 30
    completion_sigma: float = 0.1


class LatentMethod(Method):
    """A prior whose poses are decoded latents; it answers measurements by their optimisation."""

    search = Search()
    latents: int = 3 * JOINTS

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Latents (n, D) -> poses (n, 21, 3, 3)."""

    def energy(self, z: Tensor) -> Tensor:
        """Negative log-density of latents (n, D) up to a constant, (n,)."""
        return z.square().sum(dim=-1) / 2

    def encode(self, matrix: Tensor) -> Tensor | None:
        """Latents (n, D) of poses, another candidate where rotations are measured."""
        return None

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Latents (count, D) of the prior."""
        return torch.randn(count, self.latents, generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.draw`."""
        with torch.no_grad():
            return self.decode(self.draw_latents(count, generator))

    def complete(
        self, matrix: Tensor, known: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """As :meth:`Method.complete`: one descent for each answer, near a random latent.

        Each random latent is also the centre of the energy, so the answers spread like samples:
        where decoding is linear they are samples (*perturb and optimise*).
        """
        observation = Observation(
            rotations=matrix.repeat_interleave(count, dim=0),
            known=known.float().expand(count * len(matrix), JOINTS),
            rotation_sigma=self.search.completion_sigma,
        )
        start = self.draw_latents(len(observation), generator)
        found = self._descend(
            observation, start[:, None], self.search.completion_iterations, centre=start
        )
        return filled_in(found.unflatten(0, (len(matrix), count)), matrix, known)

    def infer(self, observation: Observation, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.infer`: the best of several descents."""
        count, candidates = len(observation), self.search.candidates
        start = self.draw_latents(count * candidates, generator).unflatten(0, (count, candidates))
        start[:, 0] = 0
        if observation.rotations is not None:
            encoded = self.encode(observation.rotations)
            if encoded is not None:
                start = torch.cat((start, encoded[:, None]), dim=1)
        return self._descend(observation, start, self.search.iterations)

    def _descend(
        self,
        observation: Observation,
        candidates: Tensor,
        iterations: int,
        centre: Tensor | None = None,
    ) -> Tensor:
        def objective(z: Tensor, problem: Tensor) -> Tensor:
            misfit = observation.misfit(self.decode(z), problem, self.kinematics)
            return misfit + self.energy(z if centre is None else z - centre[problem])

        best = descend(objective, candidates, self.search.starts, iterations)
        with torch.no_grad():
            return self.decode(best)


def descend(objective: Objective, candidates: Tensor, starts: int, iterations: int) -> Tensor:
    """Minimise P objectives from the best of some candidates.

    Args:
        objective: Maps latents (n, D) and the problems (n,) they are for to values (n,).
        candidates: (P, K, D).
        starts: How many of the candidates with the lowest values to descend from.
        iterations: Largest number of L-BFGS steps.

    Returns:
        The best latents (P, D).
    """
    problems, count, width = candidates.shape
    problem = torch.arange(problems)
    if count > starts:
        with torch.no_grad():
            value = objective(candidates.flatten(0, 1), problem.repeat_interleave(count))
        order = value.unflatten(0, (problems, count)).nan_to_num(torch.inf).argsort(dim=1)
        candidates = candidates.gather(1, order[:, :starts, None].expand(-1, -1, width))
        count = starts
    owner = problem.repeat_interleave(count)
    solution = minimize(
        lambda z, rows: objective(z, owner[rows]),
        candidates.flatten(0, 1),
        max_iterations=iterations,
        tolerance_gradient=1e-2,
        tolerance_value=1e-5,
        memory=10,
    )
    value = solution.value.unflatten(0, (problems, count)).nan_to_num(torch.inf)
    best = value.argmin(dim=1)
    x = solution.x.unflatten(0, (problems, count))
    return x[problem, best]
