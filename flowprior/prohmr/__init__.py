"""The original ProHMR: its checkpoints, its forward map of August 2021 and its flow class."""

from flowprior.prohmr.glow import ConditionalGlow
from flowprior.prohmr.latent_check import LatentCalibration, latent_calibration
from flowprior.prohmr.prior import load_prior, to_state_dict
from flowprior.prohmr.weights import (
    ProHMRWeights,
    flow_config,
    flow_state_from_prohmr,
    flow_state_to_prohmr,
    read_prohmr,
)

__all__ = [
    "ConditionalGlow",
    "LatentCalibration",
    "ProHMRWeights",
    "flow_config",
    "flow_state_from_prohmr",
    "flow_state_to_prohmr",
    "latent_calibration",
    "load_prior",
    "read_prohmr",
    "to_state_dict",
]
