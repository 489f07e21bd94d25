"""The training loop: loss, schedule, average of the weights, checkpoints."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.files.whole_file import whole_file
from tools.priors.chain import Chain
from tools.priors.drawing import CROSSED, Examples, Kind, draw, noisy
from tools.priors.half import multiply_in_bfloat16
from tools.priors.hand_chain import HandChain
from tools.priors.hand_drawing import draw_hands
from tools.priors.step import Step, held_joints

__all__ = [
    "CHECKPOINT",
    "FLOW_CHECKPOINT",
    "Run",
    "Settings",
    "context_of",
    "follow",
    "schedule",
    "train",
    "train_flow",
    "where_of",
]

CHECKPOINT = "training.pt"
FLOW_CHECKPOINT = "flow_training.pt"
POOL = 16  # batches that are drawn together
CLIP = 50.0
FOLLOWED = 4  # steps between updates of the running average
COPIED = 100  # steps in which the running average is a copy


@dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Args:
        steps: Number of steps; the schedule ends with them.
        minutes: If not None, the schedule ends after this time instead.
        flow_steps: Number of further steps that train the flow alone, with a schedule of its own.
        batch: Examples per step.
        rate: Largest learning rate of encoder and head.
        flow_rate: Largest learning rate of the flow.
        weight_decay: Of AdamW.
        warmup: Share of the schedule in which a rate rises.
        head_share: Share of the schedule before the likelihood: around an untrained head, a flow
            would first learn the spread of all poses.
        average: Decay per step of the running average of the weights.
        seed: Seed of everything random.
        half: Whether encoder and head multiply in bfloat16 while they are trained.
        crossed: Share of the people in pictures who have a part of the body from another pose.
        evaluate_every: Steps between evaluations.
        checkpoint_seconds: Seconds between checkpoints.
    """

    steps: int
    minutes: float | None = None
    flow_steps: int = 0
    batch: int = 256
    rate: float = 3e-3
    flow_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.03
    head_share: float = 0.3
    average: float = 0.999
    seed: int = 0
    half: bool = False
    crossed: float = CROSSED
    evaluate_every: int = 1000
    checkpoint_seconds: float = 180.0


@dataclass
class Run:
    """What a training needs besides its settings.

    Args:
        kind: The prior.
        prior: The weights to train, in place; at the end the running average.
        rotvecs: (P, 24, 3) training poses, or (P, 15, 3) of hands.
        body: The body.
        folder: Where checkpoint and log are.
        evaluate: Figures of a prior on validation people.
        say: Where progress goes.
    """

    kind: Kind
    prior: ConditionalPosePrior
    rotvecs: Tensor
    body: BodyModel
    folder: Path
    evaluate: Callable[[ConditionalPosePrior], dict[str, float]]
    say: Callable[[str], None] = print
    chain: Chain | HandChain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = HandChain(self.body) if self.kind == "hands" else Chain(self.body)

    def examples(self, count: int, crossed: float, generator: torch.Generator) -> Examples:
        """Draw people, or hands, and what is known of them."""
        device = self.rotvecs.device
        rows = torch.randint(len(self.rotvecs), (count,), generator=generator, device=device)
        if isinstance(self.chain, HandChain):
            return draw_hands(self.rotvecs[rows], self.chain, generator)
        return draw(self.kind, self.rotvecs, rows, self.body, generator, crossed=crossed)


def context_of(prior: ConditionalPosePrior, examples: Examples) -> Tensor:
    """The context (N, C) of what is known."""
    assert prior.evidence is not None
    given = {
        "keypoints_2d": examples.keypoints_2d,
        "joints_3d": examples.joints_3d,
        "rotations": examples.rotations,
    }
    known = examples.known if "rotations" in prior.evidence.kinds else None
    return prior.evidence.context(**{k: given[k] for k in prior.evidence.kinds}, known=known)


def train(run: Run, settings: Settings) -> dict[str, float]:
    """Train all parts, from the checkpoint in the folder if there is one.

    Returns:
        Steps and seconds, of all pieces of an interrupted training together.
    """
    return _descend(run, settings, flow_only=False)


def train_flow(run: Run, settings: Settings) -> dict[str, float]:
    """Train the flow around the fixed answers of a trained head, as :func:`train`.

    A step takes less than half of the time, and the density is what takes longest to learn.
    """
    return _descend(run, settings, flow_only=True)


