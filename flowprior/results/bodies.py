"""Posed bodies of fits."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flowprior.body import BodyModel
from flowprior.results.fits import Fits
from flowprior.rotations import rotvec_to_matrix

__all__ = ["EMBEDDED", "PosedBodies", "body_of", "pose_bodies"]

EMBEDDED = "embedded"
"""Name of the embedded body in `Fits`, with or without hands."""


@dataclass(frozen=True)
class PosedBodies:
    """Bodies of N people in the frame of the camera.

    Args:
        vertices: (N, V, 3) metres; NaN for people without a fit.
        joints: (N, J, 3) metres.
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


def body_of(fits: Fits, body: BodyModel | None = None) -> BodyModel:
    """The body that fits refer to.

    Args:
        fits: The fits.
        body: The body, if the user has given it; None for the embedded one, with hands if the fits
            have them.

    Raises:
        ValueError: The fits belong to a body that is not embedded, and it is not given; or it has
            other joints or another number of shape coefficients.
    """
    kind = fits.kind
    if body is None:
        if fits.body != EMBEDDED:
            raise ValueError(
                f"these fits are of the body {fits.body}, which flowprior does not contain: pass "
                f"body=BodyModel({fits.body!r}) with the path of your file"
            )
        return BodyModel(hands=kind.model_type == "smplh", num_betas=fits.betas.shape[1])
    if body.num_joints != kind.num_joints:
        raise ValueError(
            f"the fits have the {kind.num_joints} joints of {kind.name}, {body.name} has "
            f"{body.num_joints}: pass the body of the fits, {fits.body}"
        )
    if fits.betas.shape[1] != body.num_betas:
        raise ValueError(
            f"the fits have {fits.betas.shape[1]} shape coefficients, {body.name} has "
            f"{body.num_betas}: BodyModel(..., num_betas={fits.betas.shape[1]})"
        )
    return body


@torch.no_grad()
def pose_bodies(fits: Fits, body: BodyModel) -> PosedBodies:
    """Pose the body of each person.

    Args:
        fits: The fits.
        body: Their body, see `body_of`.
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
