"""Probabilistic Martinez: a network encodes 2D keypoints, a head and a flow model 3D poses."""

from pathlib import Path

import torch
from torch import Tensor, nn

from examples.data.virtual_views import IMAGE_PX
from examples.training.encoded import load_encoded, save_encoded
from flowprior import ConditionalPosePrior, PosePosterior
from flowprior.flow import FlowOptions
from flowprior.flow.conditional_flow import can_be_anchored
from flowprior.skeleton import H36M_17

__all__ = [
    "INPUTS",
    "KeypointReader",
    "LiftingModel",
    "MartinezEncoder",
    "keypoint_features",
    "with_raw",
]

INPUTS = ("flags", "standardised")
PIXELS_PER_UNIT = IMAGE_PX / 4


def keypoint_features(keypoints: Tensor, visible: Tensor) -> Tensor:
    """2D keypoints as network input, in image units.

    A visible joint is (x, y, 1) with x and y the distance from the image centre in quarters of the
    image size; a hidden one is (0, 0, 0). No statistics of a data set are involved. The
    position and size of the person in the image stay: both carry information about depth.

    Args:
        keypoints: (..., 17, 2) in pixels; hidden ones may hold anything finite.
        visible: (..., 17) bool.

    Returns:
        (..., 51).
    """
    flag = visible.to(keypoints.dtype)[..., None]
    centred = (keypoints - IMAGE_PX / 2) / PIXELS_PER_UNIT
    return torch.cat([centred * flag, flag], dim=-1).flatten(start_dim=-2)


class KeypointReader(nn.Module):
    """2D keypoints as network input.

    Args:
        inputs: ``"flags"``: `keypoint_features`, 51 numbers. ``"standardised"``: x and y in pixels,
            each of the 34 less its mean over its standard deviation, as Martinez et al.; a hidden
            joint is at its mean. `fit` computes the statistics.

    Attributes:
        features: Number of input features.
    """

    def __init__(self, inputs: str = "flags") -> None:
        if inputs not in INPUTS:
            raise ValueError(f"inputs must be one of {INPUTS}, got {inputs!r}")
        super().__init__()
        self.inputs = inputs
        joints = H36M_17.num_joints
        self.features = (3 if inputs == "flags" else 2) * joints
        self.mean: Tensor | None
        self.std: Tensor | None
        for name in ("mean", "std"):
            start = None if inputs == "flags" else torch.full((joints, 2), float("nan"))
            self.register_buffer(name, start)

    @torch.no_grad()
    def fit(self, keypoints: Tensor) -> None:
        """Compute the statistics of keypoints (B, 17, 2) of training views; no effect for flags."""
        if self.mean is not None and self.std is not None:
            self.mean.copy_(keypoints.mean(dim=0))
            self.std.copy_(keypoints.std(dim=0).clamp(min=1.0))

    def forward(self, keypoints: Tensor, visible: Tensor) -> Tensor:
        """Encode keypoints (B, 17, 2) in pixels with mask ``visible`` (B, 17) as (B, features).

        Raises:
            RuntimeError: The statistics are not set.
        """
        if self.mean is None or self.std is None:
            return keypoint_features(keypoints, visible)
        # On another device the host would have to wait.
        if self.std.device.type == "cpu" and bool(self.std.isnan().any()):
            raise RuntimeError("the keypoints' statistics are not set: call fit() first")
        standard = (keypoints - self.mean) / self.std
        return torch.where(visible[..., None], standard, 0).flatten(start_dim=-2)


