"""Weights of the original: conversion of its parameter names to and from a ConditionalFlow.

ProHMR's flow has twelve transforms, three per step: ActNorm, LULinear, additive coupling. All its
published checkpoints use the same names, which are matched exactly.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowprior.files.model_file import CheckpointError, uncompiled
from flowprior.files.torch_file import read_torch_file
from flowprior.flow import ConditionalFlow

__all__ = [
    "ProHMRWeights",
    "flow_config",
    "flow_state_from_prohmr",
    "flow_state_to_prohmr",
    "read_prohmr",
]

# Ours -> theirs within one step; {k} is the index of the step's ActNorm among the transforms.
RENAMES = (
    (r"^actnorm\.", "{k}."),
    (r"^linear\.", "{k1}."),
    (r"^coupling\.conditioner\.input\.", "{k2}.transform_net.initial_layer."),
    (r"^coupling\.conditioner\.output\.", "{k2}.transform_net.final_layer."),
    (
        r"^coupling\.conditioner\.blocks\.(\d+)\.norms\.",
        r"{k2}.transform_net.blocks.\1.batch_norm_layers.",
    ),
    (
        r"^coupling\.conditioner\.blocks\.(\d+)\.linears\.",
        r"{k2}.transform_net.blocks.\1.linear_layers.",
    ),
)
# Pose spaces of the original, by number of features: SMPL poses and lifted keypoints.
SPACES = {144: "rot6d", 48: "points"}

CONTEXT_WEIGHT = "coupling.conditioner.context_weight"
FIRST_WEIGHT = "_transform._transforms.0.log_scale"


@dataclass(frozen=True)
class ProHMRWeights:
    """The parts of an original checkpoint, each with the names that its own module uses.

    Attributes:
        flow: The conditional flow (``_transform...``).
        backbone: The image network, with torchvision's ResNet-50 names, or the lifting network.
        fc_head: The head for betas and camera; empty in a lifting checkpoint.
        discriminator: The adversarial prior; empty in a lifting checkpoint.
        other: All other tensors under their full names, such as SMPL's buffers.
    """

    flow: dict[str, Tensor]
    backbone: dict[str, Tensor]
    fc_head: dict[str, Tensor]
    discriminator: dict[str, Tensor]
    other: dict[str, Tensor]


def read_prohmr(path: str | os.PathLike[str]) -> ProHMRWeights:
    """Read an original checkpoint, executing nothing from it.

    Args:
        path: A Lightning checkpoint of ProHMR or of its lifting model, or a state dict of one of
            them or of the flow alone.

    Returns:
        Its weights by part, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file cannot be read safely or holds no flow of this kind.
    """
    content = read_torch_file(path)
    state = content.get("state_dict", content)
    tensors = {
        name: value
        for name, value in (state.items() if isinstance(state, Mapping) else ())
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    tensors = uncompiled(path, tensors)
    roots = [name.removesuffix(FIRST_WEIGHT) for name in tensors if name.endswith(FIRST_WEIGHT)]
    if len(roots) != 1:
        kept = ", ".join(list(tensors)[:3]) or "none"
        raise CheckpointError(
            f"{path} holds {len(roots)} flows of ProHMR instead of one: no single weight is named "
            f"...{FIRST_WEIGHT}; the first weights in the file: {kept}"
        )
    model = roots[0].removesuffix("flow.").removesuffix("flow.")

    def take(prefix: str, part: str = "") -> dict[str, Tensor]:
        names = [name for name in tensors if name.startswith(prefix + part)]
        return {name.removeprefix(prefix): tensors.pop(name) for name in names}

    return ProHMRWeights(
        flow=take(roots[0], "_transform."),
        backbone=take(f"{model}backbone."),
        fc_head=take(f"{model}flow.fc_head."),
        discriminator=take(f"{model}discriminator."),
        other=tensors,
    )


def flow_state_to_prohmr(flow: ConditionalFlow, prefix: str = "") -> dict[str, Tensor]:
    """Convert a flow's weights to the original's names.

    Args:
        flow: A flow of either preset.
        prefix: Prefix of the names; the original's models use ``"flow.flow."``.

    Returns:
        Copies of the tensors by name, in the original's order of steps, including its constant
        buffers.

    Raises:
        ValueError: If the flow has other couplings than additive ones, ``context_norm``, or a
            temperature other than 1.
    """
    if not _has_counterpart(flow):
        raise ValueError(
            "only a flow with additive couplings and a normal base, neither anchored nor with "
            "context_norm, and with temperature 1 has "
            "a counterpart in the original"
        )
    state = flow.state_dict()
    root = f"{prefix}_transform."
    marker = torch.ones((), dtype=flow.weight_dtype, device=flow.device)
    result = {f"{root}dummy_buffer": marker.clone()}
    for step in range(len(flow.steps)):
        ours = f"steps.{step}."
        transforms = f"{root}_transforms."
        for offset in range(3):
            result[f"{transforms}{3 * step + offset}.dummy_buffer"] = marker.clone()
        positions = torch.arange(flow.features, device=flow.device)
        result[f"{transforms}{3 * step + 2}.identity_features"] = positions[step % 2 :: 2].clone()
        result[f"{transforms}{3 * step + 2}.transform_features"] = positions[
            1 - step % 2 :: 2
        ].clone()
        for name, tensor in state.items():
            if not name.startswith(ours) or name == ours + CONTEXT_WEIGHT:
                continue
            theirs = _rename(name.removeprefix(ours), step)
            if theirs.endswith("initial_layer.weight") and ours + CONTEXT_WEIGHT in state:
                tensor = torch.cat((tensor, state[ours + CONTEXT_WEIGHT]), dim=1)
            result[transforms + theirs] = tensor.clone()
    return result


def flow_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer a flow's sizes from its weights.

    Args:
        state: A flow's weights under the original's names, without prefix.

    Returns:
        ``features``, ``context_features``, ``hidden_features``, ``num_steps``, ``num_blocks``,
        ``preset`` and ``batch_norm``, as :class:`flowprior.ConditionalFlow` takes them.

    Raises:
        CheckpointError: If the weights that determine the sizes are missing or inconsistent.
    """
    transforms = "_transform._transforms."
    network = f"{transforms}2.transform_net."
    try:
        (features,) = state[f"{transforms}0.log_scale"].shape
        hidden, width = state[f"{network}initial_layer.weight"].shape
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"no ProHMR flow: {transforms}0.log_scale or {network}initial_layer.weight is missing "
            "or has the wrong shape"
        ) from error
    if features < 1 or width < (features + 1) // 2:
        raise CheckpointError(
            f"no ProHMR flow: {network}initial_layer.weight of width {width} is too narrow for "
            f"{features} features"
        )
    count = _count(rf"^{re.escape(transforms)}(\d+)\.log_scale$", state)
    blocks = _count(rf"^{re.escape(network)}blocks\.(\d+)\.linear_layers\.0\.weight$", state)
    if count * blocks > len(state):
        raise CheckpointError(
            f"no ProHMR flow: {count} steps of {blocks} blocks, but only {len(state)} weights"
        )
    return {
        "features": features,
        "context_features": width - (features + 1) // 2,
        "hidden_features": hidden,
        "num_steps": count,
        "num_blocks": blocks,
        "preset": "prohmr",
        "batch_norm": f"{network}blocks.0.batch_norm_layers.0.weight" in state,
    }


