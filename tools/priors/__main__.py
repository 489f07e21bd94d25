"""Train the priors that ship with the library on recorded people.

    python -m tools.priors people --data cmu_mocap.npz
    python -m tools.priors body-pose --data cmu_mocap.npz

    python -m tools.priors people --data cmu_mocap.npz --only-factors
    python -m tools.priors hands
    python -m tools.priors hands --data training_mano.json --no-flat-hand-mean \
        --mano MANO_RIGHT.pkl --out my-hands
    python -m tools.priors motion --data cmu_clips.npz

Writes weights, configuration and model card to ``flowprior/assets/people`` or ``body-pose``. About
two hours on one core of a busy machine. A stopped training resumes with the same command.
With --only-factors, the conformal factors of the joints are fitted again; other weights stay.
``hands`` trains a prior over hands in a few minutes: on procedural poses, for
``flowprior/assets/hands-procedural``, or on captured ones, for another folder. It reads files of
FreiHAND, InterHand2.6M, ARCTIC, AMASS, and arrays of MANO's rotation vectors (N, 15, 3). ``motion``
trains a motion prior on clips in a quarter of an hour; of the options, it takes --data, --out,
--steps, --seed, --threads, --batch, --rate and --only-figures.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.command_line import fail, interruptible, positive
from examples.data.poses import load_poses
from examples.whole_files import prepare_folder, write_json
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from tools.priors.card import card
from tools.priors.chain import SCORED, Chain
from tools.priors.drawing import CROSSED, HANDS, Kind, draw, noisy, photographed, pose
from tools.priors.factors import cross_fitted_scores, fit_joint_factors, read_people, without
from tools.priors.figures import body_figures, evenly, people_figures, photographed_people
from tools.priors.hands import NAME as HANDS_NAME
from tools.priors.hands import train_hands
from tools.priors.motion import train_motion
from tools.priors.step import held_joints, losses
from tools.priors.training import Run, Settings, context_of, train, train_flow, where_of

__all__ = ["figures_of", "main", "make_prior"]

ASSETS = Path(__file__).parents[2] / "flowprior" / "assets"
STEPS = {"people": 54_000, "body-pose": 56_000}
FLOW_STEPS = 20_000
SIZES: dict[str, dict[str, Any]] = {
    "people": {
        "joints": 24,
        "evidence": ("keypoints_2d", "joints_3d"),
        "encoder_features": 512,
        "encoder_blocks": 2,
        "head_features": 256,
        "hidden_features": 160,
        "num_steps": 4,
    },
    "body-pose": {
        "joints": 23,
        "evidence": ("rotations", "joints_3d"),
        "encoder_features": 320,
        "encoder_blocks": 2,
        "head_features": 256,
        "hidden_features": 128,
        "num_steps": 6,
    },
}
COMMON: dict[str, Any] = {"num_blocks": 1, "target_noise": 0.03}
JUDGED = 1000  # test poses
VALIDATED = 600  # validation poses while training
CALIBRATED = 4000


def make_prior(kind: Kind, **changes: Any) -> ConditionalPosePrior:
    """A new prior of one kind.

    Args:
        kind: Which.
        changes: Other options than those of the shipped prior.
    """
    options = {**COMMON, **SIZES[kind], **changes}
    root = 1 if kind == "people" else 0
    return ConditionalPosePrior(rest_joints=tuple(joint - 1 + root for joint in HANDS), **options)


def figures_of(
    kind: Kind, prior: ConditionalPosePrior, rotvecs: Tensor, body: BodyModel
) -> dict[str, float]:
    """All figures of a prior on poses (N, 24, 3) of held-out people."""
    if kind == "people":
        return people_figures(prior, rotvecs, body)
    return body_figures(prior, rotvecs, body)


class Validation:
    """Errors on validation people while a prior is trained.

    Args:
        kind: The prior.
        rotvecs: (N, 24, 3) poses of these people.
        body: The body.
        seed: Of shapes, cameras and evidence.
    """

    def __init__(self, kind: Kind, rotvecs: Tensor, body: BodyModel, seed: int) -> None:
        # Drawn on the CPU, so that figures of all devices compare.
        generator = torch.Generator().manual_seed(seed)
        rows = torch.linspace(0, len(rotvecs) - 1, min(VALIDATED, len(rotvecs))).round().long()
        self._mixed = draw(kind, rotvecs, rows, body, generator, augmented=False)
        self._target = noisy(self._mixed.theta, generator)
        self._views = None
        if kind == "people":
            self._views = photographed(pose(rotvecs[rows], body, generator), generator)
        self._chain = Chain(body)

    def to(self, device: torch.device, body: BodyModel) -> "Validation":
        """Move to a device; ``body`` is there already."""
        self._mixed = self._mixed.to(device)
        self._target = self._target.to(device)
        self._views = None if self._views is None else self._views.to(device)
        self._chain = Chain(body)
        return self

    @torch.no_grad()
    def __call__(self, prior: ConditionalPosePrior) -> dict[str, float]:
        """With the evidence of training, and for people with all keypoints ("seen")."""
        distance, _, nll = losses(
            prior,
            self._chain,
            self._mixed.theta,
            self._target,
            context_of(prior, self._mixed),
            held_joints(prior, self._mixed.known),
            torch.Generator(self._target.device).manual_seed(0),
            likelihood=True,
        )
        assert nll is not None
        found = {"val_mm": 1000 * float(distance) / (SCORED - 1), "val_nll": float(nll)}
        if self._views is not None:
            mode = rotations.rot6d_to_matrix(prior.mode(context_of(prior, self._views)))
            error = self._chain(mode) - self._views.joints[:, :SCORED]
            found["val_seen_mm"] = 1000 * float(error.norm(dim=-1).mean())
        return found


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.priors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="While it trains, --out also holds training.pt, the checkpoint, and log.jsonl.",
    )
    parser.add_argument("kind", choices=(*SIZES, "hands", "motion"))
    parser.add_argument("--data", type=Path, metavar="FILE", help="poses; embedded if left out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="flowprior/assets if left out")
    parser.add_argument(
        "--steps", type=positive, metavar="N", help="54,000, 56,000, 4,000 or 3,600 if left out"
    )
    parser.add_argument(
        "--flow-steps",
        type=int,
        metavar="N",
        help="steps of the flow alone; 20,000, or 1,500 for hands",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="end the schedule by the clock, not by steps"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--threads", type=positive, default=1, metavar="N")
    parser.add_argument("--batch", type=positive, default=256, metavar="N")
    parser.add_argument(
        "--rate", type=float, metavar="R", help="learning rate; 3e-3, or 1e-3 for motion"
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="multiply in bfloat16 in training: faster on CPUs with AVX512-BF16 or AMX only",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="DEVICE", help="where it trains; figures are on the CPU"
    )
    parser.add_argument(
        "--crossed",
        type=float,
        default=CROSSED,
        metavar="SHARE",
        help="of the people in pictures who have a part of the body from another pose",
    )
    parser.add_argument(
        "--photographed", type=Path, metavar="DIR", help="people of SAM 3D Body to compare with"
    )
    parser.add_argument(
        "--flat-hand-mean",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="hands of --data: whether zero is the flat hand, or the mean pose of --mano",
    )
    parser.add_argument(
        "--mano",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="with --no-flat-hand-mean: MANO_RIGHT.pkl, and MANO_LEFT.pkl for left hands",
    )
    parser.add_argument(
        "--only-figures", action="store_true", help="evaluate the prior in --out on test people"
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="SUBJECT",
        help="leave out training subjects, for cross-fitting (benchmarks.calibration)",
    )
    parser.add_argument(
        "--only-factors",
        action="store_true",
        help="fit the joints' conformal factors of the prior in --out on validation people",
    )
    parser.add_argument(
        "--cross-fitted",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="with --only-factors: priors trained --without some people, who are used as well",
    )
    return parser.parse_args(argv)


def device_named(name: str) -> torch.device:
    """A device by its name, such as "cuda:1"; ValueError if there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: PyTorch finds no GPU")
    return device


