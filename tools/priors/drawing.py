"""Training examples: posed bodies, and what is known of each.

People of random shape are posed with real poses, half of them mirrored, with the segment turns of
other capture skeletons. Parts of what is known are withheld, from nothing to everything, and the
rest has a detector's or a tracker's errors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from examples.data.augment import mirror_rotvecs, turn_segments
from examples.fitting.synthetic import (
    FOCAL_PX,
    IMAGE_PX,
    detect,
    hide,
    sample_places,
    sample_turns,
)
from examples.pinhole import project
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton import BODY_25, COCO_17, SMPL_24, mapping

__all__ = [
    "COCO",
    "FIVE_POINTS",
    "HANDS",
    "KEYPOINT_NOISE",
    "LIMBS",
    "ROTATION_NOISE",
    "Examples",
    "Kind",
    "Poses",
    "choose",
    "draw",
    "mixed_views",
    "noisy",
    "photographed",
    "pose",
]

Kind: TypeAlias = Literal["people", "body-pose", "hands"]

COCO = list(mapping(BODY_25, COCO_17))
KEYPOINT_NOISE = 0.008  # of a keypoint, in sides of the person's box
# Exact hinges have no finite density.
ROTATION_NOISE = math.radians(1.0)
TURNS = 1.0  # size of the segment turns in training

# Shares of what is known of a person.
PEOPLE_SHARES = {"keypoints_2d": 0.60, "joints_3d": 0.20, "both": 0.14, "nothing": 0.06}
BODY_SHARES = {"rotations": 0.40, "joints_3d": 0.35, "both": 0.10, "nothing": 0.15}
# Share of the people in pictures who have a part of the body from another pose: thirteen subjects
# do few things, and evidence on a part says more about it than the rest of the body does.
CROSSED = 0.4
COMPLETE = 0.35  # of the views have all keypoints
OUTLIERS = 0.1  # of the views have keypoints far off
SWAPS = 0.03  # of the views have left and right mixed up in the arms or the legs
EXACT = 0.3  # of the 3D joints have no noise
FARTHEST_NOISE_M = 0.02


def _joints(*names: str) -> tuple[int, ...]:
    return tuple(SMPL_24.joint_names.index(name) for name in names)


def _sides(*names: str) -> tuple[int, ...]:
    return _joints(*(f"{side}_{name}" for side in ("left", "right") for name in names))


HANDS = _sides("hand")
"""SMPL's hands, which the data does not have."""

FIVE_POINTS = _joints("left_wrist", "right_wrist", "left_ankle", "right_ankle", "head")

LEG = ("hip", "knee", "ankle", "foot")
ARM = ("collar", "shoulder", "elbow", "wrist")
LIMBS: dict[str, tuple[int, ...]] = {
    "left leg": _joints(*(f"left_{name}" for name in LEG)),
    "right leg": _joints(*(f"right_{name}" for name in LEG)),
    "both legs": _sides(*LEG),
    "left arm": _joints(*(f"left_{name}" for name in ARM)),
    "right arm": _joints(*(f"right_{name}" for name in ARM)),
    "both arms": _sides(*ARM),
    "trunk": _joints("spine1", "spine2", "spine3", "neck", "head"),
    "left side": _joints(*(f"left_{name}" for name in LEG + ARM)),
    "right side": _joints(*(f"right_{name}" for name in LEG + ARM)),
    "all but the legs": (*_sides(*ARM), *_joints("spine1", "spine2", "spine3", "neck", "head")),
    "all but the right arm": tuple(
        joint for joint in range(1, 22) if joint not in _joints(*(f"right_{name}" for name in ARM))
    ),
}
"""Joints of SMPL whose rotations are unknown together."""

UPPER = _joints(
    *("spine1", "spine2", "spine3", "neck", "head"),
    *(f"{side}_{name}" for side in ("left", "right") for name in ("collar", *ARM[1:], "hand")),
)


