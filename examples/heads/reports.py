"""Calibration of a head on held-out people: coverage per joint, NLL, ECE, by subject."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from examples.heads.features import Features
from examples.pictures.saving import save_figure
from examples.pictures.style import DASHES, INK, MODE, REGRESSOR, SAMPLES, STYLE
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.metrics.calibration import calibration_error
from flowprior.prior.heads import context_with_answer
from flowprior.prior.posterior import PosePosterior
from flowprior.prior.spaces import RotationSpace
from flowprior.skeleton import SMPL_24

__all__ = ["Judged", "calibrate", "judge", "posterior_of", "report", "save_picture", "tables"]

LEVELS = torch.linspace(0, 1, 21, dtype=torch.float64)
OCCLUDED = 3  # of twelve limb joints
BLOCK = 64


@dataclass(frozen=True, eq=False)
class Judged:
    """Errors of the mode and radii of the posterior for N held-out people.

    Attributes:
        joints: Names of the K joints whose positions are judged.
        rotated: Names of the J joints whose rotations are judged; empty for points.
        error_mm: (N, K) distances of the mode to the truth, relative to the pelvis, on a body of
            average shape.
        radius_mm: By level, (N, K).
        std_mm: (N, K).
        below: (N, K) share of the samples that are nearer to the mode than the truth.
        error_degrees: (N, J).
        radius_degrees: By level, (N, J).
        nll: (N,) in nats.
        entropy: (N,) in nats.
    """

    joints: tuple[str, ...]
    rotated: tuple[str, ...]
    error_mm: Tensor
    radius_mm: Mapping[int, Tensor]
    std_mm: Tensor
    below: Tensor
    error_degrees: Tensor
    radius_degrees: Mapping[int, Tensor]
    nll: Tensor
    entropy: Tensor

    def take(self, rows: Tensor) -> "Judged":
        """Select people."""
        changes: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        for name in ("radius_mm", "radius_degrees"):
            changes[name] = {level: each[rows] for level, each in getattr(self, name).items()}
        return replace(self, **changes)

    def coverage_mm(self, level: int) -> Tensor:
        """(K,) share of people whose joint lies within the radius of a level, 50 or 90."""
        return (self.error_mm <= self.radius_mm[level]).double().mean(dim=0)

    def coverage_degrees(self, level: int) -> Tensor:
        """(J,) share of people whose rotation lies within the radius of a level."""
        return (self.error_degrees <= self.radius_degrees[level]).double().mean(dim=0)

    @property
    def curve(self) -> Tensor:
        """(K, L) coverage of the positions at the levels 0, 0.05, ..., 1."""
        return (self.below[..., None] < LEVELS).double().mean(dim=0)


def posterior_of(prior: ConditionalPosePrior, features: Features, answer: str) -> PosePosterior:
    """The posterior of some people, around the regressor's answer or the prior's own."""
    device = prior.flow.device
    context = context_with_answer(features.features, features.answer).to(device)
    return prior(context, centre=features.answer.to(device) if answer == "regressor" else None)


def calibrate(
    prior: ConditionalPosePrior, held: Features, answer: str, body: BodyModel
) -> dict[str, float]:
    """Calibrate a prior on people it was not trained on, by subject where subjects are known.

    Args:
        prior: The prior, which changes.
        held: The people.
        answer: ``"regressor"`` or ``"own"``.
        body: The body, on the prior's device.

    Returns:
        Temperature, degrees of freedom and number of subjects.
    """
    device = prior.flow.device
    context = context_with_answer(held.features, held.answer).to(device)
    centre = held.answer.to(device) if answer == "regressor" else None
    options: dict[str, Any] = {"centre": centre}
    known = inspect.signature(prior.calibrate).parameters
    people = len(held.subject.unique()) if bool((held.subject >= 0).all()) else 0
    if "groups" in known and people > 1 and isinstance(prior.space, RotationSpace):
        options |= {"groups": held.subject.to(device), "body": body}
    temperature = prior.calibrate(held.truth.to(device), context, **options)
    facts = {"temperature": float(temperature), "subjects": float(people)}
    if (nu := getattr(prior.flow.base, "degrees_of_freedom", None)) is not None:
        facts["degrees_of_freedom"] = float(nu)
    return facts


@torch.no_grad()
def judge(
    prior: ConditionalPosePrior,
    features: Features,
    body: BodyModel,
    *,
    answer: str = "regressor",
    num_samples: int = 200,
    seed: int = 0,
) -> Judged:
    """Judge a prior on people with ground truth.

    Args:
        prior: The prior, in evaluation mode.
        features: The people.
        body: The body, on the same device, for the positions of joints.
        answer: ``"regressor"`` or ``"own"``.
        num_samples: Samples per person.
        seed: Seed of the samples.
    """
    device = prior.flow.device
    generator = torch.Generator(device).manual_seed(seed)
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(features), BLOCK):
        some = features.take(torch.arange(start, min(start + BLOCK, len(features))))
        posterior, truth = posterior_of(prior, some, answer), some.truth.to(device)
        values = {"nll": -posterior.log_prob(truth), "entropy": posterior.entropy()}
        values["entropy"] = values["entropy"].expand_as(values["nll"])
        if isinstance(prior.space, RotationSpace):
            values |= _of_rotations(posterior, prior.space, truth, body, num_samples, generator)
        else:
            values |= _of_points(posterior, truth, num_samples, generator)
        parts.append({name: value.cpu() for name, value in values.items()})
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return _judged(prior, whole)


def _of_rotations(
    posterior: PosePosterior,
    space: RotationSpace,
    truth: Tensor,
    body: BodyModel,
    num_samples: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    found = posterior.joint_uncertainty(body, num_samples=num_samples, generator=generator)
    mode = space.to_matrix(posterior.mode())
    places = [1000 * body.keypoints(each, SMPL_24) for each in (mode, truth)]
    error = (places[0] - places[1]).norm(dim=-1)
    return {
        "error_mm": error,
        "radius_50_mm": found.radius_50_mm,
        "radius_90_mm": found.radius_90_mm,
        "std_mm": found.std_mm,
        "below": (found.distances_mm < error[:, None]).double().mean(dim=1),
        "error_degrees": torch.rad2deg(rotations.geodesic_distance(mode, truth)),
        "radius_50_degrees": found.radius_50_degrees,
        "radius_90_degrees": found.radius_90_degrees,
    }


def _of_points(
    posterior: PosePosterior, truth: Tensor, num_samples: int, generator: torch.Generator
) -> dict[str, Tensor]:
    mode = posterior.mode()
    samples = posterior.sample(num_samples, generator=generator)
    distances = 1000 * (samples - mode[:, None]).norm(dim=-1)
    error = 1000 * (mode - truth).norm(dim=-1)
    return {
        "error_mm": error,
        "radius_50_mm": distances.quantile(0.5, dim=1),
        "radius_90_mm": distances.quantile(0.9, dim=1),
        "std_mm": 1000 * samples.var(dim=1, correction=0).sum(dim=-1).sqrt(),
        "below": (distances < error[:, None]).double().mean(dim=1),
    }


def _judged(prior: ConditionalPosePrior, values: Mapping[str, Tensor]) -> Judged:
    """Leave out what does not move: the pelvis's position, and joints held at rest."""
    moving = (values["std_mm"] > 1e-3).any(dim=0).nonzero()[:, 0]
    rotates = isinstance(prior.space, RotationSpace)
    free = torch.tensor([j for j in range(prior.space.joints) if j not in prior.rest_joints])
    names = SMPL_24.joint_names if rotates else tuple(map(str, range(prior.space.joints)))
    nothing = values["nll"].new_zeros(len(values["nll"]), 0)
    return Judged(
        joints=tuple(names[int(j)] for j in moving),
        rotated=tuple(names[int(j)] for j in free) if rotates else (),
        error_mm=values["error_mm"][:, moving],
        radius_mm={level: values[f"radius_{level}_mm"][:, moving] for level in (50, 90)},
        std_mm=values["std_mm"][:, moving],
        below=values["below"][:, moving],
        error_degrees=values["error_degrees"][:, free] if rotates else nothing,
        radius_degrees={
            level: values[f"radius_{level}_degrees"][:, free] if rotates else nothing
            for level in (50, 90)
        },
        nll=values["nll"],
        entropy=values["entropy"],
    )


