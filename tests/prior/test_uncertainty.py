"""Uncertainty per joint, against closed forms and samples."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.keypoints import example_keypoints
from flowprior.prior.uncertainty import assembled, nearest_joints, on_body
from flowprior.skeleton import COCO_17, MANO_16, SMPL_24, SMPLH_52, SMPLX_55
from tests.prior.test_evidence import make, masks, poses


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def with_scale(scale: float, joint: int | None = None) -> ConditionalPosePrior:
    """A prior whose rotations are normal around the centre, about every axis independently."""
    prior = ConditionalPosePrior(
        4, coupling="none", num_steps=1, base="normal", hidden_features=4, head_features=4
    )
    log_scale = torch.full((24, 3), -math.log(1e-6))
    rows = slice(None) if joint is None else joint
    log_scale[rows] = -math.log(scale)
    prior.flow.steps[0].actnorm.log_scale.data = log_scale.flatten()
    prior.flow.steps[0].actnorm.initialized.fill_(True)
    return prior.eval()


@torch.no_grad()
def test_angles_of_normal_rotations(body):
    posterior = with_scale(0.05)(torch.zeros(3, 4))
    found = posterior.joint_uncertainty(body, num_samples=4000, generator=seeded())
    # The length of three normal numbers: root mean square, median and 90 % quantile.
    for value, expected in (
        (found.std_degrees, math.sqrt(3)),
        (found.radius_50_degrees, 1.5382),
        (found.radius_90_degrees, 2.5003),
    ):
        degrees = torch.full((3, 24), math.degrees(0.05 * expected))
        torch.testing.assert_close(value, degrees, rtol=0.06, atol=0)


@torch.no_grad()
def test_only_joints_below_a_moving_one_are_uncertain(body):
    elbow = SMPL_24.index("left_elbow")
    posterior = with_scale(0.1, elbow)(torch.zeros(1, 4))
    found = posterior.joint_uncertainty(body, num_samples=500, generator=seeded())
    moved = {SMPL_24.index(f"left_{name}") for name in ("wrist", "hand")}
    for joint in range(24):
        assert (found.std_mm[0, joint] > 1) == (joint in moved)
        assert (found.std_degrees[0, joint] > 1) == (joint == elbow)
    points = body.keypoints(posterior.mode(), SMPL_24)[0]
    bone = points[SMPL_24.index("left_wrist")] - points[elbow]
    # Turns about two axes move the wrist sideways, hardly along the bone.
    expected = 1000 * 0.1 * math.sqrt(2) * float(bone.norm())
    wrist = SMPL_24.index("left_wrist")
    assert abs(float(found.std_mm[0, wrist]) / expected - 1) < 0.1
    assert abs(float(found.direction[0, wrist] @ bone / bone.norm())) < 0.2
    assert 0.4 < float(found.direction_share[0, wrist]) < 0.65


@torch.no_grad()
def test_radii_and_confidence_are_those_of_the_samples(body):
    posterior = make(joints=24, rest_joints=(22, 23))(torch.zeros(2, 4 * 24 + 51 + 7 * 24))
    found = posterior.joint_uncertainty(body, num_samples=60, generator=seeded())
    matrix = rotations.rot6d_to_matrix(posterior.sample(60, generator=seeded()))
    mode = rotations.rot6d_to_matrix(posterior.mode())
    distance = 1000 * (
        body.keypoints(matrix, SMPL_24) - body.keypoints(mode, SMPL_24)[:, None]
    ).norm(dim=-1)
    torch.testing.assert_close(
        found.radius_90_mm, distance.quantile(0.9, dim=1), atol=1e-2, rtol=1e-4
    )
    torch.testing.assert_close(found.confidence(50.0), (distance <= 50).float().mean(dim=1))
    assert (found.radius_50_mm <= found.radius_90_mm).all()
    assert (found.confidence(0.0)[:, 1:] <= found.confidence(1e6)[:, 1:]).all()
    assert not found.std_degrees[:, 22:].any()  # at rest


@torch.no_grad()
def test_known_joints_and_priors_without_a_root(body):
    theta, known = poses(5, 23), masks(5, 23)
    posterior = make().given(rotations=theta, known=known)
    found = posterior.joint_uncertainty(body, num_samples=20, generator=seeded())
    assert not found.std_degrees[known].any()
    assert found.std_mm.shape == (5, 24)
    assert found.std_mm[:, 0].max() < 1e-3  # the pelvis


@torch.no_grad()
def test_batches_of_any_shape_and_joint_set(body):
    prior = make()
    for batch in ((), (0,), (2, 3)):
        posterior = prior.given(rotations=poses(*batch, 23), known=masks(*batch, 23))
        found = posterior.joint_uncertainty(
            body, num_samples=5, skeleton=COCO_17, betas=torch.zeros(10)
        )
        assert found.std_mm.shape == (*batch, 17)
        assert found.direction.shape == (*batch, 17, 3)
        assert found.radius_90_degrees.shape == (*batch, 23)
        assert found.confidence(10.0).shape == (*batch, 17)


@torch.no_grad()
def test_linear_radii_of_a_linear_flow(body):
    """Without couplings, the linearised flow is the flow; small turns move joints linearly."""
    prior = with_scale(0.02)
    posterior = prior(torch.zeros(2, 4))
    linear = posterior.joint_uncertainty(body, method="linear")
    sampled = posterior.joint_uncertainty(body, num_samples=6000, generator=seeded())
    for name in ("std", "radius_50", "radius_90"):
        for unit in ("mm", "degrees"):
            ours, theirs = (getattr(each, f"{name}_{unit}") for each in (linear, sampled))
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=1e-2)
    assert (linear.direction * sampled.direction).sum(dim=-1).abs()[:, 20].min() > 0.9
    again = posterior.joint_uncertainty(body, method="linear")
    assert torch.equal(again.distances_mm, linear.distances_mm)


@torch.no_grad()
def test_linear_radii_of_a_t(body):
    prior = ConditionalPosePrior(4, coupling="none", num_steps=1, head_features=4).eval()
    prior.flow.steps[0].actnorm.log_scale.data.fill_(-math.log(0.03))
    prior.flow.steps[0].actnorm.initialized.fill_(True)
    prior.flow.base.degrees_of_freedom.fill_(6.0)
    posterior = prior(torch.zeros(1, 4))
    linear = posterior.joint_uncertainty(body, method="linear")
    sampled = posterior.joint_uncertainty(body, num_samples=8000, generator=seeded())
    for name in ("std_mm", "radius_50_degrees", "radius_90_degrees", "radius_90_mm"):
        ours, theirs = (getattr(each, name) for each in (linear, sampled))
        torch.testing.assert_close(ours, theirs, rtol=0.08, atol=0.05)


@torch.no_grad()
def test_linear_radii_of_known_joints_and_of_the_shipped_prior(body):
    theta, known = poses(3, 23), masks(3, 23)
    found = make().given(rotations=theta, known=known).joint_uncertainty(body, method="linear")
    assert found.std_mm.shape == (3, 24)
    assert found.radius_90_degrees[known].max() < 1e-3
    people = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()
    posterior = people.given(keypoints_2d=example_keypoints())
    linear = posterior.joint_uncertainty(body, method="linear")
    sampled = posterior.joint_uncertainty(body, num_samples=1000, generator=seeded())
    ratio = (linear.radius_90_mm / sampled.radius_90_mm)[1:22]
    assert 0.9 < ratio.mean() < 1.05
    assert linear.radius_90_mm.shape == (24,)


@torch.no_grad()
def test_blocks_of_samples_make_no_difference(body, monkeypatch):
    posterior = with_scale(0.1)(torch.zeros(3, 4))
    whole = posterior.joint_uncertainty(body, num_samples=3000, generator=seeded())
    monkeypatch.setattr("flowprior.prior.posterior.POSED_AT_ONCE", 700)
    parts = posterior.joint_uncertainty(body, num_samples=3000, generator=seeded())
    assert whole.distances_mm.shape == (3, 1024, 24)
    torch.testing.assert_close(parts.radius_90_mm, whole.radius_90_mm, rtol=0.06, atol=0.1)
    torch.testing.assert_close(parts.std_mm, whole.std_mm, rtol=0.06, atol=0.1)
    torch.testing.assert_close(parts.radius_mm(0.9), parts.radius_90_mm, rtol=0.01, atol=0.1)


@torch.no_grad()
def test_a_body_with_fingers_moves_as_one_without(body):
    """The hands of SMPL are rigid parts of a hand with fingers at rest."""
    posterior = make(joints=24, rest_joints=(22, 23))(torch.zeros(2, 4 * 24 + 51 + 7 * 24))
    whole = BodyModel(hands=True)
    for method in ("samples", "linear"):
        options = {"method": method, "num_samples": 40}
        ours, theirs = (
            posterior.joint_uncertainty(each, **options, generator=seeded())
            for each in (whole, body)
        )
        assert ours.std_mm.shape == (2, 52)
        assert ours.std_degrees.shape == (2, 24)
        torch.testing.assert_close(ours.std_degrees, theirs.std_degrees)
        torch.testing.assert_close(ours.std_mm[:, :20], theirs.std_mm[:, :20], rtol=0.05, atol=0.5)
        wrist, tip = (whole.joint_names.index(f"left_{name}") for name in ("wrist", "middle3"))
        assert (ours.std_mm[:, tip] > ours.std_mm[:, wrist]).all()


@torch.no_grad()
@pytest.mark.parametrize(("joints", "names"), [(52, 52), (51, 52), (22, 52), (21, 52)])
def test_priors_over_other_numbers_of_joints(joints, names):
    whole = BodyModel(hands=True)
    prior = ConditionalPosePrior(3, joints=joints, hidden_features=8, num_steps=1).eval()
    found = prior(torch.zeros(1, 3)).joint_uncertainty(whole, num_samples=10, generator=seeded())
    assert found.std_mm.shape == (1, names)
    assert found.std_degrees.shape == (1, joints)
    moved = whole.joint_names.index("left_index2")
    assert found.std_mm[0, moved] > 1


def test_poses_are_placed_by_the_meaning_of_joints():
    matrix = rotations.rotvec_to_matrix(0.3 * torch.randn(5, 24, 3, generator=seeded()))
    on_x = on_body(matrix, SMPLX_55)
    torch.testing.assert_close(on_x[:, :22], matrix[:, :22])
    torch.testing.assert_close(on_x[:, 22:], torch.eye(3).expand(5, 33, 3, 3))
    whole = rotations.rotvec_to_matrix(0.3 * torch.randn(5, 52, 3, generator=seeded()))
    on_x = on_body(whole, SMPLX_55)
    for name in ("left_wrist", "left_index1", "right_thumb3"):
        here, there = SMPLH_52.index(name), SMPLX_55.index(name)
        torch.testing.assert_close(on_x[:, there], whole[:, here])
    assert on_body(matrix, SMPL_24) is matrix
    below = on_body(matrix[:, 1:], SMPL_24)
    torch.testing.assert_close(below[:, 1:], matrix[:, 1:])
    torch.testing.assert_close(below[:, 0], torch.eye(3).expand(5, 3, 3))
    hand = on_body(matrix[:, :15], MANO_16)
    torch.testing.assert_close(hand[:, 1:], matrix[:, :15])
    with pytest.raises(ValueError, match="MANO-16 has 16 joints, a pose of 24 is not one of it"):
        on_body(matrix, MANO_16)


def test_fingers_take_the_factors_of_the_wrist():
    nearest = nearest_joints(BodyModel(hands=True), SMPLH_52)
    assert nearest[:22] == list(range(22))
    assert set(nearest[22:37]) == {SMPL_24.index("left_wrist")}
    assert set(nearest[37:]) == {SMPL_24.index("right_wrist")}


def test_mismatched_input_is_an_error(body):
    with pytest.raises(ValueError, match="over the rotations of joints"):
        ConditionalPosePrior(3, joints=17, space="points")(torch.zeros(3)).joint_uncertainty(body)
    posterior = make().given()
    with pytest.raises(ValueError, match="num_samples"):
        posterior.joint_uncertainty(body, num_samples=1)
    with torch.no_grad(), pytest.raises(ValueError, match=r"^within_mm must"):
        posterior.joint_uncertainty(body, num_samples=2).confidence(-1.0)
    found = make().given().joint_uncertainty(body, num_samples=2)
    for call in (found.radius_mm, found.radius_degrees):
        with pytest.raises(ValueError, match="level"):
            call(1.1)
    with pytest.raises(ValueError, match=r"^within_degrees must"):
        found.rotation_confidence(math.nan)
    with pytest.raises(ValueError, match="method must be"):
        posterior.joint_uncertainty(body, method="exact")
    with pytest.raises(ValueError, match="skeleton=SMPL-24"):
        posterior.joint_uncertainty(body, method="linear", skeleton=COCO_17)
    free = ConditionalPosePrior(3, space="rot6d", anchored=False)(torch.zeros(3))
    with pytest.raises(ValueError, match="anchored"):
        free.joint_uncertainty(body, method="linear")


@given(rank=st.integers(1, 3), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_shares_of_the_variance_along_a_direction(rank, scale, seed):
    factor = scale * torch.randn(20, 2, 3, rank, generator=torch.Generator().manual_seed(seed))
    covariance = factor @ factor.mT
    nothing = torch.zeros(20, 2, 2)
    found = assembled(nothing, covariance, nothing, None, None)
    assert (found.direction_share <= 1).all()
    assert (found.direction_share >= 1 / 3).all()
    variance = covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    torch.testing.assert_close(found.std_mm.square(), variance, rtol=1e-4, atol=0)
    along = (found.direction[..., None, :] @ covariance @ found.direction[..., None]).flatten(1)
    torch.testing.assert_close(along, found.direction_share * variance, rtol=1e-3, atol=0)
    if rank == 1:
        torch.testing.assert_close(found.direction_share, torch.ones(20, 2), rtol=1e-4, atol=0)
