"""Training and evaluation of the motion prior."""

import argparse
import copy
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.files.whole_file import whole_file
from flowprior.prior.motion import MotionPrior
from tools.priors.motion_card import motion_card
from tools.priors.motion_drawing import Clips, Steps, draw_steps, load_clips
from tools.priors.training import CHECKPOINT, follow, schedule

__all__ = ["losses_of", "make_motion_prior", "motion_figures", "train_motion"]

STEPS = 3600
SIZE: dict[str, Any] = {
    "evidence": ("keypoints_2d", "joints_3d"),
    "encoder_features": 128,
    "encoder_blocks": 2,
    "head_features": 128,
    "hidden_features": 96,
    "num_steps": 3,
    "num_blocks": 1,
}
WEIGHT_DECAY = 0.1
WARMUP = 0.03
AVERAGE = 0.999
FOLLOWED = 4
CLIP = 50.0
EVALUATE_EVERY = 500
CHECKPOINT_SECONDS = 60.0
VALIDATED = 1024
STRIDES = (1, 2, 4)


def make_motion_prior(**changes: Any) -> MotionPrior:
    """A new prior; ``changes`` are other options than those of the shipped one."""
    return MotionPrior(**{**SIZE, **changes})


def losses_of(
    prior: MotionPrior, steps: Steps, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Mean angle of the expected pose in radians, and negative log-likelihood, in one pass."""
    context, _, centre = prior.expectation(
        steps.previous,
        fps=steps.fps,
        up=steps.up,
        keypoints_2d=steps.keypoints_2d,
        joints_3d=steps.joints_3d,
    )
    expected = rotations.rot6d_to_matrix(centre)
    moving = prior.context.moving
    away = (expected - steps.theta)[:, moving].square().sum(dim=(-2, -1)) / 2
    angle = (away + 1e-8).sqrt().mean()
    nll = prior.step.nll(  # type: ignore[operator]
        steps.theta, context, centre=centre.detach(), generator=generator
    )
    return angle, nll


def evenly_spaced(clips: Clips, stride: int, count: int) -> Steps:
    """Steps of validation or test clips, without noise or evidence."""
    frames = clips.frames(2 * stride)
    rows = frames[torch.linspace(0, len(frames) - 1, min(count, len(frames))).round().long()]
    previous = torch.stack([clips.rotation[rows - n * stride] for n in (2, 1)], dim=1)
    up = torch.tensor([0.0, 1.0, 0.0]).expand(len(rows), 3)
    return Steps(clips.rotation[rows], previous, up, 30.0 / stride)


@torch.no_grad()
def motion_figures(prior: MotionPrior, clips: Clips, count: int = VALIDATED) -> dict[str, float]:
    """Errors of the next pose, in degrees, and its negative log-likelihood in nats.

    Args:
        prior: The prior, in evaluation mode.
        clips: Clips of held-out people.
        count: Number of steps per rate.
    """
    found = {}
    for stride in STRIDES:
        steps = evenly_spaced(clips, stride, count)
        angle, nll = losses_of(prior, steps, None)
        past = prior.context.past(steps.previous, steps.fps, steps.theta)
        turned = rotations.rotvec_to_matrix(past.velocity * past.seconds)
        constant = past.last @ turned
        moving = prior.context.moving
        away = rotations.geodesic_distance(constant, steps.theta)[:, moving]
        rate = f"{steps.fps:g} fps"
        found[f"{rate}: mode, degrees"] = math.degrees(float(angle))
        found[f"{rate}: constant velocity, degrees"] = math.degrees(float(away.mean()))
        found[f"{rate}: NLL, nats"] = float(nll)
    return found


@dataclass
class _Run:
    prior: MotionPrior
    average: MotionPrior
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        content = {
            "prior": self.prior.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with whole_file(path) as partial:
            torch.save(content, partial)

    def resume(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        self.prior.load_state_dict(saved["prior"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.generator.set_state(saved["generator"])
        self.step, self.seconds = int(saved["step"]), float(saved["seconds"])


def descend(
    prior: MotionPrior,
    clips: Clips,
    val: Clips,
    body: BodyModel,
    out: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> Mapping[str, float]:
    """Train a prior in place, from the checkpoint in a folder if there is one.

    Returns:
        Steps and seconds, of all pieces of an interrupted training together.
    """
    decayed = [each for each in prior.parameters() if each.ndim > 1]
    others = [each for each in prior.parameters() if each.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, rate, betas=(0.9, 0.98), fused=True)
    average = copy.deepcopy(prior).requires_grad_(requires_grad=False).eval()
    run = _Run(prior.train(), average, optimizer, torch.Generator().manual_seed(seed))
    path = out / CHECKPOINT
    if path.exists():
        run.resume(path)
        print(f"resumed at step {run.step}", flush=True)
    start = time.monotonic() - run.seconds
    last = time.monotonic()
    sums = torch.zeros(3)
    evidence = prior.context.evidence is not None
    while run.step < steps:
        if time.monotonic() - last > CHECKPOINT_SECONDS:
            run.seconds, last = time.monotonic() - start, time.monotonic()
            run.save(path)
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(run.step / steps, WARMUP)
        drawn = draw_steps(clips, batch, body, run.generator, evidence=evidence)
        angle, nll = losses_of(prior, drawn, run.generator)
        # Slow and fast rates weigh the same.
        loss = nll + 100 * angle * (drawn.fps / 30.0) ** 1.5
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), CLIP, foreach=True)
        optimizer.step()
        sums += torch.tensor([math.degrees(angle.detach()), float(nll.detach()), 1.0])
        if run.step % FOLLOWED == 0:
            follow(average, prior, AVERAGE**FOLLOWED, first=run.step < 100)
        run.step += 1
        if run.step % EVALUATE_EVERY == 0:
            found = {
                "step": run.step,
                "seconds": round(time.monotonic() - start, 1),
                "training_degrees": float(sums[0] / sums[2]),
                "training_nll": float(sums[1] / sums[2]),
                **motion_figures(average, val),
            }
            sums.zero_()
            line = json.dumps({key: float(f"{value:.5g}") for key, value in found.items()})
            with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(line + "\n")
            print(line, flush=True)
    run.seconds = time.monotonic() - start
    run.save(path)
    prior.load_state_dict(average.state_dict())
    prior.eval()
    return {"steps": run.step, "seconds": run.seconds}


def train_motion(args: argparse.Namespace, out: Path, command: str) -> int:
    """Train, calibrate, evaluate and write the prior; returns the exit code.

    Args:
        args: The command line of ``tools.priors``.
        out: The folder.
        command: The command, for the card.

    Raises:
        OSError: If the data cannot be read.
        ValueError: If it holds no clips.
    """
    train, val, test = (load_clips(args.data, split) for split in range(3))
    if args.only_figures:
        prior = MotionPrior.from_pretrained(str(out))
        print(json.dumps(motion_figures(prior, test), indent=2))
        return 0
    torch.manual_seed(args.seed)
    prior = make_motion_prior()
    spent = descend(
        prior,
        train.mirrored(),
        val,
        BodyModel(),
        out,
        steps=args.steps or STEPS,
        batch=args.batch,
        rate=args.rate,
        seed=args.seed,
    )
    held = evenly_spaced(val, 1, VALIDATED)
    temperature = prior.calibrate(held.theta, held.previous, fps=held.fps, up=held.up)
    found = motion_figures(prior, test)
    prior.provenance = {
        "trained by": f"tools/priors, {spent['steps']} steps, seed {args.seed}",
        "data": "CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu, NSF EIA-0196217)",
    }
    training = {
        "steps": spent["steps"],
        "batch": args.batch,
        "seed": args.seed,
        "minutes": math.ceil(spent["seconds"] / 60),
        "command": command,
        "temperature": temperature,
        "remark": "",
    }
    prior.save_pretrained(
        out, repo_id="flowprior/motion", model_card_kwargs=motion_card(found, training)
    )
    print(json.dumps(found, indent=2))
    print(f"{training['minutes']} min of training; written to {out}")
    return 0