def report(judged: Judged, features: Features) -> dict[str, Any]:
    """All figures, as JSON types: overall, by joint, by subject, by visibility."""
    found: dict[str, Any] = {"overall": _summary(judged), "joints": {}, "rotations": {}}
    for number, name in enumerate(judged.joints):
        found["joints"][name] = {
            "error_mm": float(judged.error_mm[:, number].mean()),
            "radius_90_mm": float(judged.radius_mm[90][:, number].mean()),
            **{f"inside_{q}": float(judged.coverage_mm(q)[number]) for q in (50, 90)},
        }
    for number, name in enumerate(judged.rotated):
        found["rotations"][name] = {
            "error_degrees": float(judged.error_degrees[:, number].mean()),
            "radius_90_degrees": float(judged.radius_degrees[90][:, number].mean()),
            **{f"inside_{q}": float(judged.coverage_degrees(q)[number]) for q in (50, 90)},
        }
    groups = {
        f"subject {features.subject_name(int(number))}": features.subject == number
        for number in features.subject.unique()
        if number >= 0
    }
    if bool((features.hidden >= 0).all()):
        groups["clear"] = features.hidden < OCCLUDED
        groups["occluded"] = features.hidden >= OCCLUDED
    found["groups"] = {
        name: _summary(judged.take(rows)) for name, rows in groups.items() if bool(rows.any())
    }
    return found


