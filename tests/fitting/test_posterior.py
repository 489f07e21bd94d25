"""Uncertainty of fits: samples of the posterior around them."""

import dataclasses

import pytest
import torch

from flowprior import rotations
from flowprior.fitting import FitPosterior, fit_keypoints
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import BODY_25, COCO_17, SMPL_24
from tests.fitting.people import FOCAL_PX, IMAGE_PX, project

CAMERA = {"image_size": (IMAGE_PX, IMAGE_PX), "focal_px": FOCAL_PX}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def fits(priors, body, people):
    seen = people.keypoints[:4].clone()
    seen[1, [3, 4], 2] = 0  # right elbow and wrist
    return fit_keypoints(seen, priors.people, body=body, max_iterations=60, **CAMERA)


@pytest.fixture(scope="module")
def posterior(fits):
    return fits.posterior(spread=1.0)


def test_samples_have_the_shapes_of_fits(fits):
    samples = fits.posterior_samples(5, generator=generator())
    assert samples.theta.shape == (4, 5, 24, 3, 3)
    assert samples.betas.shape == (4, 5, 10)
    assert samples.transl.shape == (4, 5, 3)
    torch.testing.assert_close(samples.focal_px, torch.full((4, 5), FOCAL_PX))
    assert len(samples) == 4
    again = fits.posterior_samples(5, generator=generator())
    assert torch.equal(samples.theta, again.theta)
    assert len(fits.posterior_samples(0).theta[0]) == 0


def test_samples_lie_around_the_fit_and_meet_the_keypoints(fits, posterior, body):
    samples = posterior.sample(100, generator=generator())
    points = body.keypoints(samples.theta, BODY_25, samples.betas, samples.transl)
    apart = (project(points) - fits.keypoints_2d[:, None]).norm(dim=-1)
    seen, hidden = BODY_25.index("left_wrist"), BODY_25.index("right_wrist")
    assert apart[0, :, hidden].mean() < 0.3 * apart[1, :, hidden].mean()
    assert apart[1, :, seen].mean() < 0.3 * apart[1, :, hidden].mean()


def test_the_precision_of_betas_and_camera_is_the_hessian(priors, body, people):
    # Noise-free keypoints of the start: no residual, so Gauss-Newton is exact.
    seen = people.keypoints[:2]
    fits = fit_keypoints(seen, priors.people, body=body, max_iterations=0, **CAMERA)
    exact = torch.cat([fits.keypoints_2d, torch.ones(2, 25, 1)], dim=-1)
    at = fit_keypoints(
        exact, fits.objective.pose, body=body, transl=fits.transl, max_iterations=0, **CAMERA
    )
    objective, x = at.objective, at.variables.double()
    posterior = at.posterior(spread=1.0)
    covariance = posterior.factor.double() @ posterior.factor.double().mT
    place = slice(objective.slices["betas"].start, objective.size)
    precision = torch.linalg.inv(covariance[:, place, place])
    rows = torch.arange(2)
    step = 0.02
    for one in (0, 5, 11, 12):  # along a variable, with the pose free to follow
        direction = torch.zeros(2, objective.size, dtype=torch.float64)
        direction[:, place.start + one] = step
        with torch.no_grad():
            ahead, here, behind = (
                objective((x + sign * direction).float(), rows).double() for sign in (1, 0, -1)
            )
        curvature = (ahead + behind - 2 * here) / step**2 / (2 * objective.weights.pose)
        # Freedom of the pose only lowers the precision.
        assert (precision[:, one, one] < 1.05 * curvature).all()
        assert (precision[:, one, one] > 0).all()


def test_without_evidence_of_an_arm_that_arm_varies(fits):
    found = fits.joint_uncertainty(num_samples=200, generator=generator())
    wrist, other = SMPL_24.index("right_wrist"), SMPL_24.index("left_wrist")
    assert found.std_mm.shape == (4, 24)
    assert found.std_degrees.shape == (4, 24)
    assert found.std_mm[1, wrist] > 1.5 * found.std_mm[1, other]
    assert (found.std_mm[0, wrist] < 1.5 * found.std_mm[0, other]).all()
    assert torch.equal(found.std_mm[:, 0], torch.zeros(4))  # relative to the pelvis
    assert (found.confidence(1e4) == 1).all()


