"""Vertices of posed bodies for the pictures, upright and with the pelvis at the origin."""

import torch
from torch import Tensor

from examples.pictures.style import Array
from examples.pinhole import flip_yz
from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24

__all__ = ["upright_vertices"]


@torch.no_grad()
def upright_vertices(body: BodyModel, theta: Tensor, betas: Tensor | None = None) -> Array:
    """Pose bodies for `body_views` and the other functions of `examples.pictures.meshes`.

    Args:
        body: The body, in layout "columns".
        theta: (..., 24, 6) joint rotations of people seen by a camera (y down), or (..., 23, 6)
            those below the root of people who stand upright and face the viewer.
        betas: Shape, as `BodyModel` takes it.

    Returns:
        (..., V, 3) metres, y up, the pelvis at the origin.
    """
    seen = theta.shape[-2] == SMPL_24.num_joints
    if not seen:
        root = theta.new_tensor([1.0, 0, 0, 0, 1, 0]).expand(*theta.shape[:-2], 1, 6)
        theta = torch.cat([root, theta], dim=-2)
    out = body(theta, betas)
    vertices: Array = (out.vertices - out.joints[..., :1, :]).numpy()
    return flip_yz(vertices) if seen else vertices
