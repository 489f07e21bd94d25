"""The mean head, and priors whose mode is a given answer or the head's."""

import copy
import math
import pickle
import warnings

import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowprior import CheckpointError, ConditionalPosePrior, rotations
from flowprior.files import model_file
from flowprior.prior.heads import MeanHead
from flowprior.prior.spaces import PoseSpace, RotationSpace, make_space
from tests.flow.helpers import assert_close, draw

J, C = 3, 4
SPACES = ("so3", "rot6d", "points")
COUPLINGS = ("additive", "contracting", "none")
spaces = pytest.mark.parametrize("space", SPACES)
any_size = pytest.mark.filterwarnings("ignore:theta has keypoints")


def make(spread: float = 0.1, narrow: float = 0.0, **kwargs) -> ConditionalPosePrior:
    """A small anchored float64 prior with weights far from new, in evaluation mode.

    ``narrow`` is added to the log-scale: 2 leaves hardly any mass beyond the chart.
    """
    options = {"context_features": C, "joints": J, "hidden_features": 16, "num_steps": 2}
    options |= {"head_features": 16, "anchored": True, **kwargs}
    prior = ConditionalPosePrior(**options).double()
    for index, parameter in enumerate(prior.parameters()):
        parameter.data += spread * draw(*parameter.shape, seed=index)
    for step in prior.flow.steps:
        step.actnorm.initialized.fill_(True)
    prior.flow.steps[0].actnorm.log_scale.data += narrow
    return prior.eval()


def poses(space: PoseSpace, *batch: int) -> Tensor:
    """Float64 poses as the prior returns them."""
    if not isinstance(space, RotationSpace):
        return draw(*batch, J, 3, seed=7)
    matrix = roma.random_rotmat((*batch, J), dtype=torch.float64)
    return rotations.matrix_to_rot6d(matrix, space.layout)


# --- the head -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
@spaces
def test_new_head_predicts_the_identity_or_the_origin(space, layout):
    space = make_space(space, J, layout)
    pose = MeanHead(C, space, 16)(torch.randn(5, C))
    assert pose.shape == (5, *space.event_shape)
    if isinstance(space, RotationSpace):
        assert torch.equal(space.to_matrix(pose), torch.eye(3).expand(5, J, 3, 3))
    else:
        assert not pose.any()


@pytest.mark.parametrize("batch", [(), (0,), (5,), (2, 3), (2, 0)], ids=str)
@pytest.mark.parametrize("layout", rotations.LAYOUTS)
def test_answers_are_rotations_of_any_batch(batch, layout):
    head = make(space="so3", layout=layout).head
    context = draw(*batch, C)
    pose = head(context)
    assert pose.shape == (*batch, J, 6)
    vectors = rotations._split(pose, layout)
    assert_close(vectors @ vectors.mT, torch.eye(2).expand(*batch, J, 2, 2), 1e-12)
    if batch == (5,):
        assert_close(torch.stack([head(row) for row in context]), pose, 1e-12)


def test_a_head_without_a_context_is_one_trainable_pose():
    prior = make(context_features=0, space="points")
    assert prior.mode().shape == (J, 3)
    assert torch.equal(prior.mode().flatten(), prior.head.start)
    prior.mode_loss(draw(7, J, 3)).backward()
    assert prior.head.start.grad.any()


def test_sizes_out_of_range():
    space = make_space("so3", J, "columns")
    with pytest.raises(ValueError, match="head_features"):
        MeanHead(C, space, 0)
    with pytest.raises(ValueError, match="head_blocks"):
        MeanHead(C, space, 8, num_blocks=-1)
    with pytest.raises(ValueError, match="head_features"):
        make(head_features=-1)


# --- the mode is the centre -----------------------------------------------------------------------


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("layout", rotations.LAYOUTS)
@pytest.mark.parametrize("space", ["so3", "rot6d"])
def test_the_mode_is_the_given_rotations(space, layout, coupling):
    prior = make(space=space, layout=layout, coupling=coupling)
    matrix = roma.random_rotmat((5, J), dtype=torch.float64)
    rot6d = rotations.matrix_to_rot6d(matrix, layout)
    skewed = 3 * rot6d + 0.1 * draw(5, J, 6)  # not orthonormal, and returned as it is
    context = draw(5, C)
    for model in (prior, prior.freeze()):
        for centre in (rot6d, skewed):
            assert torch.equal(model(context, centre=centre).mode(), centre)
            assert torch.equal(model(context, centre=centre.flatten(-2)).mode(), centre)
        assert torch.equal(model(context, centre=matrix).mode(), rot6d)
        rotvec = rotations.matrix_to_rotvec(matrix)
        assert_close(model(context, centre=rotvec).mode(), rot6d, 1e-9)


