"""Rotations: 6D <-> matrix <-> rotation vector. Layouts are explicit; the arithmetic is roma's.

Matrices act on column vectors. Rotation vectors are axis times angle in radians. A 6D vector holds
two of a matrix's rows or columns (Zhou et al., *On the Continuity of Rotation Representations in
Neural Networks*, 2019; https://arxiv.org/abs/1812.07035) in one of three orders:

================= ============================= ==========================================
layout            entries                       written by
================= ============================= ==========================================
``"columns"``     r00 r10 r20 r01 r11 r21       ProHMR, HMR2 / 4D-Humans, ScoreHMR (default)
``"interleaved"`` r00 r01 r10 r11 r20 r21       SPIN, VPoser, HuManiFlow
``"rows"``        r00 r01 r02 r10 r11 r12       PyTorch3D, TokenHMR
================= ============================= ==========================================

Nothing in a 6D vector tells which one it is, so a wrong layout raises no error: it gives wrong
rotations.
"""

import roma
import torch
import torch.nn.functional as F
from torch import Tensor

from flowprior.flow.checks import require_tensor

__all__ = [
    "LAYOUTS",
    "geodesic_distance",
    "matrix_to_rot6d",
    "matrix_to_rotvec",
    "orthogonality_loss",
    "rot6d_to_matrix",
    "rotvec_to_matrix",
]

LAYOUTS = ("columns", "interleaved", "rows")

# Vectors shorter than this have no usable direction: its gradient would exceed 1 / SHORTEST.
SHORTEST = 1e-8


def rot6d_to_matrix(x: Tensor, layout: str = "columns") -> Tensor:
    """Decode 6D vectors by Gram-Schmidt.

    Any finite input gives a rotation with finite gradients. A zero first vector is replaced by
    the x axis, and a second vector that is zero or parallel to the first by the coordinate axis
    farthest from it; what was replaced gets no gradient.

    Args:
        x: (..., 6), not necessarily orthonormal.
        layout: One of :data:`LAYOUTS`.

    Returns:
        Rotation matrices (..., 3, 3), in the dtype of x.

    Raises:
        ValueError: For another shape or an unknown layout.
    """
    vectors = _split(x, layout).to(torch.promote_types(x.dtype, torch.float32))
    first, second = (_scale_to_one(vector) for vector in vectors.unbind(dim=-2))

    x_axis = F.one_hot(first.new_zeros((), dtype=torch.long), 3).to(first.dtype)
    first = torch.where(_is_zero(first), x_axis, first)
    axis = F.normalize(first, dim=-1)
    off_axis = second - (second * axis).sum(dim=-1, keepdim=True) * axis
    farthest = F.one_hot(axis.detach().abs().argmin(dim=-1), 3).to(axis.dtype)
    parallel = off_axis.detach().norm(dim=-1, keepdim=True) < 16 * torch.finfo(axis.dtype).eps
    second = torch.where(parallel, farthest, second)

    # The second pass removes what rounding left of the first vector in a nearly parallel second.
    rotation = roma.special_gramschmidt(torch.stack((first, second), dim=-1))
    rotation = roma.special_gramschmidt(rotation[..., :2])
    return (rotation.mT if layout == "rows" else rotation).to(x.dtype)


def matrix_to_rot6d(matrix: Tensor, layout: str = "columns") -> Tensor:
    """Encode rotation matrices as 6D vectors.

    Args:
        matrix: (..., 3, 3).
        layout: One of :data:`LAYOUTS`.

    Returns:
        (..., 6).

    Raises:
        ValueError: For another shape or an unknown layout.
    """
    _require_layout(layout)
    _require_trailing("matrix", matrix, (3, 3))
    if layout == "rows":
        kept = matrix[..., :2, :]
    elif layout == "columns":
        kept = matrix[..., :2].mT
    else:
        kept = matrix[..., :2]
    return kept.flatten(start_dim=-2)


def rotvec_to_matrix(rotvec: Tensor) -> Tensor:
    """Rotation vectors (..., 3) in radians -> rotation matrices (..., 3, 3)."""
    _require_trailing("rotvec", rotvec, (3,))
    return roma.rotvec_to_rotmat(rotvec)


def matrix_to_rotvec(matrix: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) -> rotation vectors (..., 3), of length at most pi."""
    _require_trailing("matrix", matrix, (3, 3))
    return roma.rotmat_to_rotvec(matrix)


def geodesic_distance(first: Tensor, second: Tensor) -> Tensor:
    """Angle between rotations, with finite gradients everywhere (zero at equality).

    Args:
        first: Rotation matrices (..., 3, 3).
        second: Rotation matrices (..., 3, 3), broadcasting against the first.

    Returns:
        (...), in radians, from 0 to pi.

    Raises:
        ValueError: For another shape.
    """
    _require_trailing("first", first, (3, 3))
    _require_trailing("second", second, (3, 3))
    # An arc cosine or sine of the matrix entries would have infinite slope at one of the ends.
    return roma.rotmat_to_rotvec(first.mT @ second).norm(dim=-1)


def orthogonality_loss(x: Tensor, layout: str = "columns") -> Tensor:
    r"""How far 6D vectors are from encoding rotations: mean of :math:`(A^T A - I)^2`.

    A is the 3x2 matrix of the two 3-vectors. The mean runs over its four products and all leading
    axes.

    Args:
        x: (..., 6).
        layout: One of :data:`LAYOUTS`.

    Returns:
        Scalar ().

    Raises:
        ValueError: For another shape or an unknown layout.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, loss L_orth.
    """
    vectors = _split(x, layout)
    identity = torch.eye(2, dtype=x.dtype, device=x.device)
    return (vectors @ vectors.mT - identity).square().mean()


def _split(x: Tensor, layout: str) -> Tensor:
    """(..., 6) -> the two 3-vectors (..., 2, 3)."""
    _require_layout(layout)
    _require_trailing("x", x, (6,))
    if layout == "interleaved":
        return x.unflatten(-1, (3, 2)).mT
    return x.unflatten(-1, (2, 3))


def _scale_to_one(vector: Tensor) -> Tensor:
    """Scale so that squares neither overflow nor vanish; directions do not notice."""
    largest = vector.detach().abs().amax(dim=-1, keepdim=True)
    return torch.where(largest < SHORTEST, 0.0, vector / largest.clamp(min=SHORTEST))


def _is_zero(vector: Tensor) -> Tensor:
    return (vector.detach() == 0).all(dim=-1, keepdim=True)


def _require_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {LAYOUTS}, got {layout!r}")


def _require_trailing(name: str, value: Tensor, trailing: tuple[int, ...]) -> None:
    require_tensor(name, value)
    if value.shape[-len(trailing) :] != trailing:
        wanted = ", ".join(map(str, trailing))
        raise ValueError(f"{name} must have shape (..., {wanted}), got {tuple(value.shape)}")
