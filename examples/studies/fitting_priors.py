"""Comparison of priors for fits to keypoints, on real poses of held-out subjects.

    python -m examples.studies.fitting_priors --data cmu_mocap.npz --prior outputs/fitting/priors

Virtual cameras see the people; the keypoints are noisy, and 30 % of them are missing, or the image
ends at the hips. The weight of each prior is the best of the same number of candidates on the
validation subjects. Fits with priors that do not model the root start from four headings.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.command_line import interruptible, positive
from examples.data.poses import load_poses
from examples.fitting.choices import Priors, add_prior_argument, open_priors
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, People, detect, photograph_bodies
from examples.pictures import MODE, REGRESSOR, SAMPLES, TRUTH, body_views, gallery_picture
from examples.pictures.style import Image
from examples.pinhole import flip_yz
from examples.whole_files import prepare_folder, write_json
from flowprior.body import BodyModel
from flowprior.fitting import Fits, KeypointWeights, fit_keypoints
from flowprior.fitting.cameras import REFERENCE_PX
from flowprior.metrics import mpjpe, pa_mpjpe
from flowprior.skeleton import BODY_25, SMPL_24

__all__ = ["CONDITIONS", "TITLES", "corrupt", "errors_mm", "main"]

CONDITIONS = ("noisy", "missing", "truncated")
MISSING = 0.3
WEIGHTS: dict[str, tuple[float, ...]] = {
    "none": (0.0,),
    "isotropic": (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0),
    "mixture": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
    "unconditional": (4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0),
    "conditional": (4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0),
}
TITLES = {
    "none": "no prior",
    "isotropic": "isotropic",
    "mixture": "Gaussian mixture",
    "unconditional": "unconditional flow",
    "conditional": "conditional flow",
}
COLOURS = {
    "none": REGRESSOR,
    "isotropic": REGRESSOR,
    "mixture": SAMPLES[0],
    "unconditional": SAMPLES[1],
    "conditional": MODE,
}


def corrupt(people: People, condition: str, generator: torch.Generator) -> Tensor:
    """Simulate detections (B, 25, 3) in one of `CONDITIONS`.

    "noisy" keeps every keypoint, "missing" loses a random 30 % of them, "truncated" all below the
    hips, as in an image that ends there. The noise is always 1 % of the box.
    """
    lost = torch.zeros(people.keypoints.shape[:2], dtype=torch.bool)
    if condition == "missing":
        lost = torch.rand(lost.shape, generator=generator) < MISSING
    elif condition == "truncated":
        names = ("knee", "ankle", "toe", "heel")
        lost[:, [j for j, name in enumerate(BODY_25.joint_names) if name.endswith(names)]] = True
    return detect(people.keypoints, lost, generator)


def errors_mm(joints: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """MPJPE, PA-MPJPE, and the angle between the torsos in degrees, each (B,).

    Args:
        joints: (B, 24, 3) camera frame, metres.
        truth: (B, 24, 3).
    """
    pelvis = slice(0, 1)
    error = 1000 * mpjpe(joints - joints[:, pelvis], truth - truth[:, pelvis])
    aligned = 1000 * pa_mpjpe(joints, truth)
    left, right = SMPL_24.index("left_shoulder"), SMPL_24.index("right_shoulder")
    axis, wanted = joints[:, left] - joints[:, right], truth[:, left] - truth[:, right]
    cosine = torch.nn.functional.cosine_similarity(axis, wanted, dim=-1).clamp(-1, 1)
    return error, aligned, torch.rad2deg(cosine.acos())


class Bench:
    """People of one part of the poses, and fits to their keypoints.

    Args:
        rotvecs: (B, 24, 3) poses.
        body: The body.
        priors: The priors.
        seed: Seed of cameras and detections.
        steps: Largest number of iterations of a fit.
    """

    def __init__(
        self, rotvecs: Tensor, body: BodyModel, priors: Priors, seed: int, steps: int
    ) -> None:
        self.body, self.priors, self.steps = body, priors, steps
        self.generator = torch.Generator().manual_seed(seed)
        self.people = photograph_bodies(rotvecs, body, self.generator)
        self.seen = {name: corrupt(self.people, name, self.generator) for name in CONDITIONS}

    def fit(self, kind: str, condition: str, weight: float) -> Fits:
        """Fit everybody with one prior."""
        seen = self.seen[condition]
        return fit_keypoints(
            seen,
            self.priors.variables(kind, seen),
            body=self.body,
            skeleton=BODY_25,
            image_size=(IMAGE_PX, IMAGE_PX),
            focal_px=FOCAL_PX,
            weights=_weights(kind, weight),
            max_iterations=self.steps,
        )

    @torch.no_grad()
    def errors(self, theta: Tensor, betas: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """`errors_mm` of poses."""
        return errors_mm(self.body(theta, betas).joints, self.people.joints)

    @torch.no_grad()
    def mode(self, condition: str) -> tuple[Tensor, Tensor, Tensor]:
        """`errors_mm` of the conditional prior's mode, without a fit."""
        return self.errors(self.priors.posterior(self.seen[condition]).mode())


def _weights(kind: str, pose: float) -> KeypointWeights:
    """Weights with another one of the pose; the penalty of a flow is a log-density."""
    if kind.endswith("conditional"):
        return KeypointWeights.of_noise(math.sqrt(pose) / REFERENCE_PX)
    return KeypointWeights(pose=pose)


