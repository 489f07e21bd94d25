"""Files of SMPL, SMPL-H and SMPL-X with the surface of the embedded body with hands."""

import numpy as np

from flowprior.body.arrays import read_body
from flowprior.body.kinds import KINDS
from flowprior.skeleton import SMPLH_52


def human_arrays(model_type):
    """Arrays of a model under the names of its official file, of a human body.

    The means of its hands are bent, so that poses in the other convention are noticed. SMPL's hands
    hold what are fingers elsewhere. SMPL-X's jaw and eyes are joints in the head.
    """
    kind, rng = KINDS[model_type], np.random.default_rng(5)
    found = {name: value for name, value in read_body(None, True).items() if " " not in name}
    # Where each joint comes from, and where the weights of each joint go.
    names = kind.skeleton.joint_names
    stand_ins = {"left_hand": "left_middle1", "right_hand": "right_middle1"}
    stand_ins |= dict.fromkeys(("jaw", "left_eye_smplhf", "right_eye_smplhf"), "head")
    source = [SMPLH_52.index(stand_ins.get(name, name)) for name in names]
    weights = np.zeros((len(found["v_template"]), len(names)), np.float32)
    for joint, name in enumerate(SMPLH_52.joint_names):
        side = name.split("_")[0]
        place = names.index(name) if name in names else names.index(f"{side}_hand")
        weights[:, place] += found["weights"][:, joint]
    vertices = len(weights)
    found |= {
        "J_regressor": found["J_regressor"][source],
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, *kind.skeleton.parents[1:]], range(len(names))]),
        "posedirs": np.zeros((vertices, 3, 9 * (len(names) - 1)), np.float32),
    }
    for side in "lr" if kind.hands else ():
        found[f"hands_mean{side}"] = rng.normal(0, 0.3, 45)
        found[f"hands_components{side}"] = rng.normal(0, 0.3, (45, 45))
    if model_type == "smplx":
        zeros = np.zeros((vertices, 3, 10), np.float32)
        found |= {
            "shapedirs": np.concatenate([found["shapedirs"], zeros], axis=-1),
            "lmk_faces_idx": rng.integers(0, vertices, 51),
            "lmk_bary_coords": rng.dirichlet(np.ones(3), 51),
            "dynamic_lmk_faces_idx": rng.integers(0, vertices, (79, 17)),
            "dynamic_lmk_bary_coords": rng.dirichlet(np.ones(3), (79, 17)),
        }
    return found


def human_file(folder, model_type):
    """The path of such a file."""
    path = folder / f"{model_type.upper()}_NEUTRAL.npz"
    np.savez(path, **human_arrays(model_type))
    return path
