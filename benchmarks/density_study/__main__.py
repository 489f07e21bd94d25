"""Comparison of posteriors at equal cost, on motion capture of held-out subjects.

    python -m benchmarks.density_study --data cmu_mocap.npz --out outputs/density_study

Every row models p(target | 2D keypoints), with hidden joints in half of the views. Rows have the
same trunk, views, CPU seconds of training and, as far as their form allows, number of parameters.
Targets are 16 joints in metres, or the rotations of SMPL's 24 joints. Choose settings with
``--split val``. Results of finished runs are kept in ``--out``, so an interrupted command can be
continued.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from benchmarks.density_study.data import TARGETS, Augmentation, People, load
from benchmarks.density_study.judging import judge
from benchmarks.density_study.models import Posterior
from benchmarks.density_study.tables import draw, table
from benchmarks.density_study.training import Cost, train
from benchmarks.density_study.variants import VARIANTS, Variant
from flowprior.files.whole_file import whole_file

REFERENCE = "context_norm"
ROUNDS = 5


def steps_of(
    names: Sequence[str], target: str, people: People, augmentation: Augmentation, budget: int
) -> dict[str, int]:
    """Numbers of steps that take as long as ``budget`` steps of the reference.

    Rows take turns, so other work on the machine slows all of them alike.
    """
    costs = {}
    for name in {REFERENCE: None, **dict.fromkeys(names)}:
        variant = VARIANTS[name]
        costs[name] = Cost(variant.make(target), people, variant.schedule, augmentation)
    for _ in range(ROUNDS):
        for cost in costs.values():
            cost.measure()
    seconds = costs[REFERENCE].seconds
    return {name: round(budget * seconds / cost.seconds) for name, cost in costs.items()}


def run(
    variant: Variant,
    target: str,
    data: dict[str, People],
    steps: int,
    seed: int,
    args: argparse.Namespace,
) -> dict[str, float]:
    """Train one row and judge it."""
    augmentation = Augmentation(args.stature, args.proportions, args.turns)
    torch.manual_seed(seed)
    model = variant.make(target)
    start = time.process_time()
    train(model, data["train"], steps, variant.schedule, augmentation, seed)
    spent = time.process_time() - start
    # Calibration and judgement never share a person.
    held_out = data["val"] if args.split == "test" else data["train"]
    figures = judge(model, data[args.split], held_out, args.views, seed)
    figures |= {"steps": steps, "seconds": spent, "parameters": _parameters(model)}
    if isinstance(model, Posterior):
        figures["hidden_features"] = cast(int, model.prior.flow.options["hidden_features"])
    return figures


def _parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def _remembered_steps(
    args: argparse.Namespace, target: str, people: People, augmentation: Augmentation
) -> dict[str, int]:
    """Steps of each row, measured once for each folder of results."""
    file = args.out / f"steps-{target}-{args.budget}.json"
    known: dict[str, int] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    wanted = [
        name for name in args.variants if target in VARIANTS[name].targets and name not in known
    ]
    if wanted:
        torch.manual_seed(0)
        known |= steps_of(wanted, target, people, augmentation, args.budget)
        with whole_file(file) as partial:
            partial.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return known


def main() -> None:
    """Run the missing rows, print the tables and draw the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.density_study")
    parser.add_argument("--data", type=Path, required=True, help="motion capture .npz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument(
        "--budget",
        type=int,
        default=1600,
        help="training takes the seconds of this many steps of context_norm",
    )
    parser.add_argument("--views", type=int, default=500, help="held-out views")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--stature", type=float, default=0.03, help="log of a person's size")
    parser.add_argument("--proportions", type=float, default=0.03, help="log of bones' lengths")
    parser.add_argument("--turns", type=float, default=1.0, help="turns of segments")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = load(args.data)
    augmentation = Augmentation(args.stature, args.proportions, args.turns)
    for target in args.targets:
        steps = _remembered_steps(args, target, data["train"], augmentation)
        for seed in args.seeds:
            for name in args.variants:
                file = args.out / f"{args.split}-{target}-{name}-{seed}.json"
                if file.exists() or target not in VARIANTS[name].targets:
                    continue
                start = time.perf_counter()
                figures = run(VARIANTS[name], target, data, steps[name], seed, args)
                with whole_file(file) as partial:
                    partial.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
                print(
                    f"{target} {name} seed {seed}: mode {figures.get('mode_mm', math.nan):.1f} "
                    f"mm, best of 25 {figures['best_of_25_mm']:.1f}, "
                    f"NLL {figures.get('nll', math.nan):.1f}, {figures['steps']:.0f} steps, "
                    f"{time.perf_counter() - start:.0f} s",
                    flush=True,
                )
    for target in args.targets:
        results: dict[str, list[dict[str, float]]] = {}
        for file in sorted(args.out.glob(f"{args.split}-{target}-*-*.json")):
            results.setdefault(file.stem.split("-")[2], []).append(
                json.loads(file.read_text(encoding="utf-8"))
            )
        if results:
            print(f"\n## {target}, {args.split}\n\n{table(results)}")
            draw(results, target, args.out)


if __name__ == "__main__":
    main()
