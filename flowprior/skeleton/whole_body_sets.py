"""Joint sets with hands and faces, one table per set."""

from flowprior.skeleton.joint_sets import BODY_25, COCO_17, SMPL_24, SMPL_45, build
from flowprior.skeleton.skeleton import Skeleton

__all__ = [
    "BODY_67",
    "COCO_WHOLEBODY_65",
    "COCO_WHOLEBODY_133",
    "HAND_21",
    "MANO_16",
    "MANO_21",
    "MHR_70",
    "SMPLH_52",
    "SMPLH_73",
    "SMPLX_55",
    "SMPLX_127",
]

SIDES = ("left", "right")

FINGERS = ("index", "middle", "pinky", "ring", "thumb")
"""The fingers in MANO's order, in which the little finger precedes the ring finger."""

HAND_JOINTS = 3 * len(FINGERS)
"""Joints of a hand that rotate, without the wrist."""

# smplx.joint_names calls the tip of a finger by the finger alone.
_FROM_THUMB = ("thumb", "index", "middle", "ring", "pinky")


def _tree(skeleton: Skeleton, joints: range | None = None) -> str:
    """The table of a set as `build` reads it."""
    names, parents = skeleton.joint_names, skeleton.parents
    return " ".join(
        names[joint] + (f"<{names[parents[joint]]}" if parents[joint] >= 0 else "")
        for joint in joints or range(skeleton.num_joints)
    )


def _hand(prefix: str, wrist: str) -> str:
    """The 15 joints of MANO below a wrist."""
    chains = [(wrist, *(f"{prefix}{finger}{n}" for n in (1, 2, 3))) for finger in FINGERS]
    return " ".join(f"{chain[n]}<{chain[n - 1]}" for chain in chains for n in (1, 2, 3))


def _tips(prefix: str) -> str:
    return " ".join(f"{prefix}{finger}<{prefix}{finger}3" for finger in _FROM_THUMB)


_BODY_22 = _tree(SMPL_24, range(22))
_HANDS = " ".join(_hand(f"{side}_", f"{side}_wrist") for side in SIDES)
_FACE_AND_FEET = _tree(SMPL_45, range(24, 35))
_SURFACE = " ".join((_FACE_AND_FEET, *(_tips(f"{side}_") for side in SIDES)))

SMPLH_52 = build("SMPLH-52", f"{_BODY_22} {_HANDS}")
"""The 52 joints of SMPL-H (Romero et al., *Embodied Hands*, 2017), in the order of its pose.

The 22 joints of the body, then 15 of the left and 15 of the right hand in MANO's order: index,
middle, **little**, ring finger, thumb, each from the knuckle outwards. The names are those of
``smplx.joint_names``. SMPL's rotations of the hands, joints 22 and 23, do not exist here.
"""


SMPLH_73 = build("SMPLH-73", f"{_BODY_22} {_HANDS} {_SURFACE}")
"""The 73 joints that ``smplx.SMPLH`` returns: SMPLH-52 and 21 vertices of the surface.

A name without a number, such as "left_index", is the tip of the finger.
"""


_JAW_AND_EYES = "jaw<head left_eye_smplhf<head right_eye_smplhf<head"

SMPLX_55 = build("SMPLX-55", f"{_BODY_22} {_JAW_AND_EYES} {_HANDS}")
"""The 55 joints of SMPL-X (Pavlakos et al., *Expressive Body Capture*, 2019).

Jaw and eyeballs lie between body and hands. "left_eye_smplhf" is the centre of the eyeball;
"left_eye" of `SMPLX_127` is a vertex of the lid.
"""


