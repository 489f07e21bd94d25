"""Files of 2D keypoints that detectors write, read into arrays with named joints."""

from flowprior.keypoint_files.detections import read_detections
from flowprior.keypoint_files.people import Detections

__all__ = ["Detections", "read_detections"]
