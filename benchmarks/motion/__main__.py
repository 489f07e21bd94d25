"""Motions with simulated errors: sequence fits against filters and fits of single frames.

    python -m benchmarks.motion --data cmu_clips.npz --json motion.json
    python -m benchmarks.motion --data cmu_clips.npz --split val --every 4 --tasks 3d
    python -m benchmarks.motion --data cmu_clips.npz --methods "sequence, motion prior" vae

Widths of filters, and weights of the VAE, are the best on the validation clips. One seed. Times are
those of the CPU, of all threads together: run with one thread for the time of one core.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.motion.clips import Clip, learned_rig, load_clips
from benchmarks.motion.filters import gaussian, interpolated, one_euro, savitzky_golay
from benchmarks.motion.scores import Scores
from benchmarks.motion.tasks import (
    BODY_JOINTS,
    FOCAL_PX,
    MIDDLE_PX,
    TASKS_3D,
    Case2d,
    Case3d,
    detected,
)
from benchmarks.motion.vae import best_weights, fit_motions, trained_vae
from benchmarks.priors.methods.vae import Vae
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting.sequence import (
    PointRig,
    SequenceFit,
    SequenceOptions,
    fit_sequence,
    rig_of,
)
from flowprior.prior import MotionPrior
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import COCO_17, H36M_17, SMPL_24

FPS = 30.0
ANKLES_17 = (3, 6)
ANKLES_24 = (7, 8)
Filter = Callable[[Tensor, float], Tensor]
FILTERS: dict[str, tuple[Filter, tuple[float, ...]]] = {
    "Gaussian": (gaussian, (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5)),
    "Savitzky-Golay": (savitzky_golay, (3, 5, 7, 9, 11, 15, 21)),
    "One-Euro": (one_euro, (0.3, 0.6, 1, 1.5, 2.5, 4, 6)),
}
WITHOUT = SequenceOptions(prior_weight=0.0)
# Single frames have no neighbours to share the prior with.
ALONE = SequenceOptions(prior_weight=0.3)
WITH_MOTION = "sequence, motion prior"
VAE = "vae"
VAE_SECONDS = 60.0
EVERY_SO_MANY = 4  # validation clips on which the weights of the VAE are chosen


def cases(clips: list[Clip], task: str, seed: int) -> Iterator[Case3d]:
    """The clips of a task; the noise depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for clip in clips:
        yield TASKS_3D[task](clip, generator)


def best_width(clips: list[Clip], task: str, name: str) -> float:
    """The width of a filter with the least MPJPE."""
    apply, widths = FILTERS[name]
    errors = dict.fromkeys(widths, 0.0)
    for case in cases(clips, task, 1):
        filled = interpolated(case.points)
        for width in widths:
            away = apply(filled, width) - case.clip.joints
            errors[width] += float(away.norm(dim=-1).sum())
    return min(errors, key=errors.__getitem__)


def sequence_3d(
    prior: PosePrior,
    rig: PointRig,
    case: Case3d,
    options: SequenceOptions,
    *,
    alone: bool = False,
    motion: MotionPrior | None = None,
) -> SequenceFit:
    """A sequence fit of a clip, or independent fits of its frames."""
    points = case.points[:, None] if alone else case.points
    return fit_sequence(
        prior,
        fps=FPS,
        joints_3d=points,
        sigma=case.sigma,
        skeleton=H36M_17,
        rig=rig,
        moves=False,
        motion=motion,
        options=options,
    )


