"""Schedule and content of the checkpoints of a training.

The last checkpoint is written after everything that belongs to its step: the step, its validation,
and the best checkpoint. So a resumed training neither repeats nor skips a validation, and ends with
the files of an unbroken run.
"""

import math
from pathlib import Path
from typing import Any

import lightning

from examples.training.checkpoints import BEST_FILE, LAST_FILE
from examples.training.settings import AnySettings, as_yaml

__all__ = ["SETTINGS", "Checkpoints"]

SETTINGS = "settings"
"""Key of the training's settings in a checkpoint, as YAML."""


class Checkpoints(lightning.Callback):
    """Writes ``last.ckpt`` and ``best.ckpt``, and keeps the metrics of the latest validation.

    Args:
        folder: Folder of the checkpoints.
        config: All settings, which are stored in every checkpoint.
        every: Steps between two writes of ``last.ckpt``; the last step of a training always writes.
        validate_every: Steps between two validations; None if there is none.
        monitor: Name of the metric whose least value makes a checkpoint the best.

    Attributes:
        metrics: Metrics of the latest validation, by name.
        best: Least value of the monitored metric so far.
    """

    def __init__(
        self,
        folder: Path,
        config: AnySettings,
        *,
        every: int,
        validate_every: int | None,
        monitor: str,
    ) -> None:
        self.folder = folder
        self.config = config
        self.every = every
        self.validate_every = validate_every
        self.monitor = monitor
        self.metrics: dict[str, float] = {}
        self.best: float | None = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object
    ) -> None:
        """Write the last checkpoint, unless a validation comes first."""
        validates = (
            self.validate_every is not None and trainer.global_step % self.validate_every == 0
        )
        if not validates:
            self._write_last(trainer)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Store the metrics; write the best checkpoint after an improvement, then the last one."""
        self.metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val_")
        }
        value = self.metrics.get(self.monitor)
        if value is not None:
            value = math.inf if math.isnan(value) else value
            if self.best is None or value < self.best:
                self.best = value
                trainer.save_checkpoint(self.folder / BEST_FILE, weights_only=False)
        self._write_last(trainer)

    def _write_last(self, trainer: lightning.Trainer) -> None:
        step = trainer.global_step
        if step % self.every == 0 or step >= trainer.max_steps:
            # Buffered rows of a logger would be missing after a resume.
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(self.folder / LAST_FILE, weights_only=False)

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add the settings."""
        checkpoint[SETTINGS] = as_yaml(self.config)

    def state_dict(self) -> dict[str, Any]:
        """Metrics and the best value."""
        return {"metrics": self.metrics, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.metrics = dict(state_dict["metrics"])
        self.best = state_dict["best"]