def test_the_mode_is_the_given_points():
    prior, centre, context = make(space="points"), draw(5, J, 3), draw(5, C)
    for model in (prior, prior.freeze()):
        assert torch.equal(model(context, centre=centre).mode(), centre)
        assert torch.equal(model(context, centre=centre.flatten(-2)).mode(), centre)


@spaces
def test_the_mode_is_the_answer_of_the_head(space):
    prior, context = make(space=space), draw(5, C)
    assert torch.equal(prior(context).mode(), prior.head(context))
    assert torch.equal(prior.mode(context), prior.head(context))
    assert torch.equal(prior.freeze().mode(context), prior.head(context))
    assert torch.equal(prior(context, centre=prior.mode(context)).mode(), prior.mode(context))


@spaces
def test_latents_of_the_mode_are_zero(space):
    prior, context = make(space=space), draw(5, C)
    for centre in (None, poses(prior.space, 5)):
        posterior = prior(context, centre=centre)
        zero = torch.zeros(5, prior.flow.features)
        assert_close(posterior.encode(posterior.mode()), zero, 1e-12)
        rows = prior.space.to_vector(posterior.decode(zero.double()), posterior.centre)
        assert_close(rows, zero, 1e-12)


@any_size
@given(
    st.sampled_from(SPACES),
    st.sampled_from(COUPLINGS),
    st.sampled_from(["normal", "student_t"]),
    st.floats(0.02, 0.3),
    st.integers(0, 1000),
    st.booleans(),
)
def test_mode_has_the_highest_density(space, coupling, base, spread, seed, given_centre):
    prior = make(spread, space=space, coupling=coupling, base=base)
    prior.flow.temperature.fill_(0.5 + (seed % 7))
    context = draw(3, C, seed=seed)
    centre = poses(prior.space, 3) if given_centre else None
    posterior = prior(context, centre=centre)
    peak = posterior.log_prob(posterior.mode())[:, None] + 1e-9
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        theta, log_prob = posterior.sample_and_log_prob(50, generator=generator)
        assert (log_prob <= peak).all()
        assert (posterior.log_prob(theta) <= peak).all()
        assert (posterior.log_prob(poses(prior.space, 3, 20)) <= peak).all()
        close = posterior.decode(0.01 * draw(3, 20, prior.flow.features, seed=seed))
        assert (posterior.log_prob(close) <= peak).all()


@spaces
@pytest.mark.parametrize("encoder", [0, 8])
def test_the_mode_is_differentiable(space, encoder):
    prior, context = make(space=space, encoder_features=encoder), draw(3, C).requires_grad_()
    assert torch.autograd.gradcheck(prior.mode, context)
    assert torch.autograd.gradcheck(lambda context: prior(context).mode(), context)
    prior.mode(context).square().sum().backward()
    trained = [*prior.head.parameters(), *(prior.encoder.parameters() if encoder else [])]
    prior.zero_grad()
    (prior.mode(context) * draw(J, prior.space.event_shape[1])).sum().backward()
    assert all(parameter.grad.any() for parameter in trained)
    assert all(parameter.grad is None for parameter in prior.flow.parameters())


@spaces
def test_gradients_reach_a_given_centre(space):
    prior, context = make(space=space, narrow=1.0), draw(3, C)
    centre = poses(prior.space, 3).requires_grad_()
    assert prior(context, centre=centre).mode() is not None
    theta = poses(prior.space, 3, 2)

    def log_prob(centre: Tensor) -> Tensor:
        return prior(context, centre=centre).log_prob(theta)

    assert torch.autograd.gradcheck(log_prob, centre)


# --- densities around the centre ------------------------------------------------------------------


