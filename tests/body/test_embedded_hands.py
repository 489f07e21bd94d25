"""The embedded body with hands."""

import itertools
from importlib import resources

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel, mirror_pose
from flowprior.skeleton import COCO_WHOLEBODY_65, SMPL_24, SMPLH_52, SMPLH_73, mapping

SIDES = ("left", "right")
FINGERS = ("index", "middle", "pinky", "ring", "thumb")


@pytest.fixture(scope="module")
def body():
    return BodyModel(hands=True)


@pytest.fixture(scope="module")
def rest(body):
    return dict(zip(body.joint_names, body(torch.zeros(52, 3)).joints, strict=True))


def test_joints_and_parts_are_those_of_smplh(body):
    assert body.skeleton is SMPLH_52
    assert body.model_type == "smplh"
    assert (body.num_joints, body.num_vertices, body.num_betas) == (52, 1229, 10)
    assert list(body.parts) == ["global_orient", "body_pose", "left_hand_pose", "right_hand_pose"]
    assert "SMPLH-73" in body.keypoint_sets
    assert BodyModel().num_joints == 24


def test_the_files_are_small():
    for name in ("embedded_body.npz", "embedded_body_with_hands.npz"):
        with resources.as_file(resources.files("flowprior") / "assets" / name) as path:
            assert path.stat().st_size < 300_000


def test_the_body_is_that_without_fingers(body):
    """The same betas, joints and surface, except for the forearms, whose palms face down here."""
    theta, betas = 0.3 * torch.randn(4, 24, 3), torch.randn(4, 10)
    theta[:, [18, 19, 20, 21, 22, 23]] = 0
    with_hands = torch.cat([theta[:, :22], torch.zeros(4, 30, 3)], dim=1)
    plain, out = BodyModel()(theta, betas), body(with_hands, betas)
    torch.testing.assert_close(out.joints[:, :18], plain.joints[:, :18], rtol=0, atol=1e-5)
    # Elbows and wrists are regressed from the turned forearm.
    torch.testing.assert_close(out.joints[:, :22], plain.joints[:, :22], rtol=0, atol=5e-4)
    weights = body._surface.weights
    forearm = [SMPLH_52.index(f"{side}_{joint}") for side in SIDES for joint in ("elbow", "wrist")]
    far = weights[:, [*forearm, *range(22, 52)]].sum(dim=1) == 0
    assert far.sum() > 700
    torch.testing.assert_close(out.vertices[:, far], plain.vertices[:, far], rtol=0, atol=1e-5)


def test_flat_hands(rest):
    for side, x in zip(SIDES, (1.0, -1.0), strict=True):
        wrist = rest[f"{side}_wrist"]
        for finger in FINGERS[:4]:
            points = torch.stack([rest[f"{side}_{finger}{n}"] for n in (1, 2, 3)]) - wrist
            # Palm and fingers are level and point outwards; a finger is straight.
            assert points[:, 1].abs().max() < 0.008
            assert (x * points[:, 0]).diff().min() > 0.012
            first, second = (points[1:] - points[:-1]).unbind()
            assert torch.cosine_similarity(first, second, dim=0) > 0.999
        # Index finger in front, little finger behind, the thumb in front and lower.
        order = [rest[f"{side}_{finger}1"][2] for finger in ("index", "middle", "ring", "pinky")]
        assert order == sorted(order, reverse=True)
        thumb = rest[f"{side}_thumb3"] - wrist
        assert thumb[2] > 0.04
        assert thumb[1] < -0.02
    lengths = [rest["left_index1"], rest["left_index2"], rest["left_index3"]]
    first, second = (b - a for a, b in itertools.pairwise(lengths))
    assert 0.02 < first.norm() < 0.05
    assert second.norm() < first.norm()


