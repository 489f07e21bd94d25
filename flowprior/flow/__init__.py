"""Conditional normalizing flows on tensors, independent of poses and bodies."""

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.anchored import AnchoredStep, FrozenAnchoredStep
from flowprior.flow.anchored_conditioner import AnchoredConditioner
from flowprior.flow.base import BASES, Base, Normal, StudentT, standard_normal_log_prob
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
    ContractingCoupling,
    Coupling,
    SplineCoupling,
)
from flowprior.flow.frozen import FrozenFlow, FrozenStep
from flowprior.flow.lu_linear import LULinear
from flowprior.flow.projected_context import ProjectedContext, StepContext
from flowprior.flow.stack import FlowStack, Step

__all__ = [
    "BASES",
    "COUPLINGS",
    "LU_FORWARDS",
    "PRESETS",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AnchoredConditioner",
    "AnchoredStep",
    "Base",
    "ConditionalFlow",
    "Conditioner",
    "ContractingCoupling",
    "Coupling",
    "FlowOptions",
    "FlowStack",
    "FrozenAnchoredStep",
    "FrozenFlow",
    "FrozenStep",
    "LULinear",
    "Normal",
    "ProjectedContext",
    "SplineCoupling",
    "Step",
    "StepContext",
    "StudentT",
    "require_flow_options",
    "standard_normal_log_prob",
]
