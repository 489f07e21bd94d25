import copy
import inspect
import math
import pickle

import numpy as np
import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalFlow, ConditionalPosePrior, PosePosterior, rotations
from flowprior.files import model_file
from flowprior.flow import FlowOptions
from tests.flow.helpers import assert_close, draw

J, C = 3, 4


def make(spread: float = 0.2, **kwargs) -> ConditionalPosePrior:
    """A small float64 prior with weights far from new, in evaluation mode."""
    options = {"context_features": C, "joints": J, "hidden_features": 16, **kwargs}
    prior = ConditionalPosePrior(**options).double()
    for index, parameter in enumerate(prior.parameters()):
        parameter.data += spread * draw(*parameter.shape, seed=index)
    for module in prior.modules():
        if hasattr(module, "initialized"):
            module.initialized.fill_(True)
    return prior.eval()


def narrow(prior: ConditionalPosePrior) -> ConditionalPosePrior:
    """The same prior with hardly any mass beyond the chart."""
    prior.flow.steps[0].actnorm.log_scale.data += 2
    return prior


def rot6d(*batch: int, joints: int = J) -> torch.Tensor:
    return rotations.matrix_to_rot6d(roma.random_rotmat((*batch, joints), dtype=torch.float64))


# --- the four verbs ------------------------------------------------------------------------------


def test_shapes_for_smpl():
    prior = ConditionalPosePrior(context_features=8, hidden_features=16).eval()
    posterior = prior(torch.randn(5, 8))
    assert isinstance(posterior, PosePosterior)
    assert posterior.batch_shape == (5,)
    assert posterior.event_shape == (24, 6)
    theta = posterior.sample(7)
    assert theta.shape == (5, 7, 24, 6)
    assert posterior.sample().shape == (5, 1, 24, 6)
    assert posterior.sample(0).shape == (5, 0, 24, 6)
    assert posterior.log_prob(theta).shape == (5, 7)
    assert posterior.log_prob(theta[:, 0]).shape == (5,)
    assert posterior.mode().shape == (5, 24, 6)
    assert posterior.entropy().shape == (5,)
    assert posterior.encode(theta).shape == (5, 7, 72)
    assert posterior.decode(torch.zeros(5, 2, 72)).shape == (5, 2, 24, 6)


def test_points_for_lifting():
    prior = ConditionalPosePrior(8, joints=16, space="points", hidden_features=16).eval()
    theta = prior.sample(torch.randn(5, 8), 7)
    assert theta.shape == (5, 7, 16, 3)
    assert prior.log_prob(theta.flatten(-2), torch.randn(5, 8)).shape == (5, 7)
    with pytest.raises(ValueError, match="no joint rotations"):
        prior.smpl_params(theta)


def test_unconditional():
    prior = make(context_features=0)
    theta = prior.sample(None, 7)
    assert theta.shape == (7, J, 6)
    assert prior.log_prob(theta).shape == (7,)
    assert prior.mode().shape == (J, 6)
    assert prior().entropy().shape == ()
    assert prior.nll(theta.detach()).shape == ()