def _face(side: str) -> dict[str, str]:
    """Parents of the face landmarks of one side."""
    found = {f"eye_brow{n}": f"eye_brow{n + 1}" for n in (1, 2, 3, 4)} | {"eye_brow5": "=nose1"}
    found |= {"nose_1": "=nose_middle", "nose_2": "nose_1"}
    found |= {"eye1": "eye2", "eye2": "eye3", "eye3": "eye4", "eye4": "=nose1"}
    found |= {"eye5": "eye4", "eye6": "eye5"}
    found |= {"mouth_1": "mouth_2", "mouth_2": "mouth_3", "mouth_3": "=mouth_top"}
    found |= {"mouth_4": "=mouth_bottom", "mouth_5": "mouth_4"}
    found |= {"lip_1": "lip_2", "lip_2": "=lip_top", "lip_3": "=lip_bottom"}
    found |= {f"contour_{n}": f"contour_{n + 1}" for n in range(1, 8)}
    found |= {"contour_8": "=contour_middle"}
    return {
        f"{side}_{name}": parent[1:] if parent[0] == "=" else f"{side}_{parent}"
        for name, parent in found.items()
    }


_FACE_PARENTS = _face("left") | _face("right")
_FACE_PARENTS |= {"nose1": "nose", "nose2": "nose1", "nose3": "nose2", "nose4": "nose3"}
_FACE_PARENTS |= {"nose_middle": "nose4", "mouth_top": "nose_middle", "mouth_bottom": "mouth_top"}
_FACE_PARENTS |= {"lip_top": "mouth_top", "lip_bottom": "mouth_bottom", "contour_middle": "nose"}

# The 68 landmarks of iBUG's 300-W in their order, with the names of smplx.joint_names: the contour,
# then what does not move with the head's contour.
_CONTOUR = (
    *(f"right_contour_{n}" for n in range(1, 9)),
    "contour_middle",
    *(f"left_contour_{n}" for n in range(8, 0, -1)),
)
_INNER_FACE = (
    *(f"right_eye_brow{n}" for n in range(1, 6)),
    *(f"left_eye_brow{n}" for n in range(5, 0, -1)),
    *(f"nose{n}" for n in range(1, 5)),
    *("right_nose_2", "right_nose_1", "nose_middle", "left_nose_1", "left_nose_2"),
    *(f"right_eye{n}" for n in range(1, 7)),
    *(f"left_eye{n}" for n in (4, 3, 2, 1, 6, 5)),
    *("right_mouth_1", "right_mouth_2", "right_mouth_3", "mouth_top"),
    *("left_mouth_3", "left_mouth_2", "left_mouth_1", "left_mouth_5", "left_mouth_4"),
    *("mouth_bottom", "right_mouth_4", "right_mouth_5"),
    *("right_lip_1", "right_lip_2", "lip_top", "left_lip_2", "left_lip_1"),
    *("left_lip_3", "lip_bottom", "right_lip_3"),
)


def _landmarks(names: tuple[str, ...]) -> str:
    return " ".join(f"{name}<{_FACE_PARENTS[name]}" for name in names)


SMPLX_127 = build(
    "SMPLX-127", f"{_BODY_22} {_JAW_AND_EYES} {_HANDS} {_SURFACE} {_landmarks(_INNER_FACE)}"
)
"""The 127 joints that ``smplx.SMPLX`` returns: SMPLX-55, 21 vertices, 51 landmarks of the face.

The landmarks are points of triangles that the model file names. The 17 landmarks of the contour,
which ``smplx`` selects anew for every rotation of the head, are not part of the set.
"""


MANO_16 = build("MANO-16", f"wrist {_hand('', 'wrist')}")
"""The 16 joints of MANO (Romero et al., *Embodied Hands*, 2017), of either hand."""


MANO_21 = build("MANO-21", f"wrist {_hand('', 'wrist')} {_tips('')}")
"""MANO-16 and the five fingertips, which are vertices of its surface.

``smplx.MANO`` returns the 16 joints alone.
"""


HAND_21 = MANO_21.subset(
    "HAND-21",
    [
        0,
        *(
            MANO_21.index(name)
            for finger in _FROM_THUMB
            for name in (*(f"{finger}{n}" for n in (1, 2, 3)), finger)
        ),
    ],
)
"""The 21 keypoints of one hand that OpenPose and MediaPipe detect.

The wrist, then thumb, index, middle, ring and little finger from the base to the tip.
"""


