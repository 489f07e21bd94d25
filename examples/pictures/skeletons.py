"""Skeletons: 2D keypoints, 3D poses from several sides, samples and their spread.

3D poses are upright, (..., J, 3) in metres with x to the right, y up and z towards the
viewer, in parallel projection, so that lengths are comparable across panels.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from numpy.typing import NDArray

from examples.pictures.canvas import PixelCanvas, check_image, lay_over
from examples.pictures.saving import save_figure
from examples.pictures.style import (
    FLOOR,
    HIDDEN,
    INK,
    LEFT,
    MIDDLE,
    MODE,
    ON_PHOTO,
    RIGHT,
    SAMPLES,
    STYLE,
    UNCERTAINTY,
    Array,
    Image,
    shade,
)
from flowprior.skeleton import H36M_17, Skeleton

__all__ = [
    "VIEWS",
    "draw_body",
    "draw_keypoints",
    "draw_samples",
    "draw_uncertainty",
    "overlay_keypoints",
    "skeleton_views_picture",
    "turn",
    "view_rotation",
]

FLOOR_RADIUS = 0.5  # metres

VIEWS: dict[str, tuple[float, float]] = {
    "front": (0.0, 8.0),
    "side": (90.0, 8.0),
    "back": (180.0, 8.0),
    "top": (0.0, 90.0),
}
"""Named views: rotation of the body about the vertical and elevation of the viewer, in degrees."""


def turn(poses: Array, degrees: float) -> Array:
    """Rotate upright poses (..., J, 3) about the vertical; 90 shows the right edge of the front."""
    return np.asarray(poses) @ view_rotation(degrees).T


def view_rotation(degrees: float, elevation: float = 0.0) -> Array:
    """The rotation of a view.

    Args:
        degrees: Turn of the body about the vertical, as in `turn`.
        elevation: Elevation of the viewer, in degrees; 90 looks straight down.

    Returns:
        (3, 3); ``points @ view_rotation(...).T`` has x to the right, y up, z towards the viewer.
    """
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_vertical = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    cos, sin = np.cos(np.radians(elevation)), np.sin(np.radians(elevation))
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ about_vertical


def flatten(poses: Array, elevation: float = 8.0) -> Array:
    """Parallel projection from a little above: (..., J, 3) -> (..., J, 2)."""
    return (np.asarray(poses) @ view_rotation(0, elevation).T)[..., :2]


def side_of(skeleton: Skeleton, joint: int) -> str:
    name = skeleton.joint_names[joint]
    return "left" if name.startswith("left") else "right" if name.startswith("right") else "middle"


def draw_body(
    ax: Axes,
    pose: Array,
    colour: str,
    skeleton: Skeleton = H36M_17,
    width: float = 3.2,
    zorder: float = 5,
    elevation: float = 8.0,
) -> None:
    """One body as a stick figure with a head, near limbs in front of far ones.

    Args:
        ax: Axes to draw on.
        pose: (J, 3) upright, metres.
        colour: Its colour; the right side is drawn darker, the left lighter.
        skeleton: The joint set.
        width: Line width in points.
        zorder: Drawing order, as in matplotlib.
        elevation: Elevation of the viewer, in degrees.
    """
    shades = {"left": shade(colour, 1.18), "right": shade(colour, 0.72), "middle": colour}
    joints = [shades[side_of(skeleton, joint)] for joint in range(skeleton.num_joints)]
    _draw_bones(ax, pose, joints, skeleton, width, zorder, elevation)
    if "head" in skeleton.joint_names:
        head = skeleton.index("head")
        middle = flatten(pose, elevation)[[head, skeleton.parents[head]]].mean(axis=0)
        ax.add_patch(Circle(middle, 0.085, facecolor=colour, edgecolor="none", zorder=zorder + 0.1))


def _draw_bones(
    ax: Axes,
    pose: Array,
    colours: Sequence[str | tuple[float, ...]],
    skeleton: Skeleton,
    width: float,
    zorder: float,
    elevation: float,
) -> None:
    """Draw every bone in the colour of the joint at its end, from far to near."""
    seen = np.asarray(pose) @ view_rotation(0, elevation).T
    bones = sorted(skeleton.bones, key=lambda bone: float(seen[list(bone), 2].sum()))
    lines = LineCollection(
        [seen[list(bone), :2] for bone in bones],
        colors=[colours[child] for _, child in bones],
        linewidths=width,
        capstyle="round",
        zorder=zorder,
    )
    ax.add_collection(lines)


def draw_samples(
    ax: Axes, samples: Array, skeleton: Skeleton = H36M_17, elevation: float = 8.0
) -> None:
    """Many bodies as faint lines, alternating the two colours of samples.

    Args:
        ax: Axes to draw on.
        samples: (n, J, 3) upright, metres.
        skeleton: The joint set.
        elevation: Elevation of the viewer, in degrees.
    """
    flat = flatten(samples, elevation)
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
    """2D keypoints of the network's input; rings at the true positions of hidden joints.

    Args:
        ax: Axes to draw on.
        keypoints: (J, 2) in pixels, y down.
        visible: (J,) bool.
        skeleton: The joint set.
    """
    colours = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
    for parent, child in skeleton.bones:
        seen = bool(visible[parent] and visible[child])
        ax.plot(
            *keypoints[[parent, child]].T,
            color=colours[side_of(skeleton, child)] if seen else HIDDEN,
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
    fit(ax, keypoints, margin=0.08)
    ax.invert_yaxis()
    ax.set_xticks([])
    ax.set_yticks([])


def fit(
    ax: Axes, points: Array, extent: tuple[float, float] = (0.0, 0.0), margin: float = 0.0
) -> None:
    """Set equal scales, and limits around points (..., 2) that fill the axes.

    The limits contain the points with a margin, relative to the larger side, and span at least
    ``extent``.
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


