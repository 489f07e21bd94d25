import copy
import pickle

import pytest
import torch

from flowprior import CheckpointError, ConditionalPosePrior
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.posterior import PosePrior
from flowprior.prohmr import to_state_dict


def make_prior(**options):
    torch.manual_seed(0)
    options = {"encoder_features": 12, "encoder_blocks": 1} | options
    prior = ConditionalPosePrior(5, joints=3, hidden_features=16, num_steps=2, **options)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for step in prior.flow.steps:
            step.actnorm.initialized.fill_(True)
    return prior.eval()


def by_hand(encoder, context):
    hidden = context @ encoder.input.weight.mT + encoder.input.bias
    for block in encoder.blocks:
        first, second = block.linears
        update = hidden.relu() @ first.weight.mT + first.bias
        hidden = hidden + update.relu() @ second.weight.mT + second.bias
    return hidden


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("options", [{}, {"encoder_skip": False}, {"anchored": False}], ids=str)
def test_head_and_flow_use_the_encoder(shape, options):
    prior = make_prior(**options)
    skip = options.get("encoder_skip", options.get("anchored", True))
    context = torch.randn(*shape, 5)
    assert prior.context_features == 5
    assert prior.encoder.skip == skip
    assert prior.flow.context_features == prior.encoder.out_features == (17 if skip else 12)
    posterior = prior(context)
    assert posterior.batch_shape == shape
    theta = posterior.sample(4)
    assert theta.shape == (*shape, 4, 3, 6)
    encoded = by_hand(prior.encoder, context)
    if skip:
        encoded = torch.cat((encoded, context), dim=-1)
    expected = PosePrior(prior.flow, prior.space, None, prior.head)(encoded)
    torch.testing.assert_close(posterior.mode(), expected.mode())
    torch.testing.assert_close(posterior.log_prob(theta), expected.log_prob(theta))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_skip_hands_on_the_raw_context(dtype):
    encoder = ContextEncoder(5, 12, 2, skip=True).to(dtype)
    context = torch.randn(3, 5)
    encoded = encoder(context)
    assert encoded.shape == (3, 17)
    assert torch.equal(encoded[:, 12:], context)


def test_no_row_depends_on_another():
    encoder = ContextEncoder(5, 12, 2)
    context = torch.randn(6, 5)
    torch.testing.assert_close(encoder(context)[2:4], encoder(context[2:4]))


def test_gradients_reach_encoder_and_context():
    prior = make_prior().train()
    context = torch.randn(8, 5, requires_grad=True)
    theta = torch.randn(8, 3, 6)
    # The density cannot spoil the answer: with a head, the likelihood leaves the encoder alone.
    prior.nll(theta, context).backward()
    assert context.grad is None
    assert all(parameter.grad is None for parameter in prior.encoder.parameters())
    with torch.no_grad():
        prior.head.output.weight.normal_()  # zero in an untrained head
    prior.mode_loss(theta, context).backward()
    assert context.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in prior.encoder.parameters())


def test_without_a_head_the_likelihood_trains_the_encoder():
    prior = make_prior(anchored=False).train()
    prior.nll(torch.randn(8, 3, 6), torch.randn(8, 5)).backward()
    assert all(parameter.grad is not None for parameter in prior.encoder.parameters())


def test_frozen_copied_pickled_and_saved(tmp_path):
    prior, context = make_prior(), torch.randn(4, 5)
    mode = prior.mode(context)
    frozen = prior.freeze()
    torch.testing.assert_close(frozen.mode(context), mode)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    for other in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert torch.equal(other.mode(context), mode)
    prior.save(tmp_path / "prior")
    prior.save_pretrained(tmp_path / "folder")
    for other in (
        ConditionalPosePrior.load(tmp_path / "prior"),
        ConditionalPosePrior.from_pretrained(tmp_path / "folder"),
    ):
        assert other.config == prior.config
        assert torch.equal(other.mode(context), mode)
    with torch.no_grad():
        prior.encoder.input.weight.zero_()
    torch.testing.assert_close(frozen.mode(context), mode)


def test_files_from_before_there_were_encoders_are_read(tmp_path):
    from flowprior.files import model_file

    prior = make_prior(encoder_features=0)
    config = {key: value for key, value in prior.config.items() if not key.startswith("encoder")}
    model_file.save(tmp_path / "old", model_file.ModelFile(prior.state_dict(), config))
    context = torch.randn(4, 5)
    loaded = ConditionalPosePrior.load(tmp_path / "old")
    assert torch.equal(loaded.mode(context), prior.mode(context))


def test_an_encoder_that_is_missing_from_a_file(tmp_path):
    from flowprior.files import model_file

    prior = make_prior()
    state = {k: v for k, v in prior.state_dict().items() if not k.startswith("encoder")}
    model_file.save(tmp_path / "prior", model_file.ModelFile(state, prior.config))
    with pytest.raises(CheckpointError, match=r"missing encoder\.input\.weight"):
        ConditionalPosePrior.load(tmp_path / "prior")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    prior = make_prior().to(dtype)
    context = torch.randn(4, 5)
    expected = torch.promote_types(dtype, torch.float32)
    assert prior(context).mode().dtype == expected


def test_autocast_changes_nothing():
    prior, context = make_prior(), torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = prior.mode(context)
    assert torch.equal(inside, prior.mode(context))


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, r"needs a context of shape \(\.\.\., 5\), got None"),
        (torch.zeros(3, 12), r"context must have shape \(\.\.\., 5\), got \(3, 12\)"),
        (torch.zeros(3, 5, dtype=torch.float64), "context is torch.float64, but the model"),
        (torch.full((3, 5), torch.nan), "context holds NaN"),
    ],
    ids=["none", "width", "dtype", "nan"],
)
def test_contexts_that_do_not_fit(context, message):
    with pytest.raises(ValueError, match=message):
        make_prior()(context)


def test_sizes_out_of_range():
    for wrong in ({"encoder_features": -1}, {"encoder_features": 4, "encoder_blocks": -1}):
        with pytest.raises(ValueError, match="encoder_"):
            make_prior(**wrong)
    with pytest.raises(ValueError, match="context_features"):
        ConditionalPosePrior(0, joints=3, encoder_features=4)


def test_the_original_has_none():
    prior = make_prior(preset="prohmr")
    with pytest.raises(ValueError, match="no encoder of the context"):
        to_state_dict(prior)


def test_swapped_theta_and_context_are_detected():
    prior = ConditionalPosePrior(5, joints=2, hidden_features=8, encoder_features=7)
    theta, context = torch.zeros(3, 2, 6), torch.zeros(3, 5)
    with pytest.raises(ValueError, match="log_prob takes theta first"):
        prior.log_prob(context, theta)
