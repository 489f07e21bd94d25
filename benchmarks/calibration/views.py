"""Views of people whose poses are known, and what the prior says of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.prior import JointUncertainty, PosePosterior, PosePrior
from flowprior.skeleton import COCO_17, SMPL_24
from tools.priors.chain import SCORED
from tools.priors.drawing import Examples, Poses, mixed_views, photographed, pose
from tools.priors.factors import People

__all__ = [
    "CLEAR",
    "HIDDEN",
    "MIXED",
    "SETTINGS",
    "Judged",
    "Views",
    "given",
    "judge",
    "make_views",
]

CLEAR, MIXED = "all keypoints", "hidden limbs and crops"
SETTINGS = (CLEAR, MIXED)


def _coco(*ends: str, sides: tuple[str, ...] = ("left", "right")) -> tuple[str, ...]:
    return tuple(
        name
        for name in COCO_17.joint_names
        if name.endswith(ends) and name.startswith(tuple(f"{side}_" for side in sides))
    )


HIDDEN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "right forearm": (_coco("elbow", "wrist", sides=("right",)), ("right_elbow", "right_wrist")),
    "left lower leg": (
        _coco("knee", "ankle", sides=("left",)),
        ("left_knee", "left_ankle", "left_foot"),
    ),
    "crop below the hips": (
        _coco("knee", "ankle"),
        tuple(f"{side}_{part}" for side in ("left", "right") for part in ("knee", "ankle", "foot")),
    ),
}
"""Keypoints that are hidden together, and SMPL's joints without evidence then."""


@dataclass(frozen=True)
class Views:
    """N views of people.

    Args:
        examples: What is known of them, and the truth.
        posed: Their bodies.
        people: Whose each view is.
    """

    examples: Examples
    posed: Poses
    people: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """Errors and uncertainties of SMPL's first 22 joints, hands excepted.

    Args:
        errors_mm: (N, 22), of the person's own joints from the answer on the average body.
        errors_degrees: (N, 22).
        found: The uncertainty of all joints.
        people: Whose each row is.
    """

    errors_mm: Tensor
    errors_degrees: Tensor
    found: JointUncertainty
    people: tuple[str, ...]


def make_views(
    people: People, setting: str, body: BodyModel, seed: int, hidden: tuple[str, ...] = ()
) -> Views:
    """One view of each pose, the same cameras and shapes for every setting.

    Args:
        people: Poses by person.
        setting: One of `SETTINGS`.
        body: The body.
        seed: Of shapes, cameras, noise.
        hidden: Keypoints without a detection, in the clear setting.
    """
    generator = torch.Generator().manual_seed(seed)
    posed = pose(torch.cat(list(people.values())), body, generator)
    if setting == MIXED:
        examples = mixed_views(posed, generator)
    else:
        examples = photographed(posed, generator, hidden)
    return Views(examples, posed, tuple(n for n, each in people.items() for _ in each))


def given(prior: PosePrior, views: Views) -> PosePosterior:
    """The posterior given the keypoints of views."""
    return prior.given(keypoints_2d=views.examples.keypoints_2d)


@torch.no_grad()
def judge(
    prior: PosePrior,
    views: Views,
    body: BodyModel,
    *,
    calibrated: bool = True,
    method: str = "samples",
    num_samples: int = 200,
) -> Judged:
    """Errors and uncertainties of a prior on views."""
    posterior = given(prior, views)
    mode = rotations.rot6d_to_matrix(posterior.mode())
    answer = body.keypoints(mode, SMPL_24)
    off = views.examples.joints - (answer - answer[:, :1])
    turned = rotations.geodesic_distance(views.examples.theta, mode)
    found = posterior.joint_uncertainty(
        body,
        num_samples=num_samples,
        calibrated=calibrated,
        method=method,
        generator=torch.Generator().manual_seed(1),
    )
    return Judged(
        1000 * off.norm(dim=-1)[:, :SCORED],
        torch.rad2deg(turned)[:, :SCORED],
        found,
        views.people,
    )
