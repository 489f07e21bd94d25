"""Train the priors of the fits: conditioned on 2D keypoints, unconditional, and a mixture.

    python -m examples.fitting.train_prior --data cmu_mocap.npz --out outputs/fitting/priors

A few minutes on one core. Beside the two flows, a Gaussian mixture is fitted to the same poses, as
SMPLify has it. Without ``--data`` they learn the embedded, procedural poses.
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from examples.command_line import interruptible, positive
from examples.data.augment import mirror_rotvecs
from examples.data.poses import load_poses
from examples.fitting.priors import KeypointPrior
from examples.fitting.synthetic import detect, hide, photograph_bodies
from examples.whole_files import prepare_folder, write_json
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting import PoseMixture
from flowprior.skeleton import SMPL_24

__all__ = [
    "CONDITIONAL",
    "HEAD_SHARE",
    "MIXTURE",
    "UNCONDITIONAL",
    "descend",
    "fit_mixture",
    "main",
    "mode_error",
    "noisy",
    "train_conditional",
    "train_unconditional",
]

CONDITIONAL = "conditional"
UNCONDITIONAL = "unconditional.safetensors"
MIXTURE = "mixture.npz"

BATCH = 256
FEWEST_STEPS_OF_A_CYCLE = 5  # with fewer, the phases of the cycle are empty
LEARNING_RATE = 3e-3
# Weights of the error of the mode, against nats: of the sum of the joints' distances in metres, and
# of the mean error of an entry of the rotation matrices. The joints' term makes the mode accurate
# where limbs add up; the matrices' term keeps twists about the limbs.
JOINT_WEIGHT = 30.0
ROTATION_WEIGHT = 100.0
# Share of the steps before the likelihood: around an untrained head, a flow would first learn the
# spread of all poses.
HEAD_SHARE = 0.3
# Exact hinges have no finite density.
ROTATION_NOISE = math.radians(1.0)


def fit_mixture(
    body_pose: Tensor, components: int = 8, seed: int = 0, poses: int = 8000
) -> PoseMixture:
    """Fit SMPLify's Gaussian mixture with scikit-learn.

    Args:
        body_pose: (N, 69) rotation vectors of the 23 joints below the root, radians.
        components: Number of Gaussians.
        seed: Seed of the initial means and of the choice of poses.
        poses: Largest number of poses to use, chosen at random.
    """
    from sklearn.mixture import GaussianMixture

    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(body_pose), generator=generator)[:poses]
    rows = body_pose[chosen].double().numpy()
    # One degree of noise: hinges that never turn about two axes have no covariance there.
    mixture = GaussianMixture(components, reg_covar=3e-4, random_state=seed).fit(rows)
    return PoseMixture(
        torch.from_numpy(mixture.weights_).float(),
        torch.from_numpy(mixture.means_).float(),
        torch.from_numpy(mixture.precisions_cholesky_).float(),
        body_pose.mean(dim=0),
    )


def noisy(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """Add rotation noise to matrices (..., 3, 3)."""
    vector = torch.randn(matrix.shape[:-1], generator=generator)
    return matrix @ rotations.rotvec_to_matrix(ROTATION_NOISE * vector)


def mode_error(mode: Tensor, theta: Tensor, body: BodyModel) -> Tensor:
    """Error of a mode, which trains the head of a prior.

    Args:
        mode: (B, 24, 6), the mode of each context.
        theta: (B, 24, 3, 3), the true rotations.
        body: The body whose joints are compared, with average shape.

    Returns:
        Scalar, the weighted errors of joints relative to the pelvis and of rotations.
    """
    found = rotations.rot6d_to_matrix(mode)
    with torch.no_grad():
        truth = body.keypoints(theta, SMPL_24)
    joints = body.keypoints(found, SMPL_24)
    off = (joints - joints[:, :1]) - (truth - truth[:, :1])
    distance = off.norm(dim=-1).sum(dim=-1).mean()
    turned = (found - theta)[..., :2].abs().mean()
    return JOINT_WEIGHT * distance + ROTATION_WEIGHT * turned


def batch_of(rotvecs: Tensor, generator: torch.Generator) -> Tensor:
    """Draw rotation vectors (BATCH, 24, 3) at random, half of them mirrored."""
    rows = rotvecs[torch.randint(len(rotvecs), (BATCH,), generator=generator)]
    flip = torch.rand(BATCH, 1, 1, generator=generator) < 0.5
    return torch.where(flip, mirror_rotvecs(rows), rows)


def descend(
    model: nn.Module, loss_of: Callable[[], Tensor], steps: int, name: str, rate: float
) -> None:
    """Minimise with AdamW and a one-cycle learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4, fused=True)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if steps < FEWEST_STEPS_OF_A_CYCLE:
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, steps, pct_start=max(0.05, 2 / steps)
        )
    pause = 0.1 if sys.stderr.isatty() else 30.0
    model.train()
    with tqdm(total=steps, desc=name, unit="step", mininterval=pause, ncols=88) as bar:
        for _ in range(steps):
            loss = loss_of()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 50.0)
            optimizer.step()
            schedule.step()
            if bar.update():
                bar.set_postfix_str(f"loss {loss.item():.1f}", refresh=False)
    model.eval()


