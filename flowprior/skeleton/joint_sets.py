"""The joint sets that pose estimation uses, one table per set."""

from collections.abc import Mapping

from flowprior.skeleton.skeleton import Skeleton

__all__ = [
    "BODY_25",
    "BODY_25B",
    "COCO_17",
    "COCO_18",
    "H36M_16_NO_HIP",
    "H36M_16_NO_NOSE",
    "H36M_17",
    "H36M_32",
    "LSP_14",
    "MPII_16",
    "MPI_INF_3DHP_17",
    "PROHMR_19",
    "PROHMR_44",
    "PROHMR_EVAL_3DHP_17",
    "PROHMR_EVAL_14",
    "PROHMR_EVAL_H36M_17",
    "PROHMR_FITTING_IGNORES",
    "PROHMR_LIFTING_2D",
    "PROHMR_LIFTING_3D",
    "PROHMR_PELVIS",
    "SMPL_24",
    "SMPL_45",
    "SPIN_H36M_TO_LSP_14",
    "build",
]


def _other_side(name: str) -> str:
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name


def build(name: str, tree: str, meanings: Mapping[str, str] | None = None) -> Skeleton:
    """Build a set from a table.

    Args:
        name: Name of the set.
        tree: The joints in order, each as "joint<parent", the root as its name only.
        meanings: Meanings of joints that differ from their names.

    Returns:
        The set. Joints whose names begin with ``left_`` and ``right_`` are mirror images.
    """
    pairs = [joint.partition("<")[::2] for joint in tree.split()]
    names = tuple(joint for joint, _ in pairs)
    return Skeleton(
        name,
        names,
        tuple(names.index(parent) if parent else -1 for _, parent in pairs),
        tuple(names.index(_other_side(joint)) for joint in names),
        tuple((meanings or {}).get(joint, joint) for joint in names),
    )


_SMPL_TREE = """
    pelvis left_hip<pelvis right_hip<pelvis spine1<pelvis
    left_knee<left_hip right_knee<right_hip spine2<spine1
    left_ankle<left_knee right_ankle<right_knee spine3<spine2
    left_foot<left_ankle right_foot<right_ankle
    neck<spine3 left_collar<spine3 right_collar<spine3 head<neck
    left_shoulder<left_collar right_shoulder<right_collar
    left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow
    left_hand<left_wrist right_hand<right_wrist
"""


SMPL_24 = build("SMPL-24", _SMPL_TREE)
"""The 24 joints of SMPL (Loper et al., *SMPL: A Skinned Multi-Person Linear Model*, 2015).

Order and parents follow the ``kintree_table`` of the model files, names the PyPI package ``smplx``.
The first 22 are also the body joints of SMPL-H and SMPL-X.
"""


SMPL_45 = build(
    "SMPL-45",
    _SMPL_TREE
    + """
    nose<head right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye
    left_big_toe<left_foot left_small_toe<left_foot left_heel<left_ankle
    right_big_toe<right_foot right_small_toe<right_foot right_heel<right_ankle
    left_thumb<left_hand left_index<left_hand left_middle<left_hand
    left_ring<left_hand left_pinky<left_hand
    right_thumb<right_hand right_index<right_hand right_middle<right_hand
    right_ring<right_hand right_pinky<right_hand
    """,
)
"""The 45 joints that ``smplx.SMPL`` returns: SMPL-24 and 21 vertices of the surface.

The vertices are those of ``smplx.vertex_joint_selector``: face, feet, fingertips. They are not part
of the model's kinematic tree; here the parent of each is the joint that moves it.
"""


