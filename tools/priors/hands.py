"""Training and evaluation of the prior over hands."""

import argparse
import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.prior.blocks.annotation import repeated_poses
from flowprior.skeleton import MANO_16
from tools.priors.drawing import Examples, noisy
from tools.priors.hand_card import hand_card
from tools.priors.hand_chain import HandChain
from tools.priors.hand_drawing import FINGERS, TIPS, draw_hands, finger_joints, points_of
from tools.priors.hand_files import read_hand_means, read_hands, right_hands
from tools.priors.hand_poses import sample_hands, wrong_way
from tools.priors.step import held_joints, losses
from tools.priors.training import Run, Settings, context_of, train, train_flow, where_of

__all__ = [
    "HandValidation",
    "Hands",
    "hand_figures",
    "load_hands",
    "make_hand_prior",
    "train_hands",
]

NAME = "hands-procedural"
STEPS, FLOW_STEPS = 4000, 1500
SIZE: dict[str, Any] = {
    "joints": 15,
    "evidence": ("joints_3d", "rotations"),
    "encoder_features": 112,
    "encoder_blocks": 2,
    "head_features": 96,
    "hidden_features": 48,
    "num_steps": 4,
    "num_blocks": 1,
    "target_noise": 0.03,
}
DRAWN = {"train": 60_000, "val": 3000, "test": 1000}
JUDGED = 1000
LEAST = 10  # hands of a file
BEST_OF = 10


