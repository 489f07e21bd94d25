"""The conditional prior of this library, trained with random parts of the evidence missing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.priors.data import JOINTS, Stream
from benchmarks.priors.methods.base import Method, Search, descend, filled_in
from benchmarks.priors.observations import Observation
from benchmarks.priors.training import Clock, Recipe, optimise
from flowprior import ConditionalPosePrior, rotations
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.skeleton import SMPL_24

__all__ = ["PARTS", "Ours", "Shipped", "random_joints", "random_known"]

HANDS = (21, 22)
BODY = len(SMPL_24.joint_names) - 1


def _rows(*names: str) -> list[int]:
    """Rows of rotations, which start after the root."""
    return [SMPL_24.joint_names.index(name) - 1 for name in names]


def _limb(side: str, *names: str) -> list[int]:
    return _rows(*(f"{side}_{name}" for name in names))


PARTS = (
    _limb("left", "hip", "knee", "ankle", "foot"),
    _limb("right", "hip", "knee", "ankle", "foot"),
    _rows("spine1", "spine2", "spine3"),
    _rows("neck", "head"),
    _limb("left", "collar", "shoulder", "elbow", "wrist"),
    _limb("right", "collar", "shoulder", "elbow", "wrist"),
)
"""Rotations that are missing together in training."""


@dataclass(frozen=True)
class OursSettings(Search):
    """Settings; change them on validation subjects only.

    Attributes:
        encoder: Width of the encoder.
        head: Width of the head.
        hidden: Width of the conditioners.
        steps: Number of steps.
        coupling: Kind of the couplings.
        rate: Highest learning rate.
        decay: Weight decay.
        nothing: Share of training poses of which nothing is known.
        rotations: Share of which some rotations are known.
        both: Share of which rotations and joints are known; the others have joints alone.
    """

    encoder: int = 256
    head: int = 256
    hidden: int = 128
    steps: int = 4
    coupling: str = "contracting"
    rate: float = 3e-3
    decay: float = 0.05
    nothing: float = 0.2
    rotations: float = 0.4
    both: float = 0.05


def random_known(count: int, generator: torch.Generator) -> Tensor:
    """Which rotations are known: body parts are missing together, or single joints.

    Returns:
        (count, 21) bool.
    """
    parts = torch.ones(count, JOINTS, dtype=torch.bool)
    share = torch.rand(count, 1, generator=generator)
    kept = torch.rand(count, len(PARTS), generator=generator) < share
    for number, rows in enumerate(PARTS):
        parts[:, rows] = kept[:, number, None]
    single = torch.rand(count, JOINTS, generator=generator) < share
    return torch.where(torch.rand(count, 1, generator=generator) < 0.6, parts, single)


def random_joints(joints: Tensor, generator: torch.Generator) -> Tensor:
    """Joints (count, 22, 3) with noise of up to 3 cm, and NaN for some: none, several, or most."""
    count = len(joints)
    share = 1 - torch.rand(count, 1, generator=generator).clamp(max=0.9)
    share = torch.where(torch.rand(count, 1, generator=generator) < 0.3, 1.0, share)
    seen = torch.rand(count, 1 + JOINTS, generator=generator) < share
    noise = 0.03 * torch.rand(count, 1, 1, generator=generator).square()
    joints = joints + noise * torch.randn(joints.shape, generator=generator)
    return torch.where(seen[..., None], joints, torch.nan)


def _with_hands(matrix: Tensor) -> Tensor:
    hands = torch.eye(3).expand(*matrix.shape[:-3], len(HANDS), 3, 3)
    return torch.cat((matrix, hands.to(matrix)), dim=-3)


def _all_joints(joints: Tensor) -> Tensor:
    """SMPL's 24 joints, of which the hands are unknown."""
    hands = joints.new_full((*joints.shape[:-2], len(HANDS), 3), torch.nan)
    return torch.cat((joints, hands), dim=-2)


