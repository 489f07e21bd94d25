import math

import pytest
import torch

from flowprior.fitting.sequence import MotionRates, SequenceOptions, fit_sequence
from flowprior.fitting.sequence import fit as fit_module
from flowprior.fitting.sequence import setup as setups
from flowprior.fitting.sequence.solve import Problem
from flowprior.rotations import geodesic_distance, matrix_to_rot6d, rotvec_to_matrix
from flowprior.skeleton import COCO_17, SMPL_24

FPS = 30.0
CAMERA = {"focal_px": 1000.0, "principal_point_px": (500.0, 500.0)}


@pytest.fixture(scope="module")
def prior(priors):
    return priors.people.freeze()


@pytest.fixture(scope="module")
def motion():
    """A person that waves and walks on the spot, (40, 24, 3, 3), in a camera's axes."""
    time = torch.arange(40) / FPS
    pose = torch.zeros(40, 24, 3)
    swing = torch.sin(2 * math.pi * time)
    pose[:, 1, 0], pose[:, 2, 0] = 0.4 * swing - 0.2, -0.4 * swing - 0.2
    pose[:, 4, 0], pose[:, 5, 0] = 0.5 - 0.4 * swing, 0.5 + 0.4 * swing
    pose[:, 16, 2], pose[:, 17, 2] = -1.1, 1.1
    pose[:, 18, 1], pose[:, 19, 1] = -0.6 - 0.5 * swing, 0.6 + 0.5 * swing
    pose[:, 0, 0] = math.pi
    return rotvec_to_matrix(pose)


@pytest.fixture(scope="module")
def joints(body, motion):
    return body(motion).joints + torch.tensor([0.1, 0.2, 4.0])


def noise(like, sigma, seed=0):
    return sigma * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def keypoints_of(body, motion):
    points = body.keypoints(motion, COCO_17) + torch.tensor([0.1, 0.2, 4.0])
    pixels = 1000 * points[..., :2] / points[..., 2:] + 500
    return torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)


def error_mm(points, truth):
    return float(1000 * (points - truth)[..., :22, :].norm(dim=-1).mean())


def test_noise_of_joints_is_reduced_and_its_size_is_known(prior, joints):
    seen = joints + noise(joints, 0.03)
    fit = fit_sequence(prior, fps=FPS, joints_3d=seen)
    assert error_mm(fit.points, joints) < 0.55 * error_mm(seen, joints)
    away = 1000 * (fit.points - joints)[:, :22].norm(dim=-1)
    inside = (away < fit.radius_mm(0.9)[:, :22]).float().mean()
    assert 0.75 < inside <= 1
    assert fit.theta.shape == (40, 24, 6)
    assert fit.radius_mm(0.5).lt(fit.radius_mm(0.9)).all()


def test_missing_joints_and_frames_are_filled_with_more_uncertainty(prior, joints):
    seen = joints + noise(joints, 0.01)
    seen[15:25, [18, 20]] = torch.nan
    valid = torch.ones(40, dtype=torch.bool)
    valid[30:35] = False
    seen[30:35] = torch.nan
    fit = fit_sequence(prior, fps=FPS, joints_3d=seen, valid=valid, sigma=0.01)
    assert fit.seen.tolist() == valid.tolist()
    assert error_mm(fit.points[30:35], joints[30:35]) < 60
    radius = fit.radius_mm()
    assert radius[20, 20] > 2 * radius[5, 20]
    assert radius[32].mean() > 1.5 * radius[5].mean()
    assert 1000 * fit.points.diff(dim=0).norm(dim=-1).max() < 100


def test_people_are_independent_and_one_sequence_needs_no_axis(prior, joints):
    seen = torch.stack([joints + noise(joints, 0.02, s) for s in (0, 1)])
    both = fit_sequence(prior, fps=FPS, joints_3d=seen, sigma=0.02)
    single = fit_sequence(prior, fps=FPS, joints_3d=seen[1], sigma=0.02)
    assert both.points.shape == (2, 40, 24, 3)
    torch.testing.assert_close(both.points[1], single.points, atol=2e-3, rtol=0)


