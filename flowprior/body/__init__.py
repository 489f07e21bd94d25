"""Bodies: joints, vertices and keypoints from a pose and a shape."""

from flowprior.body.mirroring import (
    mirror_pose,
)
from flowprior.body.model import (
    BodyModel,
    BodyOutput,
)

__all__ = [
    "BodyModel",
    "BodyOutput",
    "mirror_pose",
]
