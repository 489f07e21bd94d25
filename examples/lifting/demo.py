"""Train and judge a small p(3D pose | 2D keypoints) in about three minutes on two cores.

Two copies of one network are trained on the same views for the same number of steps: one as a
conditional flow, one as a plain regressor that only ever learns its mode. Both are then judged on
people that neither has seen.
"""

import argparse
import contextlib
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from examples.data.augment import mirror, vary_bones
from examples.data.cameras import Views, occlude, photograph
from examples.data.poses import PoseSet, load_poses
from examples.lifting.model import LiftingModel
from examples.pictures import best_of_n_picture, lifting_picture
from flowprior.metrics import mpjpe

__all__ = ["Settings", "main"]

NUM_SAMPLES = 100
REPORTED_N = (1, 10, 100)
DRAWN_SAMPLES = 30
VIEWS_PER_CHUNK = 250

Loss = Callable[[LiftingModel, Views], Tensor]
Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """How the demo trains.

    Args:
        steps: Optimisation steps of each of the two models.
        seed: Seed of everything random.
        batch_size: Views per step.
        learning_rate: AdamW's, at the end of the warm-up.
        mode_weight: Weight of the L1 error of the mode, in metres summed over the 48 coordinates,
            against the NLL in nats; the paper's 1.0 to 0.001 is 1000 here. With so few steps the
            NLL alone gave the best of n, the NLL and the mode itself on the validation subjects of
            the CMU file.
        test_views: Most views to evaluate on.
    """

    steps: int = 2400
    seed: int = 0
    batch_size: int = 256
    learning_rate: float = 3e-3
    mode_weight: float = 0.0
    test_views: int = 2000


def training_views(poses: Tensor, settings: Settings) -> Iterator[Views]:
    """Endless batches of poses, half of them mirrored, as other people, each seen anew."""
    generator = torch.Generator(poses.device).manual_seed(settings.seed)
    size, device = (settings.batch_size,), poses.device
    while True:
        batch = poses[torch.randint(len(poses), size, generator=generator, device=device)]
        mirrored = (torch.rand(size, generator=generator, device=device) < 0.5)[:, None, None]
        batch = vary_bones(torch.where(mirrored, mirror(batch), batch), generator)
        yield occlude(photograph(batch, generator), generator)


def flow_loss(mode_weight: float) -> Loss:
    """NLL in nats plus the weighted L1 error of the mode (Kolotouros et al., supplement, 3)."""

    def loss(model: LiftingModel, views: Views) -> Tensor:
        theta = views.relative
        context = model.context(views.keypoints, views.visible)
        nll = model.prior.nll(theta, context)
        if not mode_weight:
            return nll
        mode = model.prior(context).mode()
        return nll + mode_weight * (mode - theta).abs().sum(dim=(1, 2)).mean()

    return loss


def regressor_loss(model: LiftingModel, views: Views) -> Tensor:
    """MPJPE of the mode in millimetres: the very figure that the regressor is judged by."""
    return 1000 * mpjpe(model(views.keypoints, views.visible).mode(), views.relative).mean()


