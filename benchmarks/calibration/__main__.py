"""Judge the calibration of ``flowprior/people`` on people that it was not trained on.

    python -m benchmarks.calibration --data cmu_mocap.npz --out outputs/calibration

Prints coverage of every joint, AUSE against a constant per joint and dropout ensembling, the effect
of hidden limbs, the accuracy of the linearised uncertainty, and the errors of every way to pick one
answer; writes the same to ``figures.json`` and the curves to ``risk.png`` and ``coverage.png``. The
regressor with dropout is trained on for some minutes and kept in ``--out``; the command resumes.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.calibration.dropout import passes, with_dropout
from benchmarks.calibration.picking import answers
from benchmarks.calibration.views import (
    CLEAR,
    HIDDEN,
    MIXED,
    SETTINGS,
    Judged,
    Views,
    judge,
    make_views,
)
from examples.command_line import fail, interruptible, positive
from examples.pictures import reliability_picture, risk_picture
from examples.whole_files import prepare_folder, write_json
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.metrics import RiskCoverage, ause, coverage_by_group, risk_coverage
from flowprior.prior import JointFactors
from flowprior.prior.joint_factors import LEVELS
from flowprior.skeleton import SMPL_24
from tools.priors.chain import SCORED
from tools.priors.factors import People, cross_fitted_scores, read_people, scores_of

__all__ = ["main"]

MOVING = slice(1, SCORED)  # the pelvis is the origin of positions
EVERY = slice(0, SCORED)


def coverage_rows(judged: Judged, level: float) -> dict[str, Any]:
    """Coverage of positions and rotations at a level: per person, and over joints."""
    found = judged.found
    rows: dict[str, Any] = {}
    for name, error, radius, joints in (
        ("positions", judged.errors_mm, found.radius_mm(level), MOVING),
        ("rotations", judged.errors_degrees, found.radius_degrees(level), EVERY),
    ):
        covered = coverage_by_group(error, radius[:, :SCORED], judged.people)
        each = covered.mean[joints]
        order = each.argsort()
        first = joints.start
        rows[name] = {
            "mean": float(each.mean()),
            "lowest": float(each[order[0]]),
            "lowest joint": SMPL_24.joint_names[first + int(order[0])],
            "highest": float(each[order[-1]]),
            "joints": {
                SMPL_24.joint_names[first + index]: float(value) for index, value in enumerate(each)
            },
            "people": {
                str(who): float(value)
                for who, value in zip(
                    covered.groups, covered.coverage[:, joints].mean(dim=1), strict=True
                )
            },
        }
    return rows


def ranking(judged: Judged, constant: Tensor, other: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """AUSE of joints and of whole people, and the curves of joints."""
    error = judged.errors_mm[:, MOVING]
    unsure = judged.found.std_mm[:, MOVING]
    flat = constant[MOVING].expand_as(error)
    theirs, spread = (each[:, MOVING] for each in other)
    curves = {
        "posterior": risk_coverage(error, unsure),
        "constant per joint": risk_coverage(error, flat),
        "dropout, 10 passes": risk_coverage(theirs, spread),
    }
    return {
        "joints": {name: curve.ause for name, curve in curves.items()},
        "people": {
            "posterior": ause(error.mean(dim=1), unsure.mean(dim=1)),
            "constant per joint": ause(error.mean(dim=1), flat.mean(dim=1)),
            "dropout, 10 passes": ause(theirs.mean(dim=1), spread.mean(dim=1)),
        },
        "mean error, mm": float(error.mean()),
        "mean error of dropout's mean, mm": float(theirs.mean()),
        "curves": curves,
    }


def signed_rank(difference: Tensor) -> float:
    """Z of Wilcoxon's signed-rank test, positive if differences (N,) tend to be."""
    rank = difference.abs().argsort().argsort().double() + 1
    count = len(difference)
    total = float((difference.sign() * rank).sum())
    return total / math.sqrt(count * (count + 1) * (2 * count + 1) / 6)


def hidden_rows(
    prior: ConditionalPosePrior, people: People, body: BodyModel, seed: int
) -> dict[str, Any]:
    """How the uncertainty of joints changes when keypoints are hidden, view by view."""
    clear = judge(prior, make_views(people, CLEAR, body, seed), body).found.std_mm
    rows: dict[str, Any] = {}
    for name, (keypoints, joints) in HIDDEN.items():
        views = make_views(people, CLEAR, body, seed, keypoints)
        change = (judge(prior, views, body).found.std_mm / clear).log()[:, MOVING]
        lost = [SMPL_24.index(joint) - 1 for joint in joints]
        kept = [joint for joint in range(SCORED - 1) if joint not in lost]
        rows[name] = {
            who: {
                "median ratio": float(change[:, some].mean(dim=1).exp().median()),
                "views with more": float((change[:, some].mean(dim=1) > 0).double().mean()),
                "z": signed_rank(change[:, some].mean(dim=1)),
            }
            for who, some in (("hidden", lost), ("others", kept))
        }
        apart = change[:, lost].mean(dim=1) - change[:, kept].mean(dim=1)
        rows[name]["hidden minus others, z"] = signed_rank(apart)
        ratio = change.median(dim=0).values.exp()
        order = sorted(kept, key=lambda joint: -float(ratio[joint]))[:3]
        rows[name]["most of the others"] = {
            SMPL_24.joint_names[joint + 1]: float(ratio[joint]) for joint in order
        }
    return rows


