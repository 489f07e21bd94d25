"""Evidence as a context, and posteriors given it."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.keypoints import example_keypoints, keypoint_context
from flowprior.prior import PosePrior, So3Space, make_space
from flowprior.prior.evidence import Evidence
from flowprior.skeleton import BODY_25, COCO_17, MANO_21, mapping

ALL = ("keypoints_2d", "joints_3d", "rotations")
SMALL = {"encoder_features": 16, "head_features": 16, "hidden_features": 16, "num_steps": 2}
HANDS = (21, 22)


def make(evidence=ALL, joints=23, rest_joints=HANDS, **options) -> ConditionalPosePrior:
    """A small prior far from new, in evaluation mode."""
    torch.manual_seed(0)
    prior = ConditionalPosePrior(
        evidence=evidence, joints=joints, rest_joints=rest_joints, **{**SMALL, **options}
    )
    for parameter in prior.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for step in prior.flow.steps:
        step.actnorm.initialized.fill_(True)
    return prior.eval()


def poses(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random orthonormal 6D vectors (*shape, 6)."""
    generator = torch.Generator().manual_seed(seed)
    return rotations.matrix_to_rot6d(
        rotations.rotvec_to_matrix(0.5 * torch.randn(*shape, 3, generator=generator))
    )


def masks(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


class TestHands:
    """Evidence for a prior over the 15 joints of a hand."""

    evidence = Evidence(("joints_3d", "rotations"), make_space("so3", 15, "columns"))

    def test_points_in_the_frame_of_the_wrist(self):
        assert (self.evidence.frame, self.evidence.points) == ("wrist", MANO_21)
        assert self.evidence.context_features == 4 * 21 + 7 * 15
        points = torch.randn(2, 21, 3)
        points[0, 4] = torch.nan
        part = self.evidence.context(joints_3d=points)[:, :84].unflatten(-1, (21, 4))
        assert torch.equal(part[1, :, :3], points[1])
        assert not part[0, 4].any()
        assert part[..., 3].sum() == 41

    def test_the_wrist_is_known_where_another_point_is(self):
        points = torch.full((3, 21, 3), torch.nan)
        points[0, 16:] = torch.randn(5, 3)
        points[1, 16:], points[1, 0] = points[0, 16:].clone(), 0.0
        found = self.evidence.context(joints_3d=points)
        assert torch.equal(found[0], found[1])
        assert found[0, 3] == 1
        assert not found[2].any()

    def test_other_numbers_of_points(self):
        with pytest.raises(ValueError, match=r"\(\.\.\., 21, 3\) in the order of MANO-21"):
            self.evidence.context(joints_3d=torch.zeros(24, 3))

    def test_known_fingers_stay_exact(self):
        prior = make(("joints_3d", "rotations"), joints=15, rest_joints=())
        theta, known = poses(3, 15), masks(3, 15)
        samples = prior.given(rotations=theta, known=known, joints_3d=torch.zeros(21, 3)).sample(4)
        flags, given_theta = (
            each.unsqueeze(1).expand(3, 4, *each.shape[1:]) for each in (known, theta)
        )
        assert torch.equal(samples[flags], given_theta[flags])
        assert (samples[~flags] != given_theta[~flags]).any(dim=-1).all()


class TestContext:
    evidence = Evidence(ALL, make_space("so3", 23, "columns"))

    def test_widths(self):
        assert self.evidence.context_features == 51 + 96 + 7 * 23
        assert self.evidence.context().shape == (self.evidence.context_features,)
        assert not self.evidence.context().any()

    def test_kinds_are_in_a_fixed_order(self):
        shuffled = Evidence(("rotations", "keypoints_2d"), make_space("so3", 24, "columns"))
        assert shuffled.kinds == ("keypoints_2d", "rotations")

    def test_keypoints_of_coco_and_body_25(self):
        keypoints = example_keypoints()
        context = self.evidence.context(keypoints_2d=keypoints)
        assert torch.equal(context[:51], keypoint_context(keypoints))
        body = torch.zeros(25, 3)
        body[list(mapping(BODY_25, COCO_17))] = keypoints
        assert torch.equal(self.evidence.context(keypoints_2d=body), context)

    def test_unknown_joints_are_zero_with_their_flag(self):
        joints = torch.randn(4, 24, 3)
        joints[1, 3] = torch.nan
        joints[2, :, 1] = torch.nan
        part = self.evidence.context(joints_3d=joints)[:, 51:147].unflatten(-1, (24, 4))
        assert torch.equal(part[..., 3], (~joints.isnan().any(dim=-1)).float())
        assert not part[1, 3].any()
        assert not part[2].any()
        assert torch.equal(part[0, :, :3], joints[0])

    @given(st.integers(0, 99))
    def test_camera_joints_are_free_of_their_place(self, seed):
        evidence = Evidence(("joints_3d",), make_space("so3", 24, "columns"))
        assert evidence.frame == "camera"
        generator = torch.Generator().manual_seed(seed)
        joints = torch.randn(24, 3, generator=generator).double()
        joints[torch.rand(24, generator=generator) < 0.4] = torch.nan
        moved = joints + torch.randn(3, generator=generator).double()
        torch.testing.assert_close(
            evidence.context(joints_3d=joints), evidence.context(joints_3d=moved)
        )

    def test_rotations_in_every_form_and_layout(self):
        matrix = rotations.rot6d_to_matrix(poses(5, 23))
        known = masks(5, 23)
        context = self.evidence.context(rotations=matrix, known=known)
        part = context[:, 147:].unflatten(-1, (23, 7))
        assert torch.equal(part[..., 6], known.float())
        assert not part[~known].any()
        torch.testing.assert_close(part[known][:, :6], poses(5, 23)[known])
        rows = Evidence(ALL, make_space("so3", 23, "rows"))
        for value, of in (
            (rotations.matrix_to_rotvec(matrix), self.evidence),
            (rotations.matrix_to_rot6d(matrix, "rows"), rows),
        ):
            torch.testing.assert_close(
                of.context(rotations=value, known=known), context, atol=1e-5, rtol=0
            )

    def test_nan_rotations_are_unknown(self):
        theta, known = poses(5, 23), masks(5, 23)
        hidden = torch.where(known[..., None], theta, torch.nan)
        assert torch.equal(
            self.evidence.context(rotations=hidden),
            self.evidence.context(rotations=theta, known=known),
        )

    def test_batches_are_broadcast(self):
        joints, theta = torch.randn(4, 1, 24, 3), poses(6, 23)
        context = self.evidence.context(joints_3d=joints, rotations=theta)
        assert context.shape == (4, 6, self.evidence.context_features)
        assert torch.equal(context[2, 3, :147], self.evidence.context(joints_3d=joints[2, 0])[:147])
        empty = self.evidence.context(joints_3d=torch.randn(0, 24, 3))
        assert empty.shape == (0, self.evidence.context_features)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keypoints_2d": torch.zeros(16, 3)}, "COCO's order or"),
        ({"keypoints_2d": torch.rand(17, 3)}, "pixels are expected"),
        ({"joints_3d": torch.zeros(22, 3)}, r"\(\.\.\., 24, 3\) in SMPL's order"),
        ({"joints_3d": torch.zeros(24, 3, dtype=torch.long)}, "int64"),
        ({"rotations": torch.zeros(22, 3)}, r"accepted are 6D \(\.\.\., 23, 6\)"),
        ({"rotations": torch.zeros(23, 3), "known": torch.ones(22)}, "one flag per joint"),
        ({"known": torch.ones(23)}, "rotations is missing"),
    ],
)
def test_mismatched_evidence_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        make().given(**arguments)