class MartinezEncoder(nn.Module):
    """A wide linear layer and residual blocks of two layers, all with batch norm and dropout.

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


def with_raw(encoder: nn.Module, x: Tensor, skip: bool) -> Tensor:
    """Features (B, W) of an encoder for its input x (B, F), followed by x itself if ``skip``.

    Under autocast, features may have half the precision of x; the result has that of x.
    """
    encoded: Tensor = encoder(x)
    return torch.cat([encoded.to(x.dtype), x], dim=-1) if skip else encoded


# Files of models from before a prior could be anchored lack these entries.
BEFORE_ANCHORED = {"skip": False, "anchored": False, "base": "normal", "head_features": 0}


class LiftingModel(nn.Module):
    """p(3D pose | 2D keypoints) for the 17 joints of Human3.6M.

    A pose theta is (..., 16, 3): the joints without the pelvis, relative to it, camera frame,
    metres.

    With the preset ``"default"``, encoder and the prior's head are a regressor whose answer is the
    mode, and the flow models what is left of the pose. Head and flow also read the keypoints
    themselves, beside the features of the encoder.

    Args:
        width: Width of the encoder.
        num_blocks: Residual blocks of the encoder.
        dropout: Dropout probability of the encoder.
        hidden_features: Width of the flow's conditioners.
        num_steps: Number of flow steps.
        inputs: Encoding of keypoints, see `KeypointReader`.
        flow_blocks: Residual blocks of each conditioner.
        preset: Preset of the flow, ``"default"`` or ``"prohmr"``.
        coupling: Coupling of the flow, see `flowprior.ConditionalFlow`.
        target_noise: Standard deviation of the noise on targets in the NLL of training, metres.
        skip: Whether the context holds the encoded keypoints beside the features of the encoder;
            if None, whether the preset is ``"default"``.
        anchored: Whether a head answers with the mode; if None, whether the preset is ``"default"``
            and an anchored flow has that coupling.
        base: Density of the latents; the prior's choice if None.
        head_features: Width of the head; if None, half the encoder's for an anchored flow, and 0,
            no head, for another one. Wider ones cost time and gain nothing, since the encoder is
            trained with it.

    Raises:
        ValueError: A name is unknown or a size out of range.
    """

    def __init__(
        self,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        hidden_features: int = 128,
        num_steps: int = 4,
        inputs: str = "flags",
        flow_blocks: int = 1,
        preset: str = "default",
        coupling: str = "additive",
        target_noise: float = 0.005,
        skip: bool | None = None,
        anchored: bool | None = None,
        base: str | None = None,
        head_features: int | None = None,
    ) -> None:
        super().__init__()
        if skip is None:
            skip = preset == "default"
        if anchored is None:
            anchored = preset == "default" and can_be_anchored({"coupling": coupling})
        if head_features is None:
            head_features = max(1, width // 2) if anchored else 0
        self.skip = skip
        self.reader = KeypointReader(inputs)
        self.encoder = MartinezEncoder(self.reader.features, width, num_blocks, dropout)
        options: FlowOptions = {
            "hidden_features": hidden_features,
            "num_steps": num_steps,
            "num_blocks": flow_blocks,
            "coupling": coupling,
            "anchored": anchored,
        }
        if base is not None:
            options["base"] = base
        self.prior = ConditionalPosePrior(
            context_features=width + (self.reader.features if skip else 0),
            joints=H36M_17.num_joints - 1,
            space="points",
            preset=preset,
            target_noise=target_noise,
            head_features=head_features,
            **options,
        )
        # Complete, so that files do not depend on the defaults of a version.
        self.config = {
            "width": width,
            "num_blocks": num_blocks,
            "dropout": dropout,
            "hidden_features": hidden_features,
            "num_steps": num_steps,
            "inputs": inputs,
            "flow_blocks": flow_blocks,
            "preset": preset,
            "coupling": coupling,
            "target_noise": target_noise,
            "skip": skip,
            "anchored": anchored,
            "base": self.prior.config["base"],
            "head_features": head_features,
        }

    def context(self, keypoints: Tensor, visible: Tensor) -> Tensor:
        """Encode keypoints (B, 17, 2) in pixels with mask (B, 17) as context (B, C)."""
        return with_raw(self.encoder, self.reader(keypoints, visible), self.skip)

    def forward(self, keypoints: Tensor, visible: Tensor) -> PosePosterior:
        """Posterior over theta given keypoints (B, 17, 2) in pixels and their mask (B, 17)."""
        return self.prior(self.context(keypoints, visible))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` to an existing folder, see `save_encoded`."""
        save_encoded(self, folder)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "LiftingModel":
        """Read a model written by `save`, see `examples.training.encoded.load_encoded`."""
        return load_encoded(cls, folder, device, before=BEFORE_ANCHORED)