@pytest.mark.parametrize("base", ["normal", "student_t"])
@pytest.mark.parametrize("coupling", ["additive", "none"])
@spaces
def test_the_entropy_in_closed_form_is_that_of_samples(space, coupling, base):
    prior = make(space=space, coupling=coupling, base=base, narrow=2.0)
    assert prior.flow.has_closed_entropy
    for model in (prior, prior.freeze()):
        posterior = model(draw(2, C), centre=poses(prior.space, 2))
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            log_prob = posterior.sample_and_log_prob(20_000, generator=generator)[1]
        error = log_prob.std(dim=1) / 20_000**0.5
        assert ((posterior.entropy() + log_prob.mean(dim=1)).abs() < 4 * error).all()
    assert posterior.entropy().std() > 0


@any_size
@torch.no_grad()
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("coupling", ["additive", "contracting"])
@spaces
def test_samples_carry_their_log_prob_also_beyond_the_chart(space, coupling, training, scale):
    prior = make(space=space, coupling=coupling).train(training)
    prior.flow.temperature.fill_(scale)
    posterior = prior(draw(4, C), centre=poses(prior.space, 4))
    theta, log_prob = posterior.sample_and_log_prob(50)
    assert_close(posterior.log_prob(theta), log_prob, 1e-6)
    if space == "so3" and scale > 1:
        x = prior.flow.inverse(posterior.encode(theta), posterior.context)[0]
        assert not prior.space.outside(0.999 * x).any()  # every sample is a rotation in the ball


@spaces
def test_encode_and_decode_are_inverse(space):
    prior = make(space=space, narrow=1.5)
    posterior = prior(draw(4, C), centre=poses(prior.space, 4))
    theta = poses(prior.space, 4, 5)
    assert_close(posterior.decode(posterior.encode(theta)), theta, 1e-10)
    z = draw(4, 5, prior.flow.features)
    assert_close(posterior.encode(posterior.decode(z)), z, 1e-9)


def test_the_density_turns_with_the_centre():
    prior, context = make(), draw(4, C)
    centre, turn, theta = (roma.random_rotmat((4, J), dtype=torch.float64) for _ in range(3))
    before = prior(context, centre=centre).log_prob(theta)
    assert_close(prior(context, centre=turn @ centre).log_prob(turn @ theta), before, 1e-9)


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("given_centre", [False, True])
@pytest.mark.parametrize(
    "rows", [1, -1, slice(1, 4), [2, 0, -1], torch.tensor([True, False, True, False, False])],
    ids=str,
)  # fmt: skip
def test_posteriors_select_centres_with_their_contexts(rows, given_centre, freeze):
    prior, context = make(), draw(5, C)
    centre = poses(prior.space, 5) if given_centre else prior.mode(context).detach()
    whole = (prior.freeze() if freeze else prior)(context, centre=centre if given_centre else None)
    theta, posterior = poses(prior.space, 5), whole[rows]
    assert posterior.batch_shape == context[rows].shape[:-1]
    assert_close(posterior.mode(), centre[rows], 1e-14)
    assert_close(posterior.log_prob(theta[rows]), whole.log_prob(theta)[rows], 1e-10)


def test_posteriors_of_several_batch_axes():
    prior = make()
    centre, theta = poses(prior.space, 5, 2), poses(prior.space, 5, 2, 4)
    posterior = prior(draw(5, 2, C), centre=centre)
    expected = posterior.log_prob(theta)
    assert expected.shape == (5, 2, 4)
    for index in (1, (slice(None), 1), (..., 0), (-1, 0)):
        batch = index if isinstance(index, tuple) else (index, slice(None))
        whole = slice(None)
        assert torch.equal(posterior[index].mode(), centre[(*batch, whole, whole)])
        found = posterior[index].log_prob(theta[(*batch, whole, whole, whole)])
        assert_close(found, expected[(*batch, whole)], 1e-10)
    wide = posterior.expand(torch.Size((3, 5, 2)))
    assert torch.equal(wide.mode(), centre.expand(3, 5, 2, J, 6))
    assert_close(wide.log_prob(theta.expand(3, 5, 2, 4, J, 6))[1], expected, 1e-12)
    with pytest.raises(IndexError, match="cannot select"):
        posterior[5]


