"""Figures of a prior on people that it was not trained on."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.metrics import latent_pit, mpjpe, pa_mpjpe
from flowprior.prior import PosePosterior
from flowprior.skeleton import COCO_17, SMPL_24
from tools.priors.chain import SCORED, Chain
from tools.priors.drawing import (
    FIVE_POINTS,
    LIMBS,
    noisy,
    photographed,
    pose,
)

__all__ = ["body_figures", "evenly", "people_figures", "photographed_people"]

SAMPLES = 100
LEVEL = 0.9
MASKS = ("left leg", "both legs", "both arms", "trunk")
FOREARM = ("right_elbow", "right_wrist")
# SMPL's hinges: joint, axis, sign of the turn that bends it backwards.
HINGES = (
    *(("left_knee", 0, -1.0), ("right_knee", 0, -1.0)),
    *(("left_elbow", 1, 1.0), ("right_elbow", 1, -1.0)),
)
# COCO's joints in the 70 keypoints of SAM 3D Body, and those that are compared.
COCO_OF_70 = [*range(9), 62, 41, *range(9, 15)]
COMPARED = slice(5, 17)


def evenly(rotvecs: Tensor, count: int) -> Tensor:
    """At most ``count`` poses, spread evenly over the rows."""
    return rotvecs[torch.linspace(0, len(rotvecs) - 1, min(count, len(rotvecs))).round().long()]


@torch.no_grad()
def people_figures(
    prior: ConditionalPosePrior, rotvecs: Tensor, body: BodyModel, seed: int = 1
) -> dict[str, float]:
    """Evaluate the prior that is given 2D keypoints, on one view of each pose.

    Args:
        prior: The prior, in evaluation mode.
        rotvecs: (N, 24, 3) poses of other people, y up.
        body: The body.
        seed: Of shapes, cameras, noise and samples.

    Returns:
        Figures by name. Errors are over SMPL's first 22 joints relative to the pelvis, of the
        person's own body; the answer is on the average body ("mm") or on the person's ("own
        shape, mm").
    """
    generator = torch.Generator().manual_seed(seed)
    posed = pose(rotvecs, body, generator)
    view = photographed(posed, generator)
    theta, truth = view.theta, view.joints[:, :SCORED]
    posterior = prior.given(keypoints_2d=view.keypoints_2d)
    samples = posterior.sample(SAMPLES, generator=generator)
    mode = rotations.rot6d_to_matrix(posterior.mode())
    draws = rotations.rot6d_to_matrix(samples)
    found: dict[str, float] = {}
    places = {}
    for name, betas in (("", None), ("own shape, ", posed.betas)):
        single, several = (_scored(body, each, betas) for each in (mode, draws))
        errors = 1000 * mpjpe(several, truth[:, None])
        found[f"mode, {name}mm"] = 1000 * float(mpjpe(single, truth).mean())
        found[f"mode PA, {name}mm"] = 1000 * float(pa_mpjpe(single, truth).mean())
        found[f"sample, {name}mm"] = float(errors.mean())
        found[f"best of 10, {name}mm"] = float(errors[:, :10].amin(dim=1).mean())
        found[f"best of {SAMPLES}, {name}mm"] = float(errors.amin(dim=1).mean())
        places[name] = (single, several)
    single, several = places["own shape, "]
    found["joint positions in 90 % regions"] = _covered(
        (truth - single).norm(dim=-1), (several - single[:, None]).norm(dim=-1)
    )
    found["joint positions in 90 % regions, average shape"] = _covered(
        (truth - places[""][0]).norm(dim=-1), (places[""][1] - places[""][0][:, None]).norm(dim=-1)
    )
    turned = rotations.matrix_to_rotvec(mode.mT @ theta).norm(dim=-1)
    spread = rotations.matrix_to_rotvec(mode[:, None].mT @ draws).norm(dim=-1)
    found["joint rotations in 90 % regions"] = _covered(turned[:, :SCORED], spread[..., :SCORED])
    target = noisy(theta, generator)
    found["poses in 90 % regions"] = _inside(prior, posterior, target)
    found["NLL, nats"] = -float(posterior.log_prob(target).mean())
    found["entropy, nats"] = float(posterior.entropy().mean())

    view = photographed(posed, generator, FOREARM)
    posterior = prior.given(keypoints_2d=view.keypoints_2d)
    several = _scored(
        body, rotations.rot6d_to_matrix(posterior.sample(SAMPLES, generator=generator))
    )
    for side in ("left", "right"):
        wrist = several[:, :, SMPL_24.index(f"{side}_wrist")]
        found[f"{side} wrist, right forearm hidden, spread in mm"] = 1000 * float(
            wrist.var(dim=1).sum(dim=-1).sqrt().mean()
        )
    return found


@torch.no_grad()
def photographed_people(
    prior: ConditionalPosePrior, folder: Path, body: BodyModel, seed: int = 1
) -> dict[str, float]:
    """Compare with the 3D keypoints of two photographed people that SAM 3D Body found.

    Args:
        prior: The prior, in evaluation mode.
        folder: With one ``.npz`` file per person.
        body: The body.
        seed: Of the samples.

    Returns:
        PA-MPJPE in mm over COCO's joints 5 to 16, of the mode and of the best of 100 samples.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, float] = {}
    for number, path in enumerate(sorted(folder.glob("*.npz"))):
        with np.load(path, allow_pickle=False) as file:
            pixels = torch.from_numpy(file["pred_keypoints_2d"]).float()[COCO_OF_70]
            points = torch.from_numpy(file["pred_keypoints_3d"]).float()[COCO_OF_70]
        keypoints = torch.cat([pixels[:, :2], torch.ones(len(pixels), 1)], dim=-1)
        posterior = prior.given(keypoints_2d=keypoints)
        poses = torch.cat([posterior.mode()[None], posterior.sample(SAMPLES, generator=generator)])
        answers = body.keypoints(poses, COCO_17)[:, COMPARED]
        errors = 1000 * pa_mpjpe(answers, points[COMPARED].expand_as(answers))
        found[f"person {number}: mode, PA mm"] = float(errors[0])
        found[f"person {number}: best of {SAMPLES}, PA mm"] = float(errors[1:].amin())
    return found


@torch.no_grad()
def body_figures(
    prior: ConditionalPosePrior, rotvecs: Tensor, body: BodyModel, seed: int = 1
) -> dict[str, float]:
    """Evaluate the prior of the 23 joints below the root.

    Args:
        prior: The prior, in evaluation mode.
        rotvecs: (N, 24, 3) poses of other people.
        body: The body, here of average shape.
        seed: Of noise and samples.

    Returns:
        Figures by name. Errors of completions are over the joints that the unknown rotations move,
        those of inverse kinematics over SMPL's first 22; all in mm relative to the pelvis.
    """
    generator = torch.Generator().manual_seed(seed)
    chain = Chain(body)
    theta = rotations.rotvec_to_matrix(rotvecs[:, 1:])
    truth = _from_root(chain, theta)
    found: dict[str, float] = {}
    for mask in MASKS:
        unknown = [joint - 1 for joint in LIMBS[mask]]
        known = torch.ones(theta.shape[:2], dtype=torch.bool)
        known[:, unknown] = False
        posterior = prior.given(rotations=theta, known=known)
        samples = posterior.sample(10, generator=generator)
        joints = _from_root(chain, rotations.rot6d_to_matrix(samples))
        moved = _moved(LIMBS[mask])
        errors = 1000 * mpjpe(joints[..., moved, :], truth[:, None, moved])
        mode = _from_root(chain, rotations.rot6d_to_matrix(posterior.mode()))
        found[f"{mask}: mode, mm"] = 1000 * float(mpjpe(mode[:, moved], truth[:, moved]).mean())
        found[f"{mask}: best of 10, mm"] = float(errors.amin(dim=1).mean())
        found[f"{mask}: mean of 10, mm"] = float(errors.mean())
        found[f"{mask}: pairwise distance, mm"] = _pairwise(joints[..., moved, :])
        found[f"{mask}: NLL, nats"] = -float(posterior.log_prob(noisy(theta, generator)).mean())
    joints_3d = torch.cat([truth, torch.full_like(truth[:, :2], torch.nan)], dim=1)
    five = torch.full_like(joints_3d, torch.nan)
    five[:, [0, *FIVE_POINTS]] = joints_3d[:, [0, *FIVE_POINTS]]
    for name, points in (
        ("all joints", joints_3d),
        (
            "all joints, 10 mm noise",
            joints_3d + 0.01 * torch.randn(joints_3d.shape, generator=generator),
        ),
        ("five points", five),
    ):
        posterior = prior.given(joints_3d=points)
        mode = _from_root(chain, rotations.rot6d_to_matrix(posterior.mode()))
        samples = posterior.sample(10, generator=generator)
        joints = _from_root(chain, rotations.rot6d_to_matrix(samples))
        errors = 1000 * mpjpe(joints, truth[:, None])
        found[f"{name}: mode, mm"] = 1000 * float(mpjpe(mode, truth).mean())
        found[f"{name}: best of 10, mm"] = float(errors.amin(dim=1).mean())
        found[f"{name}: poses in 90 % regions"] = _inside(prior, posterior, noisy(theta, generator))
    marginal = prior.given()
    log_prob = marginal.log_prob(theta)
    found["NLL of the marginal, nats"] = -float(marginal.log_prob(noisy(theta, generator)).mean())
    ranked = []
    for name, axis, sign in HINGES:
        bent = theta.clone()
        angle = torch.empty(len(theta)).uniform_(60, 90, generator=generator).deg2rad()
        vector = torch.zeros(len(theta), 3)
        vector[:, axis] = sign * angle
        bent[:, SMPL_24.index(name) - 1] = rotations.rotvec_to_matrix(vector)
        ranked.append((log_prob > marginal.log_prob(bent)).double().mean())
    found["poses above the same with a joint bent backwards"] = float(torch.stack(ranked).mean())
    samples = marginal.sample(len(theta), generator=generator)
    joints = _from_root(chain, rotations.rot6d_to_matrix(samples))
    found["generated: pairwise distance, mm"] = _pairwise(joints[None])
    found["data: pairwise distance, mm"] = _pairwise(truth[None])
    found["generated: Fréchet distance of joints, mm"] = 1000 * _frechet(joints, truth)
    return found


def _scored(body: BodyModel, theta: Tensor, betas: Tensor | None = None) -> Tensor:
    """SMPL's first 22 joints relative to the pelvis."""
    joints = body.keypoints(theta, SMPL_24, betas)
    return (joints - joints[..., :1, :])[..., :SCORED, :]


def _from_root(chain: Chain, theta: Tensor) -> Tensor:
    """Joints (..., 22, 3) of rotations (..., 23, 3, 3) in the root's axes."""
    flat = theta.reshape(-1, *theta.shape[-3:])
    root = torch.eye(3).expand(len(flat), 1, 3, 3)
    return chain(torch.cat([root, flat], dim=1)).reshape(*theta.shape[:-3], SCORED, 3)


def _moved(joints: tuple[int, ...]) -> list[int]:
    """The joints whose positions depend on the rotations of these, without hands."""
    moved: list[int] = []
    for joint in range(1, SCORED):
        parent = SMPL_24.parents[joint]
        if parent in joints or parent in moved:
            moved.append(joint)
    return moved


def _covered(distance: Tensor, spread: Tensor) -> float:
    """Share of distances (N, J) to the mode within the quantile of samples' (N, n, J)."""
    return float((distance <= spread.quantile(LEVEL, dim=1)).double().mean())


def _inside(prior: ConditionalPosePrior, posterior: PosePosterior, target: Tensor) -> float:
    """Share of poses whose latent lies in the ball of 90 % of the mass."""
    nu = getattr(prior.flow.base, "degrees_of_freedom", None)
    latent = posterior.encode(target)
    free = latent.abs().amax(dim=0) > 0  # the same joints are known in all rows
    return float((latent_pit(latent[:, free], nu) <= LEVEL).double().mean())


def _pairwise(joints: Tensor) -> float:
    """Average pairwise distance in mm of poses (..., n, J, 3)."""
    count = joints.shape[-3]
    flat = joints.movedim(-3, -2)  # (..., J, n, 3)
    total = torch.cdist(flat, flat).mean(dim=-3).sum(dim=(-2, -1))
    return 1000 * float((total / (count * (count - 1))).mean())


def _frechet(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of Gaussians around joints (N, J, 3), its square root, in metres."""
    means, covs = [], []
    for each in (first, second):
        rows = each[:, 1:].flatten(1).double()
        means.append(rows.mean(dim=0))
        covs.append(rows.T.cov())
    values, vectors = torch.linalg.eigh(covs[0])
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covs[1] @ root).clamp(min=0).sqrt().sum()
    square = (means[0] - means[1]).square().sum() + covs[0].trace() + covs[1].trace() - 2 * cross
    return math.sqrt(max(float(square), 0.0))
