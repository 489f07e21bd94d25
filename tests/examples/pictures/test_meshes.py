import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from examples.pictures import (
    MODE,
    SAMPLES,
    VIEWS,
    Camera,
    body_views,
    interpolation_strip,
    meshes,
    mode_and_samples_views,
    overlay_bodies,
    render_bodies,
    uncertainty_colours,
    view_rotation,
    write_glb,
)

SIZE = (120, 90)
CAMERA = Camera((280.0, 300.0), (50.0, 44.0), (0.1, -0.05, 4.0))
NEARER = np.array([0.0, 0.0, 0.8])


@pytest.fixture(scope="module")
def body():
    """An L of two boxes, which no mirror image and no quarter turn brings back onto itself."""
    upright = trimesh.creation.box((0.2, 0.9, 0.25))
    arm = trimesh.creation.box((0.45, 0.15, 0.15))
    arm.apply_translation((0.3, 0.3, 0.1))
    both = trimesh.util.concatenate([upright, arm]).subdivide().subdivide()
    return np.asarray(both.vertices), np.asarray(both.faces)


@pytest.fixture(scope="module")
def seen(body):
    """The same a little from the side, so that light falls on it from several."""
    vertices, faces = body
    return vertices @ view_rotation(35, 25).T, faces


@pytest.fixture(params=["egl", "matplotlib"])
def backend(request):
    if request.param == "egl":
        pytest.importorskip("pyrender")
        try:
            meshes._gl_renderer()
        except Exception as error:
            pytest.skip(f"no OpenGL through EGL here: {error}")
    return request.param


