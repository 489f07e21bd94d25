"""The common protocol of lifters; the flow, regressors, and noise around a point estimate.

The module `baselines` contains the other learned distributions.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from examples.data.virtual_views import Views
from examples.lifting.model import KeypointReader, LiftingModel, MartinezEncoder
from flowprior.metrics import mpjpe
from flowprior.skeleton import H36M_17

__all__ = [
    "FlowLifter",
    "GaussianLifter",
    "HeadLifter",
    "Lifter",
    "ModeRegressor",
    "Regressor",
    "TrainedLifter",
    "TrainingPoses",
    "gaussian_around",
    "isotropic_around",
]

EVENT = (H36M_17.num_joints - 1, 3)
FEATURES = EVENT[0] * EVENT[1]


class Lifter(nn.Module, ABC):
    """Predicts theta (..., 16, 3): joints relative to the pelvis, camera frame, metres.

    Except for the loss, it reads only ``keypoints`` and ``visible`` of the views.
    """

    @abstractmethod
    def point(self, views: Views) -> Tensor:
        """The point estimate, (B, 16, 3)."""

    @abstractmethod
    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw poses.

        Args:
            views: B views.
            num_samples: Number n of samples per view.
            generator: Random generator on the device of the views.

        Returns:
            (B, n, 16, 3).
        """

    def log_prob(self, views: Views, theta: Tensor) -> Tensor | None:
        """Log-density of theta (B, 16, 3) in nats, (B,); None without a density."""
        return None

    def hypotheses(self, views: Views) -> Tensor | None:
        """All its poses (B, M, 16, 3), best first, if finitely many; else None."""
        return None


class TrainedLifter(Lifter):
    """A lifter with weights and an objective."""

    @property
    @abstractmethod
    def keypoint_reader(self) -> KeypointReader:
        """The reader of its input, to be fitted before training."""

    @abstractmethod
    def loss(self, views: Views) -> Tensor:
        """The training loss, ()."""


