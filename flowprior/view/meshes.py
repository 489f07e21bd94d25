"""The bodies of fits: meshes and joints of the fit and of its samples, and their compact form."""

import base64
import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior.body import BodyModel
from flowprior.results import Fits
from flowprior.rotations import rotvec_to_matrix

__all__ = ["STEP_M", "Poses", "pack", "poses_of", "unpack"]

Array: TypeAlias = NDArray[Any]

STEP_M = 0.0005
"""Resolution of packed positions, metres."""


@dataclass(frozen=True)
class Poses:
    """One person in P poses: the fit first, then samples.

    Args:
        vertices: (P, V, 3) metres, camera frame.
        joints: (P, J, 3) metres, camera frame.
    """

    vertices: Array
    joints: Array


@torch.no_grad()
def poses_of(fits: Fits, row: int, body: BodyModel, num_samples: int | None = None) -> Poses | None:
    """Pose the body of one person as in the fit and in samples.

    Args:
        fits: The fits.
        row: The person.
        body: The body, see `flowprior.results.bodies.body_of`.
        num_samples: Largest number of samples; all if None.

    Returns:
        The poses; None for a person without a finite fit. Samples that are not finite are left out.
    """
    rotvec = np.concatenate([fits.rotations[row][None], fits.samples[row][:num_samples]])
    finite = np.isfinite(rotvec).all(axis=(1, 2))
    place = np.concatenate([fits.betas[row], fits.transl[row]])
    if not finite[0] or not np.isfinite(place).all():
        return None
    like = next(body.buffers())

    def tensor(array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, torch.float32)

    out = body(
        rotvec_to_matrix(tensor(rotvec[finite])), tensor(fits.betas[row]), tensor(fits.transl[row])
    )
    return Poses(out.vertices.cpu().numpy(), out.joints.cpu().numpy())


def pack(positions: Array, origin: Array) -> str:
    """Positions in steps of `STEP_M`, compressed, as base64.

    The first pose is stored relative to the origin, the others relative to the first: differences
    are small, so the bytes compress well. The low bytes of the 16-bit numbers stand before the
    high bytes.

    Args:
        positions: (P, V, 3) metres.
        origin: (3,) metres; positions lie within 16 m of it.

    Raises:
        ValueError: A position is too far away, or not finite.
    """
    steps = (np.asarray(positions, np.float64) - origin) / STEP_M
    if not (np.isfinite(steps).all() and (np.abs(steps) < 2**15).all()):
        raise ValueError("positions must lie within 16 m of the origin")
    whole = np.rint(steps).astype(np.int32)
    whole[1:] -= whole[:1].copy()
    words = whole.astype("<i2").reshape(-1)  # differences beyond the range wrap around, and back
    planes = words.view(np.uint8).reshape(-1, 2).T.tobytes()
    return base64.b64encode(zlib.compress(planes)).decode("ascii")


def unpack(text: str, vertices: int, origin: Array) -> Array:
    """The inverse of `pack` up to rounding, as the page computes it.

    Args:
        text: What `pack` returned.
        vertices: Number V of positions per pose.
        origin: (3,) metres.

    Returns:
        (P, V, 3) metres.
    """
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1)
    words = np.ascontiguousarray(planes.T).view("<i2").reshape(-1, vertices, 3)
    words = words.copy()
    words[1:] += words[:1].copy()
    return words * STEP_M + origin
