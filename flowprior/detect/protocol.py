"""What a detector is: a picture in, people with named keypoints out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowprior.skeleton import Skeleton

__all__ = ["DetectedPeople", "Detector"]


@dataclass(frozen=True)
class DetectedPeople:
    """N people in one picture.

    Args:
        keypoints_2d: (N, K, 3) pixels and confidence, 0 where not detected.
        joints_3d: (N, 24, 4) SMPL's joints relative to any origin, metres (x right, y down, z away
            from the camera), and confidence; None if the detector yields none.
    """

    keypoints_2d: NDArray[np.float32]
    joints_3d: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.keypoints_2d)


class Detector(Protocol):
    """Detects people, one picture at a time.

    Attributes:
        name: Name for reports, with the model.
        skeleton: The K keypoints, which `flowprior.skeleton` names.
    """

    name: str
    skeleton: Skeleton

    def __call__(self, picture: NDArray[np.uint8]) -> DetectedPeople:
        """Detect the people in a picture (H, W, 3) of red, green and blue."""

    def close(self) -> None:
        """Release what the detector holds, such as a process."""
