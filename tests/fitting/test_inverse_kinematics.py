import math

import pytest
import torch

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting import inverse_kinematics
from flowprior.skeleton import SMPL_24
from tests.fitting.people import random_poses

FIVE = [
    SMPL_24.index(n) for n in ("left_wrist", "right_wrist", "left_ankle", "right_ankle", "head")
]


@pytest.fixture(scope="module")
def poses():
    return random_poses(3, 11)


def joints_of(body, matrix, joints, betas=None):
    """Joints (P, 24, 3) of poses (P, 24, 3, 3), in the frame of a prior over that many joints."""
    if joints == 24:
        return body(matrix, betas).joints + torch.tensor([0.3, -0.2, 4.0])
    upright = torch.cat([torch.eye(3).expand_as(matrix[:, :1]), matrix[:, 1:]], dim=1)
    found = body(upright, betas).joints
    return found - found[:, :1]


@pytest.fixture(params=[24, 23])
def case(request, priors, body, poses):
    joints = request.param
    prior = priors.people if joints == 24 else priors.body_pose
    return prior, joints_of(body, poses, joints), joints


def posed(body, result, joints):
    """Joints of the resulting bodies at their positions."""
    theta = result.theta
    if joints == 23:
        root = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand_as(theta[..., :1, :])
        theta = torch.cat([root, theta], dim=-2)
    return body(theta, result.betas, result.transl).joints


@pytest.mark.slow
def test_all_joints_determine_the_pose(case, body):
    prior, target, joints = case
    result = inverse_kinematics(prior, target)
    assert result.theta.shape == (3, joints, 6)
    assert result.error_mm.max() < 2
    distance = 1000 * (posed(body, result, joints) - target).norm(dim=-1).mean(dim=-1)
    torch.testing.assert_close(distance, result.error_mm, atol=0.01, rtol=1e-3)
    posterior = prior.given(joints_3d=target)
    torch.testing.assert_close(
        result.log_prob, posterior.log_prob(result.theta), atol=1e-2, rtol=1e-3
    )
    rest = rotations.rot6d_to_matrix(result.theta[:, -2:])
    assert torch.equal(rest, torch.eye(3).expand(3, 2, 3, 3))


@pytest.mark.slow
def test_five_joints_are_reached(case):
    prior, target, _ = case
    some = torch.full_like(target, torch.nan)
    some[:, FIVE] = target[:, FIVE]
    result = inverse_kinematics(prior, some)
    assert result.error_mm.max() < 5
    # The other joints follow the prior, which prefers this pose to that of all joints.
    everything = inverse_kinematics(prior, target)
    likely = prior.given(joints_3d=some)
    assert (result.log_prob > likely.log_prob(everything.theta)).all()


def test_without_refinement_the_answer_is_the_mode(case):
    prior, target, _ = case
    result = inverse_kinematics(prior, target, refine=False)
    posterior = prior.freeze().given(joints_3d=target)
    torch.testing.assert_close(result.theta, posterior.mode(), atol=1e-5, rtol=0)
    assert result.solution is None
    better = inverse_kinematics(prior, target)
    assert (better.error_mm < result.error_mm).all()
    assert set(better.solution.labels()) <= {"converged_value", "converged_gradient",
                                             "max_iterations", "no_descent"}  # fmt: skip


def test_a_result_does_not_depend_on_the_others(case):
    prior, target, _ = case
    target = target.clone()
    target[2, 4:9] = torch.nan
    together = inverse_kinematics(prior, target, max_iterations=8)
    for row in (0, 2):
        alone = inverse_kinematics(prior, target[row], max_iterations=8)
        assert torch.equal(alone.theta, together.theta[row])
        assert alone.error_mm.shape == ()
        assert torch.equal(alone.error_mm, together.error_mm[row])


def test_joints_of_a_camera_have_any_origin(priors, body, poses):
    target = joints_of(body, poses, 24)
    away = torch.tensor([1.0, 2.0, -3.0])
    first = inverse_kinematics(priors.people, target, max_iterations=10)
    second = inverse_kinematics(priors.people, target + away, max_iterations=10)
    torch.testing.assert_close(first.transl + away, second.transl, atol=0.01, rtol=0)
    torch.testing.assert_close(first.error_mm, second.error_mm, atol=1.0, rtol=0.1)


