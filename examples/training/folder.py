"""The folder of a training: its checkpoint to resume from, and its settings."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.training.checkpoints import LAST_FILE, PREVIOUS_FILE, WholeFiles
from examples.training.resuming import SETTINGS
from examples.training.settings import Settings, as_yaml, differences, settings_from_text
from examples.whole_files import write_text
from flowprior.files.model_file import CheckpointError
from flowprior.files.whole_file import remove_partials

__all__ = ["CONFIG_FILE", "checkpoint_of", "claim_folder"]

CONFIG_FILE = "config.yaml"
CHECKPOINTS = "checkpoints"


def checkpoint_of(out: Path) -> Path | None:
    """The checkpoint from which a training in a folder resumes; None for a new training.

    Every process gets the same result, even while the first one runs `claim_folder`.
    """
    folder = out / CHECKPOINTS
    found = any((folder / name).exists() for name in (LAST_FILE, PREVIOUS_FILE))
    return folder / LAST_FILE if found else None


def claim_folder(out: Path, config: Settings, free: Sequence[str] = ()) -> str | None:
    """Create the folder of a training, or prepare an existing one so that the training resumes.

    Deletes temporary files of killed programs. If ``last.ckpt`` is damaged or missing, the
    previous checkpoint replaces it. Only the first of several processes acts.

    Args:
        out: The folder; receives ``config.yaml`` and the subfolder ``checkpoints``.
        config: All settings.
        free: Settings that a resumed training may change.

    Returns:
        A message for the user if the last checkpoint was replaced by the previous one, else None.

    Raises:
        OSError: The folder cannot be created or written to.
        CheckpointError: No checkpoint is readable, but some exist.
        ValueError: The folder contains a training with other settings; the message names them.
    """
    # Processes that Lightning starts know their local rank only.
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) != 0:
        return None
    folder = out / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(out)
    message = None
    if checkpoint_of(out) is not None:
        content, message = _readable(folder / LAST_FILE, folder / PREVIOUS_FILE)
        before = settings_from_text(type(config), content[SETTINGS], str(folder / LAST_FILE))
        changed = differences(before, config, ignore=free)
        if changed:
            raise ValueError(
                f"{out} has a training with other settings "
                f"({'; '.join(f'{name} {change}' for name, change in changed.items())}); "
                "give those, or another --out"
            )
    write_text(out / CONFIG_FILE, as_yaml(config))
    return message


def _readable(last: Path, previous: Path) -> tuple[dict[str, Any], str | None]:
    """Read the last checkpoint; if it is unreadable, the previous one replaces it."""
    try:
        return _read(last), None
    except (FileNotFoundError, CheckpointError) as error:
        fault = str(error) if isinstance(error, CheckpointError) else f"{last} is missing"
    try:
        content = _read(previous)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{fault}; there is no checkpoint before it: delete the file to start from step 0"
        ) from error
    except CheckpointError as error:
        raise CheckpointError(
            f"{fault}; the checkpoint before it does not help: {error}; delete both files to start "
            "from step 0"
        ) from error
    os.replace(previous, last)
    step = content["global_step"]
    return content, f"{fault}: continuing from the checkpoint before it, step {step}"


def _read(path: Path) -> dict[str, Any]:
    content = WholeFiles().load_checkpoint(path)
    missing = [name for name in ("global_step", "state_dict", SETTINGS) if name not in content]
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint of this program: no {missing[0]} in it")
    return content
