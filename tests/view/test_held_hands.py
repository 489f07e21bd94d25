"""Bodies with fingers under SMPL's 24 rotations."""

import pytest
import torch

from flowprior.body import BodyModel
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import COCO_17, SMPL_24
from flowprior.view.held_hands import HeldHands, smpl_places


@pytest.fixture(scope="module")
def whole():
    return BodyModel(hands=True)


def test_the_body_follows_and_the_hands_stay(whole):
    theta = rotvec_to_matrix(
        0.3 * torch.randn(3, 52, 3, generator=torch.Generator().manual_seed(0))
    )
    betas, transl = torch.randn(10), torch.tensor([0.0, 1.0, 2.0])
    held = HeldHands(whole, theta[0, 22:])
    smpl = torch.cat([theta[:, :22], theta[:, 30:32]], dim=1)
    expected = theta.clone()
    expected[:, 22:] = theta[0, 22:]
    out, wanted = held(smpl, betas, transl), whole(expected, betas, transl)
    torch.testing.assert_close(out.vertices, wanted.vertices)
    torch.testing.assert_close(out.joints[:, :22], wanted.joints[:, :22])
    joints = held.keypoints(smpl, SMPL_24, betas, transl)
    torch.testing.assert_close(joints, out.joints, rtol=0, atol=1e-5)
    points = held.keypoints(smpl, COCO_17, betas, transl)
    torch.testing.assert_close(points, whole.keypoints(expected, COCO_17, betas, transl))


def test_the_knuckles_stand_for_the_hands_of_smpl(whole):
    names = [whole.joint_names[joint] for joint in smpl_places(whole)]
    assert names[:22] == list(SMPL_24.joint_names[:22])
    assert names[22:] == ["left_middle1", "right_middle1"]
    assert smpl_places(BodyModel()) == list(range(24))
