"""Conditional normalizing flows on tensors, independent of poses and bodies."""

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.conditional_flow import (
    LU_FORWARDS,
    PRESETS,
    ConditionalFlow,
    FlowOptions,
    require_flow_options,
)
from flowprior.flow.conditioner import Conditioner
from flowprior.flow.coupling import (
    COUPLINGS,
    AdditiveCoupling,
    AffineCoupling,
    Coupling,
    SplineCoupling,
)
from flowprior.flow.frozen import FrozenFlow, FrozenStep
from flowprior.flow.lu_linear import LULinear
from flowprior.flow.stack import (
    FlowStack,
    ProjectedContext,
    Step,
    StepContext,
    standard_normal_log_prob,
)

__all__ = [
    "COUPLINGS",
    "LU_FORWARDS",
    "PRESETS",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "ConditionalFlow",
    "Conditioner",
    "Coupling",
    "FlowOptions",
    "FlowStack",
    "FrozenFlow",
    "FrozenStep",
    "LULinear",
    "ProjectedContext",
    "SplineCoupling",
    "Step",
    "StepContext",
    "require_flow_options",
    "standard_normal_log_prob",
]
