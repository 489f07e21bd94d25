"""Rotations: conversions between 6D vectors, matrices, rotation vectors and equal-volume vectors.

Matrices act on column vectors. Rotation vectors are axis times angle in radians. A 6D vector
contains two rows or columns of a matrix (Zhou et al., *On the Continuity of Rotation
Representations in Neural Networks*, 2019; https://arxiv.org/abs/1812.07035) in one of three orders:

================= ============================= ==========================================
layout            entries                       written by
================= ============================= ==========================================
``"columns"``     r00 r10 r20 r01 r11 r21       ProHMR, HMR2 / 4D-Humans, ScoreHMR (default)
``"interleaved"`` r00 r01 r10 r11 r20 r21       SPIN, VPoser, HuManiFlow
``"rows"``        r00 r01 r02 r10 r11 r12       PyTorch3D, PromptHMR
================= ============================= ==========================================

A wrong layout raises no error but produces wrong rotations. :func:`matching_layouts` returns the
layouts in which given vectors are rotations. The numbers alone do not reveal whether the layout is
``"columns"`` or ``"rows"``: read with the wrong one, every rotation becomes its inverse.

Every function computes in float32 or better, also under autocast, and returns the dtype of its
input, so half precision is rounded only once. Integers are converted to float32.

Densities over rotations are with respect to Haar measure of total mass 1, the only measure that is
invariant under rotations: uniformly distributed rotations have density 1. In the vectors of
:func:`matrix_to_chart` it is Lebesgue measure divided by the volume of their ball, 8 pi^2.

`roma <https://naver.github.io/roma/>`_ does most of the arithmetic.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior._modes import outside_inference_mode
from flowprior._precision import at_least_float32, in_full_precision, without_autocast

# roma is imported on demand, because it loads torch's compiler, which takes a second.

__all__ = [
    "CHART_RADIUS",
    "LAYOUTS",
    "LOG_CHART_VOLUME",
    "chart_to_matrix",
    "geodesic_distance",
    "matching_layouts",
    "matrix_to_chart",
    "matrix_to_rot6d",
    "matrix_to_rotvec",
    "mean_rotation",
    "orthogonality_loss",
    "rot6d_to_matrix",
    "rotvec_to_matrix",
    "wrap_chart",
]

LAYOUTS = ("columns", "interleaved", "rows")

# The direction of a shorter vector is unusable, because its gradient would exceed 1 / SHORTEST.
# Gradients in float16 are limited to 65504, and its vectors are no more accurate than that.
SHORTEST = 1e-8
SHORTEST_FLOAT16 = 2.0**-8

# The ball of the equal-volume chart: its radius, and the logarithm of its volume, which is that of
# SO(3) where lengths are radians.
CHART_RADIUS = (6 * math.pi) ** (1 / 3)
LOG_CHART_VOLUME = math.log(8 * math.pi**2)

# Longer coordinates are clamped: even in float64, rounding makes their rotation arbitrary.
LONGEST = 1e6


def rot6d_to_matrix(x: Tensor, layout: str = "columns") -> Tensor:
    """Decode 6D vectors by Gram-Schmidt.

    Any finite input yields a rotation with finite gradients. A first vector of length zero is
    replaced by the x axis, and a second vector that is zero or parallel to the first by the
    coordinate axis farthest from it; a replaced vector receives no gradient. Lengths below 1e-8
    count as zero, in float16 lengths below 1/256, whose gradients would overflow.

    Args:
        x: (..., 6), not necessarily orthonormal.
        layout: One of :data:`LAYOUTS`.

    Returns:
        Rotation matrices (..., 3, 3), in the dtype of x.

    Raises:
        ValueError: If the shape is wrong or the layout is unknown.
    """
    vectors = _split(x, layout)
    dtype = x.dtype if x.is_floating_point() else torch.float32
    with without_autocast(x.device):
        matrix = _gram_schmidt(at_least_float32(vectors), dtype)
    return (matrix.mT if layout == "rows" else matrix).to(dtype)


def _gram_schmidt(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Vectors (..., 2, 3), originally in ``dtype``, as columns -> rotations (..., 3, 3)."""
    shortest = SHORTEST_FLOAT16 if dtype == torch.float16 else SHORTEST
    first, second = (_scale_to_one(vector, shortest) for vector in vectors.unbind(dim=-2))

    axes = torch.arange(3, device=vectors.device)  # one_hot fails in vmap of grad
    axis = _unit(torch.where(_is_zero(first), (axes == 0).to(first.dtype), first))
    off_axis = _reject(second, axis)
    smallest = axis.detach().abs().argmin(dim=-1, keepdim=True)
    farthest = (axes == smallest).to(axis.dtype)
    precision = dtype if dtype == torch.float16 else axis.dtype
    least = (16 * torch.finfo(precision).eps) ** 2
    parallel = off_axis.detach().square().sum(dim=-1, keepdim=True) < least
    off_axis = torch.where(parallel, _reject(farthest, axis), off_axis)
    # The second pass removes the rounding error of a nearly parallel second vector.
    other = _unit(_reject(_unit(off_axis), axis))
    return torch.stack((axis, other, torch.linalg.cross(axis, other)), dim=-1)


