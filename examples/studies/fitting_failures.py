"""Failure cases of fits: confident but wrong keypoints, and too few keypoints.

    python -m examples.studies.fitting_failures --data cmu_mocap.npz --prior outputs/fitting/priors

The paper's figure 7. A fit weights keypoints by confidence only: it follows confident keypoints
even if they are wrong, and without keypoints the result depends on the prior alone.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from examples.command_line import interruptible
from examples.data.poses import load_poses
from examples.fitting.choices import WEIGHTS, add_prior_argument, open_priors
from examples.fitting.outputs import fit_picture
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, detect, photograph_bodies
from examples.pictures import TRUTH, body_views, gallery_picture, side_by_side
from examples.pictures.style import Image
from examples.pinhole import flip_yz
from examples.studies.fitting_priors import errors_mm
from examples.whole_files import prepare_folder, write_json
from flowprior.body import BodyModel
from flowprior.fitting import fit_keypoints
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
    """Corrupt keypoints (B, 25, 3) according to one of `CASES`."""
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
    """Draw all cases of one person, one below the other."""
    images = {
        f"{title}: keypoints, fit, fit from front and side; truth": side_by_side(
            [panel, truth], gap=8
        )
        for title, panel in panels.items()
    }
    gallery_picture(
        path,
        images,
        title="Failure cases of fits",
        note="One held-out person. A fit weights keypoints by their confidence only.",
        columns=1,
    )


@interruptible("no results were written")
def main(argv: Sequence[str] | None = None) -> int:
    """Fit a person to every kind of corrupt keypoints; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.fitting_failures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="poses (default: embedded)")
    add_prior_argument(parser)
    parser.add_argument(
        "--body", type=Path, metavar="FILE", help="SMPL file (default: embedded body)"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/failures"), metavar="DIR")
    parser.add_argument("--people", type=int, default=32, metavar="N")
    parser.add_argument(
        "--drawn", type=int, default=0, metavar="N", help="index of the person to draw"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        rotvecs = torch.from_numpy(load_poses(args.data, args.seed).rotvecs("test"))
        body, priors = BodyModel(args.body), open_priors(args.prior, torch.device("cpu"))
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
            weights=WEIGHTS["conditional"],
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
        vertices = flip_yz((posed.vertices[0] - posed.joints[0, :1]).numpy())
    faces = body.faces.numpy()
    truth = body_views(vertices, faces, views=("front", "side"), colours=TRUTH, height=240)
    draw(args.out / "failures.png", truth, panels)
    write_json(args.out / "results.json", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