@interruptible("the same command resumes from the last checkpoint")
def main(argv: Sequence[str] | None = None) -> int:
    """Train, calibrate, evaluate and write the prior; returns the exit code."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    kind: Kind = args.kind
    try:
        device = device_named(args.device)
    except ValueError as error:
        return fail(error)
    out: Path = args.out or ASSETS / (HANDS_NAME if kind == "hands" else kind)
    command = f"python -m tools.priors {shlex.join(argv if argv is not None else sys.argv[1:])}"
    if args.rate is None:
        args.rate = 1e-3 if args.kind == "motion" else 3e-3
    if args.kind == "motion":
        if args.data is None:
            return fail("the motion prior is trained on clips: --data FILE")
        try:
            prepare_folder(out)
            return train_motion(args, out, command)
        except (OSError, ValueError) as error:
            return fail(error)
    if kind == "hands":
        if args.data is not None and args.out is None:
            return fail("hands of your own are not the procedural ones: --out DIR")
        try:
            prepare_folder(out)
            return train_hands(args, device, out, command)
        except (OSError, ValueError) as error:
            return fail(error)
    try:
        source = load_poses(args.data, 0)
        parts = {part: torch.from_numpy(source.rotvecs(part)) for part in ("train", "val", "test")}
        if args.without:
            parts["train"] = without(args.data, args.without)
        prepare_folder(out)
    except (OSError, ValueError) as error:
        return fail(error)
    body = BodyModel()
    if args.only_figures:
        prior = ConditionalPosePrior.from_pretrained(str(out))
        print(json.dumps(_all_figures(args, kind, prior, parts["test"], body), indent=2))
        return 0

    if args.only_factors:
        return _refit_factors(kind, args.data, out, body, args.cross_fitted)

    generator = torch.Generator().manual_seed(args.seed + 1)
    val = parts["val"]
    torch.manual_seed(args.seed)
    prior = make_prior(kind)
    settings = Settings(
        steps=args.steps or STEPS[kind],
        minutes=args.minutes,
        flow_steps=FLOW_STEPS if args.flow_steps is None else args.flow_steps,
        batch=args.batch,
        rate=args.rate,
        seed=args.seed,
        half=args.bfloat16,
        crossed=args.crossed,
    )
    validation = Validation(kind, val, body, args.seed + 2)
    # As a context, a device slows every call a little.
    with nullcontext() if device.type == "cpu" else device:
        there = BodyModel().to(device)
        run = Run(
            *(kind, prior.to(device), parts["train"].to(device), there, out),
            validation.to(device, there),
        )
        spent = train(run, settings)
        more = train_flow(run, settings)
    prior.to("cpu")

    rows = torch.randint(len(val), (CALIBRATED,), generator=generator)
    examples = draw(kind, val, rows, body, generator, augmented=False)
    temperature = prior.calibrate(
        noisy(examples.theta, generator), context_of(prior, examples), known=examples.known
    )
    if args.data is not None and args.data.is_file():
        fit_joint_factors(kind, prior, read_people(args.data, "val"), body)
    found = _all_figures(args, kind, prior, parts["test"], body)
    prior.provenance = {
        "trained by": f"tools/priors, {spent['steps']} steps, seed {args.seed}",
        "data": "CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu, NSF EIA-0196217)",
    }
    if args.without:
        prior.provenance["without"] = ", ".join(args.without)
    training = {
        "steps": spent["steps"],
        "flow_steps": more["steps"],
        "batch": settings.batch,
        "seed": args.seed,
        "minutes": (spent["seconds"] + more["seconds"]) / 60,
        "where": where_of(device),
        "command": command,
        "count": min(JUDGED, len(parts["test"])),
        "temperature": temperature,
        "remark": "",
    }
    prior.save_pretrained(
        out,
        repo_id=f"flowprior/{kind}",
        model_card_kwargs=card(kind, found, source.subjects, training),
    )
    write_json(out / "figures.json", {**training, "figures": found})
    print(json.dumps(found, indent=2))
    print(f"{60 * training['minutes']:.0f} s of training; written to {out}")
    return 0


def _refit_factors(
    kind: Kind, data: Path | None, out: Path, body: BodyModel, cross_fitted: Sequence[Path]
) -> int:
    """Replace the conformal factors in a folder; returns the exit code."""
    if data is None:
        return fail("the factors are fitted on recorded people: --data FILE")
    try:
        prior = ConditionalPosePrior.from_pretrained(str(out))
        scores = cross_fitted_scores(kind, cross_fitted, data, body)
        factors = fit_joint_factors(kind, prior, read_people(data, "val"), body, scores)
        prior.save_pretrained(out)
    except (OSError, ValueError) as error:
        return fail(error)
    print(f"{factors} written to {out}")
    return 0


def _all_figures(
    args: argparse.Namespace,
    kind: Kind,
    prior: ConditionalPosePrior,
    rotvecs: Tensor,
    body: BodyModel,
) -> dict[str, float]:
    found = figures_of(kind, prior, evenly(rotvecs, JUDGED), body)
    if kind == "people" and args.photographed:
        found |= photographed_people(prior, args.photographed, body)
    return found


if __name__ == "__main__":
    sys.exit(main())
