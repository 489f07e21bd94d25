"""Pictures, meshes and JSON of people."""

import dataclasses
import json
import struct

import numpy as np
import pytest

from flowprior.body import BodyModel
from flowprior.results.bodies import pose_bodies
from flowprior.results.colours import STOPS, UNKNOWN, confidence_colours
from flowprior.results.glb_file import vertex_normals, write_glb
from flowprior.results.overlay import overlay_picture
from flowprior.results.painting import Pinhole, draw_dots, paint_mesh
from flowprior.results.person_file import person_content, write_person
from flowprior.skeleton import SMPL_24
from tests.results.helpers import small_fits
from tests.view.people import people, with_hands

Image = pytest.importorskip("PIL.Image", reason="Pillow draws pictures: flowprior[fit]")
trimesh = pytest.importorskip("trimesh")

CUBE = trimesh.creation.box((1.0, 1.0, 1.0))


def cube(*shift):
    return np.asarray(CUBE.vertices) + np.array(shift)


def canvas(width=100, height=80):
    return Image.new("RGB", (width, height), (255, 255, 255))


def painted(image):
    return (np.asarray(image) != 255).any(axis=-1)


def test_colours_run_from_uncertain_to_certain():
    colours = confidence_colours([0.0, 1.0, np.nan])
    assert colours.tolist() == [list(STOPS[-1]), list(STOPS[0]), list(UNKNOWN)]
    ramp = confidence_colours(np.linspace(0, 1, 50)).astype(int)
    luminance = ramp @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    assert confidence_colours([-1, 2]).tolist() == [list(STOPS[-1]), list(STOPS[0])]


def test_a_mesh_is_painted_where_the_camera_sees_it():
    image = canvas()
    vertices = cube(0.5, 0, 4.5)
    paint_mesh(image, vertices, CUBE.faces, Pinhole(80.0, (50, 40)), (200, 30, 30))
    rows, columns = np.nonzero(painted(image))
    # The near face, 4 m away, is 20 pixels wide.
    assert abs(rows.min() - 30) <= 1
    assert abs(rows.max() - 49) <= 1
    assert abs(columns.min() - 50) <= 2
    assert abs(columns.max() - 69) <= 1


def test_nearer_bodies_cover_what_is_behind():
    image = canvas()
    camera = Pinhole(80.0, (50, 40))
    paint_mesh(image, cube(0, 0, 6), CUBE.faces, camera, (0, 0, 255))
    paint_mesh(image, cube(0, 0, 4), CUBE.faces, camera, (255, 0, 0))
    red, _, blue = np.asarray(image)[40, 50]
    assert red > 80 > blue


@pytest.mark.parametrize("shift", [[0, 0, 0.2], [0, 0, -4], [np.nan, 0, 4], [40, 0, 4]])
def test_bodies_out_of_sight_are_not_painted(shift):
    image = canvas()
    paint_mesh(image, cube(*shift), CUBE.faces, Pinhole(80.0, (50, 40)), (0, 0, 0))
    assert not painted(image).any()


def test_opacity():
    image = canvas()
    vertices = cube(0, 0, 4)
    paint_mesh(image, vertices, CUBE.faces, Pinhole(80.0, (50, 40)), (0, 0, 0), opacity=0.5)
    assert 120 < np.asarray(image)[40, 50, 0] < 140


def test_dots_have_their_colours():
    image = canvas()
    draw_dots(image, np.array([[20, 30], [70.4, 40.2], [np.nan, 3]]), np.eye(3) * 200, 6)
    pixels = np.asarray(image)
    assert pixels[30, 20].tolist() == [200, 0, 0]
    assert pixels[40, 70].tolist() == [0, 200, 0]
    assert painted(image).sum() == pytest.approx(2 * np.pi * 36, rel=0.25)


def posed():
    fits = small_fits(2)
    body = BodyModel()
    return fits[:2], pose_bodies(fits[:2], body), body


def test_the_overlay_shows_photo_bodies_and_side_view():
    fits, bodies, _ = posed()
    photo = np.full((480, 640, 3), (10, 120, 30), np.uint8)
    picture = overlay_picture(fits, bodies, photo, height=240)
    assert picture.dtype == np.uint8
    first, second = picture[:240, :320], picture[:240, 328:648]
    green = (10, 120, 30)
    assert (first == green).all(axis=-1).mean() > 0.8
    share = (second == green).all(axis=-1).mean()
    assert 0.2 < share < 0.97
    side = picture[:240, 660:]
    assert (np.abs(side.astype(int) - 245).max(axis=-1) > 20).mean() > 0.05
    without = overlay_picture(fits, bodies, None, height=240)
    assert (without[:240, :320] == (245, 245, 248)).all(axis=-1).mean() > 0.8


def test_the_overlay_of_a_smaller_photo_shows_the_same():
    fits, bodies, _ = posed()
    whole = overlay_picture(fits, bodies, np.full((480, 640, 3), 99, np.uint8), height=240)
    small = overlay_picture(fits, bodies, np.full((120, 160, 3), 99, np.uint8), height=240)
    assert whole.shape == small.shape
    assert np.abs(whole.astype(int) - small).mean() < 1


