"""Draw the embedded body: at rest, in other shapes and in poses.

Run as ``python docs/drawings/bodies.py``; writes ``docs/_static/body/*.png``.
"""

from pathlib import Path

import numpy as np
import torch

from examples.data.procedural import sample_angles, to_rotation_vectors
from examples.pictures import MODE, SAMPLES, body_views, save_image, side_by_side
from flowprior.body import BodyModel

PICTURES = Path(__file__).parents[1] / "_static" / "body"
HEIGHT = 280


def main() -> None:
    """Draw all pictures."""
    PICTURES.mkdir(exist_ok=True)
    body = BodyModel()
    faces = body.faces.numpy()

    def draw(vertices: torch.Tensor, views: tuple[str, ...], colour: str = MODE) -> np.ndarray:
        frame = np.array([[-0.95, -1.0, -0.3], [0.95, 0.95, 0.3]])
        return body_views(
            vertices.numpy(), faces, views=views, height=HEIGHT, around=frame, colours=colour
        )

    rest = torch.zeros(24, 3)
    save_image(PICTURES / "rest.png", draw(body(rest).vertices, ("front", "side", "back")))

    rows = []
    for value in (-2.0, 2.0):
        betas = value * torch.eye(10)[:4]
        people = body(rest.expand(4, -1, -1), betas).vertices
        rows.append(side_by_side([draw(person, ("front",), SAMPLES[0]) for person in people]))
    save_image(PICTURES / "shapes.png", np.concatenate(rows))

    rng = np.random.default_rng(3)
    poses = to_rotation_vectors(sample_angles(10, rng), rng.uniform(-50, 50, 10))
    sheet = [
        body_views(vertices, faces, views=("front",), height=HEIGHT)
        for vertices in body(poses).vertices.numpy()
    ]
    save_image(PICTURES / "poses.png", side_by_side(sheet, gap=12))


if __name__ == "__main__":
    main()
