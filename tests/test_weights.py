"""Weights that are lent, averaged or saved: which of them a prior and its posteriors use."""

import copy
import pickle
import warnings

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flowprior import ConditionalPosePrior

J, C = 2, 3
OPTIONS = [
    {},
    {"coupling": "affine"},
    {"space": "rot6d"},
    {"anchored": False},
    {"encoder_features": 5},
    {"batch_norm": True},
]


def make(seed=0, **options):
    torch.manual_seed(seed)
    options = {"hidden_features": 8, "num_steps": 2, "num_blocks": 1, **options}
    prior = ConditionalPosePrior(C, joints=J, **options)
    prior.nll(torch.randn(30, J, 3), torch.randn(30, C))  # sets ActNorm
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    prior.flow.temperature.fill_(1 + 0.1 * seed)
    return prior.eval()


def weights_of(prior):
    return {**dict(prior.named_parameters()), **dict(prior.named_buffers())}


VERBS = {
    "sample": lambda p: p.sample(3, generator=torch.Generator().manual_seed(2)),
    "sample_and_log_prob": lambda p: p.sample_and_log_prob(
        3, generator=torch.Generator().manual_seed(2)
    )[1],
    "log_prob": lambda p: p.log_prob(torch.ones(4, J, 3)),
    "mode": lambda p: p.mode(),
    "entropy": lambda p: p.entropy(num_samples=3, generator=torch.Generator().manual_seed(2)),
    "encode": lambda p: p.encode(torch.ones(4, J, 3)),
    "decode": lambda p: p.decode(torch.ones(4, 2, p.prior.flow.features)),
    "distribution": lambda p: (
        p.distribution()
        .expand((2, 4))
        .log_prob(p.prior.space.to_pose(torch.ones(p.prior.space.features)))
    ),
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("verb", VERBS)
def test_a_posterior_of_a_functional_call_keeps_its_weights(verb, options):
    prior, other = make(0, **options), make(1, **options)
    context = torch.randn(4, C)
    lent = {name: value.detach().clone() for name, value in weights_of(other).items()}
    posterior = functional_call(prior, lent, (context,))
    own = prior(context)
    with torch.no_grad():
        torch.testing.assert_close(VERBS[verb](posterior), VERBS[verb](other(context)))
        assert not torch.equal(VERBS[verb](posterior), VERBS[verb](own))
        torch.testing.assert_close(VERBS[verb](own), VERBS[verb](copy.deepcopy(prior)(context)))


def test_copies_of_a_posterior_keep_their_weights():
    prior, context = make(), torch.randn(4, C)
    with torch.no_grad():
        posterior = prior(context)
    expected = posterior.mode()
    for copied in (copy.deepcopy(posterior), pickle.loads(pickle.dumps(posterior))):
        prior.flow.temperature.fill_(3)
        assert torch.equal(copied.mode(), expected)


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_gradients_of_each_sample(options):
    prior = make(**options)
    theta, context = torch.randn(4, J, 3), torch.randn(4, C)
    parameters = {name: value.detach() for name, value in prior.named_parameters()}

    def loss(parameters, theta, context):
        return -functional_call(prior, parameters, (context,)).log_prob(theta)

    each = vmap(grad(loss), (None, 0, 0))(parameters, theta, context)
    for row in range(4):
        prior.zero_grad()
        prior.nll(theta[row], context[row]).backward()
        for name, parameter in prior.named_parameters():
            if name.startswith("head."):  # nll leaves it alone, log_prob does not
                assert parameter.grad is None
                assert each[name].any()
            else:
                torch.testing.assert_close(each[name][row], parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"space": "points"}, {"encoder_features": 5}], ids=str)
def test_gradients_of_each_mode(options):
    prior, context = make(**options), torch.randn(4, C)
    theta = prior.space.to_pose(torch.randn(4, prior.space.features))
    parameters = {name: value.detach() for name, value in prior.named_parameters()}

    def loss(parameters, theta, context):
        return (functional_call(prior, parameters, (context,)).mode() - theta).square().sum()

    each = vmap(grad(loss), (None, 0, 0))(parameters, theta, context)
    for row in range(4):
        prior.zero_grad()
        (prior.mode(context[row]) - theta[row]).square().sum().backward()
        for name, parameter in prior.named_parameters():
            expected = parameter.new_zeros(()) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(
                each[name][row], expected.expand_as(parameter), rtol=1e-4, atol=1e-4
            )
        assert prior.head.output.weight.grad.any()


