"""A contest of body-pose priors on motion capture of held-out subjects.

    python -m benchmarks.priors --data cmu_mocap.npz --out outputs/priors

Every method is trained on the same poses for the same CPU seconds of one thread, and judged on the
same tasks. Choose settings with ``--split val`` and ``--set``. Trained models and results are kept
in ``--out``, so an interrupted command can be continued. ``--page`` writes the tables into the
documentation.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.priors.data import Poses, Stream, load
from benchmarks.priors.judging import Sizes, judge, reference
from benchmarks.priors.methods import METHODS, Method
from benchmarks.priors.methods.ours import Shipped
from benchmarks.priors.tables import DATA, fill_page, read_results, tables
from benchmarks.priors.training import Clock
from flowprior.files.whole_file import whole_file


def make(name: str, changes: Sequence[str], source: str = "flowprior/body-pose") -> Method:
    """Create an untrained method.

    Args:
        name: One of `METHODS`.
        changes: Settings to change, as ``"vae.beta=0.02"``; those of other methods are ignored.
        source: The model of the method "shipped".

    Returns:
        The method.

    Raises:
        ValueError: If the method has no such setting.
    """
    kind: Any = METHODS[name]
    made: Method = kind(source=source) if issubclass(kind, Shipped) else kind()
    settings: Any = made.settings
    values = {}
    for change in changes:
        key, _, text = change.partition("=")
        method, _, field = key.partition(".")
        if method == name:
            if not hasattr(settings, field):
                raise ValueError(f"{name} has no setting {field!r}: {settings}")
            values[field] = type(getattr(settings, field))(text)
    if not values:
        return made
    settings = dataclasses.replace(settings, **values)
    return kind(settings, source) if issubclass(kind, Shipped) else kind(settings)


def run(name: str, seed: int, data: dict[str, Poses], args: argparse.Namespace) -> dict[str, float]:
    """Train one method, or read it if it was trained before, and judge it."""
    torch.manual_seed(seed)
    method = make(name, args.set, args.shipped)
    file = args.out / f"model-{name}-{seed}.pt"
    if file.exists():
        kept = torch.load(file, weights_only=True)
        method.load_state_dict(kept.pop("weights"))
        method.eval()
    else:
        clock = Clock(args.budget)
        stream = Stream(data["train"].matrix, torch.Generator().manual_seed(seed))
        steps = method.fit(stream, clock)
        kept = {"steps": float(steps), "train_s": clock.seconds, "budget_s": args.budget}
        if steps:
            with whole_file(file) as partial:
                torch.save({"weights": method.state_dict(), **kept}, partial)
    sizes = Sizes(args.poses, args.generated)
    start = time.process_time()
    figures = judge(method.eval(), data[args.split], data["train"], sizes, seed)
    parameters = sum(each.numel() for each in method.parameters())
    parameters = parameters or sum(each.numel() for each in method.buffers())
    return {
        **figures,
        **kept,
        "parameters": parameters,
        "judge_s": time.process_time() - start,
        "poses": args.poses,
        "generated": args.generated,
    }


def planned(methods: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Methods and seeds in the order of their runs: the shipped model last, and once."""
    trained = [name for name in methods if not issubclass(METHODS[name], Shipped)]
    plan = [(name, seed) for seed in seeds for name in trained]
    return plan + [(name, seeds[0]) for name in methods if name not in trained]


def _write(file: Path, figures: dict[str, float]) -> None:
    with whole_file(file) as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.priors")
    parser.add_argument("--data", type=Path, required=True, help="motion capture .npz")
    parser.add_argument("--out", type=Path, required=True, help="folder of models and results")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument(
        "--budget", type=float, default=300.0, help="CPU seconds of training (%(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--poses", type=int, default=200, help="held-out poses (%(default)s)")
    parser.add_argument("--generated", type=int, default=2000, help="generated poses (%(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="METHOD.NAME=VALUE", help="change settings"
    )
    parser.add_argument(
        "--shipped", default="flowprior/body-pose", help="model of the row shipped (%(default)s)"
    )
    parser.add_argument("--page", type=Path, help="Markdown page whose tables are replaced")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the missing methods and print the tables."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = load(args.data)
    file = args.out / f"{args.split}-{DATA}-0.json"
    if not file.exists():
        _write(file, reference(data[args.split], data["train"], Sizes(args.poses, args.generated)))
    for name, seed in planned(args.methods, args.seeds):
        file = args.out / f"{args.split}-{name}-{seed}.json"
        if file.exists():
            continue
        figures = run(name, seed, data, args)
        _write(file, figures)
        leg = [figures[f"left_leg_{kind}_mm"] for kind in ("min", "mean")]
        print(
            f"{name} seed {seed}: Frechet {figures['frechet']:.2f}, "
            f"left leg {leg[0]:.1f} / {leg[1]:.1f} mm, "
            f"IK {figures['ik_all_mm']:.1f} / {figures['ik_five_mm']:.1f} mm, "
            f"trained {figures['train_s']:.0f} s, judged {figures['judge_s']:.0f} s",
            flush=True,
        )
    results = read_results(args.out, args.split)
    for title, table in tables(results).items():
        print(f"\n## {title}\n\n{table}")
    if args.page is not None:
        fill_page(args.page, results)


if __name__ == "__main__":
    main()
