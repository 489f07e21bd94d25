"""Training of a posterior on cached features: around the regressor's answer, or with its own."""

import copy
import math
import sys
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from examples.data.augment import turn_segments
from examples.heads.features import Features
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.prior.heads import context_with_answer
from flowprior.prior.spaces import RotationSpace
from flowprior.skeleton import SMPL_24

__all__ = ["ANSWERS", "Parts", "Settings", "new_head", "resting_joints", "split", "train"]

ANSWERS = ("regressor", "own")
PARTS = ("train", "val", "test")
SHARES = (0.7, 0.15)
AT_REST = 1e-3  # radians


@dataclass(frozen=True)
class Settings:
    """Settings of one training.

    Attributes:
        answer: ``"regressor"``: the density lies around the regressor's answer, which stays the
            mode; ``"own"``: a head answers from the features, and its answer is the mode.
        steps: Number of steps.
        batch_size: People per step.
        rate: Largest learning rate.
        weight_decay: AdamW's.
        encoder_features: Width of the encoder of the context.
        hidden_features: Width of the flow's couplings.
        num_steps: Number of steps of the flow.
        turns: Size of the random turns of the truth's segments, in multiples of
            `examples.data.augment.SEGMENT_TURNS`; capture skeletons of new people differ so.
        patience: Steps between measurements on the validation people.
        seed: Seed of weights and batches.
    """

    answer: str = "regressor"
    steps: int = 1000
    batch_size: int = 256
    rate: float = 2e-3
    weight_decay: float = 0.1
    encoder_features: int = 128
    hidden_features: int = 64
    num_steps: int = 4
    turns: float = 1.0
    patience: int = 100
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Parts:
    """People for training, for the choice of settings and calibration, and for reporting.

    Attributes:
        train: Trained on.
        val: Held out: early stopping and calibration.
        test: Held out: reported.
        by: How they were split, for display.
    """

    train: Features
    val: Features
    test: Features
    by: str


def split(features: Features, seed: int = 0) -> Parts:
    """Split features into three parts without common people, if people are known.

    Data sets named train, val and test are the parts. Otherwise whole subjects are drawn, and
    without subjects single rows, which can show the same person in two parts.

    Raises:
        ValueError: A part would be empty.
    """
    features = features.take(features.annotated)
    if set(PARTS) <= set(features.about.datasets):
        code = torch.tensor([features.about.datasets.index(name) for name in PARTS])
        masks = [features.dataset == number for number in code]
        by = "data set"
    else:
        rng = np.random.default_rng(seed)
        known = features.subject.unique()
        by_subject = bool((features.subject >= 0).all()) and len(known) >= len(PARTS)
        units = known if by_subject else torch.arange(len(features))
        order = units[torch.from_numpy(rng.permutation(len(units)))]
        ends = [max(1, round(len(order) * share)) for share in SHARES]
        ends[0] = min(ends[0], len(order) - 2)
        groups = order.tensor_split([ends[0], ends[0] + ends[1]])
        key = features.subject if by_subject else torch.arange(len(features))
        masks = [torch.isin(key, group) for group in groups]
        by = "subject" if by_subject else "row: parts may share people"
    parts = [features.take(mask) for mask in masks]
    for name, part in zip(PARTS, parts, strict=True):
        if not len(part):
            raise ValueError(f"the features have no annotated person for {name}")
    return Parts(parts[0], parts[1], parts[2], by)


def resting_joints(features: Features) -> tuple[int, ...]:
    """Joints that the ground truth never rotates, such as the hands of most motion capture."""
    if features.space != "so3":
        return ()
    eye = torch.eye(3, dtype=features.truth.dtype)
    angle = rotations.geodesic_distance(features.truth, eye).amax(dim=0)
    return tuple((angle < AT_REST).nonzero()[:, 0].tolist())


def new_head(features: Features, settings: Settings) -> ConditionalPosePrior:
    """An untrained prior over the poses of some features, given `context_of` them."""
    torch.manual_seed(settings.seed)
    width = context_with_answer(features.features[:1], features.answer[:1]).shape[-1]
    return ConditionalPosePrior(
        width,
        joints=features.answer.shape[1],
        space=features.space,
        encoder_features=settings.encoder_features,
        # Features are in arbitrary units; the encoder's first layer takes on their scale.
        encoder_skip=False,
        head_features=settings.encoder_features if settings.answer == "own" else 0,
        hidden_features=settings.hidden_features,
        num_steps=settings.num_steps,
        rest_joints=resting_joints(features),
    )