@dataclass(frozen=True)
class Hands:
    """Poses of right hands.

    Args:
        train: (N, 15, 3) rotation vectors.
        val: (M, 15, 3).
        test: (K, 15, 3).
        source: Where they are from.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    source: str


def load_hands(
    path: Path | None,
    chain: HandChain,
    seed: int,
    means: Mapping[str, Tensor] | None = None,
) -> Hands:
    """Poses from a file, or procedural ones.

    Args:
        path: A file or a folder, see :mod:`tools.priors.hand_files`. Of the poses in their order,
            the last tenth is for tests and the tenth before for validation. Poses that many hands
            have exactly are left out, as the constant hands of motion capture. None for procedural
            poses.
        chain: The right hand.
        seed: Seed of the procedural poses.
        means: Mean poses (15, 3) of the hands, by side, that are added to those of the file; None
            if zero is the flat hand.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no such poses, or fewer than ten that differ.
    """
    if path is None:
        generator = torch.Generator().manual_seed(seed)
        train, val, test = (sample_hands(count, generator, chain) for count in DRAWN.values())
        return Hands(train, val, test, "procedural")
    found, left = read_hands(path)
    if len(found) < LEAST:
        raise ValueError(f"{path} has {len(found)} hands, expected at least {LEAST}")
    captured = ~repeated_poses(found)
    constant = len(found) - int(captured.sum())
    if constant:
        print(
            f"{path}: left out {constant} of {len(found)} hands, whose pose many others have "
            "exactly, as in data without fingers"
        )
    if int(captured.sum()) < LEAST:
        raise ValueError(f"{path}: the hands do not move, as in data without fingers")
    rotvecs = right_hands(found[captured], left[captured], means, str(path))
    tenth = len(rotvecs) // 10
    train, val, test = rotvecs.split([len(rotvecs) - 2 * tenth, tenth, tenth])
    return Hands(train, val, test, path.name)


def means_of(args: argparse.Namespace) -> dict[str, Tensor] | None:
    """The mean poses that the command line adds to poses of a file; None for none.

    Raises:
        OSError: If a file of MANO cannot be read.
        ValueError: If the convention of the poses is not given, or does not fit the arguments.
    """
    if args.data is None:
        if args.flat_hand_mean is not None or args.mano:
            raise ValueError("--flat-hand-mean and --mano belong to --data")
        return None
    if args.flat_hand_mean is None:
        raise ValueError(
            "a file does not say what zero is: --flat-hand-mean if it is the flat hand, as in "
            "AMASS; --no-flat-hand-mean --mano MANO_RIGHT.pkl [MANO_LEFT.pkl] if it is the mean "
            "pose of MANO's file, as in FreiHAND, InterHand2.6M and ARCTIC's .mano.npy"
        )
    if args.flat_hand_mean and args.mano:
        raise ValueError("--flat-hand-mean adds no mean pose, so it takes no --mano")
    if not args.flat_hand_mean and not args.mano:
        raise ValueError(
            "--no-flat-hand-mean adds the mean pose of MANO's file: --mano MANO_RIGHT.pkl, and "
            "MANO_LEFT.pkl for left hands"
        )
    return None if args.flat_hand_mean else read_hand_means(args.mano)


def make_hand_prior(**changes: Any) -> ConditionalPosePrior:
    """A new prior; ``changes`` are other options than those of the shipped one."""
    return ConditionalPosePrior(**{**SIZE, **changes})


class HandValidation:
    """Errors on validation poses while a prior is trained.

    Args:
        rotvecs: (N, 15, 3).
        chain: The right hand.
        seed: Of shapes and evidence.
    """

    def __init__(self, rotvecs: Tensor, chain: HandChain, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._drawn = draw_hands(rotvecs[:400], chain, generator)
        self._target = noisy(self._drawn.theta, generator)
        self._chain = chain

    def to(self, device: torch.device, chain: HandChain) -> "HandValidation":
        """Move to a device; ``chain`` is there already."""
        self._drawn, self._target = self._drawn.to(device), self._target.to(device)
        self._chain = chain
        return self

    @torch.no_grad()
    def __call__(self, prior: ConditionalPosePrior) -> dict[str, float]:
        """Mean distance in mm and negative log-likelihood, with the evidence of training."""
        distance, _, nll = losses(
            prior,
            self._chain,
            self._drawn.theta,
            self._target,
            context_of(prior, self._drawn),
            held_joints(prior, self._drawn.known),
            torch.Generator(self._target.device).manual_seed(0),
            likelihood=True,
        )
        assert nll is not None
        return {"val_mm": 1000 * float(distance) / (self._chain.scored - 1), "val_nll": float(nll)}


@torch.no_grad()
def hand_figures(
    prior: ConditionalPosePrior, rotvecs: Tensor, chain: HandChain
) -> dict[str, float]:
    """Figures on held-out hands of average shape.

    Args:
        prior: The prior.
        rotvecs: (N, 15, 3).
        chain: The right hand.

    Returns:
        Figures by name. Distances are means over the points that are not given.
    """
    generator = torch.Generator().manual_seed(7)
    theta = rotations.rotvec_to_matrix(rotvecs)
    points = chain(theta)
    average = rotvecs.mean(dim=0)[None].expand_as(rotvecs)
    constant = chain(rotations.rotvec_to_matrix(average))
    found: dict[str, float] = {}

    def compare(name: str, poses: Tensor, which: list[int]) -> None:
        moved = rotations.rot6d_to_matrix(poses)
        each = chain(moved.flatten(0, -4)).reshape(*moved.shape[:-3], chain.scored, 3)
        truth = points.reshape(len(points), *(1,) * (each.ndim - 3), chain.scored, 3)
        away = 1000 * (each - truth)[..., which, :].norm(dim=-1).mean(dim=-1)
        found[name] = float(away.amin(dim=1).mean() if away.ndim > 1 else away.mean())

    joints = list(range(1, MANO_16.num_joints))
    tips = torch.full_like(points, torch.nan)
    tips[:, [0, *TIPS]] = points[:, [0, *TIPS]]
    for name, given in (("all points", points), ("fingertips", tips)):
        posterior = prior.given(joints_3d=given)
        compare(f"{name}: mode, mm", posterior.mode(), joints)
        samples = posterior.sample(BEST_OF, generator=generator)
        compare(f"{name}: best of {BEST_OF}, mm", samples, joints)
    for finger in FINGERS:
        known = torch.ones(len(rotvecs), chain.joints, dtype=torch.bool)
        known[:, finger_joints(finger)] = False
        posterior = prior.given(rotations=theta, known=known)
        unknown = points_of(finger)[1:]
        compare(f"{finger} unknown: mode, mm", posterior.mode(), unknown)
        samples = posterior.sample(BEST_OF, generator=generator)
        compare(f"{finger} unknown: best of {BEST_OF}, mm", samples, unknown)
        away = 1000 * (constant - points)[:, unknown].norm(dim=-1)
        found[f"{finger} unknown: mean pose, mm"] = float(away.mean())
    marginal = prior.given()
    natural = rotations.matrix_to_rot6d(noisy(theta, generator))
    density = marginal.log_prob(natural)
    found["NLL of the marginal, nats"] = float(-density.mean())
    bent = rotations.rotvec_to_matrix(wrong_way(rotvecs, "index2", 60.0, chain))
    backwards = marginal.log_prob(rotations.matrix_to_rot6d(noisy(bent, generator)))
    found["poses above the same with a finger bent backwards"] = float(
        (density > backwards).float().mean()
    )
    return found


def train_hands(args: argparse.Namespace, device: torch.device, out: Path, command: str) -> int:
    """Train, calibrate, evaluate and write the prior; returns the exit code.

    Args:
        args: The command line of ``tools.priors``.
        device: Where it trains; figures are on the CPU.
        out: The folder.
        command: The command, for the card.

    Raises:
        OSError: If the data cannot be read.
        ValueError: If it holds no hands.
    """
    body = BodyModel(hands=True)
    chain = HandChain(body)
    hands = load_hands(args.data, chain, args.seed, means_of(args))
    if args.only_figures:
        prior = ConditionalPosePrior.from_pretrained(str(out))
        print(json.dumps(hand_figures(prior, hands.test[:JUDGED], chain), indent=2))
        return 0
    torch.manual_seed(args.seed)
    prior = make_hand_prior()
    settings = Settings(
        steps=args.steps or STEPS,
        minutes=args.minutes,
        flow_steps=FLOW_STEPS if args.flow_steps is None else args.flow_steps,
        batch=args.batch,
        rate=args.rate,
        seed=args.seed,
        half=args.bfloat16,
        checkpoint_seconds=60.0,
    )
    evaluate = HandValidation(hands.val, chain, args.seed + 2)
    # As a context, a device slows every call a little.
    with nullcontext() if device.type == "cpu" else device:
        there = BodyModel(hands=True).to(device)
        evaluate.to(device, HandChain(there))
        run = Run("hands", prior.to(device), hands.train.to(device), there, out, evaluate)
        spent, more = train(run, settings), train_flow(run, settings)
    prior.to("cpu")
    generator = torch.Generator().manual_seed(args.seed + 1)
    examples: Examples = draw_hands(hands.val, chain, generator)
    temperature = prior.calibrate(
        noisy(examples.theta, generator), context_of(prior, examples), known=examples.known
    )
    found = hand_figures(prior, hands.test[:JUDGED], chain)
    prior.provenance = {
        "trained by": f"tools/priors, {spent['steps']} steps, seed {args.seed}",
        "data": "procedural poses of tools/priors" if args.data is None else hands.source,
    }
    training = {
        "steps": spent["steps"],
        "flow_steps": more["steps"],
        "batch": settings.batch,
        "seed": args.seed,
        "minutes": math.ceil((spent["seconds"] + more["seconds"]) / 60),
        "where": where_of(device),
        "command": command,
        "count": len(hands.test[:JUDGED]),
        "temperature": temperature,
    }
    card = hand_card(found, None if args.data is None else hands.source, training)
    prior.save_pretrained(out, repo_id=f"flowprior/{NAME}", model_card_kwargs=card)
    print(json.dumps(found, indent=2))
    print(f"{training['minutes']} min of training; written to {out}")
    return 0
