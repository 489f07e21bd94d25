"""Train ``flowprior/demo``, the small prior that ships with the library.

    python -m tools.demo_prior

Trains p(theta | COCO's 17 keypoints in 2D) on the embedded procedural poses, projected by random
cameras from embedded bodies of random shape, and writes weights, configuration and model card to
``flowprior/assets/demo``. Takes minutes on one core.
"""

import argparse
import itertools
import json
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.command_line import positive
from examples.data.augment import mirror_rotvecs
from examples.data.poses import load_poses
from examples.fitting.synthetic import (
    FOCAL_PX,
    IMAGE_PX,
    detect,
    hide,
    sample_places,
    sample_turns,
)
from examples.fitting.train_prior import HEAD_SHARE, descend, mode_error, noisy
from examples.pinhole import project
from examples.whole_files import prepare_folder
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.keypoints import keypoint_context
from flowprior.metrics import mpjpe
from flowprior.skeleton import BODY_25, COCO_17, SMPL_24, mapping

__all__ = ["Poses", "figures", "main", "train"]

NAME = "flowprior/demo"
OUT = Path(__file__).parents[1] / "flowprior" / "assets" / "demo"
STEPS = 16_000
# The weights take less than 2 MB in float32.
SIZES: dict[str, Any] = {
    "encoder_features": 128,
    "encoder_blocks": 2,
    "head_features": 160,
    "hidden_features": 96,
    "num_blocks": 1,
    "target_noise": 0.03,
}
BATCH = 256
LEARNING_RATE = 3e-3
NOISE = 0.008  # of a keypoint, in sides of the person's box
NUM_SAMPLES = 100
JUDGED = 500
COCO = list(mapping(BODY_25, COCO_17))
BLOCK = 2000

HIDDEN = {
    "nothing": (),
    "right forearm": ("right_elbow", "right_wrist"),
    "legs below the hips": tuple(f"{s}_{j}" for s in ("left", "right") for j in ("knee", "ankle")),
    "all but the face": tuple(n for n in COCO_17.joint_names if COCO_17.index(n) > 4),
}
"""Hidden keypoints of each evaluation."""


USAGE = """```python
import torch

from flowprior import ConditionalPosePrior
from flowprior.keypoints import example_keypoints, keypoint_context

prior = ConditionalPosePrior.from_pretrained("flowprior/demo")
keypoints = example_keypoints()  # (17, 3): x, y in pixels, confidence; yours, of any COCO detector
keypoints[[7, 9], 2] = 0  # hide the left elbow and wrist
with torch.no_grad():
    posterior = prior(keypoint_context(keypoints))
    mode = posterior.mode()  # (24, 6)
    samples = posterior.sample(100)  # (100, 24, 6)
smpl = prior.smpl_params(samples)  # rotation matrices for a body model
```"""

DESCRIPTION = """A demonstration: p(theta | c) over the 24 joint rotations of SMPL given COCO's 17
keypoints of one person in one image. It was trained on procedurally generated poses, not on
recorded people: use it for demonstrations, teaching and tests, not for measurements.

**Context**, 51 numbers, computed by `flowprior.keypoints.keypoint_context` from keypoints
(..., 17, 3), x and y in pixels (y down) and confidence, in COCO's order:
{joints}.
A keypoint with a confidence above 0.1
becomes (x, y, 1), with x and y from -1 to 1 across the square around all such keypoints, 1.2 times
as large as the tightest square; any other becomes (0, 0, 0). Any or all keypoints may be missing.

**Theta**, (24, 6): 6D vectors in layout "columns" and SMPL's order, in the camera frame: x right,
y down, z forward. The root rotation of an upright person is therefore close to half a turn about x.

**Accuracy** on {views} views of held-out subjects, with keypoint noise of about 0.8 % of the
person's box; errors over SMPL's 24 joints relative to the pelvis, on a body of average shape.

{table}

Rotations have noise of 1 degree about each axis, in training and in the NLL; in training they have
additional noise of {noise} radians about each axis. Trained for {steps} steps of {batch} views,
seed {seed}, in {minutes:.0f} minutes on one core of a shared machine:
`python -m tools.demo_prior`."""


