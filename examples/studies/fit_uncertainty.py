"""How often the truth lies in the regions of fits with the shipped prior, on held-out subjects.

    python -m examples.studies.fit_uncertainty --data cmu_mocap.npz --split test

Virtual cameras see people of random shape; the keypoints are noisy, and 30 % of them are missing,
or the image ends at the hips. The factor on the regions was chosen with ``--split val``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from examples.command_line import fail, interruptible, natural, positive
from examples.data.poses import load_poses
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, People, photograph_bodies
from examples.studies.fitting_priors import CONDITIONS, corrupt
from examples.whole_files import prepare_folder, write_json
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting import SPREAD, Fits, KeypointWeights, fit_keypoints
from flowprior.fitting.objective import NOISE
from flowprior.skeleton import SMPL_24

__all__ = ["coverage", "main"]

# The pelvis is the origin, and the data has no hands.
JOINTS = slice(1, SMPL_24.index("left_hand"))
ROTATIONS = slice(0, SMPL_24.index("left_hand"))


@torch.no_grad()
def coverage(
    fits: Fits, people: People, body: BodyModel, spread: float, generator: torch.Generator
) -> dict[str, float]:
    """Shares of true joints within the radii of fits, and how well they rank the errors.

    Args:
        fits: Fits of the people.
        people: The people.
        body: The body.
        spread: Factor on the regions, see `FitPosterior`.
        generator: Source of the samples.
    """
    found = fits.posterior(spread=spread).joint_uncertainty(generator=generator)
    joints, truth = body(fits.theta, fits.betas).joints, people.joints
    error = 1000 * (joints - joints[:, :1] - truth + truth[:, :1]).norm(dim=-1)
    angle = torch.rad2deg(rotations.geodesic_distance(fits.theta, people.theta))
    within = (error <= found.radius_90_mm).double()[:, JOINTS].mean(dim=0)
    turned = (angle <= found.radius_90_degrees).double()[:, ROTATIONS].mean(dim=0)
    return {
        "mpjpe_mm": float(error[:, JOINTS].mean()),
        "std_mm": float(found.std_mm[:, JOINTS].mean()),
        "positions_in_90": float(within.mean()),
        "positions_in_90_least_joint": float(within.min()),
        "positions_in_90_most_joint": float(within.max()),
        "positions_in_50": float((error <= found.radius_50_mm).double()[:, JOINTS].mean()),
        "rotations_in_90": float(turned.mean()),
        "rotations_in_90_least_joint": float(turned.min()),
        "rotations_in_90_most_joint": float(turned.max()),
        "rank_correlation": _rank_correlation(
            error[:, JOINTS].flatten(), found.std_mm[:, JOINTS].flatten()
        ),
    }


def _rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's, of values without ties."""
    ranks = torch.stack([each.argsort().argsort().double() for each in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


@interruptible("no table was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Fit, count and print a table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.fit_uncertainty", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="poses (default: embedded)")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--people", type=positive, default=200, metavar="N")
    parser.add_argument("--spread", type=float, nargs="+", default=[SPREAD], metavar="FACTOR")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[NOISE], metavar="SIDES", help="see of_noise"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/uncertainty"))
    parser.add_argument("--seed", type=natural, default=0, metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        poses = load_poses(args.data, args.seed)
        rotvecs = torch.from_numpy(poses.rotvecs(args.split))
        if not len(rotvecs):
            raise ValueError(f"{poses.source}: no people in this part")
        prepare_folder(args.out)
    except (OSError, ValueError) as error:
        return fail(error)
    rows = torch.linspace(0, len(rotvecs) - 1, min(args.people, len(rotvecs))).round().long()
    generator, body = torch.Generator().manual_seed(args.seed + 3), BodyModel()
    people = photograph_bodies(rotvecs[rows], body, generator)
    results = []
    for condition in CONDITIONS:
        seen = corrupt(people, condition, generator)
        for noise in args.noise:
            fits = fit_keypoints(
                seen,
                body=body,
                image_size=(IMAGE_PX, IMAGE_PX),
                focal_px=FOCAL_PX,
                weights=KeypointWeights.of_noise(noise),
            )
            for spread in args.spread:
                figures = coverage(fits, people, body, spread, generator)
                case = {"keypoints": condition, "noise": noise, "spread": spread}
                results.append({**case, **figures})
                shown = ", ".join(
                    f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items()
                )
                print(f"{condition}, noise {noise:g}, spread {spread:g}: {shown}", flush=True)
    content = {"source": poses.source, "subjects": list(poses.subjects[args.split])}
    write_json(args.out / f"{args.split}.json", {**content, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
