"""A diffusion prior in the style of DPoser."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.priors.data import JOINTS, Stream
from benchmarks.priors.methods.base import Method, filled_in
from benchmarks.priors.methods.networks import TimedNetwork
from benchmarks.priors.observations import Observation
from benchmarks.priors.training import Clock, Recipe, optimise
from flowprior import rotations
from flowprior.fitting import minimize

__all__ = ["Diffusion"]

# The variance-preserving process: noise rates at both ends of time.
BETA_FROM, BETA_TO = 0.1, 20.0
EARLIEST = 1e-3


@dataclass(frozen=True)
class DiffusionSettings:
    """Settings; change them on validation subjects only.

    Attributes:
        hidden: Width of the network.
        blocks: Number of residual blocks.
        prediction: What the network predicts, "epsilon" or "x0".
        rate: Highest learning rate.
        steps: Steps of generation.
        completion: "optimise", the truncated schedule, or "impute", which generates poses and
            replaces the known rotations at each step.
        completion_steps: Steps of a completion.
        completion_rate: Learning rate of Adam for it.
        completion_from: Time of the first step of the truncated schedule, of 1.
        completion_to: Time of the last step.
        inference_steps: Steps for measurements.
        inference_rate: Learning rate of Adam for them.
        inference_from: Time of the first step.
        inference_to: Time of the last step.
        weight: Weight of the prior beside the measurements; 1 is that of the smoothed density.
        polish: Final L-BFGS steps towards the measurements, with the pose's own denoised version
            as the prior.
    """

    hidden: int = 512
    blocks: int = 3
    prediction: str = "epsilon"
    rate: float = 1e-3
    steps: int = 100
    completion: str = "optimise"
    completion_steps: int = 60
    completion_rate: float = 0.1
    completion_from: float = 0.3
    completion_to: float = 0.02
    inference_steps: int = 200
    inference_rate: float = 0.05
    inference_from: float = 0.4
    inference_to: float = 0.05
    weight: float = 1.0
    polish: int = 20


class Diffusion(Method):
    """Denoising of standardised rotation vectors; measurements steer an optimisation of the pose.

    In each step of the optimisation, the pose is diffused to a time, denoised at once by the
    network, and drawn to the result, while the measurements act on the pose itself. The time runs
    through a truncated schedule from late to early: most of the process is left out.

    Args:
        settings: Settings.

    References:
        Lu et al., *DPoser: Diffusion Model as Robust 3D Human Pose Prior*, 2023; Song et al.,
        *Score-Based Generative Modeling through Stochastic Differential Equations*, 2021.
    """

    name = "diffusion"
    mean: Tensor
    scale: Tensor

    def __init__(self, settings: DiffusionSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or DiffusionSettings()
        width = 3 * JOINTS
        self.network = TimedNetwork(width, width, self.settings.hidden, self.settings.blocks)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, stream: Stream, clock: Clock) -> int:
        """As :meth:`Method.fit`."""
        recipe = Recipe(rate=self.settings.rate)
        vectors = _vectors(stream.batch(20_000))
        self.mean.copy_(vectors.mean(dim=0))
        self.scale.copy_(vectors.std(dim=0))

        def loss() -> Tensor:
            x = self._standard(stream.batch(recipe.batch))
            time = torch.rand(len(x), 1, generator=stream.generator)
            time = EARLIEST + (1 - EARLIEST) * time
            noise = torch.randn(x.shape, generator=stream.generator)
            signal, spread = _process(time)
            answer = self.network(signal * x + spread * noise, time)
            target = noise if self.settings.prediction == "epsilon" else x
            return (answer - target).square().mean()

        self.train()
        steps = optimise(loss, self.network.parameters(), clock, recipe)
        self.eval()
        return steps

    def _standard(self, matrix: Tensor) -> Tensor:
        return (_vectors(matrix) - self.mean) / self.scale

    def _pose(self, x: Tensor) -> Tensor:
        return rotations.rotvec_to_matrix((x * self.scale + self.mean).unflatten(-1, (JOINTS, 3)))

    def _denoised(self, noisy: Tensor, time: float) -> Tensor:
        """The network's estimate of x from x at a time, (n, 63) both."""
        signal, spread = _process(torch.full_like(noisy[:, :1], time))
        answer = self.network(noisy, torch.full_like(noisy[:, :1], time))
        if self.settings.prediction == "epsilon":
            answer = (noisy - spread * answer) / signal
        # Far from any standardised pose an estimate is wrong.
        return answer.clamp(-6, 6)

    @torch.no_grad()
    def _generate(
        self, x: Tensor, given: Tensor | None, steps: int, generator: torch.Generator
    ) -> Tensor:
        """Sample len(x) poses; entries ``given`` (63,) follow those of x.

        Without given entries the steps are deterministic, which loses the least variance; with
        them, they are stochastic, which lets the others adapt. Steps are shorter at early times.
        """
        noisy = torch.randn(x.shape, generator=generator)
        times = EARLIEST + (1 - EARLIEST) * torch.linspace(1, 0, steps + 1).square()
        for time, earlier in itertools.pairwise(times):
            (signal, spread), (next_signal, next_spread) = _process(time), _process(earlier)
            fresh = torch.zeros(())
            if given is not None:
                noise = torch.randn(x.shape, generator=generator)
                noisy = torch.where(given, signal * x + spread * noise, noisy)
                fresh = (1 - (signal / next_signal).square()).sqrt() * next_spread / spread
            clean = self._denoised(noisy, float(time))
            kept = (next_spread.square() - fresh.square()).clamp(min=0).sqrt()
            noisy = next_signal * clean + kept * (noisy - signal * clean) / spread
            if given is not None:
                noisy = noisy + fresh * torch.randn(x.shape, generator=generator)
        return self._denoised(noisy, EARLIEST)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.draw`."""
        start = torch.zeros(count, 3 * JOINTS)
        return self._pose(self._generate(start, None, self.settings.steps, generator))

    def complete(
        self, matrix: Tensor, known: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """As :meth:`Method.complete`."""
        settings = self.settings
        given = known.repeat_interleave(3)
        x = self._standard(matrix).repeat_interleave(count, dim=0)
        if settings.completion == "impute":
            x = self._generate(x, given, settings.completion_steps, generator)
        else:
            x = torch.where(given, x, torch.randn(x.shape, generator=generator))
            moment, square = torch.zeros_like(x), torch.zeros_like(x)
            for step, time in enumerate(self._times(completion=True)):
                pull, _ = self._pull(x, time, generator)
                pull = torch.where(given, 0.0, pull)
                x = _adam(x, pull, moment, square, step, settings.completion_rate)
        answers = self._pose(x).unflatten(0, (len(matrix), count))
        return filled_in(answers, matrix, known)

    def _times(self, *, completion: bool) -> list[float]:
        settings = self.settings
        if completion:
            ends = (settings.completion_from, settings.completion_to, settings.completion_steps)
        else:
            ends = (settings.inference_from, settings.inference_to, settings.inference_steps)
        times: list[float] = torch.linspace(*ends).tolist()
        return times

    @torch.no_grad()
    def _pull(self, x: Tensor, time: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Gradient of the smoothed negative log-density at x (n, 63), and the denoised x."""
        signal, spread = _process(torch.tensor(time))
        noise = torch.randn(x.shape, generator=generator)
        clean = self._denoised(signal * x + spread * noise, time)
        return (x - clean) * (signal / spread).square(), clean

    def infer(self, observation: Observation, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.infer`."""
        settings, problem = self.settings, torch.arange(len(observation))
        if observation.rotations is None:
            x = torch.zeros(len(observation), 3 * JOINTS)
        else:
            x = self._standard(observation.rotations)

        def misfit(x: Tensor, problem: Tensor) -> Tensor:
            return observation.misfit(self._pose(x), problem, self.kinematics)

        moment, square = torch.zeros_like(x), torch.zeros_like(x)
        for step, time in enumerate(self._times(completion=False)):
            pull, _ = self._pull(x, time, generator)
            x.requires_grad_()
            (slope,) = torch.autograd.grad(misfit(x, problem).sum(), x)
            x = x.detach()
            x = _adam(
                x, slope + settings.weight * pull, moment, square, step, settings.inference_rate
            )
        if settings.polish:
            signal, spread = _process(torch.tensor(settings.inference_to))
            clean = torch.stack(
                [self._pull(x, settings.inference_to, generator)[1] for _ in range(8)]
            ).mean(dim=0)
            stiffness = settings.weight * float((signal / spread).square())

            def objective(x: Tensor, rows: Tensor) -> Tensor:
                away = (x - clean[rows]).square().sum(dim=-1)
                return misfit(x, problem[rows]) + stiffness / 2 * away

            x = minimize(objective, x, max_iterations=settings.polish, memory=10).x
        return self._pose(x)


def _vectors(matrix: Tensor) -> Tensor:
    return rotations.matrix_to_rotvec(matrix).flatten(start_dim=-2)


def _process(time: Tensor) -> tuple[Tensor, Tensor]:
    """Factor of the signal and standard deviation of the noise at times (...) from 0 to 1."""
    log_signal = -0.5 * (BETA_FROM * time + 0.5 * (BETA_TO - BETA_FROM) * time.square())
    return log_signal.exp(), (1 - (2 * log_signal).exp()).clamp(min=1e-8).sqrt()


def _adam(
    x: Tensor, slope: Tensor, moment: Tensor, square: Tensor, step: int, rate: float
) -> Tensor:
    """One step of Adam; the moments are updated in place."""
    moment.lerp_(slope, 0.1)
    square.lerp_(slope.square(), 0.01)
    size = (square / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8
    return x - rate * moment / (1 - 0.9 ** (step + 1)) / size
