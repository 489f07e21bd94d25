"""Posteriors of several batch axes against those of single contexts, and picks and joints."""

import math

import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.prior.picking import mean_pose, medoid
from flowprior.prior.spaces import make_space
from flowprior.skeleton import COCO_17, SMPL_24

BATCH = (2, 3)
EXTRA = 2
JOINTS = 5
SMALL = {"hidden_features": 8, "num_steps": 2}
OPTIONS = [
    {"space": "so3", "head_features": 8, "encoder_features": 6},
    {"space": "so3", "head_features": 8, "rest_joints": (3, 1), "base": "normal"},
    {"space": "rot6d", "head_features": 8, "layout": "rows"},
    {"space": "rot6d", "coupling": "affine", "anchored": False},
    {"space": "points", "head_features": 8},
    {"space": "so3", "coupling": "spline"},
]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(joints: int = JOINTS, width: int = 3, **options) -> ConditionalPosePrior:
    """A prior in double precision with random weights, which depends on everything."""
    torch.manual_seed(0)
    prior = ConditionalPosePrior(width, joints=joints, **{**SMALL, **options}).double()
    with torch.no_grad():
        for value in prior.parameters():
            value.add_(0.1 * torch.randn(value.shape, dtype=value.dtype))
        for step in prior.flow.steps:
            step.actnorm.initialized.fill_(True)
    return prior.eval()


def contexts(*batch: int, width: int = 3) -> torch.Tensor:
    return torch.randn(*batch, width, generator=draws(1), dtype=torch.float64)


def poses(prior: ConditionalPosePrior, *shape: int) -> torch.Tensor:
    vector = 0.5 * torch.randn(*shape, prior.space.joints, 3, generator=draws(2)).double()
    if prior.space.name == "points":
        return vector
    matrix = rotations.rotvec_to_matrix(vector)
    return rotations.matrix_to_rot6d(matrix, prior.space.layout)


def places():
    return [tuple(index) for index in torch.cartesian_prod(*map(torch.arange, BATCH)).tolist()]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: each["space"])
@torch.no_grad()
def test_each_context_has_its_own_posterior(options, centred):
    prior = made(**options)
    context, theta = contexts(*BATCH), poses(prior, *BATCH, EXTRA)
    centre = poses(prior, *BATCH).flip(-3) if centred else None
    whole = prior(context, centre=centre)
    assert whole.batch_shape == BATCH
    z = torch.randn(*BATCH, EXTRA, prior.flow.features, generator=draws(3)).double()
    mode = whole.mode() if prior.has_exact_mode else None
    for at in places():
        one = prior(context[at], centre=None if centre is None else centre[at])
        for name, given in (("log_prob", theta), ("encode", theta), ("decode", z), ("energy", z)):
            torch.testing.assert_close(
                getattr(whole, name)(given)[at], getattr(one, name)(given[at]), msg=name
            )
        if prior.has_exact_mode:
            torch.testing.assert_close(mode[at], one.mode())
        torch.testing.assert_close(whole[at].log_prob(theta[at]), one.log_prob(theta[at]))
    expanded = prior(context[:, :1], centre=None if centre is None else centre[:, :1])
    torch.testing.assert_close(
        expanded.expand(torch.Size(BATCH)).log_prob(theta)[1, 2],
        expanded[1, 0].log_prob(theta[1, 2]),
    )


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: each["space"])
@torch.no_grad()
def test_samples_of_several_batch_axes(options):
    prior = made(**options)
    posterior = prior(contexts(*BATCH))
    event = (JOINTS, 3 if options["space"] == "points" else 6)
    samples, log_prob = posterior.sample_and_log_prob(EXTRA, generator=draws())
    assert samples.shape == (*BATCH, EXTRA, *event)
    torch.testing.assert_close(log_prob, posterior.log_prob(samples), atol=1e-6, rtol=0)
    torch.testing.assert_close(samples, posterior.sample(EXTRA, generator=draws()))
    assert torch.equal(samples, posterior.sample_and_log_prob(EXTRA, generator=draws())[0])
    assert posterior.sample(generator=draws()).shape == (*BATCH, 1, *event)
    # With a generator, the global one is not used.
    state = torch.get_rng_state()
    posterior.entropy(num_samples=3, generator=draws())
    posterior.pick("mean", num_samples=3, generator=draws())
    assert torch.equal(torch.get_rng_state(), state)
    z = posterior.encode(samples)
    torch.testing.assert_close(posterior.decode(z), samples, atol=1e-6, rtol=0)


