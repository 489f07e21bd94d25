"""Joint rotations from the positions of joints: `inverse_kinematics`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior._checks import require_count, require_like, require_tensor
from flowprior.body import BodyModel, hand_points
from flowprior.fitting.latent_search import (
    LatentObjective,
    frozen,
    rotation_space,
    search,
)
from flowprior.fitting.solver import Solution, with_spare
from flowprior.prior.evidence import POINTS
from flowprior.prior.posterior import PosePrior
from flowprior.prior.spaces import RotationSpace
from flowprior.rotations import matrix_to_rot6d
from flowprior.skeleton import SMPL_24
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = ["InverseKinematics", "inverse_kinematics"]

NUM_BETAS = 10


@dataclass(frozen=True)
class InverseKinematics:
    """Poses from :func:`inverse_kinematics`.

    Args:
        theta: (*batch, J, 6) joint rotations, in the prior's layout.
        betas: (*batch, 10) shape of the body.
        transl: (*batch, 3) metres, the position of the body for which its joints lie at the given
            ones; 0 for a prior without the root.
        error_mm: (*batch,) mean distance between given joints and those of the posed body; NaN
            where no joint is given.
        log_prob: (*batch,) log-density of theta given the evidence, nats.
        solution: Result of the solver for the flattened batch; None without refinement.
    """

    theta: Tensor
    betas: Tensor
    transl: Tensor
    error_mm: Tensor
    log_prob: Tensor
    solution: Solution | None


def inverse_kinematics(
    prior: PosePrior,
    joints_3d: Tensor,
    *,
    rotations: Tensor | None = None,
    known: Tensor | None = None,
    body: BodyModel | None = None,
    betas: Tensor | None = None,
    fit_betas: bool = False,
    refine: bool = True,
    sigma: float = 0.002,
    num_samples: int = 16,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> InverseKinematics:
    """Joint rotations of bodies whose joints lie at given positions, as many as are known.

    The posterior ``prior.given(joints_3d=...)`` answers at once: its mode is the result without
    refinement. A refinement starts from the best of the mode and a few samples, each with its root
    turned onto the joints. It minimises, over the latent of the posterior, the squared distances
    between the given joints and those of the posed body in units of ``sigma``, minus twice the
    log-density. Each pose is an independent problem: on a CPU, its result does not depend on the
    others.

    Args:
        prior: Prior over SMPL's 24 joints or the 23 below the root, or over the 15 of a right hand,
            that accepts 3D joints as evidence: ``flowprior/people``, ``flowprior/body-pose``,
            ``flowprior/hands-procedural``.
        joints_3d: (*batch, 24, 3) metres in SMPL's order, NaN where unknown: five joints are enough
            for a plausible pose. For 24 joints in the axes of the camera (y down) and with any
            origin; for 23 joints in the frame of the root, the pelvis at 0. For a hand
            (*batch, 21, 3) in the order of :data:`flowprior.skeleton.MANO_21`, in the frame of the
            wrist, as :func:`flowprior.body.hand_points` returns them.
        rotations: Known joint rotations (*batch, J, k), in any accepted form, for a prior that
            accepts them as evidence. They are kept exactly.
        known: (*batch, J) bool, which of the rotations are known; all finite ones if None.
        body: The body that has these joints, in any layout; the embedded body if None, for a hand
            the one with hands.
        betas: Its shape, (*batch, 10) or (10,); the average shape if None.
        fit_betas: Whether the shape is optimised too, from ``betas`` and with a standard normal
            prior: for joints of people whose bone lengths are unknown.
        refine: Whether to refine the amortised answer.
        sigma: Standard deviation of the given joints per coordinate, metres. A larger value for
            noisy joints draws the poses towards the prior.
        num_samples: Number of samples among the starts, besides the mode.
        max_iterations: Maximum number of steps of the refinement.
        tolerance: A pose has converged when one step reduces the objective by less, relative to its
            value.
        seed: Seed of the samples.

    Returns:
        The poses, on the device of the prior.

    Raises:
        TypeError: ``joints_3d`` is no tensor, or the prior is not a prior.
        ValueError: The prior has other joints or does not accept this evidence, a shape does not
            fit, or an option is out of range.
    """
    require_tensor("joints_3d", joints_3d)
    require_count("num_samples", num_samples)
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be above 0 and finite, got {sigma}")
    prior = frozen(prior)
    space, flow = rotation_space(prior, (24, 23, 15)), prior.flow
    points = POINTS[space.joints].num_joints
    if joints_3d.shape[-2:] != (points, 3):
        raise ValueError(f"expected joints_3d (*batch, {points}, 3), got {tuple(joints_3d.shape)}")
    target = require_like("joints_3d", joints_3d.detach(), flow.dtype, flow.device)
    batch = target.shape[:-2]
    target = target.reshape(-1, points, 3)
    people = len(target)
    evidence = {"joints_3d": target}
    if rotations is not None:
        pose = space.as_pose(rotations).detach()
        evidence["rotations"] = pose.expand(*batch, *space.event_shape).flatten(0, -3)
    if known is not None:
        evidence["known"] = known.expand(*batch, space.joints).reshape(-1, space.joints)
    if body is None:
        body = BodyModel(hands=space.joints == HAND_JOINTS).to(flow.device, flow.dtype)
    shape = target.new_zeros(NUM_BETAS) if betas is None else betas.to(target)
    if shape.shape not in ((NUM_BETAS,), (*batch, NUM_BETAS)):
        raise ValueError(
            f"expected betas {(*batch, NUM_BETAS)} or ({NUM_BETAS},), got {tuple(shape.shape)}"
        )
    shape = shape.expand(*batch, NUM_BETAS).reshape(-1, NUM_BETAS)
    rows = with_spare(torch.arange(people, device=flow.device))
    with torch.no_grad():
        posterior = prior.given(**{name: each[rows] for name, each in evidence.items()})
    chain = _Chain(body, target, space)

    def distance(theta: Tensor, more: Tensor, rows: Tensor) -> Tensor:
        own = shape[rows] + more if fit_betas else shape[rows]
        squares = chain.residuals(theta, own, rows)[0].square().sum(dim=(-2, -1))
        return squares / sigma**2 + own.square().sum(dim=-1) * fit_betas

    posterior = posterior[:people]
    objective = LatentObjective(posterior, distance, NUM_BETAS * fit_betas)
    solution = None
    x = target.new_zeros(people, sum(objective.sizes))
    if refine:
        starts = _starts(objective, chain, shape, num_samples, seed)
        solution = search(objective, starts, max_iterations, tolerance)
        x = solution.x
    with torch.no_grad():
        chosen = objective.of(rows)
        theta = chosen.decode(x[rows, : flow.features]) if refine else chosen.mode()
        if fit_betas and refine:
            shape = shape + x[:, flow.features :]
        residual, transl, count = chain.residuals(theta, shape[rows], rows)
        error_mm = 1000 * residual.norm(dim=-1).sum(dim=-1) / count  # NaN without a joint
        log_prob = chosen.log_prob(theta)
    return InverseKinematics(
        theta=theta[:people].reshape(*batch, *space.event_shape),
        betas=shape.reshape(*batch, NUM_BETAS),
        transl=transl[:people].reshape(*batch, 3),
        error_mm=error_mm[:people].reshape(batch),
        log_prob=log_prob[:people].reshape(batch),
        solution=solution,
    )


class _Chain:
    """Distances between given joints (P, K, 3), NaN where unknown, and those of posed bodies.

    Args:
        body: The body.
        target: The given joints.
        space: The space of the poses. Where they contain the root, positions are relative to an
            unknown origin.
    """

    def __init__(self, body: BodyModel, target: Tensor, space: RotationSpace) -> None:
        self.body = body
        self.space = space
        self.has_root = space.joints == SMPL_24.num_joints
        self.seen = target.isfinite().all(dim=-1, keepdim=True)
        self.target = torch.where(self.seen, target, 0)
        self.upright = torch.eye(3, dtype=target.dtype, device=target.device)

    def residuals(
        self, theta: Tensor, betas: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare bodies with the given joints of the problems ``rows`` (n,).

        Args:
            theta: (n, J, 6).
            betas: (n, 10).
            rows: (n,).

        Returns:
            Residuals (n, K, 3) in metres, 0 where a joint is unknown; translations (n, 3);
            numbers of known joints (n,).
        """
        seen, target = self.seen[rows], self.target[rows]
        matrix = self.space.to_matrix(theta)
        if self.space.joints == HAND_JOINTS:
            points = hand_points(self.body, matrix, betas)
        else:
            if not self.has_root:
                matrix = torch.cat([self.upright.expand(len(matrix), 1, 3, 3), matrix], dim=1)
            points = self.body.keypoints(matrix, SMPL_24, betas)
        count = seen.sum(dim=(-2, -1))
        if self.has_root:
            away = seen * (target - points)
            transl = away.sum(dim=1) / count.clamp(min=1)[:, None]
        else:
            transl = -points[:, 0]
        residual = seen * (points + transl[:, None] - target)
        return residual, transl, count

    @torch.no_grad()
    def turned(self, theta: Tensor, betas: Tensor) -> Tensor:
        """Turn poses (P, 24, 6) about the root so that their joints are closest to the given ones.

        Args:
            theta: (P, 24, 6).
            betas: (P, 10).

        Returns:
            (P, 24, 6); unchanged where fewer than three joints are given.
        """
        people = len(theta)
        rows = with_spare(torch.arange(people, device=theta.device))
        matrix = self.space.to_matrix(theta)[rows]
        points = self.body.keypoints(matrix, SMPL_24, betas[rows])
        weight = self.seen[rows] / self.seen[rows].sum(dim=1, keepdim=True).clamp(min=1)
        points, target = (
            weight * (each - (weight * each).sum(dim=1, keepdim=True))
            for each in (points, self.target[rows])
        )
        # Kabsch's rotation; of three points or more on a line, one of those that fit.
        u, _, vh = torch.linalg.svd(target.mT @ points)
        sides = torch.ones_like(points[:, 0])
        sides[:, 2] = torch.linalg.det(u @ vh).sign()
        turn = (u * sides[:, None]) @ vh
        turn = torch.where((self.seen[rows].sum(dim=1) > 2)[..., None], turn, self.upright)
        turned = torch.cat([turn[:, None] @ matrix[:, :1], matrix[:, 1:]], dim=1)
        return matrix_to_rot6d(turned, self.space.layout)[:people]


def _starts(
    objective: LatentObjective, chain: _Chain, betas: Tensor, num_samples: int, seed: int
) -> Iterator[Tensor]:
    """The mode, and samples whose noise is the same for every problem, turned onto the joints.

    Args:
        objective: The objective of P problems.
        chain: The given joints.
        betas: (P, 10).
        num_samples: Number of samples.
        seed: Seed of their noise.

    Yields:
        (P, D + E).
    """
    prior, free = objective.posterior.prior, objective.posterior.context.free
    flow, people = prior.flow, len(betas)
    generator = torch.Generator(flow.device).manual_seed(seed)
    noise = flow.base.sample((num_samples, flow.features), flow.dtype, flow.device, generator)
    zero = noise.new_zeros(1, flow.features)
    for each in torch.cat([zero, noise]):
        z = each.expand(people, -1) if free is None else free * each
        if chain.has_root:
            z = objective.encode(chain.turned(objective.theta(z), betas))
        yield torch.cat([z, z.new_zeros(people, objective.sizes[1])], dim=-1)
