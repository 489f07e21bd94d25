"""ProHMR's model: image -> p(theta | image), betas and camera."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from examples.prohmr.backbones import (
    BACKBONES,
    load_weights,
    make_backbone,
    state_from_torchvision,
    width_of,
)
from examples.prohmr.discriminator import Discriminator
from flowprior._modes import lasting
from flowprior.files import model_file
from flowprior.files.limits import require_regular
from flowprior.files.model_file import (
    CheckpointError,
    ModelFile,
    require_plausible,
    require_same_tensors,
    uncompiled,
)
from flowprior.files.numpy_file import read_npz
from flowprior.files.torch_file import read_torch_file
from flowprior.prior import ConditionalPosePrior
from flowprior.prior.conditional import BEFORE_ANCHORED
from flowprior.prior.posterior import PosePosterior
from flowprior.prior.spaces import RotationSpace
from flowprior.prohmr import load_prior, read_prohmr
from flowprior.skeleton import SMPL_24

__all__ = ["MODEL_CONFIG", "Prediction", "ProHMR", "ShapeCameraHead", "load_model", "load_original"]

NUM_BETAS = 10
# HMR's mean camera: a body that fills 0.9 of the crop.
MEAN_CAMERA = (0.9, 0.0, 0.0)
MODEL_CONFIG = "prohmr_config"
"""Key of `ProHMR.config` in checkpoints of training."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for B images.

    Attributes:
        context: (B, C), the backbone's features, float32.
        posterior: p(theta | image). With the preset ``"default"`` its mode is the answer of the
            prior's own head, and exact on SO(3).
        betas: (B, 10) shape coefficients, the same for every sample of an image.
        camera: (B, 3), weak perspective (s, tx, ty) of the crop, also the same for every sample.
    """

    context: Tensor
    posterior: PosePosterior
    betas: Tensor
    camera: Tensor


class ShapeCameraHead(nn.Module):
    """Regresses betas and camera from features, relative to their means.

    Args:
        context_features: Width C of the features.
        hidden_features: Width of the hidden layer.

    Attributes:
        layers: The network, with the names of the original.
        init_betas: (1, 1, 10) mean shape.
        init_cam: (1, 1, 3) mean camera.

    References:
        ``prohmr/models/heads/fc_head.py`` of ``nkolot/ProHMR``.
    """

    init_betas: Tensor
    init_cam: Tensor

    def __init__(self, context_features: int, hidden_features: int = 1024) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(context_features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, NUM_BETAS + 3),
        )
        last = self.layers[2]
        assert isinstance(last, nn.Linear)
        nn.init.xavier_uniform_(last.weight, gain=0.02)
        self.register_buffer("init_betas", torch.zeros(1, 1, NUM_BETAS))
        self.register_buffer("init_cam", torch.tensor(MEAN_CAMERA)[None, None])

    def set_means(self, path: str | os.PathLike[str]) -> None:
        """Read the means from SPIN's ``smpl_mean_params.npz``.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file lacks ``shape`` (10,) or ``cam`` (3,).
        """
        content = read_npz(path)
        for key, buffer in (("shape", self.init_betas), ("cam", self.init_cam)):
            mean = torch.as_tensor(content.get(key, ()), dtype=buffer.dtype)
            if mean.numel() != buffer.numel():
                raise ValueError(
                    f"{path}: expected {key} of {buffer.numel()} numbers, got {mean.numel()}"
                )
            buffer.copy_(mean.reshape(buffer.shape))

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Context (B, C) -> betas (B, 10) and camera (B, 3)."""
        betas, camera = self.layers(context).split((NUM_BETAS, 3), dim=-1)
        return betas + self.init_betas[0], camera + self.init_cam[0]


