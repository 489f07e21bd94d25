"""Slow, explicit float64 re-derivation of the original ProHMR flow, kept as the tests' reference.

Written from the published description of the method alone (ActNorm, LU-linear and additive
coupling, four times over; Kolotouros et al., "Probabilistic Modeling for Human Mesh Recovery",
ICCV 2021) and in NumPy, so that it shares no code and no habits with the library it checks. It
works on a state dict in the original's key layout:

    <prefix>_transform.dummy_buffer
    <prefix>_transform._transforms.{3k}.*       ActNorm of step k
    <prefix>_transform._transforms.{3k + 1}.*   LULinear of step k
    <prefix>_transform._transforms.{3k + 2}.*   additive coupling of step k

Every size is read off the arrays. D is the number of features, C of context features, H of hidden
features, N of rows. `forward` is data to latent, `inverse` is latent to data.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = dict[str, Array]

LU_EPS = 1e-3
BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.1
MIN_STD = 1e-3


def random_state_dict(
    features: int,
    context_features: int,
    hidden_features: int = 1024,
    num_steps: int = 4,
    num_blocks: int = 2,
    *,
    seed: int = 0,
    scale: float = 1.0,
    batch_norm: bool = True,
    prefix: str = "",
) -> State:
    """Draw weights and statistics far from their initial values, yet well conditioned.

    Args:
        features: D.
        context_features: C, may be 0.
        hidden_features: H.
        num_steps: Steps of ActNorm, LULinear and coupling.
        num_blocks: Residual blocks of each conditioner.
        seed: Seed of the draw.
        scale: Gain on the conditioner's weights; 1 makes its output of order one.
        batch_norm: Whether the conditioners normalise. Without, those keys are absent.
        prefix: What to put before `_transform`, e.g. `"flow.flow."`.

    Returns:
        Arrays by name: float64, except int64 for feature indices and batch counts and bool for
        `initialized`.
    """
    rng = np.random.default_rng(seed)
    root = f"{prefix}_transform."
    state: State = {root + "dummy_buffer": np.ones(())}

    def linear(name: str, rows: int, columns: int) -> None:
        gain = scale / math.sqrt(max(columns, 1))
        state[name + "weight"] = gain * rng.standard_normal((rows, columns))
        state[name + "bias"] = 0.3 * rng.standard_normal(rows)

    for step in range(num_steps):
        act_norm = f"{root}_transforms.{3 * step}."
        state[act_norm + "dummy_buffer"] = np.ones(())
        state[act_norm + "initialized"] = np.array(True)
        state[act_norm + "log_scale"] = 0.3 * rng.standard_normal(features)
        state[act_norm + "shift"] = 0.5 * rng.standard_normal(features)

        lu = f"{root}_transforms.{3 * step + 1}."
        triangle = features * (features - 1) // 2
        # Entries of order 1/sqrt(D) keep the condition number independent of D.
        spread = 0.3 / math.sqrt(features)
        state[lu + "dummy_buffer"] = np.ones(())
        state[lu + "bias"] = 0.5 * rng.standard_normal(features)
        state[lu + "lower_entries"] = spread * rng.standard_normal(triangle)
        state[lu + "upper_entries"] = spread * rng.standard_normal(triangle)
        state[lu + "unconstrained_upper_diag"] = rng.uniform(-0.5, 1.5, features)

        coupling = f"{root}_transforms.{3 * step + 2}."
        identity = np.arange(step % 2, features, 2, dtype=np.int64)
        transform = np.arange(1 - step % 2, features, 2, dtype=np.int64)
        state[coupling + "dummy_buffer"] = np.ones(())
        state[coupling + "identity_features"] = identity
        state[coupling + "transform_features"] = transform

        net = coupling + "transform_net."
        linear(net + "initial_layer.", hidden_features, len(identity) + context_features)
        for block in range(num_blocks):
            for half in range(2):
                if batch_norm:
                    norm = f"{net}blocks.{block}.batch_norm_layers.{half}."
                    state[norm + "weight"] = rng.uniform(0.5, 1.5, hidden_features)
                    state[norm + "bias"] = 0.3 * rng.standard_normal(hidden_features)
                    state[norm + "running_mean"] = 0.5 * rng.standard_normal(hidden_features)
                    state[norm + "running_var"] = rng.uniform(0.5, 2.0, hidden_features)
                    state[norm + "num_batches_tracked"] = np.array(1000 + step, dtype=np.int64)
                linear(
                    f"{net}blocks.{block}.linear_layers.{half}.", hidden_features, hidden_features
                )
        linear(net + "final_layer.", len(transform), hidden_features)
    return state


def forward(
    state: State,
    x: Array,
    context: Array | None = None,
    *,
    train: bool = False,
    legacy_lu: bool = False,
) -> tuple[Array, Array]:
    """Map data to latents.

    Args:
        state: State dict. With `train=True` the entries that a training pass changes (running
            statistics, ActNorm when it is not initialised yet) are *replaced*; pass `dict(state)`
            to keep the original.
        x: Data, (N, D).
        context: Context, (N, C); None when C is 0.
        train: Normalise with the statistics of these N rows, as a training pass without dropout.
        legacy_lu: Reproduce the fork between 2021-08-16 and 2021-09-08, whose forward pass used
            the transposed factors and no bias.

    Returns:
        Latents (N, D) and log|det dz/dx| (N,).
    """
    root = _root(state)
    y = np.asarray(x, dtype=np.float64)
    rows = _context_rows(context, len(y))
    log_abs_det = np.zeros(len(y))
    for step in range(_num_steps(state, root)):
        act_norm = f"{root}_transforms.{3 * step}."
        if train and not bool(state[act_norm + "initialized"]):
            state[act_norm + "log_scale"], state[act_norm + "shift"] = actnorm_init(y)
            state[act_norm + "initialized"] = np.array(True)
        log_scale = _float64(state, act_norm + "log_scale")
        y = np.exp(log_scale) * y + _float64(state, act_norm + "shift")
        log_abs_det = log_abs_det + np.sum(log_scale)

        lower, upper, bias = _lu_factors(state, f"{root}_transforms.{3 * step + 1}.")
        current, legacy = lower @ (upper @ y.T), lower.T @ (upper.T @ y.T)
        y = legacy.T if legacy_lu else current.T + bias
        log_abs_det = log_abs_det + np.sum(np.log(np.diag(upper)))

        y = _couple(state, f"{root}_transforms.{3 * step + 2}.", y, rows, sign=1.0, train=train)
    return y, log_abs_det


def inverse(
    state: State, z: Array, context: Array | None = None, *, train: bool = False
) -> tuple[Array, Array]:
    """Map latents to data; the arguments and results mirror `forward`.

    Args:
        state: State dict; see `forward` for what `train=True` replaces (never ActNorm here).
        z: Latents, (N, D).
        context: Context, (N, C); None when C is 0.
        train: As in `forward`.

    Returns:
        Data (N, D) and log|det dx/dz| (N,).
    """
    root = _root(state)
    y = np.asarray(z, dtype=np.float64)
    rows = _context_rows(context, len(y))
    log_abs_det = np.zeros(len(y))
    for step in reversed(range(_num_steps(state, root))):
        y = _couple(state, f"{root}_transforms.{3 * step + 2}.", y, rows, sign=-1.0, train=train)

        lower, upper, bias = _lu_factors(state, f"{root}_transforms.{3 * step + 1}.")
        y = _solve_upper(upper, _solve_lower(lower, y - bias))
        log_abs_det = log_abs_det - np.sum(np.log(np.diag(upper)))

        act_norm = f"{root}_transforms.{3 * step}."
        log_scale = _float64(state, act_norm + "log_scale")
        y = (y - _float64(state, act_norm + "shift")) * np.exp(-log_scale)
        log_abs_det = log_abs_det - np.sum(log_scale)
    return y, log_abs_det


def log_prob(
    state: State,
    x: Array,
    context: Array | None = None,
    *,
    train: bool = False,
    legacy_lu: bool = False,
) -> Array:
    """Log-density of x (N, D) given context (N, C): (N,), nats."""
    z, log_abs_det = forward(state, x, context, train=train, legacy_lu=legacy_lu)
    features = z.shape[1]
    density: Array = -0.5 * np.sum(z * z, axis=1) - 0.5 * features * math.log(2.0 * math.pi)
    density += log_abs_det
    return density


def mode(state: State, context: Array | None = None) -> Array:
    """Highest-density point for each row of context (N, C): (N, D).

    The log-determinant is a constant, so it is the image of z = 0. Without context, one row.
    """
    count = 1 if context is None else len(context)
    x, _ = inverse(state, np.zeros((count, _num_features(state))), context)
    return x


def entropy(state: State) -> float:
    """Differential entropy in nats; the same for every context, as the log-determinant is."""
    features = _num_features(state)
    return 0.5 * features * math.log(2.0 * math.pi * math.e) - constant_log_abs_det(state)


def constant_log_abs_det(state: State) -> float:
    """log|det dz/dx|, which depends on the weights only."""
    root = _root(state)
    total = 0.0
    for step in range(_num_steps(state, root)):
        total += float(np.sum(_float64(state, f"{root}_transforms.{3 * step}.log_scale")))
        _, upper, _ = _lu_factors(state, f"{root}_transforms.{3 * step + 1}.")
        total += float(np.sum(np.log(np.diag(upper))))
    return total


def actnorm_init(x: Array) -> tuple[Array, Array]:
    """Log scale and shift, each (D,), that ActNorm takes from its first training batch x (N, D)."""
    x = np.asarray(x, dtype=np.float64)
    std = np.maximum(np.std(x, axis=0, ddof=1), MIN_STD)
    return -np.log(std), -np.mean(x / std, axis=0)


def _root(state: State) -> str:
    """Everything before `_transforms.` in the flow's keys."""
    tail = "_transforms.0.log_scale"
    roots = [key[: -len(tail)] for key in state if key.endswith(tail)]
    assert len(roots) == 1, f"expected one flow in the state dict, found {roots}"
    return roots[0]


