"""Every verb under torch.compile, with batches of several sizes."""

import pytest
import torch

from flowprior import ConditionalPosePrior

J, C = 2, 4
SIZES = [(3, 2), (5, 4), (2, 7)]

VERBS = {
    "sample": lambda prior, context, theta: prior.sample(context, theta.shape[1]),
    "sample_and_log_prob": lambda prior, context, theta: prior(context).sample_and_log_prob(
        theta.shape[1]
    )[1],
    "log_prob": lambda prior, context, theta: prior.log_prob(theta, context),
    "mode": lambda prior, context, theta: prior.mode(context),
    "entropy": lambda prior, context, theta: prior(context).entropy(num_samples=4),
    "encode": lambda prior, context, theta: prior(context).encode(theta),
    "decode": lambda prior, context, theta: prior(context).decode(
        theta.new_zeros(*theta.shape[:2], prior.flow.features)
    ),
    "distribution": lambda prior, context, theta: prior(context).distribution().rsample((3,)),
    "nll": lambda prior, context, theta: prior.nll(theta, context),
    "mode_loss": lambda prior, context, theta: prior.mode_loss(theta, context),
}
LOSSES = ("nll", "mode_loss")
EXACT = ("log_prob", "encode", "decode")  # the others draw or climb


def make(**options):
    options = {"hidden_features": 8, "num_steps": 1, "num_blocks": 1, **options}
    prior = ConditionalPosePrior(C, joints=J, **options)
    prior.nll(torch.randn(9, J, 3), torch.randn(9, C))  # sets ActNorm
    return prior


def check(prior, verb, dynamic):
    torch.compiler.reset()
    call = VERBS[verb]
    compiled = torch.compile(
        lambda context, theta: call(prior, context, theta), backend="eager", dynamic=dynamic
    )
    for batch, samples in SIZES:
        context, theta = torch.randn(batch, C), torch.randn(batch, samples, J, 3)
        answer, expected = compiled(context, theta), call(prior, context, theta)
        assert answer.shape == expected.shape
        assert answer.isfinite().all()
        if verb in EXACT:
            torch.testing.assert_close(answer, expected)
        if verb in LOSSES:
            answer.backward()


@pytest.mark.parametrize(
    "verb",
    # Those that an ordinary run can afford: drawing, and a loss with gradients.
    [v if v in ("sample", "nll") else pytest.param(v, marks=pytest.mark.slow) for v in VERBS],
)
@pytest.mark.parametrize("options", [{}, {"coupling": "affine"}], ids=str)
def test_every_verb_takes_batches_of_other_sizes(verb, options):
    prior = make(**options)
    if verb == "mode_loss" and prior.head is None:
        pytest.skip("the gradient of a mode by ascent is not this test's")
    check(prior if verb in LOSSES else prior.eval(), verb, None)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_open_sizes(verb, frozen):
    prior = make()
    if frozen and verb in LOSSES:
        pytest.skip("a frozen prior has no loss")
    if verb not in LOSSES:
        prior = prior.eval().freeze() if frozen else prior.eval()
    check(prior, verb, True)