BODY_25 = build(
    "BODY-25",
    """
    nose<neck neck<mid_hip
    right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    mid_hip right_hip<mid_hip right_knee<right_hip right_ankle<right_knee
    left_hip<mid_hip left_knee<left_hip left_ankle<left_knee
    right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye
    left_big_toe<left_ankle left_small_toe<left_big_toe left_heel<left_ankle
    right_big_toe<right_ankle right_small_toe<right_big_toe right_heel<right_ankle
    """,
    {"mid_hip": "pelvis"},
)
"""The 25 keypoints of OpenPose (Cao et al., *OpenPose*, 2019), in the order of its JSON files.

The bones are the pairs that OpenPose draws (``POSE_BODY_25_PAIRS``); the root is MidHip.
"""


BODY_25B = build(
    "BODY-25B",
    """
    nose<upper_neck left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<upper_neck right_shoulder<upper_neck left_elbow<left_shoulder
    right_elbow<right_shoulder left_wrist<left_elbow right_wrist<right_elbow
    left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip
    left_ankle<left_knee right_ankle<right_knee
    upper_neck head_top<nose
    left_big_toe<left_ankle left_small_toe<left_big_toe left_heel<left_ankle
    right_big_toe<right_ankle right_small_toe<right_big_toe right_heel<right_ankle
    """,
    {"upper_neck": "neck_lsp"},
)
"""The 25 keypoints of OpenPose's model BODY_25B, in the order of its JSON files.

COCO's 17, then upper neck and top of the head as annotated in MPII, then the feet as in `BODY_25`;
there is no MidHip. Files of both models have 75 numbers per person, so their format does not reveal
the model. The order follows OpenPose's ``poseParameters.cpp``; the bones are ours.
"""


COCO_17 = build(
    "COCO-17",
    """
    nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<left_ear right_shoulder<right_ear left_elbow<left_shoulder
    right_elbow<right_shoulder left_wrist<left_elbow right_wrist<right_elbow
    left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip
    left_ankle<left_knee right_ankle<right_knee
    """,
)
"""The 17 keypoints of COCO (Lin et al., *Microsoft COCO*, 2014), as annotated.

COCO has no neck or pelvis, and its published drawing contains loops. This tree is a symmetric part
of that drawing (ears to shoulders, shoulders to hips) that reaches every joint.
"""


COCO_18 = build(
    "COCO-18",
    """
    nose<neck neck right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    right_hip<neck right_knee<right_hip right_ankle<right_knee
    left_hip<neck left_knee<left_hip left_ankle<left_knee
    right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye
    """,
)
"""The 18 keypoints of OpenPose's COCO model; ``poses2d`` of 3DPW.

COCO's 17 in another order, and a neck midway between the shoulders. The bones are the pairs that
OpenPose draws (``POSE_COCO_PAIRS``).
"""


_H36M_MEANINGS = {
    "hip": "pelvis",
    "right_foot": "right_ankle",
    "left_foot": "left_ankle",
    "spine": "spine_h36m",
    "thorax": "thorax_h36m",
    "nose": "jaw_h36m",
    "head": "head_h36m",
    "left_collar": "left_collar_h36m",
    "right_collar": "right_collar_h36m",
    "left_hand": "left_hand_h36m",
    "right_hand": "right_hand_h36m",
}


H36M_32 = build(
    "H36M-32",
    """
    hip right_hip<hip right_knee<right_hip right_foot<right_knee right_toe_base<right_foot
    right_toe_end<right_toe_base
    left_hip<hip left_knee<left_hip left_foot<left_knee left_toe_base<left_foot
    left_toe_end<left_toe_base
    spine_base<hip spine<spine_base thorax<spine nose<thorax head<nose
    left_collar<spine left_shoulder<left_collar left_elbow<left_shoulder left_wrist<left_elbow
    left_thumb_base<left_wrist left_thumb_end<left_thumb_base left_hand<left_wrist
    left_hand_end<left_hand
    right_collar<spine right_shoulder<right_collar right_elbow<right_shoulder
    right_wrist<right_elbow right_thumb_base<right_wrist right_thumb_end<right_thumb_base
    right_hand<right_wrist right_hand_end<right_hand
    """,
    _H36M_MEANINGS,
)
"""The 32 joints of Human3.6M's ``D3_Positions`` (Ionescu et al., *Human3.6M*, 2014).

Several joints coincide with another: 11 with 0, 16 and 24 with 13, 20 with 19, 28 with 27. Parents
are those of the data set, as in VideoPose3D.
"""


