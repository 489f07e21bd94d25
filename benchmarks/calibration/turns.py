"""How much of the error of each person's rotations is a constant turn of a joint.

    python -m benchmarks.calibration.turns --data cmu_mocap.npz

The turn of each joint is the mean difference of truth and answer on half of a person's views; the
other half is judged with and without it, inside the 90 % regions of ``flowprior/people``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.calibration.views import CLEAR, given, judge, make_views
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24
from tools.priors.chain import SCORED
from tools.priors.factors import read_people

__all__ = ["main"]

SHOWN = 6


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> int:
    """Print one line for each validation and test person, and the joints with the largest turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration.turns")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE")
    parser.add_argument("--prior", default="flowprior/people", metavar="NAME")
    parser.add_argument("--per-person", type=int, default=300, metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    body, prior = BodyModel(), ConditionalPosePrior.from_pretrained(args.prior)
    people = {
        name: poses
        for part in ("val", "test")
        for name, poses in read_people(args.data, part, args.per_person).items()
    }
    for name, poses in people.items():
        views = make_views({name: poses}, CLEAR, body, seed=3)
        judged = judge(prior, views, body)
        mode = rotations.rot6d_to_matrix(given(prior, views).mode())
        off = rotations.matrix_to_rotvec(mode.mT @ views.examples.theta)[:, :SCORED]
        order = torch.randperm(len(off), generator=torch.Generator().manual_seed(0))
        first, second = order.tensor_split(2)
        turn = off[first].mean(dim=0)
        radius = judged.found.radius_90_degrees[second, :SCORED]
        rest = (off[second] - turn).norm(dim=-1).rad2deg()
        before = (judged.errors_degrees[second] <= radius).double().mean(dim=0)
        after = (rest <= radius).double().mean(dim=0)
        size = turn.norm(dim=-1).rad2deg()
        print(
            f"{name}: turns of {size.mean():.1f} degrees on average; 90 % regions cover "
            f"{before.mean():.3f}, without the turns {after.mean():.3f}"
        )
        for joint in size.argsort(descending=True)[:SHOWN].tolist():
            axes = ", ".join(f"{angle:.0f}" for angle in turn[joint].rad2deg().tolist())
            print(
                f"  {SMPL_24.joint_names[joint]}: ({axes}) degrees, {before[joint]:.2f} and "
                f"{after[joint]:.2f}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
