"""Figures of the lifting programs: people with samples, and error curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray
from torch import Tensor

from examples.data.virtual_views import Views
from examples.lifting.judging import with_pelvis
from examples.lifting.methods import Lifter
from examples.pictures import (
    MODE,
    REGRESSOR,
    SAMPLES,
    TRUTH,
    draw_body,
    draw_keypoints,
    draw_samples,
    turn,
)
from examples.pictures.saving import save_figure
from examples.pictures.skeletons import flatten, stage
from examples.pictures.style import DASHES, INK, STYLE
from examples.pinhole import flip_yz

__all__ = ["figure_4", "upright", "why_a_flow"]

Runs = Sequence[Mapping[str, Any]]
LOOKS: dict[str, tuple[str, Any]] = {
    "flow": (SAMPLES[0], "-"),
    "gaussian": (REGRESSOR, "-"),
    "mixture": ("#c2613a", "-"),
    "factorised": (SAMPLES[1], "-"),
    "multi-head": (INK, "-"),
    "training poses": (TRUTH, DASHES),
}
NAMES = {
    "flow": "flow",
    "gaussian": "Gaussian around\nthe regressor",
    "mixture": "mixture of\nGaussians",
    "factorised": "joint by joint",
    "multi-head": "25 heads",
    "training poses": "training poses",
}


def upright(theta: Tensor) -> NDArray[np.float32]:
    """Convert theta (..., 16, 3) in the camera frame to joints (..., 17, 3) in y-up axes."""
    joints: NDArray[np.float32] = with_pelvis(theta).cpu().numpy()
    return flip_yz(joints)


def figure_4(
    path: Path, counts: Sequence[int], curves: Mapping[str, Sequence[float]], note: str = ""
) -> None:
    """Reproduce the published figure on sampling: the posterior, and training poses.

    Args:
        path: The PNG file to write.
        counts: Numbers of samples (N,).
        curves: PA-MPJPE of the best of n (N,) in millimetres, for ``"flow"`` and of
            ``"training poses"``.
        note: A line below the headline.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, supplement,
        Figure 4.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), dpi=110)
        left, right = figure.subplots(1, 2)
        for ax, names in ((left, ("flow",)), (right, ("flow", "training poses"))):
            for name in names:
                colour, dash = LOOKS[name]
                label = "samples of p(θ | c)" if name == "flow" else "random training poses"
                ax.plot(
                    counts,
                    curves[name],
                    color=colour,
                    linestyle=dash,
                    linewidth=2.4,
                    marker="o",
                    markersize=4,
                    label=label,
                )
            _count_axis(ax, counts)
            ax.set_ylabel("PA-MPJPE of the best, mm")
            ax.legend(frameon=False)
        right.set_ylim(bottom=0)
        figure.suptitle(
            "Benefit of more samples", x=0.012, y=0.975, ha="left", fontsize=14, weight="bold"
        )
        figure.text(0.012, 0.885, note, fontsize=9.5, color="#5a5a63", va="center")
        figure.subplots_adjust(0.07, 0.14, 0.985, 0.8, wspace=0.2)
        save_figure(path, figure)


