"""A posterior, conditioned on the places of some joints."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowprior.prior.posterior import PosePosterior
from flowprior.view.directions import latent_scale, mean_jacobian

__all__ = ["Conditioning"]

SHARES = (1.0, 0.5, 0.25, 0.1)
PAIRS = 256


class Conditioning:
    r"""Moves latents so that joints come to given places, as little as the posterior allows.

    A latent z_0 becomes the z that minimises
    \|(z - z_0) / s\|^2 + \|x(z) - t\|^2 / \sigma^2 for the standard deviation s of the latent, the
    positions x(z) of the joints and their places t. From z_0 = 0 it is the mode of the posterior
    given the places. From samples z_0 these are samples given the places: exactly where x is
    linear, by Matheron's rule, and approximately elsewhere, by randomize-then-optimize.

    Each step is one of Gauss and Newton with the mean slope of x, shortened until it helps.

    Args:
        posterior: The posterior of one person, without a batch.
        places: Poses (..., J, k) of the posterior -> positions (..., m, 3) of the joints, metres.
        sigma: Standard deviation \sigma of the given places, metres.

    References:
        Bardsley et al., *Randomize-then-optimize: a method for sampling from posterior
        distributions in nonlinear inverse problems*, 2014.
    """

    def __init__(
        self, posterior: PosePosterior, places: Callable[[Tensor], Tensor], sigma: float
    ) -> None:
        self.posterior = posterior
        self.places = places
        self.sigma = sigma
        self._scale = latent_scale(posterior)
        self._slope = mean_jacobian(posterior, places, PAIRS)
        weighted = self._slope * self._scale.square()
        noise = sigma**2 * torch.eye(len(weighted), dtype=weighted.dtype, device=weighted.device)
        self._gain = torch.linalg.solve(weighted @ self._slope.mT + noise, weighted)

    @torch.no_grad()
    def __call__(self, z: Tensor, target: Tensor, steps: int = 6) -> Tensor:
        """Latents with the joints at their places.

        Args:
            z: (n, D) latents of the posterior.
            target: (m, 3) places, metres.
            steps: Number of steps.

        Returns:
            (n, D).
        """
        start, rows = z, torch.arange(len(z), device=z.device)
        shares = z.new_tensor(SHARES)[:, None, None]
        for _ in range(steps):
            linear = (z - start) @ self._slope.mT - self._away(z, target)
            tried = torch.cat([z[None], z + shares * (start + linear @ self._gain - z)])
            z = tried[self._objective(tried, start, target).argmin(dim=0), rows]
        return z

    def _objective(self, z: Tensor, start: Tensor, target: Tensor) -> Tensor:
        moved = ((z - start) / self._scale).square().sum(dim=-1)
        return moved + (self._away(z, target) / self.sigma).square().sum(dim=-1)

    def _away(self, z: Tensor, target: Tensor) -> Tensor:
        """Residuals (..., 3m) in metres."""
        positions = self.places(self.posterior.decode(z, check=False))
        return (positions - target).flatten(start_dim=-2)
