"""Bodies: joints, vertices and keypoints from a pose and a shape."""

from flowprior.body.body import (
    Body,
)
from flowprior.body.hand import (
    hand_points,
)
from flowprior.body.mirroring import (
    mirror_pose,
)
from flowprior.body.model import (
    BodyModel,
    BodyOutput,
)
from flowprior.body.rigs import (
    Rig,
    RigBody,
    Sam3dBody,
    read_sam3d_body,
)

__all__ = [
    "Body",
    "BodyModel",
    "BodyOutput",
    "Rig",
    "RigBody",
    "Sam3dBody",
    "hand_points",
    "mirror_pose",
    "read_sam3d_body",
]
