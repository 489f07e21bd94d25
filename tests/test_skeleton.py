import dataclasses
import itertools

import pytest

from flowprior.skeleton import H36M_17, SMPL_24, Skeleton

SKELETONS = {skeleton.name: skeleton for skeleton in (SMPL_24, H36M_17)}


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_flip_exchanges_left_and_right_names(skeleton):
    for joint, partner in enumerate(skeleton.flip):
        name = skeleton.joint_names[joint]
        mirrored = {"left": name.replace("left", "right"), "righ": name.replace("right", "left")}
        assert skeleton.joint_names[partner] == mirrored.get(name[:4], name)


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
        (("a", "b", "c"), (-1, 2, 0), (0, 1, 2), "parent 2 for joint 1"),
        (("a", "b"), (-1, -1), (0, 1), "parent -1 for joint 1"),
        (("a", "b"), (-1, -2), (0, 1), "parent -2 for joint 1"),
        (("a", "b", "c"), (-1, 0, 0), (1, 2, 0), "undoes itself"),
        (("a", "b"), (-1, 0), (0, 7), "undoes itself"),
    ],
)
def test_inconsistent_tables_are_refused(names, parents, flip, message):
    with pytest.raises(ValueError, match=message):
        Skeleton("odd", names, parents, flip)