@torch.no_grad()
def test_entropy_from_samples_is_their_mean_surprise():
    prior = made(space="so3", coupling="spline")
    for step in prior.flow.steps:  # no sample beyond the chart
        step.actnorm.log_scale.fill_(1.0)
    posterior = prior(contexts(*BATCH))
    _, log_prob = posterior.sample_and_log_prob(7, generator=draws())
    torch.testing.assert_close(
        posterior.entropy(num_samples=7, generator=draws()), -log_prob.mean(dim=-1)
    )
    assert posterior.entropy(generator=draws()).shape == BATCH


@torch.no_grad()
def test_joints_at_rest_are_outside_the_density():
    prior = made(space="so3", head_features=8, rest_joints=(3, 1, 3))
    assert prior.rest_joints == (1, 3)
    posterior = prior(contexts(*BATCH))
    expected = torch.tensor([False, True, False, True, False]).expand(*BATCH, JOINTS)
    assert torch.equal(posterior.known, expected)
    identity = rotations.matrix_to_rot6d(torch.eye(3).double())
    for theta in (
        posterior.sample(EXTRA, generator=draws()),
        posterior.mode(),
        prior.mode(contexts(*BATCH)),
    ):
        assert torch.equal(theta[..., [1, 3], :], identity.expand(*theta.shape[:-2], 2, 6))
    theta = poses(prior, *BATCH, EXTRA)
    other = theta.clone()
    other[..., 3, :] = identity
    torch.testing.assert_close(posterior.log_prob(theta), posterior.log_prob(other))
    # One joint less has one volume less.
    free = made(space="so3", head_features=8)
    assert free(contexts(*BATCH)).known is None
    size = free.space.log_volume / JOINTS
    assert size == pytest.approx(rotations.LOG_CHART_VOLUME)
    vector = posterior._vector_of(theta)
    log_prob = prior.flow.log_prob(vector, posterior.context)
    torch.testing.assert_close(posterior.log_prob(theta), log_prob + 3 * size)


@pytest.mark.parametrize("joint", [-1, JOINTS])
def test_joints_at_rest_are_joints(joint):
    made(space="so3", head_features=8, rest_joints=(0, JOINTS - 1))
    with pytest.raises(ValueError, match=rf"^rest_joints must be from 0 to 4, got \({joint},\)"):
        made(space="so3", head_features=8, rest_joints=(joint,))
    with pytest.raises(ValueError, match=r"only an anchored prior can hold joints: anchored=True"):
        made(space="so3", anchored=False, rest_joints=(0,))


@pytest.mark.parametrize("space", ["so3", "rot6d", "points"])
@torch.no_grad()
def test_picks_are_those_of_the_samples(space):
    prior = made(space=space, head_features=8)
    posterior = prior(contexts(*BATCH))
    samples = posterior.sample(6, generator=draws())
    uniform = torch.full((*BATCH, 6), 1 / 6, dtype=torch.float64)
    pick = {"num_samples": 6, "generator": draws()}
    torch.testing.assert_close(
        posterior.pick("mean", **pick), mean_pose(prior.space, samples, uniform)
    )
    pick["generator"] = draws()
    assert torch.equal(posterior.pick("medoid", **pick), medoid(prior.space, samples))
    assert torch.equal(posterior.pick(), posterior.mode())
    value = torch.randn(*BATCH, 6, generator=draws(5)).double()
    pick["generator"] = draws()
    torch.testing.assert_close(
        posterior.pick("weighted", log_likelihood=lambda theta: value, **pick),
        mean_pose(prior.space, samples, value.softmax(dim=-1)),
    )
    marginal = prior(contexts(7)[6])
    ratio = marginal.expand(torch.Size(BATCH)).log_prob(samples) - posterior.log_prob(samples)
    pick["generator"] = draws()
    torch.testing.assert_close(
        posterior.pick("weighted", log_likelihood=lambda theta: value, marginal=marginal, **pick),
        mean_pose(prior.space, samples, (value + ratio).softmax(dim=-1)),
    )