def choose_weights(bench: Bench, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The best weight of each prior with 30 % of the keypoints missing, and all results."""
    chosen: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        tried = {}
        for weight in WEIGHTS[kind]:
            fits = bench.fit(kind, "missing", weight)
            tried[weight] = float(bench.errors(fits.theta, fits.betas)[0].mean())
        best = min(tried, key=lambda weight: tried[weight])
        chosen[kind] = {"weight": best, "tried_mpjpe_mm": tried}
        print(f"{TITLES[kind]}: weight {best:g}, {tried[best]:.1f} mm to choose by", flush=True)
    return chosen


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """MPJPE, aligned MPJPE and the torso's angle, as Markdown."""
    head = ["prior", *(f"{name}: MPJPE, mm | PA | torso, °" for name in CONDITIONS)]
    lines = ["| " + " | ".join(head) + " |", "|---" * (1 + 3 * len(CONDITIONS)) + "|"]
    for kind, by_condition in results.items():
        cells = []
        for condition in CONDITIONS:
            figures = by_condition[condition]
            cells += [
                f"{figures['mpjpe_mm']:.1f}",
                f"{figures['pa_mpjpe_mm']:.1f}",
                f"{figures['torso_degrees']:.1f}",
            ]
        lines.append("| " + " | ".join([TITLES.get(kind, kind), *cells]) + " |")
    return "\n".join(lines)


@torch.no_grad()
def draw(bench: Bench, fits: dict[str, Fits], condition: str, out: Path, count: int = 3) -> None:
    """The paper's figure 10: fits of several priors from the camera and from the side."""
    errors = torch.stack([bench.errors(f.theta, f.betas)[0] for f in fits.values()])
    # People with a typical error of the conditional fit and disagreement between the priors.
    best = errors[-1]
    typical = (best - best.median()).abs() < 0.6 * best.median()
    spread = torch.where(typical, errors[:-1].mean(dim=0) - best, -torch.inf)
    middle = (spread - spread[typical].quantile(0.75)).abs()
    rows = middle.argsort()[:count].tolist()
    images: dict[str, Image] = {}
    faces = bench.body.faces.numpy()

    def views(theta: Tensor, betas: Tensor, colour: str) -> Image:
        posed = bench.body(theta[None], betas[None])
        vertices = flip_yz((posed.vertices[0] - posed.joints[0, :1]).numpy())
        drawn = body_views(vertices, faces, views=("front", "side"), colours=colour, height=240)
        # Wide enough for the caption.
        missing = max(0, 190 - drawn.shape[1])
        return np.pad(drawn, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)),
                      constant_values=255)  # fmt: skip

    for number, row in enumerate(rows, start=1):
        truth = views(bench.people.theta[row], bench.people.betas[row], TRUTH)
        images[f"person {number}: truth"] = truth
        for (kind, fit), error in zip(fits.items(), errors[:, row], strict=True):
            caption = f"{TITLES[kind]}, {error:.0f} mm" + " " * number
            images[caption] = views(fit.theta[row], fit.betas[row], COLOURS[kind])
    gallery_picture(
        out / f"priors_{condition}.png",
        images,
        title=f"Fits to {condition} keypoints, from the camera and from the side",
        note="Held-out subjects. Keypoints determine the view of the camera only.",
        columns=1 + len(fits),
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.fitting_priors", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="poses (default: embedded)")
    add_prior_argument(parser)
    parser.add_argument(
        "--body", type=Path, metavar="FILE", help="SMPL file (default: embedded body)"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/compare"), metavar="DIR")
    parser.add_argument("--people", type=int, default=400, metavar="N", help="to report on")
    parser.add_argument(
        "--choose",
        type=int,
        default=128,
        metavar="N",
        help="number of people for the choice of weights",
    )
    parser.add_argument("--steps", type=positive, default=150, metavar="N", help="of each fit")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    return parser.parse_args(argv)


@interruptible("no table was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Choose weights, fit, and write everything; returns the exit code."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    try:
        poses = load_poses(args.data, args.seed)
        body, priors = BodyModel(args.body), open_priors(args.prior, torch.device("cpu"))
        if not len(poses.val):
            raise ValueError(f"{poses.source}: no people to choose weights on")
        prepare_folder(args.out)

        def some(split: str, number: int) -> Tensor:
            rotvecs = torch.from_numpy(poses.rotvecs(split))
            rows = torch.linspace(0, len(rotvecs) - 1, min(number, len(rotvecs)))
            return rotvecs[rows.round().long()]

        choosing = Bench(some("val", args.choose), body, priors, args.seed + 1, args.steps)
        bench = Bench(some("test", args.people), body, priors, args.seed + 2, args.steps)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    kinds = priors.kinds[::-1]
    chosen = choose_weights(choosing, kinds)
    results: dict[str, dict[str, dict[str, float]]] = {kind: {} for kind in kinds}
    results["mode, not fitted"] = {}
    for condition in CONDITIONS:
        fits = {kind: bench.fit(kind, condition, chosen[kind]["weight"]) for kind in kinds}
        for kind, fit in fits.items():
            results[kind][condition] = _figures(bench.errors(fit.theta, fit.betas), fit)
        results["mode, not fitted"][condition] = _figures(bench.mode(condition))
        draw(bench, fits, condition, args.out)
    content = {
        "source": poses.source,
        "people": len(bench.people),
        "subjects": list(poses.subjects["test"]),
        "chosen": chosen,
        "results": results,
    }
    write_json(args.out / "results.json", content)
    print(table(results))
    return 0


def _figures(errors: tuple[Tensor, Tensor, Tensor], fit: Fits | None = None) -> dict[str, float]:
    names = ("mpjpe_mm", "pa_mpjpe_mm", "torso_degrees")
    figures = {name: float(value.mean()) for name, value in zip(names, errors, strict=True)}
    if fit is not None:
        figures["error_of_box"] = float(fit.error.mean())
    return figures


if __name__ == "__main__":
    sys.exit(main())
