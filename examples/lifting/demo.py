"""Train and evaluate a small p(3D pose | 2D keypoints) in about three minutes on two cores.

Two copies of one network are trained on the same views for the same number of steps: one as a
regressor with a conditional flow around its answer, one as a regressor alone. Both are then
evaluated on held-out subjects.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.command_line import DEVICES, device_of, fail, interruptible, natural, positive
from examples.data.poses import PoseSet, load_poses
from examples.data.virtual_views import Views
from examples.lifting.figures import upright
from examples.lifting.judging import Judgement, Plan, judge
from examples.lifting.loop import Schedule, fit, single_thread
from examples.lifting.methods import FlowLifter, ModeRegressor
from examples.lifting.model import LiftingModel
from examples.lifting.views import PoseViews, ViewOptions
from examples.pictures import best_of_n_picture, lifting_picture
from examples.whole_files import prepare_folder, write_json

__all__ = ["Settings", "main"]

NUM_SAMPLES = 100
REPORTED_N = (1, 10, 100)
DRAWN_SAMPLES = 30
CALIBRATION_VIEWS = 2000
VIEWS = ViewOptions(occlusion="mixed", noise_px=3.0)

Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """Training settings of the demo.

    Args:
        steps: Optimisation steps of each of the two models.
        seed: Random seed.
        batch_size: Views per step.
        learning_rate: Learning rate of AdamW after the warm-up.
        flow_learning_rate: That of the steps that train the flow alone.
        weight_decay: Weight decay of AdamW.
        regressor_share: Share of the steps in which the flow's model trains its regressor.
        test_views: Largest number of views to evaluate on.
    """

    steps: int = 2400
    seed: int = 0
    batch_size: int = 256
    learning_rate: float = 6e-3
    flow_learning_rate: float = 3e-3
    weight_decay: float = 0.1
    regressor_share: float = 0.8
    test_views: int = 2000


@dataclass(frozen=True)
class Both:
    """Results of both models, and the mask of clear views.

    Args:
        flow: Results of the flow.
        regressor: Results of the regressor.
        clear: (V,) bool, no joint hidden.
    """

    flow: Judgement
    regressor: Judgement
    clear: Tensor

    def groups(self) -> dict[str, Tensor]:
        """Masks (V,) of all views, the clear ones and the occluded ones."""
        return {"all": torch.ones_like(self.clear), "clear": self.clear, "occluded": ~self.clear}

    def best_curve(self, rows: Tensor) -> list[float]:
        """Mean error of the best of 1, 2, ..., 100 samples, over the views in a mask (V,)."""
        return [float(value) for value in self.flow.best_mm[rows].mean(dim=0)]


def summarise(both: Both) -> Metrics:
    """Results for the table, by group of views; empty groups are left out."""
    assert both.flow.nll is not None
    table: Metrics = {}
    for name, rows in both.groups().items():
        if not rows.any():
            continue
        best = both.best_curve(rows)
        table[name] = {
            "views": int(rows.sum()),
            "nll_nats": float(both.flow.nll[rows].mean()),
            "mode_mpjpe_mm": float(both.flow.point_mm[rows].mean()),
            "regressor_mpjpe_mm": float(both.regressor.point_mm[rows].mean()),
            **{f"best_of_{n}_mpjpe_mm": best[n - 1] for n in REPORTED_N},
        }
    return table


def format_table(metrics: Metrics) -> str:
    """The results as text, one line per metric and one column per group of views."""
    rows = (
        ("views", "views", "d"),
        ("NLL, nats (48 dimensions)", "nll_nats", ".1f"),
        ("regressor MPJPE, mm", "regressor_mpjpe_mm", ".1f"),
        ("flow: mode MPJPE, mm", "mode_mpjpe_mm", ".1f"),
        *((f"flow: best of {n}, mm", f"best_of_{n}_mpjpe_mm", ".1f") for n in REPORTED_N),
    )
    lines = [f"{'held-out people':<28}" + "".join(f"{name:>11}" for name in metrics)]
    lines += [
        f"{label:<28}" + "".join(f"{format(group[key], spec):>11}" for group in metrics.values())
        for label, key, spec in rows
    ]
    return "\n".join(lines)


def pick_view(both: Both, views: Views, rows: Tensor) -> int | None:
    """Select a view for a picture: a typical error of the mode, and outstretched limbs."""
    if not rows.any():
        return None
    mode = both.flow.point_mm
    low, high = torch.quantile(mode[rows], 0.35), torch.quantile(mode[rows], 0.65)
    typical = rows & (mode >= low) & (mode <= high)
    spread = views.relative.norm(dim=-1).std(dim=1) + views.relative.std(dim=1).amin(dim=1)
    return int(torch.where(typical, spread.cpu(), -1.0).argmax())


@torch.inference_mode()
def draw(flow: LiftingModel, both: Both, views: Views, out: Path, seed: int) -> None:
    """Write the pictures."""
    generator = torch.Generator(views.joints.device).manual_seed(seed)
    clear, hidden = both.clear, (~views.visible).sum(dim=1).cpu()
    well_hidden = hidden >= min(4, int(hidden.max())) if bool(hidden.any()) else hidden > 0
    for name, rows in (("clear", clear), ("occluded", well_hidden)):
        index = pick_view(both, views, rows)
        if index is None:
            continue
        view = views[index : index + 1]
        posterior = flow(view.keypoints, view.visible)
        count = int(hidden[index])
        lifting_picture(
            out / f"{name}.png",
            keypoints=view.keypoints[0].cpu().numpy(),
            visible=view.visible[0].cpu().numpy(),
            mode=upright(posterior.mode()[0]),
            samples=upright(posterior.sample(DRAWN_SAMPLES, generator=generator)[0]),
            truth=upright(view.relative[0]),
            title=f"{count} of 17 joints hidden" if count else "Every joint seen",
            note=(
                "A held-out person with a typical error: "
                f"mode {both.flow.point_mm[index]:.0f} mm, "
                f"best of {NUM_SAMPLES} samples {both.flow.best_mm[index, -1]:.0f} mm. "
                f"{DRAWN_SAMPLES} samples are drawn."
            ),
        )
    titles = {"all": "all views", "clear": "every joint seen", "occluded": "some joints hidden"}
    curves = {
        titles[name]: (
            both.best_curve(rows),
            float(both.flow.point_mm[rows].mean()),
            float(both.regressor.point_mm[rows].mean()),
        )
        for name, rows in both.groups().items()
        if rows.any()
    }
    best_of_n_picture(
        out / "best_of_n.png",
        curves,
        title="Error of the best of n samples",
        note=(
            "MPJPE of the sample nearest to the ground truth, on held-out subjects. An oracle "
            "selects it: the curve measures coverage, not the accuracy of an application."
        ),
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.lifting.demo",
        description=(
            "Train a small p(3D pose | 2D keypoints, some of them hidden), a regressor and a "
            "normalizing flow around its answer, and the regressor alone; evaluate both on "
            "held-out subjects, "
            "save the results, the model and pictures."
        ),
        epilog=(
            "Files in --out: results.json, model.safetensors (the trained "
            "model), clear.png, occluded.png, best_of_n.png. "
            "Exit code: 0 done, 2 bad arguments or data, 130 interrupted."
        ),
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="an .npz file with joints17, split, subject and subject_names, or a folder of AMASS "
        ".npz files (default: embedded procedural poses)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/lifting"),
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        default=Settings.steps,
        metavar="N",
        help="optimisation steps of each of the two models (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=natural,
        default=Settings.seed,
        metavar="N",
        help="seed of weights, cameras, occlusions and samples (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="auto selects a GPU if available (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=("test", "val"),
        default="test",
        help="held-out subjects for evaluation; val is for the choice of settings "
        "(default: %(default)s)",
    )
    return parser.parse_args(argv)


def run(
    poses: PoseSet, settings: Settings, split: str, device: torch.device, out: Path, command: str
) -> dict[str, Any]:
    """Train, evaluate and write everything; returns the content of ``results.json``."""
    start = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = round(time.perf_counter() - start - sum(seconds.values()), 1)

    source = PoseViews(torch.from_numpy(poses.train).to(device), VIEWS)
    others = PoseViews(torch.from_numpy(poses.part(split)).to(device), VIEWS)
    generator = torch.Generator(device).manual_seed(settings.seed + 1)
    views = others.held_out(settings.test_views, generator)
    schedule = Schedule(
        settings.steps,
        settings.batch_size,
        settings.learning_rate,
        settings.weight_decay,
        settings.seed,
        flow_learning_rate=settings.flow_learning_rate,
    )
    plan = Plan(tuple(range(1, NUM_SAMPLES + 1)), quantised=(), seed=settings.seed + 2)

    with single_thread():
        torch.manual_seed(settings.seed)
        flow = FlowLifter(
            LiftingModel(), mode_loss="mpjpe", regressor_share=settings.regressor_share
        ).to(device)
        fit(flow, source, schedule, "flow     ")
        fitted = {}
        if split != "val" and len(poses.val):
            val = PoseViews(torch.from_numpy(poses.val).to(device), VIEWS)
            fitted = flow.calibrate(val.held_out(CALIBRATION_VIEWS, generator))
        lap("train_flow")
        torch.manual_seed(settings.seed)
        regressor = fit(ModeRegressor(LiftingModel()).to(device), source, schedule, "regressor")
        lap("train_regressor")
        both = Both(
            judge(flow, views, plan, "evaluating"),
            judge(regressor, views, Plan(counts=(1,), quantised=())),
            views.visible.all(dim=1).cpu(),
        )
        lap("evaluate")

    draw(flow.model, both, views, out, settings.seed + 3)
    flow.model.save(out)
    lap("pictures")
    results = {
        "command": command,
        "data": {
            "source": poses.source,
            "split": split,
            "subjects": {name: list(names) for name, names in poses.subjects.items()},
            "train_poses": len(poses.train),
            "held_out_poses": len(others),
        },
        "settings": asdict(settings),
        "model": flow.model.config,
        "calibration": fitted,
        "device": str(device),
        "torch": torch.__version__,
        "seconds": seconds | {"total": round(time.perf_counter() - start, 1)},
        "metrics": summarise(both),
        "best_of_n_mpjpe_mm": both.best_curve(both.groups()["all"]),
    }
    write_json(out / "results.json", results)
    return results


@interruptible("no results were written")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    args = parse_args(argv)
    shown = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join(["python", "-m", "examples.lifting.demo", *shown])
    try:
        device = device_of(args.device)
        poses = load_poses(args.data, args.seed)
        if not len(poses.part(args.split)):
            return fail(f"{poses.source}: no subject is in the {args.split} part")
        prepare_folder(args.out)
        # Exists only if all other files belong to its run.
        (args.out / "results.json").unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        return fail(error)

    if not poses.report.clean:
        print(poses.report, file=sys.stderr)
    print(f"{poses.source}: {len(poses.train)} poses of {len(poses.subjects['train'])} people to")
    print(
        f"train on, {len(poses.part(args.split))} of {len(poses.subjects[args.split])} others "
        f"held out ({', '.join(poses.subjects[args.split])}); device {device}",
        flush=True,
    )
    settings = Settings(steps=args.steps, seed=args.seed)
    results = run(poses, settings, args.split, device, args.out, command)
    print(f"\n{format_table(results['metrics'])}\n")
    print(f"{results['seconds']['total']:.0f} s; results, model and pictures are in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
