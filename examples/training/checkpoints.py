"""Atomic checkpoints of trainings; the last one keeps its predecessor."""

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from flowprior.files import model_file
from flowprior.files.model_file import CheckpointError, ModelFile, require_same_tensors
from flowprior.files.whole_file import whole_file

__all__ = [
    "BEST_FILE",
    "LAST_FILE",
    "PREVIOUS_FILE",
    "WholeFiles",
    "load_weights",
    "not_written",
    "save_weights",
]

LAST_FILE = "last.ckpt"
PREVIOUS_FILE = "previous.ckpt"
BEST_FILE = "best.ckpt"


def not_written(error: OSError) -> str:
    """The message of a training that cannot write a file, as on a full disk."""
    return f"error: {error}; what was written before is whole, the same command continues from it"


def save_weights(path: Path, module: nn.Module) -> None:
    """Write weights and buffers as safetensors, atomically."""
    model_file.save(path, ModelFile(module.state_dict(), {"class": type(module).__name__}))


def load_weights(path: Path, module: nn.Module) -> None:
    """Load weights of `save_weights` into a module of the same class and sizes.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is damaged or belongs to another module.
    """
    content = model_file.load(path)
    require_same_tensors(path, content.tensors, module.state_dict())
    with torch.no_grad():
        module.load_state_dict(dict(content.tensors))


class WholeFiles(CheckpointIO):
    """Reads and writes Lightning's checkpoints atomically.

    A new ``last.ckpt`` replaces the old one only when it is complete on disk, and the old one
    becomes ``previous.ckpt``.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Lightning's content.
            path: The file, which is replaced atomically.
            storage_options: Not used.

        Raises:
            OSError: The file cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            # torch hides the cause of a failure on a full disk, but not with a Python file.
            with partial.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:
                    if isinstance(error.__context__, OSError):
                        raise error.__context__ from None
                    raise
                os.fsync(file.fileno())
            if path.name == LAST_FILE and path.exists():
                _keep(path, path.with_name(PREVIOUS_FILE))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,  # noqa: ANN401
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, executing nothing from it.

        Args:
            path: The file.
            map_location: Device of the tensors; the CPU if None.
            weights_only: Not used: always True.

        Returns:
            The content of the checkpoint.

        Raises:
            FileNotFoundError: The file does not exist.
            CheckpointError: The file is damaged or not a checkpoint.
        """
        try:
            # torch does not verify the checksums of the records.
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            content: dict[str, Any] = torch.load(
                path, map_location=map_location or "cpu", weights_only=True
            )
        except FileNotFoundError:
            raise
        # On damaged bytes torch, zipfile and pickle raise almost anything.
        except Exception as error:
            size = Path(path).stat().st_size
            raise CheckpointError(
                f"{path} ({size} bytes) is truncated, damaged or not a checkpoint "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} is not a checkpoint, but holds a {type(content)}")
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, if it exists."""
        Path(path).unlink(missing_ok=True)


def _keep(last: Path, previous: Path) -> None:
    """Add a second name to a file, so that the first name exists at every moment."""
    with contextlib.suppress(OSError), whole_file(previous) as partial:
        partial.unlink()  # a link must be a new name
        os.link(last, partial)
        return
    # Without hard links, only the previous file exists for a moment.
    os.replace(last, previous)
