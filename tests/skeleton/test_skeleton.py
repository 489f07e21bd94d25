import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprior.skeleton import (
    BODY_25,
    COCO_17,
    COCO_18,
    H36M_16_NO_HIP,
    H36M_16_NO_NOSE,
    H36M_17,
    H36M_32,
    LSP_14,
    MPI_INF_3DHP_17,
    MPII_16,
    PROHMR_19,
    PROHMR_44,
    PROHMR_EVAL_3DHP_17,
    PROHMR_EVAL_14,
    PROHMR_EVAL_H36M_17,
    PROHMR_FITTING_IGNORES,
    PROHMR_LIFTING_2D,
    PROHMR_LIFTING_3D,
    PROHMR_PELVIS,
    SKELETONS,
    SMPL_24,
    SMPL_45,
    SPIN_H36M_TO_LSP_14,
    Skeleton,
    mapping,
    shared_joints,
)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_flip_exchanges_left_and_right_names(skeleton):
    for joint, partner in enumerate(skeleton.flip):
        name = skeleton.joint_names[joint]
        mirrored = {"left": name.replace("left", "right"), "righ": name.replace("right", "left")}
        assert skeleton.joint_names[partner] == mirrored.get(name[:4], name)
        assert (partner == joint) == (name[:4] not in mirrored)
        assert skeleton.flip[partner] == joint


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_every_joint_leads_to_the_root(skeleton):
    assert skeleton.parents[skeleton.root] == -1
    for joint in range(skeleton.num_joints):
        for _ in range(skeleton.num_joints):
            joint = joint if joint == skeleton.root else skeleton.parents[joint]
        assert joint == skeleton.root


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_flip_keeps_the_tree(skeleton):
    mirrored = {(skeleton.flip[parent], skeleton.flip[child]) for parent, child in skeleton.bones}
    assert mirrored == set(skeleton.bones)


@pytest.mark.parametrize(
    ("skeleton", "joints", "chain"),
    [
        (SMPL_24, 24, ("left_wrist", "left_elbow", "left_shoulder", "left_collar", "spine3")),
        (SMPL_24, 24, ("right_foot", "right_ankle", "right_knee", "right_hip", "pelvis")),
        (H36M_17, 17, ("right_wrist", "right_elbow", "right_shoulder", "thorax", "spine", "hip")),
        (H36M_17, 17, ("left_foot", "left_knee", "left_hip", "hip")),
        (H36M_32, 32, ("right_wrist", "right_elbow", "right_shoulder", "right_collar", "spine")),
        (SMPL_45, 45, ("left_pinky", "left_hand", "left_wrist")),
        (SMPL_45, 45, ("right_heel", "right_ankle", "right_knee")),
        (BODY_25, 25, ("right_ear", "right_eye", "nose", "neck", "mid_hip")),
        (COCO_17, 17, ("left_ankle", "left_knee", "left_hip", "left_shoulder")),
        (COCO_18, 18, ("left_ankle", "left_knee", "left_hip", "neck")),
        (LSP_14, 14, ("right_ankle", "right_knee", "right_hip", "neck")),
        (MPII_16, 16, ("left_wrist", "left_elbow", "left_shoulder", "thorax", "spine", "hip")),
        (MPI_INF_3DHP_17, 17, ("head_top", "head", "neck", "spine", "pelvis")),
        (PROHMR_44, 44, ("head_top_lsp", "head_h36m", "jaw_h36m", "neck_lsp", "thorax_mpii")),
        (PROHMR_44, 44, ("right_ankle_lsp", "right_knee_lsp", "right_hip_lsp", "pelvis_mpii")),
        (PROHMR_44, 44, ("pelvis_mpii", "mid_hip")),
        (H36M_16_NO_HIP, 16, ("left_foot", "left_knee", "left_hip", "spine")),
        (H36M_16_NO_NOSE, 16, ("head", "thorax", "spine", "hip")),
        (PROHMR_LIFTING_3D, 16, ("left_hip_lsp", "spine_h36m")),
    ],
)
def test_limbs_hang_where_they_should(skeleton, joints, chain):
    assert skeleton.num_joints == joints
    assert len(skeleton.bones) == joints - 1
    names = skeleton.joint_names
    for child, parent in itertools.pairwise(chain):
        assert names[skeleton.parents[names.index(child)]] == parent


def test_skeletons_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMPL_24.name = "other"


