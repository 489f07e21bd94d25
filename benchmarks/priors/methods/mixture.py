"""SMPLify's Gaussian mixture over rotation vectors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.priors.data import JOINTS, Stream, log_haar
from benchmarks.priors.methods.base import LatentMethod, Search, filled_in
from benchmarks.priors.training import Clock
from flowprior import rotations

__all__ = ["Mixture"]


@dataclass(frozen=True)
class MixtureSettings(Search):
    """Settings; change them on validation subjects only.

    Attributes:
        components: Number of Gaussians, as in SMPLify.
        ridge: Added to the variances, radians squared.
        subset: Training poses that restarts of the EM algorithm compete on.
    """

    components: int = 8
    ridge: float = 1e-5
    subset: int = 20_000


class Mixture(LatentMethod):
    """Eight Gaussians with full covariances over 63 numbers, fitted by EM.

    The latents are the rotation vectors themselves. Rotations are completed in closed form;
    measurements of joints are explained by optimisation, with the density of the whole mixture.

    Args:
        settings: Settings.

    References:
        Bogo et al., *Keep it SMPL*, 2016.
    """

    name = "mixture"
    log_weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(self, settings: MixtureSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or MixtureSettings()
        self.search = self.settings
        size, width = self.settings.components, self.latents
        self.register_buffer("log_weights", torch.full((size,), -math.log(size)))
        self.register_buffer("means", torch.zeros(size, width))
        self.register_buffer("covariances", torch.eye(width).repeat(size, 1, 1))

    @torch.no_grad()
    def fit(self, stream: Stream, clock: Clock) -> int:
        """Restart EM on part of the poses while time is left, then continue the best on all."""
        everything = self._vectors(stream.batch(2 * len(stream.matrix)))
        subset = everything[: self.settings.subset]
        rounds, best = 0, -math.inf
        kept: dict[str, Tensor] = {}
        while clock.progress < 0.6 or not kept:
            rounds += self._start(subset, stream.generator)
            likelihood, steps = self._iterate(subset, clock, until=0.6)
            rounds += steps
            if likelihood > best:
                best = likelihood
                kept = {name: value.clone() for name, value in self.named_buffers()}
        for name in ("log_weights", "means", "covariances"):
            getattr(self, name).copy_(kept[name])
        return rounds + self._iterate(everything, clock, until=1.0)[1]

    def _start(self, x: Tensor, generator: torch.Generator) -> int:
        """Put the means far from each other, each at a pose drawn by its distance to the others."""
        rows = [int(torch.randint(len(x), (), generator=generator))]
        for _ in range(1, len(self.means)):
            distance = torch.cdist(x, x[rows]).amin(dim=1).square()
            rows.append(int(torch.multinomial(distance, 1, generator=generator)))
        near = torch.cdist(x, x[rows]).argmin(dim=1)
        self._maximise(x, torch.nn.functional.one_hot(near, len(rows)).to(x))
        return 1

    def _iterate(self, x: Tensor, clock: Clock, until: float) -> tuple[float, int]:
        before, steps = -math.inf, 0
        while True:
            joint = self._joint(x)
            likelihood = float(joint.logsumexp(dim=-1).mean())
            if likelihood - before < 1e-4 or clock.progress >= until:
                return likelihood, steps
            self._maximise(x, joint.softmax(dim=-1))
            before, steps = likelihood, steps + 1

    def _maximise(self, x: Tensor, share: Tensor) -> None:
        count = share.sum(dim=0).clamp(min=1e-3)
        self.log_weights.copy_((count / count.sum()).log())
        self.means.copy_(share.T @ x / count[:, None])
        for number, mean in enumerate(self.means):
            away = x - mean
            covariance = (away * share[:, number, None]).T @ away / count[number]
            covariance.diagonal().add_(self.settings.ridge)
            self.covariances[number] = covariance

    def _joint(self, x: Tensor) -> Tensor:
        """Log-density of each component times its weight: x (n, 63) -> (n, 8)."""
        return self.log_weights + _gaussians(x, self.means, self.covariances)

    @staticmethod
    def _vectors(matrix: Tensor) -> Tensor:
        return rotations.matrix_to_rotvec(matrix).flatten(start_dim=-2)

    def decode(self, z: Tensor) -> Tensor:
        """As :meth:`LatentMethod.decode`: rotation vectors to matrices."""
        return rotations.rotvec_to_matrix(z.unflatten(-1, (JOINTS, 3)))

    def encode(self, matrix: Tensor) -> Tensor:
        """As :meth:`LatentMethod.encode`."""
        return self._vectors(matrix)

    def energy(self, z: Tensor) -> Tensor:
        """As :meth:`LatentMethod.energy`."""
        return -self._joint(z).logsumexp(dim=-1)

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """As :meth:`LatentMethod.draw_latents`."""
        chosen = torch.multinomial(
            self.log_weights.exp(), count, replacement=True, generator=generator
        )
        noise = torch.randn(count, self.latents, generator=generator)
        roots = torch.linalg.cholesky(self.covariances)
        return self.means[chosen] + (roots[chosen] @ noise[..., None])[..., 0]

    @torch.no_grad()
    def complete(
        self, matrix: Tensor, known: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """As :meth:`Method.complete`: samples of the conditional mixture, in closed form."""
        given = known.repeat_interleave(3)
        x = self._vectors(matrix)
        seen = x[:, given]
        within = self.covariances[:, given][:, :, given]
        across = self.covariances[:, ~given][:, :, given]
        gain = torch.linalg.solve(within, across.mT).mT
        left = self.covariances[:, ~given][:, :, ~given] - gain @ across.mT
        root = torch.linalg.cholesky((left + left.mT) / 2)
        share = (self.log_weights + _gaussians(seen, self.means[:, given], within)).softmax(dim=-1)
        chosen = torch.multinomial(share, count, replacement=True, generator=generator)
        away = seen[:, None] - self.means[:, given][chosen]
        mean = self.means[:, ~given][chosen] + (gain[chosen] @ away[..., None])[..., 0]
        noise = torch.randn(mean.shape, generator=generator)
        answers = x[:, None].repeat(1, count, 1)
        answers[..., ~given] = mean + (root[chosen] @ noise[..., None])[..., 0]
        return filled_in(self.decode(answers), matrix, known)

    @torch.no_grad()
    def log_prob(self, matrix: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.log_prob`; vectors longer than half a turn are neglected."""
        x = self._vectors(matrix)
        haar = log_haar(x.unflatten(-1, (JOINTS, 3))).sum(dim=-1)
        return self._joint(x).logsumexp(dim=-1) - haar


def _gaussians(x: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Log-densities (n, M) of x (n, D) under M Gaussians."""
    root = torch.linalg.cholesky(covariances)
    scaled = torch.linalg.solve_triangular(root, (x - means[:, None]).mT, upper=False)
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    constant = log_det + x.shape[-1] / 2 * math.log(2 * math.pi)
    return (-scaled.square().sum(dim=-2) / 2 - constant[:, None]).T
