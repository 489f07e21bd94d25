"""MediaPipe in its own environment: the real one where it is configured, and faults of others."""

import os
import sys

import numpy as np
import pytest

from flowprior.command import main
from flowprior.detect.mediapipe import PYTHON_VARIABLE, MediaPipeDetector, mediapipe_python
from flowprior.files.picture_file import read_picture
from flowprior.keypoint_files import read_detections
from flowprior.results import Fits
from flowprior.skeleton import BODY_25, SMPL_24
from tests.conftest import REAL_DATA

PHOTO = REAL_DATA / "openpose_person.jpg"

# Stands in for the package: one person whose landmarks depend on the picture, no model.
PACKAGE = """
import types
__version__ = "0.0"
class Point:
    def __init__(self, row, bright):
        self.x, self.y, self.z = row / 100, bright, row / 50
        self.visibility = 0.9
class Pose:
    def __init__(self, **options):
        assert options["static_image_mode"]
        print("a message on standard output")
    def process(self, picture):
        bright = float(picture.mean() / 255)
        points = [Point(row, bright) for row in range(33)]
        listed = types.SimpleNamespace(landmark=points) if bright else None
        return types.SimpleNamespace(pose_landmarks=listed, pose_world_landmarks=listed)
solutions = types.SimpleNamespace(pose=types.SimpleNamespace(Pose=Pose))
"""


@pytest.fixture
def interpreter(tmp_path):
    """A Python interpreter that finds the stand-in for MediaPipe."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "mediapipe.py").write_text(PACKAGE, encoding="utf-8")
    path = tmp_path / "python"
    insert = f"import sys; sys.path[:0] = [{str(tmp_path / 'packages')!r}]"
    run = "import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
    path.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -I -c "{insert}; {run}" "$2"\n', encoding="utf-8"
    )
    path.chmod(0o755)
    return path


def test_pictures_travel_to_the_process_and_landmarks_back(interpreter):
    detector = MediaPipeDetector(interpreter)
    try:
        assert detector.name == "MediaPipe 0.0"
        for value, size in ((51, (40, 30)), (102, (1000, 700)), (51, (7, 900))):
            picture = np.full((*size, 3), value, np.uint8)
            found = detector(picture)
            nose = found.keypoints_2d[0, BODY_25.index("nose")]
            np.testing.assert_allclose(nose, [0, value / 255 * size[0], 0.9], rtol=1e-5)
            hip = found.joints_3d[0, SMPL_24.index("left_hip")]
            np.testing.assert_allclose(hip, [0.23, value / 255, 0.46, 0.9], rtol=1e-5)
        nobody = detector(np.zeros((20, 20, 3), np.uint8))
        assert len(nobody) == 0
    finally:
        detector.close()
    detector.close()


def test_a_picture_that_is_not_contiguous(interpreter):
    detector = MediaPipeDetector(interpreter)
    picture = np.full((20, 60, 3), 102, np.uint8)[:, ::2]
    assert len(detector(picture)) == 1
    detector.close()


def test_an_interpreter_without_mediapipe(tmp_path):
    if mediapipe_python() == sys.executable:
        pytest.skip("MediaPipe is installed here")
    with pytest.raises(ValueError, match=r"No module named 'mediapipe'.*mediapipe==0\.10\.21"):
        MediaPipeDetector(sys.executable)
    with pytest.raises(FileNotFoundError):
        MediaPipeDetector(tmp_path / "nothing")


def test_the_interpreter_is_found_in_the_environment(monkeypatch):
    monkeypatch.setenv(PYTHON_VARIABLE, "/some/python")
    assert mediapipe_python() == "/some/python"
    assert mediapipe_python("/other/python") == "/other/python"


@pytest.mark.slow
def test_from_a_photo_to_a_body(tmp_path):
    python = os.environ.get(PYTHON_VARIABLE)
    if python is None or not PHOTO.exists():
        pytest.skip(f"needs ${PYTHON_VARIABLE} and {PHOTO}")
    out = tmp_path / "out"
    arguments = ["fit", str(PHOTO), "--out", str(out), "--detector", "mediapipe"]
    assert main([*arguments, "--detector-python", python]) == 0
    fits = Fits.load(out)
    assert len(fits) == 1
    reference, _ = read_detections(REAL_DATA / "files" / "mediapipe" / "person.json")
    np.testing.assert_allclose(fits.keypoints_2d, reference.keypoints_2d, atol=2)
    assert fits.reprojection_px[0] < 0.02 * (5600 - 2900)  # the height of the lunging person
    picture = read_picture(out / "overlays" / "openpose_person.jpg.png")
    assert picture.shape[0] > 600
    # He lunges to the left of the picture: that knee is bent, the other behind him.
    joints = fits.joints[0]
    knee, ankle = (joints[SMPL_24.index(f"right_{name}")] for name in ("knee", "ankle"))
    assert abs(knee[1] - ankle[1]) < 0.45  # metres
    assert joints[SMPL_24.index("head"), 1] < joints[0, 1] - 0.4
