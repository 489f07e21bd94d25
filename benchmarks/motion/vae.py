"""A pose prior without a density and smoothness of joints: VPoser's way to fit a motion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.motion.clips import Clip
from benchmarks.motion.filters import gaussian, interpolated
from benchmarks.motion.tasks import Case3d
from benchmarks.priors.data import JOINTS, Stream
from benchmarks.priors.methods.vae import Vae
from benchmarks.priors.training import Clock
from flowprior import rotations
from flowprior.body import mirror_pose
from flowprior.fitting.sequence import PointRig
from flowprior.fitting.sequence.start import turned_onto
from flowprior.skeleton import SMPL_24

__all__ = ["VaeWeights", "best_weights", "fit_motions", "trained_vae"]

ITERATIONS = 150
RATE = 0.05
CALM = 2.0  # frames, the width of the filter of the first poses


@dataclass(frozen=True)
class VaeWeights:
    """Weights of a fit.

    Args:
        latent: Of half the squared latents of a frame.
        change: Standard deviation of the difference of a joint's coordinates, metres.
        order: 1 for differences between frames, 2 for differences of these.
    """

    latent: float
    change: float
    order: int


CHOICES = (
    *(VaeWeights(0.3, change, 1) for change in (0.02, 0.04, 0.08)),
    *(VaeWeights(0.3, change, 2) for change in (0.02, 0.04)),
)


def trained_vae(clips: list[Clip], seconds: float, seed: int = 0) -> Vae:
    """VPoser's autoencoder, trained on the poses of clips and their mirror images.

    Args:
        clips: Training clips.
        seconds: CPU seconds of the training.
        seed: Seed of everything random.
    """
    torch.manual_seed(seed)
    rotation = torch.cat([clip.rotation for clip in clips])
    rotation = torch.cat([rotation, mirror_pose(rotation, SMPL_24)])[:, 1 : 1 + JOINTS]
    vae = Vae()
    vae.fit(Stream(rotation, torch.Generator().manual_seed(seed)), Clock(seconds))
    return vae.eval().requires_grad_(requires_grad=False)


def fit_motions(vae: Vae, rig: PointRig, cases: list[Case3d], weights: VaeWeights) -> list[Tensor]:
    """Fit several motions: measurements, latents of all frames, and smooth joints.

    Adam, as in DPoser's and Pose-NDF's scripts; the objective is that of the first two stages of
    HuMoR's fits, "VPoser-t". Each motion has one shape, with a standard normal prior.

    Args:
        vae: The autoencoder.
        rig: The points.
        cases: The measurements.
        weights: Weights.

    Returns:
        The points (T, 17, 3) of each motion, metres.
    """
    measured = torch.cat([case.points for case in cases])
    known = measured.isfinite().all(dim=-1, keepdim=True)
    target = torch.where(known, measured, 0)
    lengths = torch.tensor([len(case.points) for case in cases])
    motion = torch.arange(len(cases)).repeat_interleave(lengths)
    sigma = torch.tensor([case.sigma for case in cases])[motion][:, None, None]
    calm = torch.cat([gaussian(interpolated(case.points), CALM) for case in cases])

    latent = torch.zeros(len(target), vae.latents)
    rest = _whole(vae.decode(latent), torch.eye(3).expand(len(target), 3, 3))
    turned, place = turned_onto(rig, rest[None], calm[None])
    # Points are relative to the hip, so each motion stays in its place.
    place = torch.stack([each.mean(dim=0) for each in place[0].split(lengths.tolist())])
    root = rotations.matrix_to_rot6d(turned[0, :, 0])
    variables = [latent, root, torch.zeros(len(cases), rig.num_shapes), place]
    for each in variables:
        each.requires_grad_()
    latent, root, shape, place = variables
    optimizer = torch.optim.Adam(variables, RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS)
    same = [motion[n:] == motion[: len(motion) - n] for n in (0, 1, 2)]

    def points() -> Tensor:
        pose = _whole(vae.decode(latent), rotations.rot6d_to_matrix(root))
        return rig.pose(pose, shape[motion]).points + place[motion][:, None]

    for _ in range(ITERATIONS):
        posed = points()
        misfit = torch.where(known, posed - target, 0) / sigma
        change = posed.diff(n=weights.order, dim=0)[same[weights.order]] / weights.change
        loss = misfit.square().sum() + change.square().sum()
        loss = loss + weights.latent * latent.square().sum() + shape.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return list(points().split(lengths.tolist()))


def best_weights(vae: Vae, rig: PointRig, cases: list[Case3d]) -> VaeWeights:
    """The weights with the least MPJPE on cases of validation clips."""

    def error(weights: VaeWeights) -> float:
        found = fit_motions(vae, rig, cases, weights)
        away = [
            (points - case.clip.joints).norm(dim=-1)
            for points, case in zip(found, cases, strict=True)
        ]
        return float(torch.cat(away).mean())

    return min(CHOICES, key=error)


def _whole(body: Tensor, root: Tensor) -> Tensor:
    """Poses (N, 24, 3, 3) of rotations (N, 21, 3, 3) and of the root (N, 3, 3)."""
    hands = torch.eye(3).expand(len(body), 2, 3, 3)
    return torch.cat([root[:, None], body, hands], dim=1)