def _unit(vector: Tensor) -> Tensor:
    """Normalise vectors (..., 3) that are not zero."""
    # Over three entries the sum is several times as fast as torch's norm.
    return vector / vector.square().sum(dim=-1, keepdim=True).sqrt()


def _reject(vector: Tensor, axis: Tensor) -> Tensor:
    """Remove the part of vectors (..., 3) along unit vectors."""
    return vector - (vector * axis).sum(dim=-1, keepdim=True) * axis


@in_full_precision
def matrix_to_rot6d(matrix: Tensor, layout: str = "columns") -> Tensor:
    """Encode rotation matrices as 6D vectors.

    Args:
        matrix: (..., 3, 3).
        layout: One of :data:`LAYOUTS`.

    Returns:
        (..., 6).

    Raises:
        ValueError: If the shape is wrong or the layout is unknown.
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


@in_full_precision
def rotvec_to_matrix(rotvec: Tensor) -> Tensor:
    """Rotation vectors (..., 3) in radians -> rotation matrices (..., 3, 3)."""
    import roma

    _require_trailing("rotvec", rotvec, (3,))
    return roma.rotvec_to_rotmat(rotvec)


@in_full_precision
def matrix_to_rotvec(matrix: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) -> rotation vectors (..., 3), of length at most pi."""
    import roma

    _require_trailing("matrix", matrix, (3, 3))
    return roma.rotmat_to_rotvec(matrix)


@in_full_precision
def matrix_to_chart(matrix: Tensor) -> Tensor:
    r"""Map rotations to the equal-volume ball: rotation vectors shortened so that volumes agree.

    A rotation by the angle t about an axis becomes the vector of length

    .. math:: r = (6\,(t - \sin t))^{1/3}

    along that axis. Small rotations equal their rotation vectors in radians; half-turns have length
    :data:`CHART_RADIUS`, 2.661. Lebesgue measure in the ball is exactly :math:`8 \pi^2` times Haar
    measure of mass 1, because :math:`r^2 dr = 2 (1 - \cos t)\, dt`. The volume term is therefore
    the same for every rotation: the log-density with respect to Haar measure is that of the vector
    plus :data:`LOG_CHART_VOLUME`, and a density has its mode at the same place in both.

    The sign of the axis of a half-turn, which is ambiguous, follows a fixed rule.

    Args:
        matrix: Rotation matrices (..., 3, 3).

    Returns:
        (..., 3), of length at most :data:`CHART_RADIUS` up to rounding, with finite gradients for
        every rotation.

    Raises:
        ValueError: If the shape is wrong.

    References:
        Rosca, Morawiec and De Graef, *A new method of constructing a grid in the space of 3D
        rotations and its applications to texture analysis*, 2014 (the homochoric chart).
    """
    import roma

    _require_trailing("matrix", matrix, (3, 3))
    quaternion = roma.rotmat_to_unitquat(matrix)
    # The sign is that of the product with (1, sqrt 2, sqrt 3), which is nonzero for rational axes.
    a, b, c, cosine = quaternion.split(1, dim=-1)
    tie = a + math.sqrt(2) * b + math.sqrt(3) * c
    sign = torch.where(cosine.abs() < 4 * torch.finfo(matrix.dtype).eps, tie, cosine)
    vector, cosine = torch.where(sign < 0, -quaternion, quaternion).split((3, 1), dim=-1)
    stereographic = vector / (1 + cosine)
    squared = stereographic.square().sum(dim=-1, keepdim=True)
    return stereographic * _polynomial(TO_CHART[matrix.dtype], 2 * squared - 1)