def test_windows_give_nearly_the_same_as_the_whole(prior, joints):
    seen = joints + noise(joints, 0.02)
    options = SequenceOptions(window=0.6, overlap=0.2)
    parts = fit_sequence(prior, fps=FPS, joints_3d=seen, sigma=0.02, options=options)
    whole = fit_sequence(prior, fps=FPS, joints_3d=seen, sigma=0.02)
    assert error_mm(parts.points, whole.points) < 5


def test_the_frame_rate_matters_little(prior, joints):
    """CozyClay#84: at 30 and 60 frames per second, twice as many with twice the variance."""
    seen = joints + noise(joints, 0.02)
    slow = fit_sequence(prior, fps=FPS, joints_3d=seen, sigma=0.02)
    twice = seen.repeat_interleave(2, dim=0)
    fast = fit_sequence(prior, fps=2 * FPS, joints_3d=twice, sigma=0.02 * math.sqrt(2))
    between = (fast.points[0::2] + fast.points[1::2]) / 2
    assert error_mm(between, slow.points) < 6


def test_keypoints_with_a_detectors_mistakes(prior, body, motion, joints):
    seen = keypoints_of(body, motion)
    seen[..., :2] += noise(seen[..., :2], 3.0)
    seen[5, 10, :2] += 200
    seen[12:17] = seen[12:17, list(COCO_17.flip)]
    valid = torch.ones(40, dtype=torch.bool)
    valid[25:35] = False
    fit = fit_sequence(prior, fps=FPS, keypoints_2d=seen, valid=valid, body=body, **CAMERA)
    assert fit.swapped.nonzero()[:, 0].tolist() == list(range(12, 17))
    found = body(fit.rotation, fit.shape).joints
    found, truth = (each - each[:, :1] for each in (found, joints))
    with torch.no_grad():
        alone = body(prior.given(keypoints_2d=seen).mode()).joints
    alone = alone - alone[:, :1]
    assert error_mm(found[valid], truth[valid]) < error_mm(alone[valid], truth[valid])
    assert error_mm(found[~valid], truth[~valid]) < 180
    assert 1000 * found.diff(dim=0).norm(dim=-1).mean(dim=-1).max() < 100


def test_confident_joints_of_a_regressor_move_little(prior, motion):
    turn = rotvec_to_matrix(noise(torch.zeros(40, 24, 3), 0.15))
    seen = motion @ turn
    sigma = torch.full((40, 24), 0.15)
    sigma[:, 18] = 0.002
    fit = fit_sequence(prior, fps=FPS, theta=matrix_to_rot6d(seen), sigma=sigma)
    moved = geodesic_distance(fit.rotation, seen).mean(dim=0)
    assert moved[18] < 0.01 < 0.05 < moved[19]
    before, after = (
        geodesic_distance(each, motion)[:, :22].mean() for each in (seen, fit.rotation)
    )
    assert after < 0.7 * before


def test_missing_poses_are_filled(prior, motion):
    theta = matrix_to_rot6d(motion)
    theta[10:14] = torch.nan
    fit = fit_sequence(prior, fps=FPS, theta=theta, sigma=0.05)
    assert not fit.seen[10:14].any()
    assert fit.seen[:10].all()
    assert geodesic_distance(fit.rotation, motion)[10:14, :22].mean() < 0.1
    assert (fit.rotation_std_degrees[12, :22] > fit.rotation_std_degrees[3, :22]).all()


