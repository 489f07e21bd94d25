"""Comparison of the flow's options at equal cost, on motion capture of held-out subjects.

    python -m benchmarks.density_study --data cmu_mocap.npz --out outputs/density_study

All variants model p(target | 2D keypoints), with hidden joints in half of the views. They are
trained with the same encoder, views, steps and number of parameters, and evaluated on held-out
subjects. Targets are 16 joints in metres, or the rotations of SMPL's 24 joints. Results of finished
runs are kept in ``--out``, so an interrupted command can be continued.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from torch import Tensor, nn

from examples.data.augment import mirror, mirror_rotvecs, vary_bones
from examples.data.cameras import Views, occlude, photograph
from examples.data.kinematics import joints17_from_rotations
from examples.lifting.model import MartinezEncoder, keypoint_features
from examples.pictures import comparison_picture, reliability_picture
from flowprior import ConditionalPosePrior, rotations
from flowprior.metrics import (
    best_of_n,
    calibration_error,
    coverage,
    energy_score,
    expected_calibration_error,
    latent_pit,
    mpjpe,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "original": {"preset": "prohmr"},
    "plain": {"context_norm": False},
    "context_norm": {"context_norm": True},
    "affine": {"context_norm": False, "coupling": "affine"},
    "spline": {"context_norm": False, "coupling": "spline"},
    "so3": {"context_norm": True, "space": "so3"},
}
TARGETS: dict[str, dict[str, Any]] = {
    "joints": {"joints": 16, "space": "points"},
    "pose": {"joints": 24},
}
WIDTH = 256
BUDGET = {"context_norm": True, "hidden_features": 128}
NUM_SAMPLES = 1000
CALIBRATION_SAMPLES = 200
BATCH = 256
COUNTS = (1, 10, 50, 100, 1000)
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95)
# Weight of the mean L1 error of the decoded z = 0, in nats per unit of the flow's vectors.
MODE_WEIGHT = 200.0
# Noise of rotations in training and evaluation, because exact hinges have no finite density.
ROTATION_NOISE = math.radians(1.0)
VIEWS_PER_CHUNK = 20


@dataclass(frozen=True)
class Poses:
    """Motion capture: joints (N, 17, 3) in metres, y up, and rotation vectors (N, 24, 3)."""

    joints: Tensor
    rotvecs: Tensor

    def views(
        self,
        rows: Tensor,
        generator: torch.Generator,
        *,
        augment: bool = False,
    ) -> tuple[Views, Tensor]:
        """Views of poses and their rotations (B, 24, 3, 3), with the root in the camera frame.

        With ``augment``, half of the people are mirrored and all change their proportions.
        """
        joints, rotvecs = self.joints[rows], self.rotvecs[rows]
        if augment:
            flip = torch.rand(len(rows), generator=generator)[:, None, None] < 0.5
            joints = vary_bones(torch.where(flip, mirror(joints), joints), generator)
            rotvecs = torch.where(flip, mirror_rotvecs(rotvecs), rotvecs)
        seen = photograph(joints, generator)
        turn, _ = roma.rigid_points_registration(joints, seen.joints)
        matrix = rotations.rotvec_to_matrix(rotvecs)
        # Rotate by pi about x, so that people are upright and half-turns are rare.
        upright = matrix.new_tensor([1.0, -1.0, -1.0])[:, None] * (turn @ matrix[:, 0])
        matrix = torch.cat((upright[:, None], matrix[:, 1:]), dim=1)
        jitter = ROTATION_NOISE * torch.randn(rotvecs.shape, generator=generator)
        return occlude(seen, generator), matrix @ rotations.rotvec_to_matrix(jitter)


def load(path: Path) -> dict[str, Poses]:
    """Read the three parts of the motion capture file, which share no subject."""
    with np.load(path, allow_pickle=False) as file:
        joints = torch.from_numpy(file["joints17"])
        rotvecs = torch.from_numpy(file["poses"]).reshape(-1, 24, 3)
        split = torch.from_numpy(file["split"])
    return {
        name: Poses(joints[split == code], rotvecs[split == code])
        for code, name in enumerate(("train", "val", "test"))
    }


class Model(nn.Module):
    """Encoder of 2D keypoints and prior of one variant."""

    def __init__(self, target: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.target = target
        self.encoder = MartinezEncoder(51, WIDTH)
        self.prior = ConditionalPosePrior(WIDTH, **{**TARGETS[target], **options})

    def context(self, views: Views) -> Tensor:
        """Context (B, 256) of views."""
        encoded: Tensor = self.encoder(keypoint_features(views.keypoints, views.visible))
        return encoded

    def theta(self, views: Views, matrix: Tensor) -> Tensor:
        """The target of the prior."""
        return views.relative if self.target == "joints" else matrix

    def joints(self, theta: Tensor) -> Tensor:
        """Theta as returned by the prior -> (..., 17, 3) relative to the pelvis, metres."""
        if self.target == "joints":
            return torch.cat((torch.zeros_like(theta[..., :1, :]), theta), dim=-2)
        rotvec = rotations.matrix_to_rotvec(rotations.rot6d_to_matrix(theta))
        joints = joints17_from_rotations(rotvec)
        return joints - joints[..., :1, :]


def same_budget(target: str, options: dict[str, Any]) -> int:
    """Hidden width with which a variant has about as many parameters as the reference."""

    def count(settings: dict[str, Any]) -> int:
        with torch.device("meta"):
            prior = ConditionalPosePrior(WIDTH, **{**TARGETS[target], **settings})
        return sum(p.numel() for p in prior.parameters())

    wanted = count(BUDGET)
    return min(
        range(32, 257, 4), key=lambda h: abs(count({**options, "hidden_features": h}) - wanted)
    )


def train(model: Model, poses: Poses, steps: int, seed: int) -> Model:
    """Train on NLL and the mode's error with AdamW and one cycle of the learning rate."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.05)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(poses.joints), (BATCH,), generator=generator)
        views, matrix = poses.views(rows, generator, augment=True)
        theta, context = model.theta(views, matrix), model.context(views)
        target = model.prior.space.to_vector(theta)
        centre, _ = model.prior.flow.inverse(torch.zeros_like(target), context)
        loss = model.prior.nll(theta, context)
        loss = loss + MODE_WEIGHT * (centre - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def noisy_nll(model: Model, theta: Tensor, context: Tensor) -> Tensor:
    """NLL per view, with the noise of training for rotations; exact hinges have no finite density.

    Joints are evaluated without noise.
    """
    x = model.prior.space.to_vector(theta)
    if model.target == "pose":
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        x = x + model.prior.target_noise * noise
    projected = model.prior.flow.project_context(context)
    return -(model.prior.flow.log_prob(x, projected) + model.prior.space.log_volume(x))


def judge(model: Model, data: dict[str, Poses], num_views: int, seed: int) -> dict[str, float]:
    """All figures for held-out subjects."""
    generator = torch.Generator().manual_seed(1000 + seed)

    def held_out(split: str) -> tuple[Views, Tensor]:
        poses = data[split]
        rows = torch.linspace(0, len(poses.joints) - 1, num_views).round().long()
        return poses.views(rows, generator)

    views, matrix = held_out("test")
    theta, clear = model.theta(views, matrix), views.visible.all(dim=1)
    context = model.context(views)
    posterior = model.prior(context)
    nll = noisy_nll(model, theta, context)
    z = posterior.encode(theta)
    truth = model.joints(model.prior.space.to_pose(model.prior.space.to_vector(theta)))

    with torch.inference_mode(False):
        mode = model.joints(posterior.mode().detach())
    mode_error = 1000 * mpjpe(mode, truth)
    entropy = posterior.entropy(generator=generator)

    errors, scores, spared = [], [], []
    start = time.perf_counter()
    drawn = 0.0
    for begin in range(0, num_views, VIEWS_PER_CHUNK):
        rows = slice(begin, begin + VIEWS_PER_CHUNK)
        start = time.perf_counter()
        samples = model.prior.sample(context[rows], NUM_SAMPLES, generator=generator)
        drawn += time.perf_counter() - start
        joints = model.joints(samples)
        errors.append(1000 * mpjpe(joints, truth[rows][:, None]))
        few = joints[:, :CALIBRATION_SAMPLES]
        scores.append(energy_score(few, truth[rows]))
        spared.append(few[..., 1:, :])
    error = torch.cat(errors)
    ece = expected_calibration_error(torch.cat(spared), truth[:, 1:])

    result: dict[str, Tensor | float] = {
        "nll": nll.mean(),
        "nll_clear": nll[clear].mean(),
        "nll_occluded": nll[~clear].mean(),
        "nll_per_dimension": nll.mean() / z.shape[-1],
        "mode_mpjpe_mm": mode_error.mean(),
        **{f"best_of_{n}_mm": best_of_n(error, n).mean() for n in COUNTS},
        "ece": ece.ece,
        "ece_worst_joint": ece.joint_errors.max(),
        "energy_score_mm": 1000 * torch.cat(scores).mean(),
        "latent_calibration_error": calibration_error(coverage(latent_pit(z))),
        **{f"coverage_{level}": coverage(latent_pit(z), [level])[0] for level in LEVELS},
        "latent_mean_square": z.square().mean(),
        "entropy_error_r": _correlation(entropy, mode_error.log()),
        "microseconds_per_sample": 1e6 * drawn / (num_views * NUM_SAMPLES),
    }
    views, matrix = held_out("val")
    model.prior.calibrate(model.theta(views, matrix), model.context(views))
    result["nll_calibrated"] = noisy_nll(model, theta, context).mean()
    return {name: float(value) for name, value in result.items()}


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    if first.std() < 1e-3:  # one number for every image, but for rounding
        return torch.tensor(math.nan)
    return torch.corrcoef(torch.stack((first.float(), second.float())))[0, 1]


def table(results: dict[str, dict[str, float]], target: str) -> str:
    """Means and standard deviations over the seeds, as Markdown."""
    columns = (
        ("NLL", "nll", ".1f"),
        ("clear", "nll_clear", ".1f"),
        ("occluded", "nll_occluded", ".1f"),
        ("calibrated", "nll_calibrated", ".1f"),
        ("mode, mm", "mode_mpjpe_mm", ".1f"),
        ("best of 10", "best_of_10_mm", ".1f"),
        ("best of 50", "best_of_50_mm", ".1f"),
        ("best of 1000", "best_of_1000_mm", ".1f"),
        ("ECE", "ece", ".3f"),
        ("energy score, mm", "energy_score_mm", ".0f"),
        ("entropy vs log error, r", "entropy_error_r", ".2f"),
        ("mean z^2", "latent_mean_square", ".2f"),
        ("us a sample", "microseconds_per_sample", ".0f"),
    )
    lines = [
        "| " + " | ".join(["variant", "seeds", *(title for title, _, _ in columns)]) + " |",
        "|" + "---|" * (len(columns) + 2),
    ]
    for variant in VARIANTS:
        runs = [run for name, run in results.items() if name.startswith(f"{target}/{variant}/")]
        if not runs:
            continue
        cells = []
        for _, key, spec in columns:
            values = np.array([run[key] for run in runs])
            if np.isnan(values).any():
                cells.append("constant")
                continue
            spread = f" ± {values.std(ddof=1):{spec}}" if len(runs) > 1 else ""
            cells.append(f"{values.mean():{spec}}{spread}")
        lines.append("| " + " | ".join([variant, str(len(runs)), *cells]) + " |")
    return "\n".join(lines)


def draw(results: dict[str, dict[str, float]], target: str, out: Path) -> None:
    """Pictures of the latents' coverage and of the best of n samples, means over the seeds."""
    covered, errors = {}, {}
    for variant in VARIANTS:
        runs = [run for name, run in results.items() if name.startswith(f"{target}/{variant}/")]
        if not runs:
            continue
        covered[variant] = (
            LEVELS,
            [float(np.mean([run[f"coverage_{level}"] for run in runs])) for level in LEVELS],
        )
        errors[variant] = [float(np.mean([run[f"best_of_{n}_mm"] for run in runs])) for n in COUNTS]
    note = "Motion capture of people not seen in training, mean of the seeds."
    reliability_picture(
        out / f"reliability_{target}.png",
        covered,
        "How often the truth's latent lies in the region that should hold it",
        note,
    )
    comparison_picture(
        out / f"best_of_n_{target}.png",
        COUNTS,
        errors,
        title="Error of the best of n samples",
        note=note,
    )


def main() -> None:
    """Run the missing variants, print the tables and draw the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.density_study")
    parser.add_argument("--data", type=Path, required=True, help="motion capture .npz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--views", type=int, default=1000, help="held-out views")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = load(args.data)
    for seed in args.seeds:
        for target in args.targets:
            for variant in args.variants:
                if variant == "so3" and target == "joints":
                    continue
                file = args.out / f"{target}-{variant}-{seed}.json"
                if file.exists():
                    continue
                options = dict(VARIANTS[variant])
                options["hidden_features"] = same_budget(target, options)
                torch.manual_seed(seed)
                start = time.perf_counter()
                model = train(Model(target, options), data["train"], args.steps, seed)
                trained = time.perf_counter()
                with torch.no_grad():
                    figures = judge(model, data, args.views, seed)
                figures["hidden_features"] = options["hidden_features"]
                file.write_text(json.dumps(figures, indent=2) + "\n")
                print(
                    f"{target} {variant} seed {seed}: NLL {figures['nll']:.1f}, mode "
                    f"{figures['mode_mpjpe_mm']:.1f} mm, trained {trained - start:.0f} s, judged "
                    f"{time.perf_counter() - trained:.0f} s",
                    flush=True,
                )
    results = {}
    for file in sorted(args.out.glob("*-*-*.json")):
        target, variant, number = file.stem.split("-")
        results[f"{target}/{variant}/{number}"] = json.loads(file.read_text())
    for target in TARGETS:
        if any(name.startswith(target) for name in results):
            print(f"\n{target}\n\n{table(results, target)}")
            draw(results, target, args.out)


if __name__ == "__main__":
    main()
