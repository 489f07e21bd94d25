"""The points of one hand."""

import pytest
import torch

from flowprior import rotations
from flowprior.body import BodyModel, hand_points, mirror_pose
from flowprior.skeleton import MANO_16, MANO_21, SMPLH_73


@pytest.fixture(scope="module")
def body():
    return BodyModel(hands=True)


def rotation_vectors(*shape, seed=0):
    return 0.4 * torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", ["left", "right"])
def test_points_are_those_of_the_body_in_the_frame_of_the_wrist(body, side):
    theta = rotation_vectors(4, 52)
    part = body.parts[f"{side}_hand_pose"]
    found = hand_points(body, theta[:, part], side=side)
    posed = body.keypoints(theta, SMPLH_73)
    wrist = SMPLH_73.index(f"{side}_wrist")
    turned = torch.eye(3).expand(4, 3, 3)
    matrix, joint = rotations.rotvec_to_matrix(theta), wrist
    while joint >= 0:
        turned = matrix[:, joint] @ turned
        joint = body.parents[joint]
    named = [SMPLH_73.index(f"{side}_{name}") for name in MANO_21.joint_names]
    expected = (posed[:, named] - posed[:, wrist, None]) @ turned
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert not found[:, 0].any()


def test_hands_are_mirror_images(body):
    theta = rotation_vectors(3, 15)
    whole = torch.cat([torch.zeros(3, 37, 3), theta], dim=1)
    left = mirror_pose(whole, body.skeleton)[:, body.parts["left_hand_pose"]]
    found = hand_points(body, left, side="left") * torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(found, hand_points(body, theta), rtol=0, atol=1e-3)


def test_every_form_of_theta_and_any_batch(body):
    theta, betas = rotation_vectors(2, 3, 15), torch.randn(2, 3, 10)
    expected = hand_points(body, theta, betas)
    assert expected.shape == (2, 3, 21, 3)
    matrix = rotations.rotvec_to_matrix(theta)
    for layout in rotations.LAYOUTS:
        rot6d = rotations.matrix_to_rot6d(matrix, layout)
        found = hand_points(body, rot6d, betas, layout=layout)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert hand_points(body, torch.zeros(0, 15, 3)).shape == (0, 21, 3)
    assert hand_points(body, torch.zeros(15, 3)).shape == (21, 3)


def test_only_the_joints_above_move_a_point(body):
    flat, bent = torch.zeros(15, 3), torch.zeros(15, 3)
    bent[MANO_16.index("index2") - 1] = 0.5
    moved = (hand_points(body, flat) - hand_points(body, bent)).norm(dim=-1) > 1e-6
    names = {name for name, each in zip(MANO_21.joint_names, moved, strict=True) if each}
    assert names == {"index3", "index"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "up"}, "side must be one of"),
        ({"theta": torch.zeros(24, 3)}, "24 joints"),
        ({"body": BodyModel()}, "has no fingers"),
    ],
)
def test_bad_arguments(body, arguments, message):
    with pytest.raises(ValueError, match=message):
        hand_points(**{"body": body, "theta": torch.zeros(15, 3), **arguments})
    with pytest.raises(TypeError, match="theta"):
        hand_points(body, [[0.0]])
