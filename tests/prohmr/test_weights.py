import copy
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from flowprior import CheckpointError, ConditionalFlow, ConditionalPosePrior
from flowprior.prohmr import (
    flow_config,
    flow_state_from_prohmr,
    flow_state_to_prohmr,
    latent_calibration,
    load_prior,
    read_prohmr,
    to_state_dict,
)
from tests import oracle
from tests.flow.helpers import assert_close, draw, load_oracle

SMALL = {"hidden_features": 16, "prefix": "flow.flow."}


def tensors(state, dtype=torch.float32):
    """The oracle's weights as the tensors a checkpoint holds."""
    converted = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in converted.items()}


@pytest.fixture
def lightning_file(tmp_path, monkeypatch):
    """A Lightning checkpoint as ProHMR writes it, small, with its configuration inside."""
    config = types.ModuleType("yacs.config")
    config.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", config)
    state = {
        **tensors(oracle.random_state_dict(144, 20, **SMALL)),
        "backbone.conv1.weight": torch.randn(4, 3, 7, 7),
        "flow.fc_head.layers.0.weight": torch.randn(5, 20),
        "flow.fc_head.init_cam": torch.zeros(1, 1, 3),
        "discriminator.D_conv1.weight": torch.randn(32, 9, 1, 1),
        "smpl.faces_tensor": torch.zeros(3),
        "initialized": torch.tensor(True),
    }
    path = tmp_path / "original.pt"
    content = {"epoch": 3, "state_dict": state, "hyper_parameters": {"cfg": config.CfgNode(A=1)}}
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, "yacs")
    monkeypatch.delitem(sys.modules, "yacs.config")
    return path, state


def save(path, state):
    torch.save(state, path)
    return path


# --- reading -------------------------------------------------------------------------------------


def test_a_lightning_checkpoint_is_taken_apart(lightning_file):
    path, state = lightning_file
    weights = read_prohmr(path)
    assert len(weights.flow) == 177
    assert torch.equal(weights.backbone["conv1.weight"], state["backbone.conv1.weight"])
    assert weights.fc_head.keys() == {"layers.0.weight", "init_cam"}
    assert weights.discriminator.keys() == {"D_conv1.weight"}
    assert weights.other.keys() == {"smpl.faces_tensor", "initialized"}
    assert "yacs" not in sys.modules


@pytest.mark.parametrize("prefix", ["flow.flow.", "module.flow.flow.", "flow.", ""])
@pytest.mark.parametrize("wrapped", [True, False])
def test_bare_state_dicts(tmp_path, prefix, wrapped):
    state = oracle.random_state_dict(48, 10, hidden_features=16, prefix=prefix)
    weights = tensors(state, torch.float64)
    content = {"state_dict": weights} if wrapped else weights
    prior = load_prior(save(tmp_path / "original.pt", content))
    assert prior.config["space"] == "points"
    assert prior.config["joints"] == 16
    x, context = draw(3, 48), draw(3, 10)
    expected = oracle.log_prob(state, x.numpy(), context.numpy())
    assert_close(prior.log_prob(x, context), expected, 1e-9)


@pytest.mark.parametrize(
    ("features", "context_features", "space", "joints"),
    [(144, 2048, "rot6d", 24), (48, 1024, "points", 16)],
)
def test_the_published_sizes_agree_with_the_reference(
    tmp_path, features, context_features, space, joints
):
    state = oracle.random_state_dict(features, context_features, scale=0.5, prefix="flow.flow.")
    x, context = draw(3, features), draw(3, context_features)
    arrays = state, x.numpy(), context.numpy()
    expected_z, expected_theta = oracle.forward(*arrays)[0], oracle.inverse(*arrays)[0]
    expected_density, expected_mode = oracle.log_prob(*arrays), oracle.mode(state, context.numpy())
    for dtype, latents, densities in ((torch.float64, 1e-9, 1e-9), (torch.float32, 1e-4, 1e-3)):
        path = save(tmp_path / "original.pt", {"state_dict": tensors(state, dtype)})
        prior = load_prior(path)
        assert (prior.config["space"], prior.config["joints"]) == (space, joints)
        assert prior.config["context_features"] == context_features
        assert not prior.training
        posterior = prior(context.to(dtype))
        z = posterior.encode(x.to(dtype))
        assert_close(z, expected_z, latents)
        assert_close(posterior.log_prob(x.to(dtype)), expected_density, densities)
        assert_close(posterior.decode(x.to(dtype)).flatten(-2), expected_theta, latents)
        assert_close(posterior.mode().flatten(-2), expected_mode, latents)