class ProHMR(nn.Module):
    """Predicts a density over SMPL's pose, a shape and a camera from an image.

    Under autocast, only the backbone computes in half precision.

    Args:
        backbone: Name of the backbone, see `examples.prohmr.backbones.make_backbone`.
        size: Side of the crops it reads, in pixels.
        head_features: Width of the hidden layer of the head for betas and camera.
        prior: Keywords of `flowprior.ConditionalPosePrior`, such as
            ``{"preset": "prohmr"}``.

    Raises:
        ValueError: A setting is unknown or out of range, or the prior does not model rotations of
            SMPL's 24 joints.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, ICCV 2021, section 3.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        size: int = 224,
        head_features: int = 1024,
        prior: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = make_backbone(backbone, size)
        context_features = width_of(self.backbone, size)
        self.prior = ConditionalPosePrior(context_features, **(prior or {}))
        space = self.prior.space
        if not isinstance(space, RotationSpace) or space.joints != SMPL_24.num_joints:
            raise ValueError(f"expected a prior over rotations of 24 joints, got {prior}")
        self.head = ShapeCameraHead(context_features, head_features)
        self.size = size
        self.config: dict[str, Any] = {
            "backbone": backbone,
            "size": size,
            "head_features": head_features,
            # Complete, so that files do not depend on the defaults of a version.
            "prior": {k: v for k, v in self.prior.config.items() if k != "context_features"},
        }

    def forward(self, images: Tensor) -> Prediction:
        """Predict from images.

        Args:
            images: (B, 3, size, size), normalised by `examples.data.crops.make_crops`.

        Returns:
            The prediction, in float32.

        Raises:
            ValueError: A shape is wrong, or a feature is not finite (on the CPU).
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, self.size, self.size):
            raise ValueError(
                f"expected images (B, 3, {self.size}, {self.size}), got {tuple(images.shape)}"
            )
        context = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.predict(context.to(self.prior.flow.weight_dtype))

    def predict(self, context: Tensor) -> Prediction:
        """Predict from features.

        Args:
            context: (B, C), features of the backbone, in the dtype of the weights.
        """
        betas, camera = self.head(context)
        return Prediction(context, self.prior(context), betas, camera)

    def load_backbone(self, source: str) -> None:
        """Load weights of the backbone, see `examples.prohmr.backbones.load_weights`."""
        load_weights(self.backbone, source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and sizes to one safetensors file, atomically.

        Raises:
            OSError: The file cannot be written.
        """
        model_file.save(path, ModelFile(self.state_dict(), {"class": "ProHMR", **self.config}))


@lasting()
def load_model(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    own_backbone: str | None = None,
) -> ProHMR:
    """Read a model from a file of `ProHMR.save`, a training checkpoint, or an original checkpoint.

    Args:
        path: A ``.safetensors`` file, a ``.ckpt`` of our training, or the original's checkpoint.
        device: Device of the model.
        own_backbone: The ``module:function`` of your backbone. Without this argument, a file that
            names a function does not load, because it would decide which code runs.

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is damaged, has another format, or names a backbone function other
            than ``own_backbone``.
    """
    require_regular(path, CheckpointError)
    with open(path, "rb") as file:
        # A safetensors file starts with the length of its header and a brace.
        ours = file.read(9)[8:] == b"{"
    if not ours:
        found = read_torch_file(path)
        if MODEL_CONFIG not in found:
            return load_original(path, device)[0]
        weights = found.get("state_dict")
        state = {
            name.removeprefix("model."): value
            for name, value in (weights.items() if isinstance(weights, Mapping) else ())
            if isinstance(name, str) and isinstance(value, Tensor) and name.startswith("model.")
        }
        state = uncompiled(path, state)
        model = _made(path, found[MODEL_CONFIG], state, own_backbone)
        _fill(path, model, state)
        return model.eval().to(device)
    content = model_file.load(path)
    config = dict(content.config)
    if config.pop("class", None) != "ProHMR":
        raise CheckpointError(f"{path} is a model file, but of no ProHMR")
    model = _made(path, config, content.tensors, own_backbone)
    require_same_tensors(path, content.tensors, model.state_dict())
    model.load_state_dict(dict(content.tensors))
    return model.eval().to(device)


def load_original(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    lu_forward: str = "exact",
) -> tuple[ProHMR, Discriminator | None]:
    """Read a whole original checkpoint, without executing code from it.

    Args:
        path: Lightning's checkpoint, or its state dict.
        device: Device of the models.
        lu_forward: As in `flowprior.prohmr.load_prior`.

    Returns:
        The model, in evaluation mode; and the discriminator, or None if the file has none.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: A part is missing or belongs to another network; the message names it.
    """
    weights = read_prohmr(path)
    if not weights.backbone or not weights.fc_head:
        raise CheckpointError(f"{path} has no backbone or no fc_head: it is no ProHMR from images")
    prior = load_prior(path, lu_forward=lu_forward)
    keywords = {key: value for key, value in prior.config.items() if key != "context_features"}
    model = ProHMR(
        "resnet50", head_features=len(weights.fc_head["layers.0.weight"]), prior=keywords
    )
    if prior.config["context_features"] != model.prior.config["context_features"]:
        raise CheckpointError(
            f"{path} has {prior.config['context_features']} features, ResNet-50 has 2048"
        )
    model.prior.load_state_dict(prior.state_dict())
    _fill(path, model.backbone, state_from_torchvision(weights.backbone))
    _fill(path, model.head, weights.fc_head)
    if not weights.discriminator:
        return model.eval().to(device), None
    discriminator = Discriminator()
    _fill(path, discriminator, weights.discriminator)
    return model.eval().to(device), discriminator.eval().to(device)


def _made(
    path: str | os.PathLike[str],
    config: object,
    state: Mapping[str, Tensor],
    own_backbone: str | None,
) -> ProHMR:
    """Create a model from a file's configuration, if its weights match."""
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{path} has no configuration of a model")
    name = config.get("backbone", "")
    if name not in (*BACKBONES, "", own_backbone):
        raise CheckpointError(
            f"{path} has the backbone {name!r:.200}. There are {', '.join(BACKBONES)}; a function "
            "is called only if you name it: own_backbone= or --own-backbone"
        )
    require_plausible(path, config, state)
    config = dict(config)
    prior = config.get("prior")
    if isinstance(prior, Mapping) and "anchored" not in prior:
        if prior.get("space") == "so3":
            raise CheckpointError(f"{path} has a prior over SO(3) in a chart that no longer exists")
        config["prior"] = {"space": "rot6d", **BEFORE_ANCHORED, **prior}
    try:
        return ProHMR(**config)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no model of ProHMR: {error}") from error


def _fill(path: str | os.PathLike[str], module: nn.Module, state: Mapping[str, Tensor]) -> None:
    require_same_tensors(path, state, module.state_dict())
    module.load_state_dict(dict(state))
