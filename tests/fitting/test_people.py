import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.files.model_folder import BUNDLED
from flowprior.fitting import (
    POSE_WEIGHTS,
    SMPLIFY_STAGES,
    AnglePose,
    Cameras,
    DensityPose,
    KeypointWeights,
    LatentPose,
    Stage,
    cameras_for,
    fit_keypoints,
    fit_views,
    pose_variables,
    suited_weights,
)
from flowprior.keypoints import example_keypoints, keypoint_context
from flowprior.skeleton import BODY_25, COCO_17, COCO_18, PROHMR_44, mapping
from tests.fitting.people import FOCAL_PX, IMAGE_PX, detected, towards_camera

CAMERA = {"image_size": (IMAGE_PX, IMAGE_PX), "focal_px": FOCAL_PX}


@pytest.fixture
def fit(priors, body):
    def run(seen, kind="conditional", theta=False, **options):
        context = seen if seen.shape[1] == 25 else torch.zeros(len(seen), 25, 3)
        pose = priors.variables(kind, context, theta=theta)
        options = {"weights": KeypointWeights(), **options}
        return fit_keypoints(seen, pose, body=body, **CAMERA, **options)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conditional", "mixture"])
def test_somebody_alone_is_who_he_is_in_a_batch_of_64(fit, people, body, kind):
    seen = detected(people.keypoints)
    together = fit(seen, kind, max_iterations=40)
    joints = body(together.theta, together.betas, together.transl).joints
    for row in (0, 30):
        alone = fit(seen[row : row + 1], kind, max_iterations=40)
        found = body(alone.theta, alone.betas, alone.transl).joints[0]
        assert (found - joints[row]).norm(dim=-1).max() < 1e-4
        assert alone.solution.status[0] == together.solution.status[row]


@pytest.mark.parametrize("frame", ["crop", "full", "full-original"])
def test_meets_the_keypoints_in_every_frame(priors, body, people, frame):
    seen = people.keypoints[:8]
    pose = priors.variables("isotropic", seen)
    fits = fit_keypoints(
        seen,
        pose,
        body=body,
        frame=frame,
        weights=KeypointWeights(pose=1.0),
        max_iterations=100,
        **CAMERA,
    )
    assert fits.error.median() < 0.02
    assert (fits.solution.value < 0.2 * fits.start_value).all()
    # The projection that is reported is that of the body that is reported.
    points = body.keypoints(fits.theta, BODY_25, fits.betas, fits.transl)
    pixels = fits.focal_px[:, None, None] * points[..., :2] / points[..., 2:]
    torch.testing.assert_close(
        pixels + fits.principal_point_px[:, None], fits.keypoints_2d, rtol=1e-3, atol=0.1
    )


def test_doubtful_keypoints_change_no_fit(fit, people):
    clear = people.keypoints[:3].clone()
    clear[:, [7, 11]] = 0
    doubtful = clear.clone()
    doubtful[:, [7, 11]] = torch.tensor([[0.0, 0.0, 0.0012], [5000.0, 20.0, 0.1]])
    for kind in ("conditional", "isotropic"):
        expected, found = (fit(seen, kind, max_iterations=5) for seen in (clear, doubtful))
        assert torch.equal(found.variables, expected.variables)
        assert torch.equal(found.error, expected.error)


def test_other_units_are_refused(priors, body, people):
    pixels = people.keypoints[:3]
    normalised, scores = pixels.clone(), pixels.clone()
    normalised[..., :2] /= IMAGE_PX
    scores[..., 2] = torch.linspace(0.5, 7, 25)
    pose = priors.variables("isotropic", pixels)
    for seen, message in ((normalised, "pixels are expected"), (scores, "probabilities from 0")):
        with pytest.raises(ValueError, match=message):
            fit_keypoints(seen, pose, body=body, **CAMERA)


def test_finds_the_heading_of_people_who_face_away(fit, people, body):
    seen = people.keypoints[:24]
    fits = fit(seen, "isotropic", weights=KeypointWeights(pose=100.0), max_iterations=40)
    ahead, wanted = fits.theta[:, 0, :, 2], people.theta[:24, 0, :, 2]
    assert ((ahead * wanted).sum(dim=-1) > 0).double().mean() > 0.85


def test_stages_free_focal_and_theta_all_meet_the_keypoints(fit, people):
    seen = towards_camera(people)[:4]
    for options in ({"stages": SMPLIFY_STAGES}, {"free_focal": True}, {"theta": True}):
        fits = fit(seen, max_iterations=40, **options)
        assert fits.error.median() < 0.05, options
        if "free_focal" in options:
            assert (fits.focal_px != FOCAL_PX).any()


