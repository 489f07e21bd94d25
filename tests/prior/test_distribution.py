import pytest
import torch
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily

from flowprior import ConditionalPosePrior

OPTIONS = [{}, {"space": "points"}, {"space": "rot6d"}, {"anchored": False}, {"coupling": "affine"}]
SHAPES = [(), (1,), (5,), (2, 3), (0,)]


def make_prior(context_features=4, **options):
    torch.manual_seed(0)
    prior = ConditionalPosePrior(
        context_features, joints=3, hidden_features=16, num_steps=2, **options
    )
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for step in prior.flow.steps:
            step.actnorm.initialized.fill_(True)
    return prior.eval()


@pytest.fixture(params=OPTIONS, ids=str)
def posterior(request):
    return make_prior(**request.param)(torch.randn(2, 3, 4))


def test_distribution_has_the_shapes_of_the_posterior(posterior):
    view = posterior.distribution()
    assert isinstance(view, Distribution)
    assert view.batch_shape == (2, 3)
    assert view.event_shape == posterior.event_shape
    assert view.has_rsample
    assert view.support.event_dim == 2
    assert view.support.check(posterior.mode()).all()
    assert "PoseDistribution" in repr(view)


@pytest.mark.parametrize("sample_shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_samples_come_first(sample_shape, batch):
    view = make_prior()(torch.randn(*batch, 4)).distribution()
    sample = view.sample(sample_shape)
    assert sample.shape == (*sample_shape, *batch, 3, 6)
    assert not sample.requires_grad
    assert view.log_prob(sample).shape == (*sample_shape, *batch)


def test_the_numbers_are_the_posteriors(posterior):
    view = posterior.distribution()
    torch.manual_seed(1)
    theirs, theirs_log_prob = posterior.sample_and_log_prob(4)
    torch.manual_seed(1)
    sample = view.rsample((2, 2))
    assert torch.equal(sample.flatten(0, 1), theirs.movedim(2, 0))
    ours = view.log_prob(sample).flatten(0, 1).movedim(0, 2)
    torch.testing.assert_close(ours, posterior.log_prob(theirs))
    torch.testing.assert_close(ours, theirs_log_prob, atol=1e-3, rtol=1e-3)
    assert torch.equal(view.mode, posterior.mode())
    torch.manual_seed(2)
    entropy = posterior.entropy()
    torch.manual_seed(2)
    assert torch.equal(view.entropy(), entropy)


def test_gradients_reach_the_context():
    context = torch.randn(5, 4, requires_grad=True)
    view = make_prior()(context).distribution()
    view.rsample((3,)).square().sum().backward()
    assert (context.grad.abs().sum(dim=1) > 0).all()


def test_values_broadcast_with_the_batch(posterior):
    view = posterior.distribution()
    theta = posterior.mode()
    one = view.log_prob(theta[0, 0])
    assert one.shape == (2, 3)
    torch.testing.assert_close(one, posterior.log_prob(theta[:1, :1].expand_as(theta)))
    row = view.log_prob(theta[:, :1])
    torch.testing.assert_close(row, posterior.log_prob(theta[:, :1].expand_as(theta)))
    many = view.log_prob(torch.stack([theta[:, :1], theta[:, 1:2]]))
    assert many.shape == (2, 2, 3)
    torch.testing.assert_close(many[0], row)


def test_a_batch_of_one_broadcasts_with_values():
    posterior = make_prior()(torch.randn(1, 4))
    theta = posterior.sample(5)[0]
    torch.testing.assert_close(
        posterior.distribution().log_prob(theta), posterior.log_prob(theta[None])[0]
    )


@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3), (4, 1, 2, 3)], ids=str)
def test_expanded(posterior, shape):
    view = posterior.distribution()
    wide = view.expand(shape)
    assert wide.batch_shape == shape
    assert wide.event_shape == view.event_shape
    sample = wide.sample((6,))
    assert sample.shape == (6, *shape, *view.event_shape)
    torch.testing.assert_close(wide.log_prob(sample), view.log_prob(sample))
    if posterior.prior.flow.has_closed_entropy:
        torch.testing.assert_close(wide.entropy(), view.entropy().expand(shape))
    torch.testing.assert_close(
        wide.mode[..., 0, 0, :, :], view.mode[0, 0].expand_as(wide.mode[..., 0, 0, :, :])
    )


