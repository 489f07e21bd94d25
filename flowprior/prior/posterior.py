"""PosePrior and PosePosterior: what can be asked of a density over body poses."""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from flowprior._checks import require_like, require_tensor
from flowprior.flow import FlowStack, ProjectedContext
from flowprior.flow.held import HeldFlow
from flowprior.flow.stack import batch_shape_of
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.spaces import PoseSpace, RotationSpace

if TYPE_CHECKING:
    from flowprior.prior.distribution import PoseDistribution

__all__ = [
    "PosePosterior",
    "PosePrior",
]


class PosePrior(nn.Module):
    r"""A density p(theta | context) over poses, by a flow over vectors of some space.

    Calling it with a context gives a :class:`PosePosterior`, which has projected the context
    once and answers ``sample``, ``log_prob``, ``mode`` and more. The same verbs on the prior itself
    take the context with each call. :class:`flowprior.ConditionalPosePrior` is the one to train;
    its ``freeze`` gives one with constant weights.

    Args:
        flow: The flow.
        space: What its vectors are.
        encoder: What reads the context before the flow does; None for nothing.
    """

    __call__: Callable[..., "PosePosterior"]

    def __init__(
        self, flow: FlowStack, space: PoseSpace, encoder: ContextEncoder | None = None
    ) -> None:
        super().__init__()
        self.flow = flow
        self.space = space
        self.encoder = encoder

    @property
    def context_features(self) -> int:
        """Width C of the context; 0 if there is none."""
        encoder = self.encoder
        return self.flow.context_features if encoder is None else encoder.context_features

    def forward(self, context: Tensor | None = None) -> "PosePosterior":
        """The posterior given a context.

        Args:
            context: (*batch, C); None for an unconditional prior.

        Returns:
            The posterior, whose batch is that of the context.

        Raises:
            ValueError: If the context has another width, dtype or device than the prior, or holds
                NaN or infinity.
        """
        if context is not None:
            require_tensor("context", context)
            _require_finite("context", context)
        if self.encoder is not None:
            if context is None:
                raise ValueError(
                    f"this prior needs a context of shape (..., {self.context_features}), got None"
                )
            with self.flow.full_precision():
                context = self.encoder(context)
        return PosePosterior(self, self.flow.project_context(context))

    def sample(
        self,
        context: Tensor | None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples (*batch, n, J, k); see :meth:`PosePosterior.sample`."""
        if isinstance(context, int):
            raise TypeError(
                f"context must be a torch.Tensor or None, got {context}: the number of samples "
                f"comes after it, sample(context, {context})"
            )
        return self(context).sample(num_samples, generator=generator)

    def log_prob(self, theta: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density (*batch, *extra) in nats; see :meth:`PosePosterior.log_prob`."""
        self._require_order("log_prob", theta, context)
        return self(context).log_prob(theta)

    def mode(self, context: Tensor | None = None) -> Tensor:
        """The most likely theta (*batch, J, k); see :meth:`PosePosterior.mode`."""
        return self(context).mode()

    def smpl_params(self, theta: Tensor) -> dict[str, Tensor]:
        """Split theta into the rotation matrices a body model takes.

        Args:
            theta: Rotations in any accepted form.

        Returns:
            ``global_orient`` (..., 1, 3, 3) and ``body_pose`` (..., J - 1, 3, 3).

        Raises:
            ValueError: If theta has another shape, or the prior is over keypoints.
        """
        if not isinstance(self.space, RotationSpace):
            raise ValueError("a prior over 3D keypoints has no joint rotations")
        matrix = self.space.to_matrix(theta)
        return {"global_orient": matrix[..., :1, :, :], "body_pose": matrix[..., 1:, :, :]}

    def _require_order(self, verb: str, theta: object, context: object) -> None:
        """Raise ValueError if the two were given in the other order."""
        width = self.context_features
        if not (width and isinstance(theta, Tensor) and isinstance(context, Tensor)):
            return
        sizes = (self.space.features, *self.space.event_shape)
        if theta.shape[-1:] == (width,) and width not in sizes and context.shape[-1:] != (width,):
            raise ValueError(
                f"{verb} takes theta first, then the context: {verb}(theta, context); got shapes "
                f"{tuple(theta.shape)} and {tuple(context.shape)}"
            )


class PosePosterior:
    """p(theta | context) for one batch of contexts, from :class:`flowprior.ConditionalPosePrior`.

    Its methods use the weights that the prior had when the context was projected, also those that
    ``torch.func.functional_call`` lends for that call only. Weights that change in place do so for
    the posterior too, while its projected context does not: create a new posterior after an
    optimiser step.

    Args:
        prior: The prior it comes from.
        context: The projected context.
        flow: The flow and the weights the context was projected with; the prior's present ones if
            None.

    Attributes:
        prior: The prior it came from.
        context: The projected context.
    """

    def __init__(
        self, prior: PosePrior, context: ProjectedContext, flow: HeldFlow | None = None
    ) -> None:
        self.prior = prior
        self.context = context
        self._flow = HeldFlow(prior.flow) if flow is None else flow

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of contexts."""
        return batch_shape_of(self.context)

    def expand(self, batch_shape: torch.Size) -> "PosePosterior":
        """The same posteriors, repeated without copies along a batch that theirs broadcasts to."""
        return PosePosterior(self.prior, self.context.expand(batch_shape), self._flow)

    @property
    def event_shape(self) -> tuple[int, int]:
        """Shape (J, k) of one theta."""
        return self.prior.space.event_shape

    def sample(self, num_samples: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples. They carry gradients to weights and context.

        Args:
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the prior's device.

        Returns:
            (*batch, n, J, k), also for n = 1.

        Raises:
            ValueError: If ``num_samples`` is negative.
        """
        x = self._flow.call("sample", self.context, num_samples, generator=generator)
        return self.prior.space.to_pose(x)

    def sample_and_log_prob(
        self, num_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples with their log-densities, which cost nothing extra.

        Args:
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the prior's device.

        Returns:
            Samples (*batch, n, J, k) and log-densities (*batch, n) in nats.

        Raises:
            ValueError: If ``num_samples`` is negative.
        """
        flow, space = self.prior.flow, self.prior.space
        x, log_prob = self._flow.call(
            "sample_and_log_prob", self.context, num_samples, generator=generator
        )
        theta, log_prob = space.to_pose(x), log_prob + space.log_volume(x)
        if space.flat or flow.training:  # in training mode a forward pass moves statistics
            return theta, log_prob
        settled = space.settled(x)
        moved = (settled != x).any(dim=-1)
        if _is_known_false(moved.any()):
            return theta, log_prob
        return theta, torch.where(moved, self._log_density(settled), log_prob)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log-density, differentiable in theta, weights and context.

        With ``space="rot6d"`` it is the density of the 6D vectors, not of the rotations; with
        ``"so3"`` that of the rotations, by Haar measure of mass 1.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form.

        Returns:
            (*batch, *extra), in nats.

        Raises:
            ValueError: If theta does not fit the batch or holds NaN or infinity.
        """
        x = self._checked_vector("theta", self.prior.space.to_vector(theta))
        return self._log_density(x)

    def mode(self) -> Tensor:
        """The most likely theta.

        Exact, the decoded z = 0, for additive couplings over 6D vectors or keypoints. For other
        couplings and ``space="so3"`` the volume depends on theta: then it is a local maximum near
        the decoded z = 0, found by ascent and never less likely than that.

        ``torch.compile`` leaves that ascent outside the graph.

        Returns:
            (*batch, J, k).
        """
        if self.prior.flow.has_exact_mode and self.prior.space.flat:
            return self.prior.space.to_pose(self._flow.call("mode", self.context))
        # A graph of a hundred steps of ascent would take minutes to compile, for every new shape.
        ascend = self._ascended_mode
        return (torch.compiler.disable(ascend) if torch.compiler.is_compiling() else ascend)()

    def entropy(
        self, *, num_samples: int = 256, generator: torch.Generator | None = None
    ) -> Tensor:
        """Differential entropy in nats.

        In closed form for additive couplings over 6D vectors or keypoints. Otherwise the mean
        surprise of samples, or, for ``space="so3"``, the closed form plus a mean over samples.

        Args:
            num_samples: Samples per context where there is no closed form.
            generator: Source of their noise.

        Returns:
            (*batch,).
        """
        space = self.prior.space
        draws = {"num_samples": num_samples, "generator": generator}
        entropy = cast(Tensor, self._flow.call("entropy", self.context, **draws))
        if space.flat:
            return entropy
        x = self._flow.call("sample", self.context, **draws)
        return entropy - space.log_volume(x).mean(dim=-1)

    def encode(self, theta: Tensor) -> Tensor:
        """Latent of theta.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form.

        Returns:
            z (*batch, *extra, D), standard normal for theta of this posterior.

        Raises:
            ValueError: If theta does not fit the batch or holds NaN or infinity.
        """
        x = self._checked_vector("theta", self.prior.space.to_vector(theta))
        return cast(Tensor, self._flow.call("__call__", x, self.context)[0])

    def decode(self, z: Tensor) -> Tensor:
        """Theta of a latent, the inverse of :meth:`encode`.

        Args:
            z: (*batch, *extra, D).

        Returns:
            (*batch, *extra, J, k).

        Raises:
            ValueError: If z does not fit the batch or holds NaN or infinity.
        """
        require_tensor("z", z)
        z = self._checked_vector("z", z)
        return self.prior.space.to_pose(self._flow.call("inverse", z, self.context)[0])

    def distribution(self, *, validate_args: bool | None = None) -> "PoseDistribution":
        """The same density as a ``torch.distributions.Distribution``, by torch's conventions.

        Args:
            validate_args: Whether values are checked; torch's default if None.

        Returns:
            Its batch is that of the contexts, its event one theta (J, k).
        """
        from flowprior.prior.distribution import PoseDistribution

        return PoseDistribution(self, validate_args=validate_args)

    def _ascended_mode(self) -> Tensor:
        space = self.prior.space
        log_volume = None if space.flat else space.log_volume
        theta = space.to_pose(self._flow.call("mode", self.context, log_volume=log_volume))
        if self.prior.flow.training:  # a forward pass moves statistics
            return theta
        # Ascent knows the density of x, log_prob that of the pose, which rounds and shortens x.
        shape = (*self.batch_shape, self.prior.flow.features)
        zero = torch.zeros(shape, dtype=self._flow.dtype, device=self._flow.device)
        start = self.decode(zero)
        with torch.no_grad():
            better, before = (self._log_density(space.to_vector(each)) for each in (theta, start))
        return torch.where((better >= before)[..., None, None], theta, start)

    def _log_density(self, x: Tensor) -> Tensor:
        """Log-density of the pose of x (*batch, *extra, D)."""
        log_prob = cast(Tensor, self._flow.call("log_prob", x, self.context))
        return log_prob + self.prior.space.log_volume(x)

    def _checked_vector(self, name: str, x: Tensor) -> Tensor:
        """Refuse vectors that are not finite or not of this batch, in words about theta."""
        batch = self.batch_shape
        if x.shape[:-1][: len(batch)] != batch:
            leading = tuple(x.shape[:-1])
            hint = ""
            if len(leading) == 2 and leading[1:] == batch:
                hint = f", as in {name}.transpose(0, 1)"
            raise ValueError(
                f"{name} has leading shape {leading}, but the context has batch shape "
                f"{tuple(batch)}: several poses for one context stand on axes after the batch{hint}"
            )
        x = require_like(name, x, self._flow.dtype, self._flow.device)
        _require_finite(name, x)
        return x


def _is_known_false(condition: Tensor) -> bool:
    """Whether a condition () is false, as far as the host can tell without waiting."""
    if condition.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return not bool(condition)
    except RuntimeError:  # vmap cannot look at values
        return False


def _require_finite(name: str, value: Tensor) -> None:
    # Elsewhere the host would have to wait for the device.
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    try:
        finite = bool(value.isfinite().all())
    except RuntimeError:  # vmap cannot look at values
        return
    if not finite:
        bad = (~value.isfinite()).sum().item()
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {value.numel()} entries")