def test_fits_to_a_density_on_so3_converge(fit, people):
    fits = fit(towards_camera(people)[:4], "contracting", max_iterations=1000)
    assert all(status.startswith("converged") for status in fits.status), fits.status
    assert fits.error.median() < 0.05


def test_fits_around_a_given_centre_stay_near_it_where_nothing_is_seen(priors, body, people):
    centre = rotations.matrix_to_rot6d(people.theta[:3])
    prior = priors.conditional.freeze()
    posterior = prior(torch.zeros(3, prior.context_features), centre=centre)
    options = {"body": body, "max_iterations": 60, **CAMERA}
    fits = fit_keypoints(people.keypoints[:3], posterior, **options)
    angle = rotations.geodesic_distance(fits.theta, people.theta[:3])
    assert angle.mean() < 0.15
    assert fits.error.median() < 0.02
    alone = fit_keypoints(people.keypoints[1:2], posterior[1:2], **options)
    assert torch.equal(alone.theta[0], fits.theta[1])


def test_weights_suit_the_prior(priors, people):
    seen = people.keypoints[:2]
    for kind in ("conditional", "contracting", "unconditional"):
        assert suited_weights(priors.variables(kind, seen)) == KeypointWeights.of_noise()
    for kind in ("mixture", "isotropic", "none"):
        weights = suited_weights(priors.variables(kind, seen))
        assert weights == KeypointWeights(pose=POSE_WEIGHTS[kind])
    assert KeypointWeights.of_noise().pose == pytest.approx(POSE_WEIGHTS["flow"])


def test_a_stage_may_widen_the_robust_loss(fit, people):
    seen = people.keypoints[:2].clone()
    seen[:, 4, :2] += 150.0
    weights = KeypointWeights(sigma=10.0)
    stages = (Stage(sigma=10.0, max_iterations=0), Stage(max_iterations=0))
    wide = fit(seen, weights=weights, stages=stages[:1])
    narrow = fit(seen, weights=weights, stages=stages)
    assert (wide.solution.value > narrow.solution.value).all()


@pytest.mark.slow
def test_restarts_leave_nobody_worse_and_most_better(fit, people):
    seen = people.keypoints[:8]
    once = fit(seen, max_iterations=60)
    again = fit(seen, max_iterations=60, restarts=2)
    assert (again.solution.value <= once.solution.value).all()
    assert (again.solution.value < once.solution.value).double().mean() > 0.5
    alone = fit(seen[3:4], max_iterations=60, restarts=2)
    torch.testing.assert_close(alone.theta[0], again.theta[3], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="restarts must be at least 0"):
        fit(seen, restarts=-1)


def test_a_restart_leaves_alone_what_a_stage_keeps(fit, people):
    seen = people.keypoints[:4]
    camera = (Stage(free=("camera", "betas")),)
    once = fit(seen, stages=camera, max_iterations=20)
    again = fit(seen, stages=camera, max_iterations=20, restarts=3)
    torch.testing.assert_close(again.variables[:, :-13], once.variables[:, :-13], atol=0, rtol=0)
    assert (again.solution.value <= once.solution.value).all()


def test_fits_other_joint_sets(fit, people):
    seen = people.keypoints[:4, list(mapping(BODY_25, COCO_17))]
    fits = fit(seen, "mixture", max_iterations=40)
    assert fits.keypoints_2d.shape == (4, 17, 2)
    assert fits.error.median() < 0.05


def test_starts_where_it_is_told(fit, people):
    seen = people.keypoints[:3]
    betas = torch.randn(3, 10)
    fits = fit(seen, betas=betas, transl=people.transl[:3], max_iterations=0)
    torch.testing.assert_close(fits.betas, betas)
    torch.testing.assert_close(fits.transl, people.transl[:3])
    assert fits.solution.counts() == {"max_iterations": 3}


def test_nobody_suffers_from_somebody_without_a_keypoint(fit, people):
    seen = people.keypoints[:3].clone()
    seen[1] = 0
    fits = fit(seen, max_iterations=20)
    assert fits.solution.value.isfinite().all()
    torch.testing.assert_close(
        fits.theta[0], fit(seen[:1], max_iterations=20).theta[0], atol=1e-4, rtol=0
    )


