"""Models in folders and on the Hugging Face Hub: ``save_pretrained`` and ``from_pretrained``.

The files are those of ``huggingface_hub``'s ``PyTorchModelHubMixin``: ``config.json``,
``model.safetensors`` and ``README.md``. Classes that use the mixin can read them, and this module
reads the files of such classes. It imports ``huggingface_hub`` only to access the hub.
"""

import contextlib
import json
import os
import re
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from flowprior.files import limits, model_file
from flowprior.files.limits import read_json
from flowprior.files.model_card import ModelCard
from flowprior.files.model_file import CheckpointError, ModelFile
from flowprior.files.whole_file import remove_partials, whole_file

__all__ = ["BUNDLED", "HEADER_KEYS", "SharedModel", "read_folder", "write_folder"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
LIBRARY = "flowprior"

BUNDLED = {
    f"flowprior/{name}": Path(__file__).parents[1] / "assets" / name
    for name in ("people", "body-pose", "hands-procedural", "motion")
}
"""Models that ship with the library, by name; loading them needs no network."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Entries by which the configurations of other libraries identify themselves.
HEADER_KEYS = ("library_name", "library_version", "format_version")
"""Keys of ``config.json`` that describe the file, not the model."""

_FOREIGN = ("library_name", "model_type", "architectures", "_class_name")

Model = TypeVar("Model", bound="SharedModel")


class SharedModel(nn.Module):
    """A model that can be saved to a folder, pushed to the Hugging Face Hub, and loaded again.

    Attributes:
        config: Arguments from which the model can be built; JSON types.
        provenance: Description of the origin of the weights.
    """

    config: dict[str, Any]
    provenance: dict[str, str]

    @classmethod
    @abstractmethod
    def _from_file(
        cls: type[Model],
        path: str | os.PathLike[str],
        content: ModelFile,
        device: torch.device | str,
    ) -> Model:
        """Build the model, in evaluation mode; CheckpointError if the content is of another one."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,  # noqa: ANN401
    ) -> str | None:
        """Write ``model.safetensors``, ``config.json`` and a model card ``README.md`` to a folder.

        All files are written before the first of them replaces an older one. If the call is
        interrupted, the folder contains either the old model or the new one: the weights file
        includes the configuration, from which :meth:`from_pretrained` builds the model. An existing
        card is kept unless ``model_card_kwargs`` are given.

        Args:
            save_directory: The folder, created if it does not exist.
            repo_id: ``"user/name"`` on the hub; the folder's name if None.
            push_to_hub: Whether to upload the model too.
            model_card_kwargs: Arguments of :class:`flowprior.files.model_card.ModelCard`:
                ``license``, ``description``, ``data``, ``metrics``, ...
            **push_to_hub_kwargs: Additional arguments of :meth:`push_to_hub`.

        Returns:
            The URL of the commit with ``push_to_hub``, otherwise None.

        Raises:
            PermissionError: If one of the files is write-protected.
            OSError: If the files cannot be written.
            TypeError: If ``model_card_kwargs`` contains an unknown argument.
            ValueError: If a metric of the card is not a finite number.
            ImportError: If ``push_to_hub`` is True and ``huggingface_hub`` is missing.
        """
        if push_to_hub_kwargs and not push_to_hub:
            names = ", ".join(push_to_hub_kwargs)
            raise TypeError(f"save_pretrained takes {names} only with push_to_hub=True")
        folder = Path(save_directory)
        if push_to_hub:
            _hub()  # raises before anything is written if the package is missing
        card = ModelCard(**model_card_kwargs or {})
        text = card.text(repo_id or folder.resolve().name, self.config, f"{LIBRARY} {_version()}")
        replace = bool(model_card_kwargs)
        write_folder(folder, self._content(), text, replace_card=replace)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.resolve().name,
            model_card_kwargs=model_card_kwargs,
            **push_to_hub_kwargs,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model using flowprior",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload the three files of :meth:`save_pretrained` to the Hugging Face Hub, as one commit.

        Args:
            repo_id: ``"user/name"``; the repository is created if it does not exist.
            commit_message: Message of the commit.
            private: Whether a new repository is private; the account's default if None.
            token: Token of the account; the one stored by ``hf auth login`` if None.
            branch: The branch to push to; ``main`` if None.
            create_pr: Whether to open a pull request instead.
            model_card_kwargs: As for :meth:`save_pretrained`.

        Returns:
            The URL of the commit.

        Raises:
            ImportError: If ``huggingface_hub`` is missing.
            OSError: If the hub cannot be reached or rejects the upload.
        """
        api = _hub().HfApi(token=token)
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id, model_card_kwargs=model_card_kwargs)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
            )
        return str(commit)

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> Model:
        """Read a model from a folder, from the library itself, or from the Hugging Face Hub.

        Reading executes nothing inside the files.

        Args:
            pretrained_model_name_or_path: A folder written by :meth:`save_pretrained`; otherwise a
                name in :data:`BUNDLED`, such as ``"flowprior/people"``; otherwise ``"user/name"``
                on the hub.
            force_download: Whether to download files that are already in the hub's cache.
            token: Token of an account; the one stored by ``hf auth login`` if None.
            cache_dir: The hub's cache.
            local_files_only: Whether to use only the cache.
            revision: Branch, tag or commit on the hub; ``main`` if None.
            device: Device of the weights.

        Returns:
            The model, in evaluation mode and in the dtype it was saved in.

        Raises:
            FileNotFoundError: If the folder, the name or the revision does not exist.
            ConnectionError: If the hub cannot be reached and the cache lacks the model.
            ImportError: If the model is on the hub and ``huggingface_hub`` is missing.
            CheckpointError: If the files are damaged, of another library or model, or in a newer
                format, or contain NaN or infinity.
        """
        name = os.fspath(pretrained_model_name_or_path)
        folder = Path(name)
        if not folder.is_dir():
            if folder.exists():
                raise CheckpointError(
                    f"{name} is a file; from_pretrained takes a folder, {cls.__name__}.load a file"
                )
            if name in BUNDLED:
                folder = BUNDLED[name]
            elif isinstance(pretrained_model_name_or_path, str) and _HUB_NAME.fullmatch(name):
                folder = _download(
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                )
            else:
                raise FileNotFoundError(
                    f"{name}: no such folder; models of the library are {', '.join(BUNDLED)}, "
                    "those on the Hugging Face Hub are user/name"
                )
        content = read_folder(folder)
        return cls._from_file(folder, content, device)

    def _content(self) -> ModelFile:
        return ModelFile(self.state_dict(), self.config, self.provenance)


def write_folder(folder: Path, model: ModelFile, card: str, *, replace_card: bool) -> None:
    """Write a model's files; an interruption leaves either the old model or the new one.

    Args:
        folder: The folder, created if it does not exist.
        model: Weights and configuration.
        card: Text of ``README.md``.
        replace_card: Whether to replace an existing card.

    Raises:
        PermissionError: If one of the files is write-protected.
        OSError: If a file cannot be written.
        TypeError: If the configuration is not JSON.
    """
    config = {
        "library_name": LIBRARY,
        "library_version": _version(),
        "format_version": model_file.FORMAT_VERSION,
        **model.config,
    }
    contents = {
        CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode(),
        WEIGHTS_FILE: model_file.serialize(model),
    }
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder, CARD_FILE)  # writing the other files removes theirs
    if replace_card or not (folder / CARD_FILE).exists():
        # The card contains the folder's name, which may not be valid text.
        contents = {CARD_FILE: card.encode(errors="backslashreplace"), **contents}
    # Nothing is replaced before everything is written. The stack unwinds from its end, so the
    # weights are replaced first: they include the configuration, which the other files repeat.
    with contextlib.ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(whole_file(folder / name)).write_bytes(content)


def read_folder(folder: Path) -> ModelFile:
    """Read a model's files, written by this module or by ``PyTorchModelHubMixin``.

    If flowprior wrote the weights file, its configuration is used, and ``config.json`` only repeats
    it for other readers. If the two differ, as after an interrupted save, a warning lists the
    differences.

    Args:
        folder: An existing folder.

    Returns:
        Weights and configuration.

    Raises:
        CheckpointError: If files are missing, damaged, of another library or in a newer format.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise _missing(folder, WEIGHTS_FILE)
    config = _read_config(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else None
    tensors, inside = model_file.load_tensors(folder / WEIGHTS_FILE)
    if inside is None:
        if config is None:
            raise _missing(folder, CONFIG_FILE)
        return ModelFile(tensors, config)
    if config is not None and inside.config != config:
        keys = sorted({*config, *inside.config})
        differ = [key for key in keys if config.get(key) != inside.config.get(key)]
        warnings.warn(
            f"{folder}: {CONFIG_FILE} and {WEIGHTS_FILE} differ in {', '.join(differ)}. The model "
            f"is built from the configuration in {WEIGHTS_FILE}; save_pretrained makes both agree",
            stacklevel=3,
        )
    return inside


def _missing(folder: Path, name: str) -> CheckpointError:
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    return CheckpointError(
        f"{folder} has no {name}, so save_pretrained did not write it; it contains {found}"
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = dict(read_json(path, limits.MAX_CONFIG_BYTES))
        format_version = int(config.pop("format_version", 1))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if config.get("library_name", LIBRARY) != LIBRARY or "context_features" not in config:
        says = {key: config[key] for key in _FOREIGN if key in config}
        raise CheckpointError(
            f"{path} is the configuration of another library's model ({says or 'it names none'}), "
            "not of a flowprior prior"
        )
    model_file.require_readable(path, format_version)
    return {key: value for key, value in config.items() if key not in HEADER_KEYS}


def _version() -> str:
    return version(LIBRARY)


def _hub() -> Any:  # noqa: ANN401, it may not be there
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "access to the Hugging Face Hub needs the package huggingface_hub, which is missing: "
            "pip install 'flowprior[hub]'. Local folders do not need it"
        ) from error
    return huggingface_hub


def _download(name: str, **options: Any) -> Path:  # noqa: ANN401
    """Download one revision of a model; returns its folder in the hub's cache."""
    try:
        hub = _hub()
    except ImportError as error:
        raise ImportError(f"{name} is not a folder here; {error}") from error
    errors = hub.errors
    try:
        folder = hub.snapshot_download(
            name, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE], library_name=LIBRARY, **options
        )
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{name} is gated on the Hugging Face Hub: ask for access there, then run "
            "'hf auth login' or pass token="
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        at = f" at revision {options['revision']!r}" if options["revision"] else ""
        raise FileNotFoundError(
            f"{name}{at} is neither a folder here nor a model on the Hugging Face Hub; a private "
            "one needs 'hf auth login' or token="
        ) from error
    except errors.HFValidationError as error:
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a valid name on the hub"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ConnectionError(
            f"{name} is neither a folder here nor in the Hugging Face cache, and the hub was not "
            "reached (no network, HF_HUB_OFFLINE, or local_files_only): connect once, or pass a "
            "folder"
        ) from error
    return Path(folder)