def test_expanding_copies_nothing():
    posterior = make_prior()(torch.randn(3, 4))
    expanded = posterior.distribution().expand((1000, 3)).posterior
    for ours, theirs in zip(expanded.centre, posterior.centre, strict=True):
        assert ours.data_ptr() == theirs.data_ptr()
    for ours, theirs in zip(expanded.context.steps, posterior.context.steps, strict=True):
        assert ours.hidden.data_ptr() == theirs.hidden.data_ptr()
        assert ours.norm.data_ptr() == theirs.norm.data_ptr()


def test_batch_that_does_not_broadcast(posterior):
    with pytest.raises(RuntimeError, match="expanded"):
        posterior.distribution().expand((2, 4))


def test_unconditional():
    prior = make_prior(0)
    view = prior().distribution()
    assert view.batch_shape == ()
    assert view.sample((7,)).shape == (7, 3, 6)
    sample = view.expand((2,)).sample((7,))
    torch.testing.assert_close(view.log_prob(sample), prior.log_prob(sample))
    torch.testing.assert_close(view.expand((2,)).log_prob(sample), prior.log_prob(sample))


def test_frozen():
    prior, context = make_prior(), torch.randn(2, 4)
    theta = prior.sample(context, 5).movedim(1, 0)
    frozen = prior.freeze()(context).distribution().expand((3, 2))
    expected = prior(context).distribution().log_prob(theta)
    actual = frozen.log_prob(theta[:, None])
    torch.testing.assert_close(actual, expected[:, None].expand(5, 3, 2), atol=1e-4, rtol=1e-4)


def test_values_are_checked(posterior):
    theta = posterior.mode().detach().clone()
    theta[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="within the support"):
        posterior.distribution(validate_args=True).log_prob(theta)
    with pytest.raises(ValueError, match="theta holds NaN"):
        posterior.distribution(validate_args=False).log_prob(theta)
    for validate in (True, False):
        view = posterior.distribution(validate_args=validate)
        assert view.expand((4, 2, 3))._validate_args is validate
        with pytest.raises(ValueError, match="the event is"):
            view.log_prob(theta.flatten(-2))


def test_torch_builds_on_it():
    prior = make_prior()
    view = prior(torch.randn(2, 5, 4)).distribution()
    both = Independent(view, 1)
    sample = both.sample((3,))
    assert both.event_shape == (5, 3, 6)
    torch.testing.assert_close(both.log_prob(sample), view.log_prob(sample).sum(-1))
    mixture = MixtureSameFamily(Categorical(torch.ones(2, 5)), view)
    sample = mixture.sample((3,))
    assert sample.shape == (3, 2, 3, 6)
    by_hand = view.log_prob(sample[:, :, None]).logsumexp(-1) - torch.tensor(5.0).log()
    torch.testing.assert_close(mixture.log_prob(sample), by_hand)


def test_kullback_leibler_by_samples():
    """Against the closed form that two temperatures of one flow have."""
    prior = make_prior(base="normal").double()
    prior.flow.steps[0].actnorm.log_scale.data += 2  # hardly any mass beyond the chart
    context = torch.randn(4, dtype=torch.float64)
    p = prior(context).distribution()
    sample = p.sample((20000,))
    own = p.log_prob(sample)
    prior.flow.temperature.fill_(1.5)
    kl = (own - prior(context).distribution().log_prob(sample)).mean()
    dims, ratio = prior.flow.features, 1 / 1.5**2
    expected = 0.5 * dims * (ratio - 1 - torch.tensor(ratio).log())
    assert kl.item() == pytest.approx(expected.item(), abs=0.1)
