"""The four calibrated cameras of Human3.6M (Ionescu et al., *Human3.6M*, 2014).

The calibration is part of the data set, in the file ``metadata.xml`` of its release, not
of this module. World frame of the data set: z up. Camera frame: x right, y down,
z away. Lengths are in metres; the origin of pixels is the top left corner.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import roma
import torch
from numpy.typing import NDArray

from examples.pinhole import project
from flowprior.files.limits import require_path
from flowprior.fitting.focal_lengths import check_focal

__all__ = ["CAMERAS", "METADATA_FILE", "SUBJECTS", "H36mCamera", "read_h36m_cameras"]

METADATA_FILE = "metadata.xml"

IMAGE_PX = {
    "54138969": (1000, 1002),
    "55011271": (1000, 1000),
    "58860488": (1000, 1000),
    "60457274": (1000, 1002),
}

CAMERAS: tuple[str, ...] = tuple(IMAGE_PX)
"""Names of the cameras, in the order of the calibration and of VideoPose3D's archives."""

SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
"""Subjects whose 3D is public."""

# The calibration is one list: six numbers for each camera and each of 11 subjects, and nine for
# each camera's lens.
NUM_SUBJECTS = 11
OUTSIDE, INSIDE = 6, 9

Float64 = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class H36mCamera:
    """One camera during the recording of one subject.

    Args:
        name: One of `CAMERAS`.
        focal: (2,) focal lengths, pixels.
        center: (2,) principal point, pixels.
        radial: (3,) distortion along the radius.
        tangential: (2,) distortion across it, along x and y.
        image_size: Width and height, pixels.
        rotation: (3, 3) from the world to the camera frame.
        position: (3,) of the camera in the world, metres.
    """

    name: str
    focal: Float64
    center: Float64
    radial: Float64
    tangential: Float64
    image_size: tuple[int, int]
    rotation: Float64
    position: Float64

    def to_camera(self, points: NDArray[np.floating]) -> Float64:
        """World points (..., 3) -> camera frame (..., 3)."""
        seen: Float64 = (points - self.position) @ self.rotation.T
        return seen

    def to_world(self, points: NDArray[np.floating]) -> Float64:
        """Points in the camera frame (..., 3) -> world (..., 3)."""
        placed: Float64 = points @ self.rotation + self.position
        return placed

    def project(self, points: NDArray[np.floating]) -> Float64:
        """Points in front of the camera -> pixels, lens distortion included.

        Args:
            points: (..., 3) in the camera frame.

        Returns:
            (..., 2). The tangential term follows the data set's code and is half of OpenCV's.
        """
        flat = project(points)
        r2 = (flat**2).sum(axis=-1, keepdims=True)
        radial = 1 + (self.radial * np.concatenate([r2, r2**2, r2**3], axis=-1)).sum(-1)[..., None]
        across = (self.tangential * flat).sum(axis=-1, keepdims=True)
        bent: Float64 = flat * (radial + across) + self.tangential * r2
        return self.focal * bent + self.center


def read_h36m_cameras(path: Path | str) -> Mapping[tuple[str, str], H36mCamera]:
    """Read the calibration of Human3.6M.

    Args:
        path: ``metadata.xml`` of the data set's release, or the folder with it.

    Returns:
        The cameras by subject, of `SUBJECTS`, and name, of `CAMERAS`.

    Raises:
        FileNotFoundError: The file does not exist; the message names its source.
        ValueError: The file is not XML, or has no such calibration in pixels.
    """
    path = Path(path)
    path = path / METADATA_FILE if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(
            f"no {path}: views of Human3.6M need the calibration of its cameras, the file "
            f"{METADATA_FILE} of the data set's release (Release-v1.2)"
        )
    numbers = _calibration(require_path(path))
    cameras = {}
    for index, name in enumerate(CAMERAS):
        first = OUTSIDE * NUM_SUBJECTS * len(CAMERAS) + INSIDE * index
        lens = numbers[first : first + INSIDE]
        check_focal(lens[:2], max(IMAGE_PX[name]), source=f"{path}, focal length of {name}")
        for subject in SUBJECTS:
            row = NUM_SUBJECTS * index + int(subject[1:]) - 1
            placed = numbers[OUTSIDE * row : OUTSIDE * (row + 1)]
            cameras[subject, name] = H36mCamera(
                name,
                focal=lens[:2],
                center=lens[2:4],
                radial=lens[4:7],
                tangential=lens[[8, 7]],  # the file has y first
                image_size=IMAGE_PX[name],
                rotation=roma.euler_to_rotmat("XYZ", torch.from_numpy(placed[:3])).numpy(),
                position=placed[3:] / 1000,
            )
    return cameras


def _calibration(path: Path) -> Float64:
    """The 300 numbers of the element ``w0``."""
    wanted = OUTSIDE * NUM_SUBJECTS * len(CAMERAS) + INSIDE * len(CAMERAS)
    try:
        element = ElementTree.parse(path).getroot().find(".//w0")
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XML file ({error})") from error
    text = "" if element is None or element.text is None else element.text
    try:
        numbers = np.array([float(word) for word in text.strip(" []\n\t").split()])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (wanted,) or not np.isfinite(numbers).all():
        raise ValueError(
            f"{path}: expected an element w0 with {wanted} finite numbers, the calibration of "
            f"Human3.6M, found {len(numbers) or 'none'}"
        )
    return numbers
