"""Rotations: conversions between 6D vectors, matrices, rotation vectors and an unbounded chart.

Matrices act on column vectors. Rotation vectors are axis times angle in radians. A 6D vector
contains two rows or columns of a matrix (Zhou et al., *On the Continuity of Rotation
Representations in Neural Networks*, 2019; https://arxiv.org/abs/1812.07035) in one of three orders:

================= ============================= ==========================================
layout            entries                       written by
================= ============================= ==========================================
``"columns"``     r00 r10 r20 r01 r11 r21       ProHMR, HMR2 / 4D-Humans, ScoreHMR (default)
``"interleaved"`` r00 r01 r10 r11 r20 r21       SPIN, VPoser, HuManiFlow
``"rows"``        r00 r01 r02 r10 r11 r12       PyTorch3D, TokenHMR
================= ============================= ==========================================

A wrong layout raises no error but produces wrong rotations. :func:`matching_layouts` returns the
layouts in which given vectors are rotations. The numbers alone do not reveal whether the layout is
``"columns"`` or ``"rows"``: read with the wrong one, every rotation becomes its inverse.

Every function computes in float32 or better, also under autocast, and returns the dtype of its
input, so half precision is rounded only once. Integers are converted to float32.

Densities over rotations are with respect to Haar measure of total mass 1, the only measure that is
invariant under rotations: uniformly distributed rotations have density 1.
:func:`exp_log_volume` and :func:`chart_log_volume` are the log-densities of Haar measure in two
coordinate systems.

`roma <https://naver.github.io/roma/>`_ does the arithmetic.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior._precision import at_least_float32, in_full_precision, without_autocast

# roma is imported on demand, because it loads torch's compiler, which takes a second.

__all__ = [
    "LAYOUTS",
    "MAX_ANGLE",
    "chart_log_volume",
    "chart_to_matrix",
    "exp_log_volume",
    "geodesic_distance",
    "matching_layouts",
    "matrix_to_chart",
    "matrix_to_rot6d",
    "matrix_to_rotvec",
    "orthogonality_loss",
    "rot6d_to_matrix",
    "rotvec_to_matrix",
]

LAYOUTS = ("columns", "interleaved", "rows")

# The direction of a shorter vector is unusable, because its gradient would exceed 1 / SHORTEST.
# Gradients in float16 are limited to 65504, and its vectors are no more accurate than that.
SHORTEST = 1e-8
SHORTEST_FLOAT16 = 2.0**-8

# Half-turns, which would be at infinity in the chart, are clamped to this angle. The resolution of
# float32 near the antipode is a tenth of the difference.
MAX_ANGLE = math.pi * (1 - 1e-6)
SMALLEST_COSINE = math.cos(MAX_ANGLE / 2)

# Log-density of Haar measure at the identity, where all rotation coordinates in radians agree.
LOG_VOLUME_AT_IDENTITY = -math.log(8 * math.pi**2)

# Taylor coefficients in the square of the argument, to float64 precision where they are used.
SIN_RATIO = [(-1) ** k / math.factorial(2 * k + 1) for k in range(10)]  # sin(h) / h
SINH_RATIO = [1 / math.factorial(2 * k + 1) for k in range(10)]  # sinh(h) / h
COSH = [1 / math.factorial(2 * k) for k in range(10)]
ASINH_RATIO = [math.comb(2 * k, k) / (-4) ** k / (2 * k + 1) for k in range(12)]  # asinh(h) / h


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
    import roma

    shortest = SHORTEST_FLOAT16 if dtype == torch.float16 else SHORTEST
    first, second = (_scale_to_one(vector, shortest) for vector in vectors.unbind(dim=-2))

    axes = torch.arange(3, device=vectors.device)  # one_hot fails in vmap of grad
    first = torch.where(_is_zero(first), (axes == 0).to(first.dtype), first)
    axis = F.normalize(first, dim=-1)
    off_axis = second - (second * axis).sum(dim=-1, keepdim=True) * axis
    smallest = axis.detach().abs().argmin(dim=-1, keepdim=True)
    farthest = (axes == smallest).to(axis.dtype)
    precision = dtype if dtype == torch.float16 else axis.dtype
    parallel = off_axis.detach().norm(dim=-1, keepdim=True) < 16 * torch.finfo(precision).eps
    second = torch.where(parallel, farthest, second)

    # The second pass removes the rounding error of a nearly parallel second vector.
    rotation = roma.special_gramschmidt(torch.stack((first, second), dim=-1))
    return roma.special_gramschmidt(rotation[..., :2])


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
def exp_log_volume(rotvec: Tensor) -> Tensor:
    r"""Volume term of the exponential map: log-density of Haar measure over rotation vectors.

    It is :math:`\log \frac{1 - \cos t}{4 \pi^2 t^2}` for a vector of length t, with respect to
    Lebesgue measure on the ball of radius pi, over which its exponential integrates to 1. A density
    over that ball divided by this density is a density over rotations.

    Args:
        rotvec: (..., 3) in radians, of length at most pi.

    Returns:
        (...), in nats. All derivatives are correct, also at the zero vector.

    Raises:
        ValueError: If the shape is wrong.

    References:
        Falorsi et al., *Reparameterizing Distributions on Lie Groups*, AISTATS 2019;
        https://arxiv.org/abs/1903.02958.
    """
    _require_trailing("rotvec", rotvec, (3,))
    half_squared = rotvec.square().sum(dim=-1) / 4
    ratio = _even(
        half_squared,
        lambda y: _polynomial(SIN_RATIO, y),
        lambda half: half.sin() / half,
    )
    return ratio.square().log() + LOG_VOLUME_AT_IDENTITY


@in_full_precision
def matrix_to_chart(matrix: Tensor) -> Tensor:
    r"""Map rotations to unbounded 3-vectors: rotation vectors stretched towards the antipode.

    A rotation by the angle t about an axis becomes the vector of length

    .. math:: r = 2 \operatorname{artanh} \sin(t / 2) = 2 \operatorname{arsinh} \tan(t / 2)

    along that axis, so its unit quaternion is :math:`(\tanh(r/2)\,x/r,\ \operatorname{sech}(r/2))`.
    Small rotations equal their rotation vectors in radians; half a turn would be at infinity, which
    r approaches as slowly as :math:`2 \log(4 / (\pi - t))`.

    Angles are clamped to :data:`MAX_ANGLE`, a millionth below pi, so r is at most 28.1. There the
    sign of the axis, which is ambiguous for half a turn, follows a fixed rule.

    Args:
        matrix: Rotation matrices (..., 3, 3).

    Returns:
        (..., 3), finite and with finite gradients for every rotation.

    Raises:
        ValueError: If the shape is wrong.
    """
    import roma

    _require_trailing("matrix", matrix, (3, 3))
    vector, cosine = roma.rotmat_to_unitquat(matrix).split((3, 1), dim=-1)
    # The sign is that of the product with (1, sqrt 2, sqrt 3), which is nonzero for rational axes.
    a, b, c = vector.unbind(dim=-1)
    tie = (a + math.sqrt(2) * b + math.sqrt(3) * c)[..., None]
    sign = torch.where(cosine.abs() < SMALLEST_COSINE, tie, cosine)
    vector = torch.where(sign < 0, -vector, vector)
    cosine = cosine.abs().clamp(min=SMALLEST_COSINE)
    tangent_squared = (vector / cosine).square().sum(dim=-1, keepdim=True)
    ratio = _even(
        tangent_squared,
        lambda y: _polynomial(ASINH_RATIO, y),
        lambda tangent: tangent.asinh() / tangent,
        limit=1 / 16,
    )
    return 2 * ratio * vector / cosine


@in_full_precision
def chart_to_matrix(x: Tensor) -> Tensor:
    """Inverse of :func:`matrix_to_chart`.

    Args:
        x: (..., 3), of any length with a finite square.

    Returns:
        Rotation matrices (..., 3, 3).

    Raises:
        ValueError: If the shape is wrong.
    """
    import roma

    _require_trailing("x", x, (3,))
    half_squared = x.square().sum(dim=-1, keepdim=True) / 4
    sine_ratio = _even(
        half_squared,
        lambda y: _polynomial(SINH_RATIO, y) / _polynomial(COSH, y),
        lambda half: half.tanh() / half,
    )
    cosine = _even(
        half_squared,
        lambda y: 1 / _polynomial(COSH, y),
        lambda half: 2 * (-half).exp() / (1 + (-2 * half).exp()),  # cosh overflows
    )
    return roma.unitquat_to_rotmat(torch.cat((sine_ratio * x / 2, cosine), dim=-1))


@in_full_precision
def chart_log_volume(x: Tensor) -> Tensor:
    r"""Log-density of Haar measure over the vectors of :func:`matrix_to_chart`.

    It is :math:`\log \frac{\tanh^2 h}{8 \pi^2 h^2 \cosh h}` for a vector of length 2h, with respect
    to Lebesgue measure: :func:`exp_log_volume` minus the log-determinant of the stretching.

    Args:
        x: (..., 3), of any length with a finite square.

    Returns:
        (...), in nats. All derivatives are correct, also at zero.

    Raises:
        ValueError: If the shape is wrong.
    """
    _require_trailing("x", x, (3,))
    half_squared = x.square().sum(dim=-1) / 4
    relative = _even(
        half_squared,
        lambda y: 2 * _polynomial(SINH_RATIO, y).log() - 3 * _polynomial(COSH, y).log(),
        lambda half: 2 * (half.tanh().log() - half.log()) - _log_cosh(half),
    )
    return relative + LOG_VOLUME_AT_IDENTITY


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


def _even(
    squared: Tensor,
    near: Callable[[Tensor], Tensor],
    far: Callable[[Tensor], Tensor],
    limit: float = 1.0,
) -> Tensor:
    """An even function of a length: ``near`` of the squared length below ``limit``, else ``far``.

    As a function of the length, derivatives at zero would be infinite or lost to rounding.
    """
    is_near = squared < limit
    return torch.where(
        is_near,
        near(torch.where(is_near, squared, 0.0)),
        far(torch.where(is_near, limit, squared).sqrt()),
    )


def _polynomial(coefficients: Sequence[float], y: Tensor) -> Tensor:
    """Sum of coefficients[k] y^k."""
    value = torch.full_like(y, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * y + coefficient
    return value


def _log_cosh(h: Tensor) -> Tensor:
    """Logarithm of cosh for positive numbers, without overflow."""
    return h + (-2 * h).exp().log1p() - math.log(2)


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