CROSSED_PARTS = (
    UPPER,
    *(LIMBS[name] for name in ("both arms", "left arm", "right arm", "left leg", "right leg")),
)


@dataclass(frozen=True)
class Poses:
    """N posed bodies of random shape, in a world with y up.

    Args:
        rotations: (N, 24, 3, 3).
        joints: (N, 24, 3) metres from the pelvis.
        keypoints: (N, 25, 3) BODY-25, metres from the pelvis.
        betas: (N, B) shape coefficients.
    """

    rotations: Tensor
    joints: Tensor
    keypoints: Tensor
    betas: Tensor


@dataclass(frozen=True)
class Examples:
    """N people and what is known of them.

    Args:
        theta: (N, J, 3, 3) rotations of the prior's joints; a root is in the camera frame.
        known: (N, J) bool, rotations that are known.
        joints: (N, 24, 3) metres from the pelvis, of the person's own shape, in the camera's axes
            or the root's.
        keypoints_2d: (N, 17, 3) pixels and confidence, 0 if unknown.
        joints_3d: (N, 24, 3) metres, NaN if unknown.
        rotations: (N, J, 3, 3), meaningful where known.
    """

    theta: Tensor
    known: Tensor
    joints: Tensor
    keypoints_2d: Tensor
    joints_3d: Tensor
    rotations: Tensor

    def __len__(self) -> int:
        return len(self.theta)

    def to(self, device: torch.device) -> "Examples":
        """The same on another device."""
        return Examples(*(getattr(self, each.name).to(device) for each in fields(self)))


@torch.no_grad()
def pose(
    rotvecs: Tensor,
    body: BodyModel,
    generator: torch.Generator,
    *,
    turns: float = 0.0,
    average: float = 0.0,
    root: bool = True,
) -> Poses:
    """Pose bodies of random shape.

    Args:
        rotvecs: (N, 24, 3), radians.
        body: The body.
        generator: Source of shapes and turns.
        turns: Size of the segment turns.
        average: Share of the bodies that have average shape.
        root: Whether the root turns; otherwise the axes are the root's.
    """
    matrix = rotations.rotvec_to_matrix(rotvecs)
    if turns:
        matrix = turn_segments(matrix, turns, generator)
    if not root:
        matrix[:, 0] = torch.eye(3)
    betas = torch.randn(len(matrix), body.num_betas, generator=generator)
    betas = betas * (torch.rand(len(matrix), 1, generator=generator) >= average)
    joints = body.keypoints(matrix, SMPL_24, betas)
    points = body.keypoints(matrix, BODY_25, betas)
    return Poses(matrix, joints - joints[:, :1], points - joints[:, :1], betas)


