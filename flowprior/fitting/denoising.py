"""Removal of noise from single poses: `denoise`."""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_like
from flowprior.fitting.latent_search import (
    LatentObjective,
    flattened,
    frozen,
    rotation_space,
    search,
)
from flowprior.prior.posterior import PosePosterior, PosePrior

__all__ = ["denoise"]

# The starts: the latent of the noisy pose, drawn towards the mode by these factors.
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)


def denoise(
    prior: PosePrior | PosePosterior,
    theta: Tensor,
    sigma: float | Tensor,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
) -> Tensor:
    r"""The most likely poses given noisy ones (maximum a posteriori).

    The noise of a joint is a random rotation of the size sigma: the noisy rotation is
    :math:`R \exp(w)` with a normal w of standard deviation sigma for each of its three components.
    The result maximises the density of the prior times that of the noise, by a descent in the
    latent space from the best of five latents between the noisy pose and the mode. Each pose is an
    independent problem: on a CPU, its result does not depend on the others.

    Joints outside the density keep the rotations that the posterior has for them: known joints
    those of the evidence, ``rest_joints`` the identity.

    Args:
        prior: A prior, whose marginal ``prior.given()`` is used, or a posterior with one context
            per pose or a single one for all. ``prior.given(rotations=theta, known=mask)`` keeps the
            joints of the mask and cleans the others.
        theta: Noisy poses (*batch, J, k), in any accepted form.
        sigma: Size of the noise in radians, a number or (J,) or (*batch, J). Infinity ignores the
            given rotation of a joint.
        max_iterations: Maximum number of steps of the descent.
        tolerance: A pose has converged when one step reduces the objective by less, relative to its
            value.

    Returns:
        (*batch, J, 6), in the prior's layout.

    Raises:
        TypeError: ``prior`` is neither a prior nor a posterior.
        ValueError: The prior is not over rotations, theta does not fit it or holds NaN or infinity,
            or ``sigma`` is not positive or has another shape.
    """
    posterior = prior if isinstance(prior, PosePosterior) else frozen(prior).given()
    space, flow = rotation_space(posterior.prior), posterior.prior.flow
    pose = require_like("theta", space.as_pose(theta), flow.dtype, flow.device).detach()
    batch, joints = pose.shape[:-2], space.joints
    size = torch.as_tensor(sigma, dtype=flow.dtype, device=flow.device)
    if not (size > 0).all():
        raise ValueError(
            "sigma must be above 0; for exact rotations use prior.given(rotations=...)"
        )
    if size.shape not in ((), (joints,), (*batch, joints)):
        raise ValueError(
            f"expected sigma as a number, ({joints},) or {(*batch, joints)}, got "
            f"{tuple(size.shape)}"
        )
    precision = size.square().reciprocal().expand(*batch, joints).reshape(-1, joints)
    pose = pose.reshape(-1, *space.event_shape)
    posterior = flattened(posterior, batch)
    noisy = space.to_matrix(pose)

    def distance(clean: Tensor, _: Tensor, rows: Tensor) -> Tensor:
        turn = rotations.matrix_to_chart(noisy[rows].mT @ space.to_matrix(clean))
        return (precision[rows] * turn.square().sum(dim=-1)).sum(dim=-1)

    objective = LatentObjective(posterior, distance)
    with torch.no_grad():
        z = objective.encode(pose)
    solution = search(objective, (share * z for share in SHARES), max_iterations, tolerance)
    return objective.theta(solution.x).reshape(*batch, *space.event_shape)