def spoiled(keypoints, how):
    """Keypoints (K, 3) of one person whom something has gone wrong with."""
    bad = keypoints.clone()
    place, value = {
        "all of NaN": ((slice(None), slice(0, 2)), torch.nan),
        "one of NaN": ((3, 0), torch.nan),
        "one infinite": ((4, slice(0, 2)), torch.inf),
        "one far off": ((4, slice(0, 2)), 1e30),
        "confidence of NaN": ((slice(None), 2), torch.nan),
        "confidence below 0": ((slice(None), 2), -1.0),
        "confidence of 1e30": ((slice(None), 2), 1e30),
        "nothing seen": ((slice(None), slice(None)), 0.0),
        "one seen": ((slice(1, None), slice(None)), 0.0),
        "all in one place": ((slice(None), slice(0, 2)), 100.0),
    }[how]
    bad[place] = value
    return bad


BAD = [
    *("all of NaN", "one of NaN", "one infinite", "one far off", "confidence of NaN"),
    *("confidence below 0", "confidence of 1e30", "nothing seen", "one seen", "all in one place"),
]


@pytest.fixture(scope="module", params=["conditional", "isotropic"])
def beside(request, priors, body, people):
    """Fits of three people, of whom the second may be spoiled."""
    seen = people.keypoints[:3].clone()
    seen[0, 5:8] = seen[2, 15:] = 0

    def run(how=None, rows=(0, 1, 2)):
        keypoints = seen.clone()
        if how is not None:
            keypoints[1] = spoiled(seen[1], how)
        keypoints = keypoints[list(rows)]
        return fit_keypoints(
            keypoints,
            priors.variables(request.param, keypoints),
            body=body,
            max_iterations=3,
            **CAMERA,
        )

    return run, run()


FITTED = ("theta", "betas", "transl", "keypoints_2d", "variables", "error_px", "start_value")


@pytest.mark.parametrize("how", BAD)
def test_what_is_wrong_with_one_person_changes_nobody_else(beside, how):
    run, whole = beside
    fits = run(how)
    for name in FITTED:
        found, wanted = getattr(fits, name)[[0, 2]], getattr(whole, name)[[0, 2]]
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, msg=name)
    assert fits.theta.isfinite().all()


def test_nobody_depends_on_who_else_is_fitted(beside):
    run, whole = beside
    for rows in ([0], [2], [2, 0]):
        fits = run(rows=rows)
        for name in FITTED:
            torch.testing.assert_close(getattr(fits, name), getattr(whole, name)[rows], msg=name)


def kinds_of_prior(priors, keypoints):
    """Every kind of prior that users have, for keypoints (P, 25, 3)."""
    with torch.no_grad():
        posterior = priors.conditional(keypoint_context(keypoints))
        so3 = ConditionalPosePrior(0, joints=23, space="so3", hidden_features=16)
        so3.nll(0.2 * torch.randn(50, 23, 3))
        return {
            "posterior": (posterior, LatentPose),
            "posterior without batch": (priors.conditional(torch.zeros(75)), LatentPose),
            "posterior of SO(3)": (so3.eval()(None), DensityPose),
            "conditional": (priors.conditional, LatentPose),
            "frozen": (priors.conditional.freeze(), LatentPose),
            "unconditional": (priors.unconditional, LatentPose),
            "mixture": (priors.mixture, AnglePose),
            "none": (None, AnglePose),
            "variables": (priors.variables("isotropic", keypoints), AnglePose),
        }


@pytest.mark.slow
def test_fits_with_every_kind_of_prior(priors, body, people):
    seen = people.keypoints[:3]
    for name, (prior, _) in kinds_of_prior(priors, seen).items():
        fits = fit_keypoints(seen, prior, body=body, max_iterations=2, **CAMERA)
        assert len(fits) == 3, name
        assert (fits.solution.value < fits.start_value).all(), name
        assert fits.theta.isfinite().all(), name


def test_the_context_is_computed_from_the_keypoints(priors, body, people):
    seen = people.keypoints[:3]
    with torch.no_grad():
        posterior = priors.conditional.freeze()(keypoint_context(seen))
    options = {"body": body, "max_iterations": 4, **CAMERA}
    wanted = fit_keypoints(seen, posterior, **options)
    found = fit_keypoints(seen, priors.conditional, **options)
    torch.testing.assert_close(found.theta, wanted.theta, atol=1e-3, rtol=0)
    # Of another joint set, the joints that both have.
    coco = fit_keypoints(seen[:, list(mapping(BODY_25, COCO_17))], priors.conditional, **options)
    assert (coco.solution.value < coco.start_value).all()


