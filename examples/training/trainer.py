"""The trainer shared by the programs: command line, processes, resuming, signals and results."""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import DDPStrategy, Strategy

from examples.command_line import DEVICES
from examples.training.checkpoints import WholeFiles, not_written
from examples.training.folder import checkpoint_of
from examples.training.resuming import Checkpoints
from examples.training.settings import AnySettings, read_settings
from examples.whole_files import write_json
from flowprior._console import escape_unencodable

__all__ = [
    "Outcome",
    "Trainer",
    "TrainerSettings",
    "add_arguments",
    "config_path",
    "settings_of",
]

RESULTS_FILE = "results.json"


class TrainerSettings(AnySettings, Protocol):
    """The settings that the trainer itself reads."""

    @property
    def steps(self) -> int:
        """Number of optimisation steps."""

    @property
    def batch_size(self) -> int:
        """Size of a batch, over all processes."""

    @property
    def precision(self) -> str:
        """Lightning's name of the precision."""

    @property
    def val_every(self) -> int:
        """Steps between two validations."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""

    @property
    def log_every(self) -> int:
        """Steps between two rows of the log."""

    @property
    def logger(self) -> str:
        """One of csv, tensorboard, none."""


Settings = TypeVar("Settings", bound=TrainerSettings)


@dataclass(frozen=True)
class Outcome:
    """A program's part of the results of a finished training.

    Args:
        data: Description of the training data, for ``results.json``.
        more: Further entries of ``results.json``.
        lines: Lines to print.
    """

    data: Mapping[str, object]
    more: Mapping[str, object] = field(default_factory=dict)
    lines: Sequence[str] = ()


def add_arguments(parser: argparse.ArgumentParser, configs: Path, default: str, out: Path) -> None:
    """Add the options that every training program has.

    Args:
        parser: The program's parser.
        configs: Folder of the settings that ship with the program.
        default: Name of the settings that are used without ``--config``.
        out: Folder of the results without ``--out``.
    """
    names = " or ".join(sorted(path.stem for path in configs.glob("*.yaml")))
    parser.add_argument(
        "--out", type=Path, default=out, metavar="DIR", help="folder of the results (%(default)s)"
    )
    parser.add_argument(
        "--config",
        default=default,
        metavar="FILE",
        help=f"a YAML file with every setting, or {names} (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="replaces the file's steps")
    parser.add_argument("--seed", type=int, metavar="N", help="replaces the file's seed")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="replaces any setting of the file"
    )


def config_path(configs: Path, name: str) -> Path:
    """The settings file with a name (a file in the folder ``configs``), or the path itself."""
    shipped = configs / f"{name}.yaml"
    return shipped if shipped.is_file() else Path(name)


def settings_of(kind: type[Settings], configs: Path, args: argparse.Namespace) -> Settings:
    """The settings that a command line selects.

    Args:
        kind: The program's dataclass of settings.
        configs: Folder of the settings that ship with the program.
        args: Values of the options of `add_arguments`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A setting is wrong, or the processes cannot share a batch equally.
    """
    path = config_path(configs, args.config)
    config = read_settings(kind, path, args.overrides, steps=args.steps, seed=args.seed)
    processes = _processes()
    if config.batch_size % processes:
        raise ValueError(
            f"batch_size {config.batch_size} cannot be shared by {processes} processes"
        )
    return config


class Trainer:
    """Trains one module in one folder, alone or as one of several processes.

    A resumed training equals an unbroken one: the folder's last checkpoint holds weights,
    optimisers, step and the settings. Claim the folder first (`examples.training.folder`).

    Args:
        config: All settings.
        out: Folder of the results.
        on_gpu: Whether to train on GPUs.
        monitor: Name of the validation metric whose least value makes a checkpoint the best;
            None if there is no validation.
        devices: Number of devices of a program that no launcher started, or "auto" for all GPUs.
        strategy: Class that averages the gradients of several processes, or a function that makes
            one.
        precision: Replaces the precision of the settings.
        clip: Greatest norm of the gradient; 0 does not clip.
        refresh_every: Steps between two lines of progress if stderr is not a terminal.

    Raises:
        ModuleNotFoundError: The logger's package is not installed.
    """

    def __init__(
        self,
        config: TrainerSettings,
        out: Path,
        *,
        on_gpu: bool,
        monitor: str | None,
        devices: str = "1",
        strategy: Callable[..., DDPStrategy] = DDPStrategy,
        precision: Precision | None = None,
        clip: float = 0.0,
        refresh_every: int = 100,
    ) -> None:
        escape_unencodable()
        self.config = config
        self.out = out
        self.device_type = "cuda" if on_gpu else "cpu"
        self.checkpoints = Checkpoints(
            out / "checkpoints",
            config,
            every=config.checkpoint_every,
            validate_every=None if monitor is None else min(config.val_every, config.steps),
            monitor=monitor or "",
        )
        processes = _processes()
        count: int | str = "auto" if on_gpu else 1
        nodes = 1
        if "LOCAL_WORLD_SIZE" in os.environ:
            count = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = processes // count
        elif devices != "auto":
            count = int(devices)
        wanted = torch.cuda.device_count() if count == "auto" else count
        several = processes > 1 or wanted != 1
        chosen: Strategy | str = "auto"
        if several:
            chosen = strategy(process_group_backend="nccl" if on_gpu else "gloo")
        logger: Logger | bool = False
        if config.logger == "csv":
            logger = CSVLogger(out, "logs")
        elif config.logger == "tensorboard":
            logger = TensorBoardLogger(out, "logs")
        plugins: list[Any] = [WholeFiles()] if precision is None else [WholeFiles(), precision]
        self.lightning = lightning.Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=count,
            num_nodes=nodes,
            strategy=chosen,
            sync_batchnorm=several and on_gpu,
            precision=config.precision if precision is None else None,  # type: ignore[arg-type]
            max_steps=config.steps,
            max_epochs=-1,
            val_check_interval=self.checkpoints.validate_every or config.steps,
            check_val_every_n_epoch=None,
            limit_val_batches=0 if monitor is None else None,
            num_sanity_val_steps=0,
            gradient_clip_val=clip or None,
            log_every_n_steps=config.log_every,
            logger=logger,
            enable_checkpointing=False,  # the callback below writes checkpoints
            callbacks=[
                TQDMProgressBar(refresh_rate=1 if sys.stderr.isatty() else refresh_every),
                self.checkpoints,
            ],
            plugins=plugins,
            use_distributed_sampler=False,
            enable_model_summary=False,
        )

    def announce(self, data: object, *notes: object) -> None:
        """Print the data, the device and the number of processes; notes go to stderr.

        Only the first process prints.

        Args:
            data: Description of the data.
            notes: Warnings; empty ones and None are left out.
        """
        if not self.lightning.is_global_zero:
            return
        for note in notes:
            if note:
                print(note, file=sys.stderr)
        print(f"{data}\ndevice {self.device_type}, processes {_processes()}", flush=True)

    def fit(self, module: lightning.LightningModule, save: Callable[[], Outcome]) -> int:
        """Train from the folder's last checkpoint to the last step, then write the results.

        Args:
            module: The module to train.
            save: Writes the trained weights, in the first process only; returns what to report.

        Returns:
            The exit code: 0 done, 1 if training stopped early or a file could not be written,
            130 if the user interrupted it.
        """
        start = time.perf_counter()
        with warnings.catch_warnings():
            # The programs choose their workers and their logging interval deliberately.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*logging interval.*")
            # Lightning's use of PyTorch.
            warnings.filterwarnings("ignore", message=".*treespec.*")
            try:
                self.lightning.fit(module, ckpt_path=checkpoint_of(self.out))
            except SystemExit:  # Lightning exits so when the user interrupts
                if not self.lightning.interrupted:
                    raise
                print("\ninterrupted; the same command continues", file=sys.stderr)
                return 130
            except OSError as error:
                print(f"\n{not_written(error)}", file=sys.stderr)
                return 1
        if self.lightning.global_step < self.config.steps:
            return 1
        try:
            if self.lightning.is_global_zero:
                seconds = time.perf_counter() - start
                self._report(save(), seconds)
        except OSError as error:
            print(f"\n{not_written(error)}", file=sys.stderr)
            return 1
        return 0

    def _report(self, outcome: Outcome, seconds: float) -> None:
        metrics = self.checkpoints.metrics
        results = {
            "data": outcome.data,
            "steps": self.config.steps,
            "seconds_of_last_run": round(seconds, 1),
            **outcome.more,
            "torch": torch.__version__,
            "metrics": metrics,
        }
        write_json(self.out / RESULTS_FILE, results)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        print(f"{self.config.steps} steps; {shown or 'no validation'}")
        for line in outcome.lines:
            print(line)
        print(f"results are in {self.out}")


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
