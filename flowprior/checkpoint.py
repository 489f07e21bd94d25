"""Model files: safetensors with the configuration inside, written atomically."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from flowprior.file_kind import CHECKPOINT, SAFETENSORS, not_the_file
from flowprior.whole_file import write_whole

__all__ = [
    "FORMAT_VERSION",
    "CheckpointError",
    "ModelFile",
    "load",
    "load_tensors",
    "require_finite",
    "require_readable",
    "require_same_tensors",
    "save",
    "serialize",
]

FORMAT = "flowprior"
FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """A model file that cannot be used, and why."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        tensors: Weights and buffers by name.
        config: What is needed to build the model again; JSON types.
        provenance: Where the weights come from, in words for people.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    provenance: Mapping[str, str] = field(default_factory=dict)


def save(path: str | os.PathLike[str], model: ModelFile) -> None:
    """Write a model file atomically: an interruption leaves an existing file unchanged.

    Args:
        path: The file, in a folder that exists. A symbolic link is followed; an existing file
            keeps its permissions.
        model: Its content, tensors on any device. Tensors that share memory, such as tied weights,
            are stored once under each name.

    Raises:
        PermissionError: If the file is write-protected.
        OSError: If the file cannot be written.
        TypeError: If the configuration is not JSON.
        ValueError: If a tensor cannot be stored, such as a sparse one; the message names it.
    """
    write_whole(path, serialize(model))


def serialize(model: ModelFile) -> bytes:
    """The content of the file that :func:`save` writes; raises its TypeError and ValueError."""
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(dict(model.config)),
        "provenance": json.dumps(dict(model.provenance)),
    }
    return safetensors.torch.save(_unshared(model.tensors), metadata)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors stores them: dense, on the CPU, no two of them in one memory."""
    result: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
            raise ValueError(f"{name} is a {kind} tensor, which a model file cannot store")
        tensor = tensor.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if address in memory else tensor
        memory.add(address)
    return result


def load(path: str | os.PathLike[str]) -> ModelFile:
    """Read a model file.

    Args:
        path: A file written by :func:`save`.

    Returns:
        Its content, tensors on the CPU in memory of their own: what happens to the file later does
        not change them.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is truncated or damaged, is no flowprior model, or was written
            in a newer format.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is a safetensors file, but not a flowprior model")
        config, provenance = _read_header(path, metadata)
        return ModelFile(_tensors(file), config, provenance)


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], ModelFile | None]:
    """Read a safetensors file of any library.

    Args:
        path: The file.

    Returns:
        Its tensors, on the CPU in memory of their own; and what :func:`load` returns if
        :func:`save` wrote the file.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is truncated or damaged, or was written by a newer flowprior.
    """
    with _opened(path) as file:
        tensors, metadata = _tensors(file), file.metadata() or {}
    if metadata.get("format") != FORMAT:
        return tensors, None
    return tensors, ModelFile(tensors, *_read_header(path, metadata))


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A safetensors file, with errors in our words."""
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the model file itself")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        found = not_the_file(path)
        if found == CHECKPOINT:
            found += (
                ", not a flowprior model: ConditionalPosePrior.from_prohmr reads the original's"
            )
        if not found or found == SAFETENSORS:
            found = f"is truncated, damaged or no safetensors file ({error})"
        raise CheckpointError(f"{path} {found}") from error


def _tensors(file: Any) -> dict[str, Tensor]:  # noqa: ANN401, the library has no types
    # The library maps the file: without a copy, weights would change with it, and reading them
    # after the file was cut short would end the process.
    return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def _read_header(
    path: str | os.PathLike[str], metadata: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        version = int(metadata["format_version"])
        config = dict(json.loads(metadata["config"]))
        provenance = dict(json.loads(metadata.get("provenance", "{}")))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged flowprior header ({error!r})") from error
    require_readable(path, version)
    return config, provenance


def require_readable(path: str | os.PathLike[str], version: int) -> None:
    """Raise CheckpointError if a file's format is newer than what this library reads."""
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this flowprior reads up to {FORMAT_VERSION}: "
            "install a newer flowprior"
        )


def require_finite(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError, naming them, if tensors hold NaN or infinity."""
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise CheckpointError(f"{path} holds NaN or infinity in {', '.join(bad)}")


def require_same_tensors(
    path: str | os.PathLike[str], found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Raise CheckpointError, listing every difference, unless names and shapes agree."""
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in wanted]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its model: " + "; ".join(problems))