def train(
    parts: Parts,
    settings: Settings,
    body: BodyModel | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> tuple[ConditionalPosePrior, list[dict[str, float]]]:
    """Train a prior, and keep the weights that are best on the validation people.

    Args:
        parts: The people.
        settings: The settings.
        body: The body whose joints the loss of an own answer measures.
        device: Device of the training.
        progress: Whether to show a progress bar; on a terminal if None.

    Returns:
        The prior, in evaluation mode, which takes contexts of `context_with_answer`, and the NLL of
        the validation people over the steps.

    Raises:
        ValueError: ``settings.answer`` is unknown.
    """
    if settings.answer not in ANSWERS:
        raise ValueError(f"answer must be one of {ANSWERS}, got {settings.answer!r}")
    prior = new_head(parts.train, settings).to(device)
    body = (BodyModel() if body is None else body).to(device)
    columns, held = _tensors(parts.train, device), _tensors(parts.val, device)
    mean, std = columns.context.mean(dim=0), columns.context.std(dim=0)
    std = torch.where(std > 1e-6, std, 1.0)
    columns, held = columns.scaled(mean, std), held.scaled(mean, std)
    optimizer = torch.optim.AdamW(
        prior.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate_share(step, settings.steps)
    )
    generator = torch.Generator().manual_seed(settings.seed)
    turned = torch.Generator(device).manual_seed(settings.seed)
    best, kept, history = math.inf, copy.deepcopy(prior.state_dict()), []
    count = len(parts.train)
    steps = tqdm(range(1, settings.steps + 1), ncols=88, disable=_is_quiet(progress))
    for step in steps:
        rows = torch.randint(count, (min(settings.batch_size, count),), generator=generator)
        people = columns.take(rows.to(device))
        if settings.turns > 0 and _is_smpl(prior):
            people = replace(people, truth=turn_segments(people.truth, settings.turns, turned))
        loss = _loss(prior.train(), people, settings.answer, body)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 50.0)
        optimizer.step()
        schedule.step()
        if step % settings.patience == 0 or step == settings.steps:
            with torch.no_grad():
                value = float(_loss(prior.eval(), held, settings.answer, body))
            history.append({"step": step, "validation_loss": value})
            steps.set_postfix(validation=f"{value:.1f}")
            if value < best:
                best, kept = value, copy.deepcopy(prior.state_dict())
    prior.load_state_dict(kept)
    _take_scale(prior, mean, std)
    return prior.eval(), history


@dataclass(frozen=True, eq=False)
class _Tensors:
    """Contexts (N, C), centres and true poses of people, on one device."""

    context: Tensor
    centre: Tensor
    truth: Tensor

    def take(self, rows: Tensor) -> "_Tensors":
        return _Tensors(self.context[rows], self.centre[rows], self.truth[rows])

    def scaled(self, mean: Tensor, std: Tensor) -> "_Tensors":
        return _Tensors((self.context - mean) / std, self.centre, self.truth)


def _tensors(features: Features, device: torch.device | str) -> _Tensors:
    context = context_with_answer(features.features, features.answer)
    return _Tensors(context.to(device), features.answer.to(device), features.truth.to(device))


def _loss(prior: ConditionalPosePrior, people: _Tensors, answer: str, body: BodyModel) -> Tensor:
    """The NLL in nats around the regressor's answer, or with the error of an own answer."""
    if answer == "regressor":
        return prior.nll(people.truth, people.context, centre=people.centre)
    error = 100 * prior.mode_loss(people.truth, people.context)
    if _is_smpl(prior):
        space = cast(RotationSpace, prior.space)
        mode = body.keypoints(space.to_matrix(prior.mode(people.context)), SMPL_24)
        distance = (mode - body.keypoints(people.truth, SMPL_24)).norm(dim=-1)
        error = error + 30 * distance.sum(dim=-1).mean()
    return error + prior.nll(people.truth, people.context)


@torch.no_grad()
def _take_scale(prior: ConditionalPosePrior, mean: Tensor, std: Tensor) -> None:
    """Let the encoder read contexts as they are, rather than standardised ones."""
    assert prior.encoder is not None
    layer = prior.encoder.input
    layer.weight.div_(std)
    layer.bias.sub_(layer.weight @ mean)


def _rate_share(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up over 5 % of the steps, then a half cosine."""
    warm_up = max(1, steps // 20)
    rest = max(0, step - warm_up) / max(1, steps - warm_up)
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * rest))


def _is_smpl(prior: ConditionalPosePrior) -> bool:
    return isinstance(prior.space, RotationSpace) and prior.space.joints == SMPL_24.num_joints


def _is_quiet(progress: bool | None) -> bool:
    return not (sys.stderr.isatty() if progress is None else progress)