def test_the_evidence_is_the_keypoints(priors, body, people):
    seen = people.keypoints[:3]
    with torch.no_grad():
        posterior = priors.people.freeze().given(keypoints_2d=seen)
    options = {"body": body, "max_iterations": 4, **CAMERA}
    wanted = fit_keypoints(seen, posterior, **options)
    found = fit_keypoints(seen, priors.people, **options)
    torch.testing.assert_close(found.theta, wanted.theta, atol=1e-3, rtol=0)
    # Of another joint set, the joints that both have.
    fewer = BODY_25.subset("arms", range(8))
    fits = fit_keypoints(seen[:, :8], priors.people.freeze(), skeleton=fewer, **options)
    assert (fits.solution.value < fits.start_value).all()


def test_without_keypoints_among_its_evidence_the_marginal_is_the_prior(priors, body, people):
    seen = people.keypoints[:2]
    options = {"body": body, "max_iterations": 4, **CAMERA}
    wanted = fit_keypoints(seen, priors.body_pose.freeze().given(), **options)
    assert torch.equal(fit_keypoints(seen, priors.body_pose, **options).theta, wanted.theta)


@pytest.fixture
def tiny_library(priors, tmp_path, monkeypatch):
    """A library that ships hardly trained priors."""
    for name, prior in (("people", priors.people), ("body-pose", priors.body_pose)):
        prior.save_pretrained(tmp_path / name)
        monkeypatch.setitem(BUNDLED, f"flowprior/{name}", tmp_path / name)
    pose_variables._shipped.cache_clear()
    yield tmp_path
    pose_variables._shipped.cache_clear()


def test_priors_by_name(priors, body, people, tiny_library):
    seen = people.keypoints[:2]
    options = {"body": body, "max_iterations": 3, **CAMERA}
    for name, prior in (("people", priors.people), ("body-pose", priors.body_pose)):
        wanted = fit_keypoints(seen, prior, **options)
        for each in (f"flowprior/{name}", str(tiny_library / name)):
            assert torch.equal(fit_keypoints(seen, each, **options).theta, wanted.theta)
        if name == "people":
            assert torch.equal(fit_keypoints(seen, **options).theta, wanted.theta)
    views = fit_views(seen, **options)
    assert views.theta.shape == (1, 2, 24, 3, 3)


def test_the_shipped_prior_fits_the_example(body):
    fits = fit_keypoints(example_keypoints())
    assert fits.status[0] in ("converged_value", "converged_gradient", "max_iterations")
    assert fits.error < 0.01
    params = fits.smpl_params()
    theta = torch.cat([params["global_orient"], params["body_pose"]], dim=1)
    joints = body(theta, params["betas"], params["transl"]).joints
    assert (joints[..., 2] > 10).all()  # in front of a camera of 5000 pixels
    arrays = fits.to_arrays()
    assert arrays["body_pose"].shape == (1, 23, 3, 3)
    assert arrays["status"].tolist() == fits.status


@pytest.mark.parametrize(
    "name", ["conditional", "contracting", "unconditional", "mixture", "people", "body_pose"]
)
def test_one_person_alone_and_among_others_are_bitwise_equal(priors, body, people, name):
    seen = detected(people.keypoints[:5])
    seen[1] = torch.nan
    options = {"body": body, "max_iterations": 8, **CAMERA}
    together = fit_keypoints(seen, priors.of(name), **options)
    for row in (0, 1, 4):
        alone = fit_keypoints(seen[row], priors.of(name), **options)
        for each in (*FITTED, "penalty", "error"):
            mine, theirs = getattr(alone, each)[0], getattr(together, each)[row]
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True, msg=each)
        assert alone.status == together.status[row : row + 1]


def test_neighbours_with_extra_keypoints_change_nobody(priors, body, people):
    seen = torch.cat([people.keypoints[:3], torch.zeros(3, 19, 3)], dim=1)
    beside = seen.clone()
    beside[1, 25:] = torch.tensor([500.0, 500.0, 0.9])
    alone, together = (
        fit_keypoints(each, priors.mixture, body=body, max_iterations=5, **CAMERA)
        for each in (seen, beside)
    )
    for name in FITTED:
        assert torch.equal(getattr(alone, name)[[0, 2]], getattr(together, name)[[0, 2]]), name


@pytest.mark.parametrize("value", [torch.nan, 0.0])
def test_a_person_without_keypoints_keeps_the_start_and_says_so(priors, body, people, value):
    seen = people.keypoints[:3].clone()
    seen[1] = value
    fits = fit_keypoints(seen, priors.mixture, body=body, max_iterations=5, **CAMERA)
    assert fits.status[1] == "no_keypoints"
    assert fits.error_px.isnan().tolist() == [False, True, False]
    assert fits.solution.converged[1] == False  # noqa: E712
    assert fits.solution.value[1] == fits.start_value[1]
    assert fits.theta.isfinite().all()


