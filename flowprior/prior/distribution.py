"""A posterior as ``torch.distributions`` has distributions: samples first, then the batch."""

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from flowprior.prior.posterior import PosePosterior

__all__ = ["PoseDistribution"]


class PoseDistribution(Distribution):
    r"""The density p(theta | context) of one batch of contexts.

    From :meth:`flowprior.prior.posterior.PosePosterior.distribution`. Values are the posterior's,
    axes are torch's: samples are (\*sample, \*batch, J, k), while a posterior has them after the batch.
    Values are given as the prior returns them, (..., J, k); the posterior's own ``log_prob`` takes
    other forms of theta. Like all of ``torch.distributions`` it draws from the global generator.

    With ``space="so3"`` values are 6D vectors and stand for rotations: the density is by Haar
    measure, whatever the length of the vectors.

    Args:
        posterior: What to look at.
        validate_args: Whether values are checked; torch's default if None.
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012, as torch declares it

    def __init__(self, posterior: PosePosterior, *, validate_args: bool | None = None) -> None:
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
        """The most likely theta (*batch, J, k), as the posterior has it."""
        return self.posterior.mode()

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008, as torch's
        """Samples that carry gradients to weights and context.

        Args:
            sample_shape: What to have in front of the batch.

        Returns:
            (*sample, *batch, J, k).
        """
        shape = torch.Size(sample_shape)
        samples = self.posterior.sample(shape.numel())
        return samples.movedim(-3, 0).reshape(self._extended_shape(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; see :meth:`flowprior.prior.posterior.PosePosterior.log_prob`.

        Args:
            value: (*sample, *batch, J, k), or what broadcasts with that.

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
        if self._validate_args and value.numel():  # torch fails to check nothing
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        axes = len(shape) - len(self.batch_shape)
        batch = shape[axes:]
        # The posterior has samples after the batch, on one axis.
        rows = value.expand(*shape, *event).reshape(shape[:axes].numel(), *batch, *event)
        posterior = self.expand(batch).posterior
        return posterior.log_prob(rows.movedim(0, len(batch))).movedim(-1, 0).reshape(shape)

    def entropy(self) -> Tensor:
        """Differential entropy (*batch,) in nats, as the posterior has it."""
        return self.posterior.entropy()

    def expand(
        self, batch_shape: _size, _instance: "PoseDistribution | None" = None
    ) -> "PoseDistribution":
        """The same densities, repeated along a larger batch without copies.

        Args:
            batch_shape: What the batch broadcasts to.

        Returns:
            A distribution of that batch.

        Raises:
            RuntimeError: If the batch does not broadcast to it.
        """
        new = type(self).__new__(type(self)) if _instance is None else _instance
        posterior = self.posterior.expand(torch.Size(batch_shape))
        PoseDistribution.__init__(new, posterior, validate_args=self._validate_args)
        return new
