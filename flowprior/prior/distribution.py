"""A posterior with the interface and axis order of ``torch.distributions``."""

from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

__all__ = ["PoseDistribution"]


class _Posterior(Protocol):
    """The part of :class:`flowprior.prior.PosePosterior` that a distribution uses."""

    @property
    def batch_shape(self) -> torch.Size: ...

    @property
    def event_shape(self) -> tuple[int, int]: ...

    def expand(self, batch_shape: torch.Size) -> "_Posterior": ...

    def sample(self, num_samples: int = 1) -> Tensor: ...

    def log_prob(self, theta: Tensor) -> Tensor: ...

    def mode(self) -> Tensor: ...

    def entropy(self) -> Tensor: ...


class PoseDistribution(Distribution):
    r"""The density p(theta | context) of one batch of contexts.

    :meth:`flowprior.prior.PosePosterior.distribution` creates it. Samples have torch's axis order,
    (\*sample, \*batch, J, k); those of a posterior stand after the batch. Values must have the form
    (..., J, k) that the prior returns; the posterior's own ``log_prob`` accepts other forms of
    theta. Like all of ``torch.distributions``, it draws from the global generator.

    With ``space="so3"``, values are 6D vectors that represent rotations: the density is with
    respect to the Haar measure and does not depend on the length of the vectors.

    Args:
        posterior: The posterior.
        validate_args: Whether to check values; torch's default if None.
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012, as torch declares it

    def __init__(self, posterior: _Posterior, *, validate_args: bool | None = None) -> None:
        self.posterior = posterior
        super().__init__(
            posterior.batch_shape, torch.Size(posterior.event_shape), validate_args=validate_args
        )

    @property
    def support(self) -> constraints.Constraint:
        """All real (J, k)."""
        return constraints.independent(constraints.real, 2)

    @property
    def mode(self) -> Tensor:
        """Most likely theta (*batch, J, k), as the posterior computes it."""
        return self.posterior.mode()

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008, as torch's
        """Draw samples that carry gradients to weights and context.

        Args:
            sample_shape: Shape of the sample axes, before those of the batch.

        Returns:
            (*sample, *batch, J, k).
        """
        shape = torch.Size(sample_shape)
        samples = self.posterior.sample(shape.numel())
        return samples.movedim(-3, 0).reshape(self._extended_shape(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; see :meth:`flowprior.prior.PosePosterior.log_prob`.

        Args:
            value: (*sample, *batch, J, k), or a shape that broadcasts with it.

        Returns:
            (*sample, *batch).

        Raises:
            ValueError: If the value does not broadcast with batch and event, or, with
                ``validate_args``, holds NaN.
        """
        event = self.event_shape
        if value.shape[-2:] != event:
            raise ValueError(
                f"value has shape {tuple(value.shape)}, the event is {tuple(event)}; "
                "the posterior's log_prob takes other forms of theta"
            )
        if self._validate_args and value.numel():  # torch raises for an empty value
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        axes = len(shape) - len(self.batch_shape)
        batch = shape[axes:]
        # The posterior expects samples on one axis after the batch.
        rows = value.expand(*shape, *event).reshape(shape[:axes].numel(), *batch, *event)
        posterior = self.expand(batch).posterior
        return posterior.log_prob(rows.movedim(0, len(batch))).movedim(-1, 0).reshape(shape)

    def entropy(self) -> Tensor:
        """Differential entropy (*batch,) in nats, as the posterior computes it."""
        return self.posterior.entropy()

    def expand(
        self, batch_shape: _size, _instance: "PoseDistribution | None" = None
    ) -> "PoseDistribution":
        """Broadcast the batch to a larger one without copies.

        Args:
            batch_shape: The larger batch shape.

        Returns:
            A distribution with that batch shape.

        Raises:
            RuntimeError: If the batch does not broadcast to it.
        """
        new = type(self).__new__(type(self)) if _instance is None else _instance
        posterior = self.posterior.expand(torch.Size(batch_shape))
        PoseDistribution.__init__(new, posterior, validate_args=self._validate_args)
        return new
