"""Conformal factors of the shipped priors, from people they were not trained on."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.data.mocap import SPLITS, read_split_poses
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.prior import JointFactors, JointScores
from tools.priors.drawing import Kind, draw
from tools.priors.training import context_of

__all__ = [
    "PER_PERSON",
    "People",
    "cross_fitted_scores",
    "fit_joint_factors",
    "read_people",
    "scores_of",
    "without",
]

PER_PERSON = 400
"""Most poses of a person; more frames of the same recordings say little more."""

People = dict[str, Tensor]
"""Poses (N, 24, 3) of each person, rotation vectors with y up, by name."""


def read_people(path: Path | str, split: str, per_person: int = PER_PERSON) -> People:
    """Poses of the people of one part of a file, spread evenly over their recordings.

    Args:
        path: A file for :func:`examples.data.mocap.read_split_poses`, with poses.
        split: ``"train"``, ``"val"`` or ``"test"``.
        per_person: Most poses of each.

    Raises:
        ValueError: If the file has no SMPL poses.
    """
    poses, _ = read_split_poses(path)
    if poses.rotvecs is None:
        raise ValueError(f"{path}: expected SMPL's rotations, got joints only")
    found: People = {}
    for number in np.unique(poses.subject[poses.split == SPLITS.index(split)]):
        rows = np.flatnonzero(poses.subject == number)
        chosen = np.linspace(0, len(rows) - 1, min(per_person, len(rows))).round().astype(int)
        found[poses.subject_names[number]] = torch.from_numpy(poses.rotvecs[rows[chosen]])
    return found


def without(path: Path | None, names: Sequence[str]) -> Tensor:
    """Training poses (N, 24, 3) of all people but some.

    Raises:
        ValueError: If there is no file, or somebody in it has another name.
    """
    if path is None:
        raise ValueError("--without takes recorded people: --data FILE")
    people = read_people(path, "train", per_person=sys.maxsize)
    if unknown := set(names) - set(people):
        raise ValueError(f"no training subject is called {', '.join(sorted(unknown))}")
    return torch.cat([poses for name, poses in people.items() if name not in names])


def scores_of(
    kind: Kind,
    prior: ConditionalPosePrior,
    people: People,
    body: BodyModel,
    seed: int = 5,
    num_samples: int = 200,
) -> JointScores:
    """Scores with the evidence of training.

    The true joints are those of people of random shape, the answer is posed with the average shape:
    the factors cover that the shape is unknown.

    Args:
        kind: The prior.
        prior: Its weights.
        people: Poses of people whom it has not seen.
        body: The body.
        seed: Of shapes, cameras, evidence and samples.
        num_samples: Number of samples per pose.
    """
    generator = torch.Generator().manual_seed(seed)
    rotvecs = torch.cat(list(people.values()))
    names = [name for name, each in people.items() for _ in range(len(each))]
    rows = torch.arange(len(rotvecs))
    examples = draw(kind, rotvecs, rows, body, generator, augmented=False)
    return prior.joint_scores(
        examples.theta,
        context_of(prior, examples),
        groups=names,
        body=body,
        known=examples.known if kind == "body-pose" else None,
        joints=examples.joints,
        num_samples=num_samples,
        generator=generator,
    )


def cross_fitted_scores(
    kind: Kind, folders: Sequence[Path], data: Path | str, body: BodyModel
) -> JointScores | None:
    """Scores of training subjects, each by a prior that was trained without them.

    Args:
        kind: The prior.
        folders: Priors of ``python -m tools.priors --without``.
        data: The file of the people.
        body: The body.

    Returns:
        The scores; None without folders.

    Raises:
        ValueError: If a prior was trained on everybody.
    """
    people = read_people(data, "train")
    scores: JointScores | None = None
    for folder in folders:
        prior = ConditionalPosePrior.from_pretrained(folder)
        names = [name for name in prior.provenance.get("without", "").split(", ") if name]
        if not names:
            raise ValueError(f"{folder}: this prior was trained on everybody, not --without some")
        found = scores_of(kind, prior, {name: people[name] for name in names}, body)
        scores = found if scores is None else scores + found
    return scores


def fit_joint_factors(
    kind: Kind,
    prior: ConditionalPosePrior,
    people: People,
    body: BodyModel,
    others: JointScores | None = None,
) -> JointFactors:
    """Fit the factors of a prior, in place, and return them.

    Args:
        kind: The prior.
        prior: Its weights.
        people: People that it has not seen.
        body: The body.
        others: Scores of further people.
    """
    scores = scores_of(kind, prior, people, body)
    prior.joint_factors = JointFactors.fit(scores if others is None else scores + others)
    return prior.joint_factors
