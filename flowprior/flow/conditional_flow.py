"""ConditionalFlow: the stack of bijections and the density it defines."""

import copy
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.checks import require_count, require_like, require_width
from flowprior.flow.coupling import AdditiveCoupling
from flowprior.flow.lu_linear import LULinear

__all__ = [
    "LU_FORWARDS",
    "PRESETS",
    "ConditionalFlow",
    "ProjectedContext",
    "standard_normal_log_prob",
]

PRESETS: dict[str, dict[str, Any]] = {
    # Nothing in the network depends on the batch or on chance, so training equals evaluation.
    "default": {"batch_norm": False, "dropout": 0.0},
    # The original: constructor defaults that no configuration file of it mentions.
    "prohmr": {"batch_norm": True, "dropout": 0.5},
}


LU_FORWARDS = ("exact", "legacy")


class ProjectedContext(NamedTuple):
    """A context as the flow reads it: computed once, reused by every call.

    Attributes:
        hidden: The context's share of each conditioner's first layer, a (*batch, H) per step.
    """

    hidden: tuple[Tensor, ...]

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of contexts."""
        return self.hidden[0].shape[:-1]


class ConditionalFlow(nn.Module):
    r"""Normalizing flow :math:`z = f(x; c)` over vectors x given a context c.

    ``num_steps`` times ActNorm, LULinear, AdditiveCoupling map data x to a latent z that is
    standard normal. The log-determinant depends on the weights alone. Hence ``z = 0`` is exactly
    the mode of p(x | c), and the entropy is known in closed form.

    Shapes: a context is (\*batch, C); x and z are (\*batch, \*extra, D). Extra axes stand between
    batch and features and share the context of their row. Without a context the batch is empty
    and every leading axis is extra. Wherever a context is taken, the result of
    :meth:`project_context` may be given instead, which saves computing it again.

    Inputs of lower precision than the weights are raised to it, and the bijection itself is
    computed in float32 or better, also under autocast and with half-precision weights.

    Args:
        features: Number of features D, at least 2.
        context_features: Width C of the context; 0 for an unconditional density.
        preset: ``"default"``, or ``"prohmr"`` for the original's batch norm and dropout inside the
            conditioners, whose training-mode results depend on the batch and on chance.
        hidden_features: Width H of the conditioners.
        num_steps: Number of steps.
        num_blocks: Residual blocks per conditioner.
        batch_norm: Overrides the preset's choice.
        dropout: Overrides the preset's dropout probability.
        lu_forward: ``"exact"``, or ``"legacy"`` for weights trained with the original's code of
            August 2021, see :class:`LULinear`. With ``"legacy"``, :meth:`forward` and
            :meth:`log_prob` are those the weights were trained with, while samples and mode come
            from the exact inverse: ``log_prob`` of a sample is not what came with the sample.

    Raises:
        ValueError: For an unknown preset or sizes that make no flow.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, ICCV 2021;
        https://arxiv.org/abs/2108.11944.
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        *,
        preset: str = "default",
        hidden_features: int = 1024,
        num_steps: int = 4,
        num_blocks: int = 2,
        batch_norm: bool | None = None,
        dropout: float | None = None,
        lu_forward: str = "exact",
    ) -> None:
        super().__init__()
        if lu_forward not in LU_FORWARDS:
            raise ValueError(f"lu_forward must be one of {LU_FORWARDS}, got {lu_forward!r}")
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
        sizes = {
            "features": (features, 2),
            "context_features": (context_features, 0),
            "hidden_features": (hidden_features, 1),
            "num_steps": (num_steps, 1),
            "num_blocks": (num_blocks, 0),
        }
        for name, (size, least) in sizes.items():
            require_count(name, size, least)
        if batch_norm is None:
            batch_norm = PRESETS[preset]["batch_norm"]
        if dropout is None:
            dropout = PRESETS[preset]["dropout"]

        self.features = features
        self.context_features = context_features
        self.steps = nn.ModuleList(
            _Step(
                ActNorm(features),
                LULinear(features, legacy_forward=lu_forward == "legacy"),
                AdditiveCoupling(
                    features,
                    context_features,
                    hidden_features,
                    num_blocks,
                    odd_moves=step % 2 == 0,
                    batch_norm=batch_norm,
                    dropout=dropout,
                ),
            )
            for step in range(num_steps)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the bijection's arithmetic and results: the weights', but at least float32."""
        return torch.promote_types(self.weight_dtype, torch.float32)

    @property
    def weight_dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self._weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._weight.device

    def project_context(self, context: Tensor | None) -> ProjectedContext:
        """Run the context through the part of each conditioner that reads it.

        Args:
            context: (*batch, C); None is an empty batch for a flow without context.

        Returns:
            The projected context, accepted by every other method.

        Raises:
            ValueError: If the context has another width, dtype or device than the flow.
        """
        if context is None:
            if self.context_features:
                raise ValueError(
                    f"this flow needs a context of shape (..., {self.context_features}), got None"
                )
            context = self._weight.new_empty((0,))
        require_width("context", context, self.context_features)
        context = require_like("context", context, self.dtype, self.device)
        with self._full_precision():
            return ProjectedContext(tuple(step.project_context(context) for step in self._steps))

    def forward(
        self, x: Tensor, context: Tensor | ProjectedContext | None = None
    ) -> tuple[Tensor, Tensor]:
        """Data to latent. In training mode the first batch of two or more rows sets ActNorm.

        Args:
            x: (*batch, *extra, D).
            context: (*batch, C), projected or not.

        Returns:
            ``z`` (*batch, *extra, D) and the log-determinant (*batch, *extra) of the map.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        x, projected = self._prepare("x", x, context)
        log_abs_det = x.new_zeros(())
        with self._full_precision():
            for step, hidden in zip(self._steps, projected.hidden, strict=True):
                x, step_log_abs_det = step(x, hidden)
                log_abs_det = log_abs_det + step_log_abs_det
        return x, log_abs_det.expand(x.shape[:-1])

    def inverse(
        self, z: Tensor, context: Tensor | ProjectedContext | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latent to data, the exact inverse of :meth:`forward`.

        Args:
            z: (*batch, *extra, D).
            context: (*batch, C), projected or not.

        Returns:
            ``x`` (*batch, *extra, D) and the log-determinant (*batch, *extra) of the inverse map.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        z, projected = self._prepare("z", z, context)
        with self._full_precision():
            for step, hidden in zip(reversed(self._steps), reversed(projected.hidden), strict=True):
                z = step.inverse(z, hidden)
        return z, -self._log_abs_det().expand(z.shape[:-1])

    def log_prob(self, x: Tensor, context: Tensor | ProjectedContext | None = None) -> Tensor:
        """Log-density of x given the context, in nats.

        Args:
            x: (*batch, *extra, D).
            context: (*batch, C), projected or not.

        Returns:
            (*batch, *extra).

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        z, log_abs_det = self.forward(x, context)
        return standard_normal_log_prob(z) + log_abs_det

    def sample(
        self,
        context: Tensor | ProjectedContext | None = None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw samples. They carry gradients to weights and context.

        Args:
            context: (*batch, C), projected or not.
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the flow's device.

        Returns:
            (*batch, n, D).

        Raises:
            ValueError: If ``num_samples`` is negative or the context does not fit.
        """
        return self.sample_and_log_prob(context, num_samples, generator=generator)[0]

    def sample_and_log_prob(
        self,
        context: Tensor | ProjectedContext | None = None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw samples and give their log-densities, which cost nothing extra.

        Args:
            context: (*batch, C), projected or not.
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the flow's device.

        Returns:
            Samples (*batch, n, D) and their log-densities (*batch, n), in nats.

        Raises:
            ValueError: If ``num_samples`` is negative or the context does not fit.
        """
        require_count("num_samples", num_samples)
        projected = self._projected(context)
        shape = (*projected.batch_shape, num_samples, self.features)
        z = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        x, log_abs_det = self.inverse(z, projected)
        return x, standard_normal_log_prob(z) - log_abs_det

    def mode(self, context: Tensor | ProjectedContext | None = None) -> Tensor:
        """The most likely x: exact, because the log-determinant does not depend on x.

        Args:
            context: (*batch, C), projected or not.

        Returns:
            (*batch, D).
        """
        projected = self._projected(context)
        shape = (*projected.batch_shape, self.features)
        return self.inverse(torch.zeros(shape, dtype=self.dtype, device=self.device), projected)[0]

    def entropy(self, context: Tensor | ProjectedContext | None = None) -> Tensor:
        """Differential entropy of p(x | c) in nats, in closed form.

        Args:
            context: (*batch, C), projected or not.

        Returns:
            (*batch,).
        """
        base = 0.5 * self.features * math.log(2 * math.pi * math.e)
        return (base - self._log_abs_det()).expand(self._projected(context).batch_shape)

    def with_lu_forward(self, lu_forward: str) -> "ConditionalFlow":
        """A copy of this flow with another ``lu_forward``."""
        other = copy.deepcopy(self)
        for step in other._steps:
            step.linear.legacy_forward = lu_forward == "legacy"
        return other

    def is_initialized(self) -> bool:
        """Whether every ActNorm has been set, from a batch or from saved weights."""
        return all(step.actnorm.is_initialized() for step in self._steps)

    @property
    def _steps(self) -> Sequence["_Step"]:
        return cast(Sequence["_Step"], self.steps)

    @property
    def _weight(self) -> Tensor:
        """Any weight: all share one dtype and device."""
        return self._steps[0].linear.bias

    def _log_abs_det(self) -> Tensor:
        return torch.stack([step.log_abs_det(self.dtype) for step in self._steps]).sum()

    def _projected(self, context: Tensor | ProjectedContext | None) -> ProjectedContext:
        if isinstance(context, ProjectedContext):
            return context
        return self.project_context(context)

    def _prepare(
        self, name: str, value: Tensor, context: Tensor | ProjectedContext | None
    ) -> tuple[Tensor, ProjectedContext]:
        """Check a (*batch, *extra, D) input and give the context its extra axes."""
        require_width(name, value, self.features)
        value = require_like(name, value, self.dtype, self.device)
        projected = self._projected(context)
        batch = projected.batch_shape
        leading = value.shape[:-1]
        if leading[: len(batch)] != batch:
            raise ValueError(
                f"{name} has leading shape {tuple(leading)}, but the context has batch shape "
                f"{tuple(batch)}: {name} must be (*batch, *extra, {self.features})"
            )
        extra = (1,) * (len(leading) - len(batch))
        hidden = tuple(h.reshape(*batch, *extra, h.shape[-1]) for h in projected.hidden)
        return value, ProjectedContext(hidden)

    def _full_precision(self) -> AbstractContextManager[object]:
        """Autocast would round the two directions differently, so they would not be inverses."""
        kind = self.device.type
        if torch.amp.is_autocast_available(kind):
            return torch.autocast(kind, enabled=False)
        return nullcontext()


class _Step(nn.Module):
    """ActNorm, then LULinear, then a coupling."""

    def __init__(self, actnorm: ActNorm, linear: LULinear, coupling: AdditiveCoupling) -> None:
        super().__init__()
        self.actnorm = actnorm
        self.linear = linear
        self.coupling = coupling

    def project_context(self, context: Tensor) -> Tensor:
        return self.coupling.conditioner.project_context(context)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        x, scale_log_abs_det = self.actnorm(x)
        x, linear_log_abs_det = self.linear(x)
        return self.coupling(x, hidden), scale_log_abs_det + linear_log_abs_det

    def inverse(self, z: Tensor, hidden: Tensor) -> Tensor:
        return self.actnorm.inverse(self.linear.inverse(self.coupling.inverse(z, hidden)))

    def log_abs_det(self, dtype: torch.dtype) -> Tensor:
        return self.actnorm.log_abs_det(dtype) + self.linear.log_abs_det(dtype)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Log-density of the base distribution in nats: z (..., D) -> (...)."""
    return -0.5 * (z.square().sum(dim=-1) + z.shape[-1] * math.log(2 * math.pi))
