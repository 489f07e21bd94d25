"""Tables and pictures of the study's results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.density_study.judging import COUNTS
from benchmarks.density_study.variants import VARIANTS
from examples.pictures import comparison_picture

__all__ = ["Results", "draw", "table"]

Results = Mapping[str, Sequence[Mapping[str, float]]]
"""Figures of the runs of each row, by name."""

_ACCURACY = (
    ("mode, mm", "mode_mm", ".1f"),
    ("best of 10", "best_of_10_mm", ".1f"),
    ("of 25", "best_of_25_mm", ".1f"),
    ("25 centres", "best_of_25_centres_mm", ".1f"),
    ("of 50", "best_of_50_mm", ".1f"),
    ("of 200", "best_of_200_mm", ".1f"),
    ("energy", "energy_mm", ".0f"),
    ("train, s", "seconds", ".0f"),
    ("us a sample", "microseconds_per_sample", ".0f"),
)
_VIEWS = tuple(
    (f"{title}, {kind}", f"{key}_{kind}", spec)
    for kind in ("clear", "occluded")
    for title, key, spec in (
        ("NLL", "calibrated_nll", ".1f"),
        ("mode", "mode_mm", ".1f"),
        ("of 25", "best_of_25_mm", ".1f"),
        ("25 centres", "best_of_25_centres_mm", ".1f"),
        ("of 200", "best_of_200_mm", ".1f"),
        ("ECE", "ece", ".3f"),
    )
)
_DENSITY = (
    ("NLL", "nll", ".1f"),
    ("NLL, calibrated", "calibrated_nll", ".1f"),
    ("ECE", "ece", ".3f"),
    ("joints' ECE", "ece_joints", ".3f"),
    ("ECE, calibrated", "calibrated_ece", ".3f"),
    ("50 % cover", "joint_coverage_50_subject_", "persons"),
    ("90 % cover", "joint_coverage_90_subject_", "persons"),
    ("latents: 90 % cover", "latent_coverage_90_subject_", "persons"),
    ("mean z^2", "latent_mean_square", ".2f"),
    ("temperature", "temperature", ".2f"),
    ("nu", "degrees_of_freedom", ".0f"),
    ("entropy vs log error, r", "entropy_error_r", ".2f"),
    ("outside, root", "outside_root", ".0e"),
)


def table(results: Results) -> str:
    """Three Markdown tables: accuracy, density, and clear beside occluded views.

    Cells are means over the seeds, with the standard deviation for several.
    """
    titles = ("Accuracy", "Density", "Clear and occluded views")
    parts = [
        f"{title}\n\n{_one(results, columns)}"
        for title, columns in zip(titles, (_ACCURACY, _DENSITY, _VIEWS), strict=True)
    ]
    return "\n\n".join(parts)


def _one(results: Results, columns: Sequence[tuple[str, str, str]]) -> str:
    lines = [
        "| " + " | ".join(["row", "seeds", *(title for title, _, _ in columns)]) + " |",
        "|" + "---|" * (len(columns) + 2),
    ]
    for name in VARIANTS:
        runs = results.get(name, ())
        if runs:
            cells = [_cell(runs, key, spec) for _, key, spec in columns]
            lines.append("| " + " | ".join([name, str(len(runs)), *cells]) + " |")
    return "\n".join(lines)


def _cell(runs: Sequence[Mapping[str, float]], key: str, spec: str) -> str:
    if spec == "persons":
        keys = sorted(each for each in runs[0] if each.startswith(key))
        return " ".join(f"{np.mean([run[each] for run in runs]):.2f}" for each in keys) or "-"
    values = np.array([run[key] for run in runs if key in run])
    if not len(values):
        return "-"
    spread = f" ± {values.std(ddof=1):{spec}}" if len(values) > 1 else ""
    return f"{values.mean():{spec}}{spread}"


# As many curves as can be told apart.
_DRAWN = ("anchored", "linear", "gaussian", "student_t", "plain", "context_norm", "affine")


def draw(results: Results, target: str, out: Path) -> None:
    """Picture of the best of n samples, means over the seeds."""
    counts = COUNTS[1:]
    errors = {
        name: [float(np.mean([run[f"best_of_{n}_mm"] for run in results[name]])) for n in counts]
        for name in _DRAWN
        if results.get(name)
    }
    if errors:
        comparison_picture(
            out / f"best_of_n_{target}.png",
            counts,
            errors,
            title="Error of the best of n samples",
            note="Motion capture of people not seen in training, mean over the seeds.",
        )