@spaces
@pytest.mark.parametrize("context_features", [0, C])
def test_one_context_or_none_serves_a_batch_of_centres(space, context_features):
    prior = make(space=space, context_features=context_features)
    context = draw(C) if context_features else None
    centre, theta = poses(prior.space, 5), poses(prior.space, 5, 2)
    posterior = prior(context, centre=centre)
    assert posterior.batch_shape == (5,)
    assert torch.equal(posterior.mode(), centre)
    assert posterior.sample(2).shape == theta.shape
    assert posterior.entropy().shape == (5,)
    log_prob = posterior.log_prob(theta)
    for row in range(5):
        assert_close(prior(context, centre=centre[row]).log_prob(theta[row]), log_prob[row], 1e-10)
    assert torch.equal(posterior[-1].mode(), centre[-1])


def test_a_centre_of_an_unanchored_prior_moves_its_density():
    prior, context = make(anchored=False, head_features=0), draw(5, C)
    assert prior.head is None
    centre = roma.random_rotmat((5, J), dtype=torch.float64)
    before, after = prior(context), prior(context, centre=centre)
    frame = prior.space.to_matrix(before.mode())
    assert_close(prior.space.to_matrix(after.mode()), centre @ frame, 1e-10)


def test_an_empty_batch():
    prior = make(encoder_features=8)
    context, theta = draw(0, C), poses(prior.space, 0)
    for posterior in (prior(context), prior(context, centre=theta)):
        assert posterior.mode().shape == (0, J, 6)
        assert posterior.sample(3).shape == (0, 3, J, 6)
        assert posterior.log_prob(theta).shape == (0,)
        assert posterior.entropy().shape == (0,)
    for loss in (prior.nll, prior.mode_loss):
        value = loss(theta, context)
        value.backward()
        assert value == 0
    assert prior.nll(theta, context, centre=theta) == 0


@pytest.mark.parametrize(
    ("centre", "message"),
    [
        (torch.zeros(5, J + 1, 6).double(), r"centre has shape \(5, 4, 6\); accepted are 6D"),
        (torch.zeros(4, J, 6).double(), r"centre has batch shape \(4,\), but .* shape \(5,\)"),
        (torch.zeros(5, 2, J, 6).double(), r"centre has batch shape \(5, 2\)"),
        (torch.full((5, J, 6), math.nan).double(), "centre holds NaN or infinity in 90 of 90"),
        (torch.zeros(5, J, 6, device="meta").double(), "centre is on meta"),
    ],
    ids=["joints", "batch", "extra", "nan", "device"],
)
def test_centres_that_do_not_fit(centre, message):
    prior = make()
    for model in (prior, prior.freeze()):
        with pytest.raises(ValueError, match=message):
            model(draw(5, C), centre=centre)
    with pytest.raises(ValueError, match=r"centre is torch\.float64, but the model"):
        make().float()(draw(5, C).float(), centre=draw(5, J, 6))
    with pytest.raises(TypeError, match=r"centre must be a torch\.Tensor"):
        prior(draw(5, C), centre=centre.tolist() if not centre.is_meta else [0.0])


# --- losses ---------------------------------------------------------------------------------------


@spaces
def test_nll_trains_the_flow_and_not_the_head(space):
    prior, context = make(space=space, encoder_features=8), draw(6, C).requires_grad_()
    prior.nll(poses(prior.space, 6), context).backward()
    for part in (prior.head, prior.encoder):
        assert all(parameter.grad is None for parameter in part.parameters())
    assert all(parameter.grad.any() for parameter in prior.flow.parameters())
    assert context.grad is None


@spaces
def test_nll_reaches_a_context_that_no_encoder_reads(space):
    prior, context = make(space=space), draw(6, C).requires_grad_()
    prior.nll(poses(prior.space, 6), context).backward()
    assert context.grad.any(dim=1).all()


def test_nll_gives_no_gradient_to_a_given_centre():
    prior, context = make(), draw(6, C)
    centre, theta = poses(prior.space, 6).requires_grad_(), poses(prior.space, 6)
    loss = prior.nll(theta, context, centre=centre)
    loss.backward()
    assert centre.grad is None
    expected = -prior(context, centre=centre).log_prob(theta).mean()
    assert_close(loss, expected.detach(), 1e-12)