@torch.no_grad()
def why_a_flow(
    path: Path,
    view: Views,
    lifters: Mapping[str, Lifter],
    curves: Mapping[str, tuple[Sequence[int], Mapping[str, Sequence[float]]]],
    *,
    marks: Mapping[str, tuple[int, Mapping[str, float]]] | None = None,
    num_samples: int = 20,
    note: str = "",
    seed: int = 0,
) -> None:
    """One person by every method, and the error curve of the best of n samples.

    Args:
        path: The PNG file to write.
        view: One view.
        lifters: The methods, by name.
        curves: For each setting the numbers n (N,) and, by method, the MPJPE of the best of n (N,)
            in millimetres.
        marks: For each setting a number n and, by method, the MPJPE of the best of n means to which
            all its samples are reduced, on some of the views.
        num_samples: Number of samples to draw for the person.
        note: A line below the headline.
        seed: Seed of the samples.
    """
    generator = torch.Generator(view.joints.device).manual_seed(seed)
    truth = upright(view.relative[0])
    samples = {
        name: upright(lifter.sample(view, num_samples, generator)[0])
        for name, lifter in lifters.items()
    }
    points = {name: upright(lifter.point(view)[0]) for name, lifter in lifters.items()}
    with matplotlib.rc_context(STYLE):
        columns = len(lifters) + 2
        figure = Figure(figsize=(2.3 * columns, 10.6), dpi=100)
        grid = figure.add_gridspec(
            2, columns, left=0.02, right=0.985, bottom=0.46, top=0.86, wspace=0.04, hspace=0.02
        )
        ax = figure.add_subplot(grid[0, 0])
        draw_keypoints(ax, view.keypoints[0].cpu().numpy(), view.visible[0].cpu().numpy())
        ax.set_title("2D input")
        for spine in ax.spines.values():
            spine.set_color("#d5d5da")
        figure.add_subplot(grid[1, 0]).axis("off")
        # Outliers would shrink everyone; the edge of the panel clips them.
        frame = np.concatenate([truth[None], *(points[name][None] for name in points)])
        flats = [flatten(turn(frame, degrees)) for degrees in (0, 90)]
        width, height = 1.5 * np.max([np.ptp(flat, axis=(0, 1)) for flat in flats], axis=0)
        for row, degrees in enumerate((0, 90)):
            for column, name in enumerate([*lifters, "truth"], start=1):
                ax = figure.add_subplot(grid[row, column])
                stage(ax, turn(frame, degrees), (width, height))
                if name == "truth":
                    draw_body(ax, turn(truth, degrees), TRUTH)
                else:
                    draw_samples(ax, turn(samples[name], degrees))
                    draw_body(ax, turn(points[name], degrees), MODE)
                if row == 0:
                    ax.set_title(NAMES.get(name, name))
        _curves(figure, curves, marks or {})
        figure.suptitle("Why a flow?", x=0.02, y=0.985, ha="left", fontsize=15, fontweight="bold")
        figure.text(0.02, 0.94, note, fontsize=10, color="#5a5a63", va="center", linespacing=1.4)
        save_figure(path, figure)


def _curves(
    figure: Figure,
    curves: Mapping[str, tuple[Sequence[int], Mapping[str, Sequence[float]]]],
    marks: Mapping[str, tuple[int, Mapping[str, float]]],
) -> None:
    inch = 1 / figure.get_figwidth()
    grid = figure.add_gridspec(
        1,
        len(curves),
        left=0.85 * inch,
        right=1 - 2.1 * inch,
        bottom=0.06,
        top=0.4,
        wspace=0.14,
    )
    for column, (setting, (counts, errors)) in enumerate(curves.items()):
        ax = figure.add_subplot(grid[0, column])
        for name, (colour, dash) in LOOKS.items():
            if name in errors:
                ax.plot(
                    counts,
                    errors[name],
                    color=colour,
                    linestyle=dash,
                    linewidth=2.4,
                    marker="o",
                    markersize=3.5,
                    label=NAMES[name],
                )
        if setting in marks:
            number, reduced = marks[setting]
            for name, error in reduced.items():
                label = (
                    "25 heads*" if name == "multi-head" else f"flow, reduced\nto {number} means*"
                )
                ax.scatter(
                    [number],
                    [error],
                    s=130,
                    marker="*",
                    color=LOOKS[name][0],
                    zorder=4,
                    label=label,
                )
        # Training poses start so high that the other curves would coincide.
        others = [values for name, values in errors.items() if name != "training poses"]
        if others:
            highest, lowest = (pick(map(pick, others)) for pick in (max, min))
            ax.set_ylim(0.85 * lowest, 1.1 * highest)
        _count_axis(ax, counts)
        ax.set_title(setting)
        if column == 0:
            ax.set_ylabel("MPJPE of the best sample, mm")
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.02, 1.03), frameon=False, labelspacing=0.9, fontsize=10
    )


def _count_axis(ax: Axes, counts: Sequence[int]) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(
        FixedLocator([n for n in (1, 10, 100, 1000, 4096) if n <= counts[-1]])
    )
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#ececf0", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_xlabel("samples drawn")
