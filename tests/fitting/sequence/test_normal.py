"""Gradients of the terms of a sequence against autograd, and the solved systems against dense."""

import dataclasses

import pytest
import torch

from flowprior.body import BodyModel
from flowprior.fitting.sequence import evidence, rates, rig_of
from flowprior.fitting.sequence.evidence import Joints3d, Keypoints2d, Rotations, State
from flowprior.fitting.sequence.normal import NormalEquations
from flowprior.fitting.sequence.pose_term import PoseTerm, free_joints
from flowprior.fitting.sequence.tangent import chart_with_jacobian
from flowprior.fitting.sequence.walk import Walk
from flowprior.rotations import matrix_to_rotvec, rotvec_to_matrix
from flowprior.skeleton import COCO_17

JOINTS = tuple(range(22))
SIZE = 3 * len(JOINTS)
FPS = 30.0


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def rig():
    return rig_of(BodyModel().double(), COCO_17)


@pytest.fixture(scope="module")
def state():
    """Two windows of five frames of one person."""
    rotation = rotvec_to_matrix(0.3 * normal(2, 1, 24, 3)) @ rotvec_to_matrix(
        0.2 * normal(2, 5, 24, 3, seed=1)
    )
    transl = torch.tensor([0.0, 0.0, 4.0]) + 0.1 * normal(2, 5, 3, seed=2)
    return State(rotation, transl, 0.5 * normal(1, 10, seed=3), torch.tensor([0, 0]))


def gradients(state, objective):
    """By moves (2, 5, D) of the frames and by the shape (1, S)."""
    move = torch.zeros(2, 5, SIZE + 3, dtype=torch.float64, requires_grad=True)
    shape = state.shape.clone().requires_grad_()
    turn = rotvec_to_matrix(move[..., :SIZE].unflatten(-1, (-1, 3)))
    rotation = torch.cat([state.rotation[:, :, :22] @ turn, state.rotation[:, :, 22:]], dim=2)
    moved = State(rotation, state.transl + move[..., SIZE:], shape, state.person)
    objective(moved).backward()
    return move.grad, torch.zeros_like(shape) if shape.grad is None else shape.grad


def system_of(state, shapes=10):
    return NormalEquations(state.transl, 2, 5, SIZE + 3, shapes, state.person, 1)


def heavy(square, number, nu):
    """Minus the logarithm of Student's t density, whose weights the systems use."""
    return (nu + number) / 2 * torch.log1p(square / nu)


def check(state, term, objective):
    system = system_of(state)
    term(system)
    move, shape = gradients(state, objective)
    torch.testing.assert_close(system.gradient, move)
    torch.testing.assert_close(system.shape_gradient, shape)


@pytest.mark.parametrize("robust", [False, True])
def test_joints(rig, state, robust):
    points = rig.pose(state.rotation, state.shape[0]).points + state.transl[:, :, None]
    points = points + 0.05 * normal(*points.shape, seed=4)
    points[0, 2, 3] = torch.nan
    term = Joints3d(rig, points, torch.full((2, 1, 1), 0.04, dtype=torch.float64), robust)

    def objective(at):
        away = rig.pose(at.rotation, at.shape[0]).points + at.transl[:, :, None] - points
        square = torch.where(points.isnan(), 0, away).square().sum(dim=-1) / 0.04**2
        if robust:
            return heavy(square, 3, evidence.DEGREES_OF_FREEDOM).sum()
        return square.sum() / 2

    check(state, lambda system: term.add_to(system, state, JOINTS), objective)


def test_keypoints(rig, state):
    points, conf = 40 * normal(2, 5, 17, 2, seed=5), normal(2, 5, 17, seed=6).abs()
    sigma = torch.full((2, 5, 1), 5.0, dtype=torch.float64)
    term = Keypoints2d(rig, points, conf, torch.full((2, 1, 1), 800.0, dtype=torch.float64), sigma)

    def objective(at):
        place = rig.pose(at.rotation, at.shape[0]).points + at.transl[:, :, None]
        away = 800 * place[..., :2] / place[..., 2:] - points
        square = away.square().sum(dim=-1) / 25
        return (conf * heavy(square, 2, evidence.DEGREES_OF_FREEDOM)).sum()

    check(state, lambda system: term.add_to(system, state, JOINTS), objective)


def test_rotations(state):
    seen = state.rotation @ rotvec_to_matrix(0.2 * normal(2, 5, 24, 3, seed=7))
    sigma = 0.1 + normal(2, 5, 24, seed=8).abs()
    term = Rotations(seen, sigma, state.transl + 0.1, torch.full((2, 5), 0.02, dtype=torch.float64))

    def objective(at):
        away = matrix_to_rotvec(seen.mT @ at.rotation).square().sum(dim=-1) / sigma.square()
        place = (at.transl - state.transl - 0.1).square().sum() / 2 / 0.02**2
        return heavy(away[..., :22], 3, evidence.DEGREES_OF_FREEDOM).sum() + place

    check(state, lambda system: term.add_to(system, state, JOINTS), objective)


