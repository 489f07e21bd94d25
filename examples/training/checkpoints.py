"""Files that are whole or absent, whatever kills the program that writes them."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from flowprior import checkpoint
from flowprior.checkpoint import ModelFile, require_same_tensors

__all__ = [
    "WholeFiles",
    "load_weights",
    "not_written",
    "remove_partials",
    "save_weights",
    "whole_file",
    "write_text",
]

PARTIAL = ".partial"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place once it is written and on disk.

    If the block fails, the file is removed and whatever stood at ``path`` stays. If the process is
    killed, a file that ends in ``.partial`` is left; `remove_partials` clears those away.

    Args:
        path: The file to make or replace, in a folder that exists.

    Yields:
        The path to write to.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            # Of the file that was asked for, not of the half one beside it.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    # The new name must be on disk too before anyone relies on it.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_partials(folder: Path) -> None:
    """Delete what killed programs left in a folder; nobody else may be writing there."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def not_written(error: OSError) -> str:
    """What a training that ends because it cannot write a file, as on a full disk, has to say."""
    return f"error: {error}; what was written before is whole, the same command continues from it"


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def save_weights(path: Path, module: nn.Module) -> None:
    """Write weights and buffers as safetensors, whole or not at all."""
    checkpoint.save(path, ModelFile(module.state_dict(), {"class": type(module).__name__}))


def load_weights(path: Path, module: nn.Module) -> None:
    """Read what `save_weights` wrote into a module of the same class and sizes.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged or of another module.
    """
    content = checkpoint.load(path)
    require_same_tensors(path, content.tensors, module.state_dict())
    with torch.no_grad():
        module.load_state_dict(dict(content.tensors))


class WholeFiles(CheckpointIO):
    """Lightning's checkpoints, each whole on disk before it takes the place of the one before."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: What Lightning wants to keep.
            path: The file, which is replaced at once or not at all.
            storage_options: Not used.

        Raises:
            OSError: It cannot be written.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Into a file of Python's: on a full disk torch's own says nothing that helps.
        with whole_file(Path(path)) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,  # noqa: ANN401
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, executing nothing from it.

        Args:
            path: The file.
            map_location: Where its tensors go; the CPU if None.
            weights_only: Not used: always so.

        Returns:
            What was saved.
        """
        content: dict[str, Any] = torch.load(
            path, map_location=map_location or "cpu", weights_only=True
        )
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)