@pytest.mark.parametrize("space", ["so3", "rot6d", "points"])
def test_mean_and_medoid_against_loops(space):
    poses_of = make_space(space, 4, "rows")
    vector = torch.randn(*BATCH, 5, 4, 3, generator=draws()).double()
    numbers = vector if space == "points" else rotations.rotvec_to_matrix(vector)
    theta = vector if space == "points" else rotations.matrix_to_rot6d(numbers, "rows")
    weight = torch.rand(*BATCH, 5, generator=draws(1)).double()
    weight = weight / weight.sum(dim=-1, keepdim=True)
    mean, middle = mean_pose(poses_of, theta, weight), medoid(poses_of, theta)
    assert mean.shape == middle.shape == (*BATCH, *theta.shape[-2:])
    for at in places():
        total = (weight[at].reshape(-1, *(1,) * (numbers.ndim - 3)) * numbers[at]).sum(dim=0)
        if space != "points":
            u, _, v = torch.linalg.svd(total)
            sign = torch.linalg.det(u @ v).sign()
            scale = torch.ones(4, 3).double()
            scale[:, 2] = sign
            total = rotations.matrix_to_rot6d(u * scale[:, None] @ v, "rows")
        torch.testing.assert_close(mean[at], total)
        sums = [
            sum(float((a - b).flatten(1).norm(dim=-1).sum()) for b in numbers[at])
            for a in numbers[at]
        ]
        assert torch.equal(middle[at], theta[at][sums.index(min(sums))])


@pytest.mark.parametrize("method", ["samples", "linear"])
@pytest.mark.parametrize("shapes", [(10,), (*BATCH, 10)])
@torch.no_grad()
def test_joints_of_each_context_have_their_own_uncertainty(method, shapes):
    body = BodyModel().double()
    prior = made(24, space="so3", head_features=8)
    with torch.no_grad():
        for step in prior.flow.steps:
            step.actnorm.log_scale.fill_(1.0)
    context = contexts(*BATCH)
    betas = torch.randn(*shapes, generator=draws(4)).double()
    posterior = prior(context)
    whole = posterior.joint_uncertainty(
        body, num_samples=150, betas=betas, method=method, generator=draws()
    )
    assert whole.std_mm.shape == (*BATCH, 24)
    assert whole.direction.shape == (*BATCH, 24, 3)
    for at in places():
        own = betas if betas.ndim == 1 else betas[at]
        one = prior(context[at]).joint_uncertainty(
            body, num_samples=1000, betas=own, method=method, generator=draws(9)
        )
        assert one.std_mm.shape == (24,)
        exact = {"rtol": 1e-6, "atol": 1e-4} if method == "linear" else {"rtol": 0.35, "atol": 0.5}
        torch.testing.assert_close(whole.std_mm[at], one.std_mm, **exact)
        torch.testing.assert_close(whole.radius_90_degrees[at], one.radius_90_degrees, **exact)
        if method == "samples":
            break


