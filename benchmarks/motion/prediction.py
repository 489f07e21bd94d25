"""Prediction of motions: the motion prior against the random walk and simpler rules.

    python -m benchmarks.motion.prediction --data cmu_clips.npz
    python -m benchmarks.motion.prediction --data cmu_clips.npz --split val --prior DIR

Negative log-likelihoods are those of the next pose given the last two, in nats with respect to the
Haar measure of mass 1, at three frame rates. Errors are those of poses some frames ahead at 30
frames per second.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.motion.clips import Clip, load_clips
from flowprior.body import BodyModel
from flowprior.fitting.sequence.rates import DEGREES_OF_FREEDOM, MotionRates
from flowprior.prior import MotionPrior
from flowprior.rotations import (
    LOG_CHART_VOLUME,
    geodesic_distance,
    matrix_to_chart,
    matrix_to_rotvec,
    rot6d_to_matrix,
    rotvec_to_matrix,
)
from flowprior.skeleton import SMPL_24

FPS = 30.0
STRIDES = (1, 2, 4)
AHEAD = (1, 3, 6, 15, 30)
JOINTS = 22
BETWEEN = 10  # frames between starts of predictions
SAMPLES = 10
UP = torch.tensor([0.0, -1.0, 0.0])


def triples(clips: list[Clip], stride: int) -> Tensor:
    """All poses (N, 3, 24, 3, 3) that lie ``stride`` frames apart."""
    found = []
    for clip in clips:
        count = len(clip) - 2 * stride
        if count > 0:
            parts = [clip.rotation[n * stride : n * stride + count] for n in range(3)]
            found.append(torch.stack(parts, dim=1))
    return torch.cat(found)


def walk_nll(poses: Tensor, scale: Tensor, *, moving: bool) -> Tensor:
    """NLL (N,) of Student's t distributions of the joints around constant velocity, or rest.

    Args:
        poses: (N, 3, 24, 3, 3).
        scale: (22,) scales per coordinate, radians.
        moving: Whether the expected pose goes on at the last velocity.
    """
    before, last, now = poses[:, :, :JOINTS].unbind(dim=1)
    turn = matrix_to_rotvec(before.mT @ last)
    mean = last @ rotvec_to_matrix(turn) if moving else last
    square = (matrix_to_chart(mean.mT @ now).double() / scale.double()[:, None]).square()
    nu = DEGREES_OF_FREEDOM
    constant = math.lgamma((nu + 3) / 2) - math.lgamma(nu / 2) - 1.5 * math.log(nu * math.pi)
    log_prob = constant - 3 * scale.double().log()
    log_prob = log_prob - (nu + 3) / 2 * torch.log1p(square.sum(dim=-1) / nu)
    return -(log_prob + LOG_CHART_VOLUME).sum(dim=-1)


def scales(clips: list[Clip], stride: int) -> tuple[Tensor, Tensor]:
    """Scales (22,) of changes of velocities and of velocities per step, from training clips."""
    rates = MotionRates.learn(
        [clip.rotation[::stride] for clip in clips if len(clip) > 2 * stride],
        [clip.root[::stride] for clip in clips if len(clip) > 2 * stride],
        1.0,
        looseness=1.0,
    )
    change, turn = (torch.tensor(each[:JOINTS]) for each in (rates.acceleration, rates.velocity))
    return change, turn / 3  # learn gives velocities three times the looseness


@torch.no_grad()
def likelihoods(
    prior: MotionPrior, clips: list[Clip], training: list[Clip]
) -> dict[str, dict[str, float]]:
    """Mean NLL of each method, by frame rate."""
    rows: dict[str, dict[str, float]] = {}
    for stride in STRIDES:
        poses, name = triples(clips, stride), f"NLL at {FPS / stride:g} fps"
        change, turn = scales(training, stride)
        found = {
            "same pose, Student's t": walk_nll(poses, turn, moving=False),
            "random walk, Student's t": walk_nll(poses, change, moving=True),
        }
        for title, up in (("motion prior", None), ("motion prior, with gravity", UP)):
            posterior = prior(poses[:, :2], fps=FPS / stride, up=up)
            found[title] = -posterior.log_prob(poses[:, 2])
        for title, value in found.items():
            rows.setdefault(title, {})[name] = float(value.mean())
    return rows


@torch.no_grad()
def errors(prior: MotionPrior, clips: list[Clip], body: BodyModel) -> dict[str, dict[str, float]]:
    """Mean distance of joints, mm, and angle, degrees, of poses some frames ahead."""
    longest = max(AHEAD)
    starts = [
        clip.rotation[begin : begin + 2 + longest]
        for clip in clips
        for begin in range(0, len(clip) - 1 - longest, BETWEEN)
    ]
    poses = torch.stack(starts)
    previous, truth = poses[:, :2], poses[:, 2:]
    last = previous[:, 1]
    turn = matrix_to_rotvec(previous[:, 0].mT @ last)
    count = torch.arange(1, longest + 1)[:, None, None]
    generator = torch.Generator().manual_seed(0)
    roll = prior.rollout(previous, longest, fps=FPS, temperature=0.0, generator=generator)
    sampled = prior.rollout(previous, longest, SAMPLES, fps=FPS, generator=generator)
    guesses = {
        "same pose": last[:, None, None].expand(-1, 1, longest, -1, -1, -1),
        "constant velocity": (last[:, None] @ rotvec_to_matrix(turn[:, None] * count))[:, None],
        "motion prior, mode": rot6d_to_matrix(roll),
        f"motion prior, best of {SAMPLES}": rot6d_to_matrix(sampled),
    }
    rows: dict[str, dict[str, float]] = {}
    for name, guess in guesses.items():
        for frames in AHEAD:
            some, true = guess[:, :, frames - 1], truth[:, None, frames - 1]
            here, there = (_joints(body, each) for each in (some, true))
            away = 1000 * (here - there).norm(dim=-1).mean(dim=-1).amin(dim=1)
            angle = geodesic_distance(some, true.expand_as(some))[..., :JOINTS].mean(dim=-1)
            row = rows.setdefault(name, {})
            row[f"{frames} frames, mm"] = float(away.mean())
            row[f"{frames} frames, degrees"] = math.degrees(float(angle.amin(dim=1).mean()))
    return rows


def _joints(body: BodyModel, rotation: Tensor) -> Tensor:
    joints = body.keypoints(rotation, SMPL_24)[..., :JOINTS, :]
    return joints - joints[..., :1, :]


def main() -> None:
    """Print the tables."""
    from benchmarks.motion.__main__ import show

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="cmu_clips.npz")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--prior", default="flowprior/motion")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = MotionPrior.from_pretrained(arguments.prior).freeze()
    clips = load_clips(arguments.data, arguments.split)
    tables = {
        "next pose": likelihoods(prior, clips, load_clips(arguments.data, "train")),
        "poses ahead": errors(prior, clips, BodyModel()),
    }
    for title, rows in tables.items():
        show(title, rows)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
