import numpy as np
import pytest

from examples.data.h36m_cameras import CAMERAS, SUBJECTS, read_h36m_cameras
from tests.examples.data.lifting_files import calibration, made_up_cameras, write_metadata


def test_which_cameras_there_are():
    assert CAMERAS == ("54138969", "55011271", "58860488", "60457274")
    assert SUBJECTS == ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    sizes = [made_up_cameras()["S1", camera].image_size for camera in CAMERAS]
    assert sizes == [(1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002)]


def test_where_the_numbers_stand(tmp_path):
    """Six numbers by camera and then subject, nine by camera, as the data set's code reads them."""
    numbers = np.arange(300.0)
    cameras = read_h36m_cameras(write_metadata(tmp_path, numbers))
    assert len(cameras) == 7 * 4
    for subject, name, first in (
        ("S1", "54138969", 0),
        ("S11", "54138969", 60),
        ("S9", "60457274", 6 * (3 * 11 + 8)),
    ):
        np.testing.assert_allclose(1000 * cameras[subject, name].position, first + np.arange(3, 6))
    lens = cameras["S5", "58860488"]
    first = 264 + 2 * 9
    assert lens.focal.tolist() == [first, first + 1]
    assert lens.center.tolist() == [first + 2, first + 3]
    assert lens.radial.tolist() == [first + 4, first + 5, first + 6]
    assert lens.tangential.tolist() == [first + 8, first + 7]


def test_angles_turn_about_x_then_y_then_z(tmp_path):
    numbers = calibration()
    a, b, c = numbers[:3] = 0.3, -0.5, 0.7
    cos, sin = np.cos, np.sin
    x = np.array([[1, 0, 0], [0, cos(a), -sin(a)], [0, sin(a), cos(a)]])
    y = np.array([[cos(b), 0, sin(b)], [0, 1, 0], [-sin(b), 0, cos(b)]])
    z = np.array([[cos(c), -sin(c), 0], [sin(c), cos(c), 0], [0, 0, 1]])
    camera = read_h36m_cameras(write_metadata(tmp_path, numbers))["S1", "54138969"]
    np.testing.assert_allclose(camera.rotation, x @ y @ z, atol=1e-12)


@pytest.mark.parametrize("focal", [0, -1145, 25])
def test_a_focal_length_that_is_not_in_pixels_is_refused(tmp_path, focal):
    numbers = calibration()
    numbers[264 + 9] = focal  # of the second camera
    with pytest.raises(ValueError, match=r"metadata\.xml, focal length of 55011271"):
        read_h36m_cameras(write_metadata(tmp_path, numbers))


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("name", CAMERAS)
def test_each_stands_upright_and_looks_at_the_middle(subject, name):
    camera = made_up_cameras()[subject, name]
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)
    np.testing.assert_allclose(camera.to_camera(camera.position), 0, atol=1e-12)
    # The camera's y axis points down, its z axis towards a person in the middle.
    assert (camera.rotation @ [0, 0, 1])[1] < -0.9
    middle = camera.to_camera(np.array([0.0, 0.0, 1.0]))
    assert 4 < middle[2] < 6
    assert (np.abs(camera.project(middle) - 500) < 50).all()


def test_there_and_back():
    camera = made_up_cameras()["S9", "55011271"]
    points = np.random.default_rng(0).normal(size=(5, 17, 3))
    np.testing.assert_allclose(camera.to_world(camera.to_camera(points)), points, atol=1e-12)


def test_distortion_written_out():
    camera = made_up_cameras()["S5", "58860488"]
    x, y, depth = 0.9, -0.6, 4.0
    u, v = x / depth, y / depth
    r2 = u * u + v * v
    k1, k2, k3 = camera.radial
    p1, p2 = camera.tangential
    bend = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * u + p2 * v
    expected = (
        camera.focal[0] * (u * bend + p1 * r2) + camera.center[0],
        camera.focal[1] * (v * bend + p2 * r2) + camera.center[1],
    )
    np.testing.assert_allclose(camera.project(np.array([x, y, depth])), expected)
    # Off the axis the lens pulls points inwards, by some pixels.
    plain = camera.focal * [u, v] + camera.center
    assert 2 < np.linalg.norm(plain - expected) < 10
    assert np.linalg.norm(expected - camera.center) < np.linalg.norm(plain - camera.center)


def test_no_file_says_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metadata\.xml of the data set's release"):
        read_h36m_cameras(tmp_path)


@pytest.mark.parametrize(
    "numbers", [calibration()[:-1], np.append(calibration(), 1.0), [np.nan] * 300, []]
)
def test_other_numbers(tmp_path, numbers):
    with pytest.raises(ValueError, match="expected an element w0 with 300 finite numbers"):
        read_h36m_cameras(write_metadata(tmp_path, numbers))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no XML"),
        ("<metadata>", "no XML"),
        ("<metadata/>", "300 finite"),
        ("<metadata><w0>[a b]</w0></metadata>", "300 finite"),
    ],
)
def test_other_files(tmp_path, text, message):
    path = tmp_path / "metadata.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_h36m_cameras(path)