def train(name: str, unit: str, loss_of: Loss, poses: Tensor, settings: Settings) -> LiftingModel:
    """Train one model.

    Args:
        name: What the progress bar calls it.
        unit: Unit of the loss, for the progress bar.
        loss_of: The objective.
        poses: (N, 17, 3) in the world frame, on the device to train on.
        settings: Steps, seed and the like.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(settings.seed)
    model = LiftingModel().to(poses.device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=1e-4, fused=True
    )
    warm_up = max(1, settings.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        ),
    )
    batches = training_views(poses, settings)
    with torch.no_grad():
        # Sets the scale of the flow from data. The regressor is given the same start.
        first = next(batches)
        model.prior.nll(first.relative, model.context(first.keypoints, first.visible))

    # A line every few seconds where the output is a file instead of a terminal.
    pause = 0.1 if sys.stderr.isatty() else 10.0
    smooth = None
    with tqdm(total=settings.steps, desc=name, unit="step", mininterval=pause, ncols=88) as bar:
        for _ in range(settings.steps):
            loss = loss_of(model, next(batches))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 50.0)
            optimizer.step()
            schedule.step()
            value = loss.detach()
            smooth = value if smooth is None else smooth + 0.05 * (value - smooth)
            if bar.update():
                bar.set_postfix_str(f"loss {float(smooth):.1f} {unit}", refresh=False)
        if smooth is not None:
            bar.set_postfix_str(f"loss {float(smooth):.1f} {unit}")
    return model.eval()


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Keep PyTorch's CPU operations on one thread.

    The matrices here are too small for a second thread to save much, and where
    another program uses the cores, threads that wait for each other take ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Judgement:
    """What was measured on V views.

    Args:
        nll: (V,) nats, density per metre to the 48.
        mode: (V,) MPJPE of the flow's mode, millimetres.
        regressor: (V,) MPJPE of the regressor, millimetres.
        samples: (V, 100) MPJPE of the flow's samples, millimetres.
        clear: (V,) bool, no joint hidden.
    """

    nll: Tensor
    mode: Tensor
    regressor: Tensor
    samples: Tensor
    clear: Tensor

    def groups(self) -> dict[str, Tensor]:
        """Masks (V,) of all, of the clear and of the occluded views."""
        return {"all": torch.ones_like(self.clear), "clear": self.clear, "occluded": ~self.clear}

    def best_curve(self, rows: Tensor) -> list[float]:
        """Mean error of the best of 1, 2, ..., 100 samples, over the views in a mask (V,)."""
        best = self.samples[rows].cummin(dim=1).values.mean(dim=0)
        return [float(value) for value in best]


def with_pelvis(theta: Tensor) -> Tensor:
    """Joints (..., 16, 3) seen from the pelvis -> (..., 17, 3) with the pelvis at the origin."""
    return torch.cat([torch.zeros_like(theta[..., :1, :]), theta], dim=-2)


def error_mm(theta: Tensor, truth: Tensor) -> Tensor:
    """MPJPE over 17 joints, the pelvis with its zero error among them, in millimetres."""
    return 1000 * mpjpe(with_pelvis(theta), with_pelvis(truth))


@torch.inference_mode()
def judge(flow: LiftingModel, regressor: LiftingModel, views: Views, seed: int) -> Judgement:
    """Measure both models on held-out views."""
    generator = torch.Generator(views.joints.device).manual_seed(seed)
    parts: list[tuple[Tensor, ...]] = []
    starts = range(0, len(views), VIEWS_PER_CHUNK)
    for start in tqdm(starts, desc="evaluating", unit="chunk", ncols=88):
        some = views[start : start + VIEWS_PER_CHUNK]
        theta = some.relative
        posterior = flow(some.keypoints, some.visible)
        samples = posterior.sample(NUM_SAMPLES, generator=generator)
        parts.append(
            (
                -posterior.log_prob(theta),
                error_mm(posterior.mode(), theta),
                error_mm(regressor(some.keypoints, some.visible).mode(), theta),
                error_mm(samples, theta[:, None]),
                some.visible.all(dim=1),
            )
        )
    return Judgement(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def summarise(judgement: Judgement) -> Metrics:
    """The figures of the table, by group of views; a group without views is left out."""
    table: Metrics = {}
    for name, rows in judgement.groups().items():
        if not rows.any():
            continue
        best = judgement.best_curve(rows)
        table[name] = {
            "views": int(rows.sum()),
            "nll_nats": float(judgement.nll[rows].mean()),
            "mode_mpjpe_mm": float(judgement.mode[rows].mean()),
            "regressor_mpjpe_mm": float(judgement.regressor[rows].mean()),
            **{f"best_of_{n}_mpjpe_mm": best[n - 1] for n in REPORTED_N},
        }
    return table


def format_table(metrics: Metrics) -> str:
    """The figures as text, one line per figure and one column per group of views."""
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


def upright(theta: Tensor) -> NDArray[np.float32]:
    """Theta (..., 16, 3) in the camera frame -> (..., 17, 3) with y up, z towards the viewer."""
    joints: NDArray[np.float32] = with_pelvis(theta).cpu().numpy() * np.array(
        [1, -1, -1], np.float32
    )
    return joints


def pick_view(judgement: Judgement, views: Views, rows: Tensor) -> int | None:
    """A view worth a picture: the mode's error is typical, the limbs are spread out."""
    if not rows.any():
        return None
    errors = judgement.mode[rows]
    low, high = torch.quantile(errors, 0.35), torch.quantile(errors, 0.65)
    typical = rows & (judgement.mode >= low) & (judgement.mode <= high)
    spread = views.relative.norm(dim=-1).std(dim=1) + views.relative.std(dim=1).amin(dim=1)
    return int(torch.where(typical, spread.cpu(), -1.0).argmax())


