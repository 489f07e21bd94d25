"""The models that the study compares: posteriors, heads and flow matching, with one trunk."""

import math
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from benchmarks.density_study.data import Example
from examples.data.kinematics import joints17_from_matrices
from examples.data.virtual_views import Views
from examples.lifting.model import MartinezEncoder, keypoint_features
from flowprior import ConditionalPosePrior, PosePosterior, rotations
from flowprior.prior import RotationSpace

__all__ = ["NUM_HEADS", "Heads", "Matching", "Model", "Posterior", "joints_of", "truth_of"]

RAW = 51
WIDTH = 256
NUM_HEADS = 25
MATCHING_STEPS = 10


class Model(Protocol):
    """What the study trains and judges.

    Attributes:
        target: ``"joints"`` or ``"pose"``.
    """

    target: str

    def regressor(self) -> list[nn.Parameter]:
        """Parameters of the network that gives the single answer."""

    def loss(self, example: Example, *, regressor_only: bool) -> Tensor:
        """Training loss ()."""

    def calibrate(self, example: Example) -> None:
        """Fit the spread to held-out people."""

    def mode(self, views: Views) -> Tensor | None:
        """Joints (B, 17, 3) of the single answer; None without one."""

    def samples(self, views: Views, count: int, generator: torch.Generator) -> Tensor:
        """Joints (B, n, 17, 3) of samples or hypotheses."""


def joints_of(theta: Tensor) -> Tensor:
    """Points (..., 16, 3), matrices (..., 24, 3, 3) or 6D -> joints (..., 17, 3), metres."""
    if theta.shape[-2:] == (16, 3):
        return torch.cat((torch.zeros_like(theta[..., :1, :]), theta), dim=-2)
    if theta.shape[-2:] == (24, 6):
        theta = rotations.rot6d_to_matrix(theta)
    joints = joints17_from_matrices(theta)
    return joints - joints[..., :1, :]


def truth_of(target: str, example: Example) -> Tensor:
    """True joints (B, 17, 3) relative to the pelvis, metres.

    Those of rotations have the proportions of the stick body, and the noise of the rotations.
    """
    if target == "joints":
        return joints_of(example.views.relative)
    return joints_of(example.rotations)


def regression_loss(theta: Tensor, truth: Tensor) -> Tensor:
    """Loss of single answers: the distance of joints and, for rotations, the entries of matrices.

    Args:
        theta: (B, 16, 3), or 6D vectors (B, 24, 6).
        truth: (B, 16, 3), or matrices (B, 24, 3, 3).
    """
    if theta.shape[-2:] == (16, 3):
        return 30 * (theta - truth).norm(dim=-1).sum(dim=-1).mean()
    matrix = rotations.rot6d_to_matrix(theta)
    distance = (joints_of(matrix) - joints_of(truth)).norm(dim=-1).sum(dim=-1)
    return 30 * distance.mean() + 100 * (matrix - truth).abs().mean()


class Trunk(nn.Module):
    """Features of 2D keypoints, with the keypoints themselves beside them if ``skip``."""

    def __init__(self, width: int, *, skip: bool) -> None:
        super().__init__()
        self.encoder = MartinezEncoder(RAW, width)
        self.skip = skip
        self.out_features = width + RAW if skip else width

    def forward(self, views: Views) -> Tensor:
        """Context (B, out_features)."""
        raw = keypoint_features(views.keypoints, views.visible)
        features: Tensor = self.encoder(raw)
        return torch.cat((features, raw), dim=-1) if self.skip else features


