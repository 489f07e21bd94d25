"""Procedural poses: people who stand, walk, reach, sit, crouch and bend.

Each pose is a row of joint angles in the terms of anatomy (flexion, abduction, twist). An activity
computes them from a few variables: walking from the phase of the stride, crouching
from its depth, bending from how far down the hands go. Synergies shared by all activities (leaning,
swaying, turning, opening the arms, ...) then move the angles along a few common directions, each
person adds a habit, and every angle is folded back into its anatomical range.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.data.kinematics import REST_OFFSETS, joints17_from_rotations
from flowprior.skeleton import SMPL_24

__all__ = ["Person", "sample_angles", "sample_person", "sample_poses", "to_rotation_vectors"]

Array = NDArray[np.float64]
Angles = dict[str, Array]

# Range of each angle, and its value when standing at ease, in degrees. Positive is forward for
# the trunk's bend and the flexions, outwards for the abductions, to the left for the rest.
TRUNK: dict[str, tuple[float, float, float]] = {
    "tilt": (-30, 95, 0),
    "roll": (-25, 25, 0),
    "bend": (-25, 75, 4),
    "side": (-35, 35, 0),
    "turn": (-45, 45, 0),
    "neck_bend": (-45, 50, 5),
    "neck_side": (-30, 30, 0),
    "neck_turn": (-65, 65, 0),
}
LIMBS: dict[str, tuple[float, float, float]] = {
    "arm_flexion": (-50, 180, 4),
    "arm_abduction": (-25, 170, 10),
    "arm_twist": (-70, 80, 10),
    "elbow": (2, 145, 20),
    "hip_flexion": (-25, 125, 3),
    "hip_abduction": (-15, 60, 4),
    "hip_twist": (-35, 35, -6),
    "knee": (1, 145, 5),
    "ankle": (-35, 40, 0),
}
LIMITS = TRUNK | {f"{side}_{name}": v for side in ("left", "right") for name, v in LIMBS.items()}
COLUMN = {name: column for column, name in enumerate(LIMITS)}

# Directions in which the whole body moves together, in degrees per unit of a standard normal.
SYNERGIES: tuple[dict[str, float], ...] = (
    {"tilt": 5, "bend": 7, "neck_bend": -6, "left_hip_flexion": 6, "right_hip_flexion": 6},
    {"roll": 4, "side": -7, "neck_side": 4, "left_hip_abduction": 4, "right_hip_abduction": -4},
    {"turn": 11, "neck_turn": 14, "left_arm_flexion": -7, "right_arm_flexion": 7},
    {"left_arm_abduction": 8, "right_arm_abduction": 8, "left_elbow": 10, "right_elbow": 10},
    {"left_arm_flexion": 12, "left_elbow": 14, "left_arm_twist": 10, "turn": -3},
    {"right_arm_flexion": 12, "right_elbow": 14, "right_arm_twist": 10, "turn": 3},
    {"left_knee": 10, "left_hip_flexion": 7, "right_knee": -3, "roll": -2},
    {"right_knee": 10, "right_hip_flexion": 7, "left_knee": -3, "roll": 2},
    {"left_hip_abduction": 5, "right_hip_abduction": 5, "left_hip_twist": 5, "right_hip_twist": 5},
    {"neck_bend": 10, "bend": 3},
)


def _hang(angles: Angles, side: str, rng: np.random.Generator, away: float = 8) -> None:
    """Angle of an arm that hangs down while the trunk leans."""
    n = len(angles["tilt"])
    angles[f"{side}_arm_flexion"] = 0.8 * (angles["tilt"] + angles["bend"]) + rng.normal(0, away, n)


def _stand(angles: Angles, rng: np.random.Generator) -> None:
    n = len(angles["tilt"])
    shift = rng.uniform(-1, 1, n)  # weight on the left (+) or the right foot
    angles["roll"] += 5 * shift
    angles["side"] -= 7 * shift
    for side, free in (("left", np.maximum(-shift, 0)), ("right", np.maximum(shift, 0))):
        angles[f"{side}_knee"] += 28 * free
        angles[f"{side}_hip_flexion"] += 16 * free
        angles[f"{side}_hip_abduction"] += 6 * free
        # An arm hangs, or rests on the hip, or folds in front of the chest.
        pick = rng.random(n)
        on_hip, folded = pick < 0.2, pick > 0.8
        for name, hip, chest in (
            ("arm_abduction", 38.0, 8.0),
            ("arm_flexion", -18.0, 32.0),
            ("arm_twist", 42.0, 55.0),
            ("elbow", 92.0, 100.0),
        ):
            value = angles[f"{side}_{name}"]
            value[on_hip] = hip
            value[folded] = chest


def _walk(angles: Angles, rng: np.random.Generator) -> None:
    n = len(angles["tilt"])
    phase = rng.uniform(0, 2 * np.pi, n)
    speed = rng.uniform(0.35, 1.7, n)  # a stroll to a run
    run = np.clip(speed - 0.9, 0, None)
    angles["tilt"] += 9 * run
    angles["bend"] += 6 * speed
    angles["turn"] -= 8 * speed * np.cos(phase)
    angles["roll"] += 3 * np.sin(phase)
    for side, sign in (("left", 1), ("right", -1)):
        swing = sign * np.cos(phase)
        lift = np.maximum(-sign * np.sin(phase), 0)  # the leg that travels forward
        angles[f"{side}_hip_flexion"] = 4 + (24 * speed) * swing + (14 + 20 * run) * lift
        angles[f"{side}_knee"] = 8 + 9 * run + (38 + 42 * run) * lift * np.sqrt(speed)
        angles[f"{side}_ankle"] = -12 * speed * np.maximum(-swing, 0)
        angles[f"{side}_arm_flexion"] = 2 - 24 * speed * swing
        angles[f"{side}_elbow"] = 18 + 70 * run + 14 * np.maximum(-swing, 0)


def _reach(angles: Angles, rng: np.random.Generator) -> None:
    n = len(angles["tilt"])
    height = rng.uniform(0, 1, n)  # from the knee to above the head
    left, both = rng.random(n) < 0.5, rng.random(n) < 0.35
    low = np.maximum(0.45 - height, 0)
    angles["tilt"] += 60 * low
    angles["bend"] += 55 * low - 8 * height
    angles["neck_bend"] += 15 - 35 * height
    aside = rng.uniform(-1, 1, n)
    angles["turn"] += 22 * aside
    angles["neck_turn"] += 18 * aside
    stride = rng.normal(0, 14, n)
    for side, sign, active in (("left", 1, left | both), ("right", -1, ~left | both)):
        lean = np.where(active, angles["tilt"] + angles["bend"], 0)
        angles[f"{side}_arm_flexion"] += active * (30 + 120 * height) + 0.5 * lean
        angles[f"{side}_arm_abduction"] += active * rng.uniform(-8, 40, n)
        angles[f"{side}_elbow"] += active * rng.uniform(-15, 45, n)
        angles[f"{side}_hip_flexion"] += angles["tilt"] + sign * stride
        angles[f"{side}_knee"] += 60 * low + np.maximum(-sign * stride, 0) * 0.6
    angles["side"] += np.where(left, -9, 9) * height


def _sit(angles: Angles, rng: np.random.Generator) -> None:
    n = len(angles["tilt"])
    slouch = rng.uniform(-1, 1, n)
    angles["tilt"] += rng.normal(-4, 9, n)
    angles["bend"] += 14 + 14 * slouch
    angles["neck_bend"] += rng.normal(4, 12, n) - 6 * slouch
    table = rng.random(n) < 0.5
    spread = rng.uniform(0, 22, n)
    for side in ("left", "right"):
        out = np.where(rng.random(n) < 0.25, rng.uniform(20, 65, n), 0)  # a leg stretched forward
        angles[f"{side}_hip_flexion"] = 84 + angles["tilt"] + rng.normal(0, 6, n) - 0.15 * out
        angles[f"{side}_hip_abduction"] += spread
        angles[f"{side}_knee"] = rng.normal(88, 10, n) - out
        free = rng.random(n) < 0.2
        gesture = rng.uniform(0, 60, n)
        angles[f"{side}_arm_flexion"] = np.where(table, 42, 26) + free * gesture + 6 * slouch
        angles[f"{side}_arm_twist"] += np.where(table, 18, 8)
        angles[f"{side}_elbow"] = np.where(table, 78, 58) + free * rng.uniform(-20, 50, n)


def _crouch(angles: Angles, rng: np.random.Generator) -> None:
    n = len(angles["tilt"])
    depth = rng.uniform(0.25, 1, n)
    kneel = rng.random(n) < 0.3
    left_up = rng.random(n) < 0.5
    angles["tilt"] += 30 * depth * ~kneel
    angles["bend"] += 16 * depth
    angles["neck_bend"] -= 18 * depth
    for side, up in (("left", left_up), ("right", ~left_up)):
        squat_hip = 112 * depth
        # Kneeling: one thigh forward, the other shank on the ground.
        kneel_hip, kneel_knee = np.where(up, 92, 2), np.where(up, 88, 92)
        angles[f"{side}_hip_flexion"] = np.where(kneel, kneel_hip, squat_hip)
        angles[f"{side}_knee"] = np.where(kneel, kneel_knee, 122 * depth)
        angles[f"{side}_ankle"] = np.where(kneel, 0, 25 * depth)
        angles[f"{side}_hip_abduction"] += 14 * depth
        angles[f"{side}_hip_twist"] -= 8 * depth
        angles[f"{side}_arm_flexion"] = 30 + 30 * depth + rng.normal(0, 14, n)
        angles[f"{side}_elbow"] = rng.uniform(15, 85, n)


def _bend(angles: Angles, rng: np.random.Generator) -> None:
    n = len(angles["tilt"])
    depth = rng.uniform(0.2, 1, n)
    knees = rng.uniform(0, 45, n) * depth
    angles["tilt"] = 55 * depth
    angles["bend"] = 8 + 45 * depth
    angles["neck_bend"] += rng.normal(-8, 12, n) * depth
    reach = rng.uniform(-5, 35, n)
    for side, sign in (("left", 1), ("right", -1)):
        stagger = rng.normal(0, 5, n)
        angles[f"{side}_hip_flexion"] = angles["tilt"] + 0.6 * knees + sign * stagger
        angles[f"{side}_knee"] = 6 + knees
        angles[f"{side}_ankle"] = 0.4 * knees
        _hang(angles, side, rng)
        angles[f"{side}_arm_flexion"] += reach
        angles[f"{side}_arm_abduction"] = rng.uniform(0, 18, n)


def _raise(angles: Angles, rng: np.random.Generator) -> None:
    n = len(angles["tilt"])
    both, left = rng.random(n) < 0.5, rng.random(n) < 0.5
    angles["bend"] -= rng.uniform(0, 10, n)
    lift = rng.uniform(0.5, 1, n)
    for side, active in (("left", both | left), ("right", both | ~left)):
        angles[f"{side}_arm_abduction"] += active * 145 * lift
        angles[f"{side}_arm_flexion"] += active * rng.uniform(-5, 25, n)
        angles[f"{side}_elbow"] += active * rng.uniform(-10, 80, n)
        angles[f"{side}_arm_twist"] -= active * rng.uniform(0, 35, n)
        angles[f"{side}_hip_abduction"] += both * 8


def _step(angles: Angles, rng: np.random.Generator) -> None:
    """A lunge, a step up or a kick."""
    n = len(angles["tilt"])
    height = rng.uniform(0.2, 1, n)
    kick = rng.random(n) < 0.35
    left = rng.random(n) < 0.5
    angles["tilt"] += np.where(kick, -10 * height, 10 * height)
    for side, front in (("left", left), ("right", ~left)):
        front_knee = np.where(kick, 25 * (1 - height), 80 * height)
        angles[f"{side}_hip_flexion"] = np.where(front, 80 * height, -14 * height)
        angles[f"{side}_knee"] = np.where(front, front_knee, 10 + 35 * height * ~kick)
        angles[f"{side}_ankle"] = np.where(front, 0, -18 * height)
        angles[f"{side}_arm_flexion"] += np.where(front, -25, 40) * height
        angles[f"{side}_arm_abduction"] += 25 * height * kick
        angles[f"{side}_elbow"] += 30 * height
        angles[f"{side}_hip_abduction"] += 4


ACTIVITIES: tuple[tuple[float, Callable[[Angles, np.random.Generator], None]], ...] = (
    (0.16, _stand),
    (0.22, _walk),
    (0.18, _reach),
    (0.14, _sit),
    (0.09, _crouch),
    (0.08, _bend),
    (0.07, _raise),
    (0.06, _step),
)
"""Relative frequency of each activity."""


def _sample_activities(n: int, rng: np.random.Generator) -> Array:
    weights = np.array([weight for weight, _ in ACTIVITIES])
    choice = rng.choice(len(ACTIVITIES), size=n, p=weights / weights.sum())
    rows = np.empty((n, len(LIMITS)))
    for index, (_, activity) in enumerate(ACTIVITIES):
        where = np.flatnonzero(choice == index)
        angles = {name: np.full(len(where), float(v[2])) for name, v in LIMITS.items()}
        activity(angles, rng)
        rows[where] = np.stack(list(angles.values()), axis=1)
    return rows


STRAIGHT = {
    "hip": (0.0, -1.0, 0.0),
    "knee": (0.0, -0.42, -0.02),
    "shoulder": (0.28, 0.0, -0.01),
    "elbow": (1.0, 0.0, 0.0),
}
"""Directions of the left limbs at zero angles, by the joint at which they start.