def with_fingers(flexion, hands=("fitted", "at rest")):
    """The overlay of somebody with bent left fingers."""
    fits = with_hands(people(1), flexion)
    fits = dataclasses.replace(fits, hands=np.array([hands]))
    bodies = pose_bodies(fits, BodyModel(hands=True))
    return overlay_picture(fits, bodies, height=240).astype(int), fits


def test_the_overlay_shows_posed_hands():
    flat, fits = with_fingers(0.0)
    bent, _ = with_fingers(1.2)
    # The second panel, between its left edge and the side view.
    changed = np.abs(bent - flat)[:240, 328:648].max(axis=-1) > 20
    rows, columns = np.nonzero(changed)
    zoom = 240 / fits.image_size[0, 1]
    wrist = fits.joints[0, 20]
    place = zoom * (fits.focal_px[0] * wrist[:2] / wrist[2] + fits.centre_px[0])
    reach = zoom * fits.focal_px[0] * 0.3 / wrist[2]
    assert len(rows) > 10
    assert np.abs(np.stack([columns, rows], axis=1) - place).max() < reach
    # The close-up of the fitted hand, above nothing.
    close_up, other = np.abs(bent - flat)[:118, -118:], bent[122:240, -118:]
    assert (close_up.max(axis=-1) > 20).mean() > 0.1
    assert (other == 255).all()


def test_hands_at_rest_have_no_close_up():
    wide, _ = with_fingers(0.0)
    narrow, _ = with_fingers(0.0, ("at rest", "at rest"))
    assert wide.shape[1] - narrow.shape[1] == 118 + 8  # its column and the gap


def test_the_overlay_of_people_without_a_fit():
    fits, _, body = posed()
    for name in ("global_orient", "body_pose", "transl", "joints", "joint_confidence"):
        getattr(fits, name)[:] = np.nan
    bodies = pose_bodies(fits, body)
    assert not bodies.posed.any()
    assert overlay_picture(fits, bodies).ndim == 3


def test_glb_holds_positions_normals_and_names(tmp_path):
    _, bodies, _ = posed()
    path = tmp_path / "bodies.glb"
    write_glb(path, list(bodies.vertices), bodies.faces, ["one", "two"], [(1, 0, 0), (0, 0, 1)])
    scene = trimesh.load(path)
    assert set(scene.geometry) == {"one", "two"}
    for name, vertices in zip(("one", "two"), bodies.vertices, strict=True):
        mesh = scene.geometry[name]
        np.testing.assert_array_equal(np.asarray(mesh.faces), bodies.faces)
        np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(mesh.vertex_normals, axis=1), 1, atol=1e-3)
    assert scene.geometry["one"].visual.material.baseColorFactor.tolist() == [255, 0, 0, 255]


def test_the_header_of_glb(tmp_path):
    write_glb(tmp_path / "cube.glb", [CUBE.vertices], CUBE.faces, ["cube"])
    content = (tmp_path / "cube.glb").read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    assert length % 4 == 0
    size, kind = struct.unpack("<I4s", content[12:20])
    document = json.loads(content[20 : 20 + size])
    assert kind == b"JSON"
    assert document["accessors"][1]["min"] == [-0.5] * 3


def test_glb_of_nobody_and_of_infinite_vertices(tmp_path):
    write_glb(tmp_path / "empty.glb", [], CUBE.faces, [])
    content = (tmp_path / "empty.glb").read_bytes()
    assert json.loads(content[20:])["asset"]["version"] == "2.0"
    with pytest.raises(ValueError, match="cube: vertices are not finite"):
        write_glb(tmp_path / "x.glb", [CUBE.vertices * np.nan], CUBE.faces, ["cube"])
    with pytest.raises(ValueError, match="one name and one colour"):
        write_glb(tmp_path / "x.glb", [CUBE.vertices], CUBE.faces, [])
    assert not (tmp_path / "x.glb").exists()


def test_normals_point_outwards():
    normals = vertex_normals(np.asarray(CUBE.vertices), np.asarray(CUBE.faces))
    assert ((normals * CUBE.vertices).sum(axis=1) > 0).all()


def test_the_json_of_a_person_has_every_joint_and_no_nan(tmp_path):
    fits = small_fits()
    fits.joint_std_mm[1, 4] = np.nan
    write_person(tmp_path / "person.json", fits, 1)
    found = json.loads((tmp_path / "person.json").read_text())
    assert list(found["joints"]) == list(SMPL_24.joint_names)
    assert found["joints"]["left_knee"]["std_mm"] is None
    np.testing.assert_allclose(found["smpl"]["body_pose"], fits.body_pose[1].ravel(), atol=1e-5)
    assert found == person_content(fits, 1)
    assert set(found["keypoints_2d"]) == set(fits.skeleton.joint_names)