class Posterior(nn.Module):
    """A trunk and a prior, anchored or not.

    Args:
        target: ``"joints"`` or ``"pose"``.
        options: Options of the prior.
        width: Width of the trunk.
        skip: Whether the context contains the raw keypoints.
        diagonal: Fix the linear map at the identity, which leaves independent features.
    """

    def __init__(
        self,
        target: str,
        options: dict[str, Any],
        *,
        width: int = WIDTH,
        skip: bool = True,
        diagonal: bool = False,
    ) -> None:
        super().__init__()
        self.target = target
        self.trunk = Trunk(width, skip=skip)
        shape = {"joints": 16, "space": "points"} if target == "joints" else {"joints": 24}
        self.prior = ConditionalPosePrior(self.trunk.out_features, **{**shape, **options})
        if diagonal:
            for name, parameter in self.prior.flow.named_parameters():
                parameter.requires_grad_(".linear." not in name)

    @property
    def anchored(self) -> bool:
        """Whether a regressor answers, and the density is around it."""
        return self.prior.head is not None

    def regressor(self) -> list[nn.Parameter]:
        """Parameters of the network that gives the single answer."""
        own = [*self.trunk.parameters()]
        return own if self.prior.head is None else [*own, *self.prior.head.parameters()]

    def truth(self, example: Example, *, clean: bool = False) -> Tensor:
        """The target of the prior."""
        if not isinstance(self.prior.space, RotationSpace):
            return example.views.relative
        return example.clean if clean else example.rotations

    def posterior(self, views: Views) -> PosePosterior:
        """The posterior given views."""
        return self.prior(self.trunk(views))

    def loss(self, example: Example, *, regressor_only: bool) -> Tensor:
        """NLL and the loss of the mode; with a regressor, the NLL trains the flow alone."""
        context = self.trunk(example.views)
        clean = self.truth(example, clean=True)
        if not self.anchored:
            zero = context.new_zeros(len(context), self.prior.space.features)
            mode = self.prior(context).decode(zero)
            nll = self.prior.nll(self.truth(example), context)
            return nll + regression_loss(mode, clean)
        loss = regression_loss(self.prior.mode(context), clean)
        if regressor_only:
            return loss
        return loss + self.prior.nll(self.truth(example), context.detach())

    def nll(self, example: Example) -> Tensor:
        """NLL (B,) in nats; 6D vectors have the noise of training, see the benchmark's results."""
        posterior, theta = self.posterior(example.views), self.truth(example)
        if self.prior.space.name == "rot6d":
            generator = torch.Generator().manual_seed(0)
            theta = rotations.matrix_to_rot6d(theta)
            noise = torch.randn(theta.shape, generator=generator)
            theta = theta + self.prior.target_noise * noise
        return -posterior.log_prob(theta)

    def calibrate(self, example: Example) -> None:
        """Fit the base to held-out people."""
        self.prior.calibrate(self.truth(example), self.trunk(example.views))

    def mode(self, views: Views) -> Tensor:
        """Joints (B, 17, 3) of the mode."""
        return joints_of(self.posterior(views).mode().detach())

    def samples(self, views: Views, count: int, generator: torch.Generator) -> Tensor:
        """Joints (B, n, 17, 3)."""
        return joints_of(self.posterior(views).sample(count, generator=generator))


class Heads(nn.Module):
    """Several answers at once, the best of which is trained, and the others a little.

    References:
        Rupprecht et al., *Learning in an Uncertain World*, 2017.
    """

    def __init__(self, target: str, hidden: int, *, width: int = WIDTH) -> None:
        super().__init__()
        self.target = target
        self.trunk = Trunk(width, skip=True)
        self.event = (16, 3) if target == "joints" else (24, 6)
        features = math.prod(self.event)
        self.inner = nn.Linear(self.trunk.out_features, hidden)
        self.outer = nn.Linear(hidden, NUM_HEADS * features)
        self.direct = nn.Linear(self.trunk.out_features, NUM_HEADS * features, bias=False)
        with torch.no_grad():
            self.outer.weight.mul_(0.1)
            self.direct.weight.mul_(0.1)
            if target == "pose":
                self.outer.bias.add_(torch.eye(3)[:2].flatten().repeat(24 * NUM_HEADS))

    def regressor(self) -> list[nn.Parameter]:
        """All parameters."""
        return list(self.parameters())

    def _answers(self, views: Views) -> Tensor:
        context = self.trunk(views)
        out = self.outer(self.inner(context).relu()) + self.direct(context)
        return out.unflatten(-1, (NUM_HEADS, *self.event))

    def loss(self, example: Example, *, regressor_only: bool) -> Tensor:
        """The least error of joints, and a twentieth of the mean of all."""
        answers = self._answers(example.views)
        truth = example.views.relative if self.event == (16, 3) else example.clean
        error = (joints_of(answers) - joints_of(truth)[:, None]).norm(dim=-1).sum(dim=-1)
        error = 30 * error
        if self.event == (24, 6):
            matrix = rotations.rot6d_to_matrix(answers)
            error = error + 100 * (matrix - truth[:, None]).abs().mean(dim=(-3, -2, -1))
        return 0.95 * error.amin(dim=1).mean() + 0.05 * error.mean()

    def calibrate(self, example: Example) -> None:
        """Answers have no spread to fit."""

    def mode(self, views: Views) -> None:
        """None of the answers is singled out."""

    def samples(self, views: Views, count: int, generator: torch.Generator) -> Tensor:
        """The answers, whatever ``count`` is."""
        return joints_of(self._answers(views))


