"""Time batched fits to keypoints against a loop over people with torch's L-BFGS.

    python -m benchmarks.fitting --prior outputs/fitting/priors --data cmu_mocap.npz
    python -m benchmarks.fitting --prior DIR --data cmu_mocap.npz --parity 256
    python -m benchmarks.fitting --prior DIR --device cuda --people 4096 --alone

Both minimise the same objective over the same variables, with the same tolerance and iteration
limit. The loop fits one person at a time with ``torch.optim.LBFGS``, its strong-Wolfe search and a
history of 100, as in ProHMR, and the trained flow. The batched fit uses
`flowprior.fitting.minimize` for all people and the frozen flow. Rounds alternate between the two;
times are medians.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from examples.data.poses import load_poses
from examples.fitting.priors import KeypointPrior
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, photograph_bodies
from examples.fitting.train_prior import CONDITIONAL
from examples.studies.fitting_priors import corrupt
from flowprior.body import BodyModel
from flowprior.fitting import (
    Cameras,
    KeypointObjective,
    KeypointWeights,
    LatentPose,
    Solution,
    first_translation,
    minimize,
    minimize_again,
    pose_kicks,
)
from flowprior.keypoints import keypoint_squares
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import BODY_25

TOLERANCE_GRADIENT = 1e-5
TOLERANCE_VALUE = 1e-9


def problems(
    model: KeypointPrior, rotvecs: Tensor, weight: float, device: torch.device, dtype: torch.dtype
) -> Callable[[PosePrior], KeypointObjective]:
    """Fits of people with 30 % of their keypoints missing, as a function of the prior."""
    generator = torch.Generator().manual_seed(0)
    people = photograph_bodies(rotvecs, BodyModel(), generator)
    seen = corrupt(people, "missing", generator).to(device)
    with torch.no_grad():
        context = model.to(device).context(seen).to(dtype)
    centre, side = keypoint_squares(seen)
    body = BodyModel().to(device, dtype)
    seen, centre, side = seen.to(dtype), centre.to(dtype), side.to(dtype)
    cameras = Cameras.full(torch.full_like(centre, IMAGE_PX), centre, side, FOCAL_PX)

    def build(prior: PosePrior) -> KeypointObjective:
        with torch.no_grad():
            pose = LatentPose(prior.to(device, dtype)(context))
        start = pose.start(len(seen))
        transl = first_translation(body, seen, BODY_25, cameras, pose, start, None)
        weights = KeypointWeights(pose=weight)
        return KeypointObjective(body, seen, BODY_25, cameras, pose, transl, weights=weights)

    return build


def loop(objective: KeypointObjective, iterations: int) -> Tensor:
    """Final objectives (P,) with one torch.optim.LBFGS per person."""
    values = []
    for person, start in enumerate(objective.start()):
        rows = torch.tensor([person], device=start.device)
        x = start[None].clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [x],
            max_iter=iterations,
            max_eval=25 * iterations,
            tolerance_grad=TOLERANCE_GRADIENT,
            tolerance_change=TOLERANCE_VALUE,
            line_search_fn="strong_wolfe",
        )

        def closure(
            x: Tensor = x, rows: Tensor = rows, optimizer: torch.optim.LBFGS = optimizer
        ) -> Tensor:
            optimizer.zero_grad()
            value = objective(x, rows).sum()
            value.backward()
            return value.detach()

        optimizer.step(closure)
        with torch.no_grad():
            values.append(objective(x, rows))
    return torch.cat(values)


def together(
    objective: KeypointObjective, iterations: int, start: Tensor | None = None
) -> Solution:
    """Fit all people at once."""
    return minimize(
        objective,
        objective.start() if start is None else start,
        max_iterations=iterations,
        tolerance_gradient=TOLERANCE_GRADIENT,
        tolerance_value=TOLERANCE_VALUE,
    )


def timed(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall-clock seconds and CPU seconds of this process."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start, busy = time.perf_counter(), time.process_time()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - busy


def throughput(args: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """People per second of both methods, and their ratio."""
    model, rotvecs = _inputs(args, args.people)
    build = problems(model, rotvecs, args.weight, device, torch.float32)
    fast = build(model.prior.freeze())
    few = args.loop_people or args.people
    slow = problems(model, rotvecs[:few], args.weight, device, torch.float32)(model.prior)
    timed(lambda: together(fast, 5), device)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    solution = together(fast, 1)
    for _ in range(args.rounds):

        def fit() -> None:
            nonlocal solution
            solution = together(fast, args.iterations)

        ours.append(timed(fit, device))
        if not args.alone:
            theirs.append(timed(lambda: loop(slow, args.iterations), device))
        print(f"  together {ours[-1]}" + (f", loop {theirs[-1]}" if theirs else ""), flush=True)
    passed, busy = (statistics.median(column) for column in zip(*ours, strict=True))
    figures: dict[str, object] = {
        "people": args.people,
        "people_in_the_loop": few,
        "iterations": args.iterations,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "seconds_together": passed,
        "cpu_seconds_together": busy,
        "people_a_second": args.people / passed,
        "evaluations": float(solution.evaluations.float().mean()),
        "status": solution.counts(),
    }
    if theirs:
        scale = args.people / few
        loop_passed, loop_busy = (statistics.median(column) for column in zip(*theirs, strict=True))
        figures["ratio"] = scale * loop_passed / passed
        figures["cpu_ratio"] = scale * loop_busy / busy
    return figures


def parity(args: argparse.Namespace) -> dict[str, object]:
    """Compare the final objectives per person, evaluated in float64.

    The loop runs in float64 with each iteration budget. The batched fit runs in the requested
    precision until it terminates, and then with the requested numbers of restarts.
    """
    model, rotvecs = _inputs(args, args.parity)
    device = torch.device("cpu")
    dtype = torch.float64 if args.double else torch.float32
    ours = problems(model, rotvecs, args.weight, device, dtype)(model.prior.freeze())
    exact = problems(model, rotvecs, args.weight, device, torch.float64)(model.prior.freeze())
    people = torch.arange(args.parity)

    def together_again(restarts: int) -> Tensor:
        kicks = pose_kicks(ours, restarts)
        solution = minimize_again(lambda x: together(ours, args.iterations, x), ours.start(), kicks)
        print(f"  with {restarts} restarts: {solution.counts()}", flush=True)
        with torch.no_grad():
            return exact(solution.x.double(), people)

    ends = {restarts: together_again(restarts) for restarts in args.restarts}
    figures: dict[str, object] = {"people": args.parity, "iterations": args.iterations}
    figures["dtype"] = str(dtype)
    for budget in args.loop_iterations:
        theirs = loop(exact, budget)
        for restarts, value in ends.items():
            worse = value / theirs - 1
            figures[f"loop of {budget}, {restarts} restarts"] = {
                "within_0.1_percent": float((worse <= 1e-3).double().mean()),
                "within_5_percent": float((worse <= 0.05).double().mean()),
                "worst": float(worse.max()),
                "best": float(worse.min()),
                "median": float(worse.median()),
            }
            print(budget, restarts, figures[f"loop of {budget}, {restarts} restarts"], flush=True)
    return figures


def _inputs(args: argparse.Namespace, people: int) -> tuple[KeypointPrior, Tensor]:
    rotvecs = torch.from_numpy(load_poses(args.data).rotvecs("test"))
    rows = torch.linspace(0, len(rotvecs) - 1, people).round().long()
    return KeypointPrior.load(args.prior / CONDITIONAL), rotvecs[rows]


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fitting")
    parser.add_argument("--prior", type=Path, required=True, help="folder of train_prior")
    parser.add_argument("--data", type=Path, help="poses (default: embedded)")
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--weight", type=float, default=64.0, help="weight of the prior")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--loop-people",
        type=int,
        metavar="N",
        help="people for the loop only; its time is scaled up",
    )
    parser.add_argument("--alone", action="store_true", help="skip the loop")
    parser.add_argument("--parity", type=int, metavar="N", help="compare N final objectives")
    parser.add_argument(
        "--loop-iterations",
        type=int,
        nargs="+",
        metavar="N",
        default=[200, 600],
        help="budgets of the loop, with --parity; ProHMR's demo and evaluation use 200 and 600",
    )
    parser.add_argument(
        "--restarts", type=int, nargs="+", metavar="N", default=[0, 3], help="with --parity"
    )
    parser.add_argument("--double", action="store_true", help="with --parity: fit in float64 too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = parity(args) if args.parity else throughput(args, torch.device(args.device))
    print(json.dumps(figures, indent=2))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
