"""Descriptions of files that are not a body model, for error messages."""

import os
from collections.abc import Mapping

import numpy as np

from flowprior.files.file_kind import CHECKPOINT, PICKLE, SAFETENSORS, not_the_file

__all__ = ["describe_format", "describe_keys", "describe_tree"]

# Arrays of poses in the files of data sets and regressors; AMASS has two generations of names.
_POSES = ("poses", "pose_body", "pose_hand", "body_pose", "root_orient", "global_orient", "pose")
_AMASS = ("mocap_framerate", "mocap_frame_rate")
_REGRESSION = ("pred_global_rots", "mhr_model_params", "pred_keypoints_3d")
_LANDMARKS = ("lmk_face_idx", "lmk_b_coords", "lmk_faces_idx")
_SKEL = ("osim_kintree_table", "skel_v_template", "J_regressor_osim", "apose_rel_transfo")

_NETWORKS = ("state_dict", "model_state_dict", "optimizer", "pytorch-lightning_version")
# The first object of files that torch.save wrote before version 1.6.
_LEGACY_CHECKPOINT = 0x1950A86A20F9469CFC6C

_TREES = {
    5: "FLAME, a head of 5 joints: load it with the package body-models and pass it to "
    "RigBody.from_body_models",
    33: "SMAL, an animal of 33 joints",
    35: "SMAL, an animal of 35 joints",
    127: "MHR: load it with the package mhr and pass it to RigBody.from_mhr",
}


def describe_format(path: str | os.PathLike[str], content: object = None) -> str:
    """What a file is that has no arrays of a body, from its format.

    Args:
        path: The file, or a folder.
        content: What it contains, if it was read.

    Returns:
        A clause that follows the name of the file.
    """
    if os.path.isdir(path):
        return "is a folder"
    if content == _LEGACY_CHECKPOINT:
        return CHECKPOINT
    found = not_the_file(path)
    if found == SAFETENSORS:
        return f"{found}, the weights of a network: ConditionalPosePrior.load reads priors"
    if found in ("", PICKLE) and content is not None:
        return f"contains an object of type {type(content).__name__}"
    return found or "is of an unknown format"


def describe_keys(content: Mapping[object, object]) -> str:
    """What a file without a body's arrays contains; "" if unknown.

    Args:
        content: The entries of the file.

    Returns:
        A sentence that continues "<file> is not a body model: ".
    """
    if any(key in content for key in _SKEL):
        return (
            "it looks like SKEL. Load it with the package body-models and pass it to "
            "RigBody.from_body_models"
        )
    if any(key in content for key in _NETWORKS):
        return "it is a checkpoint with the weights of a network"
    if any(key in content for key in _REGRESSION):
        return "it has the output of SAM 3D Body, not a body"
    if any(key in content for key in _LANDMARKS):
        return "it has FLAME's face landmarks, which belong beside the file of the model"
    if any(key in content for key in _POSES):
        shapes = [
            f"{key} {np.shape(value)}"
            for key, value in content.items()
            if key in _POSES and isinstance(value, np.ndarray)
        ]
        what = "a motion of AMASS" if any(key in content for key in _AMASS) else "poses"
        return (
            f"it has {what} ({', '.join(shapes) or 'without arrays'}), which pose a body: pass "
            "them to a BodyModel as theta, or their parts to BodyModel.pose"
        )
    if "eigvec" in content:
        return "it looks like DMPL, soft-tissue directions that belong to an SMPL-H body"
    if "hands_components" in content or "hands_componentsl" in content:
        return "it has the hands' components alone"
    return ""


def describe_tree(num_joints: int, num_pose_directions: int | None) -> str:
    """What a body model with another tree or other pose directions is; "" if unknown.

    Args:
        num_joints: Number of joints of its ``kintree_table``.
        num_pose_directions: Last size of its ``posedirs``; None if unknown.

    Returns:
        A clause that continues "<file> is ".
    """
    # STAR's pose corrections depend on quaternions of the 23 joints and on one shape coefficient.
    if num_joints == 24 and num_pose_directions == 93:
        return (
            "STAR, whose pose corrections depend on quaternions and on the shape: its posedirs "
            "have 93 columns, SMPL's 207"
        )
    return _TREES.get(num_joints, "")
