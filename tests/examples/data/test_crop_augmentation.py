import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.data.augment import mirror, mirror_rotvecs
from examples.data.crop_augmentation import (
    Augmentation,
    AugmentationSettings,
    augment_boxes,
    augment_keypoints_3d,
    augment_pose,
    draw_augmentation,
)
from examples.data.kinematics import joints17_from_rotations

SEEDS = st.integers(0, 2**32 - 1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(batch, seed=0, **settings):
    return draw_augmentation(batch, generator(seed), AugmentationSettings(**settings))


def only(batch, **changes):
    """No augmentation but what is given."""
    nothing = Augmentation.none(batch)
    return Augmentation(**{**vars(nothing), **changes})


# --- the draw ------------------------------------------------------------------------------------


def test_the_draw_is_prohmrs():
    drawn = draw(100_000)
    normal_beyond_one = math.erfc(math.sqrt(0.5))

    def share(event):
        return event.double().mean().item()

    assert drawn.scale.min() == pytest.approx(0.7)
    assert drawn.scale.max() == pytest.approx(1.3)
    edge = (drawn.scale - 1).abs() > 0.29999
    assert share(edge) == pytest.approx(normal_beyond_one, abs=0.006)
    turned = drawn.rotation != 0
    assert share(turned) == pytest.approx(0.6, abs=0.006)
    degrees = drawn.rotation[turned].rad2deg()
    assert degrees.abs().max() == pytest.approx(60)
    assert share(degrees.abs() > 59.99) == pytest.approx(math.erfc(math.sqrt(2)), abs=0.004)
    assert share(degrees.abs() < 30) == pytest.approx(1 - normal_beyond_one, abs=0.008)
    assert share(drawn.flip) == pytest.approx(0.5, abs=0.006)
    assert share(drawn.extreme) == pytest.approx(0.1, abs=0.004)
    assert drawn.colour.min() >= 0.8
    assert drawn.colour.max() <= 1.2
    assert torch.histc(drawn.colour, 8, 0.8, 1.2).min() > 0.98 * drawn.colour.numel() / 8
    assert drawn.translation.abs().max() == pytest.approx(0.02)
    assert share(drawn.translation.abs() > 0.01999) == pytest.approx(normal_beyond_one, abs=0.006)
    assert torch.histc(drawn.extreme_choice, 10, 0, 1).min() > 0.95 * 10_000
    # No number is used twice.
    columns = [drawn.scale, drawn.rotation, drawn.flip, *drawn.colour.T, *drawn.translation.T]
    columns += [drawn.extreme, drawn.extreme_choice, drawn.rotation.abs() > 0]
    correlation = torch.corrcoef(torch.stack([column.double() for column in columns]))
    assert (correlation - torch.eye(len(columns))).abs().max() < 0.02


def test_settings_say_how_much():
    nothing = AugmentationSettings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert nothing.reach == 0.5
    drawn, none = draw_augmentation(50, generator(), nothing), Augmentation.none(50)
    for name in ("scale", "rotation", "flip", "colour", "translation", "extreme"):
        torch.testing.assert_close(getattr(drawn, name), getattr(none, name))
    much = draw(1000, scale=0.5, rotation=math.pi, rotation_probability=1.0, flip_probability=1.0)
    assert much.flip.all()
    assert (much.rotation != 0).all()
    assert much.scale.max() == 1.5


def test_a_generator_decides_everything():
    first, again, other = draw(20, 1), draw(20, 1), draw(20, 2)
    assert torch.equal(first.colour, again.colour)
    assert torch.equal(first.rotation, again.rotation)
    assert not torch.equal(first.colour, other.colour)
    before = torch.get_rng_state()
    draw(20)
    assert torch.equal(before, torch.get_rng_state())


def test_one_generator_per_person_makes_draws_independent():
    together = draw_augmentation(4, [generator(seed) for seed in (3, 1, 4, 1)])
    alone = draw_augmentation(1, [generator(4)])
    for name, value in vars(alone).items():
        assert torch.equal(vars(together[2:3])[name], value)
    assert torch.equal(together.colour[1], together.colour[3])
    with pytest.raises(ValueError, match="expected 3 generators, at least one, got 2"):
        draw_augmentation(3, [generator(), generator()])


def test_augmentations_are_checked():
    with pytest.raises(ValueError, match=r"expected colour \(4, 3\), got \(4,\)"):
        only(4, colour=torch.ones(4))
    with pytest.raises(ValueError, match="expected flip of bool"):
        only(4, flip=torch.ones(4))
    assert len(draw(5)[torch.tensor([0, 3])]) == 2
    assert all(value.is_meta for value in vars(draw(5).to("meta")).values())
    assert len(draw(0)) == 0


# --- boxes ---------------------------------------------------------------------------------------

# As tables of indices, after the original's.
LEGS = [10, 11, 13, 14, 19, 20, 21, 22, 23, 24, 25, 26, 29, 30]
BELOW_SHOULDERS = [3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 19, 20, 21, 22, 23, 24]
BELOW_SHOULDERS += [25 + joint for joint in (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 14, 15, 16)]
BELOW_NECK = [*BELOW_SHOULDERS, 33, 34]
FULL = ([2, 3, 4, 5, 6, 7, 10, 11, 13, 14], [33, 32, 31, 34, 35, 36, 26, 25, 29, 30])
LOWER = [10, 11, 13, 14, 25, 26, 29, 30]
UPPER = [0, 1, 15, 16, 17, 18, 33, 34, 37, 38, 42, 43]


def extreme_box_slowly(center, side, keypoints, choice):
    """One person at a time, in numpy."""
    conf = keypoints[:, 2]
    if (np.maximum(conf[FULL[0]], conf[FULL[1]]) > 0).all():
        kind = 0 if choice < 0.7 else 1 if choice < 0.9 else 2
    elif (conf[LOWER] <= 0).all() and (conf[UPPER] > 0).sum() >= 2:
        kind = 1 if choice < 0.9 else 2
    else:
        return center, side
    left = np.setdiff1d(np.arange(44), (LEGS, BELOW_SHOULDERS, BELOW_NECK)[kind])
    left = left[conf[left] > 0]
    if conf[left].sum() <= 1:
        return center, side
    points = keypoints[left, :2]
    extent = (points.max(0) - points.min(0)).max()
    if extent == 0:
        return center, side
    return (points.max(0) + points.min(0)) / 2, 1.2 * (1.1, 1.2, 1.3)[kind] * extent


def people(seed, batch):
    """Whole bodies, upper bodies, a few joints, nobody."""
    random = np.random.default_rng(seed)
    keypoints = random.uniform(0, 500, (batch, 44, 3))
    keypoints[..., 2] = random.uniform(0.1, 1, (batch, 44))
    for row in range(batch):
        kind = row % 6
        if kind == 1:
            keypoints[row, LOWER, 2] = 0
        elif kind == 2:
            keypoints[row, random.permutation(44)[:30], 2] = 0
        elif kind == 3:
            keypoints[row, 25:, 2] = 0  # OpenPose alone, sees a whole body
        elif kind == 4:  # one joint above the chest, which is not enough
            keypoints[row, np.setdiff1d(np.arange(44), [0, 2, 5]), 2] = 0
        elif kind == 5:
            keypoints[row, random.permutation(44)[: 42 + row % 3], 2] = 0
            keypoints[row, LOWER, 2] = 0
    keypoints[keypoints[..., 2] == 0, :2] = np.nan
    return keypoints


@given(SEEDS)
def test_extreme_boxes_are_those_of_a_slow_implementation(seed):
    keypoints = people(seed, 30)
    random = np.random.default_rng(seed)
    center, side = random.uniform(0, 500, (30, 2)), random.uniform(50, 400, 30)
    choice = random.uniform(size=30)
    augmentation = only(
        30, extreme=torch.ones(30, dtype=torch.bool), extreme_choice=torch.from_numpy(choice)
    )
    tensors = [torch.from_numpy(each) for each in (center, side, keypoints)]
    centers, sides = augment_boxes(*tensors, augmentation)
    for row in range(30):
        expected = extreme_box_slowly(center[row], side[row], keypoints[row], choice[row])
        np.testing.assert_allclose(centers[row], expected[0], rtol=1e-9)
        assert sides[row].item() == pytest.approx(expected[1], rel=1e-6)
    untouched = augment_boxes(*tensors, only(30))
    assert torch.equal(untouched[0], tensors[0])
    assert torch.equal(untouched[1], tensors[1])


def test_doubtful_keypoints_change_no_extreme_box():
    clear = torch.from_numpy(people(0, 30)).nan_to_num()
    doubtful = clear.clone()
    doubtful[clear[..., 2] == 0] = torch.tensor([-4000.0, 0.0, 0.1], dtype=clear.dtype)
    extreme = only(30, extreme=torch.ones(30, dtype=torch.bool))
    center, side = torch.zeros(30, 2), torch.ones(30)
    for found, expected in zip(
        augment_boxes(center, side, doubtful, extreme),
        augment_boxes(center, side, clear, extreme),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_shares_of_extreme_crops():
    keypoints = torch.from_numpy(people(0, 2)).repeat_interleave(2000, dim=0)
    choice = torch.linspace(0, 1, 2001)[:-1].repeat(2)
    augmentation = only(4000, extreme=torch.ones(4000, dtype=torch.bool), extreme_choice=choice)
    _, side = augment_boxes(torch.zeros(4000, 2), torch.ones(4000), keypoints, augmentation)
    for rows, shares in ((side[:2000], [0.7, 0.2, 0.1]), (side[2000:], [0.9, 0.1])):
        values, counts = rows.unique_consecutive(return_counts=True)
        assert len(values) == len(shares)
        torch.testing.assert_close(counts / 2000, torch.tensor(shares), atol=0.001, rtol=0)


def test_boxes_stay_where_a_part_has_no_size():
    keypoints = torch.zeros(1, 44, 3)
    keypoints[0, FULL[0], 2] = 1.0
    keypoints[0, FULL[0][2:], 0] = torch.arange(8.0)
    keypoints[0, [2, 5], :2] = 7.0  # the shoulders lie in one place
    augmentation = only(1, extreme=torch.tensor([True]), extreme_choice=torch.tensor([0.8]))
    box = torch.full((1, 2), 3.0), torch.full((1,), 9.0)
    assert all(map(torch.equal, augment_boxes(*box, keypoints, augmentation), box))


# --- labels --------------------------------------------------------------------------------------


def rotation_about_z(angle):
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


@given(SEEDS)
def test_poses_and_their_joints_are_augmented_alike(seed):
    augmentation = draw(12, seed)
    theta = torch.randn(12, 24, 3, generator=generator(seed), dtype=torch.float64)
    root, body = augment_pose(theta[:, 0], theta[:, 1:].flatten(1), augmentation)
    augmented = torch.cat([root[:, None], body.unflatten(-1, (23, 3))], dim=1)
    joints = joints17_from_rotations(theta)
    joints = torch.where(augmentation.flip[:, None, None], mirror(joints), joints)
    turned = joints @ rotation_about_z(-augmentation.rotation.double()).mT
    torch.testing.assert_close(joints17_from_rotations(augmented), turned)


@given(SEEDS)
def test_flips_are_those_of_mirror_rotvecs(seed):
    theta = 3 * torch.randn(6, 24, 3, generator=generator(seed))
    flip = torch.arange(6) % 2 == 0
    root, body = augment_pose(theta[:, 0], theta[:, 1:].flatten(1), only(6, flip=flip))
    expected = torch.where(flip[:, None, None], mirror_rotvecs(theta), theta).flatten(1)
    assert torch.equal(torch.cat([root, body], dim=1), expected)


# After the original's tables: columns of the 69 and of the 44.
BODY_FLIP = [2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
BODY_25_FLIP = [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17]
BODY_25_FLIP += [22, 23, 24, 19, 20, 21]
EXTRA_FLIP = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18]
FLIP = BODY_25_FLIP + [25 + joint for joint in EXTRA_FLIP]


def test_flips_use_the_originals_permutations():
    flip = torch.ones(1, dtype=torch.bool)
    body = torch.randn(1, 23, 3)
    _, flipped = augment_pose(torch.zeros(1, 3), body.flatten(1), only(1, flip=flip))
    order = torch.tensor(BODY_FLIP) - 1
    expected = body[:, order] * torch.tensor([1.0, -1.0, -1.0])
    assert torch.equal(flipped, expected.flatten(1))
    keypoints = torch.rand(1, 44, 4)
    expected = keypoints[:, FLIP] * torch.tensor([-1.0, 1.0, 1.0, 1.0])
    assert torch.equal(augment_keypoints_3d(keypoints, only(1, flip=flip)), expected)


@given(SEEDS, st.booleans())
def test_twice_flipped_and_turned_back_is_where_it_was(seed, flip):
    angle = 2 * torch.rand(5, generator=generator(seed)) - 1
    there = only(5, rotation=angle, flip=torch.full((5,), flip))
    # A mirrored turn is undone by the same turn.
    back = only(5, rotation=angle if flip else -angle, flip=torch.full((5,), flip))
    keypoints = torch.rand(5, 44, 4, generator=generator(seed))
    again = augment_keypoints_3d(augment_keypoints_3d(keypoints, there), back)
    torch.testing.assert_close(again, keypoints)
    theta = 0.7 * torch.randn(5, 72, generator=generator(seed))
    pose = augment_pose(*augment_pose(theta[:, :3], theta[:, 3:], there), back)
    torch.testing.assert_close(torch.cat(pose, dim=1), theta, rtol=1e-4, atol=1e-5)


@given(SEEDS)
def test_unseen_keypoints_are_cleared(seed):
    augmentation = draw(8, seed)
    keypoints = torch.randn(8, 44, 4, generator=generator(seed))
    keypoints[..., 3] = torch.rand(8, 44, generator=generator(seed)) - 0.5
    keypoints[..., 3].clamp_(min=0)
    clean = augment_keypoints_3d(keypoints, augmentation)
    keypoints[..., :3].masked_fill_(keypoints[..., 3:] == 0, torch.nan)
    dirty = augment_keypoints_3d(keypoints, augmentation)
    assert torch.equal(dirty, clean)
    assert (dirty[dirty[..., 3] == 0] == 0).all()


def test_unrotated_crops_are_unchanged():
    long = torch.tensor([[0.0, 4.0, 0.0], [0.0, 4.0, 0.0]])
    augmentation = only(2, rotation=torch.tensor([0.0, 0.1]))
    root, _ = augment_pose(long, torch.zeros(2, 69), augmentation)
    assert torch.equal(root[0], long[0])
    assert root[1].norm() < math.pi


def test_bad_pose_does_not_affect_others():
    augmentation = draw(6, rotation_probability=1.0)
    pose = torch.randn(6, 3), torch.randn(6, 69)
    clean = augment_pose(*pose, augmentation)
    pose[0][2], pose[1][2] = torch.nan, torch.nan
    bad = augment_pose(*pose, augmentation)
    others = [0, 1, 3, 4, 5]
    for ours, theirs in zip(bad, clean, strict=True):
        assert torch.equal(ours[others], theirs[others])


def test_other_shapes_are_refused():
    augmentation = draw(2)
    with pytest.raises(ValueError, match=r"keypoints_3d \(2, 44, 4\), got \(2, 44, 3\)"):
        augment_keypoints_3d(torch.zeros(2, 44, 3), augmentation)
    with pytest.raises(ValueError, match=r"body_pose \(2, 69\), got \(2, 72\)"):
        augment_pose(torch.zeros(2, 3), torch.zeros(2, 72), augmentation)
    with pytest.raises(ValueError, match=r"global_orient \(2, 3\), got \(3, 3\)"):
        augment_pose(torch.zeros(3, 3), torch.zeros(3, 69), augmentation)