def train_conditional(
    model: KeypointPrior, rotvecs: Tensor, body: BodyModel, steps: int, seed: int
) -> None:
    """Minimise the error of the mode, and then the NLL too, on new views in every step.

    The error of the mode trains encoder and head, the NLL the flow around their answer.

    Args:
        model: The prior to train.
        rotvecs: (N, 24, 3) poses, y up.
        body: The body whose keypoints are seen.
        steps: Steps of 256 views.
        seed: Of poses, cameras and lost keypoints.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = itertools.count()

    def loss() -> Tensor:
        people = photograph_bodies(batch_of(rotvecs, generator), body, generator)
        lost = hide(people.keypoints, generator)
        seen = detect(people.keypoints, lost, generator, noise=0.012)
        context = model.context(seen)
        target = noisy(people.theta, generator)
        error = mode_error(model.prior.mode(context), target, body)
        if next(numbers) < int(HEAD_SHARE * steps):
            return error
        # The first call sets the scale of the flow from data.
        return error + model.prior.nll(target, context.detach(), generator=generator)

    descend(model, loss, steps, "conditional", LEARNING_RATE)


def train_unconditional(
    prior: ConditionalPosePrior, rotvecs: Tensor, steps: int, seed: int
) -> None:
    """Minimise the NLL of the rotations of the 23 joints below the root.

    Args:
        prior: The prior to train.
        rotvecs: (N, 24, 3) poses.
        steps: Steps of 256 poses.
        seed: Of what is drawn.
    """
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        matrix = rotations.rotvec_to_matrix(batch_of(rotvecs, generator)[:, 1:])
        return prior.nll(noisy(matrix, generator), generator=generator)

    with torch.no_grad():
        prior.train()
        loss()
    descend(prior, loss, steps, "unconditional", LEARNING_RATE)


@torch.no_grad()
def mode_error_mm(model: KeypointPrior, rotvecs: Tensor, body: BodyModel, views: int) -> float:
    """MPJPE of the mode over 24 joints relative to the pelvis, on held-out poses."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.linspace(0, len(rotvecs) - 1, min(views, len(rotvecs))).round().long()
    people = photograph_bodies(rotvecs[rows], body, generator)
    seen = detect(people.keypoints, hide(people.keypoints, generator), generator)
    mode = body(model(seen).mode()).joints
    truth = people.joints - people.joints[:, :1]
    return 1000 * float((mode - mode[:, :1] - truth).norm(dim=-1).mean())


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fitting.train_prior", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="poses; embedded if left out")
    parser.add_argument("--body", type=Path, metavar="FILE", help="SMPL file; embedded if left out")
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/priors"), metavar="DIR")
    parser.add_argument("--steps", type=positive, default=3000, metavar="N", help="of each flow")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    return parser.parse_args(argv)


@interruptible("the priors that were finished are in --out")
def main(argv: Sequence[str] | None = None) -> int:
    """Train and write everything; returns the exit code."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    try:
        poses = load_poses(args.data, args.seed)
        train = torch.from_numpy(poses.rotvecs("train"))
        held_out = torch.from_numpy(poses.rotvecs("val" if len(poses.val) else "test"))
        body = BodyModel(args.body)
        prepare_folder(args.out)
        # Results exist only if all files of the folder belong to the same run.
        (args.out / "results.json").unlink(missing_ok=True)
        (args.out / CONDITIONAL).mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    start = time.perf_counter()
    fit_mixture(train[:, 1:].flatten(1), seed=args.seed).save(args.out / MIXTURE)
    print(f"mixture: {time.perf_counter() - start:.0f} s", flush=True)

    torch.manual_seed(args.seed)
    model = KeypointPrior()
    train_conditional(model, train, body, args.steps, args.seed)
    generator = torch.Generator().manual_seed(2)
    people = photograph_bodies(held_out[:: max(1, len(held_out) // 2000)], body, generator)
    seen = detect(people.keypoints, hide(people.keypoints, generator), generator)
    with torch.no_grad():
        temperature = model.prior.calibrate(noisy(people.theta, generator), model.context(seen))
    model.save(args.out / CONDITIONAL)
    mode_mm = mode_error_mm(model, held_out, body, 1000)
    print(f"conditional: mode {mode_mm:.1f} mm, temperature {temperature:.2f}", flush=True)

    torch.manual_seed(args.seed)
    free = ConditionalPosePrior(0, joints=23, hidden_features=256)
    train_unconditional(free, train, args.steps, args.seed)
    held = rotations.rotvec_to_matrix(held_out[:: max(1, len(held_out) // 2000), 1:])
    free_temperature = free.calibrate(noisy(held, generator))
    free.save(args.out / UNCONDITIONAL)
    figures = {
        "source": poses.source,
        "steps": args.steps,
        "seed": args.seed,
        "mode_mpjpe_mm": mode_mm,
        "temperature": temperature,
        "unconditional_temperature": free_temperature,
        "seconds": round(time.perf_counter() - start),
    }
    write_json(args.out / "results.json", figures)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
