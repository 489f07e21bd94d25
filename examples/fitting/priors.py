"""A prior conditioned on 2D keypoints, with its encoder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from examples.lifting.model import MartinezEncoder
from examples.training.encoded import load_encoded, save_encoded
from flowprior import ConditionalPosePrior, PosePosterior
from flowprior.keypoints import keypoint_context
from flowprior.skeleton import BODY_25

__all__ = ["KeypointPrior"]


class KeypointPrior(nn.Module):
    """p(theta | 2D keypoints) over SMPL's 24 rotations, with the root relative to the camera.

    Args:
        width: Width of the encoder and of the context.
        hidden_features: Width of the flow's conditioners.
        context_norm: Whether scale and shift of the flow's ActNorm depend on the context.
    """

    def __init__(
        self, width: int = 256, hidden_features: int = 256, context_norm: bool = False
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "hidden_features": hidden_features,
            "context_norm": context_norm,
        }
        self.encoder = MartinezEncoder(3 * BODY_25.num_joints, width)
        self.prior = ConditionalPosePrior(
            width, hidden_features=hidden_features, context_norm=context_norm
        )

    def context(self, keypoints: Tensor) -> Tensor:
        """Context (B, width) of keypoints (B, 25, 3), pixels and confidence."""
        encoded: Tensor = self.encoder(keypoint_context(keypoints))
        return encoded

    def forward(self, keypoints: Tensor) -> PosePosterior:
        """Posterior over theta given keypoints (B, 25, 3), pixels and confidence."""
        return self.prior(self.context(keypoints))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` to an existing folder, see `save_encoded`."""
        save_encoded(self, folder)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "KeypointPrior":
        """Read a model written by `save`, see `examples.training.encoded.load_encoded`."""
        return load_encoded(cls, folder, device)
