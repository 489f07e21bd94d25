"""Bodies: joints, vertices and keypoints from a pose and a shape."""

from flowprior.body.model import (
    BodyModel,
    BodyOutput,
)

__all__ = [
    "BodyModel",
    "BodyOutput",
]