def test_hands_are_mirror_images(body):
    theta = 0.4 * torch.randn(3, 52, 3)
    theta[:, :22] = 0
    mirrored = body(mirror_pose(theta, SMPLH_52)).joints
    expected = body(theta).joints[:, list(SMPLH_52.flip)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("finger", FINGERS)
@pytest.mark.parametrize("joint", [1, 2, 3])
def test_joint_bends_only_its_finger(body, side, finger, joint):
    theta = torch.zeros(52, 3)
    # Flexion of a left finger is a rotation about -z.
    theta[SMPLH_52.index(f"{side}_{finger}{joint}"), 2] = -1.0 if side == "left" else 1.0
    flat, bent = body(torch.zeros(52, 3)), body(theta)
    names = SMPLH_73.joint_names
    before = dict(zip(names, body.keypoints(torch.zeros(52, 3), SMPLH_73), strict=True))
    after = dict(zip(names, body.keypoints(theta, SMPLH_73), strict=True))
    tip = f"{side}_{finger}"
    moved = {name for name in names if (after[name] - before[name]).norm() > 1e-3}
    beyond = {f"{tip}{n}" for n in range(joint + 1, 4)}
    assert beyond | {tip} <= moved
    # A tip is a vertex; its neighbours may follow by a little where fingers meet.
    assert not {name for name in moved if not name.startswith(tip)}
    if finger != "thumb":
        assert after[tip][1] < before[tip][1] - 0.008
    travelled = (bent.vertices - flat.vertices).norm(dim=-1)
    weight = body._surface.weights[:, [SMPLH_52.index(f"{tip}{n}") for n in range(joint, 4)]].sum(
        dim=1
    )
    assert travelled[weight == 0].max() < 1e-6
    assert (travelled[weight > 0.9] > 1e-3).float().mean() > 0.8


def test_relaxed_hands_are_between_flat_and_fist(body):
    relaxed = body.pose()
    assert torch.equal(body.pose(flat_hand_mean=True), torch.zeros(52, 3))
    flat, tips = body.keypoints(torch.zeros(52, 3), SMPLH_73), body.keypoints(relaxed, SMPLH_73)
    for side in SIDES:
        for finger in FINGERS[:4]:
            tip = SMPLH_73.index(f"{side}_{finger}")
            assert 0.008 < flat[tip, 1] - tips[tip, 1] < 0.05
    torch.testing.assert_close(body.pose(**body.split(relaxed)), relaxed)
    with pytest.raises(ValueError, match="embedded body with hands has no hands_componentsl"):
        body.pose(left_hand_pose=torch.zeros(6))


def test_whole_body_keypoints(body):
    theta, betas = 0.2 * torch.randn(3, 52, 3), torch.randn(3, 10)
    points = body.keypoints(theta, COCO_WHOLEBODY_65, betas)
    assert points.shape == (3, 65, 3)
    smplh = body.keypoints(theta, SMPLH_73, betas)
    torch.testing.assert_close(points, smplh[:, list(mapping(SMPLH_73, COCO_WHOLEBODY_65))])
    index = COCO_WHOLEBODY_65.index
    rest = body.keypoints(torch.zeros(52, 3), COCO_WHOLEBODY_65)
    for side, x in zip(SIDES, (1.0, -1.0), strict=True):
        for finger in ("forefinger", "middle_finger", "ring_finger", "pinky_finger"):
            chain = rest[[index(f"{side}_{finger}{n}") for n in (1, 2, 3, 4)], 0]
            assert (x * chain).diff().min() > 0.01
        assert rest[index(f"{side}_big_toe"), 2] > rest[index(f"{side}_heel"), 2] + 0.2
    flipped = rest[list(COCO_WHOLEBODY_65.flip)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(rest, flipped, rtol=0, atol=8e-3)


def test_weights_and_regressor(body):
    weights = body._surface.weights
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(1229))
    assert weights.min() >= 0
    # Every joint of a finger moves something.
    assert (weights[:, 22:] > 0.5).sum(dim=0).min() >= 2


def test_smpl_poses_lose_their_hands(body):
    """The first 22 rotations of SMPL pose it: hands, 22 and 23, have no counterpart."""
    assert SMPLH_52.joint_names[:22] == SMPL_24.joint_names[:22]
    with pytest.raises(ValueError, match=r"theta has shape \(24, 3\).*24 joints \(SMPL's\)"):
        body(torch.zeros(24, 3))


def test_shapes_change_the_fingers(body):
    betas = torch.eye(10)[:1].repeat(1, 1) * 2
    taller, average = body(torch.zeros(52, 3), betas[0]).joints, body(torch.zeros(52, 3)).joints

    def length(joints):
        return (joints[SMPLH_52.index("left_middle3")] - joints[20]).norm()

    assert 1.005 < length(taller) / length(average) < 1.2
    assert np.isfinite(taller.numpy()).all()