@pytest.mark.slow
def test_known_rotations_are_kept_exactly(priors, body, poses):
    target = joints_of(body, poses, 23)
    pose = rotations.matrix_to_rot6d(poses[:, 1:])
    known = torch.zeros(3, 23, dtype=torch.bool)
    known[:, [0, 3, 16]] = True
    result = inverse_kinematics(priors.body_pose, target, rotations=poses[:, 1:], known=known)
    torch.testing.assert_close(result.theta[known], pose[known], atol=1e-6, rtol=0)
    assert result.error_mm.max() < 2
    # One mask, and NaN instead of a mask.
    same = inverse_kinematics(priors.body_pose, target, rotations=poses[:, 1:], known=known[0])
    assert torch.equal(same.theta, result.theta)
    missing = torch.where(known[..., None], pose, torch.nan)
    again = inverse_kinematics(priors.body_pose, target, rotations=missing)
    torch.testing.assert_close(again.theta[known], pose[known], atol=1e-6, rtol=0)
    assert again.error_mm.max() < 2


@pytest.mark.slow
def test_noisy_joints_are_drawn_towards_the_prior(case):
    prior, target, _ = case
    noise = 0.03 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    target = (target + noise)[:2]
    results = [
        inverse_kinematics(prior, target, sigma=s, max_iterations=80) for s in (0.005, 0.03, 0.3)
    ]
    densities = torch.stack([each.log_prob for each in results])
    errors = torch.stack([each.error_mm for each in results])
    assert (densities.diff(dim=0) > 0).all()
    assert (errors.diff(dim=0) > 0).all()


@pytest.mark.slow
def test_the_shape_can_be_fitted(case, body, poses):
    prior, _, joints = case
    betas = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))
    target = joints_of(body, poses, joints, betas)
    given = inverse_kinematics(prior, target, betas=betas)
    fitted = inverse_kinematics(prior, target, fit_betas=True)
    average = inverse_kinematics(prior, target)
    assert given.error_mm.max() < 2
    assert torch.equal(given.betas, betas)
    assert fitted.error_mm.max() < 5
    assert fitted.betas.shape == (3, 10)
    assert (fitted.error_mm < average.error_mm).all()
    distance = 1000 * (posed(body, fitted, joints) - target).norm(dim=-1).mean(dim=-1)
    torch.testing.assert_close(distance, fitted.error_mm, atol=0.01, rtol=1e-3)


def test_bodies_in_another_layout(priors, body, poses):
    target = joints_of(body, poses, 23)[:2]
    first = inverse_kinematics(priors.body_pose, target, max_iterations=10)
    second = inverse_kinematics(
        priors.body_pose, target, body=BodyModel(layout="rows"), max_iterations=10
    )
    assert torch.equal(first.theta, second.theta)


def test_shapes_of_batches(case):
    prior, target, joints = case
    folded = inverse_kinematics(prior, target[:2].unflatten(0, (2, 1)), max_iterations=5)
    assert folded.theta.shape == (2, 1, joints, 6)
    assert folded.betas.shape == (2, 1, 10)
    assert folded.transl.shape == (2, 1, 3)
    assert folded.error_mm.shape == (2, 1)
    flat = inverse_kinematics(prior, target[:2], max_iterations=5)
    assert torch.equal(folded.theta.flatten(0, 1), flat.theta)
    for refine in (True, False):
        empty = inverse_kinematics(prior, target[:0], refine=refine)
        assert empty.theta.shape == (0, joints, 6)
        assert empty.error_mm.shape == (0,)


def test_without_a_joint_the_answer_is_the_most_likely_pose(case):
    prior, target, _ = case
    target = target[:2].clone()
    target[1] = torch.nan
    result = inverse_kinematics(prior, target, max_iterations=10)
    assert result.error_mm.isnan().tolist() == [False, True]
    torch.testing.assert_close(result.theta[1], prior.given().mode(), atol=1e-4, rtol=0)
    assert result.transl.isfinite().all()
    assert result.log_prob.isfinite().all()


def test_faults_are_named(priors, case):
    prior, target, _ = case
    for sigma in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="sigma must be above 0 and finite"):
            inverse_kinematics(prior, target, sigma=sigma)
    with pytest.raises(ValueError, match=r"expected joints_3d \(\*batch, 24, 3\)"):
        inverse_kinematics(prior, target[:, :22])
    with pytest.raises(TypeError, match=r"joints_3d must be a torch\.Tensor"):
        inverse_kinematics(prior, target.numpy())
    with pytest.raises(ValueError, match="expected betas"):
        inverse_kinematics(prior, target, betas=torch.zeros(4, 10))
    with pytest.raises(ValueError, match="num_samples"):
        inverse_kinematics(prior, target, num_samples=-1)
    with pytest.raises(ValueError, match="not evidence"):
        inverse_kinematics(priors.unconditional, target)
    with pytest.raises(TypeError, match="expected a ConditionalPosePrior"):
        inverse_kinematics(prior.given(joints_3d=target), target)


def test_evidence_that_a_prior_does_not_take(priors, body, poses):
    target = joints_of(body, poses, 24)
    with pytest.raises(ValueError, match="not trained with rotations"):
        inverse_kinematics(priors.people, target, rotations=poses)