def test_prior_agrees_with_its_posterior():
    prior, context, theta = make(), draw(5, C), rot6d(5)
    posterior = prior(context)
    assert torch.equal(prior.log_prob(theta, context), posterior.log_prob(theta))
    assert torch.equal(prior.mode(context), posterior.mode())
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(
        prior.sample(context, 2, generator=generators[0]),
        posterior.sample(2, generator=generators[1]),
    )


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
def test_every_form_of_theta_has_the_same_density(layout):
    prior, context = make(layout=layout), draw(5, C)
    matrix = roma.random_rotmat((5, J), dtype=torch.float64)
    vector = rotations.matrix_to_rot6d(matrix, layout)
    expected = prior.log_prob(vector, context).detach()
    assert_close(prior.log_prob(rotations.matrix_to_rotvec(matrix), context), expected, 1e-8)
    assert_close(prior.log_prob(matrix, context), expected, 1e-10)
    assert_close(prior.log_prob(vector.flatten(-2), context), expected, 1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_samples_carry_their_log_prob(training):
    prior, context = make().train(training), draw(5, C)
    theta, log_prob = prior(context).sample_and_log_prob(6)
    assert_close(prior.log_prob(theta, context), log_prob.detach(), 1e-8)


def test_encode_and_decode_are_inverse():
    posterior, theta = make()(draw(5, C)), rot6d(5, 2)
    assert_close(posterior.decode(posterior.encode(theta)), theta, 1e-10)


def test_the_mode_is_the_densest():
    posterior = make()(draw(5, C))
    _, log_prob = posterior.sample_and_log_prob(500)
    assert (log_prob <= posterior.log_prob(posterior.mode())[:, None]).all()
    zero = torch.zeros(5, posterior.prior.flow.features)
    assert_close(posterior.encode(posterior.mode()), zero, 1e-10)


def test_gradients_to_theta_and_context():
    prior = make()
    theta, context = rot6d(2).requires_grad_(), draw(2, C).requires_grad_()
    assert torch.autograd.gradcheck(prior.log_prob, (theta, context))
    rotvec = (0.5 * draw(2, 2, 3)).requires_grad_()
    assert torch.autograd.gradcheck(make(joints=2).log_prob, (rotvec, context))


@given(rows=st.integers(1, 6), seed=st.integers(0, 99))
def test_rows_do_not_see_their_neighbours(rows, seed):
    prior = make(preset="prohmr")
    theta, context = draw(rows, J, 6, seed=seed), draw(rows, C, seed=seed + 1)
    together = prior.log_prob(theta, context).detach()
    alone = torch.stack([prior.log_prob(t, c) for t, c in zip(theta, context, strict=True)])
    assert_close(alone, together, 1e-10)


# --- options, text, selection -------------------------------------------------------------------


def test_unknown_options_are_listed_with_the_valid_ones():
    with pytest.raises(TypeError, match=r"'hiden_features'; the options of the flow are hidden"):
        ConditionalPosePrior(4, hiden_features=8)
    with pytest.raises(TypeError, match="unexpected keyword argument 'features'"):
        ConditionalPosePrior(4, features=8)


def test_the_constructor_has_at_most_ten_parameters():
    parameters = inspect.signature(ConditionalPosePrior).parameters.values()
    assert sum(each.kind is not each.VAR_KEYWORD for each in parameters) <= 10


def test_every_flow_option_passes_through():
    flow = set(inspect.signature(ConditionalFlow).parameters)
    own = set(inspect.signature(ConditionalPosePrior).parameters)
    assert set(FlowOptions.__annotations__) == flow - own - {"features"}
    prior = ConditionalPosePrior(4, joints=2, hidden_features=8, num_steps=2, dropout=0.1)
    assert prior.config["dropout"] == prior.flow.options["dropout"] == 0.1
    assert ConditionalPosePrior(**prior.config).config == prior.config


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"preset": "prohmr"},
            "context_features=4, joints=3, space='rot6d', layout='columns', mode='exact'",
        ),
        (
            {"base": "student_t", "encoder_features": 8},
            "context_features=4, joints=3, space='so3', layout='columns', head=True, "
            "base='student_t', degrees_of_freedom=32.0, mode='exact'",
        ),
        (
            {"space": "points", "head_features": 0, "base": "normal"},
            "context_features=4, joints=3, space='points', head=False, mode='exact'",
        ),
        (
            {"rest_joints": (2, 1), "base": "normal"},
            "context_features=4, joints=3, space='so3', layout='columns', rest_joints=(1, 2), "
            "head=True, mode='exact'",
        ),
        (
            {"space": "points", "coupling": "affine"},
            "context_features=4, joints=3, space='points', mode='by ascent'",
        ),
    ],
)
def test_the_text_of_priors_and_posteriors(options, text):
    prior = make(**options)
    assert repr(prior) == f"ConditionalPosePrior({text})"
    assert repr(prior.freeze()) == f"PosePrior({text})"
    assert repr(prior(draw(5, C))) == f"PosePosterior(batch_shape=(5,), {text})"


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize(
    "rows", [1, slice(1, 4), [2, 0, 2], torch.tensor([True, False, True, False, False])], ids=str
)
def test_posteriors_select_contexts(rows, freeze):
    prior, context, theta = make(), draw(5, C), rot6d(5)
    posterior = (prior.freeze() if freeze else prior)(context)[rows]
    assert_close(posterior.log_prob(theta[rows]), prior.log_prob(theta, context)[rows], 1e-10)
    assert_close(posterior.mode(), prior.mode(context)[rows], 1e-10)