@pytest.mark.parametrize(
    ("names", "parents", "flip", "message"),
    [
        (("a", "b"), (-1, 0), (0,), "1 flip indices"),
        (("a", "a"), (-1, 0), (0, 1), "distinct joint names"),
        (("a", "b", "c"), (-1, 2, 1), (0, 1, 2), "parent 2 of joint 1 does not lead"),
        (("a", "b"), (-1, -1), (0, 1), "exactly one root.*got 2"),
        (("a", "b"), (1, 0), (0, 1), "exactly one root.*got 0"),
        (("a", "b"), (-1, -2), (0, 1), "parent -2 of joint 1"),
        (("a", "b"), (-1, 2), (0, 1), "parent 2 of joint 1"),
        (("a", "b", "c"), (-1, 0, 0), (1, 2, 0), "own inverse"),
        (("a", "b"), (-1, 0), (0, 7), "own inverse"),
    ],
)
def test_inconsistent_tables_are_refused(names, parents, flip, message):
    with pytest.raises(ValueError, match=message):
        Skeleton("odd", names, parents, flip)


def test_meanings_are_the_names_unless_given():
    assert SMPL_24.meanings == SMPL_24.joint_names
    with pytest.raises(ValueError, match="1 meanings"):
        Skeleton("odd", ("a", "b"), (-1, 0), (0, 1), ("a",))


def test_a_skeleton_shows_itself_in_a_line():
    assert repr(PROHMR_44) == "<Skeleton 'PROHMR-44' of 44 joints>"


def test_index_finds_a_joint_or_names_those_there_are():
    assert PROHMR_44.index("pelvis_mpii") == 39 == PROHMR_PELVIS
    with pytest.raises(ValueError, match="COCO-17 has no joint 'neck'; it has nose, left_eye"):
        COCO_17.index("neck")


def test_subset_hangs_joints_on_the_nearest_ancestor_that_is_left():
    arms = SMPL_24.subset("arms", [SMPL_24.index(name) for name in ("spine3", *ARMS)])
    assert arms.joint_names == ("spine3", *ARMS)
    assert arms.parents == (-1, 0, 0, 1, 2)
    assert arms.flip == (0, 2, 1, 4, 3)


ARMS = ("left_shoulder", "right_shoulder", "left_wrist", "right_wrist")


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        ((0, 1, 1, 2), "expected distinct joints of SMPL-24"),
        ((0, 24), "0 to 23"),
        ((0, 1), "together with its mirror image"),
        ((1, 2), "exactly one root.*got 2"),
    ],
)
def test_subsets_that_are_no_skeleton_are_refused(joints, message):
    with pytest.raises(ValueError, match=message):
        SMPL_24.subset("part", joints)


# The tables as they are published, index by index.


def test_flips_are_the_published_permutations():
    body = [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11]
    body += [16, 15, 18, 17, 22, 23, 24, 19, 20, 21]
    extra = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18]
    assert list(BODY_25.flip) == body
    assert list(PROHMR_19.flip) == extra
    assert list(PROHMR_44.flip) == body + [25 + joint for joint in extra]
    pairs = ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23))
    assert {(a, b) for a, b in enumerate(SMPL_24.flip) if a < b} == set(pairs)
    left, right = (4, 5, 6, 11, 12, 13), (1, 2, 3, 14, 15, 16)
    assert {(a, b) for a, b in enumerate(H36M_17.flip) if a > b} >= {(4, 1), (5, 2), (6, 3)}
    assert [H36M_17.flip[joint] for joint in left] == list(right)


def test_parents_are_the_published_ones():
    smpl = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    assert list(SMPL_24.parents) == smpl == list(SMPL_45.parents[:24])
    assert list(H36M_17.parents) == [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15]
    h36m = [-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14, 12]
    h36m += [16, 17, 18, 19, 20, 19, 22, 12, 24, 25, 26, 27, 28, 27, 30]
    assert list(H36M_32.parents) == h36m


H36M_TO_MPII = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13]
H36M_TO_LSP = [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]
SMPLX_TO_OPENPOSE = [24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, *range(25, 35)]


