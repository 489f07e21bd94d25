"""ConditionalFlow: the stack of bijections and the density it defines."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.checks import require_count, require_like, require_width
from flowprior.flow.coupling import COUPLINGS, Coupling
from flowprior.flow.lu_linear import LULinear

__all__ = [
    "LU_FORWARDS",
    "PRESETS",
    "ConditionalFlow",
    "ProjectedContext",
    "StepContext",
    "standard_normal_log_prob",
]

PRESETS: dict[str, dict[str, Any]] = {
    # Nothing in the network depends on the batch or on chance, so training equals evaluation.
    "default": {"batch_norm": False, "dropout": 0.0, "context_norm": True},
    # The original: constructor defaults that no configuration file of it mentions.
    "prohmr": {"batch_norm": True, "dropout": 0.5, "context_norm": False},
}

LU_FORWARDS = ("exact", "legacy")


class StepContext(NamedTuple):
    """A context as one step reads it.

    Attributes:
        hidden: Its share of the conditioner's first layer, (*batch, H).
        norm: Its terms in scale and shift of the ActNorm, (*batch, 2 D), or None.
    """

    hidden: Tensor
    norm: Tensor | None

    def with_extra_axes(self, count: int) -> "StepContext":
        """Axes of size 1 between batch and features, for inputs that share their context."""

        def insert(value: Tensor) -> Tensor:
            return value.reshape(*value.shape[:-1], *(1,) * count, value.shape[-1])

        return StepContext(insert(self.hidden), None if self.norm is None else insert(self.norm))


class ProjectedContext(NamedTuple):
    """A context as the flow reads it: computed once, reused by every call.

    Attributes:
        steps: What each step reads.
    """

    steps: tuple[StepContext, ...]

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of contexts."""
        return self.steps[0].hidden.shape[:-1]


