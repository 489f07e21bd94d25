"""The common protocol of lifters; the flow, regressors, and noise around a point estimate.

The module `baselines` contains the other learned distributions.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from examples.data.virtual_views import Views
from examples.lifting.model import KeypointReader, LiftingModel, MartinezEncoder, with_raw
from flowprior.flow.base import DEGREES_OF_FREEDOM, Base, Normal, StudentT
from flowprior.metrics import mpjpe
from flowprior.skeleton import H36M_17

__all__ = [
    "MODE_LOSSES",
    "FlowLifter",
    "GaussianLifter",
    "HeadLifter",
    "Lifter",
    "ModeRegressor",
    "Regressor",
    "StudentLifter",
    "TrainedLifter",
    "TrainingPoses",
    "gaussian_around",
    "isotropic_around",
    "student_around",
]

MODE_LOSSES = ("l1", "mpjpe")
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
    """A lifter with weights and an objective.

    Attributes:
        regressor_share: Share of the training steps, from 0 to below 1, in which only a regressor
            is trained, see `examples.lifting.phases.phase_of`.
    """

    regressor_share: float = 0.0

    @property
    @abstractmethod
    def keypoint_reader(self) -> KeypointReader:
        """The reader of its input, to be fitted before training."""

    @abstractmethod
    def loss(self, views: Views) -> Tensor:
        """The training loss, ()."""

    def loss_of(self, part: str, views: Views) -> Tensor:
        """The training loss () of one part of the weights, see `examples.lifting.phases.Phase`."""
        return self.loss(views)

    @property
    def needs_scale(self) -> bool:
        """Whether the scale of a flow is still to be set from data, by its first loss."""
        return False

    def calibrate(self, views: Views) -> dict[str, float]:
        """Fit the width of the distribution to held-out views after training.

        Returns:
            What was fitted, by name; empty if nothing is.
        """
        return {}


class FlowLifter(TrainedLifter):
    """The conditional flow.

    The model of the preset ``"default"`` is a regressor, which answers with the mode, and a flow
    around its answer. The error of the mode trains the regressor, the NLL trains the flow: neither
    has gradients for the other's weights, so their weights in the loss do not compete. There are
    two recipes. With ``regressor_share`` above 0, the regressor is trained first and then stays as
    it is, to the last bit, while the flow learns its residuals. With 0, both are trained in every
    step.

    In any other model, such as the original, mode and density share all weights.

    Args:
        model: Encoder and prior.
        nll_weight: Weight of the NLL in nats.
        mode_weight: Weight of the error of the mode.
        mode_loss: ``"l1"``, in metres summed over the coordinates, as published, or ``"mpjpe"``,
            the evaluation metric, in metres.
        regressor_share: As in `TrainedLifter`.

    Raises:
        ValueError: An argument is unknown or out of range, or the mode of the model has weights of
            its own that no loss would train.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, supplement 3:
        weights 0.001 and 1.0, ``"l1"``.
    """

    def __init__(
        self,
        model: LiftingModel,
        nll_weight: float = 1.0,
        mode_weight: float = 1.0,
        mode_loss: str = "l1",
        regressor_share: float = 0.0,
    ) -> None:
        super().__init__()
        if mode_loss not in MODE_LOSSES:
            raise ValueError(f"mode_loss must be one of {MODE_LOSSES}, got {mode_loss!r}")
        if not 0 <= regressor_share < 1:
            raise ValueError(
                f"regressor_share must be at least 0 and below 1, got {regressor_share}"
            )
        if regressor_share and model.prior.head is None:
            raise ValueError(
                "this model has no regressor to train first, its mode depends on the flow: set "
                "regressor_share to 0"
            )
        if model.prior.head is not None and not mode_weight > 0:
            raise ValueError(
                f"the error of the mode trains the regressor: mode_weight must be above 0, got "
                f"{mode_weight}"
            )
        self.model = model
        self.nll_weight = nll_weight
        self.mode_weight = mode_weight
        self.mode_loss = mode_loss
        self.regressor_share = regressor_share

    @property
    def keypoint_reader(self) -> KeypointReader:
        """The reader of the model."""
        return self.model.reader

    def loss(self, views: Views) -> Tensor:
        """Weighted NLL and error of the mode, mean over views."""
        context = self.model.context(views.keypoints, views.visible)
        # The mode's error alone trains the encoder of a regressor.
        seen = context if self.model.prior.head is None else context.detach()
        loss = self.nll_weight * self.model.prior.nll(views.relative, seen)
        if not self.mode_weight:
            return loss
        return loss + self._mode_loss(context, views)

    def loss_of(self, part: str, views: Views) -> Tensor:
        """The weighted error of the mode, the weighted NLL, or both."""
        if part == "regressor":
            return self._mode_loss(self.model.context(views.keypoints, views.visible), views)
        if part == "flow":
            seen = self._settled_context(views)
            return self.nll_weight * self.model.prior.nll(views.relative, seen)
        return self.loss(views)

    @property
    def needs_scale(self) -> bool:
        """Whether ActNorm has not been initialised."""
        return not self.model.prior.flow.is_initialized()

    def _mode_loss(self, context: Tensor, views: Views) -> Tensor:
        theta, prior = views.relative, self.model.prior
        if prior.head is not None:  # the mode, without a projection of the context for the flow
            mode = prior.head(context)
        elif prior.has_exact_mode:
            mode = prior.mode(context)
        else:  # near the mode, and without an ascent in every step
            mode = prior(context).decode(theta.new_zeros(len(theta), FEATURES))
        if self.mode_loss == "mpjpe":
            return self.mode_weight * mpjpe(mode, theta).mean()
        return self.mode_weight * (mode - theta).abs().sum(dim=(1, 2)).mean()

    @torch.no_grad()
    def _settled_context(self, views: Views) -> Tensor:
        """The context without dropout, and without a step of the statistics of batch norm."""
        encoder = self.model.encoder
        training = encoder.training
        encoder.eval()
        try:
            return self.model.context(views.keypoints, views.visible)
        finally:
            encoder.train(training)

    @torch.no_grad()
    def calibrate(self, views: Views) -> dict[str, float]:
        """Fit temperature and degrees of freedom, if the base is a Student's t."""
        flow = self.model.prior.flow
        if not isinstance(flow.base, StudentT):
            return {}
        context = self.model.context(views.keypoints, views.visible)
        temperature = self.model.prior.calibrate(views.relative, context)
        return {
            "temperature": temperature,
            "degrees_of_freedom": float(flow.base.degrees_of_freedom),
        }

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
    """One pose per view by the network of the mode, trained for the mode only.

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
        flow = self.model.prior.flow
        if not flow.keeps_origin and not flow.is_initialized():
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
        skip: Whether the linear layer also reads the encoded keypoints, beside the features.
    """

    def __init__(
        self,
        outputs: int,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        inputs: str = "flags",
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.reader = KeypointReader(inputs)
        self.encoder = MartinezEncoder(self.reader.features, width, num_blocks, dropout)
        self.skip = skip
        self.head = nn.Linear(width + (self.reader.features if skip else 0), outputs)
        # The encoder's features are sums of rectified ones: with torch's own start, the error after
        # a short training is a quarter larger.
        nn.init.zeros_(self.head.weight)

    @property
    def keypoint_reader(self) -> KeypointReader:
        """The reader of the network."""
        return self.reader

    def read(self, views: Views) -> Tensor:
        """Outputs of the network for B views, (B, outputs)."""
        read = self.reader(views.keypoints, views.visible)
        output: Tensor = self.head(with_raw(self.encoder, read, self.skip))
        return output


class Regressor(HeadLifter):
    """One pose per view, as Martinez et al.; all samples are that pose.

    Args:
        loss: ``"mpjpe"``, the evaluation metric, or ``"mse"``, as published.
        width: Width of the network.
        num_blocks: Number of its residual blocks.
        dropout: Its dropout probability.
        inputs: Encoding of keypoints, see `KeypointReader`.
        skip: As in `HeadLifter`.
    """

    def __init__(
        self,
        loss: str = "mpjpe",
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        inputs: str = "flags",
        skip: bool = False,
    ) -> None:
        if loss not in ("mpjpe", "mse"):
            raise ValueError(f"loss must be 'mpjpe' or 'mse', got {loss!r}")
        super().__init__(FEATURES, width, num_blocks, dropout, inputs, skip)
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
        base: Density of the noise that the factor multiplies; standard normal if None.
    """

    factor: Tensor

    def __init__(self, around: Lifter, factor: Tensor, base: Base | None = None) -> None:
        super().__init__()
        self.around = around
        self.base = Normal() if base is None else base
        self.register_buffer("factor", factor)

    def point(self, views: Views) -> Tensor:
        """Its centre."""
        return self.around.point(views)

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples (B, n, 16, 3)."""
        centre = self.point(views)
        shape = (len(centre), num_samples, FEATURES)
        noise = self.base.sample(shape, centre.dtype, centre.device, generator)
        return centre[:, None] + (noise @ self.factor.mT).unflatten(-1, EVENT)

    def log_prob(self, views: Views, theta: Tensor) -> Tensor:
        """Log-density, (B,) nats."""
        residual = (theta - self.point(views)).flatten(1)
        z = torch.linalg.solve_triangular(self.factor, residual.mT, upper=False).mT
        return self.base.log_prob(z) - self.factor.diagonal().log().sum()


class StudentLifter(GaussianLifter):
    """A multivariate Student's t with constant scatter around another lifter's point estimate.

    Args:
        around: The other lifter.
        factor: (48, 48) lower triangular factor of the scatter matrix, in metres.
        degrees_of_freedom: Above 2.
    """

    def __init__(self, around: Lifter, factor: Tensor, degrees_of_freedom: float) -> None:
        super().__init__(around, factor, StudentT(degrees_of_freedom))


# Half a millimetre of noise: joints at a constant offset would have no density.
LEAST_VARIANCE = 0.0005**2
# The scatter of a Student's t changes by less than a thousandth after as many steps.
EM_STEPS = 30


@torch.no_grad()
def _residuals(lifter: Lifter, views: Views) -> Tensor:
    """Residuals (N, 48) of a point estimate in float64; ValueError if there are 48 or fewer."""
    if len(views) <= FEATURES:
        raise ValueError(f"expected more than {FEATURES} views for a covariance, got {len(views)}")
    return (views.relative - lifter.point(views)).flatten(1).double()


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
    residual = _residuals(lifter, views)
    covariance = residual.mT @ residual / len(residual)
    covariance = covariance + LEAST_VARIANCE * torch.eye(FEATURES).to(covariance)
    return GaussianLifter(lifter, torch.linalg.cholesky(covariance).to(views.relative.dtype))


@torch.no_grad()
def student_around(lifter: Lifter, views: Views) -> StudentLifter:
    """Fit a Student's t with full scatter around a lifter's point estimate by maximum likelihood.

    The degrees of freedom are the best of a grid; EM finds the scatter matrix of each.

    Args:
        lifter: The lifter.
        views: More than 48 held-out views.

    Returns:
        The Student's t.

    Raises:
        ValueError: There are too few views for a scatter matrix of 48 dimensions.

    References:
        Liu and Rubin, *ML estimation of the t distribution using EM and its extensions*, 1995.
    """
    residual = _residuals(lifter, views)
    floor = LEAST_VARIANCE * torch.eye(FEATURES).to(residual)
    best, most, chosen = residual.new_empty(0), -math.inf, math.inf
    for nu in DEGREES_OF_FREEDOM:
        base = StudentT(nu).to(residual.device)
        factor = torch.linalg.cholesky(residual.mT @ residual / len(residual) + floor)
        for _ in range(EM_STEPS):
            z = torch.linalg.solve_triangular(factor, residual.mT, upper=False)
            weighted = residual.mT * ((nu + FEATURES) / (nu + z.square().sum(dim=0)))
            factor = torch.linalg.cholesky(weighted @ residual / len(residual) + floor)
        z = torch.linalg.solve_triangular(factor, residual.mT, upper=False)
        likelihood = float(base.log_prob(z.mT).mean() - factor.diagonal().log().sum())
        if likelihood > most:
            best, most, chosen = factor, likelihood, nu
    return StudentLifter(lifter, best.to(views.relative.dtype), chosen).to(residual.device)


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
