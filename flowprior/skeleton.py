"""Joint sets: names, kinematic tree and left-right pairs, one table per set, and maps between them.

"What is joint 39?" has a different answer in every set. The tables here are the sets that pose
estimation uses; `mapping` takes an array from one to another by the meaning of its joints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    "SKELETONS",
    "SMPL_24",
    "SMPL_45",
    "SPIN_H36M_TO_LSP_14",
    "Skeleton",
    "mapping",
    "shared_joints",
]


@dataclass(frozen=True, repr=False)
class Skeleton:
    """A named, ordered set of J joints and the tree that connects them.

    Args:
        name: Name of the joint set.
        joint_names: J names, in the order of the joint axis of every array of this set.
        parents: J indices; joint j hangs on ``parents[j]``, the one root on -1. A parent may come
            after its child, as LSP's knees come after their ankles.
        flip: J indices; ``joints[..., flip, :]`` exchanges left and right. Mirroring a pose takes
            this permutation *and* a sign change of one coordinate.
        meanings: J names in a vocabulary shared by all sets, which `mapping` compares: the hip of
            Human3.6M, the pelvis of SMPL and the MidHip of OpenPose are all "pelvis". Left out,
            the joint names themselves.

    Raises:
        ValueError: The tables do not have one entry per joint, the parents do not form one tree,
            or ``flip`` does not undo itself.
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    flip: tuple[int, ...]
    meanings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.meanings:
            object.__setattr__(self, "meanings", self.joint_names)
        sizes = (len(self.joint_names), len(self.parents), len(self.flip), len(self.meanings))
        if len(set(sizes)) != 1 or len(set(self.joint_names)) != sizes[0]:
            raise ValueError(
                f"{self.name}: expected distinct joint names with one parent, one flip index and "
                f"one meaning each, got {sizes[0]} names, {sizes[1]} parents, {sizes[2]} flip "
                f"indices and {sizes[3]} meanings"
            )
        joints = list(range(self.num_joints))
        roots = [joint for joint in joints if self.parents[joint] == -1]
        if len(roots) != 1:
            raise ValueError(
                f"{self.name}: expected exactly one root, with parent -1, got {len(roots)}"
            )
        connected = {-1}
        for _ in joints:  # no joint lies deeper than there are joints
            connected |= {joint for joint in joints if self.parents[joint] in connected}
        for joint, parent in enumerate(self.parents):
            if joint not in connected:
                raise ValueError(
                    f"{self.name}: expected the parents to form one tree, but parent {parent} of "
                    f"joint {joint} does not lead to the root"
                )
        if sorted(self.flip) != joints or [self.flip[j] for j in self.flip] != joints:
            raise ValueError(
                f"{self.name}: expected flip to be a permutation that undoes itself, "
                f"got {self.flip}"
            )

    def __repr__(self) -> str:
        return f"<Skeleton {self.name!r} of {self.num_joints} joints>"

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.joint_names)

    @property
    def root(self) -> int:
        """Index of the joint that has no parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The J - 1 bones as (parent, child) pairs, in the order of the children."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    def index(self, joint_name: str) -> int:
        """Index of a joint.

        Args:
            joint_name: One of ``joint_names``.

        Raises:
            ValueError: There is no such joint; the message has the names there are.
        """
        if joint_name not in self.joint_names:
            raise ValueError(
                f"{self.name} has no joint {joint_name!r}; it has {', '.join(self.joint_names)}"
            )
        return self.joint_names.index(joint_name)

    def subset(self, name: str, joints: Sequence[int], root: int | None = None) -> "Skeleton":
        """Some of the joints, in a new order.

        Args:
            name: Name of the new set.
            joints: Indices into this set, each at most once; left and right in pairs.
            root: Index into this set of the new root, needed where the old one is left out: every
                joint that hung on it without another between now hangs on this one.

        Returns:
            The set of those joints; each hangs on the nearest of its ancestors that is in it.

        Raises:
            ValueError: A joint occurs without its mirror image, twice, or is none of this set, or
                the joints left do not form one tree.
        """
        place = {joint: index for index, joint in enumerate(joints)}
        if len(place) != len(joints) or not set(place) <= set(range(self.num_joints)):
            raise ValueError(
                f"{name}: expected distinct joints of {self.name}, 0 to {self.num_joints - 1}, "
                f"got {tuple(joints)}"
            )
        if not set(place) == {self.flip[joint] for joint in joints}:
            raise ValueError(f"{name}: expected every joint together with its mirror image")
        parents = []
        for joint in joints:
            above = self.parents[joint]
            while above != -1 and above not in place:
                above = self.parents[above]
            if above == -1 and root is not None and joint != root:
                above = root
            parents.append(place.get(above, -1))
        return Skeleton(
            name,
            tuple(self.joint_names[joint] for joint in joints),
            tuple(parents),
            tuple(place[self.flip[joint]] for joint in joints),
            tuple(self.meanings[joint] for joint in joints),
        )


def _other_side(name: str) -> str:
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name


def _build(name: str, tree: str, meanings: Mapping[str, str] | None = None) -> Skeleton:
    """A set from its joints in order, each as "joint<parent" and the root by its name alone."""
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

SMPL_24 = _build("SMPL-24", _SMPL_TREE)
"""The 24 joints of SMPL (Loper et al., *SMPL: A Skinned Multi-Person Linear Model*, 2015).

