"""Whole-body fits: keypoints with fingers, hands at rest, uncertainty, and the parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import Body, BodyModel
from flowprior.body.kinds import KINDS
from flowprior.fitting import KeypointObjective, KeypointWeights, fit_keypoints
from flowprior.fitting.hand_pose import DEFAULT_HANDS, hand_poses
from flowprior.fitting.whole_body_points import as_body_67, finger_joints
from flowprior.prior import BlockPrior
from flowprior.skeleton import (
    BODY_25,
    BODY_67,
    COCO_17,
    COCO_WHOLEBODY_65,
    COCO_WHOLEBODY_133,
    MHR_70,
    SMPL_45,
    Skeleton,
    shared_joints,
)
from tests.body.made_up import arrays_of
from tests.fitting.people import project, random_people

SIZE = (1000, 1000)
OPTIONS = {"image_size": SIZE, "focal_px": 1145.0, "max_iterations": 60}
LITTLE = [joint for joint, name in enumerate(BODY_67.meanings) if "pinky" in name]
LEFT, RIGHT = list(range(25, 46)), list(range(46, 67))


@pytest.fixture(scope="module")
def whole():
    return BodyModel(hands=True)


@pytest.fixture(scope="module")
def scene(body, whole):
    """Theta (3, 52, 3, 3) and exact keypoints of BODY-67 (3, 67, 3)."""
    people = random_people(body, 3, seed=4)
    generator = torch.Generator().manual_seed(5)
    drawn = [
        hand.sample(torch.arange(3), 1, generator=generator)[:, 0]
        for hand in hand_poses(DEFAULT_HANDS, 3, people.theta)
    ]
    hands = rotations.rot6d_to_matrix(torch.cat(drawn, dim=1))
    theta = torch.cat([people.theta[:, :22], hands], dim=1)
    points = whole.keypoints(theta, BODY_67, people.betas, people.transl)
    keypoints = torch.cat([project(points), torch.ones(3, 67, 1)], dim=-1)
    return theta, keypoints


@pytest.fixture(scope="module")
def fits(whole, scene):
    return fit_keypoints(scene[1], body=whole, **OPTIONS)


def as_set(keypoints, skeleton):
    """BODY-67's keypoints as those of another detector, zero where it finds others."""
    source, target = shared_joints(BODY_67, skeleton)
    placed = torch.zeros(len(keypoints), skeleton.num_joints, 3)
    placed[:, list(target)] = keypoints[:, list(source)]
    return placed


def hands_from_wrists(body, theta):
    joints = body(theta).joints
    turned = [joints[:, [20, *range(22, 37)]], joints[:, [21, *range(37, 52)]]]
    return torch.cat([each[:, 1:] - each[:, :1] for each in turned], dim=1)


@pytest.mark.parametrize("skeleton", [COCO_WHOLEBODY_133, COCO_WHOLEBODY_65, BODY_67, MHR_70])
def test_sets_of_detectors_become_one(scene, skeleton):
    keypoints = as_set(scene[1], skeleton)
    placed, body = as_body_67(keypoints, skeleton)
    seen = placed[..., 2] > 0
    torch.testing.assert_close(placed[seen], scene[1][seen])
    assert seen[:, list(finger_joints(BODY_67))].all()
    torch.testing.assert_close(body, placed[:, :25])
    absent = {"mid_hip", "neck", "left_hand_root", "right_hand_root"}
    missing = {BODY_67.joint_names[joint] for joint in (~seen[0]).nonzero()[:, 0].tolist()}
    assert missing <= absent


def test_fingertips_without_knuckles_are_no_hands():
    assert not finger_joints(SMPL_45)
    assert len(finger_joints(BODY_67)) == 40
    assert len(finger_joints(BODY_67, "left")) == 20


