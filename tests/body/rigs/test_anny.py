"""The package anny where it is installed, and a stand-in with its interface."""

import pytest
import torch

from flowprior import rotations
from flowprior.body import RigBody
from flowprior.skeleton import COCO_17
from tests.body.rigs.stand_ins import StandInAnny


@pytest.fixture(scope="module")
def stand_in():
    return RigBody.from_anny(StandInAnny())


@pytest.fixture(scope="module")
def real():
    package = pytest.importorskip("anny", reason="loads the package: flowprior[anny]")
    body = RigBody.from_anny(package.Anny(rig="anny", topology="notoes_collapse10pc"))
    assert body(torch.zeros(body.num_joints, 3)).joints.dtype == torch.float64  # as the package
    return body.float()


def assert_turns_about(body, joint, below, others):
    """Theta of one joint turns what hangs below it about it, in the world's axes."""
    theta = torch.zeros(2, body.num_joints, 3)
    rest = body(theta[0]).joints
    index = body.skeleton.meanings.index(joint)
    theta[1, index] = torch.tensor([0.3, -0.2, 0.6])
    turn = rotations.rotvec_to_matrix(theta[1, index])
    posed = body(theta).joints[1]
    centre = rest[index]
    rows = [body.skeleton.meanings.index(name) for name in below]
    expected = (rest[rows] - centre) @ turn.mT + centre
    torch.testing.assert_close(posed[rows], expected, rtol=0, atol=1e-4)
    rows = [body.skeleton.meanings.index(name) for name in others]
    torch.testing.assert_close(posed[rows], rest[rows], rtol=0, atol=1e-4)


def test_theta_turns_joints_in_the_axes_of_the_world(stand_in):
    assert_turns_about(stand_in, "left_hip", ["left_knee"], ["pelvis", "right_knee", "head"])
    assert_turns_about(stand_in, "pelvis", ["left_knee", "right_knee", "head"], ["pelvis"])


def test_the_body_is_upright_and_faces_forward(stand_in):
    joints = stand_in(torch.zeros(6, 3)).joints
    assert joints[5, 1] > joints[2, 1] + 1
    assert joints[1, 0] > 0
    assert stand_in.skeleton.flip == (0, 3, 4, 1, 2, 5)
    taller = stand_in(torch.zeros(6, 3), torch.tensor([1.0, 0.5])).joints
    assert taller[5, 1] > joints[5, 1] * 1.4


def test_native_parameters(stand_in):
    theta, betas = 0.4 * torch.randn(3, 6, 3), torch.rand(3, 2)
    native = stand_in.native(theta, betas)
    out = stand_in.rig.model(**native, pose_parameterization="local-bone-world")
    x, y, z = out["vertices"].unbind(-1)
    expected = torch.stack([x, z, -y], dim=-1)
    torch.testing.assert_close(stand_in(theta, betas).vertices, expected, rtol=0, atol=1e-6)


def test_gradients(stand_in):
    theta = (0.4 * torch.randn(2, 6, 3)).requires_grad_()
    betas = torch.full((2, 2), 0.5, requires_grad=True)
    stand_in(theta, betas).vertices.square().sum().backward()
    assert theta.grad.abs().amax(dim=-1).min() > 0
    assert betas.grad[:, 0].abs().min() > 0


def test_other_modules_are_named():
    with pytest.raises(TypeError, match="expected a model of anny, but Linear has no bone_labels"):
        RigBody.from_anny(torch.nn.Linear(2, 2))


@pytest.mark.slow
def test_the_package(real):
    rest = real(torch.zeros(real.num_joints, 3)).joints
    joints = dict(zip(real.skeleton.meanings, rest, strict=True))
    assert joints["head"][1] > joints["left_knee"][1] + 0.8
    assert joints["left_wrist"][0] > joints["left_shoulder"][0]
    assert joints["left_index3"][1] < joints["left_wrist"][1]
    assert_turns_about(real, "left_elbow", ["left_wrist", "left_thumb2"], ["left_shoulder", "head"])
    assert_turns_about(real, "right_index1", ["right_index2", "right_index3"], ["right_ring2"])
    assert_turns_about(real, "pelvis", ["left_wrist", "right_ankle"], ["pelvis"])
    # The package has COCO's keypoints for its full meshes, not for the low-poly ones.
    with pytest.raises(ValueError, match=r"Anny has no nose.* of COCO-17"):
        real.keypoints(torch.zeros(real.num_joints, 3), COCO_17)
