"""The geometry of the hands of the embedded body; anny itself is not needed."""

import numpy as np
from scipy.spatial.transform import Rotation

from tools import embedded_hands


def hands(people=3, seed=0):
    """Joints (n, 2, 5, 3, 3) and tips (n, 2, 5, 3) of bent fingers, wrists (n, 2, 3, 3)."""
    rng = np.random.default_rng(seed)
    joints = np.zeros((people, 2, 5, 3, 3))
    steps = rng.normal([0.03, -0.01, 0.0], 0.004, (people, 2, 5, 3, 3))
    steps[:, 1, ..., 0] *= -1
    joints[..., 0, :] = rng.normal(0, 0.03, (people, 2, 5, 3))
    joints[..., 1, :] = joints[..., 0, :] + steps[..., 0, :]
    joints[..., 2, :] = joints[..., 1, :] + steps[..., 1, :]
    tips = joints[..., 2, :] + steps[..., 2, :]
    wrists = Rotation.random(2 * people, random_state=seed).as_matrix().reshape(people, 2, 3, 3)
    return joints, tips, wrists


def chain(joints, tips, wrists, flat):
    """Bones (n, 2, 5, 3, 3) after the rotations."""
    ends = np.concatenate([joints[..., 1:, :], tips[..., None, :]], axis=-2)
    turned = np.einsum("nsij,nsfkj->nsfki", wrists, ends - joints)
    return turned, np.einsum("nsfkij,nsfkj->nsfki", flat, turned)


def test_flat_fingers_are_straight_and_level():
    joints, tips, wrists = hands()
    flat = embedded_hands.flat_rotations(joints, tips, wrists)
    before, after = chain(joints, tips, wrists, flat)
    unit = after / np.linalg.norm(after, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit, np.broadcast_to(unit[..., :1, :], unit.shape), atol=1e-9)
    thumb = list(embedded_hands.FINGERS).index("thumb")
    np.testing.assert_allclose(unit[:, :, :thumb, :, 1], 0, atol=1e-9)
    # Seen from above a finger keeps its direction; the thumb keeps it altogether.
    whole = before.sum(axis=-2)
    level = whole * [1, 0, 1]
    level[:, :, thumb] = whole[:, :, thumb]
    level /= np.linalg.norm(level, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit[..., 0, :], level, atol=1e-9)


def test_relaxed_hands_undo_the_flattening():
    joints, tips, wrists = hands(people=1)
    flat = embedded_hands.flat_rotations(joints, tips, wrists)
    found = embedded_hands.relaxed_hands(flat)
    before, after = chain(joints, tips, wrists, flat)
    for number, side in enumerate("lr"):
        local = found[f"hands_mean{side}"].reshape(5, 3, 3)
        for finger in range(5):
            world = Rotation.identity()
            for joint in range(3):
                world = world * Rotation.from_rotvec(local[finger, joint])
                bone = world.apply(after[0, number, finger, joint])
                np.testing.assert_allclose(bone, before[0, number, finger, joint], atol=1e-6)


def test_frames_are_rotations():
    pairs = np.random.default_rng(1).normal(size=(6, 2, 3))
    found = embedded_hands.frames(pairs)
    products = found @ found.transpose(0, 2, 1)
    np.testing.assert_allclose(products, np.tile(np.eye(3), (6, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(found), 1)
    along = (found[:, :, 0] * pairs[:, 0]).sum(axis=1)
    np.testing.assert_allclose(along, np.linalg.norm(pairs[:, 0], axis=1))
    assert ((found[:, :, 1] * pairs[:, 1]).sum(axis=1) > 0).all()


def test_bones_have_annys_names():
    assert embedded_hands.bone("left", "index", 1) == "finger2-1.L"
    assert embedded_hands.bone("right", "thumb", 3) == "finger1-3.R"
