"""The original ProHMR: its checkpoints and a stand-in for its flow class."""

from flowprior.prohmr.glow import (
    ConditionalGlow,
)
from flowprior.prohmr.weights import (
    ProHMRWeights,
    flow_config,
    flow_state_from_prohmr,
    flow_state_to_prohmr,
    read_prohmr,
)

__all__ = [
    "ConditionalGlow",
    "ProHMRWeights",
    "flow_config",
    "flow_state_from_prohmr",
    "flow_state_to_prohmr",
    "read_prohmr",
]
