"""Posed bodies of fits."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flowprior.body import BodyModel
from flowprior.results.fits import Fits
from flowprior.rotations import rotvec_to_matrix

__all__ = ["PosedBodies", "pose_bodies"]


@dataclass(frozen=True)
class PosedBodies:
    """Bodies of N people in the frame of the camera.

    Args:
        vertices: (N, V, 3) metres; NaN for people without a fit.
        joints: (N, 24, 3) metres.
        faces: (F, 3) triangles of vertices.
    """

    vertices: NDArray[np.float32]
    joints: NDArray[np.float32]
    faces: NDArray[np.int64]

    @property
    def posed(self) -> NDArray[np.bool_]:
        """(N,) whether a person has a body."""
        return np.asarray(np.isfinite(self.vertices).all(axis=(1, 2)))

    def rows(self, rows: NDArray[np.intp]) -> "PosedBodies":
        """Some of the bodies."""
        return PosedBodies(self.vertices[rows], self.joints[rows], self.faces)


@torch.no_grad()
def pose_bodies(fits: Fits, body: BodyModel) -> PosedBodies:
    """Pose the body of each person.

    Args:
        fits: The fits.
        body: Their body.
    """
    like = next(body.buffers())
    theta, betas, transl = (
        torch.from_numpy(array).to(like.device, torch.float32)
        for array in (fits.rotations, fits.betas, fits.transl)
    )
    out = body(rotvec_to_matrix(theta), betas, transl)
    return PosedBodies(
        out.vertices.cpu().numpy(), out.joints.cpu().numpy(), body.faces.cpu().numpy()
    )
