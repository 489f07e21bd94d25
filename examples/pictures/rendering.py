"""Rendering of bodies with OpenGL, or with matplotlib if OpenGL is unavailable.

Vertices are plain arrays, (V, 3) for one body or (n, V, 3) for several, in metres; faces (F, 3) are
the same for all. A `Camera` looks along +z with y *down*, as OpenCV's does. OpenGL draws through
EGL, which needs no display.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

from examples.pictures.canvas import PixelCanvas, check_image, lay_over
from examples.pictures.style import MODE, Array, Image
from examples.pinhole import flip_yz, project

if TYPE_CHECKING:
    import pyrender

__all__ = [
    "Backend",
    "Camera",
    "Colours",
    "check_bodies",
    "overlay_bodies",
    "paint",
    "render_bodies",
]

Backend: TypeAlias = Literal["auto", "egl", "matplotlib"]
Colours: TypeAlias = str | Sequence[str] | Array

# Directions towards the lights, in the frame of the camera (x right, y down, z forward), and their
# strengths: a key light from the upper left, a fill light from the right, and ambient light.
LIGHTS = (((-0.45, -0.6, -0.75), 0.8), ((0.85, -0.1, -0.5), 0.22))
AMBIENT = 0.15
FINER = 3  # oversampling of both backends: OpenGL alone draws jagged outlines
# Bodies may share a surface, as the mode and its samples do. Each is this many metres in front of
# the next; otherwise rounding would decide per pixel.
IN_FRONT = 0.002
GAMMA = 2.2  # of pyrender's shader: lights add up in linear space, colours are gamma-encoded


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at the origin, looking along +z with y down.

    Args:
        focal: Focal length in pixels, one for both axes or (x, y).
        principal_point: Intersection of axis and image, (x, y) in pixels from the upper left edge.
        translation: (3,) metres, added to every vertex.
            Weak perspective (s, tx, ty) of a crop of side b is (tx, ty, 2 focal / (b s)).

    Raises:
        ValueError: A value is not finite, or a focal length not positive.
    """

    focal: float | tuple[float, float]
    principal_point: tuple[float, float]
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        values = np.concatenate([self.focals, self.principal_point, self.translation])
        if values.shape != (7,) or not np.isfinite(values).all() or min(self.focals) <= 0:
            raise ValueError(
                "expected a positive focal length, a principal point (2,) and a translation (3,), "
                f"all finite, got {self}"
            )

    @property
    def focals(self) -> Array:
        """(2,) focal lengths along x and y, in pixels."""
        return np.broadcast_to(np.asarray(self.focal, dtype=float), (2,))

    def project(self, points: Array) -> Array:
        """Points (..., 3) in metres to pixels (..., 2)."""
        seen: Array = np.asarray(points) + np.asarray(self.translation)
        return project(seen) * self.focals + np.asarray(self.principal_point)


