"""Heads: the mean head of a prior, and what a head on somebody's frozen regressor needs."""

from flowprior.prior.heads.answers import (
    context_with_answer,
    theta_from_parts,
    theta_from_rot6d,
    theta_from_rotvec,
    to_smpl_24,
)
from flowprior.prior.heads.mean_head import MeanHead
from flowprior.prior.heads.regressors import REGRESSORS, Regressor
from flowprior.prior.heads.taps import Tap, tap

__all__ = [
    "REGRESSORS",
    "MeanHead",
    "Regressor",
    "Tap",
    "context_with_answer",
    "tap",
    "theta_from_parts",
    "theta_from_rot6d",
    "theta_from_rotvec",
    "to_smpl_24",
]
