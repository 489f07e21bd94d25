"""Body models: theta in, joints, vertices and keypoints out."""

from flowprior.body.model import (
    BodyModel,
    BodyOutput,
)

__all__ = [
    "BodyModel",
    "BodyOutput",
]
