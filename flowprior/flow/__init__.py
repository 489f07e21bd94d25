"""The conditional flow. Tensors only: nothing here knows of poses or bodies."""

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.conditional_flow import (
    LU_FORWARDS,
    PRESETS,
    ConditionalFlow,
    ProjectedContext,
    StepContext,
    standard_normal_log_prob,
)
from flowprior.flow.conditioner import Conditioner
from flowprior.flow.coupling import (
    COUPLINGS,
    AdditiveCoupling,
    AffineCoupling,
    Coupling,
    SplineCoupling,
)
from flowprior.flow.lu_linear import LULinear

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
    "LULinear",
    "ProjectedContext",
    "SplineCoupling",
    "StepContext",
    "standard_normal_log_prob",
]
