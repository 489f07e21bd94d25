import pytest
import torch

from examples.fitting.choices import cameras_for
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, People, detect, hide
from flowprior.fitting.cameras import Cameras
from flowprior.fitting.objective import KeypointWeights
from flowprior.fitting.people import SMPLIFY_STAGES, Stage, fit_people
from flowprior.keypoints import keypoint_squares
from flowprior.skeleton import BODY_25, COCO_17, mapping


def cameras(seen):
    centre, side = keypoint_squares(seen)
    return Cameras.full(torch.full_like(centre, IMAGE_PX), centre, side, FOCAL_PX)


@pytest.fixture
def fit(priors, body):
    def run(seen, kind="conditional", skeleton=BODY_25, theta=False, **options):
        context = seen if skeleton is BODY_25 else torch.zeros(len(seen), 25, 3)
        pose = priors.variables(kind, context, theta=theta)
        return fit_people(body, seen, skeleton, cameras(seen), pose, **options)

    return run


@pytest.mark.parametrize("kind", ["conditional", "mixture"])
def test_somebody_alone_is_who_he_is_in_a_batch_of_64(fit, people, body, kind):
    generator = torch.Generator().manual_seed(0)
    seen = detect(people.keypoints, hide(people.keypoints, generator), generator)
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
    camera = cameras_for(frame, seen, torch.full((8, 2), IMAGE_PX), FOCAL_PX)
    pose = priors.variables("isotropic", seen)
    fits = fit_people(
        body, seen, BODY_25, camera, pose, weights=KeypointWeights(pose=1.0), max_iterations=100
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
            fit_people(body, seen, BODY_25, cameras(pixels), pose)
        with pytest.raises(ValueError, match=message):
            priors.variables("conditional", seen)


def test_finds_the_heading_of_people_who_face_away(fit, people, body):
    seen = people.keypoints[:24]
    fits = fit(seen, "isotropic", weights=KeypointWeights(pose=100.0), max_iterations=40)
    ahead, wanted = fits.theta[:, 0, :, 2], people.theta[:24, 0, :, 2]
    assert ((ahead * wanted).sum(dim=-1) > 0).double().mean() > 0.85


def test_stages_free_focal_and_theta_all_meet_the_keypoints(fit, people):
    seen = people.keypoints[:4]
    for options in ({"stages": SMPLIFY_STAGES}, {"free_focal": True}, {"theta": True}):
        fits = fit(seen, max_iterations=40, **options)
        assert fits.error.median() < 0.05, options
        if "free_focal" in options:
            assert (fits.focal_px != FOCAL_PX).any()


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
    fits = fit(seen, "mixture", COCO_17, max_iterations=40)
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
        size = torch.full((len(rows), 2), IMAGE_PX)
        return fit_people(
            body,
            keypoints,
            BODY_25,
            cameras_for("full", keypoints, size, FOCAL_PX),
            priors.variables(request.param, keypoints),
            max_iterations=3,
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


def test_a_context_does_not_depend_on_who_else_is_there(priors, people):
    everybody = priors.context(people.keypoints)
    for count in (1, 2, 3, 8, 31, 32, 33, 63):
        torch.testing.assert_close(
            priors.context(people.keypoints[:count]), everybody[:count], rtol=0, atol=0
        )
    spoiled_one = people.keypoints.clone()
    spoiled_one[5] = torch.nan
    found = priors.context(spoiled_one)
    assert found.isfinite().all()
    torch.testing.assert_close(found[6:], everybody[6:], rtol=0, atol=0)
    assert priors.context(people.keypoints[:0]).shape == (0, everybody.shape[1])


def test_refuses_nobody(fit):
    with pytest.raises(ValueError, match="at least one person"):
        fit(torch.zeros(0, 25, 3))


def test_people_can_be_selected(people):
    assert isinstance(people[:3], People)
    assert len(people[torch.tensor([1, 2])]) == 2