def _num_steps(state: State, root: str) -> int:
    steps = 0
    while f"{root}_transforms.{3 * steps}.log_scale" in state:
        steps += 1
    return steps


def _num_features(state: State) -> int:
    return len(state[_root(state) + "_transforms.0.log_scale"])


def _float64(state: State, key: str) -> Array:
    return np.asarray(state[key], dtype=np.float64)


def _context_rows(context: Array | None, count: int) -> Array:
    rows = np.zeros((count, 0)) if context is None else np.asarray(context, dtype=np.float64)
    assert rows.ndim == 2, rows.shape
    assert len(rows) == count, (rows.shape, count)
    return rows


def _lu_factors(state: State, key: str) -> tuple[Array, Array, Array]:
    """Unit lower factor (D, D), upper factor (D, D) and bias (D,)."""
    bias = _float64(state, key + "bias")
    features = len(bias)
    lower = np.eye(features)
    upper = np.zeros((features, features))
    lower_entries = iter(_float64(state, key + "lower_entries"))
    upper_entries = iter(_float64(state, key + "upper_entries"))
    for i in range(features):
        for j in range(i):
            lower[i, j] = next(lower_entries)
        for j in range(i + 1, features):
            upper[i, j] = next(upper_entries)
    diagonal = _float64(state, key + "unconstrained_upper_diag")
    for i in range(features):
        # log(1 + exp(u)) without overflow.
        upper[i, i] = np.logaddexp(0.0, diagonal[i]) + LU_EPS
    return lower, upper, bias