def outline(poses: Array, elevation: float = 8.0) -> Array:
    """The points (P, 2) that a drawing of poses (n, J, 3) must contain, including its floor."""
    points = flatten(poses, elevation).reshape(-1, 2)
    if elevation >= 45:
        return points
    return np.concatenate([points, _floor(poses, elevation) + FLOOR_RADIUS * _tilt(elevation)])


def stage(ax: Axes, poses: Array, extent: tuple[float, float], elevation: float = 8.0) -> None:
    """Set equal axes around poses (n, J, 3), and draw a floor 1 m across under the first.

    There is no floor in views from above, where it would look like an object.
    """
    fit(ax, outline(poses, elevation), extent)
    ax.axis("off")
    if elevation < 45:
        width, height = 2 * FLOOR_RADIUS * _tilt(elevation)[-1]
        x, y = _floor(poses, elevation)
        ax.add_patch(Ellipse((x, y), width, height, facecolor=FLOOR, edgecolor="none", zorder=0))


def _floor(poses: Array, elevation: float) -> Array:
    """Position of the centre of the floor in the drawing, (2,)."""
    lowest = float(np.asarray(poses)[0, :, 1].min()) - 0.06
    return flatten(np.array([0.0, lowest, 0.0]), elevation)


def _tilt(elevation: float) -> Array:
    """Two opposite corners of a square around a circle on the floor of radius 1, (2, 2)."""
    corner = np.array([1.0, np.sin(np.radians(elevation))])
    return np.stack([-corner, corner])


def draw_uncertainty(
    ax: Axes,
    pose: Array,
    spread: Array,
    low: float,
    high: float,
    skeleton: Skeleton = H36M_17,
    elevation: float = 8.0,
) -> None:
    """One body with bones coloured by the spread of the joint at their end.

    Args:
        ax: Axes to draw on.
        pose: (J, 3) upright, metres.
        spread: (J,) spread of each joint, in any unit.
        low: Spread with the darkest colour.
        high: Spread with the brightest colour, as for all larger spreads.
        skeleton: The joint set.
        elevation: Elevation of the viewer, in degrees.
    """
    colours = matplotlib.colormaps[UNCERTAINTY](Normalize(low, high)(np.asarray(spread)))
    _draw_bones(ax, pose, [tuple(colour) for colour in colours], skeleton, 4.5, 5, elevation)
    flat = flatten(pose, elevation)
    ax.scatter(
        flat[:, 0], flat[:, 1], s=34, color=colours, edgecolor="white", linewidth=0.6, zorder=6
    )


