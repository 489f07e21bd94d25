"""Tables of the contest's results, printed and written into a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.priors.methods import METHODS
from flowprior.files.whole_file import whole_file

__all__ = ["DATA", "TITLES", "Results", "fill_page", "read_results", "tables"]

Results = Mapping[str, Sequence[Mapping[str, float]]]
"""Figures of the runs of each row, by name."""

DATA = "data"
"""Name of the row of training poses."""

TITLES = {
    DATA: "training poses",
    "vae": "VAE",
    "mixture": "Gaussian mixture",
    "diffusion": "diffusion",
    "matching": "Riemannian flow matching",
    "flow": "unconditional flow",
    "ours": "flowprior",
    "shipped": "`flowprior/body-pose`, trained longer",
}

Column = tuple[str, tuple[str, ...], str]
_PAIRS = (
    ("left leg", "left_leg"),
    ("both legs", "legs"),
    ("both arms", "arms"),
    ("trunk", "trunk"),
)
_TABLES: dict[str, tuple[Column, ...]] = {
    "generation": (
        ("APD, mm", ("apd_mm",), ".0f"),
        ("Fréchet", ("frechet",), ".2f"),
        ("precision", ("precision",), ".2f"),
        ("recall", ("recall",), ".2f"),
        ("Fréchet, training", ("frechet_train",), ".2f"),
        ("precision, training", ("precision_train",), ".2f"),
        ("recall, training", ("recall_train",), ".2f"),
        ("nearest, mm", ("nearest_mm",), ".1f"),
        ("NLL", ("nll",), ".1f"),
    ),
    "completion": tuple(
        (title, (f"{key}_min_mm", f"{key}_mean_mm"), ".1f") for title, key in _PAIRS
    )
    + tuple((f"spread, {title}", (f"{key}_spread",), ".2f") for title, key in _PAIRS),
    "measurements": (
        ("IK, all joints", ("ik_all_mm",), ".1f"),
        ("five points", ("ik_five_mm",), ".1f"),
        ("at the points", ("ik_five_points_mm",), ".1f"),
        ("noisy joints", ("ik_noisy_mm",), ".1f"),
        ("2D", ("ik_2d_mm",), ".1f"),
        ("30 % missing: all, missing", ("missing_mm", "missing_unseen_mm"), ".1f"),
        ("denoised", ("denoised_mm",), ".1f"),
    ),
    "cost": (
        ("parameters, 1000", ("parameters",), "thousands"),
        ("training steps", ("steps",), ".0f"),
        ("generation", ("draw_ms",), ".2f"),
        ("completion", ("left_leg_ms",), ".1f"),
        ("one pose alone", ("single_ms",), ".0f"),
        ("IK, all joints", ("ik_all_ms",), ".1f"),
        ("five points", ("ik_five_ms",), ".1f"),
        ("denoising", ("denoised_ms",), ".1f"),
    ),
}


def read_results(folder: Path, split: str) -> dict[str, list[dict[str, float]]]:
    """Read the results in a folder, by row."""
    results: dict[str, list[dict[str, float]]] = {}
    for file in sorted(folder.glob(f"{split}-*-*.json")):
        results.setdefault(file.stem.split("-")[1], []).append(
            json.loads(file.read_text(encoding="utf-8"))
        )
    return results


def tables(results: Results) -> dict[str, str]:
    """Markdown tables by name; cells are means over the seeds, with the deviation for several."""
    return {name: _table(results, columns) for name, columns in _TABLES.items()}


def _table(results: Results, columns: Sequence[Column]) -> str:
    lines = [
        "| " + " | ".join(["", "seeds", *(title for title, _, _ in columns)]) + " |",
        "|" + "---|" * (len(columns) + 2),
    ]
    for name in (DATA, *METHODS):
        runs = results.get(name, ())
        keys = [key for _, group, _ in columns for key in group]
        if not any(key in run for run in runs for key in keys):
            continue
        cells = [" / ".join(_cell(runs, key, spec) for key in group) for _, group, spec in columns]
        count = "" if name == DATA else str(len(runs))
        lines.append("| " + " | ".join([TITLES[name], count, *cells]) + " |")
    return "\n".join(lines)


def _cell(runs: Sequence[Mapping[str, float]], key: str, spec: str) -> str:
    values = np.array([run[key] for run in runs if key in run])
    if not len(values):
        return "-"
    if spec == "thousands":
        return f"{values.mean() / 1000:.0f}"
    spread = f" ± {values.std(ddof=1):{spec}}" if len(values) > 1 else ""
    return f"{values.mean():{spec}}{spread}"


def fill_page(page: Path, results: Results) -> None:
    """Replace the tables between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` of a page.

    Raises:
        ValueError: If the page lacks one of the places.
    """
    text = page.read_text(encoding="utf-8")
    for name, table in tables(results).items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{page} has no place for the table {name!r}")
        text = f"{before}{begin}\n{table}\n\n{end}{after}"
    with whole_file(page) as partial:
        partial.write_text(text, encoding="utf-8")