@pytest.mark.parametrize("lag", [0, 2])
def test_causal_results_do_not_depend_on_later_frames(prior, motion, lag):
    motion = motion[:20]
    seen = motion @ rotvec_to_matrix(noise(torch.zeros(20, 24, 3), 0.1))
    theta = matrix_to_rot6d(seen)
    whole = fit_sequence(prior, fps=FPS, theta=theta, sigma=0.1, lag=lag)
    part = fit_sequence(prior, fps=FPS, theta=theta[:12], sigma=0.1, lag=lag)
    some = slice(0, 12 - lag)
    torch.testing.assert_close(whole.rotation[some], part.rotation[some], atol=1e-4, rtol=0)
    before, after = (
        geodesic_distance(each, motion)[:, :22].mean() for each in (seen, whole.rotation)
    )
    assert after < before


def test_one_frame_is_a_sequence(prior, joints):
    fit = fit_sequence(prior, fps=FPS, joints_3d=joints[:1], sigma=0.005)
    assert error_mm(fit.points, joints[:1]) < 30


@pytest.mark.parametrize("frames", [1, 3])
def test_keypoints_of_few_frames(prior, body, motion, frames):
    """Too few for an estimate of their noise."""
    seen = keypoints_of(body, motion[:frames])
    fit = fit_sequence(prior, fps=FPS, keypoints_2d=seen, **CAMERA)
    assert fit.points.isfinite().all()
    assert fit.points.shape == (frames, 17, 3)


@pytest.mark.parametrize("fps", [0.5, 12, 240, 3000])
def test_any_positive_rate(prior, body, motion, fps):
    """SMPL-to-FBX#14: rates far from 30."""
    seen = keypoints_of(body, motion[:12])
    fit = fit_sequence(prior, fps=fps, keypoints_2d=seen, num_samples=2, **CAMERA)
    assert fit.samples.isfinite().all()
    assert fit.radius_mm().isfinite().all()
    assert fit.points.dtype == fit.samples.dtype == torch.float32
    pixels = 1000 * fit.points[..., :2] / fit.points[..., 2:] + 500
    assert (pixels - seen[..., :2]).norm(dim=-1).mean() < 25


def test_rates_are_those_of_the_clips():
    """Accelerations of one joint in its axes; two joints turn alike."""
    generator = torch.Generator().manual_seed(0)
    step = 0.02 * torch.randn(2000, 24, 3, generator=generator)
    step[:, 4:6, 1:] *= 0.5  # knees
    step[:, 16:18] = 0.5 * step[:, 13:15]
    velocity = 0.2 * step.cumsum(dim=0)
    velocity = velocity - velocity.mean(dim=0)
    pose = [torch.eye(3).expand(24, 3, 3)]
    for each in rotvec_to_matrix(velocity):
        pose.append(pose[-1] @ each)
    clip, place = torch.stack(pose), velocity[:, 0]
    rates = MotionRates.learn([clip], [place], FPS, looseness=1.0)
    # Over three frames 19 of 27 parts of the variance of continuous time.
    expected = 0.2 * 0.02 * FPS**1.5 * math.sqrt(19 / 27)
    assert rates.acceleration[7] == pytest.approx(expected, rel=0.1)
    covariance = rates.covariance
    assert torch.linalg.eigvalsh(covariance).min() > 0
    of_knee = covariance[12:15, 12:15].diagonal()
    assert of_knee[0] > 1.5 > 0.7 > of_knee[1]
    assert covariance[3 * 13, 3 * 16] == pytest.approx(0.7, abs=0.1)  # shrunk by 0.3
    assert covariance[3 * 13, 3 * 17].abs() < 0.1
    with pytest.raises(ValueError, match="too short"):
        MotionRates.learn([clip[:5]], [place[:5]], FPS)