def flow_state_from_prohmr(
    state: Mapping[str, Tensor], wanted: ConditionalFlow
) -> dict[str, Tensor]:
    """Convert the original's weights to the names of a :class:`flowprior.ConditionalFlow`.

    Args:
        state: A flow's weights under the original's names, without prefix.
        wanted: A flow with the sizes that :func:`flow_config` returns, on any device.

    Returns:
        A state dict for ``wanted``.

    Raises:
        CheckpointError: If weights are missing, unexpected, of the wrong shape or kind, or not
            finite; the message lists all of them.
    """
    expected = flow_state_to_prohmr(wanted)
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    for name in expected.keys() & state.keys():
        problems += _differences(name, state[name], expected[name])
    dtypes = sorted({str(value.dtype) for value in state.values() if value.is_floating_point()})
    if len(dtypes) > 1:
        problems.append(f"weights of several dtypes, {', '.join(dtypes)}")
    if problems:
        raise CheckpointError("not a ProHMR flow: " + "; ".join(sorted(problems)))

    result = {}
    for ours, own in wanted.state_dict().items():
        if ours == "temperature":
            result[ours] = torch.ones_like(own, device="cpu")
            continue
        _, number, name = ours.split(".", 2)
        step = int(number)
        source = "coupling.conditioner.input.weight" if name == CONTEXT_WEIGHT else name
        tensor = state[f"_transform._transforms.{_rename(source, step)}"]
        if source == "coupling.conditioner.input.weight":
            resting = len(state[f"_transform._transforms.{3 * step + 2}.identity_features"])
            tensor = tensor[:, resting:] if name == CONTEXT_WEIGHT else tensor[:, :resting]
        result[ours] = tensor.clone(memory_format=torch.contiguous_format)
    return result


def _has_counterpart(flow: ConditionalFlow) -> bool:
    """Whether the original's code can represent the flow."""
    context_norm = flow.options["context_norm"] and flow.context_features
    ours_alone = context_norm or flow.options["anchored"] or flow.options["base"] != "normal"
    plain = flow.options["coupling"] == "additive" and not ours_alone
    return plain and (flow.temperature.is_meta or bool(flow.temperature == 1))


def _rename(name: str, step: int) -> str:
    for pattern, replacement in RENAMES:
        filled = replacement.format(k=3 * step, k1=3 * step + 1, k2=3 * step + 2)
        name, changed = re.subn(pattern, filled, name)
        if changed:
            return name
    raise KeyError(name)


def _count(pattern: str, state: Mapping[str, Tensor]) -> int:
    return sum(re.match(pattern, name) is not None for name in state)


def _differences(name: str, found: Tensor, expected: Tensor) -> list[str]:
    if found.shape != expected.shape:
        return [f"{name} is {tuple(found.shape)} instead of {tuple(expected.shape)}"]
    if expected.is_floating_point() != found.is_floating_point():
        return [f"{name} is {found.dtype}"]
    if found.is_floating_point() and not bool(found.isfinite().all()):
        return [f"{name} holds NaN or infinity"]
    constant = name.endswith(("identity_features", "transform_features"))
    if constant and found.tolist() != _alternating(name, len(found)):
        return [f"{name} is not every other feature"]
    return []


def _alternating(name: str, count: int) -> list[int]:
    index = int(name.removeprefix("_transform._transforms.").split(".")[0])
    start = (index // 3) % 2
    if name.endswith("transform_features"):
        start = 1 - start
    return list(range(start, start + 2 * count, 2))