@pytest.mark.parametrize(
    ("source", "target", "indices"),
    [
        (SMPL_45, SMPL_24, range(24)),
        (SMPL_45, BODY_25, SMPLX_TO_OPENPOSE),
        (H36M_32, H36M_17, [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]),
        (H36M_17, H36M_16_NO_HIP, range(1, 17)),
        (H36M_17, H36M_16_NO_NOSE, [*range(9), *range(10, 17)]),
        (H36M_17, MPII_16, H36M_TO_MPII),
        (H36M_17, LSP_14, H36M_TO_LSP),
        (BODY_25, COCO_18, [*range(8), *range(9, 19)]),
        (COCO_18, COCO_17, [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]),
        (PROHMR_44, BODY_25, range(25)),
        (PROHMR_44, PROHMR_19, range(25, 44)),
        (PROHMR_44, LSP_14, range(25, 39)),
        (PROHMR_19, PROHMR_LIFTING_2D, [*range(13), 14, 16, 17, 18]),
        (PROHMR_19, PROHMR_LIFTING_3D, [*range(13), 16, 17, 18]),
        (
            H36M_32,
            PROHMR_LIFTING_2D,
            [3, 2, 1, 6, 7, 8, 27, 26, 25, 17, 18, 19, 24, 11, 12, 14, 15],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Skeleton) else "",
)
def test_mappings_are_the_published_ones(source, target, indices):
    assert mapping(source, target) == tuple(indices)


def test_the_human36m_joints_land_where_prohmr_puts_them():
    # h36m_idx and global_idx of ProHMR's preprocessing
    h36m_idx = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
    global_idx = [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]
    extra = dict(zip(global_idx, h36m_idx, strict=True))
    for target in (PROHMR_LIFTING_2D, PROHMR_LIFTING_3D):
        expected = tuple(extra[joint] for joint in mapping(PROHMR_19, target))
        assert mapping(H36M_32, target) == expected
    # and back: which of the 19 is which of the 17
    back = {h36m: joint for joint, h36m in extra.items()} | {0: 14, 13: 12}
    assert mapping(PROHMR_19, H36M_17) == tuple(back[j] for j in mapping(H36M_32, H36M_17))


def test_prohmr_evaluates_these_joints():
    names = np.array(PROHMR_44.joint_names)
    assert (*range(25, 38), 43) == PROHMR_EVAL_14
    assert (*range(25, 38), 39, 41, 42, 43) == PROHMR_EVAL_H36M_17
    assert (*range(25, 39), 39, 41, 42) == PROHMR_EVAL_3DHP_17
    assert set(PROHMR_EVAL_H36M_17) == set(mapping(PROHMR_44, H36M_17))
    assert set(PROHMR_EVAL_3DHP_17) == set(mapping(PROHMR_44, MPI_INF_3DHP_17))
    assert {name.split("_")[1] for name in names[[*PROHMR_FITTING_IGNORES]]} == {"hip", "mpii"}


def test_spins_table_is_for_a_regressor_with_the_left_leg_first():
    left_first = [H36M_17.flip[joint] if 1 <= joint <= 6 else joint for joint in range(17)]
    assert tuple(left_first[joint] for joint in SPIN_H36M_TO_LSP_14) == mapping(H36M_17, LSP_14)
    assert mapping(H36M_17, LSP_14) != SPIN_H36M_TO_LSP_14
    # joints17_idx of SPIN's preprocessing of MPI-INF-3DHP, into the same left-first order
    joints17_idx = [14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
    ours = mapping(MPI_INF_3DHP_17, H36M_17)
    assert joints17_idx == [ours[joint] for joint in left_first]


def test_the_order_is_that_of_smplx():
    selector = pytest.importorskip("smplx.vertex_joint_selector")
    names = pytest.importorskip("smplx.vertex_ids").vertex_ids["smplh"]
    chosen = selector.VertexJointSelector(vertex_ids=names).extra_joints_idxs.tolist()
    short = {"right_eye": "reye", "left_eye": "leye", "right_ear": "rear", "left_ear": "lear"}
    for name, vertex in zip(SMPL_45.joint_names[24:], chosen, strict=True):
        side, _, part = name.partition("_")
        toes = side[0].upper() + "".join(word.capitalize() for word in part.split("_"))
        assert vertex in {names.get(key) for key in (name, short.get(name), side[0] + part, toes)}


# What mappings have in common.

sets = st.sampled_from(list(SKELETONS.values()))


@given(sets)
def test_a_set_maps_to_itself_in_place(skeleton):
    assert mapping(skeleton, skeleton) == tuple(range(skeleton.num_joints))


@given(sets, sets)
def test_mappings_commute_with_the_flip(source, target):
    here, there = shared_joints(source, target)
    assert len(here) == len(there)
    assert list(there) == sorted(set(there))
    found = dict(zip(there, here, strict=True))
    for joint, index in found.items():
        if source == H36M_32 and target.joint_names[joint] == "neck_lsp" and index == 24:
            continue  # ProHMR reads the neck off the right one of two collars in the same place
        assert found[target.flip[joint]] == source.flip[index]


@given(sets, sets)
def test_shared_joints_are_the_mapping_where_it_is_whole(source, target):
    here, there = shared_joints(source, target)
    if len(there) == target.num_joints:
        assert mapping(source, target) == here
    else:
        missing = [name for j, name in enumerate(target.joint_names) if j not in there]
        with pytest.raises(ValueError, match=rf"no counterpart for {', '.join(missing)} of"):
            mapping(source, target)


def test_feet_are_not_ankles():
    here, there = shared_joints(SMPL_24, H36M_17)
    found = {
        H36M_17.joint_names[j]: SMPL_24.joint_names[i] for i, j in zip(here, there, strict=True)
    }
    assert found["left_foot"] == "left_ankle"
    assert found["hip"] == "pelvis"
    assert not {"head", "nose", "spine", "thorax"} & set(found)
    with pytest.raises(
        ValueError, match=r"SMPL-24 has no counterpart for spine, thorax, nose, head"
    ):
        mapping(SMPL_24, H36M_17)