@pytest.mark.slow
def test_hands_fit_their_keypoints(whole, scene, fits):
    theta, keypoints = scene
    assert fits.theta.shape == (3, 52, 3, 3)
    assert fits.hands == [("fitted", "fitted")] * 3
    rest = fit_keypoints(keypoints[:, :25], body=whole, **OPTIONS)
    assert rest.hands == [("at rest", "at rest")] * 3
    truth = hands_from_wrists(whole, theta)
    ours, before = (
        (hands_from_wrists(whole, each.theta) - truth).norm(dim=-1).mean() for each in (fits, rest)
    )
    assert ours < 0.8 * before
    # In the image, the fingers are where they were seen, which the body alone does not tell.
    unknown = whole.keypoints(rest.theta, BODY_67, rest.betas, rest.transl)
    found = torch.stack([fits.keypoints_2d, project(unknown)])
    near, far = (found - keypoints[..., :2]).norm(dim=-1)[:, :, LEFT + RIGHT].mean(dim=(1, 2))
    assert near < min(4.0, 0.4 * far)


@pytest.mark.slow
def test_the_body_is_that_of_24_joints_without_hands(body, whole, scene):
    keypoints = scene[1].clone()
    keypoints[:, 25:] = 0
    ours = fit_keypoints(keypoints, body=whole, **OPTIONS)
    theirs = fit_keypoints(keypoints[:, :25], body=body, **OPTIONS)
    assert ours.hands == [("at rest", "at rest")] * 3
    torch.testing.assert_close(ours.start_value, theirs.start_value, rtol=1e-3, atol=0)
    # The same bodies are as good on both.
    size = theirs.objective.pose.size
    hands = torch.zeros(3, ours.objective.pose.size - size)
    x = torch.cat([theirs.variables[:, :size], hands, theirs.variables[:, size:]], dim=1)
    value = ours.objective(x, torch.arange(3))
    torch.testing.assert_close(value, theirs.solution.value, rtol=1e-2, atol=0)
    left, right = (
        rotations.rot6d_to_matrix(hand.theta(hand.start(3)))
        for hand in hand_poses(DEFAULT_HANDS, 3, hands)
    )
    assert not ours.variables[:, ours.objective.slices["hands"]].any()
    torch.testing.assert_close(ours.left_hand_pose, left, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.right_hand_pose, right, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_hidden_hand_has_the_uncertainty_of_the_prior(whole, scene, fits):
    keypoints = scene[1].clone()
    keypoints[:, RIGHT] = 0
    keypoints[:, LITTLE] = 0
    part = fit_keypoints(keypoints, body=whole, **OPTIONS)
    assert part.hands == [("fitted", "at rest")] * 3
    generator = torch.Generator().manual_seed(0)
    prior = hand_poses(DEFAULT_HANDS, 3, keypoints)[1]
    spread = part.posterior(spread=1.0).joint_uncertainty(generator=generator, num_samples=400)
    drawn = prior.sample(torch.arange(1), 2000, generator=generator)[0]
    samples, mode = map(rotations.rot6d_to_matrix, (drawn, prior.theta(prior.start(1))))
    turned = rotations.geodesic_distance(samples, mode)
    expected = torch.rad2deg(turned.square().mean(dim=0).sqrt())
    torch.testing.assert_close(spread.std_degrees[0, 37:], expected, rtol=0.15, atol=0.5)
    assert (spread.std_mm[0, 37:] > 1).all()
    seen = fits.posterior(spread=1.0).joint_uncertainty(generator=generator, num_samples=400)
    little = [22 + 6 + joint for joint in range(3)]
    index = [22 + joint for joint in range(3)]
    grown = spread.std_degrees / seen.std_degrees
    assert (grown[:, little].mean() > 1.15 * grown[:, index].mean()).item()


@pytest.mark.slow
def test_joints_in_space_decide_the_depth(body, whole, scene):
    theta, keypoints = scene
    points = whole.keypoints(theta, BODY_67)
    known = points.clone()
    known[:, 40:] = torch.nan
    without = fit_keypoints(keypoints, body=whole, **OPTIONS)
    given = fit_keypoints(keypoints, body=whole, joints_3d=known + 3.0, **OPTIONS)

    def error(fits):
        found = whole.keypoints(fits.theta, BODY_67, fits.betas)[:, :25]
        found, truth = (each - each.mean(dim=1, keepdim=True) for each in (found, points[:, :25]))
        return float((found - truth).norm(dim=-1).mean())

    assert error(given) < min(0.05, 0.5 * error(without))


def test_bodies_without_fingers_are_refused(body, scene):
    with pytest.raises(ValueError, match="no fingers for the keypoints of BODY-67"):
        fit_keypoints(scene[1], body=body)


def test_joints_in_space_of_another_shape_are_refused(whole, scene):
    with pytest.raises(ValueError, match="expected joints_3d"):
        fit_keypoints(scene[1], body=whole, joints_3d=torch.zeros(3, 24, 3))


def test_stages_change_the_weight_of_fingers(whole, scene):
    fits = fit_keypoints(scene[1][:2], body=whole, **(OPTIONS | {"max_iterations": 1}))
    given, x, rows = fits.objective, fits.variables, torch.arange(2)
    weights = replace(given.weights, hand_noise=3.0)
    scaled = given.only(x, tuple(given.slices), weights)
    fresh = KeypointObjective(
        *(whole, scene[1][:2], BODY_67, given.cameras, given.pose, given.transl), weights=weights
    )
    torch.testing.assert_close(scaled(x, rows), fresh(x, rows))
    assert (scaled(x, rows) < given(x, rows)).all()
    back = scaled.only(x, tuple(given.slices), given.weights)
    torch.testing.assert_close(back(x, rows), given(x, rows))


def test_hand_weights_are_checked():
    with pytest.raises(ValueError, match="hand_noise must be positive"):
        KeypointWeights(hand_noise=0)
    with pytest.raises(ValueError, match="weight hands must be at least 0"):
        KeypointWeights(hands=-1)
    assert KeypointWeights.of_noise().hands == KeypointWeights.of_noise().pose


def test_a_body_of_24_joints_has_no_hands(body, people):
    fits = fit_keypoints(people.keypoints[:1], body=body, max_iterations=2)
    with pytest.raises(ValueError, match="no left_hand_pose"):
        _ = fits.left_hand_pose
    assert fits.hands == [("at rest", "at rest")]
    assert "hands" not in fits.to_arrays()


def test_nobody_is_fitted(whole):
    fits = fit_keypoints(torch.zeros(0, 133, 3), body=whole)
    assert fits.theta.shape == (0, 52, 3, 3)
    assert fits.to_arrays()["hands"].shape == (0, 2)


@pytest.mark.parametrize("model_type", ["smplh", "smplx"])
def test_parameters_round_trip_through_smplx(tmp_path, model_type):
    smplx = pytest.importorskip("smplx", reason="compares with smplx: flowprior[body]")
    kind = KINDS[model_type]
    arrays = arrays_of(model_type, 120)
    count = len(kind.surface)
    arrays["vertex_ids"] = np.random.default_rng(3).choice(120, count, replace=False)
    np.savez(tmp_path / "MODEL.npz", **arrays)
    body = BodyModel(tmp_path / "MODEL.npz")
    joints = kind.num_joints
    points = body.keypoints(torch.zeros(1, joints, 3), BODY_67)
    keypoints = torch.cat([500 + 300 * points[..., :2], torch.ones(1, 67, 1)], dim=-1)
    fits = fit_keypoints(keypoints, None, body=body, image_size=SIZE, max_iterations=3)
    assert fits.theta.shape == (1, joints, 3, 3)
    assert fits.hands == [("fitted", "fitted")]
    ours = body(fits.theta, fits.betas, fits.transl)
    create = {"smplh": smplx.SMPLH, "smplx": smplx.SMPLX}[model_type]
    face = ("jaw_pose", "leye_pose", "reye_pose") if model_type == "smplx" else ()
    for flat in (True, False):
        params = fits.rotation_vectors(flat_hand_mean=flat)
        assert {name: tuple(value.shape) for name, value in params.items()} == {
            "global_orient": (1, 3),
            "body_pose": (1, 63),
            **dict.fromkeys(face, (1, 3)),
            "left_hand_pose": (1, 45),
            "right_hand_pose": (1, 45),
            "betas": (1, 10),
            "transl": (1, 3),
        }
        model = create(
            model_path=str(tmp_path / "MODEL.npz"),
            ext="npz",
            num_betas=10,
            use_pca=False,
            flat_hand_mean=flat,
        )
        model.vertex_joint_selector.extra_joints_idxs = torch.from_numpy(arrays["vertex_ids"])
        theirs = model(**params)
        torch.testing.assert_close(theirs.joints[:, :joints], ours.joints, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(theirs.vertices, ours.vertices, atol=1e-4, rtol=1e-4)


def test_fingers_of_smplx_have_an_uncertainty(tmp_path):
    arrays = arrays_of("smplx", 120)
    arrays["vertex_ids"] = np.random.default_rng(3).choice(120, 21, replace=False)
    np.savez(tmp_path / "MODEL.npz", **arrays)
    body = BodyModel(tmp_path / "MODEL.npz")
    points = body.keypoints(torch.zeros(1, 55, 3), BODY_67)
    keypoints = torch.cat([500 + 300 * points[..., :2], torch.ones(1, 67, 1)], dim=-1)
    keypoints[:, RIGHT] = 0
    fits = fit_keypoints(keypoints, body=body, image_size=SIZE, max_iterations=3)
    found = fits.joint_uncertainty(num_samples=8, generator=torch.Generator().manual_seed(0))
    assert found.std_mm.shape == found.std_degrees.shape == (1, 55)
    names = body.joint_names
    fingers = [n for n, name in enumerate(names) if "index" in name or "thumb" in name]
    face = [names.index(name) for name in ("jaw", "left_eye_smplhf", "right_eye_smplhf")]
    assert (found.std_degrees[:, fingers] > 0.1).all()
    assert (found.std_degrees[:, face] < 1e-3).all()


class OtherRig:
    """The embedded body with hands as a rig with more joints, in another order."""

    def __init__(self, body):
        self.body = body
        own = body.skeleton
        self.order = [*range(22), *range(37, 52), *range(22, 37)]
        place = {joint: n for n, joint in enumerate(self.order)}
        parents = [place.get(own.parents[joint], -1) for joint in self.order]
        flip = [place[own.flip[joint]] for joint in self.order]
        names = [own.joint_names[joint] for joint in self.order]
        self.skeleton = Skeleton(
            "other rig",
            (*names, "tail"),
            (*parents, 0),
            (*flip, 52),
            (*(own.meanings[joint] for joint in self.order), "other rig tail"),
        )
        self.name, self.num_joints, self.faces = "other rig", 53, body.faces
        self.num_vertices, self.keypoint_sets = body.num_vertices, body.keypoint_sets
        self.default_skeleton = body.default_skeleton

    def _theta(self, theta):
        inverse = torch.tensor(self.order).argsort()
        axis = -3 if theta.shape[-2:] == (3, 3) else -2
        return theta.index_select(axis, inverse)

    def __call__(self, theta, betas=None, transl=None):
        return self.body(self._theta(theta), betas, transl)

    def keypoints(self, theta, skeleton=None, betas=None, transl=None):
        if skeleton is not self.skeleton:
            return self.body.keypoints(self._theta(theta), skeleton, betas, transl)
        points = self.body.keypoints(self._theta(theta), self.body.skeleton, betas, transl)
        points = points[..., self.order, :]
        return torch.cat([points, points[..., :1, :]], dim=-2)

    def regress(self, output, skeleton=None):
        return self.body.regress(output, skeleton)


def test_fits_and_uncertainty_on_any_body(whole, scene):
    rig = OtherRig(whole)
    assert isinstance(rig, Body)
    keypoints = scene[1][:1].clone()
    keypoints[:, RIGHT] = 0
    options = {"image_size": SIZE, "focal_px": 1145.0, "max_iterations": 3}
    ours, theirs = (fit_keypoints(keypoints, body=body, **options) for body in (rig, whole))
    assert ours.hands == theirs.hands == [("fitted", "at rest")]
    torch.testing.assert_close(ours.theta[:, :52], theirs.theta[:, rig.order], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.keypoints_2d, theirs.keypoints_2d, atol=0.1, rtol=0)
    spreads = [
        fits.joint_uncertainty(num_samples=20, generator=torch.Generator().manual_seed(0))
        for fits in (ours, theirs)
    ]
    assert spreads[0].std_mm.shape == (1, 53)
    for name in ("std_mm", "std_degrees"):
        found, expected = (getattr(each, name) for each in spreads)
        torch.testing.assert_close(found[:, :52], expected[:, rig.order], rtol=0.02, atol=0.05)
    assert set(ours.rotation_vectors()) == {"global_orient", "body_pose", "betas", "transl"}


@pytest.mark.slow
def test_a_hand_prior_of_the_user(whole, scene, fits):
    """A prior that knows flat hands alone finds flatter hands."""
    torch.manual_seed(0)
    prior = ConditionalPosePrior(0, joints=15, hidden_features=16, num_steps=2)
    prior.nll(rotations.rotvec_to_matrix(0.02 * torch.randn(64, 15, 3)))  # initialises ActNorm
    prior.eval()
    keypoints = scene[1]
    one = fit_keypoints(keypoints, body=whole, hands_prior=prior, **OPTIONS)
    pair = fit_keypoints(keypoints, body=whole, hands_prior=(prior, prior), **OPTIONS)
    angles = [
        rotations.matrix_to_rotvec(found.right_hand_pose).norm(dim=-1).mean()
        for found in (fits, one, pair)
    ]
    assert one.hands == [("fitted", "fitted")] * 3
    assert max(angles[1:]) < 0.5 * angles[0], angles


@pytest.mark.parametrize("joints", [22, 21])
def test_blocks_as_a_prior(whole, body, scene, joints):
    torch.manual_seed(0)
    hand = ConditionalPosePrior(0, joints=15, hidden_features=16, num_steps=2).eval()
    own = ConditionalPosePrior(0, joints=joints, hidden_features=16, num_steps=2).eval()
    blocks = BlockPrior(own, "mirrored", hand)
    options = OPTIONS | {"max_iterations": 2}
    fits = fit_keypoints(scene[1][:1], blocks, body=whole, **options)
    assert fits.theta.shape == (1, 52, 3, 3)
    assert fits.objective.pose.right.fingers.prior.space.joints == 15
    apart = fit_keypoints(scene[1][:1], own, hands_prior=hand, body=whole, **options)
    torch.testing.assert_close(fits.theta, apart.theta)
    # Without fingers, the body's block is the prior.
    alone = fit_keypoints(scene[1][:1, :25], blocks(None), body=body, **options)
    assert alone.theta.shape == (1, 24, 3, 3)
    torch.testing.assert_close(alone.theta[:, 22:], torch.eye(3).expand(1, 2, 3, 3))
    assert fits.joint_uncertainty(num_samples=4).std_mm.shape == (1, 52)
    with pytest.raises(ValueError, match="the prior has no body"):
        fit_keypoints(scene[1][:1], BlockPrior(None, "mirrored", hand), body=whole)


@pytest.mark.slow
def test_one_person_does_not_depend_on_the_others(whole, scene):
    keypoints = scene[1].clone()
    keypoints[1, RIGHT] = 0
    options = {"body": whole, "image_size": SIZE, "focal_px": 1145.0, "max_iterations": 5}
    together = fit_keypoints(keypoints, **options)
    for person in range(3):
        alone = fit_keypoints(keypoints[person], **options)
        assert torch.equal(alone.theta[0], together.theta[person])


def test_few_keypoints_of_a_hidden_hand_do_not_move_it(whole, scene):
    keypoints = scene[1][:1].clone()
    keypoints[:, RIGHT] = 0
    keypoints[:, RIGHT[8], 2] = 1  # at the corner of the image
    fits = fit_keypoints(keypoints, body=whole, max_iterations=5, image_size=SIZE, focal_px=1145.0)
    assert fits.hands == [("fitted", "at rest")]
    right = hand_poses(DEFAULT_HANDS, 1, keypoints)[1]
    rest = rotations.rot6d_to_matrix(right.theta(right.start(1)))
    torch.testing.assert_close(fits.right_hand_pose, rest, atol=1e-5, rtol=0)


def test_coco_keypoints_leave_hands_at_rest(whole, people):
    source, target = shared_joints(BODY_25, COCO_17)
    keypoints = torch.zeros(1, 17, 3)
    keypoints[:, list(target)] = people.keypoints[:1, list(source)]
    fits = fit_keypoints(keypoints, body=whole, max_iterations=3)
    assert fits.body_pose.shape == (1, 21, 3, 3)
    assert fits.left_hand_pose.shape == (1, 15, 3, 3)
    assert fits.hands == [("at rest", "at rest")]