H36M_17 = build(
    "H36M-17",
    """
    hip right_hip<hip right_knee<right_hip right_foot<right_knee
    left_hip<hip left_knee<left_hip left_foot<left_knee
    spine<hip thorax<spine nose<thorax head<nose
    left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow
    right_shoulder<thorax right_elbow<right_shoulder right_wrist<right_elbow
    """,
    _H36M_MEANINGS,
)
"""The 17 joints of Human3.6M that 2D-to-3D lifting predicts.

The moving joints of `H36M_32`, in the order of Martinez et al., *A simple yet effective baseline
for 3d human pose estimation*, 2017 (``una-dinosauria/3d-pose-baseline``) and of VideoPose3D, in
which the thorax is the parent of the shoulders. "nose" is the joint that Martinez et al. call
Neck/Nose and SPIN calls jaw; "foot" is the ankle, "thorax" the base of the neck.
"""


H36M_16_NO_HIP = H36M_17.subset("H36M-16 without hip", range(1, 17), root=7)
"""`H36M_17` without the hip: a lifter predicts their positions relative to the hip.

The target of ``una-dinosauria/3d-pose-baseline``; here the spine is the parent of the legs.
"""


H36M_16_NO_NOSE = H36M_17.subset("H36M-16 without nose", [*range(9), *range(10, 17)])
"""`H36M_17` without Neck/Nose: the 2D input of ``3d-pose-baseline``, and SemGCN's set."""


MPII_16 = H36M_17.subset("MPII-16", (3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13), root=0)
"""The 16 keypoints of MPII, as detected by stacked hourglasses and used for lifting.

The order is that of MPII (Andriluka et al., *2D Human Pose Estimation*, 2014). The names are those
of ``una-dinosauria/3d-pose-baseline``, which uses MPII's pelvis, thorax, upper neck and head top as
hip, spine, thorax and head of Human3.6M.
"""


LSP_14 = build(
    "LSP-14",
    """
    right_ankle<right_knee right_knee<right_hip right_hip<neck
    left_hip<neck left_knee<left_hip left_ankle<left_knee
    right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<neck
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    neck head_top<neck
    """,
    {"neck": "neck_lsp"},
)
"""The 14 keypoints of Leeds Sports Poses (Johnson and Everingham, *Clustered Pose*, 2010).

The bones are ours: LSP publishes none.
"""


MPI_INF_3DHP_17 = build(
    "MPI-INF-3DHP-17",
    """
    head_top<head neck<spine
    right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    right_hip<pelvis right_knee<right_hip right_ankle<right_knee
    left_hip<pelvis left_knee<left_hip left_ankle<left_knee
    pelvis spine<pelvis head<neck
    """,
    {"neck": "neck_lsp", "spine": "spine_h36m", "head": "jaw_h36m"},
)
"""The 17 joints of MPI-INF-3DHP's test set (Mehta et al., *Monocular 3D Human Pose*, 2017).

SPIN and ProHMR use its neck as LSP's, and its spine and head as spine and jaw of Human3.6M.
"""


