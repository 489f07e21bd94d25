"""The tasks of the contest and their figures."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.priors.data import JOINTS, Kinematics, Poses, jittered
from benchmarks.priors.features import (
    average_pairwise_distance,
    describe,
    frechet_distance,
    nearest_distance,
    precision_and_recall,
)
from benchmarks.priors.methods import Method
from benchmarks.priors.observations import Observation
from flowprior import rotations
from flowprior.skeleton import SMPL_24

__all__ = ["MASKS", "POINTS", "Sizes", "judge", "moved_by", "reference"]

NAMES = SMPL_24.joint_names[: 1 + JOINTS]
ANSWERS = 10
# Noise of the measurements, metres; exact ones are fitted as if they had the first.
EXACT, COARSE, DETECTED = 0.002, 0.02, 0.01
MISSING = 0.3
TURN_DEGREES = 10.0


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for side in ("left", "right") for name in names)


LEG, ARM = ("hip", "knee", "ankle", "foot"), ("collar", "shoulder", "elbow", "wrist")
MASKS: dict[str, tuple[str, ...]] = {
    "left_leg": tuple(f"left_{name}" for name in LEG),
    "legs": _sides(*LEG),
    "arms": _sides(*ARM),
    "trunk": ("spine1", "spine2", "spine3", "neck", "head"),
}
"""Joints whose rotations are hidden, by the name of the task."""

POINTS = ("head", *_sides("wrist", "ankle"))
"""The five points of sparse inverse kinematics."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of poses.

    Attributes:
        poses: Held-out poses of the conditional tasks.
        generated: Generated poses, compared with as many held-out ones.
    """

    poses: int = 200
    generated: int = 2000


def moved_by(hidden: tuple[str, ...]) -> list[int]:
    """The joints (of 22) that hidden rotations move: those below the hidden joints."""
    parent = {child: parent for parent, child in SMPL_24.bones}
    rows = {NAMES.index(name) for name in hidden}
    moved = set()
    for joint in range(1, len(NAMES)):
        above = parent[joint]
        while above > 0 and above not in rows:
            above = parent[above]
        if above in rows:
            moved.add(joint)
    return sorted(moved)


def _known(hidden: tuple[str, ...]) -> Tensor:
    known = torch.ones(JOINTS, dtype=torch.bool)
    known[[NAMES.index(name) - 1 for name in hidden]] = False
    return known


class Stopwatch:
    """CPU seconds of calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, call: Callable[[], Tensor]) -> Tensor:
        """Time a call."""
        start = time.process_time()
        result = call()
        self.seconds = time.process_time() - start
        return result


