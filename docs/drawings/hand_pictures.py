"""Draw the hands of the embedded body: flat, relaxed, and bent joint by joint.

Run as ``python docs/drawings/hand_pictures.py``; writes ``docs/_static/body/hands.png`` and
``hand_joints.png``.
"""

from pathlib import Path

import numpy as np
import torch

from examples.pictures import MODE, SAMPLES, body_views, save_image, side_by_side
from flowprior.body import BodyModel

PICTURES = Path(__file__).parents[1] / "_static" / "body"
HEIGHT = 220
# Fingers bend downwards, out of the flat hand; the thumb across the palm.
TOWARDS = ((0.0, -1.0, 0.0), (0.3, -0.6, -0.7))
FINGERS = ("thumb", "index", "middle", "ring", "pinky")


def flexed(body: BodyModel, finger: str, joints: tuple[int, ...], degrees: float) -> torch.Tensor:
    """The flat left hand with some joints of one finger bent, (52, 3)."""
    theta = torch.zeros(body.num_joints, 3)
    rest = body(theta).joints
    along = (
        rest[body.skeleton.index(f"left_{finger}3")] - rest[body.skeleton.index(f"left_{finger}2")]
    )
    axis = torch.linalg.cross(along, torch.tensor(TOWARDS[finger == "thumb"]))
    axis = axis / axis.norm()
    for joint in joints:
        theta[body.skeleton.index(f"left_{finger}{joint}")] = np.radians(degrees) * axis
    return theta


def fist(body: BodyModel) -> torch.Tensor:
    """A left fist, (52, 3)."""
    theta = sum(flexed(body, finger, (1, 2, 3), 80.0) for finger in FINGERS[1:])
    return theta + flexed(body, "thumb", (2, 3), 45.0)


def main(folder: Path = PICTURES) -> None:
    """Draw both pictures into a folder."""
    body = BodyModel(hands=True)
    faces = body.faces.numpy()
    wrist = body(torch.zeros(52, 3)).joints[body.skeleton.index("left_wrist")].numpy()
    frame = wrist + np.array([[-0.03, -0.09, -0.09], [0.2, 0.05, 0.09]])

    def draw(theta: torch.Tensor, views: tuple[str, ...], colour: str = MODE) -> np.ndarray:
        vertices = body(theta).vertices.numpy()
        return body_views(vertices, faces, views=views, height=HEIGHT, around=frame, colours=colour)

    views = ("front", "top")
    row = [
        draw(theta, views) for theta in (body.pose(flat_hand_mean=True), body.pose(), fist(body))
    ]
    save_image(folder / "hands.png", side_by_side(row, gap=12))

    rows = []
    for joint in (1, 2, 3):
        sheet = []
        for finger in FINGERS:
            # The fingers behind the others are seen from behind.
            view = "back" if finger in ("ring", "pinky") else "front"
            sheet.append(draw(flexed(body, finger, (joint,), 60.0), (view,), SAMPLES[0]))
        rows.append(side_by_side(sheet, gap=8))
    save_image(folder / "hand_joints.png", np.concatenate(rows))


if __name__ == "__main__":
    main()
