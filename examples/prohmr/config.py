"""Settings of the ProHMR training; the files in ``configs/`` explain each of them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from examples.data.crop_augmentation import AugmentationSettings
from examples.prohmr.losses import LossWeights
from examples.prohmr.model import ProHMR

__all__ = ["CONFIGS", "Config"]

CONFIGS = Path(__file__).parent / "configs"

SCHEDULES = ("constant", "cosine")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
LOGGERS = ("csv", "tensorboard", "none")
AUGMENTATIONS = ("none", "prohmr", "gentle")
# Moderate augmentation for short trainings.
GENTLE = AugmentationSettings(
    scale=0.1, rotation=0.2, rotation_probability=0.5, extreme_crop_probability=0.0
)


@dataclass(frozen=True)
class Config:
    """Settings of one training; none has a default."""

    backbone: str
    weights: str
    size: int
    head_features: int
    mean_params: str
    body: str
    keypoint_regressor: str
    preset: str
    hidden_features: int
    flow_steps: int
    flow_blocks: int
    context_norm: bool
    dropout: float
    target_noise: float
    num_samples: int
    loss: dict[str, float]
    datasets: dict[str, float]
    validation: dict[str, float]
    mocap: str
    augmentation: str
    steps: int
    batch_size: int
    learning_rate: float
    discriminator_rate: float
    discriminator_every: int
    weight_decay: float
    schedule: str
    clip: float
    precision: str
    workers: int
    val_every: int
    val_images: int
    val_samples: int
    checkpoint_every: int
    log_every: int
    logger: str
    seed: int

    def __post_init__(self) -> None:
        for name, known in (
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("logger", LOGGERS),
            ("augmentation", AUGMENTATIONS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in _MAY_BE_0 else 1 if field.type is int else 1e-12
            if field.type in (int, float) and not value >= least:
                raise ValueError(f"{field.name} must be at least {least:g}, got {value}")
        known_losses = [field.name for field in fields(LossWeights)]
        unknown = [name for name in self.loss if name not in known_losses]
        if unknown:
            raise ValueError(f"unknown loss {', '.join(unknown)}; there are {known_losses}")
        _ = self.loss_weights
        if not self.datasets:
            raise ValueError("datasets must name at least one")

    @property
    def loss_weights(self) -> LossWeights:
        """The loss weights; the published ones by default."""
        return LossWeights(**self.loss)

    @property
    def augmentation_settings(self) -> AugmentationSettings | None:
        """Strength of the augmentation; None for none."""
        return {"none": None, "prohmr": AugmentationSettings(), "gentle": GENTLE}[self.augmentation]

    @property
    def prior(self) -> dict[str, Any]:
        """Keyword arguments of the prior."""
        return {
            "preset": self.preset,
            "hidden_features": self.hidden_features,
            "num_steps": self.flow_steps,
            "num_blocks": self.flow_blocks,
            "context_norm": self.context_norm,
            "dropout": self.dropout,
            "target_noise": self.target_noise,
        }

    def make(self) -> ProHMR:
        """Create a new model, with the backbone weights of the setting ``weights``.

        Raises:
            OSError: The weights do not exist.
            ValueError: A setting of the model is unknown or out of range.
        """
        model = ProHMR(
            self.backbone, size=self.size, head_features=self.head_features, prior=self.prior
        )
        model.load_backbone(self.weights)
        if self.mean_params != "none":
            model.head.set_means(self.mean_params)
        return model


_MAY_BE_0 = {
    *("dropout", "target_noise", "weight_decay", "clip", "workers", "seed", "flow_blocks"),
    *("discriminator_rate", "val_images"),
}
