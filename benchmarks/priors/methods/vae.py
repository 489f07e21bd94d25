"""A variational autoencoder of VPoser's size."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.priors.data import JOINTS, Stream
from benchmarks.priors.methods.base import LatentMethod, Search
from benchmarks.priors.training import Clock, Recipe, optimise
from flowprior import rotations

__all__ = ["Vae"]


@dataclass(frozen=True)
class VaeSettings(Search):
    """Settings; change them on validation subjects only.

    Attributes:
        latents: Size of the code.
        hidden: Width of both networks.
        beta: Weight of the divergence from the standard normal density.
        rate: Highest learning rate.
    """

    completion_sigma: float = 0.1
    latents: int = 32
    hidden: int = 512
    beta: float = 0.01
    rate: float = 1e-3


class Vae(LatentMethod):
    """Codes of 32 numbers, decoded to 6D vectors; 0.94 million parameters.

    The reconstruction loss is the distance of joints and of rotation matrices. Conditional answers
    optimise the code.

    Args:
        settings: Settings.

    References:
        Pavlakos et al., *Expressive Body Capture*, 2019 (VPoser).
    """

    name = "vae"

    def __init__(self, settings: VaeSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or VaeSettings()
        self.search, self.latents = self.settings, self.settings.latents
        width = self.settings.hidden
        self.encoder = nn.Sequential(
            nn.BatchNorm1d(3 * JOINTS),
            nn.Linear(3 * JOINTS, width),
            nn.LeakyReLU(),
            nn.BatchNorm1d(width),
            nn.Dropout(0.1),
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, 2 * self.latents),
        )
        self.decoder = nn.Sequential(
            nn.Linear(self.latents, width),
            nn.LeakyReLU(),
            nn.Dropout(0.1),
            nn.Linear(width, width),
            nn.LeakyReLU(),
            nn.Linear(width, 6 * JOINTS),
        )

    def fit(self, stream: Stream, clock: Clock) -> int:
        """As :meth:`Method.fit`."""
        recipe = Recipe(rate=self.settings.rate)

        def loss() -> Tensor:
            matrix = stream.batch(recipe.batch)
            mean, spread = self._code(matrix)
            noise = torch.randn(mean.shape, generator=stream.generator)
            decoded = self.decode(mean + spread * noise)
            divergence = (mean.square() + spread.square()) / 2 - spread.log() - 0.5
            away = (self.kinematics(decoded) - self.kinematics(matrix)).norm(dim=-1)
            rotation = (decoded - matrix).square().sum(dim=(-2, -1))
            reconstruction = 10 * away.mean() + rotation.mean()
            return reconstruction + self.settings.beta * divergence.sum(dim=-1).mean()

        self.train()
        steps = optimise(loss, self.parameters(), clock, recipe)
        self.eval()
        return steps

    def _code(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        rotvecs = rotations.matrix_to_rotvec(matrix).flatten(start_dim=-2)
        mean, spread = self.encoder(rotvecs).chunk(2, dim=-1)
        return mean, F.softplus(spread) + 1e-4

    def decode(self, z: Tensor) -> Tensor:
        """As :meth:`LatentMethod.decode`."""
        return rotations.rot6d_to_matrix(self.decoder(z).unflatten(-1, (JOINTS, 6)))

    @torch.no_grad()
    def encode(self, matrix: Tensor) -> Tensor:
        """As :meth:`LatentMethod.encode`."""
        return self._code(matrix)[0]
