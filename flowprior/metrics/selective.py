"""Does an uncertainty find the errors? Risk-coverage curves, AUSE, coverage per person."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior._checks import require_tensor

__all__ = ["GroupCoverage", "RiskCoverage", "ause", "coverage_by_group", "risk_coverage"]


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Mean error of the predictions that remain when the most uncertain ones are left out.

    Attributes:
        coverage: (N,) share that is kept, 1 / N, 2 / N, ..., 1.
        risk: (N,) mean error of that share, kept by uncertainty.
        oracle: (N,) the same, kept by the error itself: the lowest curve that is possible.
    """

    coverage: Tensor
    risk: Tensor
    oracle: Tensor

    @property
    def ause(self) -> float:
        """Area between the two curves, in units of the mean error; 0 is perfect."""
        mean = float(self.risk[-1])
        return float((self.risk - self.oracle).mean()) / mean if mean > 0 else 0.0


def risk_coverage(error: Tensor, uncertainty: Tensor) -> RiskCoverage:
    """Risk-coverage curve of predictions, for example of all joints of all people.

    Predictions of equal uncertainty count as if they were in random order, so an uncertainty that
    is the same everywhere gives a flat curve at the mean error. Only the order of the uncertainties
    matters, not their unit.

    Args:
        error: Any shape, at least one error, at least 0.
        uncertainty: The same shape; larger means less certain.

    Returns:
        The curve, in float64.

    Raises:
        ValueError: If shapes differ or are empty, values are NaN or infinite, or errors negative.

    References:
        El-Yaniv and Wiener, *On the Foundations of Noise-free Selective Classification*, 2010.
    """
    _require_pair(error, uncertainty)
    errors, unsure = error.double().flatten(), uncertainty.double().flatten()
    order = unsure.argsort(stable=True)
    _, tie = unsure[order].unique_consecutive(return_inverse=True)
    sums = torch.zeros(int(tie[-1]) + 1, dtype=torch.float64, device=errors.device)
    counts = torch.zeros_like(sums)
    sums = sums.index_add(0, tie, errors[order])
    counts = counts.index_add(0, tie, torch.ones_like(errors))
    kept = torch.arange(1, len(errors) + 1, dtype=torch.float64, device=errors.device)
    risk = (sums / counts)[tie].cumsum(dim=0) / kept
    oracle = errors.sort().values.cumsum(dim=0) / kept
    return RiskCoverage(kept / len(errors), risk, oracle)


def ause(error: Tensor, uncertainty: Tensor) -> float:
    """Area under the sparsification error: how far an order of trust is from that of the errors.

    The mean distance of the risk-coverage curve from that of an oracle which sorts by the errors,
    divided by the mean error. It does not measure calibration: see :func:`coverage_by_group`.

    Args:
        error: As for :func:`risk_coverage`.
        uncertainty: As for :func:`risk_coverage`.

    Returns:
        0 for the order of the errors; for a random order, the whole area between the mean error and
        the oracle's curve.

    Raises:
        ValueError: As :func:`risk_coverage`.

    References:
        Ilg et al., *Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow*, 2018.
    """
    return risk_coverage(error, uncertainty).ause


@dataclass(frozen=True, eq=False)
class GroupCoverage:
    """How often regions contain the truth, for each person.

    Attributes:
        groups: Names of the G people.
        coverage: (G, ...) share of each person's poses inside, of every joint.
        counts: (G,) number of poses of each.
    """

    groups: tuple[object, ...]
    coverage: Tensor
    counts: Tensor

    @property
    def mean(self) -> Tensor:
        """(...), the mean over people, each with the same weight."""
        return self.coverage.mean(dim=0)


def coverage_by_group(
    error: Tensor, radius: Tensor, groups: Tensor | Sequence[object]
) -> GroupCoverage:
    """Share of poses whose truth lies within a radius, for each person.

    Frames of one person are alike. A coverage over all frames hides people on whom a model is wrong
    all the time, and its standard error is that of the number of people, not of frames.

    Args:
        error: (N, ...) distances of the truth from the answer, such as (N, J).
        radius: (N, ...) radii of a level.
        groups: N names or numbers of people.

    Returns:
        The coverage of each person, in the order in which they first appear.

    Raises:
        ValueError: If shapes do not match or there are no poses, or values are NaN.
    """
    require_tensor("error", error)
    require_tensor("radius", radius)
    rows = groups.flatten().tolist() if isinstance(groups, Tensor) else list(groups)
    if error.shape != radius.shape or error.ndim == 0 or not len(error) or len(rows) != len(error):
        raise ValueError(
            "expected error and radius of one shape (N, ...), N at least 1, and N groups, got "
            f"{tuple(error.shape)}, {tuple(radius.shape)} and {len(rows)} groups"
        )
    if error.isnan().any() or radius.isnan().any():
        raise ValueError("error or radius holds NaN")
    names = tuple(dict.fromkeys(rows))
    inside = (error <= radius).double()
    member = [torch.tensor([row == name for row in rows], device=error.device) for name in names]
    return GroupCoverage(
        names,
        torch.stack([inside[own].mean(dim=0) for own in member]),
        torch.stack([own.sum() for own in member]),
    )


def _require_pair(error: Tensor, uncertainty: Tensor) -> None:
    require_tensor("error", error)
    require_tensor("uncertainty", uncertainty)
    if error.shape != uncertainty.shape or not error.numel():
        raise ValueError(
            "expected error and uncertainty of one shape, at least one value, got "
            f"{tuple(error.shape)} and {tuple(uncertainty.shape)}"
        )
    if not (error.isfinite().all() and uncertainty.isfinite().all()):
        raise ValueError("error or uncertainty holds NaN or infinity")
    if error.min() < 0:
        raise ValueError("an error is negative")