def test_selection_follows_the_batch_axes():
    posterior = make()(draw(5, 2, C))
    assert posterior[1].batch_shape == (2,)
    assert posterior[:, 1].batch_shape == (5,)
    assert posterior[1, 1].batch_shape == ()
    assert [each.batch_shape for each in posterior] == 5 * [(2,)]
    with pytest.raises(IndexError, match=r"cannot select \(1, 1, 1\) from .* batch shape \(5, 2\)"):
        posterior[1, 1, 1]
    with pytest.raises(IndexError, match=r"cannot select 0 from contexts of batch shape \(\)"):
        make(context_features=0)()[0]


def test_a_shape_of_samples_belongs_to_the_distribution():
    posterior = make()(draw(5, C))
    for method in (posterior.sample, posterior.sample_and_log_prob):
        for shape in ((100,), [100], torch.Size((100,))):
            with pytest.raises(TypeError, match=r"distribution\(\)\.sample\(\(100,\)\)"):
                method(shape)


def test_checks_of_values_can_be_skipped():
    posterior, theta = make()(draw(5, C)), rot6d(5)
    z = posterior.encode(theta)
    assert torch.equal(posterior.encode(theta, check=False), z)
    assert torch.equal(posterior.decode(z, check=False), posterior.decode(z))
    assert torch.equal(posterior.log_prob(theta, check=False), posterior.log_prob(theta))
    theta[0] = math.nan
    assert posterior.log_prob(theta, check=False)[0].isnan()
    assert posterior.encode(theta, check=False)[0].isnan().any()
    assert posterior.decode(math.nan * z, check=False).isnan().any()
    with pytest.raises(ValueError, match="leading shape"):
        posterior.log_prob(theta[:3], check=False)


def trained_by_nll(prior: ConditionalPosePrior) -> list[torch.nn.Parameter]:
    """Every parameter but those of the head, which nll leaves alone."""
    if prior.head is not None:
        assert all(parameter.grad is None for parameter in prior.head.parameters())
    return [p for name, p in prior.named_parameters() if not name.startswith("head.")]


# --- nll -----------------------------------------------------------------------------------------


def test_nll_is_the_mean_over_valid_rows():
    prior, theta, context = make(), rot6d(6), draw(6, C)
    log_prob = prior.log_prob(theta, context)
    assert_close(prior.nll(theta, context), -log_prob.mean(), 1e-12)
    for valid in ([1, 0, 1, 0, 0, 1], [True, False, True, False, False, True]):
        actual = prior.nll(theta, context, torch.tensor(valid))
        assert_close(actual, -log_prob[[0, 2, 5]].mean(), 1e-12)
    assert_close(prior.nll(theta, context, torch.ones(6)), -log_prob.mean(), 1e-12)


@pytest.mark.parametrize("options", [{}, {"anchored": False}, {"preset": "prohmr"}], ids=str)
def test_rows_that_are_not_valid_leave_no_trace(options):
    prior, theta, context = make(**options).train(), rot6d(6), draw(6, C)
    for module in prior.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    prior.target_noise = 0.0
    valid = torch.tensor([True, False, True, False, False, True])
    theta[~valid], context[~valid] = math.nan, math.nan
    context.requires_grad_()
    gradients = []
    for arguments in ((theta, context, valid), (theta[valid], context[valid])):
        prior.zero_grad()
        loss = prior.nll(*arguments)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in trained_by_nll(prior))])
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, 1e-10)
    assert context.grad is not None
    assert context.grad.isfinite().all()


def test_a_training_step_never_waits_for_the_device():
    prior = make().train()
    assert prior.flow.is_initialized()
    prior.to("meta")  # where reading a value is an error
    theta, context = rot6d(6).to("meta"), draw(6, C).to("meta")
    loss = prior.nll(theta, context, torch.ones(6, device="meta"))
    (loss + prior.mode(context).sum() + prior.sample(context, 2).sum()).backward()
    assert all(parameter.grad is not None for parameter in prior.parameters())