class Matching(nn.Module):
    """Flow matching around a regressor: a velocity that carries noise to the residual.

    References:
        Lipman et al., *Flow Matching for Generative Modeling*, 2022.
    """

    scale: Tensor

    def __init__(self, target: str, hidden: int, *, width: int = WIDTH) -> None:
        super().__init__()
        self.target = target
        self.answer = Posterior(
            target,
            {"coupling": "none", "num_steps": 1, "base": "normal", "head_features": 128},
            width=width,
            diagonal=True,
        )
        features, context = self.answer.prior.space.features, self.answer.trunk.out_features
        self.read = nn.Linear(context, hidden)
        self.input = nn.Linear(features + 1, hidden)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.output = nn.Linear(hidden, features)
        self.register_buffer("scale", torch.zeros(features))

    def regressor(self) -> list[nn.Parameter]:
        """Parameters of the network that gives the single answer."""
        return self.answer.regressor()

    def _velocity(self, x: Tensor, time: Tensor, read: Tensor) -> Tensor:
        hidden = self.input(torch.cat((x, time), dim=-1)) + read
        for layer in self.inner:
            hidden = hidden + layer(hidden.relu())
        return cast(Tensor, self.output(hidden.relu()))

    def loss(self, example: Example, *, regressor_only: bool) -> Tensor:
        """The loss of the answer and the squared error of the velocity."""
        prior = self.answer.prior
        context = self.answer.trunk(example.views)
        posterior = prior(context)
        loss = regression_loss(posterior.mode(), self.answer.truth(example, clean=True))
        if regressor_only:
            return loss
        with torch.no_grad():
            residual = prior.space.to_vector(self.answer.truth(example), posterior.centre)
            if not self.scale.any():
                self.scale.copy_(residual.std(dim=0).clamp(min=1e-3))
            residual = residual / self.scale
        noise, time = torch.randn_like(residual), torch.rand(len(residual), 1)
        between = (1 - time) * noise + time * residual
        velocity = self._velocity(between, time, self.read(context.detach()))
        return loss + (velocity - (residual - noise)).square().sum(dim=-1).mean()

    def calibrate(self, example: Example) -> None:
        """It has no density to fit."""

    def mode(self, views: Views) -> Tensor:
        """Joints (B, 17, 3) of the regressor's answer."""
        return self.answer.mode(views)

    def samples(self, views: Views, count: int, generator: torch.Generator) -> Tensor:
        """Joints (B, n, 17, 3), by midpoint steps."""
        context = self.answer.trunk(views)
        posterior, read = self.answer.prior(context), self.read(context)[:, None]
        x = torch.randn(len(context), count, len(self.scale), generator=generator)
        step = 1 / MATCHING_STEPS
        for number in range(MATCHING_STEPS):
            time = torch.full_like(x[..., :1], number * step)
            half = x + step / 2 * self._velocity(x, time, read)
            x = x + step * self._velocity(half, time + step / 2, read)
        return joints_of(self.answer.prior.space.to_pose(x * self.scale, posterior.centre))
