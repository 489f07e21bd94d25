"""Selection of a detector among those that are installed."""

import importlib.util
import os
from collections.abc import Callable

import torch

from flowprior.detect.mediapipe import PYTHON_VARIABLE, MediaPipeDetector, mediapipe_python
from flowprior.detect.protocol import Detector
from flowprior.detect.vitpose import VitPoseDetector

__all__ = ["DETECTORS", "NoDetectorError", "open_detector"]

DETECTORS = ("auto", "vitpose", "mediapipe")
"""Choices of ``--detector``."""

OPTIONS = f"""pictures and videos need a detector of keypoints. Choose one:
  1. ViTPose, several people per picture:  pip install 'flowprior[detect]'
     It downloads its weights from the Hugging Face Hub when it first runs.
  2. MediaPipe, one person per picture, works offline, in an environment of its own:
       python3.12 -m venv mediapipe-env
       mediapipe-env/bin/pip install 'mediapipe==0.10.21' 'numpy<2'
       export {PYTHON_VARIABLE}=$PWD/mediapipe-env/bin/python
  3. Any other detector: give its file of keypoints to flowprior fit (OpenPose, COCO, ViTPose,
     AlphaPose, MMPose, MediaPipe results)."""


class NoDetectorError(ValueError):
    """No detector is available; the message lists the options."""


def open_detector(
    choice: str = "auto",
    *,
    device: torch.device | str = "cpu",
    python: str | os.PathLike[str] | None = None,
) -> Detector:
    """Open a detector.

    Args:
        choice: One of `DETECTORS`. "auto" takes MediaPipe if the user names an interpreter for
            it, else ViTPose if ``transformers`` is installed, else MediaPipe.
        device: Device of ViTPose.
        python: Interpreter of MediaPipe's environment; see `mediapipe_python`.

    Raises:
        NoDetectorError: The detector is not installed, or its weights cannot be loaded.
        ValueError: There is no such choice, or MediaPipe cannot be started.
    """
    if choice not in DETECTORS:
        raise ValueError(f"the detector must be one of {', '.join(DETECTORS)}, got {choice!r}")
    found = mediapipe_python(python)
    named = python is not None or bool(os.environ.get(PYTHON_VARIABLE))
    has_vitpose = importlib.util.find_spec("transformers") is not None

    def vitpose() -> Detector:
        return VitPoseDetector.from_pretrained(device=device)

    def mediapipe() -> Detector:
        assert found is not None
        return MediaPipeDetector(found)

    tried: list[Callable[[], Detector]] = []
    if choice in ("auto", "mediapipe") and found is not None:
        tried.append(mediapipe)
    if choice in ("auto", "vitpose") and has_vitpose:
        tried.insert(len(tried) if named else 0, vitpose)
    faults = []
    for opening in tried:
        try:
            return opening()
        except (OSError, ImportError) as error:
            faults.append(str(error).strip().splitlines()[0].rstrip("."))
    missing = {
        "vitpose": "transformers is not installed; ",
        "mediapipe": f"no interpreter with MediaPipe is known ({PYTHON_VARIABLE} is not set); ",
    }
    why = f"{'; '.join(faults)}; " if faults else missing.get(choice, "no detector is installed; ")
    raise NoDetectorError(why + OPTIONS)
