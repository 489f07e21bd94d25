"""MediaPipe's pose landmarks, computed by a process with an environment of its own.

``mediapipe==0.10.21`` contains its models, so it works offline. It needs Python 3.12 or older and
NumPy below 2, which other packages rarely share; `PYTHON_VARIABLE` names the interpreter of an
environment for it. Each picture yields at most one person.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flowprior.detect.protocol import DetectedPeople
from flowprior.keypoint_files.mediapipe import body_25_of, smpl_joints_of
from flowprior.skeleton import BODY_25

__all__ = ["PYTHON_VARIABLE", "MediaPipeDetector", "mediapipe_python"]

PYTHON_VARIABLE = "FLOWPRIOR_MEDIAPIPE_PYTHON"
"""Environment variable with the Python interpreter of MediaPipe's environment."""

WORKER = Path(__file__).with_name("mediapipe_worker.py")
_LAST_LINES = 5


def mediapipe_python(given: str | os.PathLike[str] | None = None) -> str | None:
    """The interpreter that can run MediaPipe.

    Args:
        given: An interpreter that the user names; None for that of `PYTHON_VARIABLE`, or of this
            process if MediaPipe is installed there.

    Returns:
        Its path; None if there is none.
    """
    if given is not None:
        return os.fspath(given)
    if os.environ.get(PYTHON_VARIABLE):
        return os.environ[PYTHON_VARIABLE]
    return sys.executable if importlib.util.find_spec("mediapipe") else None


class MediaPipeDetector:
    """BODY-25's keypoints and SMPL's joints in metres of the most prominent person.

    Args:
        python: Interpreter of an environment with ``mediapipe==0.10.21``.

    Raises:
        OSError: The interpreter cannot be started.
        ValueError: MediaPipe cannot be imported there.

    References:
        Bazarevsky et al., *BlazePose*, 2020.
    """

    skeleton = BODY_25

    def __init__(self, python: str | os.PathLike[str]) -> None:
        self.python = os.fspath(python)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        try:
            self._process = self._start()
        except OSError:
            self._errors.close()
            raise
        try:
            hello = self._answer()
        except BaseException:
            self.close()
            raise
        self.name = f"MediaPipe {hello['mediapipe']}"

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            # Isolated: PYTHONPATH leads to packages for another Python, and the worker's folder to
            # this module instead of MediaPipe.
            [self.python, "-I", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Ctrl-C ends this process, which then closes that one.
            start_new_session=True,
        )

    def __call__(self, picture: NDArray[np.uint8]) -> DetectedPeople:
        """Detect the most prominent person in a picture (H, W, 3) of red, green and blue.

        Raises:
            ValueError: MediaPipe's process ended.
        """
        height, width = picture.shape[:2]
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer raises the error
            stream.write(json.dumps({"width": width, "height": height}).encode() + b"\n")
            stream.write(np.ascontiguousarray(picture).tobytes())
            stream.flush()
        answer = self._answer()
        if answer is None:
            nobody = np.zeros((0, BODY_25.num_joints, 3), np.float32)
            return DetectedPeople(nobody, np.zeros((0, 24, 4), np.float32))
        flat, space = (np.array([answer[key]], np.float64) for key in ("landmarks", "world"))
        return DetectedPeople(body_25_of(flat).astype(np.float32), smpl_joints_of(space))

    def close(self) -> None:
        """End MediaPipe's process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _answer(self) -> Any:  # noqa: ANN401, JSON
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        raise ValueError(
            f"MediaPipe's process ({self.python}) ended: {' | '.join(lines[-_LAST_LINES:])}; it "
            "needs mediapipe==0.10.21 with Python 3.12 or older and numpy below 2"
        )