def test_a_start_of_nan_costs_only_one_person(priors, body, people):
    betas = torch.zeros(3, 10)
    betas[1, 4] = torch.nan
    fits = fit_keypoints(
        people.keypoints[:3], priors.mixture, body=body, betas=betas, max_iterations=5, **CAMERA
    )
    assert fits.status[1] == "non_finite"
    assert fits.theta[[0, 2]].isfinite().all()
    assert "non_finite" not in (fits.status[0], fits.status[2])


@pytest.mark.parametrize("kind", ["conditional", "unconditional", "mixture", "none"])
def test_an_empty_batch_gives_an_empty_result(priors, body, kind):
    fits = fit_keypoints(
        torch.zeros(0, 25, 3), priors.of(kind), body=body, stages=SMPLIFY_STAGES, restarts=1
    )
    assert len(fits) == 0
    assert fits.status == []
    assert fits.to_arrays()["betas"].shape == (0, 10)


def test_one_shape_or_one_for_each_person(priors, body, people):
    seen, betas = people.keypoints[:2], torch.randn(10)
    options = {"body": body, "max_iterations": 2, **CAMERA}
    one = fit_keypoints(seen, None, betas=betas, **options)
    each = fit_keypoints(seen, None, betas=betas.expand(2, -1), **options)
    assert torch.equal(one.variables, each.variables)


WRONG = {
    "shape": (torch.zeros(25), {}, ValueError, r"keypoints \(\.\.\., K, 3\)"),
    "dimensions": (torch.zeros(1, 1, 25, 3), {}, ValueError, r"\(P, K, 3\) or \(K, 3\)"),
    "no tensor": ([[1.0, 2.0, 3.0]], {}, TypeError, "keypoints"),
    "joint set": (torch.zeros(2, 18, 3), {}, ValueError, "no joint set with 18.*17 .COCO-17."),
    "other set": (torch.zeros(2, 25, 3), {"skeleton": COCO_18}, ValueError, r"\(P, 18, 3\)"),
    "betas": (torch.zeros(2, 25, 3), {"betas": torch.zeros(3, 10)}, ValueError, r"betas \(2, 10\)"),
    "sizes": (torch.zeros(2, 25, 3), {"image_size": torch.ones(3, 2)}, ValueError, "image_size"),
    "no stage": (torch.zeros(2, 25, 3), {"stages": ()}, ValueError, "at least one stage"),
    "restarts": (torch.zeros(2, 25, 3), {"restarts": -1}, ValueError, "restarts must be at least"),
    "method": (torch.zeros(2, 25, 3), {"method": "newton"}, ValueError, "method must be one of"),
    "both": (
        torch.zeros(1, 25, 3),
        {"cameras": Cameras.crop(torch.zeros(1, 2), torch.ones(1)), "focal_px": 900.0},
        ValueError,
        "not both",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments_that_do_not_fit_raise(body, case):
    keypoints, options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        fit_keypoints(keypoints, None, body=body, **options)


def test_priors_that_do_not_fit_raise(priors, body, people):
    seen = people.keypoints[:2]
    points = ConditionalPosePrior(0, joints=16, space="points", hidden_features=16)
    for prior, error, message in (
        (priors.conditional(torch.zeros(3, 75)), ValueError, r"each of 2 people.*\(3,\)"),
        (ConditionalPosePrior(32, hidden_features=16), ValueError, "a context of 32 numbers"),
        (points, ValueError, "SMPL's 24 joints"),
        (3, TypeError, "its name, .* as prior, got int"),
        ("nowhere", FileNotFoundError, "no such folder"),
    ):
        with pytest.raises(error, match=message):
            fit_keypoints(seen, prior, body=body)


def test_given_cameras_are_those_of_the_arguments(priors, body, people):
    seen = people.keypoints[:2]
    cameras = cameras_for(seen, **CAMERA)
    options = {"body": body, "max_iterations": 3}
    found = fit_keypoints(seen, priors.mixture, cameras=cameras, **options)
    assert torch.equal(
        found.variables, fit_keypoints(seen, priors.mixture, **CAMERA, **options).variables
    )


def test_the_44_keypoints_of_prohmr_are_recognised(priors, body, people):
    seen = torch.cat([people.keypoints[:1], torch.zeros(1, 19, 3)], dim=1)
    fits = fit_keypoints(seen, None, body=body, max_iterations=2)
    assert fits.keypoints_2d.shape == (1, PROHMR_44.num_joints, 2)
