"""Draw the figure of the README and the home page: keypoints, mode with confidence, samples.

Run as ``python docs/drawings/front_picture.py``. It queries ``flowprior/people``.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from examples.pictures import MODE, SAMPLES, TRUTH, body_views, overlay_keypoints
from examples.pictures.style import STYLE
from examples.pinhole import flip_yz
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.keypoints import example_keypoints
from flowprior.results.colours import confidence_colours
from flowprior.skeleton import COCO_17, SMPL_24

FILE = Path(__file__).parents[1] / "_static" / "front.png"

PALE = "#c9ccd6"
NUM_SAMPLES = 7
WITHIN_MM = 100.0
HIDDEN = ("left_elbow", "left_wrist")
TITLES = ("2D keypoints", "mode, joints by confidence", "samples", "mode and samples, side")
HEIGHT = 380


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
    rows = {"all keypoints": seen, "an arm hidden": partly}

    colours = [SAMPLES[index % 2] for index in range(NUM_SAMPLES)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.6), dpi=110, layout="constrained")
        axes = figure.subplots(2, 4, width_ratios=(1, 1.15, 1.15, 1.15))
        for ax, title in zip(axes[0], TITLES, strict=True):
            ax.set_title(title, fontsize=12)
        for row, (name, keypoints) in zip(axes, rows.items(), strict=True):
            posterior = prior.given(keypoints_2d=keypoints)
            confidence = posterior.joint_uncertainty(body, num_samples=1000).confidence(WITHIN_MM)
            theta = torch.cat([posterior.mode()[None], posterior.sample(NUM_SAMPLES)])
            out = body(theta)
            pelvis = out.joints[:, :1]
            vertices = flip_yz((out.vertices - pelvis).numpy())
            joints = flip_yz((out.joints - pelvis).numpy())
            around = np.concatenate([vertices.reshape(-1, 3), _centred_box(1.0)])
            look = {"height": HEIGHT, "around": around}
            paper = np.full((480, 340, 3), 245, np.uint8)
            hidden = keypoints[:, 2] == 0
            row[0].imshow(overlay_keypoints(paper, keypoints.numpy(), COCO_17))
            row[0].scatter(*seen[hidden, :2].T, s=60, facecolors="none", edgecolors=TRUTH, lw=1.4)
            wrist = confidence[SMPL_24.index("left_wrist")]
            row[0].set_ylabel(f"{name}\nleft wrist: {100 * wrist:.0f} %", fontsize=11)
            row[1].imshow(body_views(vertices[0], faces, views=("front",), colours=PALE, **look))
            row[1].scatter(
                *_front_pixels(joints[0], around).T,
                s=34,
                c=confidence_colours(confidence.numpy()) / 255,
                edgecolors="black",
                lw=0.8,
            )
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
        scale = ListedColormap(confidence_colours(np.linspace(0, 1, 256)) / 255)
        bar = figure.colorbar(
            ScalarMappable(Normalize(0, 100), scale),
            ax=axes,
            location="bottom",
            shrink=0.4,
            aspect=45,
            pad=0.02,
        )
        bar.set_label(f"probability that the joint is within {WITHIN_MM:.0f} mm of the mode, %")
        bar.outline.set_visible(False)
        figure.savefig(path)


def _front_pixels(points: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of points (..., 3) in the front view that `body_views` draws.

    Without its slight perspective, a hundredth of the distance from the centre.
    """
    low, high = around.min(axis=0), around.max(axis=0)
    pixels_per_metre = HEIGHT / (1.08 * (high[1] - low[1]))
    offset = (points - (low + high) / 2)[..., :2] * (1, -1)
    width = round(1.08 * pixels_per_metre * (high[0] - low[0]))
    return pixels_per_metre * offset + (width / 2, HEIGHT / 2)


def _centred_box(side: float) -> np.ndarray:
    """Two corners, so that all panels are at least so wide."""
    return np.array([[-side / 2] * 3, [side / 2] * 3])


if __name__ == "__main__":
    main()