@pytest.mark.parametrize("space", ["rot6d", "so3"])
def test_nll_adds_noise_to_the_target_in_training_only(space):
    prior, theta, context = make(space=space), rot6d(6), draw(6, C)
    assert prior.nll(theta, context) == prior.nll(theta, context)
    prior.train()
    shape = (6, prior.flow.features)
    noise = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    centre = prior(context).centre
    noisy = prior.space.to_pose(prior.space.to_vector(theta, centre) + 0.005 * noise, centre)
    expected = -prior.log_prob(noisy, context).mean()
    actual = prior.nll(theta, context, generator=torch.Generator().manual_seed(5))
    assert_close(actual, expected.detach(), 1e-12)
    quiet = make(target_noise=0.0).train()
    assert quiet.nll(theta, context) == quiet.nll(theta, context)


@pytest.mark.parametrize("preset", ["default", "prohmr"])
@pytest.mark.parametrize("count", [0, 1])
def test_few_annotated_rows_are_fine_as_the_very_first_batch(preset, count):
    prior = ConditionalPosePrior(C, joints=J, hidden_features=16, preset=preset)
    theta, context = torch.randn(6, J, 6), torch.randn(6, C)
    theta[count:] = math.nan  # what is not annotated may hold anything
    loss = prior.nll(theta, context, torch.arange(6) < count)
    loss.backward()
    assert loss.isfinite()
    assert (loss == 0) == (count == 0)
    for parameter in trained_by_nll(prior):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert not prior.flow.is_initialized()
    prior.nll(torch.randn(6, J, 6), context)
    assert prior.flow.is_initialized()
    assert all(value.isfinite().all() for value in prior.state_dict().values())


@pytest.mark.parametrize(
    ("options", "noise"),
    [({}, 10.0), ({"anchored": False}, 10.0), ({"preset": "prohmr"}, 0.0)],
    ids=str,
)
def test_the_first_batch_sets_actnorm_from_its_valid_targets(options, noise):
    theta = torch.randn(50, J, 6)
    prior = ConditionalPosePrior(C, joints=J, hidden_features=16, target_noise=10.0, **options)
    generator, same = (torch.Generator().manual_seed(2) for _ in range(2))
    prior.nll(theta, torch.randn(50, C), torch.arange(50) < 40, generator=generator)
    targets = prior.space.to_vector(theta[:40])  # the answer of a new head is the identity
    targets = targets + noise * torch.randn(targets.shape, generator=same)
    anchored = prior.flow.keeps_origin
    expected = -(targets.square().mean(dim=0).sqrt() if anchored else targets.std(dim=0)).log()
    torch.testing.assert_close(prior.flow.steps[0].actnorm.log_scale.detach(), expected)


def test_features_that_never_vary_do_not_spoil_training():
    theta = rotations.matrix_to_rot6d(roma.random_rotmat((200, J)))
    theta[:, -1] = theta[0, -1]  # as hands and feet of motion capture
    prior = ConditionalPosePrior(0, joints=J, hidden_features=16)
    assert prior.nll(theta).abs() < 100


def test_several_poses_per_context():
    prior, theta, context = make(), rot6d(4, 3), draw(4, C)
    valid = torch.tensor([True, False, True, True])
    expected = -prior.log_prob(theta, context)[valid].mean()
    assert_close(prior.nll(theta, context, valid), expected.detach(), 1e-12)