def test_bad_input_is_named(prior, joints):
    given = {"fps": FPS, "joints_3d": joints}
    with pytest.raises(ValueError, match="fps must be positive"):
        fit_sequence(prior, **(given | {"fps": 0.0}))
    with pytest.raises(ValueError, match="one kind of evidence"):
        fit_sequence(prior, fps=FPS)
    with pytest.raises(ValueError, match="at least one frame"):
        fit_sequence(prior, fps=FPS, joints_3d=joints[:0])
    with pytest.raises(ValueError, match=r"expected evidence \(P, T, 24, 3\)"):
        fit_sequence(prior, fps=FPS, joints_3d=joints[:, :5])
    with pytest.raises(ValueError, match="valid must be"):
        fit_sequence(prior, **given, valid=torch.ones(3))
    with pytest.raises(ValueError, match="sigma must be above 0"):
        fit_sequence(prior, **given, sigma=-1.0)
    with pytest.raises(ValueError, match="need focal_px"):
        fit_sequence(prior, fps=FPS, keypoints_2d=torch.ones(4, 17, 3))
    with pytest.raises(TypeError):
        fit_sequence(prior, fps=FPS, joints_3d=[1.0])
    with pytest.raises(ValueError, match="twice the overlap"):
        SequenceOptions(window=0.5, overlap=0.5)
    with pytest.raises(ValueError, match="smoothing must be positive"):
        SequenceOptions(smoothing=0.0)
    with pytest.raises(ValueError, match="24 rates"):
        MotionRates((1.0,), (1.0,), 1.0, 1.0)
    with pytest.raises(ValueError, match=r"covariance must be \(72, 72\)"):
        MotionRates((1.0,) * 24, (1.0,) * 24, 1.0, 1.0, torch.eye(66))


def test_a_level_out_of_range_raises(prior, joints):
    fit = fit_sequence(prior, fps=FPS, joints_3d=joints[:5], sigma=0.01)
    with pytest.raises(ValueError, match="level must be"):
        fit.radius_mm(1.0)


def test_memory_does_not_grow_with_the_length(prior, body, motion, monkeypatch):
    """Longer sequences take more parts, not larger ones."""
    monkeypatch.setattr(fit_module, "FRAMES_AT_ONCE", 40)
    monkeypatch.setattr(setups, "FRAMES_AT_ONCE", 40)
    solved, conditioned = [], []

    def minimise(problem, state, iterations):
        solved.append(state.transl.shape[0] * state.transl.shape[1])
        return plain_minimise(problem, state, iterations)

    def given(prior, **kwargs):
        if kwargs:
            conditioned.append(len(kwargs["keypoints_2d"]))
        return plain_given(prior, **kwargs)

    plain_minimise, plain_given = Problem.minimise, type(prior).given
    monkeypatch.setattr(Problem, "minimise", minimise)
    monkeypatch.setattr(type(prior), "given", given)
    options = SequenceOptions(window=0.7, overlap=0.1, iterations=1)
    for repeats in (1, 4):
        seen = keypoints_of(body, motion).repeat(repeats, 1, 1)
        fit_sequence(prior, fps=FPS, keypoints_2d=seen, body=body, options=options, **CAMERA)
    assert sum(solved) > 200
    assert max(solved) <= 40
    assert max(conditioned) <= 40


def test_the_shape_of_long_sequences_is_that_of_the_whole(prior, body, motion, monkeypatch):
    betas = torch.linspace(-1.5, 1.5, 10)
    seen = body(motion, betas).joints + torch.tensor([0.1, 0.2, 4.0])
    seen = seen + noise(seen, 0.01)
    options = SequenceOptions(window=0.5, overlap=0.1)
    whole = fit_sequence(prior, fps=FPS, joints_3d=seen, sigma=0.01, options=options)
    monkeypatch.setattr(fit_module, "FRAMES_AT_ONCE", 20)
    parts = fit_sequence(prior, fps=FPS, joints_3d=seen, sigma=0.01, options=options)
    bones = []
    for each in (betas, whole.shape, parts.shape):
        place = body(motion[:1], each).joints[0]
        bones.append(1000 * (place - place[list(SMPL_24.parents)]).norm(dim=-1)[1:22])
    assert (bones[1] - bones[2]).abs().max() < 4
    away = [(each - bones[0]).abs().mean() for each in bones[1:]]
    assert away[1] < 1.3 * away[0] + 1
