"""Files with the keys and shapes of SMPL-H, SMPL-X and MANO, and random content.

The keys and shapes follow the loaders that read the official files: ``body_models.py`` of
``vchoutas/smplx``, ``merge_smplh_mano.py`` there, and ``body_model.py`` of
``nghorbani/human_body_prior``.
"""

import numpy as np

from flowprior.body.kinds import KINDS

DIRECTIONS = {"smpl": 10, "smplh": 16, "smplx": 400, "mano": 10}


def arrays_of(model_type, vertices=None, directions=None, seed=0, hands=True):
    """Arrays of one model; the official number of vertices if None."""
    kind, rng = KINDS[model_type], np.random.default_rng(seed)
    vertices = vertices or kind.num_vertices
    joints = kind.num_joints
    weights = np.zeros((vertices, joints))
    rows = np.arange(vertices)[:, None]
    weights[rows, rng.integers(0, joints, (vertices, 4))] = rng.random((vertices, 4))
    regressor = rng.random((joints, vertices)) ** 20
    faces = rng.integers(0, vertices, (2 * vertices, 3))
    count = DIRECTIONS[model_type] if directions is None else directions

    def normal(scale, *shape):
        return (scale * rng.standard_normal(shape, np.float32)).astype(np.float32)

    found = {
        "v_template": normal(0.5, vertices, 3),
        "shapedirs": normal(0.02, vertices, 3, count),
        "posedirs": normal(0.005, vertices, 3, 9 * (joints - 1)),
        "J_regressor": (regressor / regressor.sum(axis=1, keepdims=True)).astype(np.float32),
        "kintree_table": np.array(
            [[2**32 - 1, *kind.skeleton.parents[1:]], range(joints)], np.uint32
        ),
        "weights": (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        "f": faces.astype(np.uint32),
    }
    if hands:
        for side in kind.hands:
            found[f"hands_mean{side}"] = normal(0.2, 45)
            found[f"hands_components{side}"] = normal(0.3, 45, 45)
            found[f"hands_coeffs{side}"] = normal(1.0, 30, 45)
    if model_type == "smplx":
        barycentric = rng.dirichlet(np.ones(3), 51)
        found |= {
            "lmk_faces_idx": rng.integers(0, 2 * vertices, 51).astype(np.uint32),
            "lmk_bary_coords": barycentric,
            "dynamic_lmk_faces_idx": rng.integers(0, 2 * vertices, (79, 17)),
            "dynamic_lmk_bary_coords": rng.dirichlet(np.ones(3), (79, 17)),
            "joint2num": np.array(
                {official_name(name): n for n, name in enumerate(kind.skeleton.joint_names)}
            ),
            "part2num": np.array({"Head": 0}),
            "vt": rng.random((30, 2)),
            "ft": faces[:30].astype(np.uint32),
            "allow_pickle": np.array(True),
        }
    return found


def official_name(name):
    """The name of a joint in ``joint2num`` of SMPL-X, such as L_Hip."""
    side, _, rest = name.removesuffix("_smplhf").partition("_")
    if side in ("left", "right"):
        return f"{side[0].upper()}_{rest.capitalize()}"
    return name.capitalize()


def mano_pair(vertices=60):
    """Left and right hand as released: mirrored templates, but the same shape directions."""
    right = arrays_of("mano", vertices)
    # The fingers of the right hand point to -x.
    joints = right["J_regressor"] @ right["v_template"]
    if joints[1:, 0].mean() > joints[0, 0]:
        right["v_template"][:, 0] *= -1
    mirror = np.array([-1.0, 1.0, 1.0], np.float32)
    left = dict(right)
    left["v_template"] = right["v_template"] * mirror
    # R - I of a mirrored rotation has the sign of both axes of the entry.
    sign = np.tile(np.outer(mirror, mirror).ravel(), 15)
    left["posedirs"] = right["posedirs"] * mirror[:, None] * sign
    left["hands_mean"] = (right["hands_mean"].reshape(15, 3) * [1, -1, -1]).ravel()
    left["hands_components"] = (right["hands_components"].reshape(45, 15, 3) * [1, -1, -1]).reshape(
        45, 45
    )
    return left, right
