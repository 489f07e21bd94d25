"""The conditional normalizing flow: its options, construction, calibration and fusion."""

import warnings
from collections.abc import Iterable
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from flowprior._checks import require_count
from flowprior._modes import lasting
from flowprior.flow.actnorm import ActNorm
from flowprior.flow.anchored import AnchoredStep, FrozenAnchoredStep
from flowprior.flow.base import make_base
from flowprior.flow.conditioner_dtype import faster_conditioner_dtype
from flowprior.flow.coupling import COUPLINGS, Coupling
from flowprior.flow.frozen import FrozenFlow, FrozenStep
from flowprior.flow.lu_linear import LULinear
from flowprior.flow.stack import FlowStack, ProjectedContext, StepContext, free_count

__all__ = [
    "LU_FORWARDS",
    "PRESETS",
    "ConditionalFlow",
    "FlowOptions",
    "can_be_anchored",
    "require_flow_options",
]

PRESETS: dict[str, dict[str, Any]] = {
    # No layer depends on the batch or on chance, so training and evaluation compute one density.
    "default": {"batch_norm": False, "dropout": 0.0, "context_norm": True},
    # The defaults of the original's constructor; its configuration files do not override them.
    "prohmr": {"batch_norm": True, "dropout": 0.5, "context_norm": False},
}

LU_FORWARDS = ("exact", "legacy")
GENERAL_COUPLINGS = ("additive", "affine", "spline")
ANCHORED_COUPLINGS = ("additive", "contracting", "none")


class FlowOptions(TypedDict, total=False):
    """Options that a wrapper passes through to :class:`ConditionalFlow`, which documents them."""

    hidden_features: int
    num_steps: int
    num_blocks: int
    batch_norm: bool | None
    dropout: float | None
    context_norm: bool | None
    coupling: str
    lu_forward: str
    anchored: bool
    base: str


def require_flow_options(names: Iterable[str]) -> None:
    """Raise TypeError, listing the valid names, unless every name is a :class:`FlowOptions` key."""
    known = FlowOptions.__annotations__
    unknown = [repr(name) for name in names if name not in known]
    if unknown:
        raise TypeError(
            f"unexpected keyword argument {', '.join(unknown)}; the options of the flow are "
            f"{', '.join(known)}"
        )


def can_be_anchored(options: FlowOptions) -> bool:
    """Whether an anchored flow has these options."""
    return (
        options.get("coupling", "additive") in ANCHORED_COUPLINGS
        and not options.get("batch_norm")
        and not options.get("dropout")
        and options.get("lu_forward", "exact") == "exact"
    )