def test_training_mode_agrees_with_the_reference():
    state = oracle.random_state_dict(144, 20, **SMALL)
    flow = load_oracle({name.removeprefix("flow.flow."): value for name, value in state.items()})
    flow.train()
    for module in flow.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    x, context = draw(8, 144), draw(8, 20)
    expected = oracle.log_prob(state, x.numpy(), context.numpy(), train=True)
    assert_close(flow.log_prob(x, context), expected, 1e-9)
    for name, value in flow_state_to_prohmr(flow, "flow.flow.").items():
        assert_close(value.double(), state[name].astype(np.float64), 1e-9)


def test_other_sizes_need_their_space(tmp_path):
    state = tensors(oracle.random_state_dict(18, 10, hidden_features=16))
    path = save(tmp_path / "original.pt", state)
    with pytest.raises(ValueError, match="18 features: pass space='rot6d' or 'points'"):
        load_prior(path)
    assert load_prior(path, space="rot6d").config["joints"] == 3
    assert load_prior(path, space="points").config["joints"] == 6
    with pytest.raises(ValueError, match="space must be one of"):
        load_prior(path, space="euler")
    with pytest.raises(ValueError, match="6D vectors or keypoints, not space 'so3'"):
        load_prior(path, space="so3")


def test_features_that_make_no_whole_joints(tmp_path):
    state = tensors(oracle.random_state_dict(20, 4, **SMALL))
    path = save(tmp_path / "original.pt", state)
    with pytest.raises(ValueError, match="has 20 features, not a whole number of joints"):
        load_prior(path, space="points")


def test_a_density_over_rotations_has_no_original():
    prior = ConditionalPosePrior(4, space="so3", hidden_features=16)
    with pytest.raises(ValueError, match="6D vectors, this prior has space 'so3'"):
        to_state_dict(prior)


# --- writing -------------------------------------------------------------------------------------


def test_there_and_back_is_bit_equal(lightning_file, tmp_path):
    path, state = lightning_file
    official = {name: value for name, value in state.items() if name.startswith("flow.flow.")}
    prior = load_prior(path)
    prior.save(tmp_path / "prior.safetensors")
    for converted in (prior, ConditionalPosePrior.load(tmp_path / "prior.safetensors")):
        back = to_state_dict(converted)
        assert back.keys() == official.keys()
        for name, value in official.items():
            assert back[name].dtype == value.dtype, name
            assert torch.equal(back[name], value), name


def test_a_prior_of_ours_is_read_by_the_reference():
    prior = ConditionalPosePrior(5, joints=2, preset="prohmr", hidden_features=16).double()
    prior.nll(draw(20, 12), draw(20, 5))
    prior.eval()
    state = {name: value.numpy() for name, value in to_state_dict(prior).items()}
    x, context = draw(3, 12), draw(3, 5)
    expected = oracle.log_prob(state, x.numpy(), context.numpy())
    assert_close(prior.log_prob(x, context), expected, 1e-9)


def test_the_written_weights_are_copies():
    prior = ConditionalPosePrior(5, joints=2, preset="prohmr", hidden_features=16)
    before = copy.deepcopy(prior.state_dict())
    for value in to_state_dict(prior).values():
        value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())


def test_another_layout_is_not_written():
    prior = ConditionalPosePrior(5, joints=2, layout="rows", preset="prohmr", hidden_features=16)
    with pytest.raises(ValueError, match="the original reads 6D as 'columns'"):
        to_state_dict(prior)


@pytest.mark.parametrize("options", [{"context_norm": True}, {"coupling": "affine"}])
def test_options_unknown_to_the_original_are_not_written(options):
    prior = ConditionalPosePrior(5, joints=2, preset="prohmr", hidden_features=16, **options)
    with pytest.raises(ValueError, match="has a counterpart in the original"):
        to_state_dict(prior)


@pytest.mark.parametrize("options", [{"coupling": "affine"}, {"context_norm": True}])
def test_flows_without_a_counterpart(options):
    flow = ConditionalFlow(5, 3, hidden_features=8, preset="prohmr", **options)
    with pytest.raises(ValueError, match="has a counterpart in the original"):
        flow_state_to_prohmr(flow)


