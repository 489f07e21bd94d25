"""The folder of a training: made, cleared of half files, and never shared by two settings."""

import os
from collections.abc import Sequence
from pathlib import Path

from examples.training.checkpoints import remove_partials, write_text
from examples.training.settings import Settings, as_yaml, differences, read_settings

__all__ = ["CONFIG_FILE", "claim_folder"]

CONFIG_FILE = "config.yaml"


def claim_folder(out: Path, config: Settings, free: Sequence[str] = ()) -> None:
    """Make the folder, or see that what is there is of a training with the same settings.

    Only the first of several processes does anything.

    Args:
        out: The folder; ``checkpoints`` is made in it and the settings are written beside.
        config: All settings.
        free: Settings that a training that goes on may change.

    Raises:
        OSError: The folder cannot be made or written to.
        ValueError: It has a training with other settings; the message names them.
    """
    # Lightning tells the processes that it starts itself their local rank alone.
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) != 0:
        return
    folder, file = out / "checkpoints", out / CONFIG_FILE
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    if (folder / "last.ckpt").exists() and file.exists():
        changed = differences(read_settings(type(config), file), config, ignore=free)
        if changed:
            raise ValueError(
                f"{out} has a training with other settings "
                f"({'; '.join(f'{name} {change}' for name, change in changed.items())}); "
                "give those, or another --out"
            )
    write_text(file, as_yaml(config))