class FlowLifter(TrainedLifter):
    """The conditional flow.

    Args:
        model: Encoder and prior.
        nll_weight: Weight of the NLL in nats.
        mode_weight: Weight of the L1 error of the mode, in metres summed over the coordinates.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, supplement 3:
        0.001 and 1.0.
    """

    def __init__(
        self,
        model: LiftingModel,
        nll_weight: float = 1.0,
        mode_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.nll_weight = nll_weight
        self.mode_weight = mode_weight

    @property
    def keypoint_reader(self) -> KeypointReader:
        """The reader of the model."""
        return self.model.reader

    def loss(self, views: Views) -> Tensor:
        """Weighted NLL and error of the mode, each summed over coordinates, mean over views."""
        theta = views.relative
        context = self.model.context(views.keypoints, views.visible)
        loss = self.nll_weight * self.model.prior.nll(theta, context)
        if not self.mode_weight:
            return loss
        # The decoded z = 0 is the mode if that is exact, and near it otherwise.
        zero = theta.new_zeros(len(theta), FEATURES)
        centre = self.model.prior(context).decode(zero)
        return loss + self.mode_weight * (centre - theta).abs().sum(dim=(1, 2)).mean()

    def point(self, views: Views) -> Tensor:
        """The mode."""
        return self.model(views.keypoints, views.visible).mode()

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples of the posterior, (B, n, 16, 3)."""
        posterior = self.model(views.keypoints, views.visible)
        return posterior.sample(num_samples, generator=generator)

    def log_prob(self, views: Views, theta: Tensor) -> Tensor:
        """Log-density, (B,) nats."""
        return self.model(views.keypoints, views.visible).log_prob(theta)


class ModeRegressor(TrainedLifter):
    """One pose per view by the network of the flow, trained for the mode only.

    Args:
        model: Encoder and prior.
    """

    def __init__(self, model: LiftingModel) -> None:
        super().__init__()
        self.model = model

    @property
    def keypoint_reader(self) -> KeypointReader:
        """The reader of the model."""
        return self.model.reader

    def loss(self, views: Views) -> Tensor:
        """MPJPE in metres over the 16 joints."""
        if not self.model.prior.flow.is_initialized():
            # The scale of the flow comes from data, as in training of its likelihood.
            with torch.no_grad():
                self.model.prior.nll(
                    views.relative, self.model.context(views.keypoints, views.visible)
                )
        return mpjpe(self.point(views), views.relative).mean()

    def point(self, views: Views) -> Tensor:
        """The pose (B, 16, 3)."""
        return self.model(views.keypoints, views.visible).mode()

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """The same pose n times, (B, n, 16, 3)."""
        return self.point(views)[:, None].expand(-1, num_samples, -1, -1)

    def hypotheses(self, views: Views) -> Tensor:
        """The one pose, (B, 1, 16, 3)."""
        return self.point(views)[:, None]


class HeadLifter(TrainedLifter):
    """The network of Martinez et al. with a linear output layer.

    Args:
        outputs: Width of the linear layer.
        width: Width of the network.
        num_blocks: Number of its residual blocks.
        dropout: Its dropout probability.
        inputs: Encoding of keypoints, see `KeypointReader`.
    """

    def __init__(
        self,
        outputs: int,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        inputs: str = "flags",
    ) -> None:
        super().__init__()
        self.reader = KeypointReader(inputs)
        self.encoder = MartinezEncoder(self.reader.features, width, num_blocks, dropout)
        self.head = nn.Linear(width, outputs)

    @property
    def keypoint_reader(self) -> KeypointReader:
        """The reader of the network."""
        return self.reader

    def read(self, views: Views) -> Tensor:
        """Outputs of the network for B views, (B, outputs)."""
        output: Tensor = self.head(self.encoder(self.reader(views.keypoints, views.visible)))
        return output


class Regressor(HeadLifter):
    """One pose per view, as Martinez et al.; all samples are that pose.

    Args:
        loss: ``"mpjpe"``, the evaluation metric, or ``"mse"``, as published.
        width: Width of the network.
        num_blocks: Number of its residual blocks.
        dropout: Its dropout probability.
        inputs: Encoding of keypoints, see `KeypointReader`.
    """

    def __init__(
        self,
        loss: str = "mpjpe",
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        inputs: str = "flags",
    ) -> None:
        if loss not in ("mpjpe", "mse"):
            raise ValueError(f"loss must be 'mpjpe' or 'mse', got {loss!r}")
        super().__init__(FEATURES, width, num_blocks, dropout, inputs)
        self.kind = loss

    def loss(self, views: Views) -> Tensor:
        """MPJPE in metres over the 16 joints, or the mean squared error of a coordinate."""
        point = self.point(views)
        if self.kind == "mse":
            return nn.functional.mse_loss(point, views.relative)
        return mpjpe(point, views.relative).mean()

    def point(self, views: Views) -> Tensor:
        """The pose (B, 16, 3)."""
        return self.read(views).unflatten(1, EVENT)

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """The same pose n times, (B, n, 16, 3)."""
        return self.hypotheses(views).expand(-1, num_samples, -1, -1)

    def hypotheses(self, views: Views) -> Tensor:
        """The one pose, (B, 1, 16, 3)."""
        return self.point(views)[:, None]


class GaussianLifter(Lifter):
    """A Gaussian with constant covariance around the point estimate of another lifter.

    Args:
        around: The other lifter.
        factor: (48, 48) lower triangular factor of the covariance, in metres.
    """

    factor: Tensor

    def __init__(self, around: Lifter, factor: Tensor) -> None:
        super().__init__()
        self.around = around
        self.register_buffer("factor", factor)

    def point(self, views: Views) -> Tensor:
        """Its centre."""
        return self.around.point(views)

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples (B, n, 16, 3)."""
        centre = self.point(views)
        noise = torch.randn(
            len(centre),
            num_samples,
            FEATURES,
            generator=generator,
            dtype=centre.dtype,
            device=centre.device,
        )
        return centre[:, None] + (noise @ self.factor.mT).unflatten(-1, EVENT)

    def log_prob(self, views: Views, theta: Tensor) -> Tensor:
        """Log-density, (B,) nats."""
        return torch.distributions.MultivariateNormal(
            self.point(views).flatten(1), scale_tril=self.factor
        ).log_prob(theta.flatten(1))


@torch.no_grad()
def gaussian_around(lifter: Lifter, views: Views) -> GaussianLifter:
    """Fit a full-covariance Gaussian around a lifter's point estimate by maximum likelihood.

    Args:
        lifter: The lifter.
        views: More than 48 held-out views.

    Returns:
        The Gaussian.

    Raises:
        ValueError: There are too few views for a covariance of 48 dimensions.
    """
    if len(views) <= FEATURES:
        raise ValueError(f"expected more than {FEATURES} views for a covariance, got {len(views)}")
    residual = (views.relative - lifter.point(views)).flatten(1).double()
    covariance = residual.mT @ residual / len(residual)
    # Half a millimetre of noise: joints at a constant offset would have no density.
    covariance = covariance + 0.0005**2 * torch.eye(FEATURES).to(covariance)
    return GaussianLifter(lifter, torch.linalg.cholesky(covariance).to(views.relative.dtype))


def isotropic_around(lifter: Lifter, sigma: float, like: Tensor) -> GaussianLifter:
    """N(point, sigma^2 I), sigma in metres, on the device and in the dtype of a tensor."""
    if not sigma > 0 or math.isinf(sigma):
        raise ValueError(f"sigma must be a positive length in metres, got {sigma}")
    return GaussianLifter(lifter, sigma * torch.eye(FEATURES).to(like))


class TrainingPoses(Lifter):
    """Random poses of the training set, independent of the view.

    Args:
        poses: (N, 16, 3) of training views: relative to the pelvis, camera frame, metres.
    """

    poses: Tensor

    def __init__(self, poses: Tensor) -> None:
        super().__init__()
        self.register_buffer("poses", poses)

    def point(self, views: Views) -> Tensor:
        """The mean pose for every view."""
        return self.poses.mean(dim=0).expand(len(views), -1, -1)

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples (B, n, 16, 3)."""
        rows = torch.randint(
            len(self.poses),
            (len(views), num_samples),
            generator=generator,
            device=self.poses.device,
        )
        return self.poses[rows]
