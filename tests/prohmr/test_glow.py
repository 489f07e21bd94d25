import numpy as np
import pytest
import torch

from flowprior.prohmr.glow import ConditionalGlow
from tests import oracle
from tests.flow.helpers import assert_close, draw


def make(state=None, features=12, context_features=5, **kwargs) -> ConditionalGlow:
    flow = ConditionalGlow(features, 16, 4, 2, context_features=context_features, **kwargs).double()
    if state is not None:
        flow.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in state.items()})
    return flow.eval()


@pytest.fixture
def state():
    return oracle.random_state_dict(12, 5, hidden_features=16)


def test_log_prob_returns_density_and_noise(state):
    flow, x, context = make(state), draw(7, 12), draw(7, 5)
    log_prob, noise = flow.log_prob(x, context)
    arrays = state, x.numpy(), context.numpy()
    assert_close(log_prob, oracle.log_prob(*arrays), 1e-10)
    assert_close(noise, oracle.forward(*arrays)[0], 1e-10)
    assert torch.equal(flow.transform_to_noise(x, context), noise)


@pytest.mark.parametrize("samples", [1, 4])
def test_given_noise_is_decoded_for_any_number_of_samples(state, samples):
    flow, noise, context = make(state), draw(3, samples, 12), draw(3, 5)
    x, log_prob, returned = flow.sample_and_log_prob(samples, noise=noise, context=context)
    assert x.shape == (3, samples, 12)
    assert log_prob.shape == (3, samples)
    assert torch.equal(returned, noise.reshape(-1, 12))
    for n in range(samples):
        expected, _ = oracle.inverse(state, noise[:, n].numpy(), context.numpy())
        assert_close(x[:, n], expected, 1e-10)
        assert_close(log_prob[:, n], oracle.log_prob(state, expected, context.numpy()), 1e-9)
    again, log_prob_again = flow.sample_log_prob(noise, context)
    assert torch.equal(again, x)
    assert torch.equal(log_prob_again, log_prob)


def test_drawn_samples(state):
    flow, context = make(state), draw(3, 5)
    x, log_prob, noise = flow.sample_and_log_prob(6, context=context)
    assert x.shape == (3, 6, 12)
    assert noise.shape == (18, 12)
    repeated = context.repeat_interleave(6, dim=0)
    assert_close(flow.log_prob(x.reshape(18, 12), repeated)[0], log_prob.flatten().detach(), 1e-9)
    assert flow.sample(6, context).shape == (3, 6, 12)


def test_without_context():
    flow = make(context_features=None)
    x, log_prob, noise = flow.sample_and_log_prob(6)
    assert (x.shape, log_prob.shape, noise.shape) == ((6, 12), (6,), (6, 12))
    assert flow.sample(6).shape == (6, 12)
    assert flow.sample_and_log_prob(6, context=draw(3, 7), ignore_context=True)[0].shape == (
        3,
        6,
        12,
    )


def test_weights_have_the_original_names(state):
    flow = make(state)
    saved = flow.state_dict()
    assert saved.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(saved[name].numpy(), value, err_msg=name)
    nested = torch.nn.ModuleDict({"flow": flow}).state_dict()
    assert nested.keys() == {f"flow.{name}" for name in state}


def test_it_loads_inside_another_module_also_loosely(state):
    model = torch.nn.ModuleDict({"flow": make(), "head": torch.nn.Linear(2, 2)})
    weights = {f"flow.{n}": torch.from_numpy(np.array(v)) for n, v in state.items()}
    result = model.load_state_dict(weights, strict=False)
    assert result.missing_keys == ["head.weight", "head.bias"]
    assert not result.unexpected_keys
    assert "flow._transform.dummy_buffer" in weights  # the caller's own is left alone
    x, context = draw(7, 12), draw(7, 5)
    expected = oracle.log_prob(state, x.numpy(), context.numpy())
    assert_close(model["flow"].log_prob(x, context)[0], expected, 1e-10)


def test_weights_that_do_not_fit_are_refused(state):
    del state["_transform._transforms.1.bias"]
    with pytest.raises(RuntimeError, match=r"missing _transform\._transforms\.1\.bias"):
        make(state)


def test_missing_weights_are_reported():
    with pytest.raises(RuntimeError, match="Missing key"):
        make().load_state_dict({})


def test_the_original_defaults():
    flow = ConditionalGlow(12, 16, 4, 2, context_features=5)
    assert {m.p for m in flow.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
    assert any(isinstance(m, torch.nn.BatchNorm1d) for m in flow.modules())
    plain = ConditionalGlow(12, 16, 4, 2, dropout_probability=0.0, batch_norm_within_layers=False)
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in plain.modules())


def test_only_relu():
    ConditionalGlow(12, 16, 4, 2, activation=torch.relu)
    with pytest.raises(ValueError, match=r"activation must be torch\.nn\.functional\.relu"):
        ConditionalGlow(12, 16, 4, 2, activation=torch.tanh)