def _summary(judged: Judged) -> dict[str, float]:
    error, spread = judged.error_mm.mean(dim=1), judged.std_mm.mean(dim=1)
    surest = spread.argsort()[: max(1, len(spread) // 2)]
    values = {
        "people": float(len(error)),
        "nll_nats": float(judged.nll.mean()),
        "mode_mm": float(error.mean()),
        "surest_half_mm": float(error[surest].mean()),
        "rank_correlation": _rank_correlation(spread, error),
        "ece": float(calibration_error(judged.curve.quantile(0.5, dim=0), LEVELS)),
        "worst_joint_ece": float(calibration_error(judged.curve, LEVELS).max()),
    }
    for level in (50, 90):
        inside = {"mm": judged.coverage_mm(level), "degrees": judged.coverage_degrees(level)}
        for unit, share in inside.items():
            if len(share):
                values[f"inside_{level}_{unit}"] = float(share.mean())
                values[f"least_inside_{level}_{unit}"] = float(share.min())
                values[f"most_inside_{level}_{unit}"] = float(share.max())
    return values


def _rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's correlation; NaN for fewer than two people."""
    if len(first) < 2:
        return float("nan")
    ranks = torch.stack([value.argsort().argsort().double() for value in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def tables(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    groups = {"all": found["overall"], **found["groups"]}
    lines = [
        "| people | | NLL | mode, mm | surest half, mm | ECE | within 50 % radius, mm / ° | "
        "within 90 % radius, mm / ° |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in groups.items():
        inside = [_shares(each, level) for level in (50, 90)]
        lines.append(
            f"| {name} | {each['people']:.0f} | {each['nll_nats']:.1f} | {each['mode_mm']:.1f} | "
            f"{each['surest_half_mm']:.1f} | {each['ece']:.3f} | {' | '.join(inside)} |"
        )
    lines += [
        "",
        "| joint | error, mm | 90 % radius, mm | inside | error, ° | 90 % radius, ° | inside |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys([*found["joints"], *found["rotations"]]):
        place, turn = found["joints"].get(name), found["rotations"].get(name)
        cells = _cells(place, "mm") + _cells(turn, "degrees")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shares(each: Mapping[str, float], level: int) -> str:
    shown = [each.get(f"inside_{level}_{unit}") for unit in ("mm", "degrees")]
    return " / ".join("-" if share is None else f"{100 * share:.0f} %" for share in shown)


def _cells(values: Mapping[str, float] | None, unit: str) -> list[str]:
    if values is None:
        return ["-", "-", "-"]
    numbers = [f"{values[key]:.1f}" for key in (f"error_{unit}", f"radius_90_{unit}")]
    return [*numbers, f"{100 * values['inside_90']:.0f} %"]


def save_picture(path: Path, before: Judged, after: Judged) -> None:
    """Draw coverage over levels, before and after calibration, and the coverage of each joint."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), dpi=110)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
        left.plot([0, 100], [0, 100], color=INK, linestyle=DASHES, linewidth=1)
        for judged, colour, name in (
            (before, REGRESSOR, "as trained"),
            (after, MODE, "calibrated"),
        ):
            curve = 100 * judged.curve.numpy()
            left.plot(100 * LEVELS, np.median(curve, axis=0), color=colour, label=name)
            left.fill_between(
                100 * LEVELS, curve.min(axis=0), curve.max(axis=0), color=colour, alpha=0.12
            )
        left.set_xlabel("probability of the region, %")
        left.set_ylabel("joints inside, %")
        left.set_title("positions: median joint, and all joints")
        left.legend(frameon=False)
        _draw_joints(right, after)
        figure.tight_layout()
        save_figure(path, figure)


def _draw_joints(axes: Any, judged: Judged) -> None:  # noqa: ANN401, matplotlib has no types
    names: Sequence[str] = list(dict.fromkeys([*judged.rotated, *judged.joints]))
    rows: NDArray[np.int64] = np.arange(len(names))
    axes.axhline(90, color=INK, linestyle=DASHES, linewidth=1)
    for joints, share, colour, label in (
        (judged.joints, judged.coverage_mm(90), SAMPLES[0], "positions"),
        (judged.rotated, judged.coverage_degrees(90), SAMPLES[1], "rotations"),
    ):
        if joints:
            at = [names.index(name) for name in joints]
            axes.plot(at, 100 * share.numpy(), "o", color=colour, markersize=5, label=label)
    axes.set_xticks(rows, [name.replace("_", " ") for name in names], rotation=90, fontsize=8)
    axes.set_ylim(min(60, axes.get_ylim()[0]), 101)
    axes.set_ylabel("inside the 90 % region, %")
    axes.set_title("after calibration")
    axes.legend(frameon=False, loc="lower right")
