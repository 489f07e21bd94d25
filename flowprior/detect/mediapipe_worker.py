"""The process that runs MediaPipe, in an environment of its own.

It imports nothing of flowprior, because MediaPipe 0.10.21 needs Python 3.12 or older and NumPy
below 2. On standard input: a line of JSON with width and height, then the pixels. On standard
output: a line of JSON with the landmarks. See `flowprior.detect.mediapipe`.
"""

import json
import os
import sys


def main() -> None:
    """Answer pictures until the input ends."""
    # MediaPipe prints to standard output, which is for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import mediapipe  # type: ignore[import-not-found,unused-ignore]
    import numpy as np

    pose = mediapipe.solutions.pose.Pose(
        static_image_mode=True, model_complexity=1, min_detection_confidence=0.5
    )
    print(json.dumps({"mediapipe": mediapipe.__version__}), file=answers, flush=True)
    pixels = sys.stdin.buffer
    while header := pixels.readline():
        size = json.loads(header)
        width, height = int(size["width"]), int(size["height"])
        picture = np.frombuffer(pixels.read(3 * width * height), np.uint8)
        found = pose.process(picture.reshape(height, width, 3))
        answer = None
        if found.pose_landmarks:
            answer = {
                "landmarks": [
                    [point.x * width, point.y * height, point.visibility]
                    for point in found.pose_landmarks.landmark
                ],
                "world": [
                    [point.x, point.y, point.z, point.visibility]
                    for point in found.pose_world_landmarks.landmark
                ],
            }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
