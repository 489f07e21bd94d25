"""Time two checkouts of flowprior against each other, to see whether a change made it slower.

    git worktree add ../before REVISION
    python -m benchmarks.revisions ../before . --rounds 15

Each checkout runs in a process of its own, on one thread. Every round times each case once in both,
in alternating order; the table has the medians and the median of the ratios of the rounds.
"""

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Case = Callable[[], object]


def flow_cases() -> dict[str, Case]:
    """Density, sampling, a fitting step and a training step of the default flow for SMPL."""
    from flowprior import ConditionalPosePrior

    torch.manual_seed(0)
    prior = ConditionalPosePrior(2048)
    context, theta = torch.randn(16, 2048), 0.3 * torch.randn(16, 24, 3)
    prior.train().nll(theta, context)  # sets ActNorm
    prior.eval()
    frozen = prior.freeze()
    posterior, held = prior(context), frozen(context)
    latent = torch.randn(16, prior.flow.features)

    @torch.no_grad()
    def density() -> object:
        return posterior.log_prob(theta)

    @torch.no_grad()
    def samples() -> object:
        return held.sample(100)

    @torch.no_grad()
    def one_sample() -> object:
        return frozen(context[:1]).sample(1)

    def fitting_step() -> object:
        z = latent.clone().requires_grad_()
        return torch.autograd.grad(held.decode(z).square().sum(), z)

    def training_step() -> object:
        prior.train()
        loss = prior.nll(theta, context)
        gradients = torch.autograd.grad(loss, list(prior.parameters()), allow_unused=True)
        prior.eval()
        return gradients

    return {
        "log_prob, 16 contexts": density,
        "100 samples of 16 contexts, frozen": samples,
        "a sample of a new context, frozen": one_sample,
        "decode with gradient, 16 latents, frozen": fitting_step,
        "training step of 16": training_step,
    }


def body_cases() -> dict[str, Case]:
    """Keypoints and the whole surface of the embedded body."""
    from flowprior.body import BodyModel
    from flowprior.skeleton import BODY_25

    torch.manual_seed(0)
    body = BodyModel()
    theta = 0.3 * torch.randn(64, 24, 3)

    def keypoints() -> object:
        x = theta.clone().requires_grad_()
        return torch.autograd.grad(body.keypoints(x, BODY_25).sum(), x)

    @torch.no_grad()
    def surface() -> object:
        return body(theta).vertices

    return {"keypoints of 64 with gradients": keypoints, "surface of 64": surface}


def fit_cases() -> dict[str, Case]:
    """Ten iterations of L-BFGS for 64 people: flow, body, camera and solver together."""
    fitting: Any
    try:
        fitting = importlib.import_module("flowprior.fitting")
    except ImportError:  # before the solver moved into the library
        parts: dict[str, Any] = {}
        for name in ("cameras", "objective", "pose_variables", "solver"):
            parts |= vars(importlib.import_module(f"examples.fitting.{name}"))
        fitting = types.SimpleNamespace(**parts)
    from flowprior import ConditionalPosePrior
    from flowprior.body import BodyModel
    from flowprior.skeleton import BODY_25

    torch.manual_seed(0)
    prior = ConditionalPosePrior(64, hidden_features=256)
    prior.train().nll(0.3 * torch.randn(64, 24, 3), torch.randn(64, 64))
    prior.eval()
    with torch.no_grad():
        pose = fitting.LatentPose(prior.freeze()(torch.randn(64, 64)))
    centre, side = torch.full((64, 2), 500.0), torch.full((64,), 400.0)
    camera = fitting.Cameras.full(torch.full((64, 2), 1000.0), centre, side)
    body, place = BodyModel(), torch.tensor([0.0, 0.0, 20.0]).expand(64, 3)
    seen = torch.cat([500 + 100 * torch.randn(64, 25, 2), torch.ones(64, 25, 1)], dim=-1)
    objective_of = fitting.KeypointObjective(body, seen, BODY_25, camera, pose, place)

    def fit() -> object:
        return fitting.minimize(objective_of, objective_of.start(), max_iterations=10)

    return {"ten iterations for 64 people": fit}


def serve() -> None:
    """Answer the numbers of cases on standard input with seconds on standard output."""
    torch.set_num_threads(1)
    cases = flow_cases() | body_cases() | fit_cases()
    print("|".join(cases), flush=True)
    calls = list(cases.values())
    for line in sys.stdin:
        start = time.perf_counter()
        calls[int(line)]()
        print(time.perf_counter() - start, flush=True)


def worker(checkout: Path) -> "subprocess.Popen[str]":
    """A process that runs the cases with the code of a checkout."""
    return subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: "subprocess.Popen[str]", case: int) -> float:
    """Seconds that one case takes in a worker."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(case, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.revisions", description=__doc__)
    parser.add_argument("checkouts", type=Path, nargs="*", metavar="DIR", help="before and after")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        serve()
        return 0
    if len(args.checkouts) != 2:
        parser.error("expected two checkouts, before and after")
    workers = [worker(checkout) for checkout in args.checkouts]
    try:
        names = ""
        for process in workers:
            assert process.stdout is not None
            names = process.stdout.readline().strip()
        print("| case | before, ms | after, ms | after / before |")
        print("|---|---|---|---|")
        for case, name in enumerate(names.split("|")):
            for process in workers:
                ask(process, case)  # warms up
            times: list[tuple[float, ...]] = []
            for number in range(args.rounds):
                order = (0, 1) if number % 2 else (1, 0)
                taken = {which: ask(workers[which], case) for which in order}
                times.append((taken[0], taken[1]))
            before, after = (1000 * statistics.median(t) for t in zip(*times, strict=True))
            ratio = statistics.median(b / a for a, b in times)
            print(f"| {name} | {before:.2f} | {after:.2f} | {ratio:.3f} |", flush=True)
    finally:
        for process in workers:
            process.kill()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