@spaces
@pytest.mark.parametrize("loss", ["nll", "mode_loss", "nll around a centre"])
def test_rows_that_are_not_valid_leave_no_trace(space, loss):
    prior = make(space=space, target_noise=0.0).train()
    theta, centre, context = poses(prior.space, 6), poses(prior.space, 6), draw(6, C)
    valid = torch.tensor([True, False, True, False, False, True])
    for tensor in (theta, centre, context):
        tensor[~valid] = math.nan
    context.requires_grad_()
    found = []
    for rows in (slice(None), valid):
        prior.zero_grad()
        mask = valid[rows] if isinstance(rows, slice) else None
        if loss == "mode_loss":
            value = prior.mode_loss(theta[rows], context[rows], mask)
        else:
            around = centre[rows] if "centre" in loss else None
            value = prior.nll(theta[rows], context[rows], mask, centre=around)
        value.backward()
        gradients = [p.grad for p in prior.parameters() if p.grad is not None]
        found.append([value.detach(), *(each.clone() for each in gradients)])
    assert len(found[0]) == len(found[1]) > 1
    for masked, selected in zip(*found, strict=True):
        assert masked.isfinite().all()
        assert_close(masked, selected, 1e-10)
    assert context.grad.isfinite().all()


@spaces
def test_no_valid_row_is_a_loss_of_zero(space):
    prior = make(space=space).train()
    theta, context = math.nan * poses(prior.space, 6), math.nan * draw(6, C)
    for loss in (prior.nll, prior.mode_loss):
        value = loss(theta, context, torch.zeros(6))
        value.backward()
        assert value == 0
    assert not any(parameter.grad.any() for parameter in prior.head.parameters())


@spaces
def test_mode_loss_is_the_mean_error(space):
    prior, context = make(space=space), draw(5, C)
    mode = prior.mode(context).detach()
    assert_close(prior.mode_loss(mode, context), 0, 1e-12)
    assert_close(prior.mode_loss(mode[:, None].expand(5, 2, *mode.shape[1:]), context), 0, 1e-12)
    theta, valid = poses(prior.space, 5, 2), torch.tensor([1, 0, 1, 1, 0])
    if space == "points":
        expected = (theta - mode[:, None]).abs()
    else:
        expected = rotations.rot6d_to_matrix(theta) - rotations.rot6d_to_matrix(mode)[:, None]
        expected = expected[..., :2].abs()
        scaled = (2 * theta.unflatten(-1, (2, 3))).flatten(-2)
        assert_close(prior.mode_loss(scaled, context), expected.mean(), 1e-12)
    assert_close(prior.mode_loss(theta, context), expected.mean(), 1e-12)
    assert_close(prior.mode_loss(theta, context, valid), expected[valid.bool()].mean(), 1e-12)


@spaces
def test_mode_loss_trains_the_head_alone(space):
    prior = ConditionalPosePrior(C, joints=J, space=space, head_features=16, hidden_features=8)
    context = torch.randn(64, C)
    theta = 0.5 * (context @ torch.randn(C, 3 * J)).sin().unflatten(-1, (J, 3))
    optimizer = torch.optim.Adam(prior.head.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = prior.mode_loss(theta, context)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is None for parameter in prior.flow.parameters())


def test_mode_loss_checks_its_input():
    prior, theta, context = make(), poses(make().space, 5), draw(5, C)
    with pytest.raises(ValueError, match=r"theta has leading shape \(4,\)"):
        prior.mode_loss(theta[:4], context)
    with pytest.raises(ValueError, match=r"valid has shape \(4,\)"):
        prior.mode_loss(theta, context, torch.ones(4))
    with pytest.raises(ValueError, match="theta holds NaN"):
        prior.mode_loss(math.nan * theta, context)
    with pytest.raises(ValueError, match="mode_loss takes theta first"):
        prior.mode_loss(context, theta)


def test_the_head_can_be_trained_while_the_flow_waits_for_its_first_batch():
    prior = ConditionalPosePrior(C, joints=J, hidden_features=8, head_features=8)
    prior.mode_loss(torch.randn(6, J, 6), torch.randn(6, C)).backward()
    assert not prior.flow.is_initialized()


