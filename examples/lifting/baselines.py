"""Baselines: several heads, a mixture of Gaussians, independent joints."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.data.virtual_views import Views
from examples.lifting.methods import EVENT, FEATURES, HeadLifter

__all__ = ["FactorisedLifter", "MixtureLifter", "MultiHeadLifter"]

FIRST_SIGMA = 0.1
# Bound of the logarithm of a standard deviation over the first: 5 mm to 2 m.
LOG_SIGMA_BOUND = 3.0


class MultiHeadLifter(HeadLifter):
    """M poses per view; the loss trains the nearest (best of M).

    A score predicts the probability that a head is the nearest one.

    Args:
        heads: Number M of poses.
        relaxation: Weight of the mean loss over all heads, which keeps every head alive.
        width: Width of the network.
        num_blocks: Number of its residual blocks.
        dropout: Its dropout probability.
        inputs: Encoding of keypoints, see `KeypointReader`.
        skip: As in `HeadLifter`.

    References:
        Biggs et al., *3D Multibodies: Fitting Sets of Plausible 3D Models to Ambiguous Image
        Data*, 2020, best-of-M loss; Rupprecht et al., *Learning in an Uncertain World:
        Representing Ambiguity Through Multiple Hypotheses*, 2017, for the relaxation.
    """

    def __init__(
        self,
        heads: int = 25,
        relaxation: float = 0.0,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        inputs: str = "flags",
        skip: bool = False,
    ) -> None:
        if heads < 1 or not 0 <= relaxation < 1:
            raise ValueError(f"expected heads >= 1, 0 <= relaxation < 1: {heads}, {relaxation}")
        super().__init__(
            FEATURES + heads * (FEATURES + 1), width, num_blocks, dropout, inputs, skip
        )
        self.heads = heads
        self.relaxation = relaxation
        # Heads are offsets from a shared pose and start apart from each other: otherwise the loss
        # trains only the head that is nearest at first.
        with torch.no_grad():
            offsets = slice(FEATURES, (heads + 1) * FEATURES)
            self.head.weight[offsets].zero_()
            self.head.bias[offsets].normal_(std=FIRST_SIGMA / 4)

    def _split(self, views: Views) -> tuple[Tensor, Tensor]:
        """Poses (B, M, 16, 3) and scores (B, M)."""
        sizes = (FEATURES, self.heads * FEATURES, self.heads)
        shared, offsets, scores = self.read(views).split(sizes, dim=1)
        poses = shared[:, None] + offsets.unflatten(1, (self.heads, FEATURES))
        return poses.unflatten(-1, EVENT), scores

    def loss(self, views: Views) -> Tensor:
        """MPJPE of the nearest head in decimetres, and the cross-entropy of the scores."""
        poses, scores = self._split(views)
        error = 10 * (poses - views.relative[:, None]).norm(dim=-1).mean(dim=-1)
        best, winner = error.min(dim=1)
        nearest = (1 - self.relaxation) * best.mean() + self.relaxation * error.mean()
        return nearest + 0.1 * F.cross_entropy(scores, winner)

    def hypotheses(self, views: Views) -> Tensor:
        """The poses (B, M, 16, 3), the most probable first."""
        poses, scores = self._split(views)
        order = scores.argsort(dim=1, descending=True)
        return poses.gather(1, order[..., None, None].expand_as(poses))

    def point(self, views: Views) -> Tensor:
        """The mean of the heads by score, with less error than the most probable head."""
        poses, scores = self._split(views)
        return (scores.softmax(dim=1)[..., None, None] * poses).sum(dim=1)

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples of the heads by their scores, (B, n, 16, 3)."""
        poses, scores = self._split(views)
        chosen = torch.multinomial(
            scores.softmax(dim=1), num_samples, replacement=True, generator=generator
        )
        rows = torch.arange(len(poses), device=poses.device)[:, None]
        return poses[rows, chosen]


