"""Folders with one model file per block."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from flowprior.files import model_file
from flowprior.files.limits import MAX_CONFIG_BYTES, read_json
from flowprior.files.model_file import CheckpointError
from flowprior.files.whole_file import whole_file
from flowprior.prior.blocks.checks import require_trainable
from flowprior.prior.blocks.layout import BLOCKS
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePrior

__all__ = ["MIRRORED", "read_blocks", "write_blocks"]

MIRRORED = "mirrored"
"""What stands for the prior of a hand that is the mirror image of the other."""

MANIFEST = "blocks.json"


def write_blocks(
    folder: str | os.PathLike[str], blocks: Mapping[str, PosePrior | str | None]
) -> None:
    """Write the blocks of :data:`flowprior.prior.BLOCKS`; see ``BlockPrior.save_pretrained``.

    Args:
        folder: The folder.
        blocks: A prior, `MIRRORED` or None for each block.

    Raises:
        OSError: If a file cannot be written.
        TypeError: If a block is frozen.
    """
    found: dict[str, str | None] = {}
    contents: dict[str, bytes] = {}
    for name, block in blocks.items():
        if not isinstance(block, PosePrior):
            found[name] = block
            continue
        found[name] = f"{name}.safetensors"
        content = require_trainable(name, block)._content()
        contents[f"{name}.safetensors"] = model_file.serialize(content)
    manifest = {"format_version": model_file.FORMAT_VERSION, "blocks": found}
    contents = {MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode(), **contents}
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for file, data in contents.items():
            stack.enter_context(whole_file(place / file)).write_bytes(data)


def read_blocks(
    folder: str | os.PathLike[str], device: torch.device | str
) -> dict[str, PosePrior | str | None]:
    """Read what `write_blocks` wrote.

    Args:
        folder: The folder.
        device: Device of the weights.

    Returns:
        The blocks.

    Raises:
        FileNotFoundError: If the folder or one of its files does not exist.
        CheckpointError: If a file is damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST}: a BlockPrior is a folder with one model file per "
            "block; ConditionalPosePrior reads single models"
        )
    try:
        found = dict(read_json(path, MAX_CONFIG_BYTES))
        version, named = int(found["format_version"]), dict(found["blocks"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error
    model_file.require_readable(path, version)
    blocks: dict[str, PosePrior | str | None] = {}
    for name in BLOCKS:
        value = named.get(name)
        if value == f"{name}.safetensors":
            blocks[name] = ConditionalPosePrior.load(path.parent / value, device)
        elif value is None or (value == MIRRORED and name != "body"):
            blocks[name] = value
        else:
            raise CheckpointError(f"{path} is damaged ({name} is {value!r:.80})")
    return blocks
