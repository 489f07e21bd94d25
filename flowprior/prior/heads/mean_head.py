"""The mean head: the network that answers a context with one pose."""

import torch
from torch import Tensor, nn

from flowprior._checks import require_count
from flowprior._precision import without_autocast
from flowprior.flow.conditioner import ResidualBlock
from flowprior.prior.spaces import Centre, PoseSpace, RotationSpace

__all__ = ["MeanHead"]


class MeanHead(nn.Module):
    """Residual network that maps contexts to poses, with a linear skip connection.

    An untrained head returns the identity for rotations and the origin for points.

    Args:
        context_features: Width C of the context, 0 for one pose without a context.
        space: The pose space.
        hidden_features: Width of the network.
        num_blocks: Number of residual blocks, two linear layers each.

    Raises:
        ValueError: For sizes out of range.
    """

    def __init__(
        self, context_features: int, space: PoseSpace, hidden_features: int, num_blocks: int = 1
    ) -> None:
        super().__init__()
        require_count("head_features", hidden_features, 1)
        require_count("head_blocks", num_blocks, 0)
        self.space = space
        joints, size = space.event_shape
        start = torch.eye(3)[:, :2].mT.flatten() if isinstance(space, RotationSpace) else None
        start = torch.zeros(size) if start is None else start
        self.start = nn.Parameter(start.repeat(joints))
        self.input: nn.Linear | None = None
        if context_features:
            self.input = nn.Linear(context_features, hidden_features)
            self.blocks = nn.ModuleList(
                ResidualBlock(hidden_features, batch_norm=False, dropout=0.0)
                for _ in range(num_blocks)
            )
            self.output = nn.Linear(hidden_features, joints * size, bias=False)
            self.direct = nn.Linear(context_features, joints * size, bias=False)
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.direct.weight)

    @property
    def is_untrained(self) -> bool:
        """Whether the head still returns one pose for every context."""
        if self.input is None or self.output.weight.is_meta:
            return False
        return not (bool(self.output.weight.any()) or bool(self.direct.weight.any()))

    def forward(self, context: Tensor | None) -> Tensor:
        """Answer contexts, in float32 or better, also under autocast.

        Args:
            context: (*batch, C); None without a context.

        Returns:
            Poses (*batch, J, k); 6D vectors are orthonormal and in the layout of the space.
        """
        return self.centre(context).pose

    def centre(self, context: Tensor | None) -> Centre:
        """As :meth:`forward`, with what the space computes with."""
        return self.space.nearest(self._raw(context).unflatten(-1, self.space.event_shape))

    def _raw(self, context: Tensor | None) -> Tensor:
        raw: Tensor = self.start
        if self.input is not None and context is not None:
            dtype = self.start.dtype
            with without_autocast(self.start.device):
                rows = self.input(context.to(dtype)).reshape(-1, self.input.out_features)
                for block in self.blocks:
                    rows = block(rows)
                # Written out: the batch may be empty, and rows of any batch shape are flat here.
                raw = (
                    raw
                    + self.output(rows.relu())
                    + self.direct(context.to(dtype).reshape(-1, context.shape[-1]))
                )
            raw = raw.reshape(*context.shape[:-1], raw.shape[-1])
        return raw.to(torch.promote_types(raw.dtype, torch.float32))