Order and parents are those of the ``kintree_table`` of the model files, names those of the PyPI
package ``smplx``. The first 22 are the body joints of SMPL-H and SMPL-X as well.
"""

SMPL_45 = _build(
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

The vertices are those of ``smplx.vertex_joint_selector``: face, feet, fingertips. They are no part
of the model's kinematic tree; here each hangs on the joint that carries it.
"""

BODY_25 = _build(
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

The bones are the pairs that OpenPose draws (``POSE_BODY_25_PAIRS``), rooted at MidHip.
"""

BODY_25B = _build(
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

COCO's 17, then upper neck and top of the head as MPII annotates them, then the feet as in
`BODY_25`; it has no MidHip. Its files have 75 numbers per person as well, so nothing in them tells
the two models apart. The order is that of OpenPose's ``poseParameters.cpp``; the bones are ours.
"""

COCO_17 = _build(
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

COCO has no neck or pelvis, and its own drawing has loops. The tree here is a part of that drawing
(ears to shoulders, shoulders to hips) that reaches every joint and is its own mirror image.
"""

COCO_18 = _build(
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

COCO's 17 in another order, and a neck halfway between the shoulders. The bones are the pairs that
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

H36M_32 = _build(
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

Several never move against a neighbour: 11 lies on 0, 16 and 24 on 13, 20 on 19, 28 on 27. Parents
are those of the data set, as VideoPose3D has them.
"""

H36M_17 = _build(
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

The moving joints among `H36M_32`, in the order of Martinez et al., *A simple yet effective
baseline for 3d human pose estimation*, 2017 (``una-dinosauria/3d-pose-baseline``) and of
VideoPose3D, which hangs the shoulders on the thorax. "nose" is the joint that the first calls
Neck/Nose and SPIN the jaw; "foot" is the ankle, "thorax" the base of the neck.
"""

H36M_16_NO_HIP = H36M_17.subset("H36M-16 without hip", range(1, 17), root=7)
"""`H36M_17` without the hip: the joints whose positions relative to it a lifter predicts.

The target of ``una-dinosauria/3d-pose-baseline``; here the legs hang on the spine.
"""

H36M_16_NO_NOSE = H36M_17.subset("H36M-16 without nose", [*range(9), *range(10, 17)])
"""`H36M_17` without Neck/Nose: the 2D input of ``3d-pose-baseline``, and SemGCN's set."""

MPII_16 = H36M_17.subset("MPII-16", (3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13), root=0)
"""The 16 keypoints of MPII, as detected by stacked hourglasses and used for lifting.

Order of MPII (Andriluka et al., *2D Human Pose Estimation*, 2014) and names of
``una-dinosauria/3d-pose-baseline``, which takes MPII's pelvis, thorax, upper neck and head top for
hip, spine, thorax and head of Human3.6M.
"""

LSP_14 = _build(
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

MPI_INF_3DHP_17 = _build(
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

SPIN and ProHMR take its neck for LSP's and its spine and head for spine and jaw of Human3.6M.
"""

PROHMR_19 = _build(
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

What ``extra_keypoints_2d`` and ``extra_keypoints_3d`` hold in its data files and
``SMPL_to_J19.pkl`` regresses from the vertices (``nkolot/ProHMR``); the first 19 of SPIN's 24. Its
neck and head are those of the *data sets*, neither OpenPose's nor SMPL's. The bones are ours.
"""


def _join(name: str, first: Skeleton, second: Skeleton) -> Skeleton:
    """The joints of one set and then those of another, the second root on the first."""
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

Joints 0 to 24 are read off the 45 of ``smplx`` (``mapping(SMPL_45, BODY_25)``), 25 to 43 regressed
from the vertices. Joint 39 is the pelvis that losses and metrics subtract.
"""

PROHMR_LIFTING_2D = PROHMR_19.subset("PROHMR lifting 2D", [*range(13), 14, 16, 17, 18])
"""The 17 keypoints that ProHMR's lifting model reads (``skeleton_dataset.py``)."""

PROHMR_LIFTING_3D = PROHMR_19.subset("PROHMR lifting 3D", [*range(13), 16, 17, 18], root=16)
"""The 16 joints that ProHMR's lifting model predicts, relative to the pelvis, which is left out.

Here the spine is the root that the hips hang on.
"""

PROHMR_PELVIS = 39
"""Index into `PROHMR_44` of the pelvis that ProHMR subtracts before every 3D error."""

PROHMR_EVAL_14 = (*range(25, 38), 43)
"""Indices into `PROHMR_44` that ProHMR evaluates on Human3.6M P2 and 3DPW.

Known as "LSP-14" but for the head, which is that of Human3.6M.
"""

PROHMR_EVAL_H36M_17 = (*range(25, 38), 39, 41, 42, 43)
"""Indices into `PROHMR_44` that ProHMR evaluates on all cameras of Human3.6M."""

PROHMR_EVAL_3DHP_17 = (*range(25, 39), 39, 41, 42)
"""Indices into `PROHMR_44` that ProHMR evaluates on the test set of MPI-INF-3DHP."""

PROHMR_FITTING_IGNORES = (8, 9, 12, 27, 28, 39)
"""Indices into `PROHMR_44` whose confidence ProHMR's fitting sets to 0: every hip and pelvis.

Detectors and SMPL place them differently.
"""

SPIN_H36M_TO_LSP_14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""SPIN's ``H36M_TO_J14``, for the 17 joints of its file ``J_regressor_h36m.npy`` only.

That file has the left leg before the right one, against `H36M_17` and every file of Human3.6M's own
order: applied to those it exchanges the legs and raises no error. For them use
``mapping(H36M_17, LSP_14)``, known as ``H36M_J17_TO_J14``.
"""

SKELETONS: Mapping[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        SMPL_24,
        SMPL_45,
        BODY_25,
        BODY_25B,
        COCO_17,
        COCO_18,
        H36M_32,
        H36M_17,
        H36M_16_NO_HIP,
        H36M_16_NO_NOSE,
        MPII_16,
        LSP_14,
        MPI_INF_3DHP_17,
        PROHMR_44,
        PROHMR_19,
        PROHMR_LIFTING_2D,
        PROHMR_LIFTING_3D,
    )
}
"""Every joint set of this module by its name."""

_LSP_FROM_H36M = {"neck": "thorax", "head_top": "head"}
_H36M_FROM_LIFTING = {"thorax": "neck_lsp"}
# ProHMR's preprocessing takes the immobile joints 11 and 24 for Human3.6M's pelvis and neck.
_LIFTING_FROM_H36M_32 = {"pelvis_mpii": "spine_base", "neck_lsp": "right_collar"}

# Joints that published conversions take for one another though they do not mean the same:
# (source, target) -> {joint of the target: joint of the source}.
_STAND_INS: dict[tuple[Skeleton, Skeleton], Mapping[str, str]] = {
    (H36M_17, LSP_14): _LSP_FROM_H36M,  # H36M_J17_TO_J14 of microsoft/MeshTransformer
    (H36M_32, LSP_14): _LSP_FROM_H36M,
    # nkolot/ProHMR, h36m_idx and global_idx of the preprocessing
    (H36M_32, PROHMR_LIFTING_2D): _LIFTING_FROM_H36M_32,
    (H36M_32, PROHMR_LIFTING_3D): _LIFTING_FROM_H36M_32,
    (H36M_17, PROHMR_LIFTING_2D): {"neck_lsp": "thorax"},
    (H36M_17, PROHMR_LIFTING_3D): {"neck_lsp": "thorax"},
    (PROHMR_44, H36M_17): _H36M_FROM_LIFTING,
    (PROHMR_19, H36M_17): _H36M_FROM_LIFTING,
    (PROHMR_LIFTING_2D, H36M_17): _H36M_FROM_LIFTING,
    # nkolot/SPIN, joints17_idx of the preprocessing of the test set
    (MPI_INF_3DHP_17, H36M_17): {"thorax": "neck", "head": "head_top"},
}


def shared_joints(source: Skeleton, target: Skeleton) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The joints that two sets have in common.

    Args:
        source: One joint set.
        target: Another.

    Returns:
        K indices into ``source`` and the K indices of the same joints in ``target``, which ascend:
        ``a[..., i, :]`` and ``b[..., j, :]`` can be compared.
    """
    stand_ins = _STAND_INS.get((source, target), {})
    # Where ProHMR's 44 have a joint twice, a set of annotations means the extra one, that of the
    # data sets. OpenPose's and COCO's keypoints, and those of the same name, mean the first.
    extras_first = target in (H36M_17, LSP_14, MPII_16, MPI_INF_3DHP_17)
    pairs = []
    for joint, (name, meaning) in enumerate(zip(target.joint_names, target.meanings, strict=True)):
        candidates = [index for index, same in enumerate(source.meanings) if same == meaning]
        if name in stand_ins:
            pairs.append((source.index(stand_ins[name]), joint))
        elif candidates:
            named = [index for index in candidates if source.joint_names[index] == name]
            best = candidates[-1] if extras_first else (named or candidates)[0]
            pairs.append((best, joint))
    return tuple(index for index, _ in pairs), tuple(joint for _, joint in pairs)


def mapping(source: Skeleton, target: Skeleton) -> tuple[int, ...]:
    """Where each joint of one set is found in another.

    Joints correspond by what they mean, not by name: the "left_foot" of Human3.6M is an ankle, that
    of SMPL is not. Where a published conversion takes one joint for another, as Human3.6M's thorax
    for LSP's neck, so does this.

    Args:
        source: The set that an array ``joints`` (..., J_source, 3) is in.
        target: The set that it should be in.

    Returns:
        J_target indices into ``source``: ``joints[..., mapping(source, target), :]`` has the shape
        (..., J_target, 3).

    Raises:
        ValueError: A joint of ``target`` has no counterpart in ``source``; the message names all of
            those. `shared_joints` has the others.
    """
    indices, found = shared_joints(source, target)
    missing = [name for joint, name in enumerate(target.joint_names) if joint not in found]
    if missing:
        raise ValueError(
            f"{source.name} has no counterpart for {', '.join(missing)} of {target.name}; "
            "shared_joints() gives the joints that both have"
        )
    return indices
