"""A posterior, conditioned on measurements."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowprior.prior.posterior import PosePosterior
from flowprior.view.directions import latent_scale, mean_jacobian

__all__ = ["Conditioning"]

SHARES = (1.0, 0.5, 0.25, 0.1)
PAIRS = 256


class Conditioning:
    r"""Moves latents towards measurements, as little as the posterior allows.

    A latent z_0 becomes the z that minimises
    \|(z - z_0) / s\|^2 + \|(x(z) - t) / \sigma\|^2 for the standard deviation s of the latent, the
    measured numbers x(z) and their values t. From z_0 = 0 it is the mode of the posterior given the
    measurements. From samples z_0, with noise added to t, these are samples given the measurements:
    exactly where x is linear, by Matheron's rule, and approximately elsewhere, by
    randomize-then-optimize.

    Each step is one of Gauss and Newton with the mean slope of x, shortened until it helps.

    Args:
        posterior: The posterior of one person, without a batch.
        measure: Poses (..., J, k) of the posterior -> the measured numbers (..., M).
        sigma: (M,) standard deviations \sigma of the measurements.

    References:
        Bardsley et al., *Randomize-then-optimize: a method for sampling from posterior
        distributions in nonlinear inverse problems*, 2014.
    """

    def __init__(
        self, posterior: PosePosterior, measure: Callable[[Tensor], Tensor], sigma: Tensor
    ) -> None:
        self.posterior = posterior
        self.measure = measure
        self.sigma = sigma
        self._scale = latent_scale(posterior)
        slope = mean_jacobian(posterior, lambda theta: measure(theta)[..., None, :], PAIRS)
        self._slope = slope / sigma[:, None]
        weighted = self._slope * self._scale.square()
        unit = torch.eye(len(weighted), dtype=weighted.dtype, device=weighted.device)
        self._gain = torch.linalg.solve(weighted @ self._slope.mT + unit, weighted)

    @torch.no_grad()
    def __call__(self, z: Tensor, target: Tensor, steps: int = 6) -> Tensor:
        """Latents given measurements.

        Args:
            z: (n, D) latents of the posterior.
            target: (M,) or (n, M) values of the measurements.
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
        return moved + self._away(z, target).square().sum(dim=-1)

    def _away(self, z: Tensor, target: Tensor) -> Tensor:
        """Residuals (..., M) in standard deviations."""
        return (self.measure(self.posterior.decode(z, check=False)) - target) / self.sigma
