import copy
import pickle

import pytest
import torch

from flowprior.flow import ActNorm
from tests import oracle
from tests.flow.helpers import assert_close, draw


def trained_on(rows):
    layer = ActNorm(rows.shape[-1]).double()
    layer(rows)
    return layer


def test_first_batch_is_standardised():
    rows = 3 * draw(50, 4) + 2
    layer = ActNorm(4).double()
    y, log_abs_det = layer(rows)
    assert_close(y.mean(0), torch.zeros(4), 1e-12)
    assert_close(y.std(0), torch.ones(4), 1e-12)
    assert_close(log_abs_det, -rows.std(0).log().sum(), 1e-12)
    assert layer.is_initialized()
    assert bool(layer.initialized)


def test_initialisation_equals_the_reference():
    rows = 3 * draw(20, 4) + 2
    rows[:, 1] = 5.0  # no spread: its standard deviation is floored
    layer = trained_on(rows)
    log_scale, shift = oracle.actnorm_init(rows.numpy())
    assert_close(layer.log_scale, log_scale, 1e-12)
    assert_close(layer.shift, shift, 1e-9)


def test_second_batch_changes_nothing():
    layer = trained_on(draw(10, 3))
    before = copy.deepcopy(layer.state_dict())
    layer(100 * draw(10, 3))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_without_variance_does_not_initialise(rows):
    layer = ActNorm(3).double()
    y, log_abs_det = layer(draw(rows, 3))
    assert y.isfinite().all()
    assert log_abs_det == 0
    assert not layer.is_initialized()
    layer(draw(10, 3))
    assert layer.is_initialized()


def test_only_training_and_only_forward_initialise():
    layer = ActNorm(3).double()
    layer.inverse(draw(10, 3))
    layer.eval()(draw(10, 3))
    assert not layer.is_initialized()


def test_extra_axes_are_rows():
    rows = draw(6, 5, 3)
    assert torch.equal(trained_on(rows).log_scale, trained_on(rows.reshape(30, 3)).log_scale)


def test_round_trip():
    layer = trained_on(draw(10, 3))
    x = draw(7, 3)
    assert_close(layer.inverse(layer(x)[0]), x, 1e-12)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_the_flag_travels(clone):
    layer = trained_on(draw(10, 3))
    assert clone(layer).is_initialized()
    fresh = ActNorm(3).double()
    fresh.is_initialized()
    fresh.load_state_dict(layer.state_dict())
    assert fresh.is_initialized()
    layer.load_state_dict(ActNorm(3).double().state_dict())
    assert not layer.is_initialized()


def test_two_rows_suffice():
    rows = draw(2, 3)
    assert_close(trained_on(rows)(rows)[0].mean(0), torch.zeros(3), 1e-12)


def test_without_a_width_there_is_no_context():
    layer = ActNorm(3)
    assert layer.context_weight is None
    assert layer.project_context(draw(2, 0)) is None


def test_half_precision_weights_take_a_context_of_more():
    layer = ActNorm(3, 2).bfloat16()
    layer.context_weight.data = draw(6, 2).bfloat16()
    context = draw(4, 2).float()
    terms = layer.project_context(context)
    assert terms.dtype == torch.float32
    linear = (context.bfloat16() @ layer.context_weight.mT).float()
    assert_close(terms, 3 * torch.tanh(linear / 3).detach(), 1e-6)
    y, log_abs_det = layer.eval()(draw(4, 3).float(), terms)
    assert y.dtype == log_abs_det.dtype == torch.float32


def test_a_flag_that_was_seen_is_not_read_again():
    layer = trained_on(draw(10, 3))
    layer.initialized = torch.tensor(True, device="meta")  # reading it would fail
    assert layer.is_initialized()
    assert not ActNorm(3).to("meta").is_initialized()


def test_a_layer_knows_whether_it_was_changed():
    layer = ActNorm(3)
    assert not layer.was_changed()
    for value in (layer.log_scale, layer.shift):
        value.data[1] = -0.1
        assert layer.was_changed()
        value.data.zero_()
    assert not ActNorm(3).to("meta").was_changed()