@torch.inference_mode()
def draw(flow: LiftingModel, judgement: Judgement, views: Views, out: Path, seed: int) -> None:
    """Write the pictures."""
    generator = torch.Generator(views.joints.device).manual_seed(seed)
    clear, hidden = judgement.clear, (~views.visible).sum(dim=1).cpu()
    well_hidden = hidden >= min(4, int(hidden.max())) if bool(hidden.any()) else hidden > 0
    for name, rows in (("clear", clear), ("occluded", well_hidden)):
        index = pick_view(judgement, views, rows)
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
                f"A held-out person with an error that is typical: mode {judgement.mode[index]:.0f}"
                f" mm, best of {NUM_SAMPLES} samples {judgement.samples[index].min():.0f} mm. "
                f"{DRAWN_SAMPLES} samples are drawn."
            ),
        )
    titles = {"all": "all views", "clear": "every joint seen", "occluded": "some joints hidden"}
    curves = {
        titles[name]: (
            judgement.best_curve(rows),
            float(judgement.mode[rows].mean()),
            float(judgement.regressor[rows].mean()),
        )
        for name, rows in judgement.groups().items()
        if rows.any()
    }
    best_of_n_picture(
        out / "best_of_n.png",
        curves,
        title="Error of the best of n samples",
        note=(
            "MPJPE of the sample nearest to the truth, on held-out people. The truth picks it: the "
            "figure says what the samples cover, not what an application would get."
        ),
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.lifting.demo",
        description=(
            "Train a small normalizing flow p(3D pose | 2D keypoints, some of them hidden) and a "
            "regressor of the same shape, judge both on held-out people, save the figures, the "
            "model and pictures."
        ),
        epilog=(
            "Written to --out: results.json, prior.safetensors and encoder.safetensors (the "
            "trained model), clear.png, occluded.png, best_of_n.png. "
            "Exit code: 0 done, 2 bad arguments or data, 130 interrupted."
        ),
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="an .npz file with joints17, split, subject and subject_names, or a folder of AMASS "
        ".npz files; embedded procedural poses if left out",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/demo"),
        metavar="DIR",
        help="folder for the results, made if missing (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=_positive,
        default=Settings.steps,
        metavar="N",
        help="optimisation steps of each of the two models (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_natural,
        default=Settings.seed,
        metavar="N",
        help="seed of weights, cameras, occlusions and samples (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU if there is one (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=("test", "val"),
        default="test",
        help="held-out subjects to judge on; val is for choosing settings (default: %(default)s)",
    )
    return parser.parse_args(argv)


def _natural(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def run(
    poses: PoseSet, settings: Settings, split: str, device: torch.device, out: Path, command: str
) -> dict[str, Any]:
    """Train, judge and write everything; returns what is in ``results.json``."""
    start = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = round(time.perf_counter() - start - sum(seconds.values()), 1)

    train_poses = torch.from_numpy(poses.train).to(device)
    held_out = torch.from_numpy(poses.part(split)).to(device)
    number = min(len(held_out), settings.test_views)
    chosen = torch.linspace(0, len(held_out) - 1, number, device=device).round().long()
    generator = torch.Generator(device).manual_seed(settings.seed + 1)
    views = occlude(photograph(held_out[chosen], generator), generator)

    with single_thread():
        flow = train("flow     ", "nats", flow_loss(settings.mode_weight), train_poses, settings)
        lap("train_flow")
        regressor = train("regressor", "mm", regressor_loss, train_poses, settings)
        lap("train_regressor")
        judgement = judge(flow, regressor, views, settings.seed + 2)
        lap("evaluate")

    draw(flow, judgement, views, out, settings.seed + 3)
    flow.save(out)
    lap("pictures")
    results = {
        "command": command,
        "data": {
            "source": poses.source,
            "split": split,
            "subjects": {name: list(names) for name, names in poses.subjects.items()},
            "train_poses": len(poses.train),
            "held_out_poses": len(held_out),
        },
        "settings": asdict(settings),
        "model": flow.config,
        "device": str(device),
        "torch": torch.__version__,
        "seconds": seconds | {"total": round(time.perf_counter() - start, 1)},
        "metrics": summarise(judgement),
        "best_of_n_mpjpe_mm": judgement.best_curve(judgement.groups()["all"]),
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    args = parse_args(argv)
    shown = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join(["python", "-m", "examples.lifting.demo", *shown])
    if args.device == "cuda" and not torch.cuda.is_available():
        return _fail("--device cuda: this PyTorch finds no GPU")
    device = torch.device("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")
    try:
        poses = load_poses(args.data, args.seed)
        if not len(poses.part(args.split)):
            return _fail(f"{poses.source}: no subject is in the {args.split} part")
        args.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        return _fail(str(error))

    if not poses.report.clean:
        print(poses.report, file=sys.stderr)
    print(f"{poses.source}: {len(poses.train)} poses of {len(poses.subjects['train'])} people to")
    print(
        f"train on, {len(poses.part(args.split))} of {len(poses.subjects[args.split])} others "
        f"held out ({', '.join(poses.subjects[args.split])}); device {device}",
        flush=True,
    )
    settings = Settings(steps=args.steps, seed=args.seed)
    try:
        results = run(poses, settings, args.split, device, args.out, command)
    except KeyboardInterrupt:
        print("\ninterrupted; no results were written", file=sys.stderr)
        return 130
    print(f"\n{format_table(results['metrics'])}\n")
    print(f"{results['seconds']['total']:.0f} s; results, model and pictures are in {args.out}")
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
