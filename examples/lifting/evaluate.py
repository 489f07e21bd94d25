"""Evaluate trained lifters on held-out subjects, and plot the benefit of more samples.

The first --model is evaluated in full and compared with as many random training poses and with
N(mode, sigma^2 I). Further models are compared too; a full-covariance Gaussian and a Student's t,
fitted on the validation part, surround the output of a regressor.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.command_line import DEVICES, device_of, fail, interruptible
from examples.lifting.config import Config
from examples.lifting.figures import figure_4
from examples.lifting.judging import COUNTS, Judgement, Plan, judge
from examples.lifting.methods import (
    Lifter,
    Regressor,
    TrainedLifter,
    TrainingPoses,
    gaussian_around,
    isotropic_around,
    student_around,
)
from examples.lifting.sources import Sources, load_sources
from examples.lifting.tables import best_of_n_table, comparison_table, markdown, sigma_table
from examples.lifting.train import WEIGHTS_FILE
from examples.lifting.views import RecordedViews, ViewSource
from examples.pictures import reliability_picture
from examples.training.checkpoints import load_weights
from examples.training.folder import CONFIG_FILE
from examples.training.settings import read_settings
from examples.whole_files import prepare_folder, write_text
from flowprior.files.model_file import CheckpointError
from flowprior.metrics import Tally

__all__ = ["load_lifter", "main", "training_poses"]

SIGMAS_CM = (1, 2, 5, 10, 20)
VAL_VIEWS = 5000
TRAINING_DRAWS = 200_000


def load_lifter(folder: Path, device: torch.device | str = "cpu") -> tuple[TrainedLifter, Config]:
    """Load the lifter of a training, in evaluation mode, and its settings.

    Args:
        folder: The ``--out`` of a finished training.
        device: Device of the weights.

    Returns:
        The lifter and its settings.

    Raises:
        FileNotFoundError: The folder contains no finished training.
        CheckpointError: The weights are damaged.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{folder} is not the folder of a training: no {CONFIG_FILE}")
    if not (folder / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(f"the training in {folder} is not finished: no {WEIGHTS_FILE}")
    config = read_settings(Config, folder / CONFIG_FILE)
    lifter = config.make()
    load_weights(folder / WEIGHTS_FILE, lifter)
    return lifter.eval().to(device), config


def training_poses(source: ViewSource, seed: int, device: torch.device | str) -> TrainingPoses:
    """A lifter that ignores the view and samples training poses.

    Args:
        source: Training views.
        seed: Seed of the draws.
        device: The device of the views.

    Returns:
        The lifter, which samples among 200,000 poses.
    """
    generator = torch.Generator(device).manual_seed(seed)
    kept: list[Tensor] = [
        source.draw(10_000, generator).relative for _ in range(TRAINING_DRAWS // 10_000)
    ]
    return TrainingPoses(torch.cat(kept))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.lifting.evaluate",
        description=__doc__,
        epilog="Files in --out: results.json, table.md, figure_4.png, reliability.png. "
        "Exit code: 0 done, 2 bad arguments or data, 130 interrupted.",
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="the --out of trainings; the first is evaluated in full, the others for comparison",
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="as for train")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: evaluation/ in the first model's folder"
    )
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument(
        "--views", type=int, default=1000, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=COUNTS[-1],
        metavar="N",
        help="samples per view (default: %(default)s)",
    )
    parser.add_argument(
        "--quantised-views",
        type=int,
        default=200,
        metavar="N",
        help="number of samples that k-means reduces (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    return parser.parse_args(argv)


@interruptible("no results were written")
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; returns the exit code."""
    args = parse_args(argv)
    try:
        device = device_of(args.device)
        lifters = {folder.name: load_lifter(folder, device)[0] for folder in args.model}
        if len(lifters) < len(args.model):
            raise ValueError("two of the --model folders have the same name")
        config = load_lifter(args.model[0])[1]
        sources = load_sources(
            args.data, config.view_options, device, config.seed, config.recording
        )
        if args.split not in sources.parts:
            raise ValueError(f"{sources.source}: no subject is in the {args.split} part")
        out = args.out or args.model[0] / "evaluation"
        prepare_folder(out)
        plan = make_plan(args)
    except (OSError, ValueError, CheckpointError) as error:
        return fail(error)
    judged = judge_all(lifters, sources, plan, args, device)
    write(out, judged, sources, args)
    return 0


def make_plan(args: argparse.Namespace) -> Plan:
    """The evaluation plan; raises ValueError for impossible numbers."""
    counts = tuple(n for n in COUNTS if n < args.samples)
    return Plan(
        counts=(*counts, args.samples),
        quantised=tuple(n for n in (5, 10, 25) if n < args.samples),
        quantised_from=args.samples,
        quantised_views=args.quantised_views,
        seed=args.seed,
    )


def judge_all(
    lifters: Mapping[str, TrainedLifter],
    sources: Sources,
    plan: Plan,
    args: argparse.Namespace,
    device: torch.device,
) -> dict[str, Judgement]:
    """Evaluate the models and the distributions to compare them with.

    Args:
        lifters: The models, by name; the first is the main one.
        sources: All views.
        plan: The evaluation plan.
        args: The command line.
        device: Device of models and views.

    Returns:
        Judgements by name.
    """
    generator = torch.Generator(device).manual_seed(args.seed)
    views = sources.parts[args.split].held_out(args.views, generator)
    compared: dict[str, Lifter] = dict(lifters)
    for name, lifter in lifters.items():
        if isinstance(lifter, Regressor) and "val" in sources.parts:
            val = sources.parts["val"].held_out(VAL_VIEWS, generator)
            compared[f"Gaussian around {name}"] = gaussian_around(lifter, val)
            compared[f"Student's t around {name}"] = student_around(lifter, val)
    compared["training poses"] = training_poses(sources.parts["train"], args.seed, device)
    judged = {name: judge(each, views, plan, name) for name, each in compared.items()}
    first = next(iter(lifters.values()))
    for sigma in SIGMAS_CM:
        around = isotropic_around(first, sigma / 100, views.joints)
        name = f"sigma {sigma} cm"
        judged[name] = judge(around, views, Plan(plan.counts, quantised=(), seed=plan.seed), name)
    return judged


def write(
    out: Path, judged: Mapping[str, Judgement], sources: Sources, args: argparse.Namespace
) -> None:
    """Write figures, tables and pictures, and print the tables."""
    figures: dict[str, Sequence[dict[str, Any]]] = {
        name: [judgement.figures()] for name, judgement in judged.items()
    }
    first = next(iter(judged))
    results: dict[str, Any] = {
        "models": [str(folder) for folder in args.model],
        "data": {
            "source": sources.source,
            "split": args.split,
            "subjects": sources.subjects[args.split],
            "views": len(judged[first].point_mm),
        },
        "seed": args.seed,
        "torch": torch.__version__,
        "metrics": {name: runs[0] for name, runs in figures.items()},
    }
    part = sources.parts[args.split]
    groups = part.held_out_groups(args.views) if isinstance(part, RecordedViews) else []
    if groups:
        results["protocol_1"] = {
            name: mean_of_actions(judgement, groups) for name, judgement in judged.items()
        }
    write_text(out / "results.json", json.dumps(results, indent=2) + "\n")
    counts = judged[first].counts
    pair = {name: figures[name] for name in (first, "training poses")}
    around = {"mode": figures[first]} | {
        name: runs for name, runs in figures.items() if name.startswith("sigma")
    }
    text = "\n\n".join(
        [
            comparison_table(figures),
            *protocol_table(results.get("protocol_1", {})),
            "PA-MPJPE of the best of n samples, mm (the figure)",
            best_of_n_table(pair, counts, "pa_mpjpe_mm"),
            sigma_table(around),
        ]
    )
    write_text(out / "table.md", text + "\n")
    figure_4(
        out / "figure_4.png",
        counts,
        {
            "flow": judged[first].best_pa_mm.mean(dim=0).tolist(),
            "training poses": judged["training poses"].best_pa_mm.mean(dim=0).tolist(),
        },
        f"{len(judged[first].point_mm)} views of held-out subjects.",
    )
    reliability_picture(
        out / "reliability.png",
        {
            name: ([level / 20 for level in range(21)], judgement.coverage.tolist())
            for name, judgement in judged.items()
            if judgement.nll is not None and not name.startswith("sigma")
        },
        "Calibration of the joints",
        "Median over the joints; held-out subjects.",
    )
    print(f"{sources}\n\n{text}\n\nresults and pictures are in {out}")


def mean_of_actions(judgement: Judgement, groups: Sequence[str]) -> dict[str, float]:
    """Mean over the actions of their mean errors, as in protocol 1 of Human3.6M.

    Args:
        judgement: Results on V views.
        groups: The action of each view.

    Returns:
        Errors in millimetres, by name.
    """
    tally = Tally()
    most = judgement.counts[-1]
    tally.add(
        {
            "mpjpe_mm": judgement.point_mm,
            "pa_mpjpe_mm": judgement.point_pa_mm,
            f"best_of_{most}_mpjpe_mm": judgement.best_mm[:, -1],
            f"best_of_{most}_pa_mpjpe_mm": judgement.best_pa_mm[:, -1],
        },
        groups,
    )
    return {name: tally.mean_of_groups(name) for name in tally.left_out}


def protocol_table(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """`mean_of_actions` as a headline and a table; empty without actions."""
    if not means:
        return []
    names = list(next(iter(means.values())))
    rows = [[name, *(f"{errors[key]:.1f}" for key in names)] for name, errors in means.items()]
    return ["Means over the actions (protocol 1)", markdown(["method", *names], rows)]


if __name__ == "__main__":
    sys.exit(main())
