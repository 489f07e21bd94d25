"""A drop-in replacement for the flow class of ProHMR's fork of nflows."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprior.files.model_file import CheckpointError
from flowprior.flow import ConditionalFlow, standard_normal_log_prob
from flowprior.flow.projected_context import batch_shape_of
from flowprior.prohmr.weights import flow_state_from_prohmr, flow_state_to_prohmr

__all__ = ["ConditionalGlow"]

Activation = Callable[[Tensor], Tensor]


class ConditionalGlow(nn.Module):
    """The flow of ProHMR's fork of nflows, with its constructor, methods and weight names.

    To use it in the original repository, replace the fork's import by
    ``from flowprior.prohmr.glow import ConditionalGlow``. Differences: explicit noise works for any
    number of samples, all tensors have the device and dtype of the weights, and the context is
    projected once instead of repeated. ``parameters()`` have another order, so optimiser states
    cannot be transferred.

    Args:
        features: Number of features D.
        hidden_features: Width of the conditioners.
        num_layers: Number of steps.
        num_blocks_per_layer: Residual blocks per conditioner.
        activation: ReLU, the only supported one.
        dropout_probability: Dropout inside the conditioners.
        context_features: Width C of the context; None for none.
        batch_norm_within_layers: Batch norm inside the conditioners.

    Raises:
        ValueError: If the activation is not ReLU or a size is out of range.

    References:
        https://github.com/nkolot/nflows (``nflows.flows.ConditionalGlow``).
    """

    def __init__(
        self,
        features: int,
        hidden_features: int,
        num_layers: int,
        num_blocks_per_layer: int,
        activation: Activation = F.relu,
        dropout_probability: float = 0.5,
        context_features: int | None = None,
        batch_norm_within_layers: bool = True,
    ) -> None:
        super().__init__()
        if not (activation in (F.relu, torch.relu) or isinstance(activation, nn.ReLU)):
            raise ValueError(f"activation must be torch.nn.functional.relu, got {activation!r}")
        self._flow = ConditionalFlow(
            features,
            context_features or 0,
            preset="prohmr",
            hidden_features=hidden_features,
            num_steps=num_layers,
            num_blocks=num_blocks_per_layer,
            batch_norm=batch_norm_within_layers,
            dropout=dropout_probability,
        )

    def log_prob(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-density and latent of each row.

        Args:
            inputs: (M, D).
            context: (M, C), a row for each input.

        Returns:
            Log-densities (M,) in nats and latents (M, D).
        """
        projected = self._flow.project_context(context)
        z, log_abs_det = self._flow(inputs, projected)
        return standard_normal_log_prob(z) + log_abs_det, z

    def sample(
        self, num_samples: int, context: Tensor | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Samples (B, S, D), or (S, D) without context; ``batch_size`` is ignored."""
        return self._flow.sample(context, num_samples)

    def sample_and_log_prob(
        self,
        num_samples: int,
        noise: Tensor | None = None,
        context: Tensor | None = None,
        ignore_context: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples with their log-densities and their noise.

        Args:
            num_samples: Number S of samples per context; ignored if ``noise`` is given.
            noise: (B, S, D), standard normal; drawn if None.
            context: (B, C).
            ignore_context: Whether to use only the batch size of the context.

        Returns:
            Samples (B, S, D), log-densities (B, S) in nats, noise (B S, D). Without context,
            (S, D), (S,) and (S, D).
        """
        if ignore_context and context is not None:
            context = context[..., :0]
        projected = self._flow.project_context(context)
        if noise is None:
            shape = (*batch_shape_of(projected), num_samples, self._flow.features)
            noise = torch.randn(shape, dtype=self._flow.dtype, device=self._flow.device)
        samples, log_abs_det = self._flow.inverse(noise, projected)
        flat = noise.reshape(-1, self._flow.features)
        return samples, standard_normal_log_prob(noise) - log_abs_det, flat

    def sample_log_prob(
        self, noise: Tensor, context: Tensor | None = None, ignore_context: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Samples (B, S, D) of noise (B, S, D) and their log-densities (B, S) in nats."""
        return self.sample_and_log_prob(noise.shape[1], noise, context, ignore_context)[:2]

    def transform_to_noise(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (M, D) of inputs (M, D) given context (M, C)."""
        return self._flow.forward(inputs, context)[0]

    def state_dict(  # type: ignore[override]
        self,
        *,
        destination: dict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """Detached copies of the weights under the fork's names; ignores ``keep_vars``."""
        destination = {} if destination is None else destination
        destination.update(flow_state_to_prohmr(self._flow, prefix))
        return destination

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Rename the fork's weights, in the loader's copy, before the flow loads them."""
        root = f"{prefix}_transform."
        theirs = {
            name.removeprefix(prefix): state_dict.pop(name)
            for name in list(state_dict)
            if name.startswith(root)
        }
        if theirs:
            try:
                ours = flow_state_from_prohmr(theirs, self._flow)
            except CheckpointError as error:
                error_msgs.append(str(error))
                ours = self._flow.state_dict()
            state_dict.update({f"{prefix}_flow.{name}": value for name, value in ours.items()})
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
