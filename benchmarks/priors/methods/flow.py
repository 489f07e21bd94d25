"""An unconditional flow of this library."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.priors.data import JOINTS, Stream
from benchmarks.priors.methods.base import LatentMethod, Search
from benchmarks.priors.training import Clock, Recipe, optimise
from flowprior import ConditionalPosePrior, rotations
from flowprior.prior.posterior import PosePosterior

__all__ = ["Flow"]


@dataclass(frozen=True)
class FlowSettings(Search):
    """Settings; change them on validation subjects only.

    Attributes:
        hidden: Width of the conditioners.
        steps: Number of steps.
        coupling: Kind of the couplings.
        rate: Highest learning rate.
        decay: Weight decay.
    """

    hidden: int = 256
    steps: int = 6
    coupling: str = "additive"
    rate: float = 2e-3
    decay: float = 0.01


class Flow(LatentMethod):
    """A density of poses; conditional answers optimise its latents.

    Args:
        settings: Settings.
    """

    name = "flow"

    def __init__(self, settings: FlowSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or FlowSettings()
        self.search = self.settings
        self.prior = ConditionalPosePrior(
            0,
            joints=JOINTS,
            hidden_features=self.settings.hidden,
            num_steps=self.settings.steps,
            coupling=self.settings.coupling,
            target_noise=0.0,  # the stream has its own
        )
        self._frozen: PosePosterior | None = None

    def fit(self, stream: Stream, clock: Clock) -> int:
        """As :meth:`Method.fit`."""
        recipe = Recipe(rate=self.settings.rate, decay=self.settings.decay, clip=50.0)
        self.train()
        with torch.no_grad():
            self.prior.nll(stream.batch(2000))
        steps = optimise(
            lambda: self.prior.nll(stream.batch(recipe.batch)),
            self.prior.parameters(),
            clock,
            recipe,
        )
        self.eval()
        return steps

    @property
    def _posterior(self) -> PosePosterior:
        if self._frozen is None:
            self._frozen = self.prior.freeze()(None)
        return self._frozen

    def decode(self, z: Tensor) -> Tensor:
        """As :meth:`LatentMethod.decode`."""
        return rotations.rot6d_to_matrix(self._posterior.decode(z, check=False))

    @torch.no_grad()
    def encode(self, matrix: Tensor) -> Tensor:
        """As :meth:`LatentMethod.encode`."""
        return self._posterior.encode(matrix)

    @torch.no_grad()
    def log_prob(self, matrix: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.log_prob`."""
        return self._posterior.log_prob(matrix)
