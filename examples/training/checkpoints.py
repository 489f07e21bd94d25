"""Checkpoints of trainings: each complete on disk, the last one with its predecessor."""

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
    """The message of a training that ends because a file cannot be written, as on a full disk."""
    return f"error: {error}; what was written before is whole, the same command continues from it"


def save_weights(path: Path, module: nn.Module) -> None:
    """Write weights and buffers as safetensors, atomically."""
    model_file.save(path, ModelFile(module.state_dict(), {"class": type(module).__name__}))


def load_weights(path: Path, module: nn.Module) -> None:
    """Read what `save_weights` wrote into a module of the same class and sizes.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: It is damaged or of another module.
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
            OSError: It cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            # Into a file of Python's: on a full disk torch's own says nothing that helps.
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
            map_location: Where its tensors go; the CPU if None.
            weights_only: Not used: always so.

        Returns:
            What was saved.

        Raises:
            FileNotFoundError: The file does not exist.
            CheckpointError: It is damaged, or not a checkpoint.
        """
        try:
            # torch does not compare the records with their checksums.
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
                f"{path} ({size} bytes) is cut short, damaged or not a checkpoint "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} is not a checkpoint, but holds a {type(content)}")
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def _keep(last: Path, previous: Path) -> None:
    """Give a file a second name, so that the first one exists at every moment."""
    with contextlib.suppress(OSError), whole_file(previous) as partial:
        partial.unlink()  # a link must be a new name
        os.link(last, partial)
        return
    # A file system without hard links: a reader then finds the previous file alone for a moment.
    os.replace(last, previous)