@pytest.mark.parametrize("together", [False, True])
def test_random_walk(state, together):
    own = rates.DEFAULT_RATES
    if not together:
        own = dataclasses.replace(own, covariance=None)
    walk = Walk(own, FPS, JOINTS, strength=2.0)

    def scaled(values, power):
        return 2 * FPS**power / torch.tensor(values[:22], dtype=torch.float64) ** 2

    def objective(at):
        velocity = matrix_to_rotvec(at.rotation[:, :-1].mT @ at.rotation[:, 1:])[..., :22, :]
        square = scaled(own.velocity, 1) * velocity.square().sum(dim=-1)
        total = heavy(square, 3, rates.DEGREES_OF_FREEDOM).sum()
        bend = velocity.diff(dim=1)
        square = scaled(own.acceleration, 3) * bend.square().sum(dim=-1)
        if together:  # the weights of the joints are held
            nu = rates.DEGREES_OF_FREEDOM
            size = (scaled(own.acceleration, 3) * (nu + 3) / (nu + square.detach())).sqrt()
            whole = (size[..., None] * bend).flatten(start_dim=-2)
            covariance = own.covariance[:SIZE, :SIZE].double()
            solved = torch.linalg.solve(covariance, whole[..., None])[..., 0]
            total = total + (whole * solved).sum() / 2
        else:
            total = total + heavy(square, 3, rates.DEGREES_OF_FREEDOM).sum()
        for number, scale in ((1, own.transl_velocity), (2, own.transl_acceleration)):
            away = at.transl.diff(n=number, dim=1).square().sum()
            total = total + FPS ** (2 * number - 1) * away / scale**2
        return total

    check(state, lambda system: walk.add_to(system, state.rotation, state.transl), objective)


@pytest.mark.parametrize("stride", [1, 2])
def test_pose_prior(priors, state, stride):
    prior = priors.people.freeze()
    term = PoseTerm(prior.given(), 0.3, stride)
    system = system_of(state, 0)
    rotation = state.rotation.float()
    term.linearise(rotation)
    term.add_to(system, rotation, JOINTS)
    frames = term.frames(5).tolist()
    assert len(frames) == (5 if stride == 1 else 2)

    def objective(at):
        own = at.rotation[:, frames].float().flatten(0, 1)
        if (centre := prior.given().centre) is not None:
            own = centre.frame.mT @ own
        u = chart_with_jacobian(own)[0].flatten(start_dim=1)
        z = prior.flow(u, prior.given().context)[0]
        return 0.3 * 5 / len(frames) * z.double().square().sum() / 2

    move, _ = gradients(state, objective)
    joints = list(free_joints(prior.given()))
    assert joints == list(JOINTS)
    torch.testing.assert_close(system.gradient, move, atol=2e-2, rtol=2e-3)


def test_a_step_solves_the_dense_system():
    """Three windows of two people, whose shapes the windows of each share."""
    person = torch.tensor([0, 1, 1])
    system = NormalEquations(torch.zeros((), dtype=torch.float64), 3, 4, 5, 2, person, 2)
    total = torch.zeros(64, 64, dtype=torch.float64)
    right = torch.zeros(64, dtype=torch.float64)
    at = torch.arange(60).reshape(3, 4, 5)
    for row in range(3):
        jacobian, by_shape = normal(4, 9, 5, seed=row), normal(4, 9, 2, seed=10 + row)
        residual, weight = normal(4, 9, seed=20 + row), normal(4, 9, seed=30 + row).abs()
        _add_row(system, row, residual, jacobian, by_shape, weight)
        for t in range(4):
            place = torch.cat([at[row, t], 60 + 2 * person[row] + torch.arange(2)])
            whole = torch.cat([jacobian[t], by_shape[t]], dim=-1)
            total[place[:, None], place] += whole.mT @ (weight[t, :, None] * whole)
            right[place] += whole.mT @ (weight[t] * residual[t])
    damping = torch.linspace(0.1, 1, 5, dtype=torch.float64)
    total[range(60), range(60)] += damping.repeat(12)
    step = system.solve(damping)
    expected = -torch.linalg.solve(total, right)
    torch.testing.assert_close(step.move, expected[:60].reshape(3, 4, 5))
    torch.testing.assert_close(step.shape, expected[60:].reshape(2, 2))
    inverse = torch.linalg.inv(total)
    own, shape, between = step.covariance(person)
    for row in range(3):
        s = 60 + 2 * int(person[row]) + torch.arange(2)
        torch.testing.assert_close(shape[row], inverse[s[:, None], s])
        for t in range(4):
            torch.testing.assert_close(own[row, t], inverse[at[row, t][:, None], at[row, t]])
            torch.testing.assert_close(between[row, t], inverse[at[row, t][:, None], s])


def _add_row(system, row, residual, jacobian, by_shape, weight):
    """Add the residuals of one window, with weights of zero for the others."""
    pad = [torch.zeros(3, *each.shape).double() for each in (residual, jacobian, by_shape, weight)]
    for into, each in zip(pad, (residual, jacobian, by_shape, weight), strict=True):
        into[row] = each
    system.add_residual(pad[0], pad[1], pad[3])
    system.add_shape(*pad)
