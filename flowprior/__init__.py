"""Conditional normalizing-flow pose priors p(theta | context) for human mesh recovery."""

from importlib.metadata import version

from flowprior import rotations
from flowprior.files.model_file import CheckpointError
from flowprior.flow import ConditionalFlow
from flowprior.prior import ConditionalPosePrior, PosePosterior

__version__ = version("flowprior")

__all__ = [
    "CheckpointError",
    "ConditionalFlow",
    "ConditionalPosePrior",
    "PosePosterior",
    "__version__",
    "rotations",
]
