"""Probabilistic Martinez: a residual network reads 2D keypoints, a flow gives the 3D poses."""

from pathlib import Path

import torch
from torch import Tensor, nn

from examples.data.cameras import IMAGE_PX
from flowprior import ConditionalPosePrior, PosePosterior, checkpoint
from flowprior.checkpoint import CheckpointError, ModelFile
from flowprior.skeleton import H36M_17

__all__ = ["LiftingModel", "MartinezEncoder", "keypoint_features"]

FEATURES_PER_JOINT = 3
PIXELS_PER_UNIT = IMAGE_PX / 4
ENCODER_FILE = "encoder.safetensors"
PRIOR_FILE = "prior.safetensors"


def keypoint_features(keypoints: Tensor, visible: Tensor) -> Tensor:
    """2D keypoints as network input, in image units.

    A visible joint is (x, y, 1) with x and y the distance from the image centre in quarters of the
    image size; a hidden one is (0, 0, 0). No statistics of a data set are involved. Where the
    person stands in the image and how large it is are kept: both tell about depth.

    Args:
        keypoints: (..., 17, 2) in pixels; hidden ones may hold anything finite.
        visible: (..., 17) bool.

    Returns:
        (..., 51).
    """
    flag = visible.to(keypoints.dtype)[..., None]
    centred = (keypoints - IMAGE_PX / 2) / PIXELS_PER_UNIT
    return torch.cat([centred * flag, flag], dim=-1).flatten(start_dim=-2)


class MartinezEncoder(nn.Module):
    """A wide linear layer and residual blocks of two more, all with batch norm and dropout.

    Args:
        in_features: Width of the input.
        width: Width W of every layer and of the output.
        num_blocks: Number of residual blocks.
        dropout: Dropout probability.

    References:
        Martinez et al., *A simple yet effective baseline for 3d human pose estimation*, 2017;
        https://arxiv.org/abs/1705.03098.
    """

    def __init__(
        self, in_features: int, width: int = 256, num_blocks: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first = _layer(in_features, width, dropout)
        self.blocks = nn.ModuleList(
            nn.Sequential(_layer(width, width, dropout), _layer(width, width, dropout))
            for _ in range(num_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, in_features) -> context (B, W)."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


def _layer(in_features: int, out_features: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, out_features),
        nn.BatchNorm1d(out_features),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


class LiftingModel(nn.Module):
    """p(3D pose | 2D keypoints) for the 17 joints of Human3.6M.

    A pose theta is (..., 16, 3): the joints but the pelvis, seen from the pelvis, in the camera
    frame, in metres.

    Args:
        width: Width of the encoder, and so of the context.
        num_blocks: Residual blocks of the encoder.
        dropout: Dropout probability of the encoder.
        hidden_features: Width of the flow's conditioners.
        num_steps: Number of flow steps.
    """

    def __init__(
        self,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        hidden_features: int = 128,
        num_steps: int = 4,
    ) -> None:
        super().__init__()
        self.config = {
            "width": width,
            "num_blocks": num_blocks,
            "dropout": dropout,
            "hidden_features": hidden_features,
            "num_steps": num_steps,
        }
        self.encoder = MartinezEncoder(
            FEATURES_PER_JOINT * H36M_17.num_joints, width, num_blocks, dropout
        )
        self.prior = ConditionalPosePrior(
            context_features=width,
            joints=H36M_17.num_joints - 1,
            space="points",
            hidden_features=hidden_features,
            num_steps=num_steps,
        )

    def context(self, keypoints: Tensor, visible: Tensor) -> Tensor:
        """Context (B, W) of keypoints (B, 17, 2) in pixels, of which ``visible`` (B, 17) count."""
        encoded: Tensor = self.encoder(keypoint_features(keypoints, visible))
        return encoded

    def forward(self, keypoints: Tensor, visible: Tensor) -> PosePosterior:
        """Posterior over theta of keypoints (B, 17, 2) in pixels, ``visible`` (B, 17) bool."""
        return self.prior(self.context(keypoints, visible))

    def save(self, folder: Path) -> None:
        """Write ``prior.safetensors`` and ``encoder.safetensors`` to an existing folder."""
        checkpoint.save(folder / ENCODER_FILE, ModelFile(self.encoder.state_dict(), self.config))
        self.prior.save(folder / PRIOR_FILE)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "LiftingModel":
        """Read a model written by `save`, in evaluation mode.

        Args:
            folder: The folder with the two files.
            device: Where its weights shall be.

        Raises:
            FileNotFoundError: One of the files is missing.
            CheckpointError: A file is damaged, or they are not from one model.
        """
        file = checkpoint.load(folder / ENCODER_FILE)
        try:
            model = cls(**file.config)
            model.encoder.load_state_dict(dict(file.tensors))
        except (TypeError, RuntimeError) as error:
            raise CheckpointError(f"{folder / ENCODER_FILE} is not an encoder: {error}") from error
        expected = model.prior.config
        model.prior = ConditionalPosePrior.load(folder / PRIOR_FILE)
        if model.prior.config != expected:
            raise CheckpointError(f"{folder}: encoder and prior are not from one model")
        return model.eval().to(device)
