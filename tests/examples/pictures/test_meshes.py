import json
import struct

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
    body_views,
    interpolation_strip,
    mode_and_samples_views,
    uncertainty_colours,
    view_rotation,
    write_glb,
)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def hue(colour):
    """A colour without its brightness, which the light changes."""
    linear = np.asarray(colour, float) ** 2.2
    return linear / np.linalg.norm(linear, axis=-1, keepdims=True)


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