In the rest pose of SMPL thighs spread and elbows bend a little; anatomical angles count from here.
"""


def sample_angles(n: int, rng: np.random.Generator, habit: Array | None = None) -> Array:
    """Sample joint angles of n poses.

    Args:
        n: Number of poses.
        rng: Random generator.
        habit: (26,) a person's constant deviation, in degrees.

    Returns:
        (n, 26) degrees, columns in the order of `LIMITS` and within them.
    """
    angles = _sample_activities(n, rng)
    # Between two activities: rising from a chair, picking something up while walking, ...
    mixed = np.flatnonzero(rng.random(n) < 0.2)
    weight = rng.uniform(0.15, 0.85, (len(mixed), 1))
    angles[mixed] += weight * (_sample_activities(len(mixed), rng) - angles[mixed])

    directions = np.zeros((len(SYNERGIES), len(LIMITS)))
    for row, synergy in enumerate(SYNERGIES):
        for name, degrees in synergy.items():
            directions[row, COLUMN[name]] = degrees
    angles += rng.normal(size=(n, len(SYNERGIES))) @ directions
    angles += rng.normal(0, 2.5, angles.shape)
    if habit is not None:
        angles += habit

    # Folding at the limits, unlike clipping, leaves no spike of identical values there.
    low, high, _ = np.array(list(LIMITS.values())).T
    angles = low + np.abs(angles - low)
    angles = high - np.abs(high - angles)
    return np.clip(angles, low, high)


def to_rotation_vectors(angles: Array, heading: Array) -> Tensor:
    """Convert anatomical angles to rotations of the SMPL joints.

    Args:
        angles: (n, 26) degrees, as from `sample_angles`.
        heading: (n,) degrees about the vertical.

    Returns:
        (n, 24, 3) rotation vectors, radians, float32, SMPL-24 order.
    """
    columns = torch.from_numpy(np.ascontiguousarray(angles.T))
    angle = {name: columns[column] for name, column in COLUMN.items()}
    zero = torch.zeros(len(angles), dtype=torch.float64)

    def rotation(axes: str, *degrees: Tensor) -> Tensor:
        vector: Tensor = roma.euler_to_rotvec(axes, torch.stack(degrees, -1), degrees=True)
        return vector

    joints = dict.fromkeys(SMPL_24.joint_names, torch.stack([zero] * 3, -1))
    joints["pelvis"] = rotation("YXZ", torch.from_numpy(heading), angle["tilt"], angle["roll"])
    for name in ("spine1", "spine2", "spine3"):
        joints[name] = rotation("YXZ", angle["turn"] / 3, angle["bend"] / 3, angle["side"] / 3)
    for name in ("neck", "head"):
        joints[name] = rotation(
            "YXZ", angle["neck_turn"] / 2, angle["neck_bend"] / 2, angle["neck_side"] / 2
        )
    for side, sign in (("left", 1.0), ("right", -1.0)):
        limb = {name: angle[f"{side}_{name}"] for name in LIMBS}
        flexion, abduction = limb["arm_flexion"], limb["arm_abduction"]
        # The shoulder girdle takes part of the lift once the arm is well off the body.
        girdle = 0.18 * (torch.maximum(flexion, abduction) - 30).clamp(min=0)
        mirror = torch.tensor([1.0, sign, sign], dtype=torch.float64)
        joints[f"{side}_collar"] = mirror * rotation("Z", girdle)
        # From the T-pose: twist about the arm, down to the side, then forward.
        joints[f"{side}_shoulder"] = mirror * rotation(
            "XZX", -flexion, abduction - girdle - 90, limb["arm_twist"]
        )
        joints[f"{side}_elbow"] = mirror * rotation("Y", -limb["elbow"])
        joints[f"{side}_hip"] = mirror * rotation(
            "XZY", -limb["hip_flexion"], limb["hip_abduction"], limb["hip_twist"]
        )
        joints[f"{side}_knee"] = rotation("X", limb["knee"])
        joints[f"{side}_ankle"] = rotation("X", -limb["ankle"])
    return _from_straight_limbs(joints).float()


def _from_straight_limbs(joints: dict[str, Tensor]) -> Tensor:
    """Rotations (n, 3) by joint of a body with straight limbs -> (n, 24, 3) of the rest pose."""
    matrices = {name: roma.rotvec_to_rotmat(rotvec) for name, rotvec in joints.items()}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        mirror = torch.diag(torch.tensor([sign, 1.0, 1.0], dtype=torch.float64))
        for chain in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
            above = torch.eye(3, dtype=torch.float64)
            for joint, end in zip(chain, (*chain[1:], None), strict=True):
                lean = mirror @ _straighten(joint, end) @ mirror if end else torch.eye(3).double()
                name = f"{side}_{joint}"
                matrices[name] = above.mT @ matrices[name] @ lean
                above = lean
    ordered = torch.stack([matrices[name] for name in SMPL_24.joint_names], dim=1)
    return roma.rotmat_to_rotvec(ordered)


def _straighten(joint: str, end: str) -> Tensor:
    """The smallest rotation (3, 3) that brings a left limb of the rest pose to its straight one."""
    rest = torch.tensor(REST_OFFSETS[SMPL_24.index(f"left_{end}")], dtype=torch.float64)
    straight = torch.tensor(STRAIGHT[joint], dtype=torch.float64)
    axis = torch.linalg.cross(rest, straight)
    angle = torch.atan2(axis.norm(), rest @ straight)
    return roma.rotvec_to_rotmat(axis / axis.norm() * angle)


@dataclass(frozen=True)
class Person:
    """Properties of a person that all poses share.

    Args:
        offsets: (24, 3) rest offsets in metres.
        habit: (26,) deviation of the joint angles, in degrees.
    """

    offsets: Tensor
    habit: Array


def sample_person(rng: np.random.Generator) -> Person:
    """Sample a person: stature, proportions and posture."""
    stature = np.clip(rng.normal(1, 0.055), 0.85, 1.15)
    legs, trunk, arms, width = np.clip(rng.normal(1, 0.03, 4), 0.9, 1.1)
    scale = np.empty((SMPL_24.num_joints, 1))
    for joint, name in enumerate(SMPL_24.joint_names):
        if name.endswith(("knee", "ankle", "foot")):
            scale[joint] = legs
        elif name.endswith(("elbow", "wrist", "hand")):
            scale[joint] = arms
        elif name.endswith(("hip", "collar", "shoulder")):
            scale[joint] = width
        else:
            scale[joint] = trunk
    offsets = torch.tensor(stature * scale * np.array(REST_OFFSETS), dtype=torch.float32)
    return Person(offsets, rng.normal(0, 3.5, len(LIMITS)))


def sample_poses(
    person: Person, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample poses of one person, with random headings.

    Args:
        person: The person.
        n: Number of poses.
        rng: Random generator.

    Returns:
        (n, 17, 3) joints in H36M-17 order, metres, y up, the middle of the hips at the origin; and
        (n, 24, 3) their rotation vectors, radians, SMPL-24 order.
    """
    angles = sample_angles(n, rng, person.habit)
    rotvecs = to_rotation_vectors(angles, rng.uniform(-180, 180, n))
    return joints17_from_rotations(rotvecs, person.offsets).numpy(), rotvecs.numpy()
