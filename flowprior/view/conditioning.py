"""A posterior, conditioned on the exact places of some joints to first order."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowprior.prior.posterior import PosePosterior
from flowprior.view.directions import latent_scale

__all__ = ["Conditioning"]

STEPS = 4


class Conditioning:
    r"""Moves latents so that joints come to given places, as little as the posterior allows.

    With joints x(z) \approx x(0) + H z and a latent of covariance S, a sample z of the density
    becomes one of the density given x = t by z - S H^T (H S H^T + s^2 I)^{-1} (x(z) - t), by
    Matheron's rule. Repeated steps with the same matrix correct what is not linear in x(z).

    Args:
        posterior: The posterior of one person, without a batch.
        places: Poses (..., J, k) of the posterior -> positions (..., m, 3) of the joints, metres.
        sigma: Standard deviation of the given places, metres.

    References:
        Wilson et al., *Pathwise Conditioning of Gaussian Processes*, 2021.
    """

    def __init__(
        self, posterior: PosePosterior, places: Callable[[Tensor], Tensor], sigma: float
    ) -> None:
        self.posterior = posterior
        self.places = places
        self.sigma = sigma
        self._variance = latent_scale(posterior).square()

    @torch.no_grad()
    def samples(self, z: Tensor, target: Tensor) -> Tensor:
        """Latents of the conditioned density from those of the posterior.

        Args:
            z: (..., D) latents of samples.
            target: (m, 3) places, metres.

        Returns:
            (..., D).
        """
        _, gain = self._linear(torch.zeros_like(self._variance))
        for _ in range(STEPS):
            z = z - (self._positions(z) - target).flatten(start_dim=-2) @ gain
        return z

    @torch.no_grad()
    def mode(self, z: Tensor, target: Tensor, steps: int = 2) -> Tensor:
        """The most likely latent, by Gauss-Newton steps of the iterated Kalman filter.

        Args:
            z: (D,) where to start, such as the answer to nearby places.
            target: (m, 3) places, metres.
            steps: Number of steps.

        Returns:
            (D,).
        """
        for _ in range(steps):
            jacobian, gain = self._linear(z)
            z = (jacobian @ z - (self._positions(z) - target).flatten()) @ gain
        return z

    def _linear(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The Jacobian H (3m, D) of the positions at z and the transposed gain (3m, D)."""
        with torch.enable_grad():
            jacobian = torch.func.jacrev(lambda each: self._positions(each).flatten())(z).detach()
        weighted = jacobian * self._variance
        noise = self.sigma**2 * torch.eye(len(jacobian), dtype=z.dtype, device=z.device)
        return jacobian, torch.linalg.solve(weighted @ jacobian.mT + noise, weighted)

    def _positions(self, z: Tensor) -> Tensor:
        return self.places(self.posterior.decode(z, check=False))
