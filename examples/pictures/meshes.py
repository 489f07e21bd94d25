"""Bodies as meshes: views from several sides, galleries, interpolations, GLB files.

Vertices are plain arrays, (V, 3) for one body or (n, V, 3) for several, in metres, upright: y up
and z towards the viewer, as `flowprior.body` gives them. Faces (F, 3) are the same for all.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from numpy.typing import ArrayLike

from examples.pictures.canvas import lay_over, side_by_side
from examples.pictures.rendering import (
    Backend,
    Camera,
    Colours,
    check_bodies,
    paint,
    render_bodies,
)
from examples.pictures.skeletons import VIEWS, view_rotation
from examples.pictures.style import MODE, SAMPLES, UNCERTAINTY, Array, Image
from examples.pinhole import flip_yz
from flowprior.files.whole_file import whole_file

__all__ = [
    "body_views",
    "interpolation_strip",
    "mode_and_samples_views",
    "uncertainty_colours",
    "write_glb",
]


def body_views(
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    views: Sequence[str] = ("front", "side", "top"),
    colours: Colours = MODE,
    alphas: float | Sequence[float] = 1.0,
    height: int = 320,
    background: str | Image = "white",
    backend: Backend = "auto",
    around: ArrayLike | None = None,
) -> Image:
    """Upright bodies from several sides, in one scale and nearly parallel projection.

    Args:
        vertices: (V, 3) or (n, V, 3) in metres, y up, z towards the viewer of the front.
        faces: (F, 3).
        views: Names from `examples.pictures.VIEWS`.
        colours: As in `render_bodies`.
        alphas: As in `render_bodies`.
        height: Of the image, in pixels.
        background: Colour behind the bodies, or a picture of this function as background.
        backend: As in `render_bodies`.
        around: (..., 3) points that the picture must contain, for a common frame of several
            pictures; the vertices by default.

    Returns:
        (height, W, 3) RGB, uint8: one panel after another, as wide as their bodies need.

    Raises:
        ValueError: As in `render_bodies`, or a view is unknown.
    """
    bodies, _ = check_bodies(vertices, faces)
    held = bodies.reshape(-1, 3) if around is None else np.asarray(around, float).reshape(-1, 3)
    centre = (held.min(axis=0) + held.max(axis=0)) / 2
    unknown = set(views) - set(VIEWS)
    if unknown or not views:
        raise ValueError(f"expected views out of {', '.join(VIEWS)}, got {tuple(views)}")
    rotations = [view_rotation(*VIEWS[name]) for name in views]
    frames = [(held - centre) @ rotation.T for rotation in rotations]
    extents = [2 * np.abs(frame[:, :2]).max(axis=0) for frame in frames]
    pixels_per_metre = height / (1.08 * max(extent[1] for extent in extents))
    distance = 40.0  # metres: at this distance, lengths shrink by a hundredth over a body's depth
    panels = []
    for rotation, extent in zip(rotations, extents, strict=True):
        width = max(1, round(1.08 * pixels_per_metre * extent[0]))
        camera = Camera(pixels_per_metre * distance, (width / 2, height / 2), (0.0, 0.0, distance))
        panel = render_bodies(
            flip_yz((bodies - centre) @ rotation.T),
            faces,
            camera,
            (width, height),
            colours=colours,
            alphas=alphas,
            backend=backend,
        )
        panels.append(panel)
    layer = np.concatenate(panels, axis=1)
    if isinstance(background, str):
        paper = np.rint(255 * np.array(to_rgb(background))).astype(np.uint8)
        background = np.broadcast_to(paper, (*layer.shape[:2], 3))
    return lay_over(background, layer)


def mode_and_samples_views(
    mode: ArrayLike,
    samples: ArrayLike,
    faces: ArrayLike,
    *,
    views: Sequence[str] = ("front", "side"),
    height: int = 320,
    backend: Backend = "auto",
) -> dict[str, Image]:
    """The mode in pink and samples in purple and yellow, together and one by one, in one frame.

    Args:
        mode: (V, 3) upright, metres.
        samples: (n, V, 3) likewise.
        faces: (F, 3).
        views: As in `body_views`, side by side in each image.
        height: Of each image, in pixels.
        backend: As in `render_bodies`.

    Returns:
        (height, W, 3) uint8 each, for `gallery_picture`: "together" with the mode in front of
        transparent samples, "mode", "sample 1", ...

    Raises:
        ValueError: As in `body_views`, or mode and samples do not have the same vertices.
    """
    one, _ = check_bodies(mode, faces)
    many, _ = check_bodies(samples, faces)
    if len(one) != 1 or one.shape[1:] != many.shape[1:]:
        raise ValueError(
            f"expected a mode (V, 3) and samples (n, V, 3) of the same V, got {np.shape(mode)} and "
            f"{np.shape(samples)}"
        )
    bodies = np.concatenate([one, many])
    colours = [MODE, *(SAMPLES[index % len(SAMPLES)] for index in range(len(many)))]
    faint = float(np.clip(1.6 / len(many), 0.12, 0.45))

    def draw(which: slice, alpha: float = 1.0, background: str | Image = "white") -> Image:
        return body_views(
            bodies[which],
            faces,
            views=views,
            colours=colours[which],
            alphas=alpha,
            height=height,
            background=background,
            backend=backend,
            around=bodies,
        )

    names = ["mode", *(f"sample {index + 1}" for index in range(len(many)))]
    return {
        "together": draw(slice(1), background=draw(slice(1, None), faint)),
        **{name: draw(slice(index, index + 1)) for index, name in enumerate(names)},
    }


def interpolation_strip(
    vertices: Sequence[ArrayLike] | Array,
    faces: ArrayLike,
    *,
    view: str = "front",
    colours: Sequence[str] = (SAMPLES[0], "#d9705f", SAMPLES[1]),
    height: int = 260,
    backend: Backend = "auto",
) -> Image:
    """Bodies along a line in latent space, from left to right, from one colour to another.

    Args:
        vertices: n arrays (V, 3), upright, metres.
        faces: (F, 3).
        view: A name from `examples.pictures.VIEWS`.
        colours: Two or more colours, blended from the first body to the last.
        height: Of the strip, in pixels.
        backend: As in `render_bodies`.

    Returns:
        (height, W, 3) RGB, uint8; the n panels have the same width.

    Raises:
        ValueError: As in `body_views`.
    """
    bodies, _ = check_bodies(np.stack([np.asarray(body) for body in vertices]), faces)
    blend = LinearSegmentedColormap.from_list("latent", list(colours))
    return side_by_side(
        [
            body_views(
                body,
                faces,
                views=(view,),
                colours=[matplotlib.colors.to_hex(blend(share))],
                height=height,
                backend=backend,
                around=bodies,
            )
            for body, share in zip(bodies, np.linspace(0, 1, len(bodies)), strict=True)
        ]
    )


def uncertainty_colours(
    spread: ArrayLike,
    low: float,
    high: float,
    skinning_weights: ArrayLike | None = None,
) -> Array:
    """Colours of vertices for the spread of samples; dark means low spread.

    Args:
        spread: (V,) of each vertex, or (J,) of each joint together with ``skinning_weights``, in
            any unit.
        low: Spread with the darkest colour.
        high: Spread with the brightest colour, as for all larger spreads.
        skinning_weights: (V, J) weights of linear blend skinning, which transfer the spread of
            the joints to the vertices.

    Returns:
        (V, 3) RGB in [0, 1], for the ``colours`` of the other functions.

    Raises:
        ValueError: The shapes do not fit, a spread is not finite, or ``low < high`` does not hold.
    """
    values = np.asarray(spread, dtype=float)
    if skinning_weights is not None:
        weights = np.asarray(skinning_weights, dtype=float)
        if weights.ndim != 2 or values.shape != weights.shape[1:]:
            raise ValueError(
                f"expected skinning_weights (V, J) and a spread (J,), got {weights.shape} and "
                f"{values.shape}"
            )
        values = weights @ values
    if values.ndim != 1 or not np.isfinite(values).all() or not low < high:
        raise ValueError(
            f"expected a finite spread (V,) and low < high, got {values.shape}, {low} and {high}"
        )
    return np.asarray(matplotlib.colormaps[UNCERTAINTY](Normalize(low, high)(values))[:, :3])


def write_glb(
    path: Path,
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    colours: Colours = MODE,
    names: Sequence[str] | None = None,
    spacing: float = 0.0,
) -> None:
    """Write bodies to one GLB file, for viewers, Blender and web pages, atomically.

    Args:
        path: The file to write.
        vertices: (V, 3) or (n, V, 3) upright, metres; GLB is y up too.
        faces: (F, 3).
        colours: As in `render_bodies`.
        names: One distinct name for each body; "body 1", ... by default.
        spacing: Metres along x from each body to the next.

    Raises:
        OSError: The file cannot be written.
        ValueError: As in `render_bodies`, or the number of names is wrong.
    """
    import trimesh

    bodies, triangles = check_bodies(vertices, faces)
    rgb = paint(colours, bodies)
    names = names or [f"body {index + 1}" for index in range(len(bodies))]
    if len(names) != len(bodies) or len(set(names)) != len(names):
        raise ValueError(f"expected {len(bodies)} distinct names, got {list(names)}")
    scene = trimesh.Scene()
    for index, (name, body, colour) in enumerate(zip(names, bodies, rgb, strict=True)):
        mesh = trimesh.Trimesh(
            body + np.array([index * spacing, 0.0, 0.0]),
            triangles,
            vertex_colors=np.rint(255 * colour).astype(np.uint8),
            process=False,
        )
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    with whole_file(Path(path)) as partial:
        partial.write_bytes(scene.export(file_type="glb"))  # type: ignore[no-untyped-call]