def noisy(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """Add rotation noise to matrices (..., 3, 3)."""
    vector = torch.randn(matrix.shape[:-1], generator=generator)
    return matrix @ rotations.rotvec_to_matrix(ROTATION_NOISE * vector)


@torch.no_grad()
def draw(
    kind: Kind,
    rotvecs: Tensor,
    rows: Tensor,
    body: BodyModel,
    generator: torch.Generator,
    *,
    augmented: bool = True,
    crossed: float = CROSSED,
) -> Examples:
    """Draw people and what is known of them.

    Args:
        kind: The prior.
        rotvecs: (P, 24, 3) poses of some subjects, y up.
        rows: (N,) which of them.
        body: The body.
        generator: Source of everything random.
        augmented: Whether poses are mirrored and segments turned.
        crossed: Share of the augmented people in pictures who have a part of another pose.
    """
    chosen = rotvecs[rows]
    if augmented:
        flip = torch.rand(len(rows), 1, 1, generator=generator) < 0.5
        chosen = torch.where(flip, mirror_rotvecs(chosen), chosen)
    people = kind == "people"
    if augmented and people:
        chosen = _crossed(chosen, crossed, generator)
    posed = pose(
        chosen,
        body,
        generator,
        turns=TURNS if augmented else 0.0,
        average=0.0 if people else 0.5,
        root=people,
    )
    shares = PEOPLE_SHARES if people else BODY_SHARES
    which = choose(tuple(shares.values()), len(rows), generator)
    kinds = dict(zip(shares, which.unbind(dim=1), strict=True))
    places = kinds["joints_3d"] | kinds["both"]
    if people:
        return _seen(posed, kinds["keypoints_2d"] | kinds["both"], places, generator)
    return _completed(posed, kinds["rotations"] | kinds["both"], places, generator)


def _seen(posed: Poses, seen: Tensor, placed: Tensor, generator: torch.Generator) -> Examples:
    """People in front of cameras, with keypoints where ``seen`` and joints where ``placed``."""
    theta, joints, keypoints = _photograph(posed, generator)
    complete = torch.rand(len(theta), 1, generator=generator) < COMPLETE
    lost = hide(keypoints, generator) & ~complete
    found = detect(keypoints, lost, generator, noise=KEYPOINT_NOISE)[:, COCO]
    found = _mistaken(found, generator)
    return Examples(
        theta,
        torch.zeros(theta.shape[:2], dtype=torch.bool),
        joints,
        torch.where(seen[:, None, None], found, 0.0),
        _tracked(joints, placed, generator),
        theta,
    )


def _photograph(posed: Poses, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Place a random camera in front of each body.

    Returns:
        Theta (N, 24, 3, 3) and joints (N, 24, 3) in metres from the pelvis, both in the camera
        frame, and keypoints (N, 25, 3): pixels and confidence 1.
    """
    turn = sample_turns(posed.joints, generator)
    root = turn @ posed.rotations[:, 0]
    theta = torch.cat([root[:, None], posed.rotations[:, 1:]], dim=1)
    points = posed.keypoints @ turn.mT + sample_places(turn, generator)[:, None]
    pixels = project(points, FOCAL_PX, IMAGE_PX / 2)
    keypoints = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    return theta, posed.joints @ turn.mT, keypoints


@torch.no_grad()
def photographed(posed: Poses, generator: torch.Generator, hidden: Sequence[str] = ()) -> Examples:
    """People in front of cameras, with all of COCO's keypoints except the hidden ones."""
    theta, joints, keypoints = _photograph(posed, generator)
    lost = torch.zeros(keypoints.shape[:2], dtype=torch.bool)
    lost[:, [COCO[COCO_17.index(name)] for name in hidden]] = True
    return Examples(
        theta,
        torch.zeros(theta.shape[:2], dtype=torch.bool),
        joints,
        detect(keypoints, lost, generator, noise=KEYPOINT_NOISE)[:, COCO],
        torch.full_like(joints, torch.nan),
        theta,
    )


@torch.no_grad()
def mixed_views(posed: Poses, generator: torch.Generator) -> Examples:
    """People in front of cameras with the keypoints of training: limbs hidden, crops, mistakes."""
    every = torch.ones(len(posed.rotations), dtype=torch.bool)
    return _seen(posed, every, ~every, generator)


def _completed(posed: Poses, given: Tensor, placed: Tensor, generator: torch.Generator) -> Examples:
    """Bodies in the root's axes, with rotations where ``given`` and joints where ``placed``."""
    theta = posed.rotations[:, 1:]
    known = given[:, None] & ~_unknown_rotations(len(theta), generator)[:, 1:]
    known[:, [joint - 1 for joint in HANDS]] = False
    return Examples(
        theta,
        known,
        posed.joints,
        theta.new_zeros(len(theta), len(COCO), 3),
        _tracked(posed.joints, placed, generator),
        theta,
    )


def _unknown_rotations(count: int, generator: torch.Generator) -> Tensor:
    """Which rotations are unknown, (count, 24): a limb, several, or joints at random."""
    table = _table(list(LIMBS.values()))
    limbs = table[torch.randint(len(table), (count,), generator=generator)]
    share = torch.rand(count, 1, generator=generator)
    scattered = torch.rand(count, SMPL_24.num_joints, generator=generator) < share
    at_random = torch.rand(count, 1, generator=generator) < 0.3
    return torch.where(at_random, scattered, limbs)


def _tracked(joints: Tensor, placed: Tensor, generator: torch.Generator) -> Tensor:
    """Joints (N, 24, 3) with noise, NaN where unknown, and everywhere unless ``placed``."""
    count, number = joints.shape[:2]
    without_hands = torch.ones(number, dtype=torch.bool)
    without_hands[list(HANDS)] = False
    share = torch.rand(count, 1, generator=generator)
    scattered = torch.rand(count, number, generator=generator) < share
    halves = _table([UPPER, tuple(set(range(number)) - set(UPPER))])
    options = torch.stack(
        [
            without_hands.expand(count, -1),
            torch.ones(count, number, dtype=torch.bool),
            _table([FIVE_POINTS]).expand(count, -1),
            scattered,
            halves[torch.randint(2, (count,), generator=generator)],
        ],
        dim=1,
    )
    which = choose((0.25, 0.1, 0.2, 0.3, 0.15), count, generator)
    known = (options & which[..., None]).any(dim=1) & placed[:, None]
    # The pelvis is the origin of the root's frame, so whoever has joints has it, mostly.
    known[:, 0] |= placed & (torch.rand(count, generator=generator) < 0.7)
    size = FARTHEST_NOISE_M * torch.rand(count, 1, 1, generator=generator)
    size = size * (torch.rand(count, 1, 1, generator=generator) >= EXACT)
    noise = size * torch.randn(joints.shape, generator=generator)
    return torch.where(known[..., None], joints + noise, torch.nan)


def _crossed(rotvecs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replace a part of some poses (N, 24, 3) by that of others of the same batch."""
    count = len(rotvecs)
    others = rotvecs[torch.randint(count, (count,), generator=generator)]
    parts = _table(CROSSED_PARTS)[torch.randint(len(CROSSED_PARTS), (count,), generator=generator)]
    replaced = parts & (torch.rand(count, 1, generator=generator) < share)
    return torch.where(replaced[..., None], others, rotvecs)


def _mistaken(keypoints: Tensor, generator: torch.Generator) -> Tensor:
    """Add a detector's rare mistakes to keypoints (N, 17, 3)."""
    count, number = keypoints.shape[:2]
    xy = keypoints[..., :2]
    side = (xy.amax(dim=1) - xy.amin(dim=1)).amax(dim=-1)[:, None, None].clamp(max=IMAGE_PX)
    bad = torch.rand(count, 1, generator=generator) < OUTLIERS
    bad = bad & (torch.rand(count, number, generator=generator) < 0.1)
    far = 0.06 * side * torch.randn(xy.shape, generator=generator)
    keypoints = torch.cat([xy + bad[..., None] * far, keypoints[..., 2:]], dim=-1)
    keypoints = torch.where(keypoints[..., 2:] > 0, keypoints, 0.0)
    swapped = keypoints[:, list(COCO_17.flip)]
    arms = torch.tensor([5 <= joint <= 10 for joint in range(number)])
    legs = torch.tensor([joint >= 11 for joint in range(number)])
    part = torch.where(torch.rand(count, 1, generator=generator) < 0.5, arms, legs)
    part = part & (torch.rand(count, 1, generator=generator) < SWAPS)
    return torch.where(part[..., None], swapped, keypoints)


def choose(shares: Sequence[float], count: int, generator: torch.Generator) -> Tensor:
    """One of several at random for each row, (count, len(shares)) bool."""
    weights = torch.tensor(shares)
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    return chosen[:, None] == torch.arange(len(shares))


def _table(groups: Sequence[Sequence[int]]) -> Tensor:
    """Groups of joints as rows (len(groups), 24) of bool."""
    table = torch.zeros(len(groups), SMPL_24.num_joints, dtype=torch.bool)
    for row, members in enumerate(groups):
        table[row, list(members)] = True
    return table