def judge(
    method: Method, held_out: Poses, training: Poses, sizes: Sizes, seed: int
) -> dict[str, float]:
    """All figures of a method; lengths in millimetres, times in CPU milliseconds per pose.

    Args:
        method: The trained prior.
        held_out: Poses of the subjects that it is judged on.
        training: Poses that it was trained on.
        sizes: Numbers of poses.
        seed: Seed of everything random.

    Returns:
        The figures by name.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    figures = _generation(method, held_out, training, sizes, generator)
    matrix = held_out.evenly(sizes.poses)
    density = method.log_prob(jittered(matrix, generator), generator)
    if density is not None:
        figures["nll"] = -float(density.mean())
    figures |= _completion(method, matrix, generator)
    figures |= _measurements(method, matrix, generator)
    return figures


def reference(held_out: Poses, training: Poses, sizes: Sizes) -> dict[str, float]:
    """Figures of generation for poses of the data itself, as many as are generated.

    "generated" are training poses, so the figures show how far the held-out subjects are from the
    training subjects.
    """
    kinematics = Kinematics()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(training), (sizes.generated,), generator=generator)
    drawn = training.matrix[rows]
    figures = _compare(drawn, held_out, training, sizes, kinematics, generator)
    figures["frechet_train_own"] = figures.pop("frechet_train")
    real = kinematics(held_out.evenly(sizes.generated))[:, 1:]
    figures["apd_held_out_mm"] = float(average_pairwise_distance(real))
    return figures


def _generation(
    method: Method,
    held_out: Poses,
    training: Poses,
    sizes: Sizes,
    generator: torch.Generator,
) -> dict[str, float]:
    watch = Stopwatch()
    drawn = watch(lambda: method.draw(sizes.generated, generator))
    figures = _compare(drawn, held_out, training, sizes, method.kinematics, generator)
    figures["draw_ms"] = 1000 * watch.seconds / len(drawn)
    return figures


def _compare(
    drawn: Tensor,
    held_out: Poses,
    training: Poses,
    sizes: Sizes,
    kinematics: Kinematics,
    generator: torch.Generator,
) -> dict[str, float]:
    rows = torch.randint(len(training), (sizes.generated,), generator=generator)
    found = describe(drawn, kinematics)
    real = describe(held_out.evenly(sizes.generated), kinematics)
    trained_on = describe(training.matrix[rows], kinematics)
    precision, recall = precision_and_recall(found, real)
    precision_train, recall_train = precision_and_recall(found, trained_on)
    return {
        "apd_mm": float(average_pairwise_distance(kinematics(drawn)[:, 1:])),
        "frechet": frechet_distance(found, real),
        "precision": precision,
        "recall": recall,
        "frechet_train": frechet_distance(found, trained_on),
        "precision_train": precision_train,
        "recall_train": recall_train,
        "nearest_mm": nearest_distance(drawn[:500], training.matrix, kinematics),
    }


def _completion(method: Method, matrix: Tensor, generator: torch.Generator) -> dict[str, float]:
    figures: dict[str, float] = {}
    truth = method.kinematics(matrix)
    for name, hidden in MASKS.items():
        known, moved = _known(hidden), moved_by(hidden)
        # The answer must not depend on what is hidden.
        blank = torch.where(known[:, None, None], matrix, torch.eye(3))
        watch = Stopwatch()
        answers = watch(lambda k=known, m=blank: method.complete(m, k, ANSWERS, generator))  # type: ignore[misc]
        joints = method.kinematics(answers)[..., moved, :]
        error = 1000 * (joints - truth[:, None, moved]).norm(dim=-1).mean(dim=-1)
        figures[f"{name}_min_mm"] = float(error.amin(dim=1).mean())
        figures[f"{name}_mean_mm"] = float(error.mean())
        # The data's own spread: the hidden rotations of other poses on the same known ones.
        others = torch.randint(len(matrix), (len(matrix), ANSWERS), generator=generator)
        swapped = torch.where(known[:, None, None], matrix[:, None], matrix[others])
        own = average_pairwise_distance(method.kinematics(swapped)[..., moved, :]).mean()
        figures[f"{name}_spread"] = float(average_pairwise_distance(joints).mean() / own)
        figures[f"{name}_ms"] = 1000 * watch.seconds / len(matrix)
    known = _known(MASKS["left_leg"])
    watch = Stopwatch()
    watch(lambda: method.complete(matrix[:1], known, ANSWERS, generator))
    figures["single_ms"] = 1000 * watch.seconds
    return figures


def _measurements(method: Method, matrix: Tensor, generator: torch.Generator) -> dict[str, float]:
    truth = method.kinematics(matrix)
    count = len(matrix)
    everything = torch.ones_like(truth)
    five = torch.zeros_like(truth)
    five[:, [NAMES.index(name) for name in POINTS]] = 1
    flat = everything.clone()
    flat[..., 2] = 0  # seen from the front, the depth is unknown
    some = (torch.rand(truth.shape[:2], generator=generator) >= MISSING).float()
    some = some[..., None].expand(truth.shape).contiguous()
    noise = torch.randn(truth.shape, generator=generator)
    turn = torch.randn((count, JOINTS, 3), generator=generator)
    sigma = torch.deg2rad(torch.tensor(TURN_DEGREES)).item()
    turned = matrix @ rotations.rotvec_to_matrix(sigma * turn)
    tasks = {
        "ik_all": Observation(truth, everything, EXACT),
        "ik_five": Observation(truth, five, EXACT),
        "ik_noisy": Observation(truth + COARSE * noise, everything, COARSE),
        "ik_2d": Observation(truth, flat, EXACT),
        "missing": Observation(truth + DETECTED * noise, some, DETECTED),
        "denoised": Observation(
            rotations=turned, known=torch.ones(count, JOINTS), rotation_sigma=sigma
        ),
    }
    figures: dict[str, float] = {}
    for name, observation in tasks.items():
        watch = Stopwatch()
        found = watch(lambda task=observation: method.infer(task, generator))  # type: ignore[misc]
        away = 1000 * (method.kinematics(found) - truth)[:, 1:].norm(dim=-1)
        figures[f"{name}_mm"] = float(away.mean())
        figures[f"{name}_ms"] = 1000 * watch.seconds / count
        if name == "ik_five":
            figures["ik_five_points_mm"] = float(away[five[:, 1:, 0] > 0].mean())
        if name == "missing":
            figures["missing_unseen_mm"] = float(away[some[:, 1:, 0] == 0].mean())
    away = 1000 * (method.kinematics(turned) - truth)[:, 1:].norm(dim=-1)
    figures["noisy_rotations_mm"] = float(away.mean())
    return figures
