"""Restarts: further descents of each problem from its best point with a perturbation.

A flow of ReLU networks has kinks, at which L-BFGS may end although the objective still decreases in
other directions; besides, a fit has several minima. `minimize_again` starts further descents of
each problem from its best point plus a kick, without the curvature of the previous descent. A kick
of zero only discards the curvature.

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
        solve: Solves all problems from starts (P, D), for example `minimize` with options.
        x0: (P, D) starting points.
        kicks: (R, D) perturbations, one for each further descent, added to the best points. They
            are the same for all problems, so the result of one does not depend on the others.

    Returns:
        The best of the 1 + R solutions of each problem with its status, and the total numbers of
        steps and evaluations.

    Raises:
        ValueError: ``kicks`` has another shape or is not finite.
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
