"""Draw the pictures of docs/how-to/pictures.md.

Run as ``python docs/drawings/body_pictures.py``.

No model is trained here: the samples are one pose with an arm and a leg moved at random, as if an
image had hidden them.
"""

from pathlib import Path

import numpy as np
import torch

from examples.data.procedural import sample_angles, to_rotation_vectors
from examples.pictures import (
    body_views,
    gallery_picture,
    interpolation_strip,
    mode_and_samples_views,
    save_image,
    skeleton_views_picture,
    uncertainty_colours,
)
from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24

FOLDER = Path(__file__).parents[1] / "_static" / "pictures"

MODE, OTHER = 12, 23
UNSEEN = {"left_shoulder": 0.3, "left_elbow": 0.35, "right_hip": 0.2, "right_knee": 0.3}


def poses() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The mode (24, 3), samples (n, 24, 3) and another pose (24, 3), rotation vectors."""
    angles = sample_angles(40, np.random.default_rng(2))[[MODE, OTHER]]
    mode, other = to_rotation_vectors(angles, np.array([-15.0, 10.0]))
    samples = mode.expand(40, -1, -1).clone()
    generator = torch.Generator().manual_seed(4)
    for name, spread in UNSEEN.items():
        noise = torch.randn(len(samples), 3, generator=generator)
        samples[:, SMPL_24.index(name)] += spread * noise
    return mode, samples, other


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    body = BodyModel()
    faces = body.faces.numpy()
    mode, samples, other = poses()
    one, many = body(mode), body(samples)
    vertices, joints = one.vertices.numpy(), many.joints.numpy()

    gallery_picture(
        folder / "mode_and_samples.png",
        mode_and_samples_views(vertices, many.vertices[:4].numpy(), faces, height=250),
        title="The mode and four samples",
        note="Front and side of each.",
        columns=3,
    )
    spread_mm = 1000 * np.linalg.norm(joints - joints.mean(axis=0), axis=-1).mean(axis=0)
    surface = many.vertices.numpy()
    off = 1000 * np.linalg.norm(surface - surface.mean(axis=0), axis=-1).mean(axis=0)
    high = float(off.max())
    gallery_picture(
        folder / "spread.png",
        {
            "front, side, above": body_views(
                vertices, faces, colours=uncertainty_colours(off, 0, high), height=300
            )
        },
        title="Where samples differ",
        note="Mean distance of each vertex from its mean over 40 samples.",
        scale=("spread, mm", 0.0, high),
    )
    skeleton_views_picture(
        folder / "skeleton.png",
        one.joints.numpy(),
        skeleton=SMPL_24,
        samples=joints[:20],
        title="Joints of the mode and of 20 samples",
        note=f"Mean spread of a joint: {spread_mm.mean():.0f} mm.",
    )
    between = [
        body(mode + share * (other - mode)).vertices.numpy() for share in np.linspace(0, 1, 7)
    ]
    save_image(folder / "interpolation.png", interpolation_strip(between, faces, height=240))


if __name__ == "__main__":
    main()