def test_an_ensemble():
    priors = [make(seed) for seed in range(3)]
    parameters, buffers = stack_module_state(priors)
    base = copy.deepcopy(priors[0]).to("meta")
    theta, context = torch.randn(4, J, 3), torch.randn(4, C)

    def log_prob(parameters, buffers):
        return functional_call(base, (parameters, buffers), (context,)).log_prob(theta)

    answers = vmap(log_prob)(parameters, buffers)
    for prior, answer in zip(priors, answers, strict=True):
        torch.testing.assert_close(answer, prior.log_prob(theta, context))


def test_a_functional_call_sets_no_actnorm():
    prior = ConditionalPosePrior(C, joints=J, hidden_features=8)
    theta, context = torch.randn(9, J, 3), torch.randn(9, C)
    lent = {name: value.detach().clone() for name, value in weights_of(prior).items()}
    with pytest.raises(RuntimeError, match="run one training batch through the model itself first"):
        functional_call(prior, lent, (context,)).log_prob(theta)
    trained = weights_of(make())
    lent = {name: value.detach().clone() for name, value in trained.items()}
    other = ConditionalPosePrior(C, joints=J, hidden_features=8, num_steps=2, num_blocks=1)
    functional_call(other, lent, (context,)).log_prob(theta)
    assert not other.flow.is_initialized()


# --- running averages ----------------------------------------------------------------------------


def train(prior, average, start, steps=3):
    """Some steps of training with a running average by hand that starts at one of them."""
    theta, context = torch.randn(16, J, 3), torch.randn(16, C)
    optimizer = torch.optim.SGD(prior.train().parameters(), 1e-3)
    held = None
    for step in range(steps):
        if step == start:
            held = average(prior)
        optimizer.zero_grad()
        prior.nll(theta, context).backward()
        optimizer.step()
        if held is not None:
            with torch.no_grad():
                for mean, value in zip(held.parameters(), prior.parameters(), strict=True):
                    mean.lerp_(value, 0.1)
    return held.eval(), theta, context


def read_again(prior):
    other = ConditionalPosePrior(C, joints=J, hidden_features=8)
    other.load_state_dict(prior.state_dict())
    return other


@pytest.mark.parametrize("average", [copy.deepcopy, read_again])
def test_an_average_from_before_actnorm_was_set_is_named_once(average):
    prior = ConditionalPosePrior(C, joints=J, hidden_features=8)
    held, theta, context = train(prior, average, start=0)
    with pytest.warns(UserWarning, match=r"running average \(EMA\) .* before the first") as caught:
        held.nll(theta, context)
    assert len(caught) == 1
    held.mode(context)  # says nothing more


@pytest.mark.parametrize("average", [copy.deepcopy, read_again])
def test_an_average_from_after_the_first_batch_is_fine(average):
    prior = ConditionalPosePrior(C, joints=J, hidden_features=8)
    held, theta, context = train(prior, average, start=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert held.nll(theta, context).isfinite()
        ConditionalPosePrior(C, joints=J, hidden_features=8).eval().mode(context)  # new: no average


def test_the_recipe_of_the_guide():
    prior = ConditionalPosePrior(C, joints=J, hidden_features=8)
    theta, context = torch.randn(64, J, 3), torch.randn(64, C)
    average = AveragedModel(prior, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimizer = torch.optim.Adam(prior.parameters(), 1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        prior.nll(theta, context).backward()
        optimizer.step()
        average.update_parameters(prior)
    averaged = average.module.eval()
    assert averaged.flow.is_initialized()
    assert (averaged.nll(theta, context) - prior.eval().nll(theta, context)).abs() < 1


# --- state in one place --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 0.25])
def test_the_noise_of_targets_is_saved_as_it_was_set(value, tmp_path):
    prior = make()
    prior.target_noise = value
    prior.save(tmp_path / "prior.safetensors")
    prior.save_pretrained(tmp_path / "folder")
    assert ConditionalPosePrior.load(tmp_path / "prior.safetensors").target_noise == value
    assert ConditionalPosePrior.from_pretrained(tmp_path / "folder").target_noise == value
    assert copy.deepcopy(prior).target_noise == value


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_the_noise_of_targets_is_checked_when_it_is_set(value):
    prior = make()
    with pytest.raises(ValueError, match="target_noise must be at least 0"):
        prior.target_noise = value
    with pytest.raises(ValueError, match="target_noise must be at least 0"):
        ConditionalPosePrior(C, target_noise=value)
