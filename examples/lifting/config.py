"""Settings of the lifting program; the files in ``configs/`` explain each of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.lifting.baselines import FactorisedLifter, MixtureLifter, MultiHeadLifter
from examples.lifting.methods import MODE_LOSSES, FlowLifter, Regressor, TrainedLifter
from examples.lifting.model import LiftingModel
from examples.lifting.sources import Recording
from examples.lifting.views import ViewOptions

__all__ = ["CONFIGS", "Config"]

CONFIGS = Path(__file__).parent / "configs"

METHODS = ("flow", "regressor", "multi-head", "mixture", "factorised")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
LOGGERS = ("csv", "tensorboard", "none")
CAMERAS = ("recorded", "virtual")
POSITIVE = (
    "width", "hidden_features", "flow_steps", "heads", "components", "steps", "batch_size",
    "learning_rate", "flow_learning_rate", "every", "val_every", "val_views", "checkpoint_every",
    "log_every",
)  # fmt: skip
NOT_NEGATIVE = (
    "num_blocks", "flow_blocks", "dropout", "target_noise", "nll_weight", "mode_weight",
    "relaxation", "weight_decay", "clip", "noise_px", "vary_bones", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings of one training; none has a default.

    The method ``"flow"`` with the preset ``"default"`` is a regressor, whose answer is the mode,
    and a flow around its answer. ``regressor_share`` selects how they are trained:

    * above 0, the regressor first, for that share of the steps, then the flow around it with the
      regressor frozen. Use it if accuracy comes first: the regressor is as good as one trained
      alone, and its answer does not change any more. About 0.8 serves 3D joints. If a regressor
      exists already, all steps can train the flow, see ``centre`` of
      `flowprior.ConditionalPosePrior`.
    * 0, both in every step. Use it for one short training, or to see the density from the first
      validation on. The flow then learns the residuals of a regressor that is still changing.

    A model with another preset, or a coupling that an anchored flow does not have, has no regressor
    of its own and needs 0.
    """

    method: str
    inputs: str
    width: int
    num_blocks: int
    dropout: float
    skip: bool
    preset: str
    coupling: str
    hidden_features: int
    flow_steps: int
    flow_blocks: int
    target_noise: float
    nll_weight: float
    mode_weight: float
    mode_loss: str
    regressor_share: float
    heads: int
    relaxation: float
    components: int
    regressor_loss: str
    steps: int
    batch_size: int
    learning_rate: float
    flow_learning_rate: float
    weight_decay: float
    schedule: str
    clip: float
    precision: str
    occlusion: str
    noise_px: float
    nose: bool
    mirror: bool
    vary_bones: float
    cameras: str
    keypoints: str
    val_subjects: str
    every: int
    val_every: int
    val_views: int
    checkpoint_every: int
    log_every: int
    logger: str
    devices: str
    seed: int

    def __post_init__(self) -> None:
        for name, known in (
            ("method", METHODS),
            ("mode_loss", MODE_LOSSES),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("logger", LOGGERS),
            ("cameras", CAMERAS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.regressor_share < 1:
            raise ValueError(
                f"regressor_share must be at least 0 and below 1, got {self.regressor_share}"
            )
        if self.devices != "auto" and not (self.devices.isdigit() and int(self.devices) > 0):
            raise ValueError(f"devices must be auto or a number above 0, got {self.devices!r}")
        _ = self.view_options

    @property
    def view_options(self) -> ViewOptions:
        """The view options."""
        return ViewOptions(self.occlusion, self.noise_px, self.nose, self.mirror, self.vary_bones)

    @property
    def recording(self) -> Recording | None:
        """The options of recorded cameras; None for virtual cameras."""
        if self.cameras == "virtual":
            return None
        subjects = tuple(self.val_subjects.replace(",", " ").split())
        return Recording(self.keypoints, subjects, self.every)

    def make(self) -> TrainedLifter:
        """Create a new lifter.

        Raises:
            ValueError: A setting of the network is unknown or out of range.
        """
        network: dict[str, Any] = {
            "width": self.width,
            "num_blocks": self.num_blocks,
            "dropout": self.dropout,
            "inputs": self.inputs,
            "skip": self.skip,
        }
        if self.method == "regressor":
            return Regressor(self.regressor_loss, **network)
        if self.method == "multi-head":
            return MultiHeadLifter(self.heads, self.relaxation, **network)
        if self.method == "mixture":
            return MixtureLifter(self.components, noise=self.target_noise, **network)
        if self.method == "factorised":
            return FactorisedLifter(self.target_noise, **network)
        model = LiftingModel(
            **network,
            hidden_features=self.hidden_features,
            num_steps=self.flow_steps,
            flow_blocks=self.flow_blocks,
            preset=self.preset,
            coupling=self.coupling,
            target_noise=self.target_noise,
        )
        return FlowLifter(
            model, self.nll_weight, self.mode_weight, self.mode_loss, self.regressor_share
        )