def test_flows_with_a_counterpart():
    flow = ConditionalFlow(5, 3, hidden_features=8, preset="prohmr")
    assert flow_state_to_prohmr(flow)
    # Without a context, there is nothing for context_norm to read.
    assert flow_state_to_prohmr(ConditionalFlow(5, 0, hidden_features=8, context_norm=True))
    with torch.device("meta"):
        meta = ConditionalFlow(5, 3, hidden_features=8, preset="prohmr")
    assert flow_state_to_prohmr(meta)
    flow.temperature.fill_(1.1)
    with pytest.raises(ValueError, match="with temperature 1 has a counterpart"):
        flow_state_to_prohmr(flow)


# --- files that do not fit -----------------------------------------------------------------------


def test_error_lists_all_mismatches(tmp_path):
    state = tensors(oracle.random_state_dict(48, 10, hidden_features=16))
    del state["_transform._transforms.1.bias"]
    state["_transform._transforms.3.shift"] = torch.zeros(7)
    state["_transform._transforms.4.lower_entries"] = torch.full((1128,), float("nan"))
    state["_transform._transforms.6.log_scale"] = torch.zeros(48, dtype=torch.int64)
    state["_transform._transforms.2.identity_features"] += 1
    state["_transform._transforms.99.shift"] = torch.zeros(48)
    with pytest.raises(CheckpointError) as error:
        load_prior(save(tmp_path / "original.pt", state))
    for problem in (
        "missing _transform._transforms.1.bias",
        "_transform._transforms.3.shift is (7,) instead of (48,)",
        "_transform._transforms.4.lower_entries holds NaN or infinity",
        "_transform._transforms.6.log_scale is torch.int64",
        "_transform._transforms.2.identity_features is not every other feature",
        "unexpected _transform._transforms.99.shift",
    ):
        assert problem in str(error.value)


def test_mixed_dtypes_are_refused(tmp_path):
    state = tensors(oracle.random_state_dict(48, 10, hidden_features=16))
    state["_transform._transforms.4.bias"] = state["_transform._transforms.4.bias"].half()
    with pytest.raises(CheckpointError, match=r"several dtypes, torch\.float16, torch\.float32"):
        load_prior(save(tmp_path / "original.pt", state))


@pytest.mark.parametrize("name", ["0.log_scale", "2.transform_net.initial_layer.weight"])
@pytest.mark.parametrize("value", [None, torch.zeros(()), torch.zeros(2, 2, 2)])
def test_weights_that_tell_the_sizes(tmp_path, name, value):
    state = tensors(oracle.random_state_dict(48, 10, hidden_features=16))
    if value is None:
        del state[f"_transform._transforms.{name}"]
    else:
        state[f"_transform._transforms.{name}"] = value
    with pytest.raises(CheckpointError):
        load_prior(save(tmp_path / "original.pt", state))


@pytest.mark.parametrize("content", [{}, {"state_dict": {"a": torch.zeros(1)}}, {"state_dict": 3}])
def test_no_flow_in_the_file(tmp_path, content):
    with pytest.raises(CheckpointError, match="holds 0 flows of ProHMR instead of one"):
        load_prior(save(tmp_path / "original.pt", content))


def test_code_in_the_file_never_runs(tmp_path):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(marker)!r}, 'w')",))

    state = tensors(oracle.random_state_dict(48, 10, hidden_features=16))
    path = save(tmp_path / "original.pt", {"state_dict": state, "callbacks": Bomb()})
    with pytest.raises(CheckpointError, match="exec"):
        load_prior(path)
    assert not marker.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_sizes_come_from_the_weights():
    state = tensors(oracle.random_state_dict(7, 3, hidden_features=16, num_steps=3, num_blocks=1))
    assert flow_config(state) == {
        "features": 7,
        "context_features": 3,
        "hidden_features": 16,
        "num_steps": 3,
        "num_blocks": 1,
        "preset": "prohmr",
        "batch_norm": True,
    }


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("context_features", [0, 3])
def test_names_map_both_ways(batch_norm, context_features):
    sizes = {"hidden_features": 16, "batch_norm": batch_norm}
    state = oracle.random_state_dict(7, context_features, **sizes)
    flow, state = load_oracle(state), tensors(state, torch.float64)
    assert flow_state_from_prohmr(state, flow).keys() == flow.state_dict().keys()
    back = flow_state_to_prohmr(flow)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


# --- weights trained with the forward map of August 2021 ------------------------------------------


