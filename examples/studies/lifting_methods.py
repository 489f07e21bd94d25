"""Comparison of the flow with other distributions: same encoder, same people, three seeds.

All methods use the same encoder, views and number of steps, and read the keypoints beside its
features. The flow trains its regressor first, then the density around it; a Gaussian and a
Student's t are fitted on the validation subjects around the same regressor, and around one that was
trained alone. A *long* regressor is trained for four times the steps. The test subjects are seen in
a clear setting (every joint visible) and an ambiguous one (every view is a random crop). ``--out``
keeps finished runs, so the command resumes where it stopped.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.command_line import interruptible
from examples.data.poses import PoseSet, load_poses
from examples.data.virtual_views import Views
from examples.lifting.baselines import FactorisedLifter, MixtureLifter, MultiHeadLifter
from examples.lifting.evaluate import SIGMAS_CM, VAL_VIEWS, training_poses
from examples.lifting.figures import figure_4, why_a_flow
from examples.lifting.judging import COUNTS, Plan, error_mm, judge
from examples.lifting.loop import Schedule, fit, single_thread
from examples.lifting.methods import (
    FlowLifter,
    Lifter,
    ModeRegressor,
    Regressor,
    TrainedLifter,
    gaussian_around,
    isotropic_around,
    student_around,
)
from examples.lifting.model import LiftingModel
from examples.lifting.tables import SMALL, comparison_table, sigma_table
from examples.lifting.views import PoseViews, ViewOptions, evenly_spaced
from examples.pictures import reliability_picture
from examples.training.checkpoints import load_weights, save_weights
from examples.whole_files import prepare_folder, write_text
from flowprior.files.limits import read_json

__all__ = ["METHODS", "SETTINGS", "Method", "main"]

SETTINGS = {
    "clear": ViewOptions(occlusion="none", nose=False),
    "ambiguous": ViewOptions(occlusion="crop", nose=False),
}
WIDTH = 256
HIDDEN = 128
QUANTISED_VIEWS = 100
SHOWN = ("flow", "gaussian", "mixture", "factorised", "multi-head")
# What is fitted around the point estimates of a method, a Gaussian and a Student's t.
AROUND = {
    "flow": ("gaussian around the flow's mode", "t around the flow's mode"),
    "regressor": ("gaussian", "student t"),
    "long regressor": ("long gaussian", "long t"),
    "flow as regressor": ("gaussian around it", "t around it"),
}
DENSITIES = ("flow", "t around the flow's mode", "gaussian", "student t", "mixture", "factorised")


@dataclass(frozen=True)
class Method:
    """One of the compared distributions.

    Args:
        make: Creates its network.
        steps: Training steps, relative to the other methods.
        schedule: Differences from the training of the other methods.
    """

    make: Callable[[], TrainedLifter]
    steps: int = 1
    schedule: Mapping[str, float] = field(default_factory=dict)


def small_model() -> LiftingModel:
    """Create the encoder, the head and the flow of the comparison."""
    return LiftingModel(width=WIDTH, hidden_features=HIDDEN)


def small_flow() -> FlowLifter:
    """Create the flow of the comparison, whose regressor is trained first."""
    return FlowLifter(small_model(), mode_loss="mpjpe", regressor_share=REGRESSOR_SHARE)


REGRESSOR_SHARE = 0.8
# Of seven settings tried for each of the others on the validation subjects, the one with the best
# of 25 samples, for the regressor with the least error; benchmarks/RESULTS.md has them all. The
# regressor of the flow is trained as the one that is trained alone.
SCHEDULE: Mapping[str, float] = {"weight_decay": 0.1, "learning_rate": 6e-3}

METHODS: dict[str, Method] = {
    "flow": Method(small_flow, schedule=SCHEDULE),
    "regressor": Method(lambda: Regressor(width=WIDTH, skip=True), schedule=SCHEDULE),
    "multi-head": Method(
        lambda: MultiHeadLifter(heads=25, relaxation=0.1, width=WIDTH, skip=True),
        schedule=SCHEDULE,
    ),
    "mixture": Method(
        lambda: MixtureLifter(components=5, width=WIDTH, skip=True), schedule=SCHEDULE
    ),
    "factorised": Method(lambda: FactorisedLifter(width=WIDTH, skip=True), schedule=SCHEDULE),
    "long regressor": Method(lambda: Regressor(width=WIDTH, skip=True), steps=4, schedule=SCHEDULE),
    "flow as regressor": Method(lambda: ModeRegressor(small_model()), schedule=SCHEDULE),
}


def run(
    method: str, setting: str, seed: int, poses: PoseSet, args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Train one method, and evaluate it and the densities around its point estimate.

    Args:
        method: Name of the method.
        setting: Name of the setting.
        seed: Seed of weights, views and samples.
        poses: Poses of all three parts.
        args: The command line.

    Returns:
        Results by name.
    """
    options, chosen = SETTINGS[setting], METHODS[method]
    sources = {
        part: PoseViews(torch.from_numpy(poses.part(part)), options)
        for part in ("train", "val", "test")
    }
    torch.manual_seed(seed)
    lifter = chosen.make()
    steps = args.steps * chosen.steps
    schedule = Schedule(**{"steps": steps, "seed": seed, **chosen.schedule})
    start = time.perf_counter()
    fit(lifter, sources["train"], schedule, f"{setting} {method} {seed}")
    seconds = time.perf_counter() - start

    generator = torch.Generator().manual_seed(1000 + seed)
    views = sources[args.split].held_out(args.views, generator)
    val = sources["val"].held_out(VAL_VIEWS, generator)
    fitted = lifter.calibrate(val)
    save_weights(args.out / "models" / f"{setting}-{method}-{seed}.safetensors", lifter)
    plan = Plan(quantised=(25,), quantised_views=QUANTISED_VIEWS, seed=seed)
    judged: dict[str, tuple[Lifter, Views, Plan]] = {method: (lifter, views, plan)}
    if method in AROUND:
        for name, around in zip(AROUND[method], (gaussian_around, student_around), strict=True):
            judged[name] = (around(lifter, val), views, plan)
    if method == "regressor":
        judged["training poses"] = (training_poses(sources["train"], seed, "cpu"), views, plan)
    few = views[evenly_spaced(len(views), args.sigma_views)]
    if method == "flow":
        judged["mode"] = (lifter, few, Plan(quantised=(), seed=seed))
        for sigma in SIGMAS_CM:
            judged[f"sigma {sigma} cm"] = (
                isotropic_around(lifter, sigma / 100, views.joints),
                few,
                Plan(quantised=(), seed=seed),
            )
    results: dict[str, dict[str, Any]] = {}
    for name, (each, seen, what) in judged.items():
        judgement = judge(each, seen, what)
        results[name] = {
            **judgement.figures(),
            "coverage": [float(value) for value in judgement.coverage],
        }
    results[method] |= fitted
    results[method] |= {
        "seconds": round(seconds, 1),
        "steps": steps,
        "parameters": sum(p.numel() for p in lifter.parameters()),
    }
    return results