@in_full_precision
def chart_to_matrix(u: Tensor) -> Tensor:
    """Inverse of :func:`matrix_to_chart`, continued periodically beyond the ball.

    Args:
        u: (..., 3), finite, of any length; see :func:`wrap_chart`.

    Returns:
        Rotation matrices (..., 3, 3).

    Raises:
        ValueError: If the shape is wrong.
    """
    import roma

    u, squared, scale = _wrapping(u)
    inside = squared * scale.square()
    scale = scale * _polynomial(TO_STEREOGRAPHIC[u.dtype], inside * (2 / CHART_RADIUS**2) - 1)
    stereographic = squared * scale.square()
    quaternion = torch.cat((2 * scale * u, 1 - stereographic), dim=-1) / (1 + stereographic)
    return roma.unitquat_to_rotmat(quaternion)


@in_full_precision
def wrap_chart(u: Tensor) -> Tensor:
    r"""The vector inside the ball of :func:`matrix_to_chart` of the same rotation.

    Along a fixed axis :math:`|u|^3 / 6 = t - \sin t` grows by :math:`2 \pi` in every turn; whole
    turns are subtracted from it, which preserves volumes. A vector between half a turn and a whole
    one points the opposite way afterwards.

    Args:
        u: (..., 3), finite. Where a component exceeds 1e6, it is clamped; the rotation of vectors
            so long is anyway lost to rounding.

    Returns:
        (..., 3): u itself if its length is at most :data:`CHART_RADIUS` up to rounding. Gradients
        are finite everywhere, but large near whole turns, which all meet in the identity.

    Raises:
        ValueError: If the shape is wrong.
    """
    u, _, scale = _wrapping(u)
    return u * scale