@pytest.mark.parametrize(("joints", "frame"), [(24, "camera"), (23, "root"), (15, "wrist")])
def test_the_frame_of_joints(joints, frame):
    assert Evidence(["joints_3d"], So3Space(joints)).frame == frame
    assert Evidence(["rotations"], So3Space(joints)).frame is None


def test_kinds_that_a_prior_does_not_know_are_an_error():
    prior = make(("rotations",))
    with pytest.raises(ValueError, match="not trained with joints_3d; its evidence is rotations"):
        prior.given(joints_3d=torch.zeros(24, 3))
    with pytest.raises(ValueError, match=r"prior\(context\), not evidence"):
        ConditionalPosePrior(5).given()
    for name in ("joints_3d", "keypoints_2d", "rotations"):
        with pytest.raises(TypeError, match=rf"^{name} must be a torch\.Tensor, got list"):
            make().given(**{name: [0.0]})
    with pytest.raises(TypeError, match=r"^known must be a torch\.Tensor, got list"):
        make().given(rotations=poses(2, 23), known=[True] * 23)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evidence": ("images",)}, "evidence must be some of"),
        ({"evidence": "rotations"}, "evidence must be some of"),
        ({"evidence": ("rotations",), "space": "points"}, "not over points"),
        ({"evidence": ("joints_3d",), "joints": 21}, "24 or 23 joints"),
        ({"evidence": ("rotations",), "anchored": False}, "anchored=True"),
        ({"evidence": ("rotations",), "context_features": 5}, "has 168 numbers"),
        ({"rest_joints": (24,), "context_features": 5}, "from 0 to 23"),
        ({}, "context_features is missing"),
    ],
)
def test_priors_that_cannot_be_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        ConditionalPosePrior(**options)


