"""Small lifting archives in the real formats, for the tests of their readers."""

import functools
import pathlib
import tempfile

import numpy as np
from scipy.spatial.transform import Rotation

from examples.data.h36m_cameras import CAMERAS, METADATA_FILE, read_h36m_cameras
from flowprior.skeleton import H36M_17, H36M_32, mapping

MOVING = list(mapping(H36M_32, H36M_17))
H36M_SIDES = [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]
COCO_SIDES = [list(range(1, 17, 2)), list(range(2, 17, 2))]
MPII_SIDES = [[3, 4, 5, 13, 14, 15], [0, 1, 2, 10, 11, 12]]


def calibration(seed=0):
    """300 numbers in the layout of metadata.xml, of invented cameras in the corners of a studio."""
    rng = np.random.default_rng(seed)
    outside = np.empty((4, 11, 6))
    for camera, (x, y) in enumerate(((2, 4), (2, -4), (-2, 4), (-2, -4))):
        for subject in range(11):
            position = np.array([x, y, 1.6]) + 0.1 * rng.normal(size=3)
            forward = np.array([0, 0, 1.0]) - position
            forward /= np.linalg.norm(forward)
            right = np.cross(forward, [0, 0, 1])
            right /= np.linalg.norm(right)
            rotation = np.stack([right, np.cross(forward, right), forward])
            outside[camera, subject, :3] = Rotation.from_matrix(rotation).as_euler("XYZ")
            outside[camera, subject, 3:] = 1000 * position
    inside = np.array([1145, 1143, 512, 508, -0.2, 0.24, -0.002, -0.0014, -0.0009])
    inside = inside * (1 + 0.003 * rng.normal(size=(4, 9)))
    return np.concatenate([outside.ravel(), inside.ravel()])


def write_metadata(folder, numbers=None):
    """metadata.xml, with the calibration only."""
    numbers = calibration() if numbers is None else numbers
    text = " ".join(repr(float(number)) for number in numbers)
    path = folder / METADATA_FILE
    path.write_text(
        f"<?xml version='1.0'?><metadata><frames/><w0>[{text}]</w0></metadata>", encoding="utf-8"
    )
    return path


@functools.cache
def made_up_cameras():
    with tempfile.TemporaryDirectory() as folder:
        return read_h36m_cameras(write_metadata(pathlib.Path(folder)))


def person(frames, seed=0):
    """Joints (T, 32, 3) of a person near the centre of the studio, world metres, z up."""
    rng = np.random.default_rng(seed)
    place = np.array([0.3, -0.4, 1.0]) + np.cumsum(0.01 * rng.normal(size=(frames, 1, 3)), axis=0)
    return (place + 0.4 * rng.normal(size=(frames, 32, 3))).astype(np.float32)


def positions_3d(frames=10, subjects=("S1", "S9", "S11")):
    """The content of data_3d_h36m.npz."""
    return {
        subject: {
            name: person(frames, seed=7 * index + trial)
            for trial, name in enumerate(("Directions 1", "Directions", "WalkDog 1", "Photo"))
        }
        for index, subject in enumerate(subjects)
    }


def positions_2d(positions, extra=0):
    """Perfect detections, with ``extra`` frames beyond the motion capture."""
    found = {}
    for subject, recordings in positions.items():
        found[subject] = {}
        for name, joints in recordings.items():
            views = []
            for camera in CAMERAS:
                lens = made_up_cameras()[subject, camera]
                pixels = lens.project(lens.to_camera(joints[:, MOVING].astype(np.float64)))
                pixels = np.concatenate([pixels, np.full((extra, 17, 2), 7.0)])
                views.append(pixels.astype(np.float32))
            found[subject][name] = views
    return found


def boxed(value):
    """A 0-d object array, which NumPy pickles."""
    box = np.empty((), object)
    box[()] = value
    return box


def write_3d(path, positions):
    """The archive, and the calibration beside it."""
    write_metadata(path.parent)
    np.savez_compressed(path, positions_3d=boxed(positions))
    return path


def write_2d(path, positions, sides=H36M_SIDES, num_joints=17, **metadata):
    about = {"num_joints": num_joints, "keypoints_symmetry": sides} | metadata
    np.savez_compressed(path, positions_2d=boxed(positions), metadata=boxed(about))
    return path


def prohmr_lifting_arrays(rows=8, **changes):
    rng = np.random.default_rng(3)
    in_space = np.concatenate([0.3 * rng.normal(size=(rows, 19, 3)), np.ones((rows, 19, 1))], -1)
    in_image = np.concatenate(
        [500 + 100 * rng.normal(size=(rows, 19, 2)), np.ones((rows, 19, 1))], -1
    )
    arrays = {"extra_keypoints_2d": in_image, "extra_keypoints_3d": in_space}
    return {key: value for key, value in (arrays | changes).items() if value is not None}