def test_nll_warns_once_of_a_head_without_training(monkeypatch):
    monkeypatch.setattr("flowprior.prior.conditional.PATIENCE", 3)
    theta, context = torch.randn(6, J, 6), torch.randn(6, C)

    def warnings_of(prior, calls=8, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(calls):
                prior.nll(theta, context, **options)
        return [w for w in caught if "head of this prior has not been trained" in str(w.message)]

    def new(**options):
        return ConditionalPosePrior(C, joints=J, hidden_features=8, **options)

    (warning,) = warnings_of(prior := new())
    assert warning.filename == __file__
    assert "prior.mode_loss(theta, context)" in str(warning.message)
    assert not warnings_of(prior)
    assert not warnings_of(new().eval())
    assert not warnings_of(new(anchored=False))
    assert not warnings_of(new(), centre=theta)
    trained = new()
    trained.head.output.weight.data += 0.1
    assert not warnings_of(trained)


# --- calibration and files ------------------------------------------------------------------------


@spaces
def test_calibration_fits_the_degrees_of_freedom_which_are_saved(tmp_path, space):
    prior = make(space=space, base="student_t", narrow=2.5)
    context, centre = draw(3000, C), poses(prior.space, 3000)
    posterior = prior(context, centre=centre)
    with torch.no_grad():
        square = torch.distributions.Chi2(torch.tensor(5.0).double()).sample((3000, 1))
        z = 1.4 * draw(3000, prior.flow.features) * (5 / square).sqrt()
        theta = posterior.decode(z)
        before = prior.nll(theta, context, centre=centre)
        assert prior.calibrate(theta, context, centre=centre) == pytest.approx(1.4, rel=0.1)
        assert 4 <= prior.flow.base.degrees_of_freedom <= 6
        after = prior.nll(theta, context, centre=centre)
        assert after < before
        prior.save(tmp_path / "prior")
        loaded = ConditionalPosePrior.load(tmp_path / "prior")
        assert loaded.flow.base.degrees_of_freedom == prior.flow.base.degrees_of_freedom
        assert loaded.nll(theta, context, centre=centre) == after


@pytest.mark.parametrize(
    "options", [{}, {"base": "student_t", "coupling": "contracting"}, {"space": "points"}], ids=str
)
def test_saved_priors_answer_the_same_bit_for_bit(tmp_path, options):
    prior = make(encoder_features=8, **options)
    context, theta = draw(5, C), poses(prior.space, 5)
    prior.save(tmp_path / "prior")
    prior.save_pretrained(tmp_path / "folder")
    for other in (
        ConditionalPosePrior.load(tmp_path / "prior"),
        ConditionalPosePrior.from_pretrained(tmp_path / "folder"),
        copy.deepcopy(prior),
        pickle.loads(pickle.dumps(prior)),
    ):
        assert other.config == prior.config
        assert torch.equal(other.mode(context), prior.mode(context))
        assert torch.equal(other.log_prob(theta, context), prior.log_prob(theta, context))
        around = [model(context, centre=theta) for model in (other, prior)]
        assert torch.equal(around[0].encode(theta), around[1].encode(theta))


def written_before_anchors(path, **options) -> ConditionalPosePrior:
    """Write the file of a prior as a version without anchored priors wrote it."""
    prior = make(anchored=False, head_features=0, encoder_skip=False, **options)
    new = ("anchored", "base", "head_features", "encoder_skip")
    config = {key: value for key, value in prior.config.items() if key not in new}
    model_file.save(path, model_file.ModelFile(prior.state_dict(), config))
    return prior


@pytest.mark.parametrize(
    "options",
    [{}, {"space": "points"}, {"coupling": "affine"}, {"encoder_features": 8},
     {"preset": "prohmr"}, {"context_features": 0}],
    ids=str,
)  # fmt: skip
def test_files_from_before_there_were_anchors_are_read(tmp_path, options):
    options = {"space": "rot6d", **options}
    prior = written_before_anchors(tmp_path / "old", **options)
    context = draw(4, C) if prior.context_features else None
    theta = poses(prior.space, 4)
    loaded = ConditionalPosePrior.load(tmp_path / "old")
    assert loaded.config == prior.config
    assert torch.equal(loaded.log_prob(theta, context), prior.log_prob(theta, context))
    assert torch.equal(loaded.mode(context), prior.mode(context))


def test_old_files_of_another_chart_are_refused(tmp_path):
    written_before_anchors(tmp_path / "old", space="so3")
    with pytest.raises(CheckpointError, match=r"old is a density over SO\(3\) in a chart that"):
        ConditionalPosePrior.load(tmp_path / "old")


# --- frozen, compiled, other dtypes ---------------------------------------------------------------


def test_a_frozen_copy_does_not_follow_the_head():
    prior, context = make(encoder_features=8), draw(5, C)
    frozen, before = prior.freeze(), prior.mode(context).detach()
    for parameter in prior.parameters():
        parameter.data.zero_()
    assert torch.equal(frozen.mode(context), before)
    context.requires_grad_()
    assert torch.autograd.grad(frozen.mode(context).square()[..., 0].sum(), context)[0].any()
    with pytest.raises(AttributeError):
        frozen.nll  # noqa: B018


@spaces
def test_function_transforms(space):
    prior, context = make(space=space), draw(5, C)
    theta, centre = poses(prior.space, 5), poses(prior.space, 5)

    def log_prob(theta, context, centre):
        return prior(context, centre=centre).log_prob(theta)

    expected = log_prob(theta, context, centre).detach()
    assert_close(torch.func.vmap(log_prob)(theta, context, centre), expected, 1e-10)
    assert_close(torch.func.vmap(prior.mode)(context), prior.mode(context).detach(), 1e-12)
    gradients = torch.func.vmap(torch.func.grad(log_prob, (0, 1, 2)))(theta, context, centre)
    assert all(each.isfinite().all() for each in gradients)


def test_functional_call_reaches_head_and_flow():
    prior, other, context = make(0.1), make(0.3), draw(5, C)
    theta = poses(prior.space, 5)
    weights = dict(other.named_parameters())
    posterior = torch.func.functional_call(prior, weights, (context,))
    assert_close(posterior.mode(), other.mode(context), 1e-14)
    assert_close(posterior.log_prob(theta), other.log_prob(theta, context), 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@spaces
def test_every_dtype_of_weights(space, dtype):
    prior = make(space=space, encoder_features=8, narrow=1.0).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    context, centre = draw(5, C).to(wide), poses(prior.space, 5).to(wide)
    for model in (prior, prior.freeze()):
        for given_centre in (None, centre):
            posterior = model(context, centre=given_centre)
            theta, log_prob = posterior.sample_and_log_prob(6)
            assert {theta.dtype, log_prob.dtype, posterior.mode().dtype} == {wide}
            assert posterior.entropy().dtype == wide
            torch.testing.assert_close(posterior.log_prob(theta), log_prob, rtol=1e-3, atol=0.02)
        assert torch.equal(model(context, centre=centre).mode(), centre)
    for loss in (prior.nll, prior.mode_loss):
        loss(centre, context).backward()
    assert all(parameter.grad.isfinite().all() for parameter in prior.parameters())


@spaces
def test_autocast_changes_nothing(space):
    prior = make(space=space, encoder_features=8).float()
    context, centre = draw(5, C).float(), poses(prior.space, 5).float()
    z = draw(5, 3, prior.flow.features).float()

    def answers():
        found = [prior.mode(context), prior.mode_loss(centre, context), prior.nll(centre, context)]
        for posterior in (prior(context), prior(context, centre=centre)):
            theta = posterior.decode(z)
            found += [posterior.mode(), theta, posterior.log_prob(theta), posterior.encode(theta)]
        return found

    outside = answers()
    with torch.autocast("cpu", torch.bfloat16):
        inside = answers()
    for first, second in zip(inside, outside, strict=True):
        assert torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [False, True])
def test_it_compiles_into_one_graph(freeze):
    prior = make(encoder_features=8)
    prior = prior.freeze() if freeze else prior

    def answers(context, centre, theta):
        own, around = prior(context), prior(context, centre=centre)
        return own.mode(), own.log_prob(theta), around.encode(theta), around.entropy()

    torch.compiler.reset()
    compiled = torch.compile(answers, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (5, 3):
        context, centre, theta = draw(rows, C), poses(prior.space, rows), poses(prior.space, rows)
        for ours, theirs in zip(
            compiled(context, centre, theta), answers(context, centre, theta), strict=True
        ):
            assert_close(ours, theirs.detach(), 1e-10)


def test_on_the_meta_device():
    prior = make(encoder_features=8).to("meta")
    context, theta = (torch.empty(5, n, device="meta").double() for n in (C, 6 * J))
    assert repr(prior)
    results = [prior.mode(context), prior.nll(theta, context), prior.mode_loss(theta, context)]
    for posterior in (prior(context), prior(context, centre=theta)):
        results += [*posterior.sample_and_log_prob(2), posterior.log_prob(theta)]
        results += [posterior.entropy(), posterior.mode()]
    assert all(result.is_meta for result in results)
