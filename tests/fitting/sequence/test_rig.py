import pytest
import torch

from flowprior.fitting.sequence.rig import PointRig, rig_of
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import BODY_25, COCO_17, SMPL_24


@pytest.fixture(scope="module")
def double_body():
    from flowprior.body import BodyModel

    return BodyModel().double()


@pytest.fixture(scope="module")
def pose():
    generator = torch.Generator().manual_seed(0)
    return rotvec_to_matrix(torch.randn(3, 24, 3, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("skeleton", [SMPL_24, COCO_17, BODY_25], ids=lambda s: s.name)
def test_points_are_the_keypoints_of_the_body(double_body, pose, skeleton):
    betas = torch.linspace(-2, 2, 30, dtype=torch.float64).reshape(3, 10)
    posed = rig_of(double_body, skeleton).pose(pose, betas)
    expected = double_body.keypoints(pose, skeleton, betas)
    torch.testing.assert_close(posed.points, expected, atol=1e-5, rtol=0)


def test_jacobians_equal_numerical_derivatives(double_body, pose):
    rig, joints = rig_of(double_body, COCO_17), (0, 4, 9, 16, 18)
    betas = torch.linspace(-1, 1, 10, dtype=torch.float64)
    posed = rig.pose(pose, betas)
    by_rotation = posed.rotation_jacobian(pose, joints)
    by_shape = posed.shape_jacobian()
    step = 1e-6
    for column in range(3 * len(joints)):
        turn = torch.zeros(24, 3, dtype=torch.float64)
        turn[joints[column // 3], column % 3] = step
        moved = rig.pose(pose @ rotvec_to_matrix(turn), betas).points
        expected = ((moved - posed.points) / step).flatten(1)
        torch.testing.assert_close(by_rotation[..., column], expected, atol=1e-5, rtol=0)
    for column in range(10):
        unit = step * torch.eye(10, dtype=torch.float64)[column]
        moved = rig.pose(pose, betas + unit).points
        expected = ((moved - posed.points) / step).flatten(1)
        torch.testing.assert_close(by_shape[..., column], expected, atol=1e-5, rtol=0)


def test_a_rig_needs_matching_tables():
    with pytest.raises(ValueError, match="a rig needs origin"):
        PointRig(torch.zeros(2, 3), torch.zeros(1, 5, 24, 3))
