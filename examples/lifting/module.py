"""The Lightning module: step k depends on the weights and k only.

Views, noise and dropout of a step come from a seed of (seed, step, process). After an
interruption, the steps after the last checkpoint are repeated exactly.
"""

from collections.abc import Iterator

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from examples.data.virtual_views import Views
from examples.lifting.config import Config
from examples.lifting.judging import error_mm
from examples.lifting.methods import TrainedLifter
from examples.lifting.phases import Phase, phase_of
from examples.lifting.views import ViewSource
from examples.training.seeds import seed_of

__all__ = ["LiftingModule", "StepNumbers", "make_lifter"]

VIEWS_PER_CHUNK = 500


def make_lifter(config: Config, source: ViewSource, device: torch.device | str) -> TrainedLifter:
    """Create a lifter, and set its input statistics and flow scale from data.

    The result is the same in every process with the same arguments.

    Args:
        config: All settings.
        source: Training views.
        device: Device of these views.

    Returns:
        The lifter, on that device, in training mode.
    """
    torch.manual_seed(seed_of(config.seed, 0))
    lifter = config.make().to(device).train()
    generator = torch.Generator(device).manual_seed(seed_of(config.seed, 1))
    lifter.keypoint_reader.fit(source.draw(max(10_000, config.batch_size), generator).keypoints)
    with torch.no_grad():
        part = phase_of(0, config.steps, lifter.regressor_share).part
        lifter.loss_of(part, source.draw(max(2, config.batch_size), generator))
    return lifter


class LiftingModule(lightning.LightningModule):
    """A lifter with its optimisation.

    Args:
        lifter: From `make_lifter`.
        config: All settings.
        source: Training views.
        held_out: Validation views of held-out subjects; None for no validation.
    """

    def __init__(
        self,
        lifter: TrainedLifter,
        config: Config,
        source: ViewSource,
        held_out: Views | None = None,
    ) -> None:
        super().__init__()
        self.lifter = lifter
        self.config = config
        self.source = source
        self.held_out = held_out

    def setup(self, stage: str) -> None:
        """Raise ValueError if the processes cannot share a batch equally."""
        processes = self.trainer.world_size
        if self.config.batch_size % processes:
            raise ValueError(
                f"batch_size {self.config.batch_size} cannot be shared by {processes} processes"
            )

    def phase(self, step: int) -> Phase:
        """The phase of a step."""
        return phase_of(step, self.config.steps, self.lifter.regressor_share)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a learning rate that is constant, or a cosine, in each phase."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.lifter.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )

        def factor(step: int) -> float:
            phase = self.phase(step)
            rate = config.flow_learning_rate if phase.part == "flow" else config.learning_rate
            decay = 1.0 if config.schedule == "constant" else phase.cosine(step)
            return rate / config.learning_rate * decay

        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of this process's share of the views."""
        part = self.phase(self.global_step).part
        if part == "flow" and self.lifter.needs_scale:
            # From the same views in every process.
            with torch.no_grad():
                self.lifter.loss_of(part, self._views(max(2, self.config.batch_size), 4))
        share = self.config.batch_size // self.trainer.world_size
        loss = self.lifter.loss_of(part, self._views(share, 2, self.global_step, self.global_rank))
        self.log("loss", loss, prog_bar=True)
        return loss

    def _views(self, number: int, *purpose: int) -> Views:
        """Draw training views, and seed all randomness that follows."""
        seed = seed_of(self.config.seed, *purpose)
        torch.manual_seed(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        # Views are float32 in any precision of the networks.
        with torch.autocast(self.device.type, enabled=False):
            return self.source.draw(number, generator)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Error and likelihood on the held-out views."""
        views = self.held_out
        if views is None:
            return
        # Before its own phase, the flow describes nothing.
        has_density = self.phase(self.global_step - 1).part != "regressor"
        errors, log_probs = [], []
        for start in range(0, len(views), VIEWS_PER_CHUNK):
            some = views[start : start + VIEWS_PER_CHUNK]
            log_prob = self.lifter.log_prob(some, some.relative) if has_density else None
            with torch.inference_mode(False), torch.enable_grad():
                point = self.lifter.point(some).detach()
            errors.append(error_mm(point.float(), some.relative))
            if log_prob is not None:
                log_probs.append(log_prob)
        self.log("val_mpjpe_mm", torch.cat(errors).mean(), prog_bar=True, sync_dist=True)
        if log_probs:
            nll = -torch.cat(log_probs).mean()
            self.log("val_nll_nats", nll, prog_bar=True, sync_dist=True)

    def train_dataloader(self) -> "StepNumbers":
        """Numbers of steps: the step draws its views, on its device."""
        return StepNumbers(self.config.steps)

    def val_dataloader(self) -> "StepNumbers":
        """One batch: all held-out views."""
        return StepNumbers(1 if self.held_out is not None else 0)


class StepNumbers:
    """The numbers of all steps; a resumed training continues the count.

    Args:
        total: Number of steps.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.next = 0

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Tensor]:
        start, self.next = self.next, 0
        for number in range(start, self.total):
            self.next = (number + 1) % self.total
            yield torch.tensor(number)

    def state_dict(self) -> dict[str, int]:
        """The number of the next step."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue with the step of a saved state."""
        self.next = state["next"]