class Ours(Method):
    """Completion by samples given the known rotations; measurements by samples given the joints.

    The samples that explain the joints best are refined by optimising their latents.

    Args:
        settings: Settings.
    """

    name = "ours"

    def __init__(self, settings: OursSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or OursSettings()
        self.prior = ConditionalPosePrior(
            evidence=("rotations", "joints_3d"),
            joints=BODY,
            rest_joints=HANDS,
            encoder_features=self.settings.encoder,
            head_features=self.settings.head,
            hidden_features=self.settings.hidden,
            num_steps=self.settings.steps,
            coupling=self.settings.coupling,
            target_noise=0.0,  # the stream has its own
        )
        self._frozen: list[PosePrior] = []  # in a list, it is no part of this module

    def fit(self, stream: Stream, clock: Clock) -> int:
        """As :meth:`Method.fit`."""
        recipe = Recipe(rate=self.settings.rate, decay=self.settings.decay, clip=50.0)
        self.train()

        def loss() -> Tensor:
            return self._loss(stream.batch(recipe.batch), stream.generator)

        with torch.no_grad():
            self._loss(stream.batch(2000), stream.generator)
        steps = optimise(loss, self.prior.parameters(), clock, recipe)
        self.eval()
        return steps

    def _loss(self, matrix: Tensor, generator: torch.Generator) -> Tensor:
        settings, count = self.settings, len(matrix)
        where = self.kinematics(matrix)
        kind = torch.rand(count, generator=generator)
        turned = kind >= settings.nothing
        alone = turned & (kind < settings.nothing + settings.rotations)
        both = turned & (kind >= 1 - settings.both)
        known = random_known(count, generator) & (alone | both)[:, None]
        known = torch.cat((known, torch.zeros(count, len(HANDS), dtype=torch.bool)), dim=1)
        joints = random_joints(where, generator)
        joints = torch.where((turned & ~alone)[:, None, None], joints, torch.nan)
        theta = _with_hands(matrix)
        assert self.prior.evidence is not None
        context = self.prior.evidence.context(
            joints_3d=_all_joints(joints), rotations=theta, known=known
        )
        nll = self.prior.nll(theta, context, known=known)
        # Of the posterior, the head's answer alone is needed here.
        mode = torch.where(
            known[..., None, None], theta, rotations.rot6d_to_matrix(self.prior.mode(context))
        )
        mode = mode[:, :JOINTS]
        away = (self.kinematics(mode) - where).norm(dim=-1).sum(dim=-1).mean()
        turn = (mode - matrix)[..., :2].abs().mean()
        return 30 * away + 100 * turn + nll

    @property
    def _ready(self) -> PosePrior:
        if not self._frozen:
            self._frozen.append(self.prior.freeze())
        return self._frozen[0]

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.draw`."""
        return _matrix(self._ready.given().sample(count, generator=generator))

    @torch.no_grad()
    def complete(
        self, matrix: Tensor, known: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """As :meth:`Method.complete`."""
        mask = torch.cat((known, torch.zeros(len(HANDS), dtype=torch.bool)))
        given = self._ready.given(
            rotations=_with_hands(matrix), known=mask.expand(len(matrix), BODY)
        )
        return filled_in(_matrix(given.sample(count, generator=generator)), matrix, known)

    def infer(self, observation: Observation, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.infer`."""
        count, joints = len(observation), observation.whole_joints()
        if joints is None:
            posterior = self._ready.given(joints_3d=torch.full((count, 24, 3), torch.nan))
        else:
            posterior = self._ready.given(joints_3d=_all_joints(joints))
        with torch.no_grad():
            theta = posterior.sample(self.settings.candidates - 1, generator=generator)
            theta = torch.cat((theta, posterior.mode()[:, None]), dim=1)
            if observation.rotations is not None:
                measured = rotations.matrix_to_rot6d(_with_hands(observation.rotations))
                theta = torch.cat((theta, measured[:, None]), dim=1)
            candidates = posterior.encode(theta)
        cached: dict[int, tuple[Tensor, PosePosterior]] = {}

        def given(problem: Tensor) -> PosePosterior:
            # Contexts are selected anew only when other problems are evaluated.
            if not cached or not torch.equal(cached[0][0], problem):
                cached[0] = problem, posterior[problem]
            return cached[0][1]

        def objective(z: Tensor, problem: Tensor) -> Tensor:
            matrix = _matrix(given(problem).decode(z, check=False))
            misfit = observation.misfit(matrix, problem, self.kinematics)
            return misfit + self._ready.flow.base.energy(z) / 2

        settings = self.settings
        best = descend(objective, candidates, settings.starts, settings.iterations)
        with torch.no_grad():
            return _matrix(posterior.decode(best))

    @torch.no_grad()
    def log_prob(self, matrix: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Method.log_prob`."""
        return self._ready.given().log_prob(_with_hands(matrix))


class Shipped(Ours):
    """``flowprior/body-pose`` as it is shipped: the same kind of prior, trained longer.

    Args:
        settings: Effort of the optimisation; the other settings are the shipped model's.
        source: Name or folder of the model.
    """

    name = "shipped"

    def __init__(
        self, settings: OursSettings | None = None, source: str = "flowprior/body-pose"
    ) -> None:
        super().__init__(settings)
        self.prior = ConditionalPosePrior.from_pretrained(source)

    def fit(self, stream: Stream, clock: Clock) -> int:
        """It is trained already."""
        return 0


def _matrix(theta: Tensor) -> Tensor:
    """6D vectors (..., 23, 6) -> the contest's poses (..., 21, 3, 3)."""
    return rotations.rot6d_to_matrix(theta)[..., :JOINTS, :, :]
