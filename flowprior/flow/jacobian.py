"""Derivatives of a frozen flow: the latent and its Jacobian in one pass."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from flowprior.flow.anchored import FrozenAnchoredStep
from flowprior.flow.coupling import AdditiveCoupling
from flowprior.flow.lu_linear import held_product
from flowprior.flow.projected_context import ProjectedContext, StepContext, free_of
from flowprior.flow.stack import FlowStack

__all__ = ["latent_and_jacobian"]


def latent_and_jacobian(
    flow: FlowStack, x: Tensor, context: ProjectedContext, free: Tensor
) -> tuple[Tensor, Tensor]:
    """The latent z of x, and its derivatives with respect to some of the features.

    An anchored flow with additive couplings, such as those of the shipped priors, takes one pass of
    matrix products. Any other flow is differentiated by torch, which takes ten times as long.

    Args:
        flow: The flow; frozen for speed.
        x: (N, D).
        context: Projected contexts of batch (N,) or ().
        free: Indices (M,) of the features to differentiate by.

    Returns:
        z (N, D) and dz / dx (N, D, M), without gradients.
    """
    steps = list(flow.steps)
    if not all(isinstance(step, FrozenAnchoredStep) and _is_additive(step) for step in steps):
        return _by_torch(flow, x, context, free)
    with torch.no_grad(), flow.full_precision():
        if (mask := free_of(context)) is not None:
            x = x * mask
        rows = torch.zeros(len(x), len(free), x.shape[-1], dtype=x.dtype, device=x.device)
        rows[:, torch.arange(len(free)), free] = 1
        for step, part in zip(steps, context.steps, strict=True):
            x, rows = _step(cast(FrozenAnchoredStep, step), x, rows, part)
    temperature = flow.temperature.to(x.dtype)
    return x / temperature, rows.mT / temperature


def _is_additive(step: FrozenAnchoredStep) -> bool:
    return step.kind is None or step.kind is AdditiveCoupling


def _step(
    step: FrozenAnchoredStep, x: Tensor, rows: Tensor, context: StepContext
) -> tuple[Tensor, Tensor]:
    """One step for x (N, D) and tangents (N, M, D)."""
    assert context.norm is not None
    scale = context.norm.exp()
    x, rows = x * scale, rows * scale[..., None, :]
    if context.free is None:
        x, rows = F.linear(x, step.forward_weight), F.linear(rows, step.forward_weight)
    else:
        x, rows = (_held(step, value, context.free) for value in (x, rows))
    network = step.conditioner
    if network is None:
        return x, rows
    size = x.shape[-1]
    sizes = ((size + 1) // 2, size // 2)
    resting, moving = (0, 1) if step.odd_moves else (1, 0)
    parts, tangents = list(x.split(sizes, dim=-1)), list(rows.split(sizes, dim=-1))
    thresholds = context.hidden.chunk(1 + network.num_blocks, dim=-1)
    value, tangent = _rise(parts[resting], tangents[resting], network.first, thresholds[0])
    for number in range(network.num_blocks):
        weight = cast(Tensor, getattr(network, f"block{number}"))
        more, turned = _rise(value, tangent, weight, thresholds[1 + number])
        value, tangent = value + more, tangent + turned
    shift, turned = F.linear(value, network.last), F.linear(tangent, network.last)
    if context.free is not None:
        held = context.free[..., int(step.odd_moves) :: 2]
        shift, turned = shift * held, turned * held[..., None, :]
    parts[moving] = parts[moving] + shift
    tangents[moving] = tangents[moving] + turned
    x, rows = torch.cat(parts, dim=-1), torch.cat(tangents, dim=-1)
    if step.last:
        return x[..., step.place], rows[..., step.place]
    return x, rows


def _held(step: FrozenAnchoredStep, x: Tensor, free: Tensor) -> Tensor:
    """The linear map of x (N, D) or (N, M, D) where some features are held at 0."""
    if x.ndim == 3 and free.ndim > 1:
        free = free[:, None]
    x = x[..., step.place] if step.outer_is_ordered else x
    if free.ndim == 1:  # one mask for all rows: one matrix
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        x = x @ held_product(identity, step.lower, step.upper, free)
    else:
        x = held_product(x, step.lower, step.upper, free)
    return x[..., step.order] if step.inner_is_ordered else x


def _rise(
    value: Tensor, tangent: Tensor, weight: Tensor, threshold: Tensor
) -> tuple[Tensor, Tensor]:
    """relu(A h + p) - relu(p) for h (N, H) and tangents (N, M, H)."""
    inner = F.linear(value, weight) + threshold
    rise = inner.relu() - threshold.relu()
    return rise, F.linear(tangent, weight) * (inner > 0)[..., None, :]


def _by_torch(
    flow: FlowStack, x: Tensor, context: ProjectedContext, free: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = cast(Tensor, flow(x, context)[0])
        rows = [torch.autograd.grad(each.sum(), x, retain_graph=True)[0] for each in z.unbind(-1)]
    return z.detach(), torch.stack(rows, dim=1)[..., free]