def _wrapping(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clamped vectors (..., 3), their squares (..., 1) and the factors (..., 1) of wrap_chart."""
    _require_trailing("u", u, (3,))
    eps = torch.finfo(u.dtype).eps
    u = u.clamp(-LONGEST, LONGEST)
    squared = u.square().sum(dim=-1, keepdim=True)
    # Half-turns as matrix_to_chart rounds them count as inside.
    inside = squared <= CHART_RADIUS**2 * (1 + 16 * eps)
    turns = torch.where(inside, CHART_RADIUS**2, squared).pow(1.5) / (12 * math.pi)
    part = turns - turns.round()
    scale = part.sign() * (part.abs().clamp(min=eps / 4) / turns).pow(1 / 3)
    return u, squared, torch.where(inside, 1.0, scale)


@in_full_precision
def geodesic_distance(first: Tensor, second: Tensor) -> Tensor:
    """Angle between rotations, with finite gradients everywhere (zero for equal rotations).

    Args:
        first: Rotation matrices (..., 3, 3).
        second: Rotation matrices (..., 3, 3), broadcasting against the first.

    Returns:
        (...), in radians, from 0 to pi.

    Raises:
        ValueError: If the shape is wrong.
    """
    import roma

    _require_trailing("first", first, (3, 3))
    _require_trailing("second", second, (3, 3))
    # The arc cosine or sine of matrix entries has an infinite slope at one end of its range.
    return roma.rotmat_to_rotvec(first.mT @ second).norm(dim=-1)


@in_full_precision
def mean_rotation(matrix: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean rotations: those with the least sum of squared Frobenius distances.

    Args:
        matrix: (..., V, 3, 3) rotations.
        weight: (..., V), at least one of them positive; equal weights if None.

    Returns:
        (..., 3, 3) rotations.
    """
    import roma

    if weight is not None:
        matrix = weight[..., None, None] * matrix
    total = matrix.sum(dim=-3)
    if not total.numel():
        return total
    with outside_inference_mode():
        mean: Tensor = roma.special_procrustes(total.reshape(-1, 3, 3))
    return mean.reshape(total.shape)


@in_full_precision
def orthogonality_loss(x: Tensor, layout: str = "columns") -> Tensor:
    r"""Deviation of 6D vectors from orthonormality: mean of :math:`(A^T A - I)^2`.

    A is the 3x2 matrix of the two 3-vectors. The mean is over the four entries and all leading
    axes; for empty input it is 0, with zero gradients.

    Args:
        x: (..., 6).
        layout: One of :data:`LAYOUTS`.

    Returns:
        Scalar ().

    Raises:
        ValueError: If the shape is wrong or the layout is unknown.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, loss L_orth.
    """
    vectors = _split(x, layout)
    identity = torch.eye(2, dtype=x.dtype, device=x.device)
    error = (vectors @ vectors.mT - identity).square()
    return error.sum() / max(error.numel(), 1)


@in_full_precision
def matching_layouts(x: Tensor, tolerance: float = 0.01) -> tuple[str, ...]:
    """Layouts in which 6D vectors are orthonormal, like those of rotations.

    Args:
        x: (..., 6), encoded rotations in an unknown layout.
        tolerance: Largest error of a product of the two 3-vectors.

    Returns:
        A subset of :data:`LAYOUTS`: ``("columns", "rows")``, which cannot be distinguished,
        ``("interleaved",)``, or empty if x is not orthonormal in any layout.

    Raises:
        ValueError: If the shape is wrong.
    """
    identity = torch.eye(2, device=x.device)

    def error(layout: str) -> Tensor:
        vectors = _split(x, layout)
        return (vectors @ vectors.mT - identity).abs()

    return tuple(name for name in LAYOUTS if bool((error(name) <= tolerance).all()))


def _split(x: Tensor, layout: str) -> Tensor:
    """(..., 6) -> the two 3-vectors (..., 2, 3)."""
    _require_layout(layout)
    _require_trailing("x", x, (6,))
    if layout == "interleaved":
        return x.unflatten(-1, (3, 2)).mT
    return x.unflatten(-1, (2, 3))


def _polynomial(coefficients: Sequence[float], y: Tensor) -> Tensor:
    """Sum of coefficients[k] y^k."""
    *others, second, first = coefficients
    value = first * y + second
    for coefficient in reversed(others):
        value = value * y + coefficient
    return value


def _scale_to_one(vector: Tensor, shortest: float) -> Tensor:
    """Scale vectors so that squares neither overflow nor underflow; the direction is unchanged."""
    largest = vector.detach().abs().amax(dim=-1, keepdim=True)
    return torch.where(largest < shortest, 0.0, vector / largest.clamp(min=shortest))


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
    if value.is_complex():
        raise ValueError(f"{name} must hold real numbers, got {value.dtype}")


def _chart_length(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """(6 (t - sin t))^(1/3) for angles t from 0 to pi, by its series: the difference cancels."""
    series = [6 * (-1) ** k / math.factorial(2 * k + 3) for k in range(14)]
    return angle * np.cbrt(np.vander(angle**2, 14, increasing=True) @ series)


def _to_chart(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length in the chart over tan(t / 4), as a function of the square of the latter."""
    tangent = np.sqrt(squared)
    return _chart_length(4 * np.arctan(tangent)) / tangent


def _to_stereographic(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """The reciprocal of _to_chart, as a function of the squared length in the chart."""
    length = np.sqrt(squared)
    angle = length
    for _ in range(8):  # Newton's method
        angle = angle - (_chart_length(angle) ** 3 - length**3) / (6 * (1 - np.cos(angle)))
    return np.tan(angle / 4) / length


def _interpolate(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], top: float, terms: int
) -> list[float]:
    """Coefficients in s = 2 y / top - 1 of the polynomial through Chebyshev nodes from 0 to top."""
    s = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
    values = function((s + 1) * (top / 2))
    return [float(each) for each in np.linalg.solve(np.vander(s, increasing=True), values)]


# tan(t / 4), the length of the vector part of the unit quaternion projected stereographically, and
# the length in the chart are analytic functions of one another, and odd: polynomials in the square
# have correct derivatives of every order, also at the identity and at half-turns. Values are exact
# to rounding; first derivatives to 5e-7 for float32 and 1e-13 for float64.
TO_CHART = {
    torch.float32: _interpolate(_to_chart, 1.0, 12),
    torch.float64: _interpolate(_to_chart, 1.0, 21),
}
TO_STEREOGRAPHIC = {
    torch.float32: _interpolate(_to_stereographic, CHART_RADIUS**2, 13),
    torch.float64: _interpolate(_to_stereographic, CHART_RADIUS**2, 25),
}