def run_3d(
    prior: PosePrior,
    rig: PointRig,
    clips: list[Clip],
    chosen: list[Clip],
    task: str,
    motion: MotionPrior | None,
    methods: list[str],
) -> dict[str, dict[str, float]]:
    """Errors of the methods on one task."""
    filters = [name for name in FILTERS if name in methods]
    widths = {name: best_width(chosen, task, name) for name in filters}
    scores = {name: Scores() for name in methods if name not in FILTERS}
    scores |= {f"{name} ({width:g})": Scores() for name, width in widths.items()}
    for case in cases(clips, task, 0):
        truth, root = case.clip.joints, case.clip.root
        filled = interpolated(case.points)
        if "input" in methods:
            scores["input"].add_motion(filled, truth, ANKLES_17, root)
        for name, width in widths.items():
            result = FILTERS[name][0](filled, width)
            scores[f"{name} ({width:g})"].add_motion(result, truth, ANKLES_17, root)
        for name, options in (
            ("frames alone", ALONE),
            ("sequence, no prior", WITHOUT),
            ("sequence", SequenceOptions()),
            (WITH_MOTION, SequenceOptions()),
        ):
            if name not in methods or (name == WITH_MOTION and motion is None):
                continue
            if name == "frames alone" and not bool(case.points.isfinite().all()):
                continue
            begin = time.process_time()
            alone = name == "frames alone"
            fit = sequence_3d(
                prior,
                rig,
                case,
                options,
                alone=alone,
                motion=motion if name == WITH_MOTION else None,
            )
            seconds = time.process_time() - begin
            points = fit.points[:, 0] if alone else fit.points
            covariance = fit.point_covariance[:, 0] if alone else fit.point_covariance
            scores[name].add_motion(points, truth, ANKLES_17, root)
            # The hip is the origin: its error is 0 by definition.
            scores[name].add_coverage(points[:, 1:], truth[:, 1:], covariance[:, 1:])
            scores[name].add("CPU seconds per frame", torch.tensor([seconds / len(case.clip)]))
    return {name: each.row() for name, each in scores.items() if each.values}


def run_vae(
    vae: Vae, rig: PointRig, clips: list[Clip], chosen: list[Clip], task: str
) -> dict[str, dict[str, float]]:
    """Errors of a VAE of poses with smooth joints on one task."""
    problems, scores = list(cases(clips, task, 0)), Scores()
    weights = best_weights(vae, rig, list(cases(chosen, task, 1)))
    begin = time.process_time()
    fits = fit_motions(vae, rig, problems, weights)
    seconds = time.process_time() - begin
    for case, points in zip(problems, fits, strict=True):
        scores.add_motion(points, case.clip.joints, ANKLES_17, case.clip.root)
    scores.add("CPU seconds per frame", torch.tensor([seconds / sum(map(len, clips))]))
    name = f"VAE, smooth joints (order {weights.order}, {1000 * weights.change:g} mm)"
    return {name: scores.row()}


def run_2d(
    prior: PosePrior,
    clips: list[Clip],
    motion: MotionPrior | None,
    methods: list[str],
    *,
    mistakes: bool,
) -> dict[str, dict[str, float]]:
    """Lifted clips: the mode of each frame, filtered modes, and sequences."""
    body, generator = BodyModel(), torch.Generator().manual_seed(0)
    joints_rig = rig_of(body, SMPL_24)
    fits = {"sequence, no prior": WITHOUT, "sequence": SequenceOptions()}
    if motion is not None:
        fits[WITH_MOTION] = SequenceOptions()
    fits = {name: options for name, options in fits.items() if name in methods}
    scores = {name: Scores() for name in ("mode of each frame", "modes, Gaussian (2)", *fits)}
    for clip in clips:
        case = detected(clip, body, generator, mistakes=mistakes)
        truth = case.joints - case.joints[:, :1]
        with torch.no_grad():
            mode = prior.given(keypoints_2d=case.keypoints).mode()
            lifted = body.keypoints(mode, SMPL_24)[:, :BODY_JOINTS]
        lifted = lifted - lifted[:, :1]
        lifted[~case.valid] = torch.nan
        lifted = interpolated(lifted)
        scores["mode of each frame"].add_motion(lifted, truth, ANKLES_24)
        scores["modes, Gaussian (2)"].add_motion(gaussian(lifted, 2), truth, ANKLES_24)
        for name, options in fits.items():
            begin = time.process_time()
            fit = sequence_2d(prior, body, case, options, motion if name == WITH_MOTION else None)
            seconds = time.process_time() - begin
            points = joints_rig.pose(fit.rotation, fit.shape).points[:, :BODY_JOINTS]
            points = points - points[:, :1]
            scores[name].add_motion(points, truth, ANKLES_24)
            scores[name].add("largest jump", _largest_jump(points, truth))
            scores[name].add("CPU seconds per frame", torch.tensor([seconds / len(clip)]))
            found = fit.swapped == case.swapped
            scores[name].add("sides right", found.float())
    rows = {name: each.row() for name, each in scores.items()}
    for name, each in scores.items():
        if "largest jump" in each.values:
            rows[name]["worst jump"] = float(torch.cat(each.values["largest jump"]).max())
    return rows


