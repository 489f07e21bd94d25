"""ConditionalFlow: the stack of bijections and the density it defines."""

import copy
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowprior._checks import require_count
from flowprior._modes import lasting
from flowprior.flow.actnorm import ActNorm
from flowprior.flow.conditioner_dtype import faster_conditioner_dtype
from flowprior.flow.coupling import COUPLINGS, Coupling
from flowprior.flow.frozen import FrozenFlow, FrozenStep
from flowprior.flow.lu_linear import LULinear
from flowprior.flow.stack import FlowStack, ProjectedContext, StepContext

__all__ = ["LU_FORWARDS", "PRESETS", "ConditionalFlow"]

PRESETS: dict[str, dict[str, Any]] = {
    # Nothing in the network depends on the batch or on chance, so training equals evaluation.
    "default": {"batch_norm": False, "dropout": 0.0, "context_norm": True},
    # The original: constructor defaults that no configuration file of it mentions.
    "prohmr": {"batch_norm": True, "dropout": 0.5, "context_norm": False},
}

LU_FORWARDS = ("exact", "legacy")


class ConditionalFlow(FlowStack):
    r"""Normalizing flow :math:`z = f(x; c)` over vectors x given a context c.

    ``num_steps`` times ActNorm, LULinear and a coupling map data x to a latent z that is standard
    normal. With additive couplings the log-determinant does not depend on x. Hence ``z = 0`` is
    exactly the mode of p(x | c), and the entropy is known in closed form. Without ``context_norm``
    the log-determinant does not depend on the context either, so the entropy is one number for all
    contexts. Other couplings bend the volume: mode and entropy are then found numerically.

    Shapes: a context is (\*batch, C); x and z are (\*batch, \*extra, D). Extra axes stand between
    batch and features and share the context of their row. Without a context the batch is empty
    and every leading axis is extra. Wherever a context is taken, the result of
    ``project_context`` may be given instead, which saves computing it again.

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
            August 2021, see :class:`LULinear`. With ``"legacy"``, ``forward`` and
            ``log_prob`` are those the weights were trained with, while samples and mode come
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
        options = PRESETS[preset] | {k: v for k, v in given.items() if v is not None}
        steps = [
            _Step(
                ActNorm(features, context_features if options["context_norm"] else 0),
                LULinear(features, legacy_forward=lu_forward == "legacy"),
                COUPLINGS[coupling](
                    features,
                    context_features,
                    hidden_features,
                    num_blocks,
                    odd_moves=step % 2 == 0,
                    batch_norm=options["batch_norm"],
                    dropout=options["dropout"],
                ),
            )
            for step in range(num_steps)
        ]
        super().__init__(features, context_features, steps)
        self.options = options
        self._warned_of_actnorm = False

    @property
    def is_like_prohmr(self) -> bool:
        """Whether the original's code could compute this flow."""
        plain = all(
            step.coupling.keeps_volume and step.actnorm.context_weight is None
            for step in self._own_steps
        )
        return plain and (self.temperature.is_meta or bool(self.temperature == 1))

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
        for step in other._own_steps:
            step.linear.legacy_forward = lu_forward == "legacy"
        return other

    @lasting()
    def freeze(self, conditioner_dtype: torch.dtype | str | None = None) -> FrozenFlow:
        """An inference copy with constant weights, fused for speed.

        Args:
            conditioner_dtype: Dtype of the conditioners in the inverse direction, that of samples
                and mode, such as ``torch.bfloat16``. The bijection itself and the whole forward
                direction, that of the log-density, keep the flow's dtype. None for the flow's.
                ``"auto"`` for bfloat16 where that is much faster, on CPUs with AMX and CUDA devices
                of compute capability 8.0 or above, and the flow's dtype elsewhere.

        Returns:
            The copy. Later changes of this flow do not reach it.

        Raises:
            ValueError: If ``conditioner_dtype`` is neither a floating-point dtype nor ``"auto"``.
        """
        steps = self._own_steps
        if conditioner_dtype == "auto":
            conditioner_dtype = faster_conditioner_dtype(self.dtype, self.device)
        elif conditioner_dtype is not None and not (
            isinstance(conditioner_dtype, torch.dtype) and conditioner_dtype.is_floating_point
        ):
            raise ValueError(
                f"conditioner_dtype must be floating point or 'auto', got {conditioner_dtype!r}"
            )
        elif (
            conditioner_dtype in (torch.bfloat16, torch.float16)
            and self.device.type == "cpu"
            and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
        ):
            warnings.warn(
                f"this CPU has no {conditioner_dtype} arithmetic: samples will be slower than with "
                "conditioner_dtype=None; 'auto' chooses by what the device can do",
                stacklevel=2,
            )
        frozen = [
            FrozenStep(
                step.actnorm,
                step.linear,
                step.coupling,
                first=step is steps[0],
                last=step is steps[-1],
                conditioner_dtype=conditioner_dtype,
            )
            for step in steps
        ]
        return FrozenFlow(self.features, self.context_features, frozen, self.temperature)

    def project_context(self, context: Tensor | None) -> ProjectedContext:
        """As :meth:`FlowStack.project_context`; warns once of weights averaged from the start."""
        self._warn_of_unset_actnorm()
        return super().project_context(context)

    def _warn_of_unset_actnorm(self) -> None:
        """Warn if evaluation meets an ActNorm that was changed, but never set from data."""
        if self.training or self._warned_of_actnorm or torch.compiler.is_compiling():
            return
        norms = [step.actnorm for step in self._own_steps]
        try:
            if not any(norm.was_changed() for norm in norms if not norm.is_initialized()):
                return
        except RuntimeError:  # vmap cannot look at values
            return
        self._warned_of_actnorm = True
        warnings.warn(
            "the scale and shift of ActNorm have changed, but were never set from a batch of data. "
            "Usually these weights are a running average (EMA) that was started before the first "
            "training batch, and their densities are far off: start it after the first call of nll "
            "in training mode, see docs/how-to/train-your-own.md. Training with batches of one row "
            "has the same effect",
            stacklevel=2,
        )

    def is_initialized(self) -> bool:
        """Whether every ActNorm has been set, from a batch or from saved weights."""
        return all(step.actnorm.is_initialized() for step in self._own_steps)

    @property
    def _own_steps(self) -> list["_Step"]:
        return [cast(_Step, step) for step in self.steps]


class _Step(nn.Module):
    """ActNorm, then LULinear, then a coupling."""

    def __init__(self, actnorm: ActNorm, linear: LULinear, coupling: Coupling) -> None:
        super().__init__()
        self.actnorm = actnorm
        self.linear = linear
        self.coupling = coupling

    @property
    def keeps_volume(self) -> bool:
        return self.coupling.keeps_volume

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
