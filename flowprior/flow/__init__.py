"""The conditional flow. Tensors only: nothing here knows of poses or bodies."""

from flowprior.flow.actnorm import ActNorm
from flowprior.flow.conditional_flow import PRESETS, ConditionalFlow, ProjectedContext
from flowprior.flow.conditioner import Conditioner
from flowprior.flow.coupling import AdditiveCoupling
from flowprior.flow.lu_linear import LULinear

__all__ = [
    "PRESETS",
    "ActNorm",
    "AdditiveCoupling",
    "ConditionalFlow",
    "Conditioner",
    "LULinear",
    "ProjectedContext",
]