def check_bodies(vertices: ArrayLike, faces: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Check vertices and faces; returns (n, V, 3) and (F, 3)."""
    bodies = np.asarray(vertices, dtype=float)
    triangles = np.asarray(faces).astype(np.int64)
    if bodies.ndim not in (2, 3) or bodies.shape[-1] != 3 or not bodies.size:
        raise ValueError(f"expected vertices (V, 3) or (n, V, 3), got {bodies.shape}")
    if not np.isfinite(bodies).all():
        raise ValueError("vertices are not finite")
    if triangles.ndim != 2 or triangles.shape[-1] != 3 or not triangles.size:
        raise ValueError(f"expected faces (F, 3), got {triangles.shape}")
    if triangles.min() < 0 or triangles.max() >= bodies.shape[-2]:
        raise ValueError(
            f"faces name vertices {triangles.min()} to {triangles.max()}, "
            f"but there are {bodies.shape[-2]}"
        )
    return bodies.reshape(-1, *bodies.shape[-2:]), triangles


def paint(colours: Colours, bodies: Array) -> Array:
    """Expand one colour, one per body or one per vertex to (n, V, 3) in [0, 1]."""
    if isinstance(colours, str):
        colours = [colours] * len(bodies)
    if isinstance(colours[0], str):
        rgb = np.array([to_rgb(str(colour)) for colour in colours])[:, None]
    else:
        rgb = np.asarray(colours, dtype=float)
    if rgb.ndim > 3 or rgb.shape[0] not in (1, len(bodies), bodies.shape[1]):
        raise ValueError(f"expected {len(bodies)} colours, or one, got {len(rgb)}")
    return np.broadcast_to(rgb, bodies.shape)


@contextlib.contextmanager
def _egl() -> Iterator[None]:
    """Set the platform of PyOpenGL in the environment during import, and restore it."""
    was_set = "PYOPENGL_PLATFORM" in os.environ
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    try:
        yield
    finally:
        if not was_set:
            del os.environ["PYOPENGL_PLATFORM"]


@functools.cache
def _gl_renderer() -> "pyrender.OffscreenRenderer":
    with _egl():
        import pyrender

        return pyrender.OffscreenRenderer(64, 64)


@functools.cache
def _has_gl() -> bool:
    try:
        _gl_renderer()
    except Exception as error:  # the exception depends on the driver
        warnings.warn(
            f"no OpenGL through EGL ({type(error).__name__}: {error}); drawing bodies with "
            "matplotlib, which shades each triangle as one",
            stacklevel=2,
        )
        return False
    return True


# A layer is one body drawn alone: (H, W, 4) colour in [0, 1], multiplied by its alpha, which is the
# covered share of the pixel, and (H, W) depth in metres, infinite outside the body.
Layer: TypeAlias = tuple[Array, Array]


def _vertex_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Normals (V, 3), weighted by area, so that folded slivers at bent limbs leave no dents."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    summed = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(summed, faces[:, corner], normals)
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


def _draw_gl(
    vertices: Array, faces: NDArray[np.int64], rgb: Array, camera: Camera, size: tuple[int, int]
) -> Layer:
    renderer = _gl_renderer()
    import pyrender

    flipped = flip_yz(vertices)  # OpenGL's axes: y up, looking along -z
    depth_range = vertices[:, 2].min(), vertices[:, 2].max()
    scene = pyrender.Scene(bg_color=(0.0, 0.0, 0.0, 0.0), ambient_light=(AMBIENT,) * 3)
    body = pyrender.Primitive(
        positions=flipped,
        normals=_vertex_normals(flipped, faces),
        color_0=np.concatenate([rgb**GAMMA, np.ones_like(rgb[:, :1])], axis=1),
        indices=faces,
        material=pyrender.MetallicRoughnessMaterial(metallicFactor=0.0, roughnessFactor=0.9),
        mode=pyrender.constants.GLTF.TRIANGLES,
    )
    scene.add(pyrender.Mesh([body]))
    scene.add(
        pyrender.IntrinsicsCamera(
            *(FINER * camera.focals),
            *(FINER * np.asarray(camera.principal_point)),
            znear=0.95 * depth_range[0],
            zfar=1.05 * depth_range[1],
        )
    )
    for direction, strength in LIGHTS:
        # A light shines along the -z of its pose.
        towards = flip_yz(np.array(direction)) / np.linalg.norm(direction)
        pose = np.eye(4)
        pose[:3, 2] = towards
        pose[:3, 0] = np.cross([0.0, 1.0, 0.0], towards)
        pose[:3, 0] /= np.linalg.norm(pose[:3, 0])
        pose[:3, 1] = np.cross(towards, pose[:3, 0])
        scene.add(pyrender.DirectionalLight(intensity=np.pi * strength), pose=pose)
    renderer.viewport_width, renderer.viewport_height = FINER * size[0], FINER * size[1]
    colour, depth = renderer.render(scene, flags=pyrender.RenderFlags.RGBA)
    fine = colour.reshape(size[1], FINER, size[0], FINER, 4) / np.float32(255)
    depth = depth.reshape(fine.shape[:-1])
    return fine.mean(axis=(1, 3)), np.where(depth > 0, depth, np.inf).min(axis=(1, 3))


def _draw_matplotlib(
    vertices: Array, faces: NDArray[np.int64], rgb: Array, camera: Camera, size: tuple[int, int]
) -> Layer:
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    # The visible side is lit for either winding of the triangles.
    normals *= -np.sign((normals * corners.mean(axis=1)).sum(axis=1, keepdims=True))
    light = np.full(len(faces), AMBIENT)
    for direction, strength in LIGHTS:
        towards = np.array(direction) / np.linalg.norm(direction)
        light += strength * np.maximum(normals @ towards, 0.0)
    depth = corners[..., 2].mean(axis=1)
    order = np.argsort(-depth)
    corners_2d = camera.project(corners - np.asarray(camera.translation))[order]
    linear = rgb[faces].mean(axis=1) ** GAMMA * light[:, None]
    shaded = np.clip(linear, 0, 1)[order] ** (1 / GAMMA)
    # The depth of each triangle as a colour of 24 bits.
    near, far = depth.min(), depth.max() + 1e-6
    code = 1 + np.rint((depth[order] - near) / (far - near) * (2**24 - 2)).astype(np.int64)
    code_rgb = np.stack([code >> 16, code >> 8 & 255, code & 255], axis=1) / 255

    def draw(colours: Array) -> NDArray[np.int64]:
        # Matplotlib's antialiasing shows every seam between triangles.
        canvas = PixelCanvas(FINER * size[0], FINER * size[1])
        triangles = PolyCollection(
            list(FINER * corners_2d),
            facecolors=colours,
            edgecolors="none",
            linewidths=0.0,
            antialiaseds=False,
            snap=False,
        )
        canvas.ax.add_collection(triangles, autolim=False)
        return canvas.pixels().reshape(size[1], FINER, size[0], FINER, 4).astype(np.int64)

    coded = draw(code_rgb)
    code = coded[..., 0] << 16 | coded[..., 1] << 8 | coded[..., 2]
    drawn = np.where(coded[..., 3] > 0, near + (code - 1) / (2**24 - 2) * (far - near), np.inf)
    fine = draw(shaded) / np.float32(255)
    fine[..., :3] *= fine[..., 3:]
    return fine.mean(axis=(1, 3)), drawn.min(axis=(1, 3))


def render_bodies(
    vertices: ArrayLike,
    faces: ArrayLike,
    camera: Camera,
    size: tuple[int, int],
    *,
    colours: Colours = MODE,
    alphas: float | Sequence[float] = 1.0,
    backend: Backend = "auto",
) -> Image:
    """Draw bodies in front of a camera, on a transparent background.

    Transparent bodies are blended per pixel from far to near; only the front surface of each body
    is visible, so that a transparent body looks as smooth as an opaque one. If surfaces lie within
    millimetres, the first body is in front.

    Args:
        vertices: (V, 3) or (n, V, 3) in metres; with the camera's translation added they must
            lie in front of it.
        faces: (F, 3) vertex indices.
        camera: The camera.
        size: (width, height) of the image in pixels.
        colours: One colour, one for each body, or RGB in [0, 1] of each vertex, (V, 3) or
            (n, V, 3).
        alphas: Opacity in [0, 1], one or one for each body.
        backend: "egl" for OpenGL, "matplotlib" without it, "auto" for OpenGL if it works, which is
            tried once.

    Returns:
        (height, width, 4) RGBA, uint8, with straight alpha.

    Raises:
        ValueError: A shape is wrong, a value is not finite, or a vertex lies behind the camera.
    """
    bodies, triangles = check_bodies(vertices, faces)
    rgb = paint(colours, bodies)
    opacity = np.broadcast_to(np.asarray(alphas, dtype=float), (len(bodies),))
    seen = bodies + np.asarray(camera.translation)
    if (seen[..., 2] <= 0).any():
        raise ValueError(
            "a vertex lies behind the camera: with its translation added, the least depth is "
            f"{seen[..., 2].min():.3g} m, expected more than 0"
        )
    if backend == "auto":
        backend = "egl" if _has_gl() else "matplotlib"
    draw = {"egl": _draw_gl, "matplotlib": _draw_matplotlib}[backend]
    layers = [draw(body, triangles, c, camera, size) for body, c in zip(seen, rgb, strict=True)]
    colour = np.stack([layer for layer, _ in layers]) * opacity[:, None, None, None]
    depths = np.stack([depth + index * IN_FRONT for index, (_, depth) in enumerate(layers)])
    far_to_near = np.argsort(-depths, axis=0)
    colour = np.take_along_axis(colour, far_to_near[..., None], axis=0)
    mixed = np.zeros_like(colour[0])
    for layer in colour:
        mixed = layer + (1 - layer[..., 3:]) * mixed
    mixed[..., :3] /= np.maximum(mixed[..., 3:], 1e-6)
    return np.rint(255 * np.clip(mixed, 0, 1)).astype(np.uint8)


def overlay_bodies(
    image: Image,
    vertices: ArrayLike,
    faces: ArrayLike,
    camera: Camera,
    *,
    colours: Colours = MODE,
    alphas: float | Sequence[float] = 1.0,
    backend: Backend = "auto",
) -> Image:
    """Draw bodies over their photograph.

    Args:
        image: (H, W, 3) RGB, uint8.
        vertices: As in `render_bodies`.
        faces: (F, 3).
        camera: The camera that took the image.
        colours: As in `render_bodies`.
        alphas: As in `render_bodies`.
        backend: As in `render_bodies`.

    Returns:
        (H, W, 3) RGB, uint8.

    Raises:
        ValueError: As in `render_bodies`, or the image has another shape or dtype.
    """
    height, width = check_image(image).shape[:2]
    layer = render_bodies(
        vertices, faces, camera, (width, height), colours=colours, alphas=alphas, backend=backend
    )
    return lay_over(image, layer)
