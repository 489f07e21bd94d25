"""Calibration and sharpness of a pose posterior.

The best of n samples does not measure calibration, and can improve while calibration gets worse.
Report a calibration error with it, and ``sample_spread`` with that: a model that ignores its
context can be perfectly calibrated.

Sums are computed in float64 on the device of the input. Samples are processed in pieces: a thousand
poses with 4096 samples each need little more memory than the samples themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior._checks import require_tensor

__all__ = [
    "JointCalibration",
    "calibration_error",
    "coverage",
    "energy_score",
    "expected_calibration_error",
    "latent_pit",
    "sample_spread",
]

# Entries in the largest temporary: 32 MiB of float64.
_BLOCK = 2**22

# Terms of the continued fraction of the incomplete beta; it converges within about the square root
# of its larger parameter.
_BETA_TERMS = 200


def latent_pit(z: Tensor, degrees_of_freedom: float | Tensor | None = None) -> Tensor:
    r"""Probability integral transform of the squared latent norm under the law of the base density.

    If the density were correct, z would follow the base and this value be uniform on [0, 1]. It is
    the mass of the latent ball that has z on its surface: many values near 1 indicate an
    overconfident model, whose truths are farther out than expected; many values near 0 indicate an
    underconfident one.

    If the log-determinant does not depend on theta (additive couplings, with or without
    ``context_norm``), the decoded ball is the highest-density region of that mass. With affine or
    spline couplings it is a region of that mass, but not the smallest. Only the norm is evaluated,
    so a latent of the right length in the wrong direction is not detected.

    Args:
        z: (..., D), latents of true poses, from ``PosePosterior.encode``.
        degrees_of_freedom: Those of a Student's t base, ``prior.flow.base.degrees_of_freedom``;
            None for the standard normal.

    Returns:
        (...) in float64, in [0, 1].

    Raises:
        ValueError: If ``z`` has no latent axis, is not floating point, or contains NaN or infinity,
            or if there are no degrees of freedom.

    References:
        Rosenblatt, *Remarks on a Multivariate Transformation*, 1952, for the transform. The squared
        norm of a normal z follows the chi-square law, with the regularised incomplete gamma
        P(D / 2, ||z||^2 / 2); that of a Student's t follows D times the F law, with the
        regularised incomplete beta I_x(D / 2, nu / 2) at x = ||z||^2 / (||z||^2 + nu).
    """
    _require_finite("z", z)
    if z.ndim == 0 or z.shape[-1] == 0:
        raise ValueError(f"expected z of shape (..., D) with D at least 1, got {tuple(z.shape)}")
    if degrees_of_freedom is not None:
        return _t_ball(z, float(degrees_of_freedom))
    half_square = z.double().square().sum(dim=-1) / 2
    shape = torch.full_like(half_square, z.shape[-1] / 2)
    pit: Tensor = torch.special.gammainc(shape, half_square)
    return pit


def _t_ball(z: Tensor, nu: float) -> Tensor:
    """Mass of a Student's t inside the ball with z (..., D) on its surface."""
    if not 0 < nu < math.inf:
        raise ValueError(f"degrees_of_freedom must be positive and finite, got {nu}")
    square = (z.double() / math.sqrt(nu)).square().sum(dim=-1)
    inside, outside = square / (1 + square), 1 / (1 + square)
    # Lengths whose square overflows have all the mass inside.
    inside, outside = torch.where(square.isinf(), 1.0, inside), outside
    a, b = z.shape[-1] / 2, nu / 2
    lower = inside < (a + 1) / (a + b + 2)
    fraction = _incomplete_beta(
        torch.where(lower, inside, outside),
        torch.where(lower, a, b).double(),
        torch.where(lower, b, a).double(),
    )
    return torch.where(lower, fraction, 1 - fraction)


