"""Bodies of other packages: rotations in, joints and vertices out."""

from flowprior.body.rigs.rig import (
    Rig,
)
from flowprior.body.rigs.rig_body import (
    RigBody,
)
from flowprior.body.rigs.sam3d_body import (
    Sam3dBody,
    read_sam3d_body,
)

__all__ = [
    "Rig",
    "RigBody",
    "Sam3dBody",
    "read_sam3d_body",
]
