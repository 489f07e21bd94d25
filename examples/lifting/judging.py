"""Evaluation of lifters on held-out subjects; memory does not grow with the samples.

Errors are MPJPE and PA-MPJPE over 17 joints, the pelvis with its zero error among them, in
millimetres. The best of n selects a sample with the ground truth, so it is an oracle that measures
the coverage of the samples, not the accuracy of an application.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from examples.data.virtual_views import Views
from examples.lifting.methods import Lifter
from examples.lifting.views import evenly_spaced
from flowprior.metrics import (
    energy_score,
    expected_calibration_error,
    mpjpe,
    pa_mpjpe,
    quantise,
    sample_spread,
)
from flowprior.skeleton import H36M_17

__all__ = [
    "COUNTS",
    "Judgement",
    "Plan",
    "asymmetry_mm",
    "bone_error_mm",
    "bone_lengths",
    "error_mm",
    "judge",
    "pa_error_mm",
    "with_pelvis",
]

COUNTS = (1, 2, 5, 10, 25, 50, 100, 200, 500, 1000, 2000, 4096)
# Published calibration errors use 200 samples.
CALIBRATION_SAMPLES = 200
POSES_PER_BLOCK = 20_000
SIDES = tuple(
    (child, H36M_17.flip[child])
    for _, child in H36M_17.bones
    if H36M_17.joint_names[child].startswith("left")
)


@dataclass(frozen=True)
class Plan:
    """An evaluation plan.

    Args:
        counts: Numbers n of the best of n, in rising order.
        quantised: Numbers of clusters to which k-means reduces the samples.
        quantised_from: Number of samples before k-means; 4096 in the publication.
        quantised_views: Number of views for k-means, evenly spaced.
        seed: Seed of the samples.
    """

    counts: tuple[int, ...] = COUNTS
    quantised: tuple[int, ...] = (5, 10, 25)
    quantised_from: int = 4096
    quantised_views: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.counts or sorted(set(self.counts)) != list(self.counts) or self.counts[0] < 1:
            raise ValueError(f"counts must rise from 1 or more, got {self.counts}")
        if self.quantised and max(self.quantised) > self.quantised_from:
            raise ValueError(
                f"{self.quantised_from} samples cannot be reduced to {max(self.quantised)}"
            )


@dataclass(frozen=True)
class Judgement:
    """Results on V views.

    Args:
        point_mm: (V,) MPJPE of the point estimate.
        point_pa_mm: (V,) its PA-MPJPE.
        counts: Numbers n (N,).
        best_mm: (V, N) MPJPE of the best of the first n samples.
        best_pa_mm: (V, N) PA-MPJPE of the best by PA-MPJPE.
        quantised_mm: By number n, (Q,) MPJPE of the best of n samples nearest to the k-means
            centroids, and the PA-MPJPE.
        means_mm: The same for the n centroids: shorter bones, but less error, as a network with n
            heads learns them.
        hypotheses: Number of poses of the lifter, if finite.
        hypotheses_mm: (V,) MPJPE of the best of these, and its PA-MPJPE.
        nll: (V,) nats, density per metre to the 48; None without a density.
        ece: Expected calibration error of 200 samples; 0.5 without spread.
        ece_worst_joint: Expected calibration error of the worst joint.
        coverage: (L,) median coverage over the joints at the levels 0, 0.05, ..., 1.
        sharpness_mm: Mean distance of a joint's samples to their mean.
        energy_mm: Energy score.
        bone_mm: Mean error of the bone lengths of samples.
        asymmetry_mm: Mean difference of left and right bone lengths in samples.
    """

    point_mm: Tensor
    point_pa_mm: Tensor
    counts: tuple[int, ...]
    best_mm: Tensor
    best_pa_mm: Tensor
    quantised_mm: dict[int, tuple[Tensor, Tensor]]
    means_mm: dict[int, tuple[Tensor, Tensor]]
    hypotheses: int | None
    hypotheses_mm: tuple[Tensor, Tensor] | None
    nll: Tensor | None
    ece: float
    ece_worst_joint: float
    coverage: Tensor
    sharpness_mm: float
    energy_mm: float
    bone_mm: float
    asymmetry_mm: float

    def figures(self) -> dict[str, float]:
        """Means over the views, by their names in results files."""
        figures = {
            "mpjpe_mm": self.point_mm.mean(),
            "pa_mpjpe_mm": self.point_pa_mm.mean(),
            **{
                f"best_of_{n}_mpjpe_mm": value
                for n, value in zip(self.counts, self.best_mm.mean(dim=0), strict=True)
            },
            **{
                f"best_of_{n}_pa_mpjpe_mm": value
                for n, value in zip(self.counts, self.best_pa_mm.mean(dim=0), strict=True)
            },
            "ece": self.ece,
            "ece_worst_joint": self.ece_worst_joint,
            "sharpness_mm": self.sharpness_mm,
            "energy_score_mm": self.energy_mm,
            "bone_error_mm": self.bone_mm,
            "asymmetry_mm": self.asymmetry_mm,
        }
        for kind, errors in (("quantised", self.quantised_mm), ("means", self.means_mm)):
            for n, (error, aligned) in errors.items():
                figures[f"{kind}_{n}_mpjpe_mm"] = error.mean()
                figures[f"{kind}_{n}_pa_mpjpe_mm"] = aligned.mean()
        if self.hypotheses_mm is not None and self.hypotheses is not None:
            figures["hypotheses"] = self.hypotheses
            figures["best_hypothesis_mpjpe_mm"] = self.hypotheses_mm[0].mean()
            figures["best_hypothesis_pa_mpjpe_mm"] = self.hypotheses_mm[1].mean()
        if self.nll is not None:
            figures["nll_nats"] = self.nll.mean()
        return {name: float(value) for name, value in figures.items()}


def with_pelvis(theta: Tensor) -> Tensor:
    """Add the pelvis at the origin to joints (..., 16, 3); returns (..., 17, 3)."""
    return torch.cat([torch.zeros_like(theta[..., :1, :]), theta], dim=-2)


def error_mm(theta: Tensor, truth: Tensor) -> Tensor:
    """MPJPE over 17 joints, the pelvis with its zero error among them, in millimetres."""
    return 1000 * mpjpe(with_pelvis(theta), with_pelvis(truth))


def pa_error_mm(theta: Tensor, truth: Tensor) -> Tensor:
    """PA-MPJPE over 17 joints, in millimetres."""
    return 1000 * pa_mpjpe(with_pelvis(theta), with_pelvis(truth))


def bone_lengths(theta: Tensor) -> Tensor:
    """Poses (..., 16, 3) -> lengths (..., 16) of the bones of H36M-17, in metres."""
    joints = with_pelvis(theta)
    parents, children = (list(end) for end in zip(*H36M_17.bones, strict=True))
    return (joints[..., children, :] - joints[..., parents, :]).norm(dim=-1)


def bone_error_mm(theta: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the bones' lengths, (...) in millimetres."""
    return 1000 * (bone_lengths(theta) - bone_lengths(truth)).abs().mean(dim=-1)