@pytest.mark.parametrize("options", [{}, {"anchored": False, "space": "rot6d"}], ids=str)
def test_training_lowers_it(options):
    torch.manual_seed(0)
    prior = ConditionalPosePrior(C, joints=J, hidden_features=32, num_steps=2, **options)
    context = torch.randn(256, C)
    mixing = torch.randn(C, 6 * J)
    theta = (context @ mixing).sin().unflatten(-1, (J, 6)) + 0.1 * torch.randn(256, J, 6)
    optimizer = torch.optim.Adam(prior.parameters(), lr=2e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = prior.nll(theta, context)
        head = prior.mode_loss(theta, context) if prior.head is not None else 0
        (loss + head).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - (10 if prior.space.name == "rot6d" else 3)


# --- densities over rotations ---------------------------------------------------------------------


def test_so3_shapes_and_round_trip():
    prior = make(0.05, space="so3")
    posterior = prior(draw(5, C))
    theta, log_prob = posterior.sample_and_log_prob(7)
    assert theta.shape == (5, 7, J, 6)
    assert posterior.encode(theta).shape == (5, 7, 3 * J)
    assert_close(posterior.log_prob(theta), log_prob.detach(), 1e-6)
    assert_close(rotations.orthogonality_loss(theta), 0.0, 1e-12)
    params = prior.smpl_params(theta)
    assert params["body_pose"].shape == (5, 7, J - 1, 3, 3)


def test_so3_density_belongs_to_the_rotation_alone():
    prior, context = make(0.05, space="so3"), draw(5, C)
    matrix = roma.random_rotmat((5, J), dtype=torch.float64)
    expected = prior.log_prob(matrix, context).detach()
    rot6d = rotations.matrix_to_rot6d(matrix)
    first, second = rot6d[..., :3], rot6d[..., 3:]
    gauge = torch.cat((3.0 * first, 0.2 * second + first), dim=-1)
    for theta in (rot6d, gauge, rotations.matrix_to_rotvec(matrix)):
        assert_close(prior.log_prob(theta, context), expected, 1e-7)


@torch.no_grad()
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("options", [{}, {"coupling": "affine"}], ids=str)
def test_so3_density_integrates_to_one_minus_the_mass_outside(options, scale, centred):
    prior = ConditionalPosePrior(C, joints=1, hidden_features=16, **options).double()
    prior.nll(0.5 * draw(200, 1, 3) + 0.3, draw(200, C))
    prior.eval().flow.temperature.fill_(scale)
    centre = roma.random_rotmat((1,), dtype=torch.float64) if centred else None
    posterior = prior(draw(C), centre=centre)
    count = 40_000
    density = posterior.log_prob(roma.random_rotmat((count, 1), dtype=torch.float64)).exp()
    x = prior.flow.sample(posterior.context, count)
    inside = 1 - prior.space.outside(x).double().mean()
    assert (inside < 0.97) == (scale == 2.0)
    error = (density.var() + 0.25) ** 0.5 / count**0.5
    assert abs(density.mean() - inside) < 5 * error
    assert error < 0.03


def test_so3_mode_is_no_less_likely_than_the_decoded_origin():
    posterior = make(0.05, space="so3")(draw(5, C))
    start = posterior.log_prob(posterior.decode(torch.zeros(5, 3 * J)))
    assert (posterior.log_prob(posterior.mode()) >= start - 1e-6).all()


def test_so3_entropy_is_the_mean_surprise_of_samples():
    for options in ({}, {"coupling": "affine"}):
        posterior = narrow(make(0.05, **options))(draw(3, C))
        with torch.no_grad():
            log_prob = posterior.sample_and_log_prob(20_000)[1]
            entropy = posterior.entropy(num_samples=20_000)
        error = log_prob.std(dim=1) / 20_000**0.5
        assert ((entropy + log_prob.mean(dim=1)).abs() < 7 * error).all()


def test_so3_trains():
    prior = ConditionalPosePrior(C, joints=J, space="so3", hidden_features=32, num_steps=2)
    context = torch.randn(256, C)
    theta = (context @ torch.randn(C, 3 * J)).sin().unflatten(-1, (J, 3))
    optimizer = torch.optim.Adam(prior.parameters(), lr=2e-3)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = prior.nll(theta, context)
        (loss + prior.mode_loss(theta, context)).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 5


@pytest.mark.parametrize("space", ["rot6d", "so3"])
def test_calibration_is_saved_and_helps(tmp_path, space):
    prior, context = narrow(make(0.05, space=space)), draw(300, C)
    with torch.no_grad():
        theta = prior(context).decode(1.5 * draw(300, prior.space.features, seed=8))
        before = prior.nll(theta, context)
        assert prior.calibrate(theta, context) == pytest.approx(1.5, rel=0.05)
        assert prior.nll(theta, context) < before
        prior.save(tmp_path / "prior")
        loaded = ConditionalPosePrior.load(tmp_path / "prior")
        assert loaded.nll(theta, context) == prior.nll(theta, context)
    with pytest.raises(ValueError, match="no poses"):
        prior.calibrate(theta[:0], context[:0])


# --- SMPL ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
def test_smpl_params(layout):
    prior = ConditionalPosePrior(8, layout=layout, hidden_features=16)
    matrix = roma.random_rotmat((5, 2, 24))
    params = prior.smpl_params(rotations.matrix_to_rot6d(matrix, layout))
    assert params["global_orient"].shape == (5, 2, 1, 3, 3)
    assert params["body_pose"].shape == (5, 2, 23, 3, 3)
    joined = torch.cat((params["global_orient"], params["body_pose"]), dim=-3)
    torch.testing.assert_close(joined, matrix, rtol=0, atol=1e-5)


# --- devices, dtypes, transforms -----------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_no_tensor_is_born_on_the_cpu(training):
    prior = ConditionalPosePrior(C, joints=J, hidden_features=16).to("meta").train(training)
    theta, context = torch.empty(5, J, 6, device="meta"), torch.empty(5, C, device="meta")
    posterior = prior(context)
    results = [
        prior.nll(theta, context),
        posterior.log_prob(theta),
        *posterior.sample_and_log_prob(2),
        posterior.mode(),
        posterior.encode(theta),
        posterior.decode(torch.empty(5, prior.flow.features, device="meta")),
        *prior.smpl_params(theta).values(),
    ]
    assert all(result.is_meta for result in results)


def test_float64_by_default():
    try:
        torch.set_default_dtype(torch.float64)
        prior = ConditionalPosePrior(C, joints=J, hidden_features=16).train()
        assert prior.nll(torch.randn(5, J, 6), torch.randn(5, C)).dtype == torch.float64
        assert prior.sample(torch.randn(5, C)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_half_precision_features_are_raised_as_under_autocast():
    prior = ConditionalPosePrior(C, joints=J, hidden_features=16).eval()
    context = torch.randn(5, C).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        theta, log_prob = prior(context).sample_and_log_prob(3)
        assert theta.dtype == log_prob.dtype == torch.float32
        torch.testing.assert_close(prior.log_prob(theta, context), log_prob, rtol=0, atol=1e-3)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(clone):
    prior, theta, context = make(), rot6d(5), draw(5, C)
    assert torch.equal(clone(prior).log_prob(theta, context), prior.log_prob(theta, context))


def test_function_transforms():
    prior, theta, context = make(), rot6d(5), draw(5, C)
    expected = prior.log_prob(theta, context).detach()
    assert_close(torch.func.vmap(prior.log_prob)(theta, context), expected, 1e-10)
    gradient = torch.func.vmap(torch.func.grad(prior.log_prob))(theta, context)
    assert gradient.shape == theta.shape
    assert gradient.isfinite().all()


@pytest.mark.slow
def test_it_compiles_into_one_graph():
    prior, theta, context = make(), rot6d(5), draw(5, C)
    compiled = torch.compile(prior.log_prob, fullgraph=True, backend="aot_eager")
    assert_close(compiled(theta, context), prior.log_prob(theta, context).detach(), 1e-12)


# --- bad input -----------------------------------------------------------------------------------

nan_context = torch.full((5, C), math.nan, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.log_prob(rot6d(5, joints=4), draw(5, C)), r"theta has shape \(5, 4, 6\); acc"),
        (lambda p: p.log_prob(rot6d(4), draw(5, C)), r"theta has leading shape \(4,\), but .*\(5,"),
        (lambda p: p.log_prob(rot6d(5), draw(5, C + 1)), r"context must have shape \(..., 4\)"),
        (lambda p: p.log_prob(rot6d(5)), r"needs a context"),
        (
            lambda p: p.log_prob(math.nan * rot6d(5), draw(5, C)),
            "theta holds NaN or infinity in 90",
        ),
        (lambda p: p.log_prob(rot6d(5), nan_context), "context holds NaN or infinity in 20 of 20"),
        (lambda p: p.mode(nan_context / 0), "context holds NaN or infinity"),
        (lambda p: p.float().log_prob(rot6d(5), draw(5, C).float()), r"theta is torch\.float64"),
        (lambda p: p.nll(rot6d(5) * math.inf, draw(5, C)), "theta holds NaN or infinity"),
        (lambda p: p.nll(rot6d(5), draw(5, C), torch.ones(4)), r"valid has shape \(4,\)"),
        (lambda p: p.nll(rot6d(4), draw(5, C), torch.ones(5)), r"valid has shape \(5,\)"),
        (lambda p: p.nll(rot6d(4), draw(5, C)), r"theta has leading shape \(4,\)"),
        (lambda p: p.sample(draw(5, C), -1), "num_samples must be a whole number of at least 0"),
        (lambda p: p(draw(5, C)).decode(draw(5, 7)), r"z must have shape \(..., 9\)"),
        (lambda p: p(draw(5, C)).decode(draw(4, 9)), r"z has leading shape \(4,\)"),
        (lambda p: p(draw(5, C)).decode(math.nan * draw(5, 9)), "z holds NaN"),
    ],
)
def test_bad_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call(make())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"layout": "zhou"}, "layout must be one of"),
        ({"space": "quaternions"}, "space must be one of"),
        ({"preset": "best"}, "preset must be one of"),
        ({"joints": 24.0}, "joints must be a whole number"),
        ({"joints": 0}, "joints must be a whole number of at least 1"),
        ({"context_features": -1}, "context_features must be a whole number of at least 0"),
        ({"target_noise": -0.1}, "target_noise must be at least 0"),
    ],
)
def test_bad_construction(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ConditionalPosePrior(**{"context_features": C, **kwargs})


def test_files_from_before_priors_could_be_anchored(tmp_path):
    prior = make(anchored=False, space="rot6d")
    prior.save(tmp_path / "prior.safetensors")
    content = model_file.load(tmp_path / "prior.safetensors")
    old = {
        key: value
        for key, value in content.config.items()
        if key not in ("anchored", "base", "head_features", "encoder_skip")
    }
    model_file.save(tmp_path / "old.safetensors", model_file.ModelFile(content.tensors, old))
    loaded = ConditionalPosePrior.load(tmp_path / "old.safetensors")
    assert loaded.config == prior.config
    theta, context = draw(5, J, 6), draw(5, C)
    assert_close(loaded.log_prob(theta, context), prior.log_prob(theta, context), 1e-12)


def test_an_anchored_prior_has_a_head_of_128_features():
    assert ConditionalPosePrior(C, joints=J).config["head_features"] == 128
    assert ConditionalPosePrior(C, joints=J, anchored=False).config["head_features"] == 0


def test_arrays_are_refused_by_name():
    prior = make()
    with pytest.raises(TypeError, match=r"theta must be a torch\.Tensor, got ndarray"):
        prior.log_prob(np.zeros((5, J, 6)), draw(5, C))
    with pytest.raises(TypeError, match=r"context must be a torch\.Tensor, got list"):
        prior([1.0] * C)
    posterior, theta, context = prior(draw(5, C)), draw(5, J, 6), draw(5, C)
    calls = {
        "theta": (posterior.log_prob, posterior.encode, lambda theta: prior.nll(theta, context)),
        "z": (posterior.decode,),
        "centre": (lambda centre: prior(context, centre=centre),),
        "valid": (lambda valid: prior.nll(theta, context, valid),),
    }
    for name, verbs in calls.items():
        for verb in verbs:
            with pytest.raises(TypeError, match=rf"^{name} must be a torch\.Tensor, got ndarray"):
                verb(np.zeros((5, J, 6)))


# --- freeze --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"preset": "prohmr"}, {"space": "rot6d"}, {"coupling": "affine"}, {"layout": "rows"},
     {"anchored": False}, {"coupling": "contracting"}, {"coupling": "none"}, {"base": "normal"},
     {"encoder_features": 8}],
    ids=str,
)  # fmt: skip
def test_frozen_prior_agrees_with_the_prior(options):
    prior = make(0.1, **options)
    frozen, context = prior.freeze(), draw(4, C)
    seeds = (torch.Generator().manual_seed(3) for _ in range(2))
    theirs = prior.sample(context, 5, generator=next(seeds))
    assert_close(frozen.sample(context, 5, generator=next(seeds)), theirs.detach(), 1e-8)
    theta = theirs.detach()[:, 0]
    assert_close(frozen.log_prob(theta, context), prior.log_prob(theta, context).detach(), 1e-8)
    assert_close(frozen.mode(context), prior.mode(context).detach(), 1e-8)
    posterior = frozen(context)
    assert_close(posterior.decode(posterior.encode(theta)), theta, 1e-8)