def _descend(run: Run, settings: Settings, *, flow_only: bool) -> dict[str, float]:
    prior = run.prior.train()
    if flow_only:
        for fixed in (prior.encoder, prior.head):
            assert fixed is not None
            fixed.eval().requires_grad_(requires_grad=False)
    steps = settings.flow_steps if flow_only else settings.steps
    head_share = 0.0 if flow_only else settings.head_share
    average = copy.deepcopy(prior).requires_grad_(requires_grad=False).eval()
    if settings.half:
        multiply_in_bfloat16(prior)
    device = run.rotvecs.device
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(
        _groups(prior, settings.weight_decay),
        # A captured step reads its rate from the device.
        torch.tensor(settings.rate, device=device) if on_gpu else settings.rate,
        betas=(0.9, 0.98),
        fused=True,
        capturable=on_gpu,
    )
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].clone()
    generator = torch.Generator(device).manual_seed(settings.seed)
    # The step at which the likelihood began, or -1.
    state = {"step": 0, "seconds": 0.0, "began": -1}
    path = run.folder / (FLOW_CHECKPOINT if flow_only else CHECKPOINT)
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        prior.load_state_dict(saved["prior"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"].cpu())
        state = saved["state"]
        run.say(f"resumed at step {state['step']}")

    start = time.monotonic() - state["seconds"]
    last_checkpoint, step, began = time.monotonic(), int(state["step"]), int(state["began"])
    advance = Step(prior, run.chain, optimizer, generator)

    def progress() -> float:
        if settings.minutes is not None and not flow_only:
            return (time.monotonic() - start) / (60 * settings.minutes)
        return step / steps

    def save() -> None:
        seconds = time.monotonic() - start
        content = {
            "prior": prior.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
            "state": {"step": step, "seconds": seconds, "began": began},
        }
        with whole_file(path) as partial:
            torch.save(content, partial)

    while progress() < 1:
        if on_gpu:
            torch.cuda.synchronize()  # else the clock runs ahead of the steps
        # Checkpoints lie between pools, so that a resumed training draws the same ones.
        if time.monotonic() - last_checkpoint > settings.checkpoint_seconds:
            save()
            last_checkpoint = time.monotonic()
        for batch in _pool(run, settings, generator):
            done = progress()
            if done >= 1:
                break
            # The flow starts later, and gently: its scales depend on hundreds of features.
            since = (done - head_share) / (1 - head_share)
            for group in optimizer.param_groups:
                rate = (
                    settings.flow_rate * schedule(max(since, 0.0), settings.warmup)
                    if group["of_flow"]
                    else settings.rate * schedule(done, settings.warmup)
                )
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate
            likelihood = done >= head_share
            if likelihood and began < 0:
                began = step
            advance(*batch, likelihood=likelihood)
            if step % FOLLOWED == 0:
                # The first likelihood sets ActNorm's scales, which the average must not trail.
                first = step < COPIED or 0 <= began <= step < began + COPIED
                follow(average, prior, settings.average**FOLLOWED, first=first)
            step += 1
            if step % settings.evaluate_every == 0:
                # An evaluation takes nothing from the training's own randomness.
                found = {
                    "step": step,
                    "seconds": round(time.monotonic() - start, 1),
                    "progress": round(done, 4),
                    "part": "flow" if flow_only else "all",
                    **advance.means(),
                    **run.evaluate(average),
                }
                line = json.dumps(
                    {k: v if isinstance(v, str) else _short(v) for k, v in found.items()}
                )
                with (run.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(line + "\n")
                run.say(line)
    save()
    run.prior.load_state_dict(average.state_dict())
    run.prior.eval().requires_grad_()
    return {"steps": step, "seconds": time.monotonic() - start}


def _pool(
    run: Run, settings: Settings, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Draw some batches: theta, noisy theta, context, held."""
    examples = run.examples(POOL * settings.batch, settings.crossed, generator)
    with torch.no_grad():
        context = context_of(run.prior, examples)
        held = held_joints(run.prior, examples.known)
        parts = (examples.theta, noisy(examples.theta, generator), context, held)
    return zip(*(part.split(settings.batch) for part in parts), strict=True)


def _groups(prior: ConditionalPosePrior, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters of encoder and head, and of the flow. Matrices decay, vectors do not."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in prior.named_parameters():
        key = (name.startswith("flow."), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": each, "weight_decay": weight_decay if decays else 0.0, "of_flow": of_flow}
        for (of_flow, decays), each in groups.items()
    ]


def schedule(done: float, warmup: float) -> float:
    """Factor of the learning rate: rises linearly, then falls as a cosine."""
    if done < warmup:
        return max(done / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


@torch.no_grad()
def follow(average: nn.Module, prior: nn.Module, decay: float, *, first: bool) -> None:
    """Move the running average, or copy the weights."""
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(prior.parameters())
    if first:
        torch._foreach_copy_(ours, theirs)
    else:
        torch._foreach_lerp_(ours, theirs, 1 - decay)
    for mine, other in zip(average.buffers(), prior.buffers(), strict=True):
        mine.copy_(other)


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def where_of(device: torch.device) -> str:
    """Where a training ran, for its card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return "one thread" if threads == 1 else f"{threads} threads"
