"""The directions of a latent that move a body most."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.prior.posterior import PosePosterior
from flowprior.prior.uncertainty import PosedBody, require_smpl
from flowprior.skeleton import SMPL_24

__all__ = ["Directions", "latent_directions", "latent_scale", "mean_jacobian"]

# Draws of the base distribution, to measure the spread of a latent.
DRAWS = 4096
PAIRS = 768


@dataclass(frozen=True)
class Directions:
    """Directions of a latent around the mode, the one that moves joints most first.

    Args:
        steps: (K, D) one standard deviation of the latent along each direction.
        movement_mm: (K, 24) how far one step moves each joint relative to the pelvis, on average
            over the posterior.
    """

    steps: Tensor
    movement_mm: Tensor

    def __len__(self) -> int:
        return len(self.steps)

    def latent(self, amounts: list[float]) -> Tensor:
        """The latent (D,) at K amounts along the directions, in standard deviations."""
        return self.steps.new_tensor(amounts) @ self.steps

    def names(self, direction: int, count: int = 2) -> list[str]:
        """The joints that a direction moves most, such as "left wrist"."""
        order = self.movement_mm[direction].argsort(descending=True)[:count].tolist()
        return [SMPL_24.joint_names[joint].replace("_", " ") for joint in order]


def latent_directions(
    posterior: PosePosterior, body: PosedBody, betas: Tensor | None = None, count: int = 4
) -> Directions:
    """Principal directions of the joints' positions as functions of the latent.

    They are the singular vectors of the mean Jacobian of the joints with respect to the latent: of
    all latents of the same length, the first one moves the joints most, measured by the sum of
    their squared distances; the second one does so among those orthogonal to it.

    Args:
        posterior: A posterior without a batch, over SMPL's rotations.
        body: The body.
        betas: (10,) its shape; the average shape if None.
        count: Number K of directions.

    Returns:
        The directions; their signs are such that the joint that moves most moves up (-y) or, if
        mostly sideways, to the right (+x).

    Raises:
        ValueError: The posterior has a batch or other poses, or a latent has fewer dimensions.
    """
    space = require_smpl(posterior.prior.space)
    if posterior.batch_shape:
        raise ValueError(
            f"expected the posterior of one person, got batch {tuple(posterior.batch_shape)}"
        )
    features = posterior.prior.flow.features
    if not 1 <= count <= features:
        raise ValueError(f"count must be from 1 to {features}, got {count}")

    def places(theta: Tensor) -> Tensor:
        matrix = space.to_matrix(theta)
        if space.joints == SMPL_24.num_joints - 1:
            root = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
            matrix = torch.cat([root.expand(*matrix.shape[:-3], 1, 3, 3), matrix], dim=-3)
        return 1000 * body.keypoints(matrix, SMPL_24, betas)

    jacobian = mean_jacobian(posterior, places).reshape(SMPL_24.num_joints, 3, features)
    _, _, rows = torch.linalg.svd(jacobian.flatten(0, 1), full_matrices=False)
    steps = rows[:count] * latent_scale(posterior)
    movement = torch.einsum("jcd,kd->kjc", jacobian, steps)
    most = movement.norm(dim=-1).argmax(dim=-1)
    vector = movement[torch.arange(len(steps)), most]
    sideways = vector[:, 0].abs() > vector[:, 1].abs()
    sign = torch.where(torch.where(sideways, vector[:, 0], -vector[:, 1]) < 0, -1.0, 1.0)
    return Directions(steps * sign[:, None], movement.norm(dim=-1))


@torch.no_grad()
def mean_jacobian(
    posterior: PosePosterior, places: Callable[[Tensor], Tensor], pairs: int = PAIRS
) -> Tensor:
    """Mean slope of positions with respect to the latent, over the posterior.

    The flow has kinks, so its derivative at a single point, such as the mode, says little about
    the distance of a standard deviation. This is the least-squares slope over pairs of latents z
    and -z.

    Args:
        posterior: A posterior without a batch.
        places: Poses (n, J, k) of the posterior -> positions (n, m, 3).
        pairs: Number of pairs; more than the latent has dimensions.

    Returns:
        (3m, D).
    """
    generator = torch.Generator(posterior.prior.flow.device).manual_seed(0)
    z = posterior.encode(posterior.sample(pairs, generator=generator))
    positions = places(posterior.decode(torch.cat([z, -z], dim=-2), check=False))
    there, back = positions.flatten(start_dim=-2).chunk(2)
    # Held joints have latents 0; their slope is 0 too.
    gram = z.mT @ z
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=z.dtype, device=z.device)
    return torch.linalg.solve(gram + ridge, z.mT @ (there - back) / 2).mT


@torch.no_grad()
def latent_scale(posterior: PosePosterior) -> Tensor:
    """Standard deviation (D,) of each number of a latent, from draws of the base distribution."""
    flow = posterior.prior.flow
    generator = torch.Generator(flow.device).manual_seed(0)
    return flow.base.sample((DRAWS, flow.features), flow.dtype, flow.device, generator).std(dim=0)
