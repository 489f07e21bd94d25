"""Figures: predictions of a lifting model for one person, and error curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray
from torch import Tensor

from examples.pictures.saving import save_figure
from examples.pictures.skeletons import (
    draw_body,
    draw_keypoints,
    draw_samples,
    outline,
    stage,
    turn,
)
from examples.pictures.style import DASHES, INK, MODE, REGRESSOR, SAMPLES, STYLE, TRUTH, Array
from flowprior.metrics import RiskCoverage

__all__ = [
    "best_of_n_picture",
    "comparison_picture",
    "lifting_picture",
    "reliability_picture",
    "risk_picture",
]

# Colours of models in one plot. Pink is reserved for the mode; repeated colours are dashed.
MODELS = (SAMPLES[0], SAMPLES[1], REGRESSOR, "#c2613a", INK)
STYLES = ("-", DASHES, (0, (1, 1.2)))


def lifting_picture(
    path: Path,
    *,
    keypoints: Array,
    visible: NDArray[np.bool_],
    mode: Array,
    samples: Array,
    truth: Array,
    title: str,
    note: str = "",
) -> None:
    """One person: the 2D input, the mode and samples from two sides, the truth from the same two.

    Args:
        path: The PNG file to write.
        keypoints: (17, 2) in pixels.
        visible: (17,) bool.
        mode: (17, 3) upright, metres, the camera in front (on the side of positive z).
        samples: (n, 17, 3) likewise.
        truth: (17, 3) likewise.
        title: Headline.
        note: A line below it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 4.4), dpi=110)
        grid = figure.add_gridspec(
            1, 5, left=0.02, right=0.985, bottom=0.03, top=0.765, wspace=0.06
        )
        axes = [figure.add_subplot(grid[0, column]) for column in range(5)]
        draw_keypoints(axes[0], keypoints, visible)
        axes[0].set_title("2D input")
        for spine in axes[0].spines.values():
            spine.set_color("#d5d5da")

        everything = np.concatenate([truth[None], mode[None], samples])
        views = [outline(turn(everything, degrees)) for degrees in (0, 90)]
        width, height = 1.06 * np.max([np.ptp(view, axis=0) for view in views], axis=0)
        panels = (
            ("seen from the camera", 0, True),
            ("seen from the side", 90, True),
            ("truth, from the camera", 0, False),
            ("truth, from the side", 90, False),
        )
        for ax, (name, degrees, predicted) in zip(axes[1:], panels, strict=True):
            stage(ax, turn(everything, degrees), (width, height))
            if predicted:
                draw_samples(ax, turn(samples, degrees))
                draw_body(ax, turn(mode, degrees), MODE)
            else:
                draw_body(ax, turn(truth, degrees), TRUTH)
            ax.set_title(name)
        # A thin frame separates the predictions from the ground truth.
        left, right = axes[1].get_position().x0, axes[2].get_position().x1
        figure.add_artist(
            Rectangle(
                (left - 0.003, 0.015),
                right - left + 0.006,
                0.82,
                transform=figure.transFigure,
                facecolor="none",
                edgecolor="#e3e3e8",
            )
        )
        figure.suptitle(title, x=0.02, y=0.975, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.02, 0.872, note, fontsize=9.5, color="#5a5a63", va="center")
        mode_line, *sample_lines, truth_line = (
            Line2D([], [], color=colour, linewidth=3) for colour in (MODE, *SAMPLES, TRUTH)
        )
        handles: list[Any] = [mode_line, tuple(sample_lines), truth_line]
        figure.legend(
            handles,
            ["mode", "samples", "truth"],
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
            loc="upper right",
            ncols=3,
            frameon=False,
            bbox_to_anchor=(0.99, 1.0),
        )
        save_figure(path, figure)


