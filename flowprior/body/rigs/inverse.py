"""Coefficients of a rig from the rotations of its joints, in the sense of least squares."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["nearest_coefficients"]

STEPS = 30
DAMPING = 1e-3


def nearest_coefficients(
    function: Callable[[Tensor], Tensor], target: Tensor, start: Tensor
) -> Tensor:
    """Minimise the squared difference of a function from a target, each row for itself.

    Levenberg-Marquardt with a damping of its own for every row. The result is differentiable with
    respect to the target: at the solution its derivative is the pseudo-inverse of the Jacobian.

    Args:
        function: (N, Q) -> (N, M); no row may depend on another, and it must support forward-mode
            derivatives.
        target: (N, M).
        start: (N, Q).

    Returns:
        (N, Q).
    """
    if not len(target):
        return start
    goal = target.detach()
    with torch.no_grad():
        found = start.detach().clone()
        damping = torch.full((len(start), 1, 1), DAMPING).to(start)
        value = function(found)
        error = (goal - value).square().sum(dim=1)
        eye = torch.eye(start.shape[1]).to(start)
        for _ in range(STEPS):
            jacobian = _jacobian(function, found)
            normal = jacobian.mT @ jacobian
            gradient = jacobian.mT @ (goal - value)[..., None]
            step = torch.linalg.solve(normal + damping * eye, gradient)[..., 0]
            tried = found + step
            its_value = function(tried)
            its_error = (goal - its_value).square().sum(dim=1)
            better = its_error < error
            found = torch.where(better[:, None], tried, found)
            value = torch.where(better[:, None], its_value, value)
            error = torch.where(better, its_error, error)
            damping = torch.where(better[:, None, None], damping / 5, damping * 5)
            damping = damping.clamp(1e-9, 1e6)
            if not (step.abs() > 1e-5)[better].any():
                break
        jacobian = _jacobian(function, found)
        # Directions without effect get no share of a step.
        inverse = torch.linalg.pinv(jacobian, rtol=1e-4)
    return found + (inverse @ (target - goal)[..., None])[..., 0]


def _jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Jacobians (N, M, Q) of all rows: one forward-mode derivative per coefficient."""
    columns = []
    with warnings.catch_warnings():
        # torch compiles some derivatives with TorchScript when they are first used.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        for index in range(at.shape[1]):
            tangent = torch.zeros_like(at)
            tangent[:, index] = 1
            columns.append(torch.func.jvp(function, (at,), (tangent,))[1])
    return torch.stack(columns, dim=-1)
