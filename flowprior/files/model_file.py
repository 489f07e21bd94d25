"""Model files: safetensors that include the configuration, written atomically."""

import contextlib
import json
import math
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from flowprior._modes import lasting
from flowprior.files import limits
from flowprior.files.file_kind import CHECKPOINT, SAFETENSORS, not_the_file
from flowprior.files.limits import Refusal, parse_json, require_regular
from flowprior.files.whole_file import write_whole

__all__ = [
    "FORMAT_VERSION",
    "CheckpointError",
    "ModelFile",
    "load",
    "load_tensors",
    "require_finite",
    "require_plausible",
    "require_readable",
    "require_same_tensors",
    "save",
    "serialize",
    "uncompiled",
]

FORMAT = "flowprior"
FORMAT_VERSION = 1


# torch.compile(module) stores the module as an attribute with this name.
_COMPILED = re.compile(r"(?<![^.])_orig_mod\.")
# Weights of other dtypes, such as 8-bit ones, load but cannot be used for computation.
_WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class CheckpointError(ValueError):
    """A model file cannot be used; the message gives the reason."""


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file.

    Attributes:
        tensors: Weights and buffers by name.
        config: Arguments from which the model can be built again; JSON types.
        provenance: Description of the origin of the weights.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    provenance: Mapping[str, str] = field(default_factory=dict)


def save(path: str | os.PathLike[str], model: ModelFile) -> None:
    """Write a model file atomically: an interruption leaves an existing file unchanged.

    Args:
        path: The file, in an existing folder. Symbolic links are followed; an existing file keeps
            its permissions.
        model: The content, with tensors on any device. Tensors that share memory, such as tied
            weights, are stored once under each name.

    Raises:
        PermissionError: If the file is write-protected.
        OSError: If the file cannot be written.
        TypeError: If the configuration is not JSON.
        ValueError: If a tensor cannot be stored, such as a sparse one; the message names it.
    """
    write_whole(path, serialize(model))


def serialize(model: ModelFile) -> bytes:
    """Encode the content of the file that :func:`save` writes.

    Args:
        model: As for :func:`save`.

    Returns:
        The bytes of a safetensors file.

    Raises:
        TypeError: If the configuration is not JSON.
        ValueError: If a tensor cannot be stored, such as a sparse one; the message names it.
    """
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(dict(model.config)),
        "provenance": json.dumps(dict(model.provenance)),
    }
    return safetensors.torch.save(_unshared(model.tensors), metadata)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert tensors to what safetensors stores: dense, on the CPU, without shared memory."""
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


@lasting()
def load(path: str | os.PathLike[str]) -> ModelFile:
    """Read a model file.

    Args:
        path: A file written by :func:`save`.

    Returns:
        The content, with tensors on the CPU. They own their memory, so later changes to the file
        do not affect them.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is truncated or damaged, is not a flowprior model, or was
            written in a newer format.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is a safetensors file, but not a flowprior model")
        config, provenance = _read_header(path, metadata)
        return ModelFile(uncompiled(path, _tensors(file)), config, provenance)


@lasting()
def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], ModelFile | None]:
    """Read a safetensors file written by any library.

    Args:
        path: The file.

    Returns:
        The tensors, on the CPU, which own their memory; and the result of :func:`load` if
        :func:`save` wrote the file, otherwise None.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is truncated or damaged, or was written by a newer flowprior.
    """
    with _opened(path) as file:
        tensors, metadata = uncompiled(path, _tensors(file)), file.metadata() or {}
    if metadata.get("format") != FORMAT:
        return tensors, None
    return tensors, ModelFile(tensors, *_read_header(path, metadata))


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a safetensors file; convert errors to CheckpointError."""
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; pass the model file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    require_regular(path, CheckpointError)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    # safetensors raises the other types if PyTorch lacks the dtype of a tensor.
    except (safetensors.SafetensorError, AttributeError, RuntimeError, TypeError) as error:
        found = not_the_file(path)
        if found == CHECKPOINT:
            found += ", not a flowprior model: flowprior.prohmr.load_prior reads ProHMR's"
        if not found or found == SAFETENSORS:
            found = f"is truncated, damaged or not a safetensors file ({error})"
        raise CheckpointError(f"{path} {found}") from error


def _tensors(file: Any) -> dict[str, Tensor]:  # noqa: ANN401, the library has no types
    # safetensors maps the file into memory. Without a copy, changes to the file would change the
    # weights, and reading them after the file was truncated would kill the process.
    return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def _read_header(
    path: str | os.PathLike[str], metadata: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        version = int(metadata["format_version"])
        config = dict(_parsed(metadata["config"]))
        provenance = dict(_parsed(metadata.get("provenance", "{}")))
    except (KeyError, TypeError, ValueError, Refusal) as error:
        raise CheckpointError(
            f"{path} has a damaged flowprior header ({type(error).__name__}: {error!s:.200})"
        ) from error
    require_readable(path, version)
    return config, provenance


def _parsed(text: str) -> Any:  # noqa: ANN401
    if len(text) > limits.MAX_CONFIG_BYTES:
        raise Refusal(f"has {len(text)} characters")
    return parse_json(text)


def uncompiled(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the ``_orig_mod`` that ``torch.compile`` inserts into the names of tensors.

    Args:
        path: The file of the tensors, for error messages.
        tensors: Tensors by name, with ``_orig_mod`` at any place in the names.

    Returns:
        The tensors by their original names.

    Raises:
        CheckpointError: If two tensors would have the same name.
    """
    found = {_COMPILED.sub("", name): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise CheckpointError(
            f"{path} contains weights of a compiled and of another module under the same name"
        )
    return found


def require_plausible(
    path: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Check that the tensors of a file suffice for its configuration, before building the model.

    Building the model first would take any time and memory that the file demands.

    Args:
        path: The file, for error messages.
        config: Arguments of the model, possibly nested.
        tensors: Weights by name.

    Raises:
        CheckpointError: If the configuration describes a model with more weights or layers.
    """
    sizes = list(_sizes(config))
    numbers = sum(tensor.numel() for tensor in tensors.values())
    layers = math.prod(max(1, size) for name, size in sizes if name in ("num_steps", "num_blocks"))
    for name, size in sizes:
        if size > (len(tensors) if name.endswith(("_steps", "_blocks")) else numbers):
            raise CheckpointError(
                f"{path} does not fit its model: {name} is {reprlib.repr(size)}, but the file has "
                f"only {len(tensors)} tensors with {numbers} numbers"
            )
    if layers > len(tensors):
        raise CheckpointError(
            f"{path} does not fit its model: num_steps and num_blocks ask for {layers} layers, "
            f"but the file has only {len(tensors)} tensors"
        )


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield str(name), value


def require_readable(path: str | os.PathLike[str], version: int) -> None:
    """Raise CheckpointError if this library is too old to read a file's format version."""
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this flowprior reads up to {FORMAT_VERSION}: "
            "install a newer flowprior"
        )


def require_finite(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if tensors contain NaN or infinity; the message names them."""
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
    """Raise CheckpointError unless names, shapes and dtypes agree; the message lists differences.

    Weights may have any floating-point dtype that PyTorch computes with.
    """
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in wanted]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems += [
        f"{name} is of {found[name].dtype}"
        for name, tensor in wanted.items()
        if name in found and not _same_kind(found[name].dtype, tensor.dtype)
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its model: " + "; ".join(problems))


def _same_kind(found: torch.dtype, wanted: torch.dtype) -> bool:
    return found in _WEIGHT_DTYPES if wanted.is_floating_point else found == wanted
