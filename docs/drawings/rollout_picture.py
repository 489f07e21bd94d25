"""Draw sampled motions of the motion prior.

Run as ``python docs/drawings/rollout_picture.py``; writes ``docs/_static/motion/rollout.png``.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from examples.pictures import interpolation_strip, save_image, upright_vertices
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.prior import MotionPrior

PICTURE = Path(__file__).parents[1] / "_static" / "motion" / "rollout.png"
FPS = 15
SECONDS = 2
MOTIONS = 3
SEED = 8


def main(path: Path = PICTURE, name: str = "flowprior/motion") -> None:
    """Draw motions that follow one pose, a row each."""
    generator = torch.Generator().manual_seed(SEED)
    body = BodyModel()
    motion = MotionPrior.from_pretrained(name).freeze()
    pose = ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze().given()
    with torch.no_grad():
        start = pose.sample(1, generator=generator)
    upright = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(1, 1, 6)
    start = torch.cat([upright, start], dim=1)[None]  # (1, 1, 24, 6): one pose, no velocity
    motions = motion.rollout(start, SECONDS * FPS, MOTIONS, fps=FPS, generator=generator)[0]
    rows = []
    for each in motions:
        shown = torch.cat([start[0], each[2::3]])
        vertices = upright_vertices(body, shown[:, 1:])
        rows.append(interpolation_strip(vertices, body.faces.numpy(), height=150))
    width = max(row.shape[1] for row in rows)
    filled = [_padded(row, width) for row in rows]
    path.parent.mkdir(exist_ok=True)
    save_image(path, np.concatenate(filled))


def _padded(row: np.ndarray, width: int) -> np.ndarray:
    missing = width - row.shape[1]
    sides = ((0, 0), (missing // 2, missing - missing // 2), (0, 0))
    return np.pad(row, sides, constant_values=row[0, 0, 0])


if __name__ == "__main__":
    main(*(Path(PICTURE), sys.argv[1]) if len(sys.argv) > 1 else ())
