"""A trainable network that encodes the context for the flow."""

import torch
from torch import Tensor, nn

from flowprior._checks import require_count, require_like, require_width
from flowprior._precision import without_autocast
from flowprior.flow.conditioner import ResidualBlock

__all__ = ["ContextEncoder"]


class ContextEncoder(nn.Module):
    """A small residual network that encodes raw contexts, such as keypoints.

    The flow reads its context through one linear layer per conditioner and per ActNorm. That
    suffices for the features of a network, but not for raw measurements.

    Args:
        context_features: Width C of the raw context, at least 1.
        features: Width E of the network and of its output, at least 1.
        num_blocks: Number of residual blocks, two linear layers each.
        skip: Whether the raw context follows the network's features in the output.

    Attributes:
        out_features: Width of the output, E or E + C.

    Raises:
        ValueError: For sizes out of range.
    """

    def __init__(
        self, context_features: int, features: int, num_blocks: int, *, skip: bool = False
    ) -> None:
        super().__init__()
        require_count("context_features", context_features, 1)
        require_count("encoder_features", features, 1)
        require_count("encoder_blocks", num_blocks, 0)
        self.context_features = context_features
        self.skip = skip
        self.out_features = features + context_features if skip else features
        self.input = nn.Linear(context_features, features)
        self.blocks = nn.ModuleList(
            ResidualBlock(features, batch_norm=False, dropout=0.0) for _ in range(num_blocks)
        )

    def forward(self, context: Tensor) -> Tensor:
        """Encode contexts (..., C) -> (..., out_features).

        The result is in float32 or better, also under autocast.

        Raises:
            ValueError: If the context has another width, dtype or device than the network.
        """
        require_width("context", context, self.context_features)
        weight = self.input.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        context = require_like("context", context, dtype, weight.device)
        with without_autocast(weight.device):
            hidden = self.input(context.to(weight.dtype))
            rows = hidden.reshape(-1, hidden.shape[-1])
            for block in self.blocks:
                rows = block(rows)
        encoded = rows.reshape(hidden.shape).to(dtype)
        return torch.cat((encoded, context), dim=-1) if self.skip else encoded
