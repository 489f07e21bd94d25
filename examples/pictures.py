"""Pictures shared by the examples: keypoints in the image, bodies in 3D, error curves.

Colours mean the same everywhere: pink is the mode, purple and yellow are samples, grey is the truth
and whatever was hidden. A person's right side is the darker one.

3D poses are given upright, (..., J, 3) in metres with x to the right, y up and z towards the
viewer, and are drawn in parallel projection, so that lengths can be compared across panels.
"""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Ellipse, Rectangle
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from flowprior.skeleton import H36M_17, Skeleton

__all__ = [
    "MODE",
    "REGRESSOR",
    "SAMPLES",
    "TRUTH",
    "best_of_n_picture",
    "comparison_picture",
    "draw_body",
    "draw_keypoints",
    "draw_samples",
    "lifting_picture",
    "reliability_picture",
    "turn",
]

Array = NDArray[np.floating[Any]]

MODE = "#e8488a"
SAMPLES = ("#7a4fb5", "#eeb11d")
TRUTH = "#77777d"
REGRESSOR = "#2f7f95"
INK = "#2b2b33"
LEFT, RIGHT, MIDDLE = "#3fa7b8", "#1f5f7a", "#2f7f95"
HIDDEN = "#b4b4bc"
FLOOR = "#efeff3"
DASHES = (0, (5, 2))
# Of models in one plot. Pink stays the mode's; a colour that comes round again is dashed.
MODELS = (SAMPLES[0], SAMPLES[1], REGRESSOR, "#c2613a", INK)
STYLES = ("-", DASHES, (0, (1, 1.2)))

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9a9aa3",
    "text.color": INK,
    "xtick.color": "#5a5a63",
    "ytick.color": "#5a5a63",
    "savefig.facecolor": "white",
}


def turn(poses: Array, degrees: float) -> Array:
    """Turn upright poses (..., J, 3) about the vertical; 90 shows what was on their right edge."""
    angle = np.radians(degrees)
    x, y, z = np.moveaxis(np.asarray(poses), -1, 0)
    return np.stack(
        [np.cos(angle) * x - np.sin(angle) * z, y, np.sin(angle) * x + np.cos(angle) * z], axis=-1
    )


def _flatten(poses: Array, elevation: float = 8.0) -> Array:
    """Parallel projection from a little above: (..., J, 3) -> (..., J, 2)."""
    angle = np.radians(elevation)
    x, y, z = np.moveaxis(np.asarray(poses), -1, 0)
    return np.stack([x, np.cos(angle) * y - np.sin(angle) * z], axis=-1)


def _shade(colour: str, factor: float) -> str:
    hue, light, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    return str(to_hex(colorsys.hls_to_rgb(hue, min(1.0, light * factor), saturation)))


def _side(skeleton: Skeleton, joint: int) -> str:
    name = skeleton.joint_names[joint]
    return "left" if name.startswith("left") else "right" if name.startswith("right") else "middle"


def draw_body(
    ax: Axes,
    pose: Array,
    colour: str,
    skeleton: Skeleton = H36M_17,
    width: float = 3.2,
    zorder: float = 5,
) -> None:
    """One body as a stick figure with a head, near limbs in front of far ones.

    Args:
        ax: Where to draw.
        pose: (J, 3) upright, metres.
        colour: Its colour; the right side is drawn darker, the left lighter.
        skeleton: The joint set.
        width: Line width in points.
        zorder: Where it stands among what else is drawn.
    """
    flat = _flatten(pose)
    shades = {"left": _shade(colour, 1.18), "right": _shade(colour, 0.72), "middle": colour}
    bones = sorted(skeleton.bones, key=lambda bone: float(pose[list(bone), 2].sum()))
    lines = LineCollection(
        [flat[list(bone)] for bone in bones],
        colors=[shades[_side(skeleton, child)] for _, child in bones],
        linewidths=width,
        capstyle="round",
        zorder=zorder,
    )
    ax.add_collection(lines)
    if "head" in skeleton.joint_names:
        head = skeleton.joint_names.index("head")
        middle = flat[[head, skeleton.parents[head]]].mean(axis=0)
        ax.add_patch(Circle(middle, 0.085, facecolor=colour, edgecolor="none", zorder=zorder + 0.1))


def draw_samples(ax: Axes, samples: Array, skeleton: Skeleton = H36M_17) -> None:
    """Many bodies as faint lines, in the two colours of samples by turns.

    Args:
        ax: Where to draw.
        samples: (n, J, 3) upright, metres.
        skeleton: The joint set.
    """
    flat = _flatten(samples)
    alpha = float(np.clip(6 / max(len(samples), 1), 0.12, 0.6))
    for index, sample in enumerate(flat):
        lines = LineCollection(
            [sample[list(bone)] for bone in skeleton.bones],
            colors=SAMPLES[index % len(SAMPLES)],
            linewidths=1.5,
            alpha=alpha,
            capstyle="round",
            zorder=3 + index / max(len(samples), 1),
        )
        ax.add_collection(lines)


