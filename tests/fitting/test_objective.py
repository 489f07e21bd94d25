import pytest
import torch

from flowprior.fitting import IGNORED, Cameras, KeypointObjective, KeypointWeights
from flowprior.keypoints import LEAST_CONF, keypoint_squares
from flowprior.skeleton import BODY_25, COCO_17, PROHMR_44, PROHMR_FITTING_IGNORES
from tests.fitting.people import FOCAL_PX, IMAGE_PX, energy, project


@pytest.fixture
def make(people, priors, body):
    seen = people.keypoints[:5]
    centre, side = keypoint_squares(seen)
    cameras = Cameras.full(torch.full((5, 2), IMAGE_PX), centre, side, FOCAL_PX)

    def build(keypoints=seen, skeleton=BODY_25, kind="conditional", cameras=cameras, **options):
        pose = priors.variables(kind, seen)
        transl = options.pop("transl", people.transl[:5])
        return KeypointObjective(body, keypoints, skeleton, cameras, pose, transl, **options)

    return build


def test_is_the_formula_of_the_reference(make, people, priors, body):
    seen = people.keypoints[:5].clone()
    seen[..., :2] += 9.0 * torch.randn(5, 25, 2)
    seen[..., 2] = torch.rand(5, 25)
    centre, side = keypoint_squares(seen)
    image = torch.full((5, 2), IMAGE_PX)
    cameras = Cameras.full(image, centre, side, FOCAL_PX, original_units=True)
    objective = make(seen, cameras=cameras)
    size = priors.conditional.flow.features
    x = objective.start() + 0.1 * torch.randn(5, size + 10 + 3)
    z, betas, moved = x.split((size, 10, 3), dim=-1)
    u, v, w = moved.unbind(-1)
    theta = priors.variables("conditional", people.keypoints[:5]).theta(z)
    near = (1 + w / 2).square()[:, None]
    transl = near * (people.transl[:5] + torch.stack([u, v, 0 * u], -1))
    error = project(body.keypoints(theta, BODY_25, betas, transl)) - seen[..., :2]
    conf = seen[..., 2].clone()
    conf[:, [8, 9, 12]] = 0
    conf[conf <= LEAST_CONF] = 0
    loss = 100**2 * error**2 / (100**2 + error**2)
    wanted = (1000 / IMAGE_PX) ** 2 * (conf[..., None] ** 2 * loss).sum(dim=(1, 2))
    wanted = wanted + 16 * energy(priors.conditional, z) + 36 * betas.square().sum(1)
    torch.testing.assert_close(objective(x, torch.arange(5)), wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("kind", ["conditional", "mixture"])
def test_is_zero_where_all_is_as_it_should_be(make, people, kind):
    objective = make(kind=kind)
    x = objective.start()
    parts = objective.parts(x)
    seen = torch.cat([project(objective.keypoints(parts)), torch.ones(5, 25, 1)], dim=-1)
    there = make(seen, kind=kind)
    value = there.image_term(there.parts(x), torch.arange(5))
    assert (value < 1e-3).all()


def test_gradients_are_those_of_differences(make):
    objective = make(weights=KeypointWeights(sigma=30.0), free_focal=True)
    rows = torch.arange(5)
    start = objective.start()
    x = (start + 0.05 * torch.randn(start.shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x, rows).sum(), x)
    direction = torch.nn.functional.normalize(torch.randn(start.shape), dim=-1)
    with torch.no_grad():
        ahead, behind = (objective(x + h * direction, rows) for h in (2e-3, -2e-3))
    slope = (gradient * direction).sum(dim=-1)
    torch.testing.assert_close(slope, (ahead - behind) / 4e-3, rtol=0.1, atol=30.0)


def test_rows_do_not_know_each_other(make):
    objective = make()
    start = objective.start()
    x = start + 0.1 * torch.randn(start.shape)
    rows = torch.tensor([3, 0, 3, 1, 2, 4, 0, 0, 1])
    together = objective(x, torch.arange(5))
    torch.testing.assert_close(objective(x[rows], rows), together[rows])


def test_unseen_keypoints_and_hips_are_not_read(make, people):
    seen = people.keypoints[:5].clone()
    seen[:, 4, 2] = 0
    other = seen.clone()
    other[:, 4, :2] = torch.nan
    other[:, [8, 9, 12], :2] += 500.0
    x = make().start()
    rows = torch.arange(5)
    assert torch.equal(make(seen)(x, rows), make(other)(x, rows))
    hips = KeypointWeights(use_hips=True)
    assert (make(other, weights=hips)(x, rows) > make(seen, weights=hips)(x, rows)).all()


def test_hips_are_the_reference_s_in_every_set():
    assert IGNORED[PROHMR_44.name] == PROHMR_FITTING_IGNORES
    for skeleton in (BODY_25, COCO_17):
        names = [skeleton.joint_names[joint] for joint in IGNORED[skeleton.name]]
        assert names
        assert all("hip" in name for name in names)


def test_the_44_keypoints_are_those_of_openpose_where_only_they_are_seen(make, people):
    seen = people.keypoints[:5]
    padded = torch.cat([seen, torch.zeros(5, 19, 3)], dim=1)
    x = make().start() + 0.1
    rows = torch.arange(5)
    wide = make(padded, PROHMR_44)
    assert torch.equal(wide(x, rows), make()(x, rows))


def test_the_objective_of_one_person_does_not_depend_on_who_sees_the_extra_keypoints(make, people):
    seen = torch.cat([people.keypoints[:5], torch.zeros(5, 19, 3)], dim=1)
    beside = seen.clone()
    beside[3, 25:] = torch.tensor([500.0, 500.0, 1.0])
    alone, together = (make(keypoints, PROHMR_44) for keypoints in (seen, beside))
    x = (alone.start() + 0.1).requires_grad_()
    found, rows = [], torch.arange(5)
    for objective in (alone, together):
        value = objective(x, rows)
        found.append((value, *torch.autograd.grad(value.sum(), x)))
    others = [0, 1, 2, 4]
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine[others], theirs[others])
        assert not torch.equal(mine[3], theirs[3])