class ConditionalFlow(nn.Module):
    r"""Normalizing flow :math:`z = f(x; c)` over vectors x given a context c.

    ``num_steps`` times ActNorm, LULinear and a coupling map data x to a latent z that is standard
    normal. With additive couplings the log-determinant does not depend on x. Hence ``z = 0`` is
    exactly the mode of p(x | c), and the entropy is known in closed form. Without ``context_norm``
    the log-determinant does not depend on the context either, so the entropy is one number for all
    contexts. Other couplings bend the volume: mode and entropy are then found numerically.

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
        context_norm: Overrides whether the context moves scale and shift of every ActNorm.
        coupling: ``"additive"``, ``"affine"`` or ``"spline"``.
        lu_forward: ``"exact"``, or ``"legacy"`` for weights trained with the original's code of
            August 2021, see :class:`LULinear`. With ``"legacy"``, :meth:`forward` and
            :meth:`log_prob` are those the weights were trained with, while samples and mode come
            from the exact inverse: ``log_prob`` of a sample is not what came with the sample.

    Raises:
        ValueError: For an unknown preset or sizes that make no flow.

    Attributes:
        options: The choices of the preset, with what overrides them.
        temperature: Factor between latents and standard normal, shape (); see :meth:`calibrate`.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, ICCV 2021;
        https://arxiv.org/abs/2108.11944.
    """

    temperature: Tensor

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
        context_norm: bool | None = None,
        coupling: str = "additive",
        lu_forward: str = "exact",
    ) -> None:
        super().__init__()
        if lu_forward not in LU_FORWARDS:
            raise ValueError(f"lu_forward must be one of {LU_FORWARDS}, got {lu_forward!r}")
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
        if coupling not in COUPLINGS:
            raise ValueError(f"coupling must be one of {sorted(COUPLINGS)}, got {coupling!r}")
        sizes = {
            "features": (features, 2),
            "context_features": (context_features, 0),
            "hidden_features": (hidden_features, 1),
            "num_steps": (num_steps, 1),
            "num_blocks": (num_blocks, 0),
        }
        for name, (size, least) in sizes.items():
            require_count(name, size, least)
        given = {"batch_norm": batch_norm, "dropout": dropout, "context_norm": context_norm}
        # What the preset stands for may change one day; what this flow is must not.
        self.options = PRESETS[preset] | {k: v for k, v in given.items() if v is not None}

        self.features = features
        self.context_features = context_features
        self.steps = nn.ModuleList(
            _Step(
                ActNorm(features, context_features if self.options["context_norm"] else 0),
                LULinear(features, legacy_forward=lu_forward == "legacy"),
                COUPLINGS[coupling](
                    features,
                    context_features,
                    hidden_features,
                    num_blocks,
                    odd_moves=step % 2 == 0,
                    batch_norm=self.options["batch_norm"],
                    dropout=self.options["dropout"],
                ),
            )
            for step in range(num_steps)
        )
        # Standard deviation of the latents before they are scaled to one; see calibrate().
        self.register_buffer("temperature", torch.ones(()))

    @property
    def has_exact_mode(self) -> bool:
        """Whether the log-determinant does not depend on x, so that z = 0 is the mode."""
        return all(step.coupling.keeps_volume for step in self._steps)

    @property
    def is_like_prohmr(self) -> bool:
        """Whether the original's code could compute this flow."""
        plain = all(
            step.coupling.keeps_volume and step.actnorm.context_weight is None
            for step in self._steps
        )
        return plain and (self.temperature.is_meta or bool(self.temperature == 1))

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
        log_abs_det = self._temperature_log_abs_det()
        with self._full_precision():
            for step, step_context in zip(self._steps, projected.steps, strict=True):
                x, step_log_abs_det = step(x, step_context)
                log_abs_det = log_abs_det + step_log_abs_det
        return x / self.temperature.to(x.dtype), log_abs_det.expand(x.shape[:-1])

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
        z = z * self.temperature.to(z.dtype)
        log_abs_det = -self._temperature_log_abs_det()
        with self._full_precision():
            for step, step_context in zip(
                reversed(self._steps), reversed(projected.steps), strict=True
            ):
                z, step_log_abs_det = step.inverse(z, step_context)
                log_abs_det = log_abs_det + step_log_abs_det
        return z, log_abs_det.expand(z.shape[:-1])

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

    def mode(
        self,
        context: Tensor | ProjectedContext | None = None,
        *,
        log_volume: Callable[[Tensor], Tensor] | None = None,
        max_steps: int = 100,
    ) -> Tensor:
        """The most likely x.

        Exact where :attr:`has_exact_mode` and no ``log_volume`` is given: the decoded z = 0.
        Otherwise a local maximum near it, found by ascent on the log-density in the latent space
        and never less likely than the decoded z = 0; gradients to weights and context then treat
        its z as a constant.

        Args:
            context: (*batch, C), projected or not.
            log_volume: What to add to the log-density of x (..., D) to get that of the pose (...).
            max_steps: Steps of ascent.

        Returns:
            (*batch, D).
        """
        projected = self._projected(context)
        shape = (*projected.batch_shape, self.features)
        z = torch.zeros(shape, dtype=self.dtype, device=self.device)
        if not self.has_exact_mode or log_volume is not None:
            z = self._climb(z, projected, log_volume, max_steps)
        return self.inverse(z, projected)[0]

    def entropy(
        self,
        context: Tensor | ProjectedContext | None = None,
        *,
        num_samples: int = 256,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Differential entropy of p(x | c) in nats.

        In closed form where :attr:`has_exact_mode`, otherwise the mean surprise of samples.

        Args:
            context: (*batch, C), projected or not.
            num_samples: Samples per context where there is no closed form.
            generator: Source of their noise.

        Returns:
            (*batch,).
        """
        projected = self._projected(context)
        if not self.has_exact_mode:
            return -self.sample_and_log_prob(projected, num_samples, generator=generator)[1].mean(
                dim=-1
            )
        base = 0.5 * self.features * math.log(2 * math.pi * math.e)
        log_abs_det = self._temperature_log_abs_det()
        for step, step_context in zip(self._steps, projected.steps, strict=True):
            log_abs_det = log_abs_det + step.constant_log_abs_det(self.dtype, step_context)
        return (base - log_abs_det).expand(projected.batch_shape)

    @torch.no_grad()
    def calibrate(self, x: Tensor, context: Tensor | ProjectedContext | None = None) -> Tensor:
        """Set the temperature that makes held-out data most likely: the rms of its latents.

        Mode and order of hypotheses stay as they are. Training afterwards leaves it as it is.

        Args:
            x: (*batch, *extra, D), data the flow was not trained on.
            context: (*batch, C), projected or not.

        Returns:
            The temperature, shape (); 1 changes nothing.

        Raises:
            ValueError: If shapes do not fit or there is no data.
        """
        if not x.numel():
            raise ValueError("x holds no rows to calibrate with")
        z, _ = self.forward(x, context)
        self.temperature.mul_(z.square().mean().sqrt())
        return self.temperature.clone()

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

    def _temperature_log_abs_det(self) -> Tensor:
        return -self.features * self.temperature.to(self.dtype).log()

    def _climb(
        self,
        z: Tensor,
        projected: ProjectedContext,
        log_volume: Callable[[Tensor], Tensor] | None,
        max_steps: int,
    ) -> Tensor:
        """Ascent on the log-density from z, each row keeping the best point it met."""
        # Tensors made under inference mode cannot enter a graph; their copies can.
        with torch.inference_mode(False), torch.enable_grad():
            projected = ProjectedContext(
                tuple(
                    StepContext(h.detach().clone(), None if n is None else n.detach().clone())
                    for h, n in projected.steps
                )
            )
            z = z.clone().requires_grad_()
            optimizer = torch.optim.Adam([z], lr=0.03)
            best, best_log_prob = z.detach().clone(), torch.full_like(z[..., 0], -math.inf)
            for _ in range(max_steps + 1):
                x, log_abs_det = self.inverse(z, projected)
                log_prob = standard_normal_log_prob(z) - log_abs_det
                if log_volume is not None:
                    log_prob = log_prob + log_volume(x)
                better = log_prob.detach() > best_log_prob
                best = torch.where(better[..., None], z.detach(), best)
                best_log_prob = torch.where(better, log_prob.detach(), best_log_prob)
                (z.grad,) = torch.autograd.grad(-log_prob.sum(), z)
                optimizer.step()
        return best

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
        count = len(leading) - len(batch)
        steps = tuple(step_context.with_extra_axes(count) for step_context in projected.steps)
        return value, ProjectedContext(steps)

    def _full_precision(self) -> AbstractContextManager[object]:
        """Autocast would round the two directions differently, so they would not be inverses."""
        kind = self.device.type
        if torch.amp.is_autocast_available(kind):
            return torch.autocast(kind, enabled=False)
        return nullcontext()


class _Step(nn.Module):
    """ActNorm, then LULinear, then a coupling."""

    def __init__(self, actnorm: ActNorm, linear: LULinear, coupling: Coupling) -> None:
        super().__init__()
        self.actnorm = actnorm
        self.linear = linear
        self.coupling = coupling

    def project_context(self, context: Tensor) -> StepContext:
        return StepContext(
            self.coupling.conditioner.project_context(context),
            self.actnorm.project_context(context),
        )

    def forward(self, x: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        x, norm_log_abs_det = self.actnorm(x, context.norm)
        x, linear_log_abs_det = self.linear(x)
        x, coupling_log_abs_det = self.coupling(x, context.hidden)
        return x, norm_log_abs_det + linear_log_abs_det + coupling_log_abs_det

    def inverse(self, z: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
        z, coupling_log_abs_det = self.coupling.inverse(z, context.hidden)
        z = self.actnorm.inverse(self.linear.inverse(z), context.norm)
        return z, coupling_log_abs_det - self.constant_log_abs_det(z.dtype, context)

    def constant_log_abs_det(self, dtype: torch.dtype, context: StepContext) -> Tensor:
        """The part of the forward log-determinant that does not depend on x."""
        return self.actnorm.log_abs_det(dtype, context.norm) + self.linear.log_abs_det(dtype)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Log-density of the base distribution in nats: z (..., D) -> (...)."""
    return -0.5 * (z.square().sum(dim=-1) + z.shape[-1] * math.log(2 * math.pi))