class ConditionalFlow(FlowStack):
    r"""Normalizing flow :math:`z = f(x; c)` over vectors x given a context c.

    ``num_steps`` steps of ActNorm, LULinear and a coupling map data x to a latent z of a base
    density. The class adds construction, training and fusion to the methods of :class:`FlowStack`,
    which documents shapes, dtypes and the exactness of mode and entropy.

    Args:
        features: Number of features D, at least 2.
        context_features: Width C of the context; 0 for an unconditional density.
        preset: ``"default"``, or ``"prohmr"`` for the original's batch norm and dropout inside the
            conditioners and its initialisation of ActNorm, see :meth:`initialize_without_noise`.
            In training mode, the results of that preset depend on the batch and on chance.
        hidden_features: Width H of the conditioners.
        num_steps: Number of steps.
        num_blocks: Residual blocks per conditioner.
        batch_norm: Whether the conditioners have batch norm; the preset's choice if None.
        dropout: Dropout probability inside the conditioners; the preset's choice if None.
        context_norm: Whether the context shifts and scales every ActNorm, which makes the entropy
            depend on the context and keeps the mode exact; the preset's choice if None. Without it,
            an additive flow has the same entropy in every context.
        coupling: ``"additive"``, ``"affine"`` or ``"spline"``; with the last two, mode and entropy
            are computed numerically. An anchored flow takes ``"additive"``, ``"contracting"``, an
            affine coupling that only contracts towards the latent and so keeps the mode exact, or
            ``"none"``, which leaves a linear map with scales from the context.
        lu_forward: ``"exact"``, or ``"legacy"`` for weights trained with the original's code of
            August 2021, see :class:`LULinear`. With ``"legacy"``, ``forward`` and ``log_prob`` use
            the map with which the weights were trained, while samples and mode use the exact
            inverse: ``log_prob`` of a sample then differs from the value returned with it.
            :func:`flowprior.prohmr.latent_calibration` finds out which one the weights need.
        anchored: Whether every step maps the origin to the origin in every context, so that the
            mode is x = 0. Such a flow models what is left of x after a regressor's answer was
            subtracted. Its steps have no shifts; the context sets their scales and enters every
            layer of their conditioners.
        base: Density of the latents, ``"normal"`` or ``"student_t"``; see :meth:`calibrate`.

    Raises:
        ValueError: If a preset, coupling, base or forward map is unknown, a size is out of range,
            or an anchored flow is given options that it does not have.

    Attributes:
        options: Every keyword argument with its final value, the preset's choices filled in.
        temperature: Standard deviation of the latents before scaling, shape (); see
            :meth:`calibrate`.

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
        anchored: bool = False,
        base: str = "normal",
    ) -> None:
        if lu_forward not in LU_FORWARDS:
            raise ValueError(f"lu_forward must be one of {LU_FORWARDS}, got {lu_forward!r}")
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
        couplings = ANCHORED_COUPLINGS if anchored else GENERAL_COUPLINGS
        if coupling not in couplings:
            of_what = " of an anchored flow" if anchored else ""
            raise ValueError(f"coupling{of_what} must be one of {couplings}, got {coupling!r}")
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
        # Recorded by value: a later version may change a preset, but not this flow.
        choices = PRESETS[preset] | {k: v for k, v in given.items() if v is not None}
        if anchored and (choices["batch_norm"] or choices["dropout"] or lu_forward != "exact"):
            raise ValueError(
                "an anchored flow has no batch norm, no dropout and lu_forward 'exact'; "
                f"got preset {preset!r} with {choices} and lu_forward {lu_forward!r}"
            )
        scaled = context_features if choices["context_norm"] else 0
        steps: list[nn.Module] = []
        for number in range(num_steps):
            actnorm = ActNorm(features, scaled, shift=not anchored)
            linear = LULinear(features, bias=not anchored, legacy_forward=lu_forward == "legacy")
            made = None
            if coupling != "none":
                made = COUPLINGS[coupling](
                    features,
                    context_features,
                    hidden_features,
                    num_blocks,
                    odd_moves=number % 2 == 0,
                    batch_norm=choices["batch_norm"],
                    dropout=choices["dropout"],
                    anchored=anchored,
                )
            if anchored or made is None:
                steps.append(AnchoredStep(actnorm, linear, made))
            else:
                steps.append(_Step(actnorm, linear, made))
        super().__init__(features, context_features, steps, make_base(base))
        self.options: dict[str, Any] = {
            "preset": preset,
            "hidden_features": hidden_features,
            "num_steps": num_steps,
            "num_blocks": num_blocks,
            "coupling": coupling,
            "lu_forward": lu_forward,
            "anchored": anchored,
            "base": base,
            **choices,
        }
        self._warned_of_actnorm = False

    @property
    def depends_on_batch(self) -> bool:
        """Whether the next forward pass computes statistics of the whole batch.

        True in training mode with batch norm, or before ActNorm is initialised. Rows without data
        must then be removed from the batch; otherwise masking their results is enough.
        """
        return self.training and (self.options["batch_norm"] or not self.is_initialized())

    @torch.no_grad()
    def initialize_without_noise(
        self, x: Tensor, context: Tensor | ProjectedContext | None = None
    ) -> None:
        """Initialise ActNorm from targets to which no noise was added, if the preset does so.

        Call it before adding noise to a training batch. With the preset ``"prohmr"`` it runs one
        forward pass in training mode until ActNorm is initialised, as the original does. A feature
        without variance then starts with a scale of 1000 in every step. With the preset
        ``"default"`` it does nothing, and the first noisy batch initialises ActNorm.

        Args:
            x: (*batch, *extra, D), targets.
            context: (*batch, C), projected or not.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        if self.options["preset"] == "prohmr" and self.training and not self.is_initialized():
            self(x, context)

    @torch.no_grad()
    def calibrate(self, x: Tensor, context: Tensor | ProjectedContext | None = None) -> Tensor:
        """Fit the base density to the latents of held-out data, by maximum likelihood.

        A normal base has one number to fit, the temperature, which becomes the root mean square of
        the latents. A Student's t base also has degrees of freedom: the best of a grid, with the
        temperature of each found by expectation maximisation. Neither changes an exact mode or the
        ranking of samples by density. Further training does not change them.

        Args:
            x: (*batch, *extra, D), data on which the flow was not trained.
            context: (*batch, C), projected or not.

        Returns:
            The temperature, shape ().

        Raises:
            ValueError: If shapes do not fit or there is no data.
        """
        if not x.numel():
            raise ValueError("x holds no rows to calibrate with")
        projected = self._projected(context)
        z, _ = self.forward(x, projected)
        squares = z.square().sum(dim=-1)
        count = self.features if (free := free_count(projected, z)) is None else free
        features = count if isinstance(count, int) else count.expand_as(squares).flatten()
        scale = self.base.fit(squares.flatten(), features)
        self.temperature.mul_(scale.to(self.temperature.dtype))
        return self.temperature.clone()

    @lasting()
    def freeze(self, conditioner_dtype: torch.dtype | str | None = None) -> FrozenFlow:
        """Copy the flow for inference, with constant weights that are fused for speed.

        Args:
            conditioner_dtype: Dtype of the conditioners in the inverse direction (samples and
                mode), such as ``torch.bfloat16``. The bijection itself and the whole forward
                direction (log-density) keep the flow's dtype. None for the flow's dtype.
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
            _frozen(
                step,
                first=step is steps[0],
                last=step is steps[-1],
                conditioner_dtype=conditioner_dtype,
            )
            for step in steps
        ]
        base = self.base.frozen(self.features)
        return FrozenFlow(self.features, self.context_features, frozen, self.temperature, base)

    def project_context(
        self, context: Tensor | None, *, free: Tensor | None = None
    ) -> ProjectedContext:
        """As :meth:`FlowStack.project_context`; warns once if ActNorm was changed but not set."""
        self._warn_of_unset_actnorm()
        return super().project_context(context, free=free)

    def _warn_of_unset_actnorm(self) -> None:
        """Warn, in evaluation, if an ActNorm was changed but never initialised from data."""
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
            "training batch, and their densities are far off: start it after the first batch in "
            "training mode, see docs/how-to/train-your-own.md. Training with batches of one row "
            "has the same effect",
            stacklevel=2,
        )

    def is_initialized(self) -> bool:
        """Whether every ActNorm was initialised, from a batch or from saved weights."""
        return all(step.actnorm.is_initialized() for step in self._own_steps)

    @property
    def _own_steps(self) -> "list[_Step | AnchoredStep]":
        return [cast("_Step | AnchoredStep", step) for step in self.steps]


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

    @property
    def peaks_at_zero(self) -> bool:
        return self.coupling.keeps_volume

    @property
    def keeps_origin(self) -> bool:
        return False

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


def _frozen(
    step: _Step | AnchoredStep, *, first: bool, last: bool, conditioner_dtype: torch.dtype | None
) -> FrozenStep | FrozenAnchoredStep:
    if isinstance(step, AnchoredStep):
        return FrozenAnchoredStep(step, first=first, last=last, conditioner_dtype=conditioner_dtype)
    return FrozenStep(
        step.actnorm,
        step.linear,
        step.coupling,
        first=first,
        last=last,
        conditioner_dtype=conditioner_dtype,
    )