def collect(out: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Results of all finished runs, by setting and name; one entry per seed."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for setting in SETTINGS:
        for method in METHODS:
            for file in sorted(out.glob(f"{setting}-{method}-*.json")):
                for name, figures in read_json(file).items():
                    results.setdefault(setting, {}).setdefault(name, []).append(figures)
    return results


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.lifting_methods",
        description=__doc__,
        epilog="Files in --out: a JSON file and the weights of every run, results.json, "
        "table.md and pictures. Exit code: 0 done, 2 bad arguments or data, 130 interrupted.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="as for the demo: an .npz file with joints17, or a folder of AMASS files (default: "
        "embedded procedural poses)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/compare"), metavar="DIR")
    parser.add_argument(
        "--steps",
        type=int,
        default=3000,
        metavar="N",
        help="steps of each method (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument(
        "--views", type=int, default=300, metavar="N", help="held-out views (default: %(default)s)"
    )
    parser.add_argument(
        "--sigma-views",
        type=int,
        default=100,
        metavar="N",
        help="views for the evaluation of N(mode, sigma^2 I) (default: %(default)s)",
    )
    return parser.parse_args(argv)


@interruptible("the same command continues")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the missing trainings, write the tables and draw the pictures; returns the exit code."""
    args = parse_args(argv)
    try:
        poses = load_poses(args.data)
        prepare_folder(args.out)
        (args.out / "models").mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with single_thread():
        run_all(poses, args)
    results = collect(args.out)
    write_text(args.out / "results.json", json.dumps(results, indent=1) + "\n")
    text = "\n\n".join(
        f"{setting}\n\n{comparison_table(judged)}\n\n{sigma_table(judged)}"
        for setting, judged in results.items()
    )
    write_text(args.out / "table.md", text + "\n")
    print(text)
    draw(results, poses, args)
    return 0


def run_all(poses: PoseSet, args: argparse.Namespace) -> None:
    """Run the trainings without a file of results."""
    for seed in args.seeds:
        for setting in args.settings:
            for method in args.methods:
                file = args.out / f"{setting}-{method}-{seed}.json"
                if file.exists():
                    continue
                results = run(method, setting, seed, poses, args)
                write_text(file, json.dumps(results, indent=1) + "\n")
                own = results[method]
                print(
                    f"{setting} {method} seed {seed}: {own['mpjpe_mm']:.1f} mm, best of 200 "
                    f"{own['best_of_200_mpjpe_mm']:.1f} mm, trained {own['seconds']:.0f} s",
                    flush=True,
                )


def load(out: Path, setting: str, method: str, seed: int) -> TrainedLifter:
    """Load a trained method, in evaluation mode."""
    lifter = METHODS[method].make()
    load_weights(out / "models" / f"{setting}-{method}-{seed}.safetensors", lifter)
    return lifter.eval()


def draw(
    results: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    poses: PoseSet,
    args: argparse.Namespace,
) -> None:
    """Draw the pictures of all finished runs."""
    note = f"{poses.source.split('/')[-1]}, held-out subjects, {{}}"
    curves = {
        setting: {
            name: [float(np.mean([run[f"best_of_{n}_mpjpe_mm"] for run in runs])) for n in COUNTS]
            for name, runs in judged.items()
            if not name.startswith(SMALL)
        }
        for setting, judged in results.items()
    }
    for setting, judged in results.items():
        seeds = max(len(runs) for runs in judged.values())
        said = note.format(f"{setting} views, mean of {seeds} seeds.")
        aligned = {
            name: [
                float(np.mean([run[f"best_of_{n}_pa_mpjpe_mm"] for run in judged[name]]))
                for n in COUNTS
            ]
            for name in ("flow", "training poses")
            if name in judged
        }
        if len(aligned) == 2:
            figure_4(args.out / f"figure_4_{setting}.png", COUNTS, aligned, said)
        covered = {
            name: (
                [level / 20 for level in range(21)],
                [float(value) for value in np.mean([run["coverage"] for run in runs], axis=0)],
            )
            for name, runs in judged.items()
            if name in DENSITIES
        }
        if covered:
            reliability_picture(
                args.out / f"reliability_{setting}.png",
                covered,
                "Calibration of the joints",
                said,
            )
    marks = {
        setting: (
            25,
            {
                name: float(np.mean([run["means_25_mpjpe_mm"] for run in judged[name]]))
                for name in ("flow", "multi-head")
                if name in judged
            },
        )
        for setting, judged in results.items()
    }
    setting = "ambiguous" if "ambiguous" in results else next(iter(results), "")
    wanted = [name for name in SHOWN if name in results.get(setting, {})]
    if "flow" in wanted:
        draw_person(curves, marks, setting, wanted, poses, args)


def draw_person(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    marks: Mapping[str, tuple[int, Mapping[str, float]]],
    setting: str,
    wanted: Sequence[str],
    poses: PoseSet,
    args: argparse.Namespace,
) -> None:
    """Draw one held-out person by every method, above the curves of all methods."""
    seed = args.seeds[0]
    generator = torch.Generator().manual_seed(1000 + seed)
    source = PoseViews(torch.from_numpy(poses.part(args.split)), SETTINGS[setting])
    views = source.held_out(args.views, generator)
    val = PoseViews(torch.from_numpy(poses.val), SETTINGS[setting])
    lifters: dict[str, Lifter] = {}
    for name in wanted:
        if name == "gaussian":
            around = load(args.out, setting, "regressor", seed)
            lifters[name] = gaussian_around(around, val.held_out(VAL_VIEWS, generator))
        else:
            lifters[name] = load(args.out, setting, name, seed)
    index = typical_view(lifters["flow"], views)
    view = views[index : index + 1]
    hidden = int((~view.visible).sum()) - int(not SETTINGS[setting].nose)
    why_a_flow(
        args.out / "why_a_flow.png",
        view,
        lifters,
        {name: (COUNTS, errors) for name, errors in curves.items()},
        marks=marks,
        note=(
            f"Above: a held-out person, {hidden} of 16 keypoints hidden; "
            "20 samples of each method and, in pink, its one answer, from the camera and from the "
            "side.\nBelow: the error of the sample nearest to the truth, over all such people. "
            f"* on {min(QUANTISED_VIEWS, len(views))} of the {len(views)} views, the same for both."
        ),
        seed=seed,
    )


@torch.no_grad()
def typical_view(flow: Lifter, views: Views) -> int:
    """Select a view with eight to eleven hidden joints and a typical error of the flow."""
    hidden = (~views.visible).sum(dim=1)
    rows = (hidden >= 8) & (hidden <= 11)
    if not rows.any():
        rows = torch.ones_like(rows)
    error = error_mm(flow.point(views), views.relative)
    off = (error - error[rows].median()).abs()
    # Among the typical poses, the most outstretched one.
    near = rows & (off <= off[rows].quantile(0.3))
    spread = views.relative.std(dim=1).amin(dim=1)
    return int(torch.where(near, spread, -1.0).argmax())


if __name__ == "__main__":
    sys.exit(main())