def test_a_frozen_prior_passes_gradients_to_theta_alone():
    prior = make()
    theta, context = rot6d(3).requires_grad_(), draw(3, C)
    (ours,) = torch.autograd.grad(prior.freeze().log_prob(theta, context).sum(), theta)
    (theirs,) = torch.autograd.grad(prior.log_prob(theta, context).sum(), theta)
    assert_close(ours, theirs, 1e-9)
    assert not list(prior.freeze().flow.parameters())
    assert not any(parameter.requires_grad for parameter in prior.freeze().parameters())


# --- rotations near half a turn -------------------------------------------------------------------


def far_prior(dtype, options):
    """A prior with much mass beyond half a turn; without an anchor, the decoded origin too."""
    prior = ConditionalPosePrior(C, joints=J, space="so3", hidden_features=16, **options).to(dtype)
    for step in prior.flow.steps:
        step.actnorm.initialized.fill_(True)
    if prior.flow.keeps_origin:
        prior.flow.temperature.fill_(10.0)
    else:
        prior.flow.steps[0].actnorm.shift.data[:3] = torch.tensor([-40.0, 25.0, 3.0])
        prior.flow.steps[0].actnorm.log_scale.data[3:] = -3.0
    return prior.eval()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"anchored": False}, {"coupling": "affine"}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so3_samples_beyond_half_a_turn_carry_their_log_prob(dtype, options):
    prior, context = far_prior(dtype, options), draw(5, C).to(dtype)
    for model in (prior, prior.freeze()):
        posterior = model(context)
        theta, log_prob = posterior.sample_and_log_prob(50)
        assert log_prob.isfinite().all()
        tolerance = 1e-6 if dtype == torch.float64 else 2e-2
        again = posterior.log_prob(theta)
        torch.testing.assert_close(log_prob, again, rtol=1e-4, atol=tolerance)