def _solve_lower(lower: Array, y: Array) -> Array:
    """Solve lower @ x = y for each row of y (N, D), top to bottom."""
    x = np.zeros_like(y)
    for i in range(len(lower)):
        x[:, i] = (y[:, i] - x[:, :i] @ lower[i, :i]) / lower[i, i]
    return x


def _solve_upper(upper: Array, y: Array) -> Array:
    """Solve upper @ x = y for each row of y (N, D), bottom to top."""
    x = np.zeros_like(y)
    for i in reversed(range(len(upper))):
        x[:, i] = (y[:, i] - x[:, i + 1 :] @ upper[i, i + 1 :]) / upper[i, i]
    return x


def _couple(state: State, key: str, x: Array, context: Array, *, sign: float, train: bool) -> Array:
    """Add (sign +1) or subtract (sign -1) what the conditioner makes of the untouched features."""
    identity = state[key + "identity_features"]
    transform = state[key + "transform_features"]
    y = x.copy()
    offset = _conditioner(state, key + "transform_net.", x[:, identity], context, train=train)
    y[:, transform] = x[:, transform] + sign * offset
    return y


def _conditioner(state: State, key: str, inputs: Array, context: Array, *, train: bool) -> Array:
    """Residual network: (N, identity features) and (N, C) to (N, transformed features)."""
    hidden = _linear(state, key + "initial_layer.", np.concatenate([inputs, context], axis=1))
    block = 0
    while f"{key}blocks.{block}.linear_layers.0.weight" in state:
        residual = hidden
        for half in range(2):
            norm = f"{key}blocks.{block}.batch_norm_layers.{half}."
            if norm + "weight" in state:
                residual = _batch_norm(state, norm, residual, train=train)
            residual = np.maximum(residual, 0.0)
            residual = _linear(state, f"{key}blocks.{block}.linear_layers.{half}.", residual)
        hidden = hidden + residual
        block += 1
    return _linear(state, key + "final_layer.", hidden)


def _linear(state: State, key: str, x: Array) -> Array:
    y: Array = x @ _float64(state, key + "weight").T
    y += _float64(state, key + "bias")
    return y


def _batch_norm(state: State, key: str, x: Array, *, train: bool) -> Array:
    running_mean = _float64(state, key + "running_mean")
    running_var = _float64(state, key + "running_var")
    if train:
        count = len(x)
        assert count > 1, "batch statistics need at least two rows"
        mean = np.sum(x, axis=0) / count
        var = np.sum((x - mean) ** 2, axis=0) / count
        unbiased = var * count / (count - 1)
        keep = 1.0 - BATCH_NORM_MOMENTUM
        state[key + "running_mean"] = keep * running_mean + BATCH_NORM_MOMENTUM * mean
        state[key + "running_var"] = keep * running_var + BATCH_NORM_MOMENTUM * unbiased
        state[key + "num_batches_tracked"] = state[key + "num_batches_tracked"] + np.int64(1)
    else:
        mean, var = running_mean, running_var
    normalised: Array = (x - mean) / np.sqrt(var + BATCH_NORM_EPS)
    normalised *= _float64(state, key + "weight")
    normalised += _float64(state, key + "bias")
    return normalised