def test_the_legacy_forward_equals_the_reference():
    state = oracle.random_state_dict(48, 10, hidden_features=16)
    converted = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    prior = ConditionalPosePrior(
        10, joints=16, space="points", preset="prohmr", hidden_features=16, lu_forward="legacy"
    ).double()
    prior.flow.load_state_dict(flow_state_from_prohmr(converted, prior.flow))
    prior.eval()
    x, context = draw(5, 48), draw(5, 10)
    arrays = state, x.numpy(), context.numpy()
    expected = oracle.log_prob(*arrays, legacy_lu=True)
    assert_close(prior.log_prob(x, context), expected, 1e-9)
    assert_close(prior(context).decode(x).flatten(-2), oracle.inverse(*arrays)[0], 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("trained_with", ["exact", "legacy"])
def test_calibration_identifies_the_forward_map(tmp_path, trained_with):
    prior = ConditionalPosePrior(
        2,
        joints=4,
        space="points",
        hidden_features=32,
        anchored=False,
        context_norm=False,
        lu_forward=trained_with,
    )
    context = torch.randn(2000, 2)
    theta = torch.randn(2000, 12) @ torch.randn(12, 12) + (context @ torch.randn(2, 12)).sin()
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3)
    for step in range(300):
        rows = slice(step % 8 * 250, step % 8 * 250 + 250)
        optimizer.zero_grad()
        prior.nll(theta[rows], context[rows]).backward()
        optimizer.step()
    prior.eval()

    result = latent_calibration(prior, theta, context)
    assert result.trusted
    assert result.num_poses == 2000
    assert result.better_lu_forward == trained_with == result.lu_forward
    assert result.ratio == pytest.approx(1, abs=0.15)

    # The same weights under the other forward map, as someone who does not know would load them.
    other = {"exact": "legacy", "legacy": "exact"}[trained_with]
    path = save(tmp_path / "original.pt", to_state_dict(prior))
    mistaken = load_prior(path, space="points", lu_forward=other)
    result = latent_calibration(mistaken, theta, context)
    assert not result.trusted
    assert result.better_lu_forward == trained_with


def test_calibration_needs_poses():
    prior = ConditionalPosePrior(2, joints=4, hidden_features=16)
    with pytest.raises(ValueError, match="no poses"):
        latent_calibration(prior, torch.zeros(0, 4, 6), torch.zeros(0, 2))


def test_the_switch_is_saved_and_checked(tmp_path):
    prior = ConditionalPosePrior(2, joints=4, hidden_features=16, lu_forward="legacy")
    prior.save(tmp_path / "prior")
    loaded = ConditionalPosePrior.load(tmp_path / "prior")
    assert loaded.config["lu_forward"] == "legacy"
    assert all(step.linear.legacy_forward for step in loaded.flow.steps)
    with pytest.raises(ValueError, match="lu_forward must be one of"):
        ConditionalPosePrior(2, joints=4, lu_forward="old")


@pytest.mark.parametrize("place", ["", "flow.", "flow.flow.", "flow.flow._transform."])
def test_partly_compiled_checkpoints_load(tmp_path, place):
    prior = ConditionalPosePrior(3, hidden_features=8, num_steps=2, preset="prohmr").eval()
    state = {
        f"{place}_orig_mod.{name.removeprefix(place)}" if name.startswith(place) else name: tensor
        for name, tensor in to_state_dict(prior).items()
    }
    torch.save(
        {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}},
        tmp_path / "a.ckpt",
    )
    loaded = load_prior(tmp_path / "a.ckpt")
    context = torch.randn(2, 3)
    torch.testing.assert_close(loaded.mode(context), prior.mode(context))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("0.log_scale", (0,)),
        ("0.log_scale", (500,)),
        ("2.transform_net.initial_layer.weight", (8, 1)),
    ],
)
def test_sizes_that_make_no_flow_name_the_file(tmp_path, name, shape):
    prior = ConditionalPosePrior(3, hidden_features=8, num_steps=2, preset="prohmr")
    state = to_state_dict(prior)
    state[f"flow.flow._transform._transforms.{name}"] = torch.zeros(shape)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt"):
        load_prior(tmp_path / "a.ckpt", space="points")


def test_more_layers_than_weights(tmp_path):
    state = to_state_dict(ConditionalPosePrior(3, hidden_features=8, preset="prohmr"))
    prefix = "flow.flow._transform._transforms."
    for number in range(200):
        state[f"{prefix}{number}.log_scale"] = torch.zeros(144)
        state[f"{prefix}2.transform_net.blocks.{number}.linear_layers.0.weight"] = torch.zeros(8, 8)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: .* 200 steps of 200 blocks"):
        load_prior(tmp_path / "a.ckpt")
