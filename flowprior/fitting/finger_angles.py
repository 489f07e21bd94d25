r"""Finger angles of a fit: 22 variables per hand with a simple anatomical prior.

Per finger: flexion and spread of the knuckle, flexion of the two other joints. Of the thumb:
flexion, spread and twist of its base, flexion and spread of the second joint, flexion of the last.
Each angle is a bounded function of a normal variable g,

.. math:: a = a_0 + \ell\, s(\sigma g / \ell), \quad s(x) = x / \sqrt{1 + x^2},

with the angle at rest a0, the distance l to the limit on the side of g, and the spread \sigma near
rest. The g of the flexions of the four fingers are correlated, those of neighbours and of the two
outer joints of a finger most; g is a linear function of the variables, which are standard normal.

This is a documented guess of ours, not learned from people. Limits follow published ranges of
motion, widened by 5 to 15 degrees because the joints of a body model are not anatomical ones.

References:
    Ranges: e-hand.com, *Normal range of motion* (knuckle 90, middle joint 100, last joint 80;
    thumb 55 and 80); lixiny/manotorch, ``anatomy_loss.py`` for the base of the thumb. The last
    joint follows the middle one: Rijpkema and Girard, *Computer animation of knowledge-based human
    grasping*, 1991.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton.whole_body_sets import FINGERS, HAND_JOINTS

__all__ = ["NUM_ANGLES", "FingerAngles", "finger_angles"]

FLEXION, SPREAD, TWIST = range(3)

# Axis, lower limit, angle at rest, upper limit, spread, all in degrees, by the joint of a finger.
_FINGER = (
    (1, FLEXION, -30.0, 25.0, 100.0, 40.0),
    (2, FLEXION, -10.0, 30.0, 115.0, 45.0),
    (3, FLEXION, -10.0, 20.0, 95.0, 35.0),
    (1, SPREAD, -25.0, 0.0, 25.0, 10.0),
)
_THUMB = (
    (1, FLEXION, -35.0, 5.0, 50.0, 20.0),
    (1, SPREAD, -45.0, 0.0, 45.0, 20.0),
    (1, TWIST, -45.0, 0.0, 45.0, 15.0),
    (2, FLEXION, -20.0, 15.0, 70.0, 25.0),
    (2, SPREAD, -15.0, 0.0, 15.0, 7.0),
    (3, FLEXION, -25.0, 20.0, 90.0, 35.0),
)
NUM_ANGLES = 4 * len(_FINGER) + len(_THUMB)
"""Number of variables of one hand."""

NEIGHBOURS = 0.6
"""Correlation of the flexion of neighbouring fingers; its power for fingers farther apart."""
WITHIN = ((1.0, 0.3, 0.25), (0.3, 1.0, 0.8), (0.25, 0.8, 1.0))
"""Correlation of the three flexions of one finger."""


@dataclass(frozen=True)
class FingerAngles:
    """The fingers of one hand as 22 standard normal variables.

    Args:
        axes: (15, 3, 3) unit axes of flexion, spread and twist of MANO's 15 joints in the rest
            pose, in rows. Positive flexion bends towards the palm.
        mixing: (22, 22) lower triangular, from the variables to g.
        low: (22,) distance from rest to the lower limit, radians.
        high: (22,) distance from rest to the upper limit, radians.
        rest: (22,) angles at rest, radians.
        spread: (22,) standard deviation near rest, radians.
        place: (45, 22) which entry of the 15 joints' three angles each variable is.
    """

    axes: Tensor
    mixing: Tensor
    low: Tensor
    high: Tensor
    rest: Tensor
    spread: Tensor
    place: Tensor

    @property
    def size(self) -> int:
        """Number of variables."""
        return NUM_ANGLES

    def to(self, like: Tensor) -> "FingerAngles":
        """The same in the dtype and on the device of a tensor."""
        return replace(self, **{name: value.to(like) for name, value in vars(self).items()})

    def angles(self, x: Tensor) -> Tensor:
        """Angles (P, 15, 3) of flexion, spread and twist in radians, for variables x (P, 22)."""
        g = self.spread * (x @ self.mixing.mT)
        limit = torch.where(g > 0, self.high, self.low)
        ratio = g / limit
        angle = self.rest + limit * ratio * (1 + ratio.square()).rsqrt()
        return (angle @ self.place.mT).unflatten(-1, (HAND_JOINTS, 3))

    def rotations(self, x: Tensor) -> Tensor:
        """Rotations (P, 15, 3, 3) relative to the parents, for variables x (P, 22).

        A joint twists, then flexes, then spreads.
        """
        vectors = self.angles(x)[..., None] * self.axes
        each = rotations.rotvec_to_matrix(vectors)
        return each[..., SPREAD, :, :] @ each[..., FLEXION, :, :] @ each[..., TWIST, :, :]

    def penalty(self, x: Tensor) -> Tensor:
        """-2 log p (P,) of variables x (P, 22), relative to its minimum at rest."""
        return x.square().sum(dim=-1)


def finger_angles(body: BodyModel) -> tuple[FingerAngles, FingerAngles]:
    """The angles of the left and the right hand of a body.

    Args:
        body: A body with fingers: the embedded one with ``hands=True``, SMPL-H or SMPL-X.

    Raises:
        ValueError: The body has no fingers.
    """
    if not {"left_hand_pose", "right_hand_pose"} <= set(body.parts):
        raise ValueError(
            f"{body.name} has no fingers: use BodyModel(hands=True), or a file of SMPL-H or SMPL-X"
        )
    with torch.no_grad():
        flat = torch.zeros(body.num_joints, 3, device=body.faces.device)
        like = body.keypoints(flat, body.skeleton)
        rest = like.double().cpu()
    left, right = (_of_hand(body, rest, side) for side in ("left", "right"))
    return left.to(like), right.to(like)


def _of_hand(body: BodyModel, rest: Tensor, side: str) -> FingerAngles:
    """The angles of one hand, from the joints (J, 3) in the rest pose."""

    def joint(name: str) -> Tensor:
        return rest[body.joint_names.index(f"{side}_{name}")]

    wrist, index, little = joint("wrist"), joint("index1"), joint("pinky1")
    across = torch.linalg.cross(index - wrist, little - wrist)
    palm = _unit(across if side == "right" else -across)
    # The thumb bends towards the base of the little finger, in front of the palm.
    inward = _unit(_unit(little - joint("thumb2")) + 0.5 * palm)
    axes = []
    for finger in FINGERS:
        chain = [joint(f"{finger}{number}") for number in (1, 2, 3)]
        bones = [chain[1] - chain[0], chain[2] - chain[1], chain[2] - chain[1]]
        axes += [_frame(_unit(bone), inward if finger == "thumb" else palm, side) for bone in bones]
    rows: list[tuple[int, int, float, float, float, float]] = []
    for number, finger in enumerate(FINGERS):
        for part, *numbers in _THUMB if finger == "thumb" else _FINGER:
            rows.append((HAND_JOINTS // 5 * number + part - 1, *numbers))  # type: ignore[arg-type]
    table = torch.tensor([row[2:] for row in rows], dtype=torch.float64)
    low, at_rest, high, spread = torch.deg2rad(table).unbind(dim=-1)
    place = torch.zeros(3 * HAND_JOINTS, len(rows), dtype=torch.float64)
    for column, (joint_number, axis, *_) in enumerate(rows):
        place[3 * joint_number + axis, column] = 1
    return FingerAngles(
        torch.stack(axes), _mixing(), at_rest - low, high - at_rest, at_rest, spread, place
    )


def _mixing() -> Tensor:
    """Factor (22, 22) of the correlations."""
    order = torch.tensor([0.0, 1.0, 3.0, 2.0], dtype=torch.float64)  # the little finger is outside
    fingers = NEIGHBOURS ** (order[:, None] - order).abs()
    flexions = torch.kron(fingers, torch.tensor(WITHIN, dtype=torch.float64))
    places = [len(_FINGER) * finger + joint for finger in range(4) for joint in range(3)]
    total = torch.eye(NUM_ANGLES, dtype=torch.float64)
    total[torch.tensor(places)[:, None], torch.tensor(places)] = flexions
    return torch.linalg.cholesky(total)


def _frame(bone: Tensor, towards: Tensor, side: str) -> Tensor:
    """Axes (3, 3) of flexion, spread and twist of a bone that bends towards a direction."""
    flexion = _unit(torch.linalg.cross(bone, towards))
    # A mirror image turns the other way about the mirrored axis, so equal angles mirror a hand.
    sign = 1.0 if side == "left" else -1.0
    return torch.stack([flexion, sign * torch.linalg.cross(flexion, bone), sign * bone])


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()