def linear_rows(prior: ConditionalPosePrior, views: Views, body: BodyModel) -> dict[str, float]:
    """Mean relative difference of radii to those of 1,000 samples."""
    exact = judge(prior, views, body, num_samples=1000, calibrated=False).found
    rows: dict[str, float] = {}
    for name, other in (
        ("linear", judge(prior, views, body, method="linear", calibrated=False).found),
        ("200 samples", judge(prior, views, body, calibrated=False).found),
    ):
        for what in ("radius_50_mm", "radius_90_mm", "radius_50_degrees", "radius_90_degrees"):
            ratio = (getattr(other, what) / getattr(exact, what))[:, MOVING][..., : SCORED - 1]
            rows[f"{name}, {what}"] = float((ratio - 1).abs().mean())
            rows[f"{name}, {what}, mean ratio"] = float(ratio.mean())
    return rows


def reliability(judged: Judged) -> dict[str, list[float]]:
    """Coverage at all levels, the mean over joints and people."""
    curves: dict[str, list[float]] = {"positions": [], "rotations": []}
    for level in LEVELS:
        for name, row in coverage_rows(judged, level).items():
            curves[name].append(row["mean"])
    return curves


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="cmu_mocap.npz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--prior", default="flowprior/people", metavar="NAME")
    parser.add_argument("--per-person", type=positive, default=300, metavar="N")
    parser.add_argument("--dropout-steps", type=positive, default=1600, metavar="N")
    parser.add_argument("--threads", type=positive, default=1, metavar="N")
    parser.add_argument("--seed", type=int, default=11, metavar="N")
    parser.add_argument(
        "--cross-fitted",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="priors of python -m tools.priors --without, whose left-out people calibrate too",
    )
    return parser.parse_args(argv)


@interruptible("the same command goes on where it stopped")
def main(argv: Sequence[str] | None = None) -> int:
    """Print and write all figures; returns the exit code."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        parts = {part: read_people(args.data, part, args.per_person) for part in ("val", "test")}
        training = torch.cat(list(read_people(args.data, "train", 10**9).values()))
        prior = ConditionalPosePrior.from_pretrained(args.prior)
        prepare_folder(args.out)
    except (OSError, ValueError) as error:
        return fail(error)
    body = BodyModel()
    figures: dict[str, Any] = {}

    variants = _variants(args, prior, parts["val"], body)
    test = {s: make_views(parts["test"], s, body, args.seed) for s in SETTINGS}
    held = {s: make_views(parts["val"], s, body, args.seed + 1) for s in SETTINGS}
    print("coverage of joints, each person with the same weight; test people", *parts["test"])
    curves: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    judged: dict[str, Judged] = {}
    for variant, factors in variants.items():
        prior.joint_factors = factors
        for setting in SETTINGS:
            judged[setting] = judge(prior, test[setting], body)
            for level in (0.9, 0.5):
                rows = coverage_rows(judged[setting], level)
                figures[f"coverage, {variant}, {setting}, {level:.0%}"] = rows
                _print_coverage(f"{variant}, {setting}, {level:.0%}", rows)
        if variant in ("no factors", "as shipped"):
            for name, shares in reliability(judged[MIXED]).items():
                curves[f"{name}, {variant}"] = (LEVELS, shares)
    reliability_picture(
        args.out / "coverage.png",
        curves,
        "Coverage of single joints",
        "Subjects 03 and 05, views with hidden limbs and crops; 21 positions, 22 rotations",
    )

    prior.joint_factors = variants["as shipped"]
    dropped = with_dropout(prior, training, body, args.dropout_steps, args.out / "dropout.pt")
    shown: dict[str, RiskCoverage] = {}
    for setting in SETTINGS:
        constant = judge(prior, held[setting], body).errors_mm.mean(dim=0)
        rows = ranking(
            judge(prior, test[setting], body), constant, passes(dropped, test[setting], body)
        )
        shown = rows.pop("curves")
        figures[f"AUSE, {setting}"] = rows
        print(f"AUSE, {setting}: {json.dumps(_short(rows))}")
    risk_picture(
        args.out / "risk.png",
        shown,
        "Error of the joints that are kept",
        "Subjects 03 and 05, views with hidden limbs and crops; the most uncertain joints left out",
    )

    figures["hidden limbs"] = hidden_rows(prior, parts["test"] | parts["val"], body, args.seed)
    print(f"hidden limbs: {json.dumps(_short(figures['hidden limbs']), indent=1)}")
    few = make_views({n: p[::5] for n, p in parts["val"].items()}, MIXED, body, args.seed)
    figures["linear"] = linear_rows(prior, few, body)
    print(f"linear: {json.dumps(_short(figures['linear']), indent=1)}")
    for setting in SETTINGS:
        figures[f"one answer, {setting}"] = rows = answers(prior, test[setting], body)
        print(f"one answer, {setting}, MPJPE and PA-MPJPE in mm: {json.dumps(_short(rows))}")
    write_json(args.out / "figures.json", figures)
    return 0


def _variants(
    args: argparse.Namespace, prior: ConditionalPosePrior, people: People, body: BodyModel
) -> dict[str, JointFactors | None]:
    """Factors to compare: none, those of the file, and with cross-fitted people."""
    found: dict[str, JointFactors | None] = {"no factors": None, "as shipped": prior.joint_factors}
    if args.cross_fitted:
        scores = cross_fitted_scores("people", args.cross_fitted, args.data, body)
        assert scores is not None
        scores = scores_of("people", prior, people, body) + scores
        found["with cross-fitted people"] = JointFactors.fit(scores)
    return found


def _print_coverage(title: str, rows: dict[str, Any]) -> None:
    print(title)
    for name, row in rows.items():
        people = ", ".join(f"{who} {share:.3f}" for who, share in row["people"].items())
        print(
            f"  {name}: mean {row['mean']:.3f}, {row['lowest']:.3f} ({row['lowest joint']}) to "
            f"{row['highest']:.3f}; {people}"
        )


def _short(value: Any) -> Any:  # noqa: ANN401, JSON
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_short(each) for each in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
