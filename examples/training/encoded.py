"""Model files that contain a network and the prior that it conditions."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from flowprior import ConditionalPosePrior
from flowprior._modes import lasting
from flowprior.files import model_file
from flowprior.files.model_file import (
    CheckpointError,
    ModelFile,
    require_plausible,
    require_same_tensors,
)

__all__ = ["MODEL_FILE", "load_encoded", "save_encoded"]

MODEL_FILE = "model.safetensors"


class Encoded(Protocol):
    """A model with a network and a prior."""

    config: dict[str, Any]
    prior: ConditionalPosePrior

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and buffers of both."""

    def load_state_dict(self, state_dict: dict[str, Tensor], /) -> object:
        """Load weights and buffers of both."""

    def eval(self) -> object:
        """Set evaluation mode."""

    def to(self, device: torch.device | str, /) -> object:
        """Move to a device."""


Model = TypeVar("Model", bound=Encoded)


def save_encoded(model: Encoded, folder: Path) -> None:
    """Write ``model.safetensors`` to an existing folder, atomically.

    One file holds network and prior, so that a crash cannot leave parts of two models.

    Raises:
        OSError: The file cannot be written.
    """
    config = {"class": type(model).__name__, **model.config}
    model_file.save(folder / MODEL_FILE, ModelFile(model.state_dict(), config))


@lasting()
def load_encoded(
    make: Callable[..., Model],
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    before: Mapping[str, object] | None = None,
) -> Model:
    """Read a model written by `save_encoded`, in evaluation mode.

    Args:
        make: The model's class, which takes its configuration.
        folder: The folder with the file.
        device: Device of the weights.
        before: Values of configuration entries that older files lack.

    Raises:
        FileNotFoundError: The file is missing.
        CheckpointError: The file is damaged, or holds a model of another class.
    """
    path = folder / MODEL_FILE
    content = model_file.load(path)
    config = dict(content.config)
    found, wanted = config.pop("class", None), getattr(make, "__name__", str(make))
    if found != wanted:
        raise CheckpointError(f"{path} holds a {found or 'model of another kind'}, not a {wanted}")
    config = {**(before or {}), **config}
    require_plausible(path, config, content.tensors)
    try:
        model = make(**config)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{path} has a configuration of no {wanted}: {error}") from error
    require_same_tensors(path, content.tensors, model.state_dict())
    model.load_state_dict(dict(content.tensors))
    model.eval()
    model.to(device)
    return model
