"""Throughput of fits to keypoints with the shipped prior.

    python -m benchmarks.people --people 64
    python -m benchmarks.people --people 4096 --device cuda

Fits people of the embedded body, photographed by virtual cameras, with a detector's noise, and
prints people per second, the median of ``--rounds`` fits after one that is not counted.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from examples.data.poses import load_poses
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, detect, photograph_bodies
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting import fit_keypoints
from flowprior.metrics import mpjpe

NOISE = 0.008  # of a keypoint, in sides of the person's box


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.people")
    parser.add_argument("--data", type=Path, help="poses (default: embedded)")
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    rotvecs = torch.from_numpy(load_poses(args.data).rotvecs("test"))
    rows = torch.linspace(0, len(rotvecs) - 1, args.people).round().long()
    generator = torch.Generator().manual_seed(0)
    people = photograph_bodies(rotvecs[rows], BodyModel(), generator)
    nothing = torch.zeros(people.keypoints.shape[:2], dtype=torch.bool)
    keypoints = detect(people.keypoints, nothing, generator, noise=NOISE).to(device)
    prior = ConditionalPosePrior.from_pretrained("flowprior/people").to(device).freeze()
    body = BodyModel().to(device)
    seconds = []
    for _ in range(args.rounds + 1):
        start = time.perf_counter()
        fits = fit_keypoints(
            keypoints,
            prior,
            body=body,
            image_size=(IMAGE_PX, IMAGE_PX),
            focal_px=FOCAL_PX,
            max_iterations=args.iterations,
        )
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    truth = people.joints[:, :22]
    joints = body(fits.theta, fits.betas, fits.transl).joints[:, :22].cpu()
    error = mpjpe(joints - joints[:, :1], truth - truth[:, :1]).mean()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(
        f"{name}, {torch.get_num_threads()} threads: {args.people} people, "
        f"{args.people / statistics.median(seconds[1:]):.1f} people per second "
        f"(median of {args.rounds}), MPJPE {1000 * float(error):.1f} mm"
    )


if __name__ == "__main__":
    main()