def asymmetry_mm(theta: Tensor) -> Tensor:
    """Mean difference between the left and the right bones of a pose, (...) in millimetres.

    It needs no truth: a pose with one short and one long arm is nobody's.
    """
    lengths = bone_lengths(theta)
    order = [child for _, child in H36M_17.bones]
    left, right = ([order.index(pair[side]) for pair in SIDES] for side in (0, 1))
    return 1000 * (lengths[..., left] - lengths[..., right]).abs().mean(dim=-1)


def judge(
    lifter: Lifter,
    views: Views,
    plan: Plan | None = None,
    progress: str | None = None,
) -> Judgement:
    """Measure a lifter.

    Args:
        lifter: The lifter, in evaluation mode.
        views: Views of people it was not trained on, on its device.
        plan: What to measure; everything that is published if None.
        progress: What the progress bar calls it; no bar if None.

    Returns:
        The figures, on the CPU.
    """
    plan = plan or Plan()
    generator = torch.Generator(views.joints.device).manual_seed(plan.seed)
    most = plan.counts[-1]
    rows = max(1, POSES_PER_BLOCK // min(most, POSES_PER_BLOCK))
    parts: list[_Part] = []
    reduced = torch.zeros(len(views), dtype=torch.bool)
    reduced[evenly_spaced(len(views), plan.quantised_views)] = bool(plan.quantised)
    starts = range(0, len(views), rows)
    for start in tqdm(starts, desc=progress, unit="chunk", ncols=88, disable=progress is None):
        chunk = slice(start, start + rows)
        parts.append(_judge_some(lifter, views[chunk], reduced[chunk], plan, generator))
    truth = views.relative.cpu()
    few = torch.cat([part.few for part in parts])
    calibration = expected_calibration_error(few, truth)
    hypotheses = [part.hypotheses for part in parts if part.hypotheses is not None]
    nll = [part.nll for part in parts if part.nll is not None]
    return Judgement(
        point_mm=torch.cat([part.point[0] for part in parts]),
        point_pa_mm=torch.cat([part.point[1] for part in parts]),
        counts=plan.counts,
        best_mm=torch.cat([part.best[0] for part in parts]),
        best_pa_mm=torch.cat([part.best[1] for part in parts]),
        quantised_mm=_joined([part.quantised for part in parts], plan.quantised),
        means_mm=_joined([part.means for part in parts], plan.quantised),
        hypotheses=parts[0].number,
        hypotheses_mm=_columns(hypotheses) if hypotheses else None,
        nll=torch.cat(nll) if nll else None,
        ece=calibration.ece,
        ece_worst_joint=float(calibration.joint_errors.max()),
        coverage=calibration.median_coverage,
        sharpness_mm=float(1000 * sample_spread(few).mean()),
        energy_mm=float(1000 * energy_score(few, truth).mean()),
        bone_mm=float(bone_error_mm(few, truth[:, None]).mean()),
        asymmetry_mm=float(asymmetry_mm(few).mean()),
    )


@dataclass(frozen=True)
class _Part:
    """Some of the views' figures; errors are MPJPE and PA-MPJPE."""

    point: tuple[Tensor, Tensor]
    best: tuple[Tensor, Tensor]
    quantised: dict[int, tuple[Tensor, Tensor]]
    means: dict[int, tuple[Tensor, Tensor]]
    number: int | None
    hypotheses: tuple[Tensor, Tensor] | None
    nll: Tensor | None
    few: Tensor


def _judge_some(
    lifter: Lifter, views: Views, reduced: Tensor, plan: Plan, generator: torch.Generator
) -> _Part:
    theta = views.relative
    # A mode found by ascent needs gradients.
    point = lifter.point(views).detach()
    with torch.inference_mode():
        log_prob = lifter.log_prob(views, theta)
        all_of_them = lifter.hypotheses(views)
        if all_of_them is None:
            best, few = _best_samples(lifter, views, plan.counts, generator)
        else:
            best = _best_first(all_of_them, theta, plan.counts)
            few = lifter.sample(views, CALIBRATION_SAMPLES, generator)
        quantised, means = {}, {}
        if reduced.any():
            some = views[reduced.to(theta.device)]
            drawn = lifter.hypotheses(some)
            if drawn is None:
                drawn = lifter.sample(some, plan.quantised_from, generator)
            for n in plan.quantised:
                kept, centres = _reduce(drawn, n)
                quantised[n] = _least(kept, some.relative)
                means[n] = _least(centres, some.relative)
        return _Part(
            point=_both_cpu(point, theta),
            best=best,
            quantised=quantised,
            means=means,
            number=None if all_of_them is None else all_of_them.shape[1],
            hypotheses=None if all_of_them is None else _least(all_of_them, theta),
            nll=None if log_prob is None else -log_prob.cpu(),
            few=few.cpu(),
        )


def _reduce(drawn: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Samples (B, N, 16, 3) -> the n nearest to the means of their clusters, and these means."""
    if n >= drawn.shape[1]:
        return drawn, drawn
    with warnings.catch_warnings():
        # Draws from finitely many poses may contain fewer than n distinct ones.
        warnings.filterwarnings("ignore", message=".*distinct clusters.*")
        means = quantise(drawn, n)
    nearest = torch.cdist(means.flatten(2), drawn.flatten(2)).argmin(dim=-1)
    rows = torch.arange(len(drawn), device=drawn.device)[:, None]
    return drawn[rows, nearest], means


def _best_samples(
    lifter: Lifter, views: Views, counts: Sequence[int], generator: torch.Generator
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Least errors (B, N) of the first n samples, and 200 samples to calibrate with."""
    theta = views.relative
    block = max(1, POSES_PER_BLOCK // len(views))
    running = theta.new_full((2, len(views), 1), math.inf)
    columns: list[Tensor] = []
    few: list[Tensor] = []
    done = 0
    total = max(counts[-1], CALIBRATION_SAMPLES)
    while done < total:
        # A block ends at the number for calibration, so that no further samples are kept.
        left = CALIBRATION_SAMPLES - done
        samples = lifter.sample(views, min(block, left if left > 0 else total - done), generator)
        errors = torch.stack(
            [error_mm(samples, theta[:, None]), pa_error_mm(samples, theta[:, None])]
        )
        best = torch.minimum(running, errors.cummin(dim=-1).values)
        number = samples.shape[1]
        columns += [best[..., n - done - 1] for n in counts if done < n <= done + number]
        running = best[..., -1:]
        if left > 0:
            few.append(samples)
        done += number
    both = torch.stack(columns, dim=-1).cpu()
    return (both[0], both[1]), torch.cat(few, dim=1)


def _best_first(poses: Tensor, theta: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Least errors (B, N) of the first n of finitely many poses (B, M, 16, 3)."""
    chosen = [min(n, poses.shape[1]) - 1 for n in counts]
    error, aligned = (
        each(poses, theta[:, None]).cummin(dim=1).values[:, chosen].cpu()
        for each in (error_mm, pa_error_mm)
    )
    return error, aligned


def _least(poses: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (B,) of the nearest of some poses (B, n, 16, 3)."""
    error, aligned = (
        each(poses, theta[:, None]).amin(dim=1).cpu() for each in (error_mm, pa_error_mm)
    )
    return error, aligned


def _both_cpu(theta: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    return error_mm(theta, truth).cpu(), pa_error_mm(theta, truth).cpu()


def _joined(
    parts: Sequence[dict[int, tuple[Tensor, Tensor]]], numbers: Sequence[int]
) -> dict[int, tuple[Tensor, Tensor]]:
    return {n: _columns([part[n] for part in parts if n in part]) for n in numbers}


def _columns(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    first, second = (torch.cat(column) for column in zip(*pairs, strict=True))
    return first, second
