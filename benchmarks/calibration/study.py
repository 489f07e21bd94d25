"""How many people calibration takes, and which way to fit factors covers new people.

    python -m benchmarks.calibration.study --data cmu_mocap.npz

Of the training and validation people, some calibrate ``flowprior/people`` and the others are
judged, in random draws; test people are not used. The prior was trained on thirteen of the sixteen,
so these people differ less than new ones do: compare the ways, not the shares with those of new
people.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.prior import JointScores
from flowprior.prior.joint_factors import LEVELS, fit_factors, numbered
from flowprior.skeleton import SMPL_24
from tools.priors.chain import SCORED
from tools.priors.factors import read_people, scores_of

LEVEL = 0.9
DRAWS = 30
Fit = Callable[[Tensor, Tensor, Tensor], Tensor]


def pooled(errors: Tensor, radii: Tensor, groups: Tensor) -> Tensor:
    """The quantile of the scores of all people, each person with the same weight."""
    scores = (errors / radii.clamp(min=1e-6)).nan_to_num()
    grid = torch.linspace(0.005, 0.995, 100)
    each = [scores[groups == person].quantile(grid, dim=0) for person in groups.unique()]
    return torch.cat(each).quantile(LEVEL, dim=0)


def largest(errors: Tensor, radii: Tensor, groups: Tensor) -> Tensor:
    """The largest of the quantiles of single people."""
    scores = (errors / radii.clamp(min=1e-6)).nan_to_num()
    each = [scores[groups == person].quantile(LEVEL, dim=0) for person in groups.unique()]
    return torch.stack(each).amax(dim=0)


def random_effects(errors: Tensor, radii: Tensor, groups: Tensor) -> Tensor:
    """The way of the library."""
    return fit_factors(errors, radii[None], groups, (LEVEL,), SMPL_24.flip)[0]


WAYS: dict[str, Fit] = {
    "pooled quantile": pooled,
    "largest of the people": largest,
    "person effect, Student's t": random_effects,
}


def parts_of(scores: JointScores) -> dict[str, tuple[Tensor, Tensor]]:
    """Errors and radii of the level, hands and the pelvis's position excepted."""
    level = LEVELS.index(LEVEL)
    return {
        "positions": (scores.errors_mm, scores.radii_mm[level]),
        "rotations": (scores.errors_degrees, scores.radii_degrees[level]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration.study")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE")
    parser.add_argument("--prior", default="flowprior/people", metavar="NAME")
    parser.add_argument("--per-person", type=int, default=120, metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    body, prior = BodyModel(), ConditionalPosePrior.from_pretrained(args.prior)
    people = read_people(args.data, "train", args.per_person)
    people |= read_people(args.data, "val", args.per_person)
    scores = scores_of("people", prior, people, body, num_samples=100)
    names = list(people)
    groups = numbered(scores.groups, len(scores.errors_mm))
    rng = random.Random(0)
    print("| people | way | positions, 90 % | every tenth draw below | rotations | |")
    print("|---|---|---|---|---|---|")
    for count in (2, 3, 5, 9, 13):
        draws = [rng.sample(range(len(names)), count) for _ in range(DRAWS)]
        for way, fit in WAYS.items():
            cells = []
            for kind, (errors, radii) in parts_of(scores).items():
                joints = slice(1 if kind == "positions" else 0, SCORED)
                shares = []
                for chosen in draws:
                    known = torch.isin(groups, torch.tensor(chosen))
                    owner = numbered(groups[known], int(known.sum()))
                    factors = fit(errors[known], radii[known], owner)
                    inside = (errors <= factors * radii)[:, joints].double()
                    left = [p for p in range(len(names)) if p not in chosen]
                    shares.append(
                        torch.stack([inside[groups == person].mean() for person in left]).mean()
                    )
                share = torch.stack(shares)
                cells += [f"{share.mean():.3f}", f"{share.quantile(0.1):.3f}"]
            print(f"| {count} | {way} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
