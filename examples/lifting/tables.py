"""Markdown tables of results: means and, with several seeds, standard deviations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["best_of_n_table", "comparison_table", "markdown", "sigma_table"]

Runs = Sequence[Mapping[str, Any]]
COLUMNS = (
    ("MPJPE", "mpjpe_mm", ".1f"),
    ("PA", "pa_mpjpe_mm", ".1f"),
    ("best of 1", "best_of_1_mpjpe_mm", ".1f"),
    ("of 10", "best_of_10_mpjpe_mm", ".1f"),
    ("of 25", "best_of_25_mpjpe_mm", ".1f"),
    ("of 200", "best_of_200_mpjpe_mm", ".1f"),
    ("of 4096", "best_of_4096_mpjpe_mm", ".1f"),
    ("25 samples of 4096", "quantised_25_mpjpe_mm", ".1f"),
    ("25 means of 4096", "means_25_mpjpe_mm", ".1f"),
    ("NLL", "nll_nats", ".1f"),
    ("ECE", "ece", ".3f"),
    ("sharpness", "sharpness_mm", ".0f"),
    ("energy", "energy_score_mm", ".0f"),
    ("bones", "bone_error_mm", ".1f"),
    ("left / right", "asymmetry_mm", ".1f"),
)
# Distributions around a point estimate, and results on fewer views.
SMALL = ("mode", "sigma")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text cells."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def comparison_table(judged: Mapping[str, Runs]) -> str:
    """One line per method, one column per metric.

    Args:
        judged: Results of each seed, by the name of the method.

    Returns:
        A Markdown table in millimetres, except NLL (nats) and ECE.
    """
    rows = [
        [name, *(cell(runs, key, spec) for _, key, spec in COLUMNS)]
        for name, runs in judged.items()
        if not name.startswith(SMALL)
    ]
    return markdown(["method", *(title for title, _, _ in COLUMNS)], rows)


def best_of_n_table(judged: Mapping[str, Runs], counts: Sequence[int], metric: str) -> str:
    """The best of n samples: one line per n, one column per method.

    Args:
        judged: Results of each seed, by the name of the method.
        counts: Numbers n.
        metric: ``"mpjpe_mm"`` or ``"pa_mpjpe_mm"``.

    Returns:
        A Markdown table in millimetres.
    """
    rows = [
        [str(n), *(cell(runs, f"best_of_{n}_{metric}", ".1f") for runs in judged.values())]
        for n in counts
    ]
    return markdown(["n", *judged], rows)


def sigma_table(judged: Mapping[str, Runs]) -> str:
    """Compare samples of the flow with as many of N(mode, sigma^2 I)."""
    chosen = {name: runs for name, runs in judged.items() if name.startswith(SMALL)}
    columns = ("best_of_1", "best_of_10", "best_of_200", "best_of_4096")
    rows = [
        [
            "the flow" if name == "mode" else f"N(mode, {name.removeprefix('sigma ')})",
            *(cell(runs, f"{column}_mpjpe_mm", ".1f") for column in columns),
            cell(runs, "best_of_4096_pa_mpjpe_mm", ".1f"),
            cell(runs, "asymmetry_mm", ".1f"),
        ]
        for name, runs in chosen.items()
    ]
    titles = [f"best of {column.removeprefix('best_of_')}" for column in columns]
    return markdown(["samples of", *titles, "PA, best of 4096", "left / right"], rows)


def cell(runs: Runs, key: str, spec: str) -> str:
    """Mean and standard deviation over the seeds; a dash for a missing value."""
    values = [float(run[key]) for run in runs if key in run]
    if not values:
        return "-"
    mean = f"{np.mean(values):{spec}}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):{spec}}"