def skeleton_views_picture(
    path: Path,
    pose: Array,
    *,
    skeleton: Skeleton = H36M_17,
    samples: Array | None = None,
    spread_mm: Array | None = None,
    colour: str = MODE,
    views: Sequence[str] = ("front", "side", "top"),
    title: str,
    note: str = "",
) -> None:
    """A 3D skeleton from several sides, in one scale, with its samples or their spread.

    Args:
        path: The PNG file to write.
        pose: (J, 3) upright, metres: the mode, or the only pose.
        skeleton: The joint set.
        samples: (n, J, 3) upright, metres, drawn faintly behind the pose.
        spread_mm: (J,) spread of each joint, in millimetres, which then colours the bones.
        colour: Colour of the pose, without a spread.
        views: Names from `VIEWS`.
        title: Headline.
        note: A line below it.

    Raises:
        ValueError: An array does not have the joints of the skeleton or is not finite, or a view
            is unknown.
    """
    pose = _checked("pose", pose, (skeleton.num_joints, 3))
    drawn = pose[None]
    if samples is not None:
        samples = _checked("samples", samples, (len(samples), skeleton.num_joints, 3))
        drawn = np.concatenate([drawn, samples])
    if spread_mm is not None:
        spread_mm = _checked("spread_mm", spread_mm, (skeleton.num_joints,))
    if not views or set(views) - set(VIEWS):
        raise ValueError(f"expected views out of {', '.join(VIEWS)}, got {tuple(views)}")
    # Above the centre of the floor.
    drawn = drawn - (drawn.min(axis=(0, 1)) + drawn.max(axis=(0, 1))) / 2
    with matplotlib.rc_context(STYLE):
        bar = 0.0 if spread_mm is None else 1.0
        figure = Figure(figsize=(2.9 * len(views) + bar, 4.2), dpi=110)
        inch = 1 / figure.get_figwidth()
        right = 1 - (bar or 0.1) * inch
        grid = figure.add_gridspec(
            1, len(views), left=0.1 * inch, right=right, bottom=0.03, top=0.78, wspace=0.04
        )
        turned = [drawn @ view_rotation(VIEWS[name][0]).T for name in views]
        flats = [outline(poses, VIEWS[name][1]) for name, poses in zip(views, turned, strict=True)]
        width, height = 1.08 * np.max([np.ptp(flat, axis=0) for flat in flats], axis=0)
        low, high = (0.0, 1.0) if spread_mm is None else (0.0, float(np.max(spread_mm)) or 1.0)
        for column, (name, poses) in enumerate(zip(views, turned, strict=True)):
            ax = figure.add_subplot(grid[0, column])
            elevation = VIEWS[name][1]
            stage(ax, poses, (width, height), elevation)
            if samples is not None:
                draw_samples(ax, poses[1:], skeleton, elevation)
            if spread_mm is not None:
                draw_uncertainty(ax, poses[0], spread_mm, low, high, skeleton, elevation)
            else:
                draw_body(ax, poses[0], colour, skeleton, elevation=elevation)
            ax.set_title(name)
        if spread_mm is not None:
            box = figure.add_axes((1 - 0.85 * inch, 0.12, 0.13 * inch, 0.55))
            mappable = ScalarMappable(Normalize(low, high), UNCERTAINTY)
            figure.colorbar(mappable, cax=box, label="spread, mm")
        figure.suptitle(title, x=0.15 * inch, y=0.975, ha="left", fontsize=13, fontweight="bold")
        figure.text(0.15 * inch, 0.885, note, fontsize=9, color="#5a5a63", va="center")
        save_figure(path, figure)


def overlay_keypoints(
    image: Image,
    keypoints_2d: Array,
    skeleton: Skeleton,
    *,
    colours: tuple[str, str, str] = ON_PHOTO,
) -> Image:
    """Draw 2D keypoints and their bones over an image; opacity shows confidence.

    Args:
        image: (H, W, 3) RGB, uint8.
        keypoints_2d: (J, 3) x and y in pixels and confidence, or (J, 2) without, or (n, J, 2 or 3)
            for several people. A bone has the smaller confidence of its ends; keypoints with
            confidence 0 are not drawn.
        skeleton: The joint set.
        colours: Colours of the left, the right and the middle of the body.

    Returns:
        (H, W, 3) RGB, uint8.

    Raises:
        ValueError: A shape or dtype is wrong, or a keypoint with confidence is not finite.
    """
    image = check_image(image)
    people = np.asarray(keypoints_2d, dtype=float)
    people = people[None] if people.ndim == 2 else people
    if people.ndim != 3 or people.shape[1] != skeleton.num_joints or people.shape[2] not in (2, 3):
        raise ValueError(
            f"expected keypoints_2d ({skeleton.num_joints}, 2 or 3) or (n, {skeleton.num_joints}, "
            f"2 or 3) of {skeleton.name}, got {np.shape(keypoints_2d)}"
        )
    conf = people[..., 2] if people.shape[2] == 3 else np.ones(people.shape[:2])
    if not np.isfinite(conf).all() or not np.isfinite(people[conf > 0]).all():
        raise ValueError("keypoints_2d are not finite")
    conf = np.clip(conf, 0.0, 1.0)
    height, width = image.shape[:2]
    points = 72 / 100  # a pixel, at 100 to the inch
    unit = max(1.0, max(height, width) / 220) * points
    canvas = PixelCanvas(width, height)
    ax = canvas.ax
    names = dict(zip(("left", "right", "middle"), colours, strict=True))
    paint = [names[side_of(skeleton, joint)] for joint in range(skeleton.num_joints)]
    for person, sure in zip(people[..., :2], conf, strict=True):
        bones = [bone for bone in skeleton.bones if sure[list(bone)].min() > 0]
        ax.add_collection(
            LineCollection(
                [person[list(bone)] for bone in bones],
                colors=[to_rgba(paint[bone[1]], sure[list(bone)].min()) for bone in bones],
                linewidths=1.2 * unit,
                capstyle="round",
                zorder=1,
            ),
            autolim=False,
        )
        seen = np.flatnonzero(sure)
        ax.scatter(
            person[seen, 0],
            person[seen, 1],
            s=(2.8 * unit) ** 2,
            color=[to_rgba(paint[joint], sure[joint]) for joint in seen],
            edgecolors=[(1.0, 1.0, 1.0, sure[joint]) for joint in seen],
            linewidths=0.35 * unit,
            zorder=2,
        )
    return lay_over(image, canvas.pixels())


def _checked(name: str, values: Array, shape: tuple[int, ...]) -> Array:
    values = np.asarray(values, dtype=float)
    if values.shape != shape or not np.isfinite(values).all():
        state = "" if np.isfinite(values).all() else ", not finite"
        raise ValueError(f"expected {name} {shape}, got {values.shape}{state}")
    return values