def best_of_n_picture(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], float, float]],
    *,
    title: str,
    note: str = "",
) -> None:
    """The error of the best sample against the number of samples, one panel per kind of view.

    Args:
        path: The PNG file to write.
        curves: For the title of each panel: the errors of the best of 1, 2, ... samples, of the
            mode and of the regressor, all in millimetres.
        title: Headline.
        note: A line below it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(curves) + 0.6, 4.2), dpi=110)
        axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for ax, (name, (best, mode, regressor)) in zip(axes, curves.items(), strict=True):
            numbers = np.arange(1, len(best) + 1)
            ax.axhline(regressor, color=REGRESSOR, linewidth=1.8, linestyle=DASHES)
            ax.axhline(mode, color=MODE, linewidth=1.8)
            ax.plot(numbers, best, color=SAMPLES[0], linewidth=2.6)
            marked = [n for n in (1, 10, 100) if n <= len(best)]
            ax.scatter(marked, [best[n - 1] for n in marked], color=SAMPLES[0], s=28, zorder=4)
            for n in marked:
                ax.annotate(
                    f"{best[n - 1]:.0f}",
                    (n, best[n - 1]),
                    textcoords="offset points",
                    xytext=(0, 8 if n == 1 else -16),
                    ha="left" if n == 1 else "right" if n == len(best) else "center",
                    color=SAMPLES[0],
                    fontweight="bold",
                )
            ax.set_xscale("log")
            ax.set_xlim(0.9, len(best) * 1.12)
            ax.xaxis.set_major_locator(FixedLocator([1, 3, 10, 30, 100, 300]))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(ScalarFormatter())
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(axis="y", color="#ececf0", linewidth=0.8)
            ax.set_axisbelow(True)
            ax.set_title(name)
            ax.set_xlabel("samples drawn")
        axes[0].set_ylabel("MPJPE, mm")
        lowest = min(min(*best, *lines) for best, *lines in curves.values())
        highest = max(max(*best, *lines) for best, *lines in curves.values())
        axes[0].set_ylim(max(0.0, lowest - 0.15 * (highest - lowest)), 1.06 * highest)
        handles = [
            Line2D([], [], color=SAMPLES[0], linewidth=2.6, label="best sample"),
            Line2D([], [], color=MODE, linewidth=1.8, label="mode"),
            Line2D([], [], color=REGRESSOR, linewidth=1.8, linestyle=DASHES, label="regressor"),
        ]
        axes[-1].legend(handles=handles, loc="upper right", frameon=False)
        figure.suptitle(title, x=0.012, y=0.975, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.012, 0.89, note, fontsize=9.5, color="#5a5a63", va="center")
        inch = 1 / figure.get_figwidth()
        figure.subplots_adjust(0.75 * inch, 0.14, 1 - 0.15 * inch, 0.77, wspace=0.08)
        save_figure(path, figure)


def comparison_picture(
    path: Path,
    counts: Sequence[int],
    errors: Mapping[str, Sequence[float]],
    *,
    title: str,
    note: str = "",
) -> None:
    """The error of the best sample against the number of samples, for several models.

    Args:
        path: The PNG file to write.
        counts: Numbers of samples (N,).
        errors: Errors (N,) in millimetres by the name of the model.
        title: Headline.
        note: A line below it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 4.6), dpi=110)
        ax = figure.add_axes((0.09, 0.12, 0.66, 0.68))
        for index, (name, values) in enumerate(errors.items()):
            ax.plot(
                counts,
                values,
                color=MODELS[index % len(MODELS)],
                linestyle=STYLES[index // len(MODELS) % len(STYLES)],
                linewidth=2.4,
                marker="o",
                markersize=4,
                label=f"{name}\n{values[-1]:.1f} mm of {counts[-1]}",
            )
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(list(counts)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#ececf0", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.set_xlabel("samples drawn")
        ax.set_ylabel("MPJPE, mm")
        ax.legend(
            loc="upper left",
            bbox_to_anchor=(1.02, 1.03),
            borderaxespad=0.0,
            labelspacing=0.9,
            frameon=False,
            fontsize=9.5,
        )
        figure.suptitle(title, x=0.018, y=0.965, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.018, 0.875, note, fontsize=9.5, color="#5a5a63", va="center")
        save_figure(path, figure)


def reliability_picture(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    note: str = "",
) -> None:
    """Calibration: observed against nominal coverage of regions.

    The diagonal is a calibrated model. The legend has each curve's calibration error, the mean
    distance from the diagonal over its levels.

    Args:
        path: The PNG file to write.
        curves: For each model its levels (L,) and coverage (L,), both in [0, 1], from
            ``flowprior.metrics.coverage`` or ``JointCalibration``. Tensors must be on the CPU.
        title: Headline.
        note: A line below it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 5.6), dpi=110)
        ax = figure.add_axes((0.1, 0.105, 4.15 / 8.2, 4.15 / 5.6))
        ax.plot([0, 1], [0, 1], color=TRUTH, linewidth=1.4, zorder=2)
        for index, (name, (levels, covered)) in enumerate(curves.items()):
            q, share = np.asarray(levels, dtype=float), np.asarray(covered, dtype=float)
            ax.plot(
                q,
                share,
                color=MODELS[index % len(MODELS)],
                linestyle=STYLES[index // len(MODELS) % len(STYLES)],
                linewidth=2.4,
                label=f"{name}\nerror {np.abs(share - q).mean():.3f}",
                zorder=3,
            )
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_aspect("equal")
        ticks = np.linspace(0, 1, 6)
        percent = [f"{100 * tick:.0f} %" for tick in ticks]
        ax.set_xticks(ticks, percent)
        ax.set_yticks(ticks, percent)
        _plain(ax)
        ax.set_xlabel("mass of the region")
        ax.set_ylabel("truths inside")
        ax.legend(
            loc="upper left",
            bbox_to_anchor=(1.03, 1.01),
            borderaxespad=0.0,
            labelspacing=0.9,
            frameon=False,
            fontsize=9.5,
        )
        ax.text(
            1.03,
            0.0,
            "above the diagonal: underconfident\nbelow it: overconfident",
            transform=ax.transAxes,
            style="italic",
            color="#77777d",
            fontsize=9.5,
        )
        figure.suptitle(title, x=0.018, y=0.975, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.018, 0.895, note, fontsize=9.5, color="#5a5a63", va="center")
        save_figure(path, figure)


def risk_picture(
    path: Path, curves: Mapping[str, RiskCoverage], title: str, note: str = ""
) -> None:
    """Risk-coverage curves: mean error of what is kept when the least certain is left out.

    The first curve is the first model's oracle, which sorts by the error itself.

    Args:
        path: The PNG file to write.
        curves: For each model its curve, errors in mm.
        title: Headline.
        note: A line below it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 5.6), dpi=110)
        ax = figure.add_axes((0.1, 0.105, 4.6 / 8.2, 4.15 / 5.6))
        oracle = next(iter(curves.values()))
        drawn: list[tuple[str, Tensor, Tensor, str, Any, str]] = [
            ("oracle", oracle.coverage, oracle.oracle, TRUTH, "-", "")
        ]
        for index, (name, curve) in enumerate(curves.items()):
            colour, style = MODELS[index % len(MODELS)], STYLES[index // len(MODELS) % len(STYLES)]
            text = f"\nAUSE {curve.ause:.2f}"
            drawn.append((name, curve.coverage, curve.risk, colour, style, text))
        for name, share, risk, colour, style, text in drawn:
            points = np.linspace(0, len(share) - 1, 400).astype(int)
            points = points[np.asarray(share)[points] > 0.01]  # the first mean is of one joint
            ax.plot(
                np.asarray(share)[points],
                np.asarray(risk)[points],
                color=colour,
                linestyle=style,
                linewidth=2.2,
                label=name + text,
            )
        ax.set_xlim(0, 1)
        ax.set_ylim(0, None)
        ticks = np.linspace(0, 1, 6)
        ax.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
        _plain(ax)
        ax.set_xlabel("share that is kept")
        ax.set_ylabel("mean error, mm")
        ax.legend(
            loc="upper left",
            bbox_to_anchor=(1.03, 1.01),
            borderaxespad=0.0,
            labelspacing=0.9,
            frameon=False,
        )
        figure.suptitle(title, x=0.018, y=0.975, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.018, 0.895, note, fontsize=9.5, color="#5a5a63", va="center")
        save_figure(path, figure)


def _plain(ax: Axes) -> None:
    """A light grid behind the curves, and no frame above and to the right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#ececf0", linewidth=0.8)
    ax.set_axisbelow(True)
