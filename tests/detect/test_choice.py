import importlib.util

import pytest

from flowprior.detect import NoDetectorError, choice, open_detector
from flowprior.detect.mediapipe import PYTHON_VARIABLE


class Opened:
    def __init__(self, *arguments):
        self.arguments = arguments


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    installed = set()
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name in installed else None
    )
    monkeypatch.setattr(choice, "MediaPipeDetector", type("MediaPipe", (Opened,), {}))
    vitpose = type("ViTPose", (Opened,), {})
    vitpose.from_pretrained = classmethod(lambda cls, device: cls(device))
    monkeypatch.setattr(choice, "VitPoseDetector", vitpose)
    return installed


def name_of(*arguments, **options):
    return type(open_detector(*arguments, **options)).__name__


@pytest.mark.parametrize("wanted", ["auto", "vitpose", "mediapipe"])
def test_without_a_detector_the_options_are_listed(wanted):
    with pytest.raises(NoDetectorError) as error:
        open_detector(wanted)
    message = str(error.value)
    assert "pip install 'flowprior[detect]'" in message
    assert "'mediapipe==0.10.21'" in message
    assert PYTHON_VARIABLE in message
    assert "file of keypoints" in message


def test_auto_selects_an_installed_detector(installed, monkeypatch):
    installed.add("transformers")
    assert name_of() == "ViTPose"
    installed.add("mediapipe")
    assert name_of() == "ViTPose"
    assert name_of("mediapipe") == "MediaPipe"
    installed.discard("transformers")
    assert name_of() == "MediaPipe"


def test_an_interpreter_that_the_user_names_comes_first(installed, monkeypatch):
    installed.add("transformers")
    assert name_of(python="/some/python") == "MediaPipe"
    assert name_of("vitpose", python="/some/python") == "ViTPose"
    monkeypatch.setenv(PYTHON_VARIABLE, "/some/python")
    detector = open_detector()
    assert detector.arguments == ("/some/python",)


def test_weights_that_cannot_be_loaded(installed, monkeypatch):
    installed.add("transformers")

    def offline(device):
        raise OSError("couldn't connect to huggingface.co\nmore")

    monkeypatch.setattr(choice.VitPoseDetector, "from_pretrained", offline)
    with pytest.raises(NoDetectorError, match=r"^couldn't connect to huggingface\.co; pictures"):
        open_detector()
    installed.add("mediapipe")
    assert name_of() == "MediaPipe"  # the next one that works


def test_an_unknown_choice():
    with pytest.raises(ValueError, match="auto, vitpose, mediapipe, got 'elephant'"):
        open_detector("elephant")
