"""Detection of people and their keypoints in pictures."""

from flowprior.detect.choice import DETECTORS, NoDetectorError, open_detector
from flowprior.detect.protocol import DetectedPeople, Detector

__all__ = ["DETECTORS", "DetectedPeople", "Detector", "NoDetectorError", "open_detector"]