@pytest.mark.parametrize("freeze", [False, True])
class TestPosteriors:
    def prior(self, freeze) -> PosePrior:
        return make().freeze() if freeze else make()

    def test_known_joints_are_exact(self, freeze):
        theta, known = poses(5, 23), masks(5, 23)
        posterior = self.prior(freeze).given(rotations=theta, known=known)
        assert torch.equal(posterior.mode()[known], theta[known])
        samples = posterior.sample(7)
        for row in range(5):
            assert torch.equal(samples[row][:, known[row]], theta[row, known[row]].expand(7, -1, 6))
        hands = samples[:, :, list(HANDS)][(~known[:, None, list(HANDS)]).expand(5, 7, 2)]
        assert torch.equal(hands, torch.tensor([1.0, 0, 0, 0, 1, 0]).expand_as(hands))

    def test_the_density_is_over_the_others(self, freeze):
        theta, known = poses(5, 23), masks(5, 23)
        posterior = self.prior(freeze).given(rotations=theta, known=known)
        held = known.clone()
        held[:, list(HANDS)] = True
        assert torch.equal(posterior.known, held)
        samples, log_prob = posterior.sample_and_log_prob(4)
        changed = torch.where(held[:, None, :, None], poses(5, 4, 23, seed=5), samples)
        torch.testing.assert_close(posterior.log_prob(changed), log_prob, atol=1e-3, rtol=0)
        torch.testing.assert_close(
            posterior.decode(posterior.encode(changed)), samples, atol=1e-4, rtol=0
        )
        assert (log_prob <= posterior.log_prob(posterior.mode())[:, None] + 1e-3).all()

    def test_fully_known_pose(self, freeze):
        theta = poses(2, 23)
        posterior = self.prior(freeze).given(rotations=theta)
        assert torch.equal(posterior.sample(3), theta[:, None].expand(-1, 3, -1, -1))
        torch.testing.assert_close(posterior.log_prob(theta), torch.zeros(2))
        torch.testing.assert_close(posterior.entropy(), torch.zeros(2))

    def test_no_evidence_gives_the_marginal(self, freeze):
        prior = self.prior(freeze)
        posterior = prior.given()
        assert posterior.batch_shape == ()
        assert posterior.sample(3).shape == (3, 23, 6)
        assert posterior.log_prob(poses(4, 23)).shape == (4,)
        nothing = prior.given(rotations=poses(2, 23), known=torch.zeros(2, 23, dtype=torch.bool))
        torch.testing.assert_close(nothing.mode(), posterior.mode().expand(2, -1, -1))

    def test_rows_do_not_depend_on_the_batch(self, freeze):
        prior, theta, known = self.prior(freeze), poses(6, 23), masks(6, 23)
        joints = torch.randn(6, 24, 3)
        whole = prior.given(rotations=theta, known=known, joints_3d=joints)
        part = prior.given(rotations=theta[2:4], known=known[2:4], joints_3d=joints[2:4])
        torch.testing.assert_close(part.mode(), whole[2:4].mode())
        torch.testing.assert_close(part.log_prob(theta[2:4]), whole.log_prob(theta)[2:4])
        torch.testing.assert_close(whole[3].entropy(), part[1].entropy())

    def test_empty_batches(self, freeze):
        prior = self.prior(freeze)
        posterior = prior.given(rotations=poses(0, 23), joints_3d=torch.zeros(0, 24, 3))
        assert posterior.sample(2).shape == (0, 2, 23, 6)
        assert posterior.log_prob(poses(0, 23)).shape == (0,)
        assert prior.given().sample(0).shape == (0, 23, 6)