def draw_keypoints(
    ax: Axes,
    keypoints: Array,
    visible: NDArray[np.bool_],
    skeleton: Skeleton = H36M_17,
) -> None:
    """2D keypoints as the network gets them; hidden joints as rings where they would have been.

    Args:
        ax: Where to draw.
        keypoints: (J, 2) in pixels, y down.
        visible: (J,) bool.
        skeleton: The joint set.
    """
    colours = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
    for parent, child in skeleton.bones:
        seen = bool(visible[parent] and visible[child])
        ax.plot(
            *keypoints[[parent, child]].T,
            color=colours[_side(skeleton, child)] if seen else HIDDEN,
            linewidth=2.6 if seen else 1.2,
            linestyle="-" if seen else (0, (2, 2)),
            solid_capstyle="round",
            zorder=2 if seen else 1,
        )
    ax.scatter(
        keypoints[visible, 0], keypoints[visible, 1], s=26, color=INK, zorder=4, label="detected"
    )
    if not visible.all():
        ax.scatter(
            keypoints[~visible, 0],
            keypoints[~visible, 1],
            s=34,
            facecolor="white",
            edgecolor="#8d8d96",
            linewidth=1.2,
            zorder=3,
            label="hidden",
        )
        ax.legend(loc="best", fontsize=8, frameon=False, handletextpad=0.1)
    _fit(ax, keypoints, margin=0.08)
    ax.invert_yaxis()
    ax.set_xticks([])
    ax.set_yticks([])


def _fit(
    ax: Axes, points: Array, extent: tuple[float, float] = (0.0, 0.0), margin: float = 0.0
) -> None:
    """Equal scales, and limits of the shape of the axes around points (..., 2).

    The limits hold the points with a margin, relative to the larger side, and at least ``extent``.
    """
    flat = points.reshape(-1, 2)
    low, high = flat.min(axis=0), flat.max(axis=0)
    width, height = np.maximum(high - low + 2 * margin * (high - low).max(), extent)
    box = ax.get_window_extent()
    ratio = box.width / box.height
    width, height = max(width, height * ratio), max(height, width / ratio)
    centre = (low + high) / 2
    ax.set_xlim(centre[0] - width / 2, centre[0] + width / 2)
    ax.set_ylim(centre[1] - height / 2, centre[1] + height / 2)
    ax.set_aspect("equal")


def _stage(ax: Axes, poses: Array, extent: tuple[float, float]) -> None:
    """Equal axes of one extent around poses (n, J, 3), and a floor 1 m across under the first."""
    _fit(ax, _flatten(poses), extent)
    ax.axis("off")
    floor = float(np.asarray(poses)[0, :, 1].min()) - 0.06
    height = 2 * 0.5 * np.sin(np.radians(8.0))
    ax.add_patch(Ellipse((0, floor), 1.0, height, facecolor=FLOOR, edgecolor="none", zorder=0))


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
        views = [_flatten(turn(everything, degrees)) for degrees in (0, 90)]
        width, height = 1.06 * np.max([np.ptp(view, axis=(0, 1)) for view in views], axis=0)
        panels = (
            ("seen from the camera", 0, True),
            ("seen from the side", 90, True),
            ("truth, from the camera", 0, False),
            ("truth, from the side", 90, False),
        )
        for ax, (name, degrees, predicted) in zip(axes[1:], panels, strict=True):
            _stage(ax, turn(everything, degrees), (width, height))
            if predicted:
                draw_samples(ax, turn(samples, degrees))
                draw_body(ax, turn(mode, degrees), MODE)
            else:
                draw_body(ax, turn(truth, degrees), TRUTH)
            ax.set_title(name)
        # A thin frame around what the model says sets it apart from the truth.
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
        figure.savefig(path)


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
        figure.savefig(path)


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
        figure.savefig(path)


def reliability_picture(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    note: str = "",
) -> None:
    """How often the truth lies in the region that should hold it, against how often it should.

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
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#ececf0", linewidth=0.8)
        ax.set_axisbelow(True)
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
            "above the diagonal: too unsure\nbelow it: too sure",
            transform=ax.transAxes,
            style="italic",
            color="#77777d",
            fontsize=9.5,
        )
        figure.suptitle(title, x=0.018, y=0.975, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.018, 0.895, note, fontsize=9.5, color="#5a5a63", va="center")
        figure.savefig(path)
