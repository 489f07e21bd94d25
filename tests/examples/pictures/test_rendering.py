import os

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from examples.pictures import MODE, Camera, overlay_bodies, render_bodies, rendering
from tests.processes import run_python

SIZE = (120, 90)
CAMERA = Camera((280.0, 300.0), (50.0, 44.0), (0.1, -0.05, 4.0))
NEARER = np.array([0.0, 0.0, 0.8])


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
    if not rendering._has_gl():
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


def test_of_two_bodies_in_one_place_the_first_is_seen(seen, backend):
    vertices, faces = seen
    pair = np.stack([vertices, vertices])
    colours = ("#c03030", "#3030c0")
    both = render_bodies(pair, faces, CAMERA, SIZE, colours=colours, backend=backend)
    first = render_bodies(vertices, faces, CAMERA, SIZE, colours=colours[0], backend=backend)
    solid = first[..., 3] == 255
    np.testing.assert_array_equal(both[solid], first[solid])


def test_outlines_are_smooth(seen, backend):
    alpha = render_bodies(*seen, CAMERA, SIZE, backend=backend)[..., 3]
    shares = np.unique(alpha[(alpha > 0) & (alpha < 255)])
    assert len(shares) >= 8  # ninths of a pixel


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


def test_without_opengl_matplotlib_draws_and_says_so(body, monkeypatch):
    def broken():
        raise ImportError("no libEGL")

    rendering._has_gl.cache_clear()
    monkeypatch.setattr(rendering, "_gl_renderer", broken)
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
        rendering._has_gl.cache_clear()


def test_the_environment_is_left_alone():
    program = """
import os, sys
before = dict(os.environ)
import examples.pictures
assert dict(os.environ) == before
assert not {"pyrender", "OpenGL", "trimesh", "pyglet"} & set(sys.modules), "imported too early"
from examples.pictures import rendering
try:
    rendering._gl_renderer()
except Exception as error:
    print("no GL", error)
assert dict(os.environ) == before
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYOPENGL_PLATFORM", "DISPLAY")}
    run_python(program, env=environment)


def test_a_platform_that_the_user_chose_stays(monkeypatch):
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    with rendering._egl():
        assert os.environ["PYOPENGL_PLATFORM"] == "osmesa"
    assert os.environ["PYOPENGL_PLATFORM"] == "osmesa"
    monkeypatch.delenv("PYOPENGL_PLATFORM")
    with rendering._egl():
        assert os.environ["PYOPENGL_PLATFORM"] == "egl"
    assert "PYOPENGL_PLATFORM" not in os.environ


def test_camera_projects_as_documented():
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
def test_undrawable_meshes_are_rejected(change, message):
    good = {"vertices": np.eye(4)[:, :3], "faces": np.array([[0, 1, 2]])}
    with pytest.raises(ValueError, match=message):
        render_bodies(**(good | {"camera": CAMERA, "size": SIZE} | change), backend="matplotlib")
