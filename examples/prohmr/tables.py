"""Results in the layout of the paper's tables, with published values, as Markdown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from examples.prohmr.published import published
from flowprior.files.report import Report
from flowprior.metrics import Tally
from flowprior.metrics.protocols import Protocol

__all__ = ["GROUPS", "Evaluation", "fitting_table", "regression_table", "views_table"]

GROUPS = ("clear", "occluded")


@dataclass(frozen=True)
class Evaluation:
    """Results of a model on one data set.

    Attributes:
        dataset: Its name.
        protocol: The evaluated joints.
        images: Number of evaluated images.
        tally: All results, by occlusion of limbs.
        report: Content and faults of the file.
    """

    dataset: str
    protocol: Protocol
    images: int
    tally: Tally
    report: Report

    def as_dict(self) -> dict[str, object]:
        """The results for JSON."""
        names = sorted({metric for metric, _ in self.tally.counts})
        return {
            "protocol": self.protocol.name,
            "images": self.images,
            "judged": {name: self.tally.count(name) for name in names},
            "all": {name: self.tally.mean(name) for name in names},
            **{
                group: {
                    name: means[group]
                    for name in names
                    if group in (means := self.tally.group_means(name))
                }
                for group in GROUPS
            },
        }


def regression_table(
    evaluations: Sequence[Evaluation], samples: int, quantised: Sequence[int]
) -> str:
    """The mode and the best of n samples: tables 1 and 2 of the paper.

    Args:
        evaluations: Results of each data set.
        samples: Number of samples.
        quantised: Numbers of clusters of k-means.
    """
    lines = [
        "| data set | answer | MPJPE, mm | published | PA-MPJPE, mm | published |",
        "|---|---|---|---|---|---|",
    ]
    for each in evaluations:
        rows = [("mode", "mode", 0)]
        rows += [(f"best of {n}, k-means", f"best_of_{n}_quantised", n) for n in quantised]
        rows += [(f"best of {samples}", f"best_of_{samples}", samples)]
        for shown, name, n in rows:
            cells = []
            for metric in ("mpjpe", "pa_mpjpe"):
                cells.append(_shown(each.tally.mean(f"{name}_{metric}_mm")))
                cells.append(_published(each.dataset, metric, n))
            lines.append(f"| {each.dataset} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fitting_table(evaluations: Sequence[Evaluation]) -> str:
    """Regression and fitting to 2D keypoints, PA-MPJPE: table 3 of the paper.

    Args:
        evaluations: Results of each data set; those without fits are left out.

    Returns:
        A row per answer and a column per data set; empty without fits.
    """
    sets = [each for each in evaluations if each.tally.count("fit_pa_mpjpe_mm")]
    if not sets:
        return ""
    lines = [
        f"| PA-MPJPE, mm | {' | '.join(each.dataset for each in sets)} |",
        "|---|" + "---|" * len(sets),
    ]
    for shown, name in (("regression", "mode"), ("+ fitting", "fit")):
        cells = [_shown(each.tally.mean(f"{name}_pa_mpjpe_mm")) for each in sets]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    for shown, answer in (
        ("published: regression", "regression"),
        ("published: + SMPLify", "smplify"),
        ("published: + fitting", "fitting"),
    ):
        cells = [_published(each.dataset, "pa_mpjpe", 0, answer, of="ProHMR") for each in sets]
        if any(cell != "-" for cell in cells):
            lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def views_table(evaluations: Sequence[Evaluation]) -> str:
    """Single views, averaged and refined: table 4 of the paper.

    Args:
        evaluations: Results of each data set; those without groups of views are left out.

    Returns:
        The table; empty without groups.
    """
    lines = []
    for each in evaluations:
        if not each.tally.count("together_mpjpe_mm"):
            continue
        for shown, name, answer in (
            ("every view alone", "mode", "regression"),
            ("mean on SO(3)", "averaged", ""),
            ("several views", "together", "views"),
        ):
            cells = []
            for metric in ("mpjpe", "pa_mpjpe"):
                cells.append(_shown(each.tally.mean(f"{name}_{metric}_mm")))
                cells.append(_published(each.dataset, metric, 0, answer))
            lines.append(f"| {each.dataset} | {shown} | {' | '.join(cells)} |")
    if not lines:
        return ""
    head = ["| data set | answer | MPJPE, mm | published | PA-MPJPE, mm | published |"]
    return "\n".join([*head, "|---|---|---|---|---|---|", *lines])


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _published(
    dataset: str, metric: str, samples: int, answer: str = "regression", of: str = ""
) -> str:
    found = [f for f in published(dataset.upper(), metric, samples, answer) if of in f.method]
    return ", ".join(f"{f.method} {f.value_mm:g} ({f.source})" for f in found) or "-"
