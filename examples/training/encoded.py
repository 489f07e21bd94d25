"""A network and the prior that it conditions, in one folder of two files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from flowprior import ConditionalPosePrior, checkpoint
from flowprior.checkpoint import CheckpointError, ModelFile, require_plausible

__all__ = ["ENCODER_FILE", "PRIOR_FILE", "load_encoded", "save_encoded"]

ENCODER_FILE = "encoder.safetensors"
PRIOR_FILE = "prior.safetensors"


class Encoded(Protocol):
    """A model of a network and a prior."""

    config: dict[str, Any]
    prior: ConditionalPosePrior

    def network_modules(self) -> nn.Module:
        """What the first file holds the weights of."""

    def eval(self) -> object:
        """Go into evaluation mode, as every module can."""

    def to(self, device: torch.device | str, /) -> object:
        """Move to a device, as every module can."""


Model = TypeVar("Model", bound=Encoded)


def save_encoded(model: Encoded, folder: Path) -> None:
    """Write ``prior.safetensors`` and ``encoder.safetensors`` to an existing folder.

    Raises:
        OSError: They cannot be written.
    """
    tensors = model.network_modules().state_dict()
    checkpoint.save(folder / ENCODER_FILE, ModelFile(tensors, model.config))
    model.prior.save(folder / PRIOR_FILE)


def load_encoded(
    make: Callable[..., Model], folder: Path, device: torch.device | str = "cpu"
) -> Model:
    """Read a model written by `save_encoded`, in evaluation mode.

    Args:
        make: Makes the model of its configuration.
        folder: The folder with the two files.
        device: Where its weights shall be.

    Raises:
        FileNotFoundError: One of the files is missing.
        CheckpointError: A file is damaged, or they are not from one model.
    """
    file = checkpoint.load(folder / ENCODER_FILE)
    prior = ConditionalPosePrior.load(folder / PRIOR_FILE)
    require_plausible(
        folder / ENCODER_FILE,
        file.config,
        {**file.tensors, **{f"prior.{name}": each for name, each in prior.state_dict().items()}},
    )
    try:
        model = make(**file.config)
        model.network_modules().load_state_dict(dict(file.tensors))
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{folder / ENCODER_FILE} is not an encoder: {error}") from error
    expected = model.prior.config
    model.prior = prior
    if model.prior.config != expected:
        raise CheckpointError(f"{folder}: encoder and prior are not from one model")
    model.eval()
    model.to(device)
    return model