@dataclass(frozen=True)
class Poses:
    """N poses of the embedded body, in a world frame with y up.

    Args:
        rotations: (N, 24, 3, 3).
        joints: (N, 24, 3) metres from the pelvis.
        keypoints: (N, 25, 3) BODY-25, metres from the pelvis.
    """

    rotations: Tensor
    joints: Tensor
    keypoints: Tensor

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, rows: Tensor) -> "Poses":
        """Select poses by index."""
        return Poses(self.rotations[rows], self.joints[rows], self.keypoints[rows])

    @classmethod
    @torch.no_grad()
    def of(cls, rotvecs: Tensor, body: BodyModel, generator: torch.Generator) -> "Poses":
        """Pose bodies of random shape with rotation vectors (N, 24, 3)."""
        parts = []
        for some in rotvecs.split(BLOCK):
            matrix = rotations.rotvec_to_matrix(some)
            betas = torch.randn(len(some), body.num_betas, generator=generator)
            out = body(matrix, betas)
            pelvis = out.joints[:, :1]
            points = body.regress(out, BODY_25) - pelvis
            parts.append((matrix, out.joints - pelvis, points))
        return cls(*(torch.cat(part) for part in zip(*parts, strict=True)))


def photograph(poses: Poses, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Place a random camera in front of each pose.

    Args:
        poses: B poses.
        generator: Source of the cameras.

    Returns:
        Theta (B, 24, 3, 3) and joints (B, 24, 3) in metres relative to the pelvis, both in the
        camera frame, and keypoints (B, 25, 3): pixels and confidence 1.
    """
    turn = sample_turns(poses.joints, generator)
    root = turn @ poses.rotations[:, 0]
    theta = torch.cat([root[:, None], poses.rotations[:, 1:]], dim=1)
    points = poses.keypoints @ turn.mT + sample_places(turn, generator)[:, None]
    pixels = project(points, FOCAL_PX, IMAGE_PX / 2)
    return (
        theta,
        poses.joints @ turn.mT,
        torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1),
    )


def train(
    prior: ConditionalPosePrior, poses: Poses, body: BodyModel, steps: int, seed: int
) -> None:
    """Minimise the error of the mode, and then the NLL too.

    Args:
        prior: The prior to train, in place.
        poses: The training poses.
        body: The body whose joints are compared in the error of the mode.
        steps: Number of steps, each on 256 new views.
        seed: Seed of cameras, hidden keypoints and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = itertools.count()

    def loss() -> Tensor:
        rows = torch.randint(len(poses), (BATCH,), generator=generator)
        theta, _, keypoints = photograph(poses[rows], generator)
        lost = hide(keypoints, generator)
        seen = detect(keypoints, lost, generator, noise=NOISE)[:, COCO]
        target = noisy(theta, generator)
        context = keypoint_context(seen)
        error = mode_error(prior.mode(context), target, body)
        if next(numbers) < int(HEAD_SHARE * steps):
            return error
        # The first call initialises ActNorm from data.
        return error + prior.nll(target, context, generator=generator)

    descend(prior, loss, steps, "prior", LEARNING_RATE)


@torch.no_grad()
def figures(
    prior: ConditionalPosePrior, poses: Poses, body: BodyModel, seed: int = 1
) -> dict[str, dict[str, float]]:
    """Evaluate the prior on views of poses with each set of keypoints in `HIDDEN` hidden.

    Args:
        prior: The prior, in evaluation mode.
        poses: Poses of held-out subjects.
        body: The body that poses the mode and the samples, with average shape.
        seed: Seed of cameras, noise and samples.

    Returns:
        For each entry of `HIDDEN`: NLL and entropy in nats; MPJPE relative to the pelvis in mm of
        the mode, of a sample, and of the best of 10 and 100 samples.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.linspace(0, len(poses) - 1, min(JUDGED, len(poses))).round().long()
    theta, truth, keypoints = photograph(poses[rows], generator)
    target = noisy(theta, generator)
    found = {}
    for name, hidden in HIDDEN.items():
        lost = torch.zeros(keypoints.shape[:2], dtype=torch.bool)
        lost[:, [COCO[COCO_17.index(joint)] for joint in hidden]] = True
        posterior = prior(
            keypoint_context(detect(keypoints, lost, generator, noise=NOISE)[:, COCO])
        )

        samples = posterior.sample(NUM_SAMPLES, generator=generator)
        errors = torch.cat(
            [_errors_mm(body, some, true) for some, true in zip(samples, truth, strict=True)]
        ).reshape(len(rows), NUM_SAMPLES)
        found[name] = {
            "NLL, nats": float(-posterior.log_prob(target).mean()),
            "entropy, nats": float(posterior.entropy().mean()),
            "MPJPE of the mode, mm": float(_errors_mm(body, posterior.mode(), truth).mean()),
            "MPJPE of a sample, mm": float(errors.mean()),
            "best of 10, mm": float(errors[:, :10].amin(dim=1).mean()),
            "best of 100, mm": float(errors.amin(dim=1).mean()),
        }
    return found


def _errors_mm(body: BodyModel, theta: Tensor, truth: Tensor) -> Tensor:
    """MPJPE (N,) in mm of poses (N, 24, 6) against joints (N, 24, 3) or (24, 3) from the pelvis."""
    joints = body.keypoints(theta, SMPL_24)
    return 1000 * mpjpe(joints - joints[:, :1], truth.expand_as(joints))


def card(found: Mapping[str, Mapping[str, float]], seconds: float, args: argparse.Namespace) -> str:
    """Write the description for the model card, in Markdown."""
    names = list(next(iter(found.values())))
    rows = [f"| hidden | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    rows += [
        f"| {hidden} | {' | '.join(f'{value:.1f}' for value in values.values())} |"
        for hidden, values in found.items()
    ]
    return DESCRIPTION.format(
        joints=textwrap.fill(", ".join(COCO_17.joint_names), 100),
        table="\n".join(rows),
        views=JUDGED,
        noise=SIZES["target_noise"],
        steps=args.steps,
        batch=BATCH,
        seed=args.seed,
        minutes=seconds / 60,
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.demo_prior", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    parser.add_argument("--steps", type=positive, default=STEPS, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, evaluate and write the prior; returns the exit code."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    prepare_folder(args.out)
    start = time.perf_counter()
    source = load_poses(None, args.seed)
    body = BodyModel()
    generator = torch.Generator().manual_seed(args.seed)
    rotvecs = torch.from_numpy(source.rotvecs("train"))
    known = Poses.of(torch.cat([rotvecs, mirror_rotvecs(rotvecs)]), body, generator)
    val, test = (
        Poses.of(torch.from_numpy(source.rotvecs(part)), body, generator)
        for part in ("val", "test")
    )
    torch.manual_seed(args.seed)
    prior = ConditionalPosePrior(3 * len(COCO), **SIZES)
    train(prior, known, body, args.steps, args.seed)

    theta, _, keypoints = photograph(val, generator)
    seen = detect(keypoints, hide(keypoints, generator), generator, noise=NOISE)[:, COCO]
    temperature = prior.calibrate(noisy(theta, generator), keypoint_context(seen))
    seconds = time.perf_counter() - start
    found = figures(prior, test, body)
    prior.provenance = {
        "trained by": f"tools/demo_prior.py, {args.steps} steps, seed {args.seed}",
        "data": source.source,
    }
    prior.save_pretrained(
        args.out,
        repo_id=NAME,
        model_card_kwargs={
            "license": "mit",
            "description": card(found, seconds, args),
            "data": f"Procedural poses of `examples/data/procedural.py`: {source.source}; "
            f"{len(known)} poses of {len(source.subjects['train'])} people, half of them mirrored, "
            f"on the embedded body. The base of the flow, with temperature {temperature:.2f}, was "
            f"fitted on {len(source.subjects['val'])} other people; the metrics are measured on "
            f"{len(source.subjects['test'])} more.",
            "metrics": {name: round(value, 2) for name, value in found["nothing"].items()},
            "usage": USAGE,
        },
    )
    print(json.dumps(found, indent=2))
    print(f"{seconds:.0f} s of training; written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
