"""Synthetic people in front of a camera, and small priors that model them; without examples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting import (
    AnglePose,
    DensityPose,
    LatentPose,
    PoseMixture,
    PoseVariables,
    with_spare,
)
from flowprior.fitting.pose_variables import facing
from flowprior.flow.base import Normal
from flowprior.keypoints import keypoint_context, seen_keypoints
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import BODY_25

FOCAL_PX = 1145.0
IMAGE_PX = 1000.0
KINDS = ("conditional", "unconditional", "mixture", "isotropic", "none")


@dataclass(frozen=True)
class People:
    """P people, with exact keypoints (P, 25, 3) of confidence 1."""

    theta: Tensor
    betas: Tensor
    transl: Tensor
    keypoints: Tensor


def project(points: Tensor) -> Tensor:
    """Points (..., 3) in metres to pixels (..., 2) of an image of 1000 x 1000."""
    return FOCAL_PX * points[..., :2] / points[..., 2:] + IMAGE_PX / 2


def random_poses(count: int, seed: int) -> Tensor:
    """Rotations (count, 24, 3, 3): small bends, the root at any heading before a camera."""
    generator = torch.Generator().manual_seed(seed)
    bend = rotations.rotvec_to_matrix(0.25 * torch.randn(count, 24, 3, generator=generator))
    heading = torch.zeros(count, 3)
    heading[:, 1] = 2 * torch.pi * torch.rand(count, generator=generator)
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    root = upright @ rotations.rotvec_to_matrix(heading) @ bend[:, 0]
    return torch.cat([root[:, None], bend[:, 1:]], dim=1)


@torch.no_grad()
def random_people(body: BodyModel, count: int, seed: int = 0) -> People:
    """People 3 to 8 m in front of the camera."""
    theta = random_poses(count, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    betas = torch.randn(count, 10, generator=generator)
    depth = 3 + 5 * torch.rand(count, generator=generator)
    across, down = 2 * torch.rand(2, count, generator=generator) - 1
    place = torch.stack([0.08 * depth * across, 0.05 * depth * down, depth], dim=-1)
    points = body.keypoints(theta, BODY_25, betas)
    transl = place - points[:, BODY_25.index("mid_hip")]
    pixels = project(points + transl[:, None])
    return People(
        theta, betas, transl, torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    )


def towards_camera(people: People) -> Tensor:
    """Keypoints (n, 25, 3) of people within 60 degrees of the heading that priors start from."""
    return people.keypoints[people.theta[:, 0, 2, 2] < -0.5]


def detected(keypoints: Tensor, seed: int = 0) -> Tensor:
    """Keypoints (P, K, 3) with noise and varying confidence, a quarter of them missing."""
    generator = torch.Generator().manual_seed(seed)
    noisy = keypoints.clone()
    noisy[..., :2] += 4 * torch.randn(noisy[..., :2].shape, generator=generator)
    noisy[..., 2] = 1 - 0.6 * torch.rand(noisy.shape[:2], generator=generator)
    return torch.where(torch.rand(noisy.shape[:2], generator=generator)[..., None] < 0.25, 0, noisy)


def energy(prior: PosePrior, z: Tensor) -> Tensor:
    """-2 log p (P,) of latents (P, D) relative to its maximum, by the formulas of both bases."""
    squares = z.square().sum(dim=-1)
    if isinstance(prior.flow.base, Normal):
        return squares
    nu = prior.flow.base.degrees_of_freedom
    return (nu + z.shape[-1]) * torch.log1p(squares / nu)


class Priors:
    """A prior of each kind, hardly trained."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        context = 3 * BODY_25.num_joints
        theta = random_poses(400, 7)
        self.conditional = self._conditional(theta, context)
        self.contracting = self._conditional(theta, context, coupling="contracting")
        self.unconditional = ConditionalPosePrior(0, joints=23, hidden_features=64)
        self.unconditional.nll(theta[:, 1:])
        self.unconditional.eval()
        rotvecs = rotations.matrix_to_rotvec(theta[:, 1:]).flatten(1)
        factor = torch.diag(1 / rotvecs.std(dim=0)).expand(2, -1, -1).clone()
        means = torch.stack([rotvecs[:200].mean(dim=0), rotvecs[200:].mean(dim=0)])
        self.people = self._of_evidence(theta, 24, ("keypoints_2d", "joints_3d"))
        self.body_pose = self._of_evidence(theta[:, 1:], 23, ("rotations", "joints_3d"))
        self.mixture = PoseMixture(torch.tensor([0.4, 0.6]), means, factor, rotvecs.mean(dim=0))

    @staticmethod
    def _conditional(theta: Tensor, context: int, **options: str) -> ConditionalPosePrior:
        prior = ConditionalPosePrior(context, hidden_features=64, **options)
        if prior.head is not None:
            with torch.no_grad():
                start = rotations.matrix_to_rot6d(theta).mean(dim=0)
                start[:1] = facing(torch.zeros(1))
                prior.head.start.copy_(start.flatten())
                prior.head.direct.weight.normal_(std=0.02)
        prior.nll(theta, torch.randn(len(theta), context))  # initialises ActNorm
        return prior.eval()

    @staticmethod
    def _of_evidence(theta: Tensor, joints: int, kinds: tuple[str, ...]) -> ConditionalPosePrior:
        hands = (joints - 2, joints - 1)
        prior = ConditionalPosePrior(
            joints=joints, evidence=kinds, rest_joints=hands, hidden_features=32, head_features=16
        )
        assert prior.head is not None
        assert prior.evidence is not None
        with torch.no_grad():
            prior.head.start.copy_(rotations.matrix_to_rot6d(theta).mean(dim=0).flatten())
            prior.head.direct.weight.normal_(std=0.02)
        prior.nll(theta, prior.evidence.context().expand(len(theta), -1))  # initialises ActNorm
        return prior.eval()

    def of(self, kind: str) -> ConditionalPosePrior | PoseMixture | None:
        """The prior of a kind, as a user has it; None for "isotropic" too."""
        return getattr(self, kind, None)

    @torch.no_grad()
    def variables(self, kind: str, keypoints: Tensor, *, theta: bool = False) -> PoseVariables:
        """Pose variables of people with keypoints (P, 25, 3)."""
        form = DensityPose if theta else LatentPose
        if kind in ("conditional", "contracting"):
            people = torch.arange(len(keypoints))
            context = keypoint_context(seen_keypoints(keypoints))[with_spare(people)]
            form = DensityPose if kind == "contracting" else form
            return form(getattr(self, kind).freeze()(context)).select(people)
        if kind == "unconditional":
            return form(self.unconditional.freeze()(None))
        mixture = self.mixture
        return AnglePose(mixture.mean_pose, kind, mixture if kind == "mixture" else None)