def sequence_2d(
    prior: PosePrior,
    body: BodyModel,
    case: Case2d,
    options: SequenceOptions,
    motion: MotionPrior | None = None,
) -> SequenceFit:
    """A sequence fit of keypoints."""
    return fit_sequence(
        prior,
        fps=FPS,
        keypoints_2d=case.keypoints,
        valid=case.valid,
        skeleton=COCO_17,
        body=body,
        focal_px=FOCAL_PX,
        principal_point_px=MIDDLE_PX,
        motion=motion,
        options=options,
    )


def _largest_jump(points: Tensor, truth: Tensor) -> Tensor:
    """Largest displacement of the mean joint between frames beyond the true one, mm."""
    jump = (points.diff(dim=0) - truth.diff(dim=0)).norm(dim=-1).mean(dim=-1)
    return 1000 * jump.max()[None]


def run_speed(prior: PosePrior, rig: PointRig, clips: list[Clip]) -> dict[str, dict[str, float]]:
    """Time and memory for one person, by the number of frames."""
    import resource

    joints = torch.cat([clip.joints for clip in clips])
    joints = joints.repeat(-(-10_000 // len(joints)), 1, 1)
    result = {}
    for frames in (300, 1000, 3000, 10_000):
        points = joints[:frames] + 0.02 * torch.randn(frames, 17, 3)
        begin, wall = time.process_time(), time.perf_counter()
        fit_sequence(
            prior, fps=FPS, joints_3d=points, sigma=0.02, skeleton=H36M_17, rig=rig, moves=False
        )
        seconds, wall = time.process_time() - begin, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        result[f"{frames} frames"] = {
            "CPU seconds": seconds,
            "frames per CPU second": frames / seconds,
            "seconds": wall,
            "peak memory, MiB": peak,
        }
    return result


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    print(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for name, row in rows.items():
        cells = (f"{row[c]:.4g}" if c in row else "" for c in columns)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="cmu_clips.npz")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--every", type=int, default=1, help="only one clip of this many")
    parser.add_argument("--tasks", nargs="+", default=["3d", "2d", "speed"])
    parser.add_argument("--prior", default="flowprior/people")
    parser.add_argument("--motion", default="flowprior/motion", help="motion prior, or none")
    every = ("input", *FILTERS, VAE, "frames alone", "sequence, no prior", "sequence", WITH_MOTION)
    parser.add_argument("--methods", nargs="+", choices=every, default=list(every))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    prior = ConditionalPosePrior.from_pretrained(arguments.prior).freeze()
    motion = None
    if arguments.motion != "none":
        motion = MotionPrior.from_pretrained(arguments.motion).freeze()
    training, methods = load_clips(arguments.data, "train"), arguments.methods
    rig = learned_rig(training)
    chosen = load_clips(arguments.data, "val")[:: arguments.every]
    clips = load_clips(arguments.data, arguments.split)[:: arguments.every]
    tables: dict[str, dict[str, dict[str, float]]] = {}
    if "3d" in arguments.tasks:
        vae = trained_vae(training, VAE_SECONDS) if VAE in methods else None
        for task in TASKS_3D:
            tables[task] = run_3d(prior, rig, clips, chosen, task, motion, methods)
            if vae is not None:
                tables[task] |= run_vae(vae, rig, clips, chosen[::EVERY_SO_MANY], task)
            show(task, tables[task])
    if "2d" in arguments.tasks:
        for title, mistakes in (("lifted clips", False), ("a detector's mistakes", True)):
            tables[title] = run_2d(prior, clips, motion, methods, mistakes=mistakes)
            show(title, tables[title])
    if "speed" in arguments.tasks:
        tables["speed"] = run_speed(prior, rig, clips)
        show("speed", tables["speed"])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