def covered(vertices, faces, camera, size):
    """The pixels whose centres lie in the projection of a triangle, one triangle at a time."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    inside = np.zeros((size[1], size[0]), bool)
    for triangle in camera.project(vertices)[faces]:
        signs = []
        for a, b in zip(triangle, np.roll(triangle, -1, axis=0), strict=True):
            signs.append((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0)
        inside |= np.all(signs, axis=0) | ~np.any(signs, axis=0)
    return inside


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def hue(colour):
    """A colour without its brightness, which the light changes."""
    linear = np.asarray(colour, float) ** 2.2
    return linear / np.linalg.norm(linear, axis=-1, keepdims=True)


def test_the_silhouette_is_the_projection_of_the_vertices(seen, backend):
    image = render_bodies(*seen, CAMERA, SIZE, backend=backend)
    assert image.shape == (90, 120, 4)
    assert image.dtype == np.uint8
    truth = covered(*seen, CAMERA, SIZE)
    assert 600 < truth.sum() < 0.5 * truth.size
    assert overlap(image[..., 3] > 127, truth) > 0.97


@settings(max_examples=8)
@given(st.floats(20, 100), st.floats(20, 70), st.floats(2, 8), st.floats(-0.3, 0.3))
def test_the_silhouette_follows_the_camera(x, y, z, shift):
    box = trimesh.creation.box((0.4, 0.6, 0.3))
    camera = Camera(260.0, (x, y), (shift, 0.0, z))
    image = render_bodies(box.vertices, box.faces, camera, SIZE, backend="matplotlib")
    truth = covered(box.vertices, box.faces, camera, SIZE)
    # as many pixels, but for half a one along the outline
    outline = 2 * (0.4 + 0.6) * 260 / (z - 0.15)
    assert abs(int((image[..., 3] > 127).sum()) - int(truth.sum())) <= 0.5 * outline + 2


def test_both_backends_draw_the_same(seen):
    pytest.importorskip("pyrender")
    if not meshes._has_gl():
        pytest.skip("no OpenGL here")
    gl, plain = (render_bodies(*seen, CAMERA, SIZE, backend=b) for b in ("egl", "matplotlib"))
    assert overlap(gl[..., 3] > 127, plain[..., 3] > 127) > 0.95
    inner = (gl[..., 3] == 255) & (plain[..., 3] == 255)
    difference = np.abs(gl[inner][:, :3].astype(int) - plain[inner][:, :3])
    assert np.median(difference) < 25


def test_a_body_has_its_colour(seen, backend):
    image = render_bodies(*seen, CAMERA, SIZE, colours="#3060c0", backend=backend)
    solid = image[image[..., 3] == 255][:, :3] / 255
    np.testing.assert_allclose(np.median(hue(solid), axis=0), hue(to_rgb("#3060c0")), atol=0.03)
    assert solid.std(axis=0).max() > 0.02  # and is lit from somewhere


def test_colours_of_vertices_stay_where_they_are(body, backend):
    vertices, faces = body
    above = vertices[:, 1:2] > 0  # y points down before a camera
    colours = np.where(above, to_rgb("#00c000"), to_rgb("#c00000"))
    image = render_bodies(vertices, faces, CAMERA, SIZE, colours=colours, backend=backend)
    for height, channel in ((0.35, 1), (-0.42, 0)):
        x, y = CAMERA.project(np.array([0.0, height, -0.1])).astype(int)
        assert image[y, x, :3].argmax() == channel
        assert image[y, x, 3] == 255


def test_near_bodies_hide_far_ones_whatever_their_order(seen, backend):
    vertices, faces = seen
    pair = np.stack([vertices, vertices + NEARER])
    colours = ("#c03030", "#3030c0")
    one = render_bodies(pair, faces, CAMERA, SIZE, colours=colours, backend=backend)
    two = render_bodies(pair[::-1], faces, CAMERA, SIZE, colours=colours[::-1], backend=backend)
    np.testing.assert_allclose(one, two, atol=1)
    x, y = CAMERA.project(np.zeros(3)).astype(int)
    assert one[y, x, 0] > one[y, x, 2]


def test_a_faint_body_lets_the_one_behind_show(seen, backend):
    vertices, faces = seen
    pair = np.stack([vertices, 1.3 * vertices + NEARER])
    kwargs = {"colours": ("#ff0000", "#0000ff"), "backend": backend}
    faint = render_bodies(pair, faces, CAMERA, SIZE, alphas=(0.4, 1.0), **kwargs).astype(float)
    front = render_bodies(pair[:1], faces, CAMERA, SIZE, **{**kwargs, "colours": "#ff0000"})
    back = render_bodies(pair[1:], faces, CAMERA, SIZE, **{**kwargs, "colours": "#0000ff"})
    both = (front[..., 3] == 255) & (back[..., 3] == 255)
    assert both.sum() > 300
    mixed = 0.4 * front[both].astype(float) + 0.6 * back[both]
    np.testing.assert_allclose(faint[both], mixed, atol=2)
    alone = (front[..., 3] == 255) & (back[..., 3] == 0)
    np.testing.assert_allclose(faint[alone][:, 3], 0.4 * 255, atol=1)


def test_an_overlay_changes_the_image_where_the_body_is(seen, backend):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    kept = image.copy()
    drawn = overlay_bodies(image, *seen, CAMERA, backend=backend)
    truth = covered(*seen, CAMERA, SIZE)
    assert overlap((drawn != image).any(-1), truth) > 0.9
    np.testing.assert_array_equal(image, kept)
    middle = hue(drawn[truth] / 255)
    np.testing.assert_allclose(np.median(middle, axis=0), hue(to_rgb(MODE)), atol=0.05)


def test_views_show_each_side_in_one_scale(body, backend):
    vertices, faces = body
    views = ("front", "side", "top", "back")
    image = body_views(vertices, faces, views=views, height=150, backend=backend)
    assert image.shape[0] == 150
    ink = (image < 250).any(-1)
    centred = vertices - (vertices.min(0) + vertices.max(0)) / 2
    extents = [np.ptp(centred @ view_rotation(*VIEWS[name]).T, axis=0)[:2] for name in views]
    highest = max(2 * np.abs(centred @ view_rotation(*VIEWS[n]).T)[:, 1].max() for n in views)
    scale = 150 / (1.08 * highest)
    left = 0
    for (width, height), name in zip(extents, views, strict=True):
        reach = np.abs(centred @ view_rotation(*VIEWS[name]).T)[:, 0].max()
        panel = round(1.08 * scale * 2 * reach)
        rows, columns = np.nonzero(ink[:, left : left + panel])
        # perspective from 40 m makes what is near a hundredth larger
        assert np.ptp(columns) + 1 == pytest.approx(scale * width, abs=3)
        assert np.ptp(rows) + 1 == pytest.approx(scale * height, abs=3)
        left += panel
    assert left == image.shape[1]


def test_the_arm_is_on_the_right_from_the_front_and_the_left_from_behind(body, backend):
    front, back = (
        (body_views(*body, views=(view,), height=100, backend=backend) < 250).any(-1)
        for view in ("front", "back")
    )
    upper = slice(10, 35)
    assert front[upper, -12:].sum() > 4 * front[-30:, -12:].sum()
    assert back[upper, :12].sum() > 4 * back[-30:, :12].sum()


def test_mode_and_samples_have_their_colours_and_one_frame(body, backend):
    vertices, faces = body
    samples = vertices + np.array([[[0.5, 0, 0]], [[-0.5, 0, 0]], [[1.0, 0, 0]]])
    images = mode_and_samples_views(vertices, samples, faces, height=90, backend=backend)
    assert list(images) == ["together", "mode", "sample 1", "sample 2", "sample 3"]
    assert len({image.shape for image in images.values()}) == 1
    ink = {name: (image < 250).any(-1) for name, image in images.items()}
    for name, colour in zip(list(images)[1:], (MODE, *SAMPLES, SAMPLES[0]), strict=True):
        pixels = hue(images[name][ink[name]] / 255)
        np.testing.assert_allclose(np.median(pixels, axis=0), hue(to_rgb(colour)), atol=0.06)
    everything = np.any([ink[name] for name in list(images)[1:]], axis=0)
    assert overlap(ink["together"], everything) > 0.98
    mode = ink["mode"]
    close = np.abs(images["together"][mode].astype(int) - images["mode"][mode]).max(-1) < 3
    assert close.mean() > 0.8  # the mode is before all of them; only its outline blends


def test_an_interpolation_strip_goes_from_one_end_to_the_other(body, backend):
    vertices, faces = body
    bodies = [vertices * (1, share, 1) for share in np.linspace(1, 0.4, 4)]
    strip = interpolation_strip(bodies, faces, height=80, backend=backend)
    assert strip.shape[1] % 4 == 0
    panels = np.split(strip, 4, axis=1)
    heights = [np.ptp(np.nonzero((panel < 250).any(-1))[0]) for panel in panels]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] == pytest.approx(0.4 * heights[0], abs=3)
    for panel, colour in ((panels[0], SAMPLES[0]), (panels[-1], SAMPLES[1])):
        pixels = hue(panel[(panel < 250).any(-1)] / 255)
        np.testing.assert_allclose(np.median(pixels, axis=0), hue(to_rgb(colour)), atol=0.06)


def test_uncertainty_goes_to_the_limbs_by_the_skinning_weights():
    weights = np.array([[1.0, 0], [0.5, 0.5], [0, 1]])
    colours = uncertainty_colours([0, 80], 0, 80, weights)
    assert colours.shape == (3, 3)
    np.testing.assert_array_equal(colours, uncertainty_colours([0, 40, 80], 0, 80))
    brightness = colours @ [0.3, 0.6, 0.1]
    assert (np.diff(brightness) > 0.1).all()
    np.testing.assert_array_equal(uncertainty_colours([200.0], 0, 80), colours[2:])


@settings(max_examples=8)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5), st.floats(0, 2))
def test_a_glb_file_holds_every_body(tmp_path_factory, shades, spacing):
    box = trimesh.creation.box((0.3, 1.0, 0.2))
    vertices = np.stack([np.asarray(box.vertices) * (1, 1 + i, 1) for i in range(len(shades))])
    path = tmp_path_factory.mktemp("glb") / "bodies.glb"
    colours = np.broadcast_to(np.array(shades)[:, None, None], vertices.shape)
    write_glb(path, vertices, box.faces, colours=colours, spacing=spacing)
    scene = trimesh.load_scene(path)
    assert list(scene.geometry) == [f"body {i + 1}" for i in range(len(shades))]
    for index, mesh in enumerate(scene.geometry.values()):
        moved = vertices[index] + np.array([index * spacing, 0, 0])
        np.testing.assert_allclose(mesh.vertices, moved, atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, box.faces)
        expected = np.rint(255 * shades[index])
        np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3], expected, atol=1)


def test_a_glb_file_is_a_glb_file(body, tmp_path):
    path = tmp_path / "one.glb"
    write_glb(path, *body, names=["mode"])
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack("<I", data[12:16])[0]
    assert "mode" in [node.get("name") for node in json.loads(data[20 : 20 + size])["nodes"]]


def test_without_opengl_matplotlib_draws_and_says_so(body, monkeypatch):
    def broken():
        raise ImportError("no libEGL")

    meshes._has_gl.cache_clear()
    monkeypatch.setattr(meshes, "_gl_renderer", broken)
    try:
        with pytest.warns(UserWarning, match="no OpenGL.*no libEGL.*matplotlib"):
            image = render_bodies(*body, CAMERA, SIZE)
        again = render_bodies(*body, CAMERA, SIZE)  # says it once
        np.testing.assert_array_equal(image, again)
        plain = render_bodies(*body, CAMERA, SIZE, backend="matplotlib")
        np.testing.assert_array_equal(image, plain)
        with pytest.raises(ImportError, match="no libEGL"):
            render_bodies(*body, CAMERA, SIZE, backend="egl")
    finally:
        meshes._has_gl.cache_clear()


def test_the_environment_is_left_alone():
    program = """