def test_uncertainty_needs_two_samples_and_a_method_that_fits():
    body = BodyModel().double()
    posterior = made(24, space="so3", head_features=8)(contexts())
    posterior.joint_uncertainty(body, num_samples=2)
    for arguments, message in (
        ({"num_samples": 1}, r"^num_samples\b[^?]"),
        ({"method": "fast"}, r"^method must be one of \('samples', 'linear'\), got 'fast'"),
        ({"method": "linear", "skeleton": COCO_17}, 'method="linear" needs an anchored prior'),
    ):
        with pytest.raises(ValueError, match=message):
            posterior.joint_uncertainty(body, **arguments)
    posterior.joint_uncertainty(body, method="linear", skeleton=SMPL_24)
    for options in ({"space": "rot6d", "head_features": 8}, {"space": "so3", "anchored": False}):
        with pytest.raises(ValueError, match='method="linear" needs'):
            made(24, **options)(contexts()).joint_uncertainty(body, method="linear")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p: p.pick("best"), r"^answer must be one of .* got 'best'$"),
        (lambda p: p.pick("weighted"), 'a log_likelihood belongs to the answer "weighted"'),
        (lambda p: p.pick("mean", log_likelihood=len), "a log_likelihood belongs to the answer"),
        (lambda p: p.pick("mean", marginal=p), 'a marginal belongs to the answer "weighted"'),
        (lambda p: p.pick("mean", num_samples=0), r"^num_samples\b[^?]"),
        (
            lambda p: p.pick("weighted", num_samples=2, log_likelihood=lambda x: x[..., 0, 0, 0]),
            r"^log_likelihood must return \(2, 3, 2\) .* got \(2, 3\)$",
        ),
        (
            lambda p: p.decode(torch.full((2, 3, 15), math.nan).double()),
            r"^z holds NaN .* in 90 of",
        ),
        (lambda p: p.decode(torch.zeros(3, 2, 15).double()), r"^z has leading shape \(3, 2\)"),
        (lambda p: p.log_prob(torch.zeros(2, 5, 3).double()), r"^theta has leading shape \(2,\)"),
        (
            lambda p: p[0].log_prob(torch.zeros(4, 3, 5, 3).double()),
            r"stand on axes after the batch, as in theta\.transpose\(0, 1\)$",
        ),
        (lambda p: p.prior(contexts(2) * math.inf), r"^context holds NaN or infinity in 6 of 6"),
        (
            lambda p: p.prior(contexts(2), centre=torch.full((2, 5, 3), math.inf).double()),
            r"^centre holds NaN or infinity",
        ),
        (lambda p: p.prior(contexts(2), centre=torch.zeros(2, 4, 3)), r"^centre has shape \(2, 4"),
        (
            lambda p: p.prior(contexts(2), centre=torch.zeros(3, 5, 3).double()),
            r"^centre has batch shape \(3,\), but the context has batch shape \(2,\)",
        ),
        (lambda p: p.prior.given(), "this prior takes a context"),
        (
            lambda p: p.prior.log_prob(contexts(2), torch.zeros(2, 5, 6)),
            "log_prob takes theta first",
        ),
    ],
)
def test_messages_name_the_argument(act, message):
    with pytest.raises(ValueError, match=message):
        act(made(space="so3", head_features=8)(contexts(*BATCH)))


def test_what_is_no_tensor_is_named():
    prior = made(space="so3", head_features=8)
    posterior = prior(contexts())
    for act, name in (
        (lambda: posterior.decode([0.0]), "z"),
        (lambda: prior([0.0]), "context"),
        (lambda: prior(contexts(), centre=[0.0]), "centre"),
        (lambda: posterior.log_prob([0.0]), "theta"),
        (lambda: prior.nll(poses(prior, 2), contexts(2), [True]), "valid"),
    ):
        with pytest.raises(TypeError, match=rf"^{name} must be a torch\.Tensor"):
            act()
    for act, verb in (
        (lambda: posterior.sample((2,)), "sample"),
        (lambda: posterior.sample_and_log_prob([2]), "sample_and_log_prob"),
    ):
        with pytest.raises(TypeError, match=rf"posterior\.{verb}\(n\) puts n samples"):
            act()
    with pytest.raises(TypeError, match=r"comes after it, sample\(context, 3\)"):
        prior.sample(3)


def test_the_summary_says_what_the_prior_is():
    prior = made(space="so3", head_features=8, rest_joints=(1,), base="normal")
    text = repr(prior(contexts(*BATCH)))
    for fact in (
        "PosePosterior(batch_shape=(2, 3), context_features=3",
        "joints=5, space='so3', layout='columns'",
        ", rest_joints=(1,)",
        ", head=True",
        ", mode='exact')",
    ):
        assert fact in text
    points = repr(made(space="points", coupling="spline"))
    assert points.endswith("mode='by ascent')")
    assert "layout" not in points
    assert "head" not in points


@torch.no_grad()
def test_the_mode_of_a_prior_is_that_of_its_posterior():
    """Also where a head answers, but the flow moves the origin."""
    for anchored in (True, False):
        prior = made(space="so3", head_features=8, anchored=anchored)
        assert prior.has_exact_mode
        mode = prior(contexts(*BATCH)).mode()
        torch.testing.assert_close(prior.mode(contexts(*BATCH)), mode)
        centre = prior(contexts(*BATCH)).centre.pose
        assert torch.allclose(mode, centre) is anchored
