"""Image backbones by name, and their pretrained weights.

A backbone maps images (B, 3, S, S), normalised by `examples.data.crops`, to features (B, C).
"""

import importlib
import os
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from flowprior.files.model_file import CheckpointError, uncompiled
from flowprior.files.torch_file import read_torch_file

__all__ = [
    "BACKBONES",
    "Pooled",
    "load_weights",
    "make_backbone",
    "state_from_torchvision",
    "width_of",
]

IMAGENET = "microsoft/resnet-50"
"""Name of the ImageNet ResNet-50 on the Hugging Face hub."""

# Names of the parts of a ResNet: torchvision -> transformers.
_RENAMES = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", "encoder.stages.{0}.layers.{1}.shortcut.convolution."),
    (
        r"^layer(\d)\.(\d+)\.downsample\.1\.",
        "encoder.stages.{0}.layers.{1}.shortcut.normalization.",
    ),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", "encoder.stages.{0}.layers.{1}.layer.{2}.convolution."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", "encoder.stages.{0}.layers.{1}.layer.{2}.normalization."),
)


class Pooled(nn.Module):
    """A network of ``transformers`` as a backbone: its pooled output, or its first token.

    Args:
        network: Any image model that returns ``pooler_output`` or ``last_hidden_state``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> features (B, C)."""
        output = self.network(images)
        pooled = getattr(output, "pooler_output", None)
        features: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled
        return features.flatten(1)


def _resnet(config: ResNetConfig) -> Pooled:
    return Pooled(ResNetModel(config))


def _vit(config: ViTConfig) -> Pooled:
    return Pooled(ViTModel(config, add_pooling_layer=False))


BACKBONES: Mapping[str, Callable[[int], nn.Module]] = {
    "resnet50": lambda size: _resnet(ResNetConfig()),
    "resnet-small": lambda size: _resnet(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128, 256],
            depths=[1, 1, 1, 1],
            layer_type="basic",
        )
    ),
    "vit-base": lambda size: _vit(ViTConfig(image_size=size)),
    "vit-small": lambda size: _vit(
        ViTConfig(
            image_size=size,
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=768,
        )
    ),
}
"""Backbones by name; each function takes the image size in pixels."""


def make_backbone(name: str, size: int) -> nn.Module:
    """Create a backbone with random weights.

    Args:
        name: One of `BACKBONES`, or ``module:function`` with your function that takes the image
            size in pixels and returns a module (B, 3, size, size) -> (B, C).
        size: Side of the images, in pixels.

    Returns:
        The backbone.

    Raises:
        ValueError: The name is unknown; the message lists the known names.
    """
    module, colon, function = name.partition(":")
    if colon:
        try:
            made = getattr(importlib.import_module(module), function)(size)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"backbone {name}: {error}") from error
        if not isinstance(made, nn.Module):
            raise ValueError(f"backbone {name}: expected a torch.nn.Module, got {made!r}")
        return made
    if name not in BACKBONES:
        raise ValueError(
            f"no backbone {name!r}; there are {', '.join(BACKBONES)} and module:function"
        )
    return BACKBONES[name](size)


def width_of(backbone: nn.Module, size: int) -> int:
    """Number of features of a backbone, from a trial run.

    Args:
        backbone: On any device.
        size: Side of the images, in pixels.

    Raises:
        ValueError: The output does not have shape (B, C).
    """
    training = backbone.training
    parameter = next(backbone.parameters())
    with torch.no_grad():
        features = backbone.eval()(parameter.new_zeros(2, 3, size, size))
    backbone.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"expected a backbone that gives (2, C) for two images, got {got}")
    return int(features.shape[1])


def load_weights(backbone: nn.Module, source: str) -> None:
    """Load pretrained weights into a backbone.

    Args:
        backbone: From `make_backbone`.
        source: "none" for no change; "imagenet" for the ResNet-50 of the Hugging Face hub; or a
            file with torchvision's ResNet-50, the ``backbone`` of an original ProHMR checkpoint, or
            a state dict of the backbone.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The hub cannot be reached, and the weights are not cached.
        ValueError: The weights belong to another network; the message names them.
    """
    if source == "none":
        return
    if source == "imagenet":
        if not isinstance(backbone, Pooled) or not isinstance(backbone.network, ResNetModel):
            raise ValueError("weights: imagenet are those of backbone: resnet50")
        _fill(backbone, _prefixed(ResNetModel.from_pretrained(IMAGENET).state_dict()), source)
        return
    content = read_torch_file(source)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{source} holds no weights")
    state = uncompiled(
        source, {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    )
    tensors = {
        name.removeprefix("backbone."): value
        for name, value in state.items()
        if name.startswith("backbone.") or not any(n.startswith("backbone.") for n in state)
    }
    if "conv1.weight" in tensors:
        tensors = state_from_torchvision(tensors)
    _fill(backbone, tensors, os.path.basename(source))


def state_from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ResNet's weights from torchvision's names to those of `BACKBONES`.

    Args:
        state: Weights by torchvision's names; those of the classifier ``fc`` are left out.

    Returns:
        The same tensors by the names of `Pooled`.

    Raises:
        ValueError: A name is not a ResNet's.
    """
    return _prefixed(
        {_rename(name): value for name, value in state.items() if not name.startswith("fc.")}
    )


def _rename(name: str) -> str:
    for pattern, template in _RENAMES:
        found = re.match(pattern, name)
        if found:
            # torchvision counts from 1, transformers from 0, except for the blocks.
            numbers = [int(n) - (place != 1) for place, n in enumerate(found.groups())]
            return template.format(*numbers) + name[found.end() :]
    raise ValueError(f"{name} is no weight of a ResNet by torchvision's names")


def _prefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": value for name, value in state.items()}


def _fill(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    wanted = backbone.state_dict()
    problems = [f"missing {name}" for name in wanted if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in wanted]
    problems += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise ValueError(f"{source} is not of this backbone: {shown}")
    with torch.no_grad():
        backbone.load_state_dict(dict(state))
