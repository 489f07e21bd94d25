"""How a fit fails: wrong keypoints that the detector is sure of, and too few of them.

    python -m examples.fitting.failures --data cmu_mocap.npz --prior outputs/fitting/priors

The paper's figure 7. Confidence is all that tells a fit which keypoints to believe: it goes where
confident ones are, wherever that may be; and where there are none, it shows what the prior thinks.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.command_line import interruptible
from examples.data.poses import load_poses
from examples.fitting.choices import POSE_WEIGHTS, PriorFolder
from examples.fitting.compare import errors_mm
from examples.fitting.outputs import fit_picture
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, UPRIGHT, detect, photograph_bodies
from examples.pictures import TRUTH, body_views, gallery_picture, side_by_side
from examples.pictures.style import Image
from examples.whole_files import prepare_folder, write_json
from flowprior.body import BodyModel
from flowprior.fitting import KeypointWeights, fit_keypoints
from flowprior.skeleton import BODY_25

__all__ = ["CASES", "main", "spoil"]

CASES = {
    "right": "as it should be",
    "swapped": "legs swapped, with confidence 1",
    "elsewhere": "an arm on somebody else, with confidence 1",
    "few": "four keypoints are all there is",
}
KEPT = ("neck", "right_shoulder", "left_shoulder", "nose")


def spoil(seen: Tensor, case: str) -> Tensor:
    """Keypoints (B, 25, 3) that are wrong, or too few, in one of `CASES`."""
    names = BODY_25.joint_names
    wrong = seen.clone()
    if case == "swapped":
        legs = [
            j for j, name in enumerate(names) if name.endswith(("knee", "ankle", "toe", "heel"))
        ]
        wrong[:, legs] = seen[:, [BODY_25.flip[j] for j in legs]]
        wrong[:, legs, 2] = 1.0
    elif case == "elsewhere":
        side = (seen[..., :2].amax(dim=1) - seen[..., :2].amin(dim=1)).amax(dim=-1)
        for number, name in enumerate(("left_elbow", "left_wrist"), start=1):
            joint = names.index(name)
            wrong[:, joint, 0] = seen[:, joint, 0] + 0.2 * number * side
            wrong[:, joint, 2] = 1.0
    elif case == "few":
        wrong[:, [j for j, name in enumerate(names) if name not in KEPT]] = 0
    return wrong


def draw(path: Path, truth: Image, panels: dict[str, Image]) -> None:
    """All cases of one person under each other."""
    images = {
        f"{title}: keypoints, fit, fit from front and side; truth": side_by_side(
            [panel, truth], gap=8
        )
        for title, panel in panels.items()
    }
    gallery_picture(
        path,
        images,
        title="How a fit fails",
        note="One held-out person. Confidence is all that tells a fit which keypoints to believe.",
        columns=1,
    )


@interruptible("no results were written")
def main(argv: Sequence[str] | None = None) -> int:
    """Fit a person with every kind of bad keypoints; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fitting.failures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="poses; embedded if left out")
    parser.add_argument("--prior", type=Path, default=Path("outputs/fitting/priors"), metavar="DIR")
    parser.add_argument("--body", type=Path, metavar="FILE", help="SMPL file; embedded if left out")
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/failures"), metavar="DIR")
    parser.add_argument("--people", type=int, default=32, metavar="N")
    parser.add_argument("--drawn", type=int, default=0, metavar="N", help="which of them to draw")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        rotvecs = torch.from_numpy(load_poses(args.data, args.seed).rotvecs("test"))
        body, priors = BodyModel(args.body), PriorFolder(args.prior, torch.device("cpu"))
        prepare_folder(args.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = torch.linspace(0, len(rotvecs) - 1, min(args.people, len(rotvecs))).round().long()
    generator = torch.Generator().manual_seed(args.seed)
    people = photograph_bodies(rotvecs[rows], body, generator)
    nothing = torch.zeros(people.keypoints.shape[:2], dtype=torch.bool)
    seen = detect(people.keypoints, nothing, generator)
    panels: dict[str, Image] = {}
    results = {}
    for case, title in CASES.items():
        wrong = spoil(seen, case)
        fits = fit_keypoints(
            wrong,
            priors.variables("conditional", wrong),
            body=body,
            skeleton=BODY_25,
            image_size=(IMAGE_PX, IMAGE_PX),
            focal_px=FOCAL_PX,
            weights=KeypointWeights(pose=POSE_WEIGHTS["conditional"]),
        )
        with torch.no_grad():
            joints = body(fits.theta, fits.betas).joints
        distance, aligned, _ = errors_mm(joints, people.joints)
        results[case] = {
            "mpjpe_mm": float(distance.mean()),
            "pa_mpjpe_mm": float(aligned.mean()),
            "pose_penalty": float(fits.penalty.mean()),
        }
        print(f"{title}: MPJPE {distance.mean():.0f} mm, ||z||^2 {fits.penalty.mean():.0f}")
        picture = fit_picture(fits, args.drawn, body, wrong[args.drawn].numpy(), height=240)
        panels[f"{title}, {distance[args.drawn]:.0f} mm"] = picture
    with torch.no_grad():
        one = slice(args.drawn, args.drawn + 1)
        posed = body(people.theta[one], people.betas[one])
        vertices = (posed.vertices[0] - posed.joints[0, :1]).numpy() * np.array(UPRIGHT)
    faces = body.faces.numpy()
    truth = body_views(vertices, faces, views=("front", "side"), colours=TRUTH, height=240)
    draw(args.out / "failures.png", truth, panels)
    write_json(args.out / "results.json", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