def test_uncertainty_grows_with_noise_and_with_the_factor(fits, posterior):
    size = posterior.factor.square().sum(dim=(1, 2))
    weights = fits.objective.weights
    louder = dataclasses.replace(weights, pose=25 * weights.pose, shape=25 * weights.shape)
    other = fits.objective.only(fits.variables, tuple(fits.objective.slices), louder)
    assert (FitPosterior(other, fits.variables).factor.square().sum(dim=(1, 2)) > size).all()
    wide = fits.joint_uncertainty(num_samples=50, generator=generator()).std_mm
    narrow = posterior.joint_uncertainty(num_samples=50, generator=generator()).std_mm
    assert (wide[:, 1:] > narrow[:, 1:]).all()


def test_hands_without_data_do_not_vary(fits):
    samples = fits.posterior_samples(3, generator=generator())
    hands = samples.theta[:, :, 22:]
    torch.testing.assert_close(hands, torch.eye(3).expand_as(hands), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["unconditional", "mixture", "isotropic", "contracting"])
def test_every_prior_with_a_density_has_a_posterior(priors, body, people, kind):
    seen = people.keypoints[:2]
    pose = priors.variables(kind, seen)
    fits = fit_keypoints(seen, pose, body=body, max_iterations=10, **CAMERA)
    posterior = fits.posterior(spread=0.1)
    theta = posterior.sample(10, generator=generator()).theta
    angle = rotations.geodesic_distance(theta, fits.theta[:, None])
    assert (angle.mean(dim=(1, 2)) < 0.3).all()
    assert (angle.mean(dim=(1, 2)) > 1e-3).all()


def test_a_person_does_not_depend_on_others(fits, posterior):
    rows = torch.tensor([2])
    alone = posterior._precision(rows)
    together = posterior._precision(torch.arange(4))
    torch.testing.assert_close(alone[0], together[2], rtol=1e-3, atol=1e-2)


def test_nobody_and_a_person_without_keypoints(priors, body):
    empty = fit_keypoints(torch.zeros(0, 25, 3), priors.people, body=body)
    assert empty.posterior_samples(3).theta.shape == (0, 3, 24, 3, 3)
    unseen = fit_keypoints(torch.zeros(2, 25, 3), priors.people, body=body, **CAMERA)
    samples = unseen.posterior_samples(3)
    assert samples.theta.isfinite().all()
    assert samples.transl.isfinite().all()


def test_a_free_focal_length_varies(priors, body, people):
    fits = fit_keypoints(
        people.keypoints[:2], priors.people, body=body, free_focal=True, max_iterations=20, **CAMERA
    )
    focal = fits.posterior_samples(50, generator=generator()).focal_px
    assert (focal.std(dim=1) > 1).all()


def test_arguments_that_do_not_fit_raise(priors, body, people, fits):
    without = fit_keypoints(people.keypoints[:2], None, body=body, max_iterations=2, **CAMERA)
    with pytest.raises(ValueError, match="a fit without a prior has no posterior"):
        without.posterior()
    with pytest.raises(ValueError, match="spread must be positive"):
        fits.posterior(spread=0.0)
    with pytest.raises(ValueError, match="num_samples"):
        fits.posterior_samples(-1)
    with pytest.raises(ValueError, match="num_samples"):
        fits.joint_uncertainty(num_samples=1)


@pytest.mark.slow
def test_the_shipped_prior_is_unsure_of_what_is_hidden():
    keypoints = example_keypoints().repeat(2, 1, 1)
    keypoints[1, [COCO_17.index("right_elbow"), COCO_17.index("right_wrist")], 2] = 0
    fits = fit_keypoints(keypoints, image_size=(340, 480), focal_px=600)
    std = fits.joint_uncertainty(generator=generator()).std_mm
    wrist = SMPL_24.index("right_wrist")
    others = [joint for joint in range(1, 22) if "right" not in SMPL_24.joint_names[joint]]
    assert std[1, wrist] > 1.5 * std[0, wrist]
    assert (std[1, others] < 1.5 * std[0, others]).all()
