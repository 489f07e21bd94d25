"""The oracle has to earn the trust that other tests place in it."""

import math

import numpy as np
import pytest
import torch

from tests import oracle

SIZES = {
    "even": {"features": 6, "context_features": 3},
    "odd": {"features": 7, "context_features": 4},
    "unconditional": {"features": 6, "context_features": 0},
    "odd-plain-unconditional": {"features": 5, "context_features": 0, "batch_norm": False},
    "plain-one-block": {
        "features": 8,
        "context_features": 2,
        "batch_norm": False,
        "num_blocks": 1,
        "num_steps": 3,
        "prefix": "flow.flow.",
    },
}


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def problem(request):
    """A small state dict with rows of data and context to try it on."""
    size = request.param
    state = oracle.random_state_dict(**size, hidden_features=16, seed=1)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((9, size["features"]))
    context = rng.standard_normal((9, size["context_features"]))
    return state, x, context


def test_round_trip(problem):
    state, x, context = problem
    z, log_abs_det = oracle.forward(state, x, context)
    back, log_abs_det_back = oracle.inverse(state, z, context)
    assert np.abs(z - x).max() > 0.5, "weights so tame that an identity would pass"
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(log_abs_det, -log_abs_det_back, atol=1e-12)


@pytest.mark.parametrize("direction", [oracle.forward, oracle.inverse])
def test_log_abs_det_is_that_of_the_numerical_jacobian(problem, direction):
    state, x, context = problem
    step = 1e-6
    _, log_abs_det = direction(state, x, context)
    for row in range(3):
        columns = []
        for feature in range(x.shape[1]):
            nudge = np.zeros((1, x.shape[1]))
            nudge[0, feature] = step
            ahead, _ = direction(state, x[row : row + 1] + nudge, context[row : row + 1])
            behind, _ = direction(state, x[row : row + 1] - nudge, context[row : row + 1])
            columns.append((ahead - behind)[0] / (2 * step))
        _, expected = np.linalg.slogdet(np.stack(columns, axis=1))
        assert log_abs_det[row] == pytest.approx(expected, abs=1e-6)


def test_mode_and_entropy(problem):
    state, x, context = problem
    features = x.shape[1]
    top = oracle.log_prob(state, oracle.mode(state, context), context)
    rng = np.random.default_rng(3)
    draws = 400
    contexts = np.repeat(context, draws, axis=0)
    z = rng.standard_normal((len(contexts), features))
    samples, _ = oracle.inverse(state, z, contexts)
    densities = oracle.log_prob(state, samples, contexts)
    assert np.all(densities <= np.repeat(top, draws))
    assert np.ptp(top) < 1e-12
    # log p of a sample varies with ||z||^2 / 2 alone, whose variance is features / 2.
    error = math.sqrt(features / 2 / len(z))
    assert -densities.mean() == pytest.approx(oracle.entropy(state), abs=5 * error)


def test_context_matters_only_where_there_is_one(problem):
    state, x, context = problem
    z, _ = oracle.forward(state, x, context)
    other, _ = oracle.forward(state, x, context + 1.0)
    assert (np.abs(z - other).max() > 1e-3) == (context.shape[1] > 0)
    if context.shape[1] == 0:
        np.testing.assert_array_equal(z, oracle.forward(state, x)[0])
        assert oracle.mode(state).shape == (1, x.shape[1])


def test_train_mode_is_consistent_for_the_same_rows_only(problem):
    state, x, context = problem
    normalised = any("batch_norm_layers" in key for key in state)
    z, _ = oracle.forward(dict(state), x, context, train=True)
    same, _ = oracle.inverse(dict(state), z, context, train=True)
    fewer, _ = oracle.inverse(dict(state), z[:4], context[:4], train=True)
    np.testing.assert_allclose(same, x, atol=1e-10)
    assert (np.abs(fewer - x[:4]).max() > 0.1) == normalised