def test_hands_that_are_given_are_kept():
    theta = poses(23)
    posterior = make().given(rotations=theta)
    assert torch.equal(posterior.mode(), theta)


def test_a_distribution_and_a_centre_hold_the_same_joints():
    prior, theta = make(), poses(3, 23)
    posterior = prior.given(rotations=theta, known=masks(3, 23))
    assert posterior.distribution().sample((4,)).shape == (4, 3, 23, 6)
    context = torch.zeros(3, prior.context_features)
    centred = prior(context, centre=theta)
    assert torch.equal(centred.mode()[:, :21], theta[:, :21])
    assert torch.equal(centred.known, torch.arange(23).expand(3, -1) > 20)
    assert torch.equal(prior.mode(context), prior(context).mode())


def test_gradients_reach_the_trained_weights():
    prior, theta, known = make().train(), poses(8, 23), masks(8, 23)
    context = prior.evidence.context(rotations=theta, known=known)
    loss = prior.nll(theta, context, known=known)
    loss.backward()
    assert prior.head.output.weight.grad is None
    assert prior.flow.steps[0].linear.lower_entries.grad.abs().sum() > 0
    prior.mode_loss(theta, context, known=known).backward()
    assert prior.head.output.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_known_joints_have_no_loss():
    prior, theta = make(), poses(4, 23)
    context = prior.evidence.context(rotations=theta)
    everything = torch.ones(4, 23, dtype=torch.bool)
    assert abs(float(prior.nll(theta, context, known=everything))) < 1e-5
    assert abs(float(prior.mode_loss(theta, context, known=everything))) < 1e-6
    with pytest.raises(ValueError, match="one pose for each context"):
        prior.nll(theta[:, None].expand(-1, 2, -1, -1), context, known=everything)


def test_nll_of_given_equals_log_prob():
    prior, theta, known = make(), poses(5, 23), masks(5, 23)
    context = prior.evidence.context(
        rotations=theta, known=known & ~torch.isin(torch.arange(23), torch.tensor(HANDS))
    )
    loss = prior.nll(theta, context, known=known)
    log_prob = prior.given(rotations=theta, known=known).log_prob(theta)
    torch.testing.assert_close(loss, -log_prob.mean(), atol=1e-3, rtol=0)


def test_files_keep_evidence_and_rest_joints(tmp_path):
    prior = make(("rotations", "joints_3d"))
    prior.save(tmp_path / "prior.safetensors")
    loaded = ConditionalPosePrior.load(tmp_path / "prior.safetensors")
    assert loaded.evidence.kinds == prior.evidence.kinds == ("joints_3d", "rotations")
    assert loaded.rest_joints == HANDS
    theta, known = poses(2, 23), masks(2, 23)
    for other in (loaded, copy.deepcopy(prior)):
        assert torch.equal(
            other.given(rotations=theta, known=known).log_prob(theta),
            prior.given(rotations=theta, known=known).log_prob(theta),
        )
