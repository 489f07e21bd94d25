"""Draw the figure of the README and the home page: evidence, mode, samples.

Run as ``python docs/drawings/front_picture.py``. It queries ``flowprior/people``.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from examples.pictures import MODE, SAMPLES, TRUTH, body_views, overlay_keypoints
from examples.pictures.style import STYLE
from examples.pinhole import flip_yz
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import COCO_17, SMPL_24

FILE = Path(__file__).parents[1] / "_static" / "front.png"

NUM_SAMPLES = 7
HIDDEN = ("left_elbow", "left_wrist")
TITLES = ("2D keypoints", "the mode", "samples", "mode and samples from the side")


@torch.no_grad()
def main(path: Path = FILE) -> None:
    """Write the picture."""
    torch.manual_seed(1)
    prior = ConditionalPosePrior.from_pretrained("flowprior/people")
    body = BodyModel()
    faces = body.faces.numpy()
    seen = example_keypoints()
    partly = seen.clone()
    partly[[COCO_17.index(name) for name in HIDDEN], 2] = 0
    rows = {"all seen": seen, "an arm hidden": partly}

    colours = [SAMPLES[index % 2] for index in range(NUM_SAMPLES)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.4), dpi=110, layout="constrained")
        axes = figure.subplots(2, 4, width_ratios=(1, 1, 1.15, 1.15))
        for ax, title in zip(axes[0], TITLES, strict=True):
            ax.set_title(title, fontsize=12)
        for row, (name, keypoints) in zip(axes, rows.items(), strict=True):
            posterior = prior.given(keypoints_2d=keypoints)
            theta = torch.cat([posterior.mode()[None], posterior.sample(NUM_SAMPLES)])
            out = body(theta)
            vertices = flip_yz((out.vertices - out.joints[:, :1]).numpy())
            around = np.concatenate([vertices.reshape(-1, 3), _centred_box(1.0)])
            look = {"height": 380, "around": around}
            paper = np.full((480, 340, 3), 245, np.uint8)
            hidden = keypoints[:, 2] == 0
            row[0].imshow(overlay_keypoints(paper, keypoints.numpy(), COCO_17))
            row[0].scatter(*seen[hidden, :2].T, s=60, facecolors="none", edgecolors=TRUTH, lw=1.4)
            row[0].set_ylabel(
                f"{name}\n{_spreads(body(posterior.sample(1000)).joints)}", fontsize=11
            )
            row[1].imshow(body_views(vertices[0], faces, views=("front",), colours=MODE, **look))
            samples = {"colours": colours, "alphas": 0.35}
            row[2].imshow(body_views(vertices[1:], faces, views=("front",), **samples, **look))
            behind = body_views(vertices[1:], faces, views=("side",), **samples, **look)
            row[3].imshow(
                body_views(
                    vertices[0], faces, views=("side",), colours=MODE, background=behind, **look
                )
            )
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        figure.savefig(path)


def _spreads(joints: torch.Tensor) -> str:
    """How far two joints (n, 24, 3) are from their mean on average, in words."""
    joints = joints - joints[:, :1]
    spread = 100 * (joints - joints.mean(dim=0)).norm(dim=-1).mean(dim=0)
    names = ("left_wrist", "right_wrist")
    return "\n".join(
        f"{name.replace('_', ' ')} ± {spread[SMPL_24.index(name)]:.0f} cm" for name in names
    )


def _centred_box(side: float) -> np.ndarray:
    """Two corners, so that all panels are at least so wide."""
    return np.array([[-side / 2] * 3, [side / 2] * 3])


if __name__ == "__main__":
    main()