# Fingers as COCO-WholeBody names them; joint 4 is the tip.
_COCO_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def _coco_hand(side: str) -> tuple[str, dict[str, str]]:
    """A hand in the order of HAND-21, and the meanings of its points."""
    pairs = [f"{side}_hand_root<{side}_wrist"]
    meanings = {f"{side}_hand_root": f"{side}_wrist"}
    for finger, name in zip(_COCO_FINGERS, _FROM_THUMB, strict=True):
        chain = [f"{side}_hand_root", *(f"{side}_{finger}{n}" for n in (1, 2, 3, 4))]
        pairs += [f"{chain[n]}<{chain[n - 1]}" for n in (1, 2, 3, 4)]
        meanings |= {f"{side}_{finger}{n}": f"{side}_{name}{n}" for n in (1, 2, 3)}
        meanings[f"{side}_{finger}4"] = f"{side}_{name}"
    return " ".join(pairs), meanings


_LEFT_HAND, _RIGHT_HAND = (_coco_hand(side) for side in SIDES)
_FEET = " ".join(
    f"{side}_big_toe<{side}_ankle {side}_small_toe<{side}_big_toe {side}_heel<{side}_ankle"
    for side in SIDES
)

COCO_WHOLEBODY_133 = build(
    "COCO-WholeBody-133",
    f"{_tree(COCO_17)} {_FEET} {_landmarks(_CONTOUR + _INNER_FACE)} "
    f"{_LEFT_HAND[0]} {_RIGHT_HAND[0]}",
    _LEFT_HAND[1] | _RIGHT_HAND[1],
)
"""The 133 keypoints of COCO-WholeBody (Jin et al., *Whole-Body Human Pose Estimation*, 2020).

COCO's 17 (0 to 16), feet (17 to 22), 68 landmarks of the face (23 to 90), left (91 to 111) and
right hand (112 to 132). The order follows ``coco_wholebody.py`` of ``open-mmlab/mmpose``, the names
of body, feet and hands too; the face has the names of ``smplx``. The bones are ours.
"""


COCO_WHOLEBODY_65 = COCO_WHOLEBODY_133.subset(
    "COCO-WholeBody-65", [*range(23), *range(91, 133)], root=0
)
"""`COCO_WHOLEBODY_133` without the face: body, feet (17 to 22), left (23 to 43), right hand."""


BODY_67 = build(
    "BODY-67",
    f"{_tree(BODY_25)} {_LEFT_HAND[0]} {_RIGHT_HAND[0]}",
    {"mid_hip": "pelvis", **_LEFT_HAND[1], **_RIGHT_HAND[1]},
)
"""OpenPose's BODY_25 with both hands: ``pose``, ``hand_left`` and ``hand_right`` of its files."""


def _mhr_hand(side: str) -> str:
    fingers = [
        (f"{side}_wrist", *(f"{side}_{finger}{n}" for n in (1, 2, 3)), f"{side}_{finger}")
        for finger in _FROM_THUMB
    ]
    # From the tip to the base.
    return " ".join(f"{chain[n]}<{chain[n - 1]}" for chain in fingers for n in (4, 3, 2, 1))


MHR_70 = build(
    "MHR-70",
    f"""
    nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<neck right_shoulder<neck left_elbow<left_shoulder right_elbow<right_shoulder
    left_hip<neck right_hip<neck left_knee<left_hip right_knee<right_hip
    left_ankle<left_knee right_ankle<right_knee
    left_big_toe<left_ankle left_small_toe<left_big_toe left_heel<left_ankle
    right_big_toe<right_ankle right_small_toe<right_big_toe right_heel<right_ankle
    {_mhr_hand("right")} right_wrist<right_elbow {_mhr_hand("left")} left_wrist<left_elbow
    left_olecranon<left_elbow right_olecranon<right_elbow
    left_cubital_fossa<left_elbow right_cubital_fossa<right_elbow
    left_acromion<left_shoulder right_acromion<right_shoulder neck<nose
    """,
)
"""The 70 keypoints of SAM 3D Body, in the order of its ``mhr70.py``.

The **right** hand comes first, and each finger runs from the tip to the base. The names are those
of the other sets; the bones are ours.
"""