import os, sys
before = dict(os.environ)
import examples.pictures
assert dict(os.environ) == before
assert not {"pyrender", "OpenGL", "trimesh", "pyglet"} & set(sys.modules), "imported too early"
from examples.pictures import meshes
try:
    meshes._gl_renderer()
except Exception as error:
    print("no GL", error)
assert dict(os.environ) == before
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYOPENGL_PLATFORM", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_platform_that_the_user_chose_stays(monkeypatch):
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    with meshes._egl():
        assert os.environ["PYOPENGL_PLATFORM"] == "osmesa"
    assert os.environ["PYOPENGL_PLATFORM"] == "osmesa"
    monkeypatch.delenv("PYOPENGL_PLATFORM")
    with meshes._egl():
        assert os.environ["PYOPENGL_PLATFORM"] == "egl"
    assert "PYOPENGL_PLATFORM" not in os.environ


def test_a_camera_projects_as_it_says():
    camera = Camera((100.0, 200.0), (10.0, 20.0), (0.0, 0.0, 2.0))
    np.testing.assert_allclose(camera.project(np.array([[1.0, -1, 0]])), [[60, -80]])


@pytest.mark.parametrize(
    "values", [(0.0, (1, 1)), (np.nan, (1, 1)), (5.0, (1, np.inf)), (5.0, (1, 1), (0, np.nan, 0))]
)
def test_impossible_cameras_are_refused(values):
    with pytest.raises(ValueError, match="positive focal length"):
        Camera(*values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"vertices": np.zeros((3, 2))},
            r"expected vertices \(V, 3\) or \(n, V, 3\), got \(3, 2\)",
        ),
        ({"vertices": np.full((4, 3), np.nan)}, "vertices are not finite"),
        ({"vertices": np.zeros((4, 3)) - (0, 0, 9)}, "behind the camera.*-5 m"),
        ({"faces": np.zeros((0, 3), int)}, r"expected faces \(F, 3\)"),
        ({"faces": np.array([[0, 1, 4]])}, "faces name vertices 0 to 4, but there are 4"),
        ({"colours": ("red", "blue")}, "expected 1 colours, or one, got 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, message):
    good = {"vertices": np.eye(4)[:, :3], "faces": np.array([[0, 1, 2]])}
    with pytest.raises(ValueError, match=message):
        render_bodies(**(good | {"camera": CAMERA, "size": SIZE} | change), backend="matplotlib")


def test_other_impossible_requests_are_refused(body, tmp_path):
    vertices, faces = body
    with pytest.raises(ValueError, match="expected views out of front, side, back, top"):
        body_views(vertices, faces, views=("below",))
    with pytest.raises(ValueError, match="of the same V"):
        mode_and_samples_views(vertices, vertices[None, :-1], faces[:1])
    with pytest.raises(ValueError, match="expected 1 distinct names"):
        write_glb(tmp_path / "x.glb", vertices, faces, names=["a", "b"])
    with pytest.raises(ValueError, match="low < high"):
        uncertainty_colours([1.0], 2, 1)
    with pytest.raises(ValueError, match=r"spread \(J,\)"):
        uncertainty_colours([1.0], 0, 1, np.ones((4, 2)))
