"""Pose priors: densities over poses, given a context."""

from flowprior.prior.blocks import BLOCKS, BlockPosterior, BlockPrior
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.distribution import PoseDistribution
from flowprior.prior.evidence import Evidence
from flowprior.prior.export import (
    VERBS,
    export_onnx,
    export_program,
)
from flowprior.prior.heads import MeanHead
from flowprior.prior.joint_factors import JointFactors, JointScores
from flowprior.prior.motion import MotionPrior
from flowprior.prior.posterior import (
    PosePosterior,
    PosePrior,
)
from flowprior.prior.spaces import (
    SPACES,
    Centre,
    PointSpace,
    PoseSpace,
    Rot6dSpace,
    RotationSpace,
    So3Space,
    make_space,
)
from flowprior.prior.uncertainty import JointUncertainty

__all__ = [
    "BLOCKS",
    "SPACES",
    "VERBS",
    "BlockPosterior",
    "BlockPrior",
    "Centre",
    "ConditionalPosePrior",
    "Evidence",
    "JointFactors",
    "JointScores",
    "JointUncertainty",
    "MeanHead",
    "MotionPrior",
    "PointSpace",
    "PoseDistribution",
    "PosePosterior",
    "PosePrior",
    "PoseSpace",
    "Rot6dSpace",
    "RotationSpace",
    "So3Space",
    "export_onnx",
    "export_program",
    "make_space",
]
