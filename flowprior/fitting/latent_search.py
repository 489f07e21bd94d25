"""Minimisation over the latents of posteriors: the best of several starts, then a descent."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from flowprior.fitting.solver import Solution, minimize, with_spare
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import RotationSpace

__all__ = [
    "DataTerm",
    "LatentObjective",
    "best_start",
    "flattened",
    "frozen",
    "rotation_space",
    "search",
]

DataTerm: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Theta (n, J, 6), further variables (n, E) and the rows (n,) of their problems -> values (n,)."""


def rotation_space(prior: PosePrior, joints: Sequence[int] = ()) -> RotationSpace:
    """The space of a prior over joint rotations.

    Args:
        prior: The prior.
        joints: Accepted numbers of joints; any if empty.

    Raises:
        ValueError: The prior is not over rotations, or has another number of joints.
    """
    space = prior.space
    if isinstance(space, RotationSpace) and (not joints or space.joints in joints):
        return space
    expected = f" of {' or '.join(map(str, joints))} joints" if joints else ""
    raise ValueError(
        f"expected a prior over the rotations{expected}, got one over poses of shape "
        f"{tuple(space.event_shape)} with space={space.name!r}"
    )


def frozen(prior: PosePrior) -> PosePrior:
    """A frozen copy of a trainable prior; a frozen one as it is."""
    if not isinstance(prior, PosePrior):
        raise TypeError(f"expected a ConditionalPosePrior, got {type(prior).__name__}")
    return prior.freeze() if isinstance(prior, ConditionalPosePrior) else prior


def flattened(posterior: PosePosterior, batch: torch.Size) -> PosePosterior:
    """A posterior whose batch is flattened to one axis; one without a batch as it is.

    Args:
        posterior: The posterior.
        batch: The batch of the problems.

    Raises:
        ValueError: The posterior has another batch.
    """
    if not posterior.batch_shape:
        return posterior
    if posterior.batch_shape != batch:
        raise ValueError(
            f"the posterior has batch shape {tuple(posterior.batch_shape)}, the poses "
            f"{tuple(batch)}: there is one posterior for each pose, or one for all of them"
        )
    places = torch.unravel_index(torch.arange(batch.numel()), batch)
    return posterior[tuple(each.to(posterior.prior.flow.device) for each in places)]


class LatentObjective:
    """-2 log p(theta | c), up to a constant, plus a data term, as a function of latents.

    For flows whose log-determinant does not depend on theta, the first term is the energy of the
    base, 0 at the mode. The variables of a problem are its latent z, and further numbers for the
    data term.

    Args:
        posterior: Posterior with P contexts, or a single one for all problems.
        data: The data term.
        extra: Number E of further variables.
    """

    def __init__(self, posterior: PosePosterior, data: DataTerm, extra: int = 0) -> None:
        self.posterior = posterior
        self.data = data
        self.sizes = (posterior.prior.flow.features, extra)
        self._rows: Tensor | None = None
        self._selected = posterior

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """Values (n,) at the points x (n, D + E) of the problems ``rows``."""
        posterior = self.of(rows)
        z, more = x.split(self.sizes, dim=-1)
        theta = posterior.decode(z, check=False)
        return self.data(theta, more, rows) + self._penalty(posterior, z, theta)

    def of(self, rows: Tensor) -> PosePosterior:
        """The posterior of some problems; the last selection is cached."""
        if self.posterior.batch_shape and rows is not self._rows:
            self._rows, self._selected = rows, self.posterior[rows]
        return self._selected

    @torch.no_grad()
    def theta(self, x: Tensor) -> Tensor:
        """Theta (P, J, 6) of points (P, D + E); a row does not depend on the others."""
        rows = with_spare(torch.arange(len(x), device=x.device))
        z = x[rows, : self.sizes[0]]
        return self.of(rows).decode(z, check=False)[: len(x)]

    @torch.no_grad()
    def encode(self, theta: Tensor) -> Tensor:
        """Latents (P, D) of poses (P, J, k); a row does not depend on the others."""
        rows = with_spare(torch.arange(len(theta), device=theta.device))
        return self.of(rows).encode(theta[rows])[: len(theta)]

    @staticmethod
    def _penalty(posterior: PosePosterior, z: Tensor, theta: Tensor) -> Tensor:
        if posterior.prior.flow.has_closed_entropy:
            return posterior.energy(z)
        return -2 * posterior.log_prob(theta, check=False)


@torch.no_grad()
def best_start(objective: LatentObjective, starts: Iterable[Tensor]) -> Tensor:
    """The start with the lowest objective, for each problem.

    Args:
        objective: The objective of P problems.
        starts: Points (P, D + E) each.

    Returns:
        (P, D + E). The first start where no objective is finite.

    Raises:
        ValueError: There is no start.
    """
    best = lowest = rows = None
    for start in starts:
        if rows is None:
            rows = with_spare(torch.arange(len(start), device=start.device))
        value = objective(start[rows], rows)[: len(start)].nan_to_num(nan=torch.inf)
        if best is None or lowest is None:
            best, lowest = start, value
        else:
            better = value < lowest
            best = torch.where(better[:, None], start, best)
            lowest = torch.where(better, value, lowest)
    if best is None:
        raise ValueError("expected at least one start")
    return best


def search(
    objective: LatentObjective, starts: Iterable[Tensor], max_iterations: int, tolerance: float
) -> Solution:
    """Minimise from the best of several starts, see :func:`minimize`."""
    return minimize(
        objective,
        best_start(objective, starts),
        max_iterations=max_iterations,
        tolerance_value=tolerance,
    )