def test_train_mode_replaces_running_statistics_like_torch():
    state = oracle.random_state_dict(4, 3, hidden_features=8, num_steps=1, num_blocks=1)
    before = dict(state)
    rng = np.random.default_rng(4)
    x, context = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    after = dict(state)
    oracle.forward(after, x, context, train=True)

    net = "_transform._transforms.2.transform_net."
    key = net + "blocks.0.batch_norm_layers.0."
    y, _, _ = _first_two_layers(state, x)
    inputs = np.concatenate([y[:, 0::2], context], axis=1)
    hidden = inputs @ state[net + "initial_layer.weight"].T + state[net + "initial_layer.bias"]
    norm = torch.nn.BatchNorm1d(8, dtype=torch.float64)
    norm.load_state_dict(
        {name[len(key) :]: torch.tensor(state[name]) for name in state if name.startswith(key)}
    )
    norm(torch.tensor(hidden))
    for name, value in norm.state_dict().items():
        np.testing.assert_allclose(after[key + name], value.numpy(), atol=1e-14)
        assert after[key + name].dtype == value.numpy().dtype

    changed = {name for name in state if not np.array_equal(before[name], after[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert all(state[name] is before[name] for name in state)


def _first_two_layers(state, x):
    """ActNorm and LULinear of step 0, with NumPy's own triangle indices."""
    actnorm, lu = "_transform._transforms.0.", "_transform._transforms.1."
    features = x.shape[1]
    lower, upper = np.eye(features), np.zeros((features, features))
    lower[np.tril_indices(features, -1)] = state[lu + "lower_entries"]
    upper[np.triu_indices(features, 1)] = state[lu + "upper_entries"]
    diagonal = torch.nn.functional.softplus(torch.tensor(state[lu + "unconstrained_upper_diag"]))
    upper[np.diag_indices(features)] = diagonal.numpy() + 1e-3
    y = np.exp(state[actnorm + "log_scale"]) * x + state[actnorm + "shift"]
    return y @ (lower @ upper).T + state[lu + "bias"], lower, upper


def test_first_step_by_hand():
    state = oracle.random_state_dict(5, 0, hidden_features=8, num_steps=1)
    x = np.random.default_rng(5).standard_normal((3, 5))
    z, log_abs_det = oracle.forward(state, x)
    y, lower, upper = _first_two_layers(state, x)
    # The first step leaves the even features as the linear layer made them.
    np.testing.assert_allclose(z[:, 0::2], y[:, 0::2], atol=1e-14)
    assert np.abs(z[:, 1::2] - y[:, 1::2]).min() > 1e-3
    constant = state["_transform._transforms.0.log_scale"].sum() + np.log(np.diag(upper)).sum()
    np.testing.assert_allclose(log_abs_det, constant, atol=1e-14)

    legacy, legacy_log_abs_det = oracle.forward(state, x, legacy_lu=True)
    scaled = np.exp(state["_transform._transforms.0.log_scale"]) * x
    scaled = scaled + state["_transform._transforms.0.shift"]
    np.testing.assert_allclose(legacy[:, 0::2], (scaled @ upper @ lower)[:, 0::2], atol=1e-14)
    np.testing.assert_array_equal(legacy_log_abs_det, log_abs_det)


def test_actnorm_is_initialised_by_the_first_training_pass_towards_latents_only():
    state = oracle.random_state_dict(6, 3, hidden_features=8, seed=6)
    flags = [key for key in state if key.endswith("initialized")]
    for key in flags:
        state[key] = np.array(False)
    rng = np.random.default_rng(7)
    x, context = 3 + 2 * rng.standard_normal((20, 6)), rng.standard_normal((20, 3))
    x[:, 0] = 0.25  # a feature that never moves must not give an infinite scale

    trained = dict(state)
    oracle.forward(state, x, context)
    oracle.inverse(trained, x, context, train=True)
    assert not any(state[key] for key in flags)
    assert not any(trained[key] for key in flags)

    oracle.forward(trained, x, context, train=True)
    assert all(trained[key] for key in flags)
    log_scale = trained["_transform._transforms.0.log_scale"]
    y = np.exp(log_scale) * x + trained["_transform._transforms.0.shift"]
    np.testing.assert_allclose(y.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(y[:, 1:].std(axis=0, ddof=1), 1.0, atol=1e-12)
    assert log_scale[0] == pytest.approx(math.log(1000.0))

    again = dict(trained)
    oracle.forward(again, x + 1.0, context, train=True)
    np.testing.assert_array_equal(again["_transform._transforms.0.log_scale"], log_scale)


@pytest.mark.parametrize(
    ("features", "context_features", "triangle"), [(144, 2048, 10296), (48, 1024, 1128)]
)
def test_layout_of_the_published_models(features, context_features, triangle):
    state = oracle.random_state_dict(features, context_features, prefix="flow.flow.")
    assert len(state) == 177
    root = "flow.flow._transform."
    half = features // 2
    shapes = {root + "dummy_buffer": ()}
    for step in range(4):
        actnorm, lu, coupling = (f"{root}_transforms.{3 * step + i}." for i in range(3))
        shapes |= {key + "dummy_buffer": () for key in (actnorm, lu, coupling)}
        shapes |= {actnorm + "initialized": ()}
        shapes |= {actnorm + "log_scale": (features,), actnorm + "shift": (features,)}
        shapes |= {lu + "bias": (features,), lu + "unconstrained_upper_diag": (features,)}
        shapes |= {lu + "lower_entries": (triangle,), lu + "upper_entries": (triangle,)}
        shapes |= {coupling + "identity_features": (half,)}
        shapes |= {coupling + "transform_features": (half,)}
        net = coupling + "transform_net."
        shapes |= {net + "initial_layer.weight": (1024, half + context_features)}
        shapes |= {net + "initial_layer.bias": (1024,)}
        shapes |= {net + "final_layer.weight": (half, 1024), net + "final_layer.bias": (half,)}
        for r in range(2):
            for i in range(2):
                norm = f"{net}blocks.{r}.batch_norm_layers.{i}."
                shapes |= {
                    norm + name: (1024,)
                    for name in ("weight", "bias", "running_mean", "running_var")
                }
                shapes |= {norm + "num_batches_tracked": ()}
                linear = f"{net}blocks.{r}.linear_layers.{i}."
                shapes |= {linear + "weight": (1024, 1024), linear + "bias": (1024,)}
    assert {key: value.shape for key, value in state.items()} == shapes
    for key, value in state.items():
        name = key.rsplit(".", 1)[1]
        integers = name in ("identity_features", "transform_features", "num_batches_tracked")
        kind = np.int64 if integers else np.bool_ if name == "initialized" else np.float64
        assert value.dtype == kind, key
    np.testing.assert_array_equal(
        state[root + "_transforms.5.identity_features"], np.arange(1, features, 2)
    )
    trainable = sum(
        value.size
        for key, value in state.items()
        if value.dtype == np.float64 and "running" not in key and "dummy" not in key
    )
    assert trainable == {144: 25_893_856, 48: 21_231_264}[features]

    rng = np.random.default_rng(8)
    x, context = rng.standard_normal((2, features)), rng.standard_normal((2, context_features))
    z, _ = oracle.forward(state, x, context)
    back, _ = oracle.inverse(state, z, context)
    np.testing.assert_allclose(back, x, atol=1e-11)
