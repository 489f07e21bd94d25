"""A prior conditioned on 2D keypoints, with its encoder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from examples.lifting.model import MartinezEncoder, with_raw
from examples.training.encoded import load_encoded, save_encoded
from flowprior import ConditionalPosePrior, PosePosterior
from flowprior.keypoints import keypoint_context
from flowprior.prior.conditional import BEFORE_ANCHORED
from flowprior.skeleton import BODY_25

__all__ = ["KeypointPrior"]


# Files from before a prior could be anchored lack these entries.
BEFORE: dict[str, Any] = {"skip": False, "space": "rot6d", **BEFORE_ANCHORED}


class KeypointPrior(nn.Module):
    """p(theta | 2D keypoints) over SMPL's 24 rotations, with the root relative to the camera.

    Args:
        width: Width of the encoder.
        skip: Whether the context holds the encoder's input beside its features.
        **options: Options of `flowprior.ConditionalPosePrior`, such as ``hidden_features``.
    """

    def __init__(
        self,
        width: int = 256,
        skip: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        features = 3 * BODY_25.num_joints
        self.skip = skip
        self.encoder = MartinezEncoder(features, width)
        self.prior = ConditionalPosePrior(width + (features if skip else 0), **options)
        # Complete, so that files do not depend on the defaults of a version.
        chosen = {k: v for k, v in self.prior.config.items() if k != "context_features"}
        self.config: dict[str, Any] = {"width": width, "skip": skip, **chosen}

    def context(self, keypoints: Tensor) -> Tensor:
        """Context (B, C) of keypoints (B, 25, 3), pixels and confidence."""
        return with_raw(self.encoder, keypoint_context(keypoints), self.skip)

    def forward(self, keypoints: Tensor) -> PosePosterior:
        """Posterior over theta given keypoints (B, 25, 3), pixels and confidence."""
        return self.prior(self.context(keypoints))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` to an existing folder, see `save_encoded`."""
        save_encoded(self, folder)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "KeypointPrior":
        """Read a model written by `save`, see `examples.training.encoded.load_encoded`."""
        return load_encoded(cls, folder, device, before=BEFORE)