@torch.no_grad()
def test_compiled_so3_samples_beyond_half_a_turn_carry_their_log_prob():
    posterior = far_prior(torch.float64, {})(draw(5, C))
    torch.compiler.reset()
    theta, log_prob = torch.compile(posterior.sample_and_log_prob, backend="eager")(50)
    torch.testing.assert_close(log_prob, posterior.log_prob(theta), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"anchored": False}, {"coupling": "affine"}, {"coupling": "spline"}], ids=str
)
@pytest.mark.parametrize("far", [False, True])
def test_so3_modes_are_no_less_likely_than_the_decoded_origin(options, far):
    context = draw(3, C)
    prior = far_prior(torch.float64, options) if far else make(0.1, space="so3", **options)
    for model in (prior, prior.freeze()):
        posterior = model(context)
        mode, origin = posterior.mode(), posterior.decode(torch.zeros(3, 3 * J).double())
        assert (posterior.log_prob(mode) >= posterior.log_prob(origin)).all()


def test_so3_vectors_are_settled_as_encoding_has_them():
    space = ConditionalPosePrior(C, joints=J, space="so3").space
    x = torch.cat([scale * draw(20, 3 * J) for scale in (0.3, 1.0, 20.0, 100.0)])
    settled = space.settled(x)
    assert_close(settled, space.to_vector(space.to_pose(x)), 1e-6)
    length, again = (each.unflatten(-1, (J, 3)).norm(dim=-1) for each in (x, settled))
    near = length <= rotations.CHART_RADIUS - 1e-3
    assert 0 < near.float().mean() < 1
    assert torch.equal(settled.unflatten(-1, (J, 3))[near], x.unflatten(-1, (J, 3))[near])
    assert (again <= rotations.CHART_RADIUS + 1e-6).all()
    assert torch.equal(space.outside(x), length > rotations.CHART_RADIUS)
    assert_close(space.settled(settled), settled, 1e-6)