PROHMR_19 = build(
    "PROHMR-19",
    """
    right_ankle_lsp<right_knee_lsp right_knee_lsp<right_hip_lsp right_hip_lsp<pelvis_mpii
    left_hip_lsp<pelvis_mpii left_knee_lsp<left_hip_lsp left_ankle_lsp<left_knee_lsp
    right_wrist_lsp<right_elbow_lsp right_elbow_lsp<right_shoulder_lsp right_shoulder_lsp<neck_lsp
    left_shoulder_lsp<neck_lsp left_elbow_lsp<left_shoulder_lsp left_wrist_lsp<left_elbow_lsp
    neck_lsp<thorax_mpii head_top_lsp<head_h36m
    pelvis_mpii thorax_mpii<spine_h36m spine_h36m<pelvis_mpii jaw_h36m<neck_lsp head_h36m<jaw_h36m
    """,
    {
        **{
            f"{side}_{joint}_lsp": f"{side}_{joint}"
            for side in ("left", "right")
            for joint in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
        },
        "head_top_lsp": "head_top",
        "pelvis_mpii": "pelvis",
    },
)
"""The 19 "extra" keypoints of ProHMR: LSP's 14, pelvis and thorax of MPII, three of Human3.6M.

They are the ``extra_keypoints_2d`` and ``extra_keypoints_3d`` of its data files, which
``SMPL_to_J19.pkl`` regresses from the vertices (``nkolot/ProHMR``), and the first 19 of SPIN's 24.
Neck and head are those of the *data sets*, neither OpenPose's nor SMPL's. The bones are ours.
"""


def _join(name: str, first: Skeleton, second: Skeleton) -> Skeleton:
    """Append one set to another; the parent of the second root is the first."""
    shift = first.num_joints
    hung = (shift + parent if parent >= 0 else first.root for parent in second.parents)
    return Skeleton(
        name,
        first.joint_names + second.joint_names,
        (*first.parents, *hung),
        (*first.flip, *(shift + joint for joint in second.flip)),
        first.meanings + second.meanings,
    )


PROHMR_44 = _join("PROHMR-44", BODY_25, PROHMR_19)
"""The 44 keypoints of ProHMR and HMR 2.0: `BODY_25`, then `PROHMR_19`.

Joints 0 to 24 are among the 45 of ``smplx`` (``mapping(SMPL_45, BODY_25)``); joints 25 to 43 are
regressed from the vertices. Losses and metrics subtract joint 39, the pelvis.
"""


PROHMR_LIFTING_2D = PROHMR_19.subset("PROHMR lifting 2D", [*range(13), 14, 16, 17, 18])
"""The 17 keypoints that ProHMR's lifting model reads (``skeleton_dataset.py``)."""


PROHMR_LIFTING_3D = PROHMR_19.subset("PROHMR lifting 3D", [*range(13), 16, 17, 18], root=16)
"""The 16 joints that ProHMR's lifting model predicts, relative to the pelvis, which is excluded.

Here the spine is the root and the parent of the hips.
"""


PROHMR_PELVIS = 39
"""Index into `PROHMR_44` of the pelvis that ProHMR subtracts before every 3D error."""


PROHMR_EVAL_14 = (*range(25, 38), 43)
"""Indices into `PROHMR_44` that ProHMR evaluates on Human3.6M P2 and 3DPW.

Often called "LSP-14", although the head is that of Human3.6M.
"""


PROHMR_EVAL_H36M_17 = (*range(25, 38), 39, 41, 42, 43)
"""Indices into `PROHMR_44` that ProHMR evaluates on all cameras of Human3.6M."""


PROHMR_EVAL_3DHP_17 = (*range(25, 39), 39, 41, 42)
"""Indices into `PROHMR_44` that ProHMR evaluates on the test set of MPI-INF-3DHP."""


PROHMR_FITTING_IGNORES = (8, 9, 12, 27, 28, 39)
"""Indices into `PROHMR_44` whose confidence ProHMR's fitting sets to 0: all hip and pelvis joints.

Detectors and SMPL place these joints differently.
"""


SPIN_H36M_TO_LSP_14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""SPIN's ``H36M_TO_J14``, for the 17 joints of its file ``J_regressor_h36m.npy`` only.

In that file the left leg precedes the right one, unlike in `H36M_17` and in files with Human3.6M's
own order. Applied to those, it silently exchanges the legs; use ``mapping(H36M_17, LSP_14)``
instead, known as ``H36M_J17_TO_J14``.
"""
