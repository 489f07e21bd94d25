"""Draw a whole-body fit: the overlay of ``flowprior fit``, and a hand on its page.

Run as ``python docs/drawings/whole_body_picture.py``; writes ``fit/whole_body.png`` and
``view/page_hand.png`` in ``docs/_static``. It needs Chromium and Playwright.

The keypoints are those of the embedded body in a pose set by hand, with noise of 2 pixels.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowprior.body import BodyModel
from flowprior.command import main as flowprior
from flowprior.fitting import facing
from flowprior.rotations import rot6d_to_matrix, rotvec_to_matrix
from flowprior.skeleton import COCO_WHOLEBODY_65, COCO_WHOLEBODY_133
from tests.view.browser import chromium_path, launched

STATIC = Path(__file__).parents[1] / "_static"
WIDTH, HEIGHT, FOCAL = 720, 900, 1000.0
NOISE_PX = 2.0
# Rotation vectors in radians: one hand raised in a V, the other arm forward with a pointing finger.
BODY = {
    "left_shoulder": (0.0, 0.0, -0.7),
    "left_elbow": (0.0, -0.5, 1.9),
    "left_wrist": (-0.3, 0.0, 0.0),
    "right_shoulder": (0.0, 0.3, 1.0),
    "right_elbow": (0.0, 1.1, 0.2),
    "left_hip": (0.0, 0.0, 0.08),
    "right_hip": (0.0, 0.0, -0.08),
}
BENT = {"left": ("ring", "pinky"), "right": ("middle", "ring", "pinky")}


def pose(body: BodyModel) -> torch.Tensor:
    """The rotations (52, 3, 3)."""
    theta = torch.zeros(body.num_joints, 3)
    for name, vector in BODY.items():
        theta[body.joint_names.index(name)] = torch.tensor(vector)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        for finger in BENT[side]:
            for joint in (1, 2, 3):
                theta[body.joint_names.index(f"{side}_{finger}{joint}"), 2] = 1.2 * sign
        for joint, bend in ((1, 0.4), (2, 0.7), (3, 0.6)):
            theta[body.joint_names.index(f"{side}_thumb{joint}"), 1] = bend * sign
    matrix = rotvec_to_matrix(theta)
    matrix[0] = rot6d_to_matrix(facing(torch.tensor([-15.0])))[0]
    return matrix


def keypoints() -> np.ndarray:
    """COCO-WholeBody's keypoints (133, 3), without those of the face."""
    body = BodyModel(hands=True)
    points = body.keypoints(pose(body), COCO_WHOLEBODY_65, transl=torch.tensor([0.0, -0.05, 2.2]))
    pixels = FOCAL * points[:, :2] / points[:, 2:] + torch.tensor([WIDTH, HEIGHT]) / 2
    noise = NOISE_PX * np.random.default_rng(0).standard_normal((len(points), 2))
    whole = np.zeros((COCO_WHOLEBODY_133.num_joints, 3))
    places = [COCO_WHOLEBODY_133.index(name) for name in COCO_WHOLEBODY_65.joint_names]
    whole[places] = np.column_stack([pixels.numpy() + noise, np.ones(len(points))])
    inside = (whole[:, :2] > 0).all(axis=1) & (whole[:, 0] < WIDTH) & (whole[:, 1] < HEIGHT)
    return whole * inside[:, None]


def fit(folder: Path) -> Path:
    """Run the command; returns the folder of its results."""
    entry = {"image_id": "whole body.png", "category_id": 1, "score": 1.0}
    file = folder / "keypoints.json"
    file.write_text(
        json.dumps([entry | {"keypoints": keypoints().round(2).ravel().tolist()}]), encoding="utf-8"
    )
    camera = ["--image-size", f"{WIDTH}x{HEIGHT}", "--focal", f"{FOCAL}"]
    flowprior(["fit", str(file), "--out", str(folder / "results"), "--quiet", *camera])
    return folder / "results"


def draw(browser: Any, results: Path, static: Path) -> None:
    """Copy the overlay, and take the picture of the page."""
    (picture,) = (results / "overlays").iterdir()
    for name in ("fit", "view"):
        (static / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(picture, static / "fit" / "whole_body.png")
    page = browser.new_page(viewport={"width": 1280, "height": 760})
    page.goto((results / "index.html").as_uri())
    page.wait_for_selector('body[data-shown="0/0/0"]')
    page.click("#view-left")
    page.check("#zoom")
    page.wait_for_timeout(300)
    page.screenshot(path=static / "view" / "page_hand.png")


def main(static: Path = STATIC) -> None:
    """Draw both pictures."""
    path = chromium_path()
    if path is None:
        raise SystemExit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as work, launched(path) as browser:
        draw(browser, fit(Path(work)), static)


if __name__ == "__main__":
    main()
