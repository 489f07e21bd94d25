"""Descents that go on after they have ended: each problem again, from its best point, kicked.

A flow of ReLU networks has kinks, and at a kink L-BFGS may end though the objective still falls in
other directions; besides, a fit has several minima. `minimize_again` gives each problem further
descents, from the best point it has with a kick added, with its curvature forgotten. A kick of zero
only forgets.

References:
    Wales and Doye, *Global Optimization by Basin-Hopping*, 1997; here without their temperature.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from flowprior.fitting.solver import Solution

__all__ = ["minimize_again"]


def minimize_again(solve: Callable[[Tensor], Solution], x0: Tensor, kicks: Tensor) -> Solution:
    """Minimise P objectives, then again from the best points so far with each of the kicks added.

    Args:
        solve: Starts (P, D) -> how all of the problems ended; `solver.minimize` with its options.
        x0: (P, D) starts.
        kicks: (R, D) what is added to the best points before each further descent. All problems
            get the same, so a result does not depend on the others.

    Returns:
        Of each problem the best end of its 1 + R descents, with the status it ended in there, and
        the steps and evaluations of all of them.

    Raises:
        ValueError: If ``kicks`` has another shape or is not finite.
    """
    if kicks.ndim != 2 or kicks.shape[1] != x0.shape[1]:
        raise ValueError(
            f"expected kicks of shape (R, {x0.shape[1]}) for points {tuple(x0.shape)}, got "
            f"{tuple(kicks.shape)}"
        )
    if not kicks.isfinite().all():
        raise ValueError("kicks must be finite")
    best = solve(x0)
    for kick in kicks:
        other = solve(best.x + kick)
        better = other.value < best.value  # never of NaN
        first = ~best.value.isfinite() & other.value.isfinite()
        best = _better(better | first, other, best)
    return best


def _better(where: Tensor, other: Solution, best: Solution) -> Solution:
    return replace(
        best,
        x=torch.where(where[:, None], other.x, best.x),
        value=torch.where(where, other.value, best.value),
        gradient_norm=torch.where(where, other.gradient_norm, best.gradient_norm),
        status=torch.where(where, other.status, best.status),
        iterations=best.iterations + other.iterations,
        evaluations=best.evaluations + other.evaluations,
    )