class MixtureLifter(HeadLifter):
    """A mixture density network with K Gaussians.

    Args:
        components: Number K of Gaussians.
        isotropic: One standard deviation per component instead of one per coordinate.
        noise: Standard deviation of the noise on training targets, metres.
        width: Width of the network.
        num_blocks: Number of its residual blocks.
        dropout: Its dropout probability.
        inputs: Encoding of keypoints, see `KeypointReader`.
        skip: As in `HeadLifter`.

    References:
        Li and Lee, *Generating Multiple Hypotheses for 3D Human Pose Estimation with Mixture
        Density Network*, 2019: five isotropic components.
    """

    def __init__(
        self,
        components: int = 5,
        isotropic: bool = False,
        noise: float = 0.005,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        inputs: str = "flags",
        skip: bool = False,
    ) -> None:
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        sigmas = 1 if isotropic else FEATURES
        super().__init__(
            components * (1 + sigmas + FEATURES), width, num_blocks, dropout, inputs, skip
        )
        self.noise = noise
        self.sizes = (components, components * sigmas, components * FEATURES)
        self.components = components
        # Identical components would stay identical.
        with torch.no_grad():
            self.head.bias[-self.sizes[2] :].normal_(std=0.05)

    def _parts(self, views: Views) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (B, K), standard deviations (B, K, 48 or 1) and means (B, K, 48)."""
        weights, sigmas, means = self.read(views).split(self.sizes, dim=1)
        sigma = _sigma(sigmas)
        shape = (self.components, -1)
        return weights.log_softmax(dim=1), sigma.unflatten(1, shape), means.unflatten(1, shape)

    def loss(self, views: Views) -> Tensor:
        """NLL in nats."""
        theta = views.relative
        return -self.log_prob(views, theta + self.noise * torch.randn_like(theta)).mean()

    def log_prob(self, views: Views, theta: Tensor) -> Tensor:
        """Log-density, (B,) nats."""
        weights, sigma, means = self._parts(views)
        z = (theta.flatten(1)[:, None] - means) / sigma
        log_scale = sigma.log().expand_as(z).sum(dim=-1)
        normal = -0.5 * z.square().sum(dim=-1) - log_scale - FEATURES / 2 * math.log(2 * math.pi)
        return (weights + normal).logsumexp(dim=1)

    def point(self, views: Views) -> Tensor:
        """The mean, with less error than the mean of the most probable component."""
        weights, _, means = self._parts(views)
        return (weights.exp()[..., None] * means).sum(dim=1).unflatten(1, EVENT)

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples (B, n, 16, 3)."""
        weights, sigma, means = self._parts(views)
        chosen = torch.multinomial(
            weights.exp(), num_samples, replacement=True, generator=generator
        )
        rows = torch.arange(len(means), device=means.device)[:, None]
        centre = means[rows, chosen]
        noise = torch.randn(
            centre.shape, generator=generator, dtype=centre.dtype, device=centre.device
        )
        return (centre + sigma[rows, chosen] * noise).unflatten(-1, EVENT)


class FactorisedLifter(HeadLifter):
    """An independent Gaussian for every joint, given the view.

    It represents heatmaps and other methods that predict joints independently.

    Args:
        noise: Standard deviation of the noise on training targets, metres.
        width: Width of the network.
        num_blocks: Number of its residual blocks.
        dropout: Its dropout probability.
        inputs: Encoding of keypoints, see `KeypointReader`.
        skip: As in `HeadLifter`.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, supplement,
        equation 1.
    """

    def __init__(
        self,
        noise: float = 0.005,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        inputs: str = "flags",
        skip: bool = False,
    ) -> None:
        super().__init__(EVENT[0] * 9, width, num_blocks, dropout, inputs, skip)
        self.noise = noise
        nn.init.normal_(self.head.weight, std=0.01)

    def _parts(self, views: Views) -> tuple[Tensor, Tensor]:
        """Means (B, 16, 3) and lower triangular factors of the covariances (B, 16, 3, 3)."""
        out = self.read(views).unflatten(1, (EVENT[0], 9))
        means, log_diagonal, off = out.split((3, 3, 3), dim=-1)
        lower = torch.zeros(*means.shape, 3, dtype=out.dtype, device=out.device)
        rows, columns = torch.tril_indices(3, 3, offset=-1, device=out.device)
        lower[..., rows, columns] = FIRST_SIGMA * off
        return means, lower + torch.diag_embed(_sigma(log_diagonal))

    def loss(self, views: Views) -> Tensor:
        """NLL in nats."""
        theta = views.relative
        return -self.log_prob(views, theta + self.noise * torch.randn_like(theta)).mean()

    def log_prob(self, views: Views, theta: Tensor) -> Tensor:
        """Log-density, (B,) nats."""
        means, factor = self._parts(views)
        z = torch.linalg.solve_triangular(factor, (theta - means)[..., None], upper=False)
        log_scale = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=(-2, -1))
        square = z.square().sum(dim=(-3, -2, -1))
        return -0.5 * square - log_scale - FEATURES / 2 * math.log(2 * math.pi)

    def point(self, views: Views) -> Tensor:
        """The mean, which is the mode."""
        return self._parts(views)[0]

    def sample(
        self, views: Views, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples (B, n, 16, 3)."""
        means, factor = self._parts(views)
        noise = torch.randn(
            len(means),
            num_samples,
            *EVENT,
            generator=generator,
            dtype=means.dtype,
            device=means.device,
        )
        return means[:, None] + (factor[:, None] @ noise[..., None]).squeeze(-1)


def _sigma(output: Tensor) -> Tensor:
    """Standard deviations in metres from outputs of a network."""
    return FIRST_SIGMA * (LOG_SIGMA_BOUND * (output / LOG_SIGMA_BOUND).tanh()).exp()