def test_focal_length_and_depth_move_together(make):
    objective = make(free_focal=True)
    x = objective.start()
    longer = x.clone()
    longer[:, -1] = 0.5
    before, after = objective.parts(x), objective.parts(longer)
    assert (after.focal > 1.4 * before.focal).all()
    torch.testing.assert_close(after.transl[:, 2] / before.transl[:, 2], after.focal / before.focal)


def test_frozen_numbers_have_no_gradient_and_stay(make):
    objective = make(kind="mixture")
    x = objective.start()
    staged = objective.only(x, ("root", "camera"), KeypointWeights())
    moved = (x + 0.1).requires_grad_()
    value = staged(moved, torch.arange(5))
    (gradient,) = torch.autograd.grad(value.sum(), moved)
    slices = objective.slices
    assert (gradient[:, slices["body"]] == 0).all()
    assert (gradient[:, slices["betas"]] == 0).all()
    assert (gradient[:, slices["root"]] != 0).any()
    assert (gradient[:, slices["camera"]] != 0).any()
    with pytest.raises(ValueError, match="no legs; there are root, body"):
        objective.only(x, ("legs",), KeypointWeights())


def test_refuses_what_does_not_fit(make, people):
    with pytest.raises(ValueError, match=r"\(P, 17, 3\) for COCO-17, got \(5, 25, 3\)"):
        make(skeleton=COCO_17)
    with pytest.raises(ValueError, match="a camera and a translation for each of 5"):
        make(transl=torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"betas \(5, 10\), got \(5, 11\)"):
        make(betas=torch.zeros(5, 11))
    for name, value in (
        ("pose", -1.0),
        ("shape", float("nan")),
        ("sigma", 0.0),
        ("trunk_noise", 0.0),
    ):
        with pytest.raises(ValueError, match=name):
            KeypointWeights(**{name: value})
    for name in ("noise", "betas", "focal", "outlier", "trunk_noise"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            KeypointWeights.of_noise(**{name: 0.0})


def test_weights_of_noise_make_the_objective_a_log_density(make, people):
    noise, betas = 0.01, 2.0
    weights = KeypointWeights.of_noise(noise, betas=betas, outlier=1e3, trunk_noise=1.0)
    assert weights.noise == pytest.approx(noise)
    seen = people.keypoints[:5].clone()
    seen[..., :2] += 3.0 * torch.randn(5, 25, 2)
    seen[:, 3, 2] = 0.5
    objective = make(seen, weights=weights)
    x = objective.start()
    x[:, objective.slices["betas"]] += 0.3
    rows = torch.arange(5)
    parts = objective.parts(x)
    pixels = project(objective.keypoints(parts))
    side = keypoint_squares(people.keypoints[:5])[1]  # of the cameras
    std = noise * side[:, None, None] / seen[..., 2:]  # half as sure, twice as far
    wanted = ((pixels - seen[..., :2]) / std).square().sum(dim=(1, 2))
    wanted = wanted + (parts.betas / betas).square().sum(dim=-1) + objective.penalty(x, rows)
    torch.testing.assert_close(objective(x, rows) / weights.pose, wanted, rtol=1e-3, atol=1e-2)


def test_hips_and_neck_may_be_noisier(make, people):
    seen = people.keypoints[:5]
    rows = torch.arange(5)
    for name in ("neck", "mid_hip", "left_hip", "left_knee"):
        found = []
        for factor in (1.0, 3.0):
            weights = KeypointWeights(use_hips=True, trunk_noise=factor)
            there = make(seen, weights=weights)
            exact = torch.cat(
                [project(there.keypoints(there.parts(there.start()))), seen[..., 2:]], dim=-1
            )
            off = exact.clone()
            off[:, BODY_25.index(name), 0] += 2.0
            moved = make(off, weights=weights)
            found.append(moved.image_term(moved.parts(moved.start()), rows))
        share = 1.0 if name == "left_knee" else 1 / 9
        torch.testing.assert_close(found[1], share * found[0], rtol=0.02, atol=0.1)


def test_bodies_are_placed_exactly_under_autocast(make):
    objective = make()
    parts = objective.parts(objective.start())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        points = objective.keypoints(parts)
        seen = objective._data.cameras.project(points)
    assert torch.equal(points, objective.keypoints(parts))
    assert torch.equal(seen, objective._data.cameras.project(points))