def _incomplete_beta(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Regularised incomplete beta I_x(a, b) for x below (a + 1) / (a + b + 2).

    The continued fraction of Abramowitz and Stegun, 26.5.8, evaluated from its end.
    """
    tail = torch.zeros_like(x)
    for m in range(_BETA_TERMS, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        tail = even / (1 + odd / (1 + tail))
    first = -(a + b) * x / (a + 1)
    log_front = torch.lgamma(a + b) - torch.lgamma(a + 1) - torch.lgamma(b)
    front = (log_front + torch.xlogy(a, x) + torch.xlogy(b, 1 - x)).exp()
    return front / (1 + first / (1 + tail))


def coverage(pit: Tensor, levels: Tensor | Sequence[float] | None = None) -> Tensor:
    """Fraction of poses inside the regions of given nominal mass.

    For a calibrated model the result equals the levels; for an overconfident one it is smaller.

    Args:
        pit: Any shape, at least one value: the result of ``latent_pit`` for true poses.
        levels: (L,) masses q in [0, 1]; 0, 0.05, ..., 1 if None.

    Returns:
        (L,) in float64: the fraction of ``pit`` that is at most q.

    Raises:
        ValueError: If there are no values, or values or levels are not within [0, 1].
    """
    _require_finite("pit", pit)
    _require_unit_interval("pit", pit)
    q = _levels(levels, pit.device)
    below = torch.searchsorted(pit.double().flatten().sort().values, q, right=True)
    return below / torch.full_like(q, pit.numel())


def calibration_error(coverage: Tensor, levels: Tensor | Sequence[float] | None = None) -> Tensor:
    """Mean distance of a coverage curve from the diagonal.

    0 is perfect, 0.5 the worst. By chance alone, a perfect model has about 0.3 / sqrt(N) on N
    independent poses.

    Args:
        coverage: (..., L), from ``coverage`` or ``JointCalibration``.
        levels: (L,), the levels of ``coverage``; 0, 0.05, ..., 1 if None.

    Returns:
        (...) in float64: the mean over the levels of abs(coverage - level).

    Raises:
        ValueError: If coverage or levels are not within [0, 1], or do not match.
    """
    _require_finite("coverage", coverage)
    _require_unit_interval("coverage", coverage)
    q = _levels(levels, coverage.device)
    if coverage.ndim == 0 or coverage.shape[-1] != len(q):
        raise ValueError(
            f"expected coverage of shape (..., {len(q)}), one value per level, "
            f"got {tuple(coverage.shape)}"
        )
    return (coverage.double() - q).abs().mean(dim=-1)


@dataclass(frozen=True, eq=False)
class JointCalibration:
    """Coverage of each joint by the quantiles of its samples.

    Attributes:
        levels: (L,) quantiles q.
        coverage: (J, L), the fraction of poses in which joint j is nearer to the centre than the
            q-quantile of its samples. A value below q indicates overconfidence.
        num_poses: Number of evaluated poses.
    """

    levels: Tensor
    coverage: Tensor
    num_poses: int

    @property
    def median_coverage(self) -> Tensor:
        """(L,), the median over the joints, as published."""
        return self.coverage.quantile(0.5, dim=0)

    @property
    def ece(self) -> float:
        """Calibration error of the median curve, as published."""
        return calibration_error(self.median_coverage, self.levels).item()

    @property
    def joint_errors(self) -> Tensor:
        """(J,), the calibration error of each joint; the median over joints hides outliers."""
        return calibration_error(self.coverage, self.levels)


def expected_calibration_error(
    samples: Tensor, target: Tensor, levels: Tensor | Sequence[float] | None = None
) -> JointCalibration:
    """Expected calibration error of 3D joints, as published.

    The centre of a joint is the coordinate-wise median of its samples. Coverage at q is the
    fraction of poses in which the q-quantile of the samples' distances to the centre is strictly
    greater than the distance of the truth. The error is the distance of the median curve over the
    joints from the diagonal.

    Exclude a joint that is fixed at the origin: the truth is never strictly nearer than the
    samples, so its error is 0.5. Compare only errors from equal numbers of samples: for a perfect
    model the truth is farther than the farthest sample in one of n + 1 poses, and the median is
    biased towards the samples, so a normal distribution has an error of 0.09 with 9 samples, 0.018
    with 50 and 0.004 with 200.

    Args:
        samples: (*batch, n, J, 3), n at least 2, in any unit; the published figures use n = 200.
        target: (*batch, J, 3), in the same unit and relative to the same root.
        levels: (L,) quantiles in [0, 1]; 0, 0.05, ..., 1 if None, as published.

    Returns:
        The published figure, and the curve and error of each joint.

    Raises:
        ValueError: If shapes are not as above, do not match or contain no poses; values are NaN or
            infinite; or levels are not within [0, 1].

    References:
        Pierzchlewicz et al., *Multi-Hypothesis 3D Human Pose Estimation Metrics Favor Miscalibrated
        Distributions*, 2022, arXiv 2210.11179. Details follow their code
        (github.com/sinzlab/cGNF): the median of an even number of samples is the lower middle one;
        quantiles are interpolated linearly.
    """
    x, y = _flat_rows(samples, target)
    q = _levels(levels, samples.device)
    rows, n, joints, _ = x.shape
    if rows == 0:
        raise ValueError(f"target of shape {tuple(target.shape)} contains no poses")
    position = q * (n - 1)
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=n - 1)
    weight = (position - lower)[:, None]
    inside = torch.zeros(len(q), joints, dtype=torch.float64, device=samples.device)
    step = max(1, _BLOCK // (joints * max(3 * n, len(q))))
    for drawn, truth in zip(x.split(step), y.split(step), strict=True):
        drawn = drawn.double()
        # Sort, because torch.median has no deterministic implementation on CUDA.
        centre = drawn.sort(dim=1).values[:, (n - 1) // 2]
        spread = torch.linalg.vector_norm(drawn - centre[:, None], dim=-1).sort(dim=1).values
        error = torch.linalg.vector_norm(truth.double() - centre, dim=-1)
        quantiles = torch.lerp(spread[:, lower], spread[:, upper], weight)
        inside += (quantiles > error[:, None]).sum(dim=0)
    return JointCalibration(levels=q, coverage=(inside / rows).mT.contiguous(), num_poses=rows)


def energy_score(samples: Tensor, target: Tensor) -> Tensor:
    """Energy score of poses: mean distance to the truth minus half the mean pairwise distance.

    This is a strictly proper scoring rule; lower is better. Over many poses no distribution scores
    better than the true one, so one number measures calibration and sharpness, of each joint and
    between joints. Distances are Euclidean in all 3 J coordinates. The estimate is the fair one,
    over pairs of distinct samples: its mean does not depend on n, and the score of a pose can be
    negative. It is differentiable, but autograd keeps the distances of all pairs.

    Args:
        samples: (*batch, n, J, 3), n at least 2, in metres.
        target: (*batch, J, 3), in metres.

    Returns:
        (*batch), in metres, in the wider dtype of the two.

    Raises:
        ValueError: If shapes are not as above or do not match, or values are NaN or infinite.

    References:
        Gneiting and Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, 2007,
        section 4.3, with the opposite sign; Ferro, *Fair scores for ensemble forecasts*, 2014.
    """
    x, y = _flat_rows(samples, target)
    n = x.shape[1]
    step = max(1, _BLOCK // (n * max(n, x.shape[-2] * 3)))
    scores = []
    for drawn, truth in zip(x.flatten(2).split(step), y.flatten(1).split(step), strict=True):
        drawn, truth = drawn.double(), truth.double()[:, None]
        to_truth = torch.linalg.vector_norm(drawn - truth, dim=-1).mean(dim=1)
        # cdist loses precision far from the origin.
        drawn = drawn - drawn.mean(dim=1, keepdim=True)
        apart = torch.zeros_like(to_truth)
        size = max(1, _BLOCK // (n * step))
        for start in range(0, n, size):
            distance = torch.cdist(drawn[:, start : start + size], drawn)
            # The distance of a sample to itself is only rounding error.
            itself = distance.diagonal(offset=start, dim1=1, dim2=2)
            apart = apart + distance.sum(dim=(1, 2)) - itself.sum(dim=1)
        scores.append(to_truth - apart / (2 * n * (n - 1)))
    dtype = torch.promote_types(samples.dtype, target.dtype)
    return torch.cat(scores).reshape(target.shape[:-2]).to(dtype)


def sample_spread(samples: Tensor) -> Tensor:
    """Sharpness: the mean distance of a joint's samples to their mean.

    Args:
        samples: (*batch, n, J, 3), n at least 2, in metres.

    Returns:
        (*batch, J), in metres. The distances are to the mean of the samples, so with few samples
        the result is too small, by a factor of about sqrt(1 - 1 / n).

    Raises:
        ValueError: If the shape is not as above, or values are NaN or infinite.
    """
    x = _flat_samples(samples)
    n, joints = x.shape[1:3]
    spreads = []
    for drawn in x.split(max(1, _BLOCK // (3 * n * joints))):
        drawn = drawn.double()
        distance = torch.linalg.vector_norm(drawn - drawn.mean(dim=1, keepdim=True), dim=-1)
        spreads.append(distance.mean(dim=1))
    batch = samples.shape[:-3]
    return torch.cat(spreads).reshape(*batch, joints).to(samples.dtype)


def _flat_samples(samples: Tensor) -> Tensor:
    """Samples with one batch axis; ValueError for a wrong shape."""
    _require_finite("samples", samples)
    shape = tuple(samples.shape)
    if samples.ndim < 3 or shape[-1] != 3 or shape[-2] == 0:
        raise ValueError(
            f"expected samples of shape (..., n, J, 3) with at least one joint, got {shape}"
        )
    if shape[-3] < 2:
        raise ValueError(f"expected at least 2 samples per pose, got samples of shape {shape}")
    return samples.reshape(math.prod(shape[:-3]), *shape[-3:])


def _flat_rows(samples: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Samples and target with one batch axis; ValueError for wrong shapes."""
    x = _flat_samples(samples)
    _require_finite("target", target)
    if target.shape != samples.shape[:-3] + samples.shape[-2:]:
        raise ValueError(
            "expected samples (..., n, J, 3) and target (..., J, 3) that match, "
            f"got {tuple(samples.shape)} and {tuple(target.shape)}"
        )
    return x, target.reshape(len(x), *target.shape[-2:])


def _levels(levels: Tensor | Sequence[float] | None, device: torch.device) -> Tensor:
    if levels is None:
        return torch.linspace(0, 1, 21, dtype=torch.float64, device=device)
    q = torch.as_tensor(levels, dtype=torch.float64, device=device)
    if q.ndim != 1:
        raise ValueError(f"expected levels of shape (L,), got {tuple(q.shape)}")
    _require_unit_interval("levels", q)
    return q


def _require_unit_interval(name: str, value: Tensor) -> None:
    if value.numel() == 0:
        raise ValueError(f"{name} is empty")
    low, high = value.min().item(), value.max().item()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ValueError(f"{name} must be within [0, 1], got values from {low:g} to {high:g}")


def _require_finite(name: str, value: Tensor) -> None:
    require_tensor(name, value)
    if not value.is_floating_point():
        raise ValueError(f"expected {name} of a floating-point dtype, got {value.dtype}")
    if value.numel() == 0:
        return
    # NaN propagates to the extremes, which need no mask as large as the samples.
    if not all(extreme.isfinite() for extreme in value.detach().aminmax()):
        bad = int((~value.isfinite()).sum())
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {value.numel()} entries")
