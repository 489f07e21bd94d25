"""The Lightning module: step k depends on the weights and k only.

Augmentation, samples, motion capture and dropout of a step come from a seed of (seed, step). Random
numbers are drawn for the batch of all processes, and each process takes its rows, so that the
result does not depend on the number of processes.
"""

import math
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from examples.data.crop_augmentation import draw_augmentation
from examples.data.crops import Crops, make_crops
from examples.data.images import ImageBatch
from examples.prohmr.config import Config
from examples.prohmr.discriminator import Discriminator
from examples.prohmr.judging import batches_of, judge_batch, regions_and_labels, supervise
from examples.prohmr.losses import (
    Supervision,
    discriminator_loss,
    draw_samples,
    objective,
    total,
)
from examples.prohmr.model import MODEL_CONFIG, Prediction, ProHMR
from examples.prohmr.pictures import sheet_of_predictions
from examples.prohmr.precision import ScaledHalf
from examples.prohmr.sources import Sources
from examples.training.batches import NumberedBatches
from examples.training.seeds import seed_of
from flowprior.body import BodyModel
from flowprior.metrics import Tally
from flowprior.metrics.protocols import PROTOCOLS
from flowprior.prior.posterior import PosePosterior

__all__ = ["ProHMRModule"]

PROTOCOL = PROTOCOLS["3DPW"]
FAULTS = "faults"
SHOWN = 8
TOLERATED = 100  # consecutive steps without an update


class ProHMRModule(lightning.LightningModule):
    """A model and its discriminator, with their optimisation.

    Args:
        model: A model of `Config.make`.
        config: All settings.
        sources: The training data.
        body: The body model.
        pictures: Folder for pictures of validation images; None for no pictures.
    """

    def __init__(
        self,
        model: ProHMR,
        config: Config,
        sources: Sources,
        body: BodyModel,
        pictures: Path | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        # Convolutions are faster in this memory format, by a half on CPUs.
        model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = Discriminator() if sources.mocap is not None else None
        self.body = body
        self.config = config
        self.sources = sources
        self.pictures = pictures
        self.batches: NumberedBatches | None = None
        self.counts = {
            "unreadable images": 0,
            "steps without NLL": 0,
            "steps skipped": 0,
            "steps to find the scale of the loss": 0,
        }
        self._in_a_row = 0

    # --- hooks of Lightning ----------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW of the model and of the discriminator; the step sets their rates."""
        config = self.config
        optimizers = [
            torch.optim.AdamW(
                self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
            )
        ]
        if self.discriminator is not None:
            optimizers.append(
                torch.optim.AdamW(
                    self.discriminator.parameters(),
                    config.discriminator_rate,
                    weight_decay=config.weight_decay,
                )
            )
        return optimizers

    def train_dataloader(self) -> NumberedBatches:
        """Batches with their numbers."""
        self.batches = NumberedBatches(
            self.sources.train,
            self.config.steps,
            self.config.batch_size,
            seed=self.config.seed,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            workers=self.config.workers,
            pin=self.device.type == "cuda",
        )
        return self.batches

    def val_dataloader(self) -> list[int]:
        """One dummy batch: validation loads its own images."""
        return [0]

    def transfer_batch_to_device(
        self,
        batch: Any,  # noqa: ANN401
        device: torch.device,
        dataloader_idx: int,
    ) -> Any:  # noqa: ANN401
        """A numbered batch on its device."""
        if isinstance(batch, int):
            return batch
        number, images = batch
        return number, images.to(device, non_blocking=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the model's configuration, which `load_model` needs, and the counts of faults."""
        checkpoint[MODEL_CONFIG] = self.model.config
        checkpoint[FAULTS] = {"counts": dict(self.counts), "in_a_row": self._in_a_row}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts of faults."""
        self.counts.update(checkpoint[FAULTS]["counts"])
        self._in_a_row = checkpoint[FAULTS]["in_a_row"]

    # --- a step ----------------------------------------------------------------------------------

    def training_step(self, batch: tuple[int, ImageBatch], batch_idx: int) -> None:
        """One step of the model, and one of the discriminator."""
        number, images = batch
        config = self.config
        torch.manual_seed(seed_of(config.seed, 2, number, self.global_rank))
        self._set_rates(number)
        crops = self._crops(images, number)
        context = self.model.backbone(crops.images.contiguous(memory_format=torch.channels_last))
        with torch.autocast(self.device.type, enabled=False):
            prediction, supervision = self._predict(context, images, crops)
            self._initialise(prediction.context, supervision)
            samples = draw_samples(
                prediction, self.body, config.num_samples, latents=self._latents(number)
            )
            poses, betas = samples.to_judge()
            # The discriminator must not learn from this loss.
            judged = samples.theta.new_ones(len(betas), 25)
            if self.discriminator is not None:
                judged = self.discriminator.requires_grad_(False)(poses, betas)
            nll = self._nll(prediction, supervision, number)
            terms = objective(samples, supervision, nll, judged)
            loss = total(terms, config.loss_weights)
        optimizer, critic = self._optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        self._step(optimizer, self.model, terms)
        if critic is not None and number % config.discriminator_every == 0:
            terms["discriminator"] = self._train_discriminator(critic, poses, betas, number)
        self._log_step(loss, terms, images)

    def _optimizers(self) -> tuple[LightningOptimizer, torch.optim.Optimizer | None]:
        """The optimisers of the model, whose steps Lightning counts, and of the discriminator."""
        counted, plain = self.optimizers(), self.optimizers(use_pl_optimizer=False)
        if isinstance(counted, list):
            assert isinstance(plain, list)
            return counted[0], plain[1]
        assert isinstance(counted, LightningOptimizer)
        return counted, None

    def _set_rates(self, number: int) -> None:
        config = self.config
        factor = 1.0
        if config.schedule == "cosine":
            warm_up = min(1.0, (number + 1) / max(1, config.steps // 20))
            factor = warm_up * 0.5 * (1 + math.cos(math.pi * number / config.steps))
        optimizer, critic = self._optimizers()
        for each, rate in ((optimizer, config.learning_rate), (critic, config.discriminator_rate)):
            for group in each.param_groups if each is not None else ():
                group["lr"] = factor * rate

    def _generator(self, purpose: int, number: int, on_device: bool = True) -> torch.Generator:
        device = self.device if on_device else "cpu"
        seed = seed_of(self.config.seed, purpose, number)
        return torch.Generator(device).manual_seed(seed)

    def _mine(self, drawn: Tensor) -> Tensor:
        """This process's rows of random numbers for all processes."""
        return drawn[self.global_rank :: self.trainer.world_size]

    def _crops(self, images: ImageBatch, number: int) -> Crops:
        regions, labels = regions_and_labels(images)
        settings = self.config.augmentation_settings
        augmentation = None
        if settings is not None:
            generator = self._generator(5, number)
            drawn = draw_augmentation(self.config.batch_size, generator, settings)
            augmentation = drawn[slice(self.global_rank, None, self.trainer.world_size)]
        return make_crops(regions, labels, augmentation, size=self.model.size)

    def _latents(self, number: int) -> Tensor | None:
        """Latents (B, S - 1, D), or None for the mode only."""
        config = self.config
        if config.num_samples == 1:
            return None
        flow = self.model.prior.flow
        shape = (config.batch_size, config.num_samples - 1, flow.features)
        generator = self._generator(6, number)
        return self._mine(flow.base.sample(shape, flow.dtype, self.device, generator))

    def _predict(
        self, context: Tensor, images: ImageBatch, crops: Crops
    ) -> tuple[Prediction, Supervision]:
        """The prediction; rows with non-finite features contribute to no term."""
        context = context.float()
        finite = context.isfinite().all(dim=1)
        prediction = self.model.predict(torch.where(finite[:, None], context, 0))
        return prediction, supervise(images, crops.labels, finite)

    def _gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes in the order of the whole batch, without gradient."""
        if self.trainer.world_size == 1:
            return rows
        gathered = self.all_gather(rows)
        assert isinstance(gathered, Tensor)
        return gathered.transpose(0, 1).flatten(0, 1)

    @torch.no_grad()
    def _initialise(self, context: Tensor, supervision: Supervision) -> None:
        """Set the flow's ActNorm from the annotated rows of all processes, in the first steps."""
        prior = self.model.prior
        if prior.flow.is_initialized():
            return
        pose = _vectors(prior(context), supervision.rotation)
        rows = self._gathered(supervision.with_pose)
        context, pose = self._gathered(context)[rows], self._gathered(pose)[rows]
        if len(pose) < 2:
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.config.seed, 4))
            projected = prior.flow.project_context(context)
            prior.flow.initialize_without_noise(pose, projected)
            if not prior.flow.is_initialized():
                prior.flow(pose + prior.target_noise * torch.randn_like(pose), projected)

    def _nll(self, prediction: Prediction, supervision: Supervision, number: int) -> Tensor:
        """This process's contribution to the mean NLL over the annotated rows of all processes.

        It does not train the head of the mode.
        """
        prior, rows = self.model.prior, supervision.with_pose
        world = self.trainer.world_size
        everyone = rows.sum().float()
        if world > 1:
            everyone = self.trainer.strategy.reduce(everyone, reduce_op="sum")
        if prior.config["batch_norm"] and int(everyone) < 2:
            # Batch norm needs more than one row.
            self.counts["steps without NLL"] += 1
            return prediction.context.sum() * 0
        posterior, rotation = prediction.posterior, supervision.rotation
        shape = (self.config.batch_size, prior.flow.features)
        generator = self._generator(9, number)
        noise = self._mine(torch.randn(shape, generator=generator, device=self.device))
        if prior.config["batch_norm"]:
            # Rows without a pose must not enter its statistics.
            posterior, rotation = prior(prediction.context[rows]), rotation[rows]
            rows, noise = rows[rows], noise[rows]
        x = _vectors(posterior, rotation) + prior.target_noise * noise
        log_prob = prior.flow.log_prob(x, posterior.context) + prior.space.log_volume
        log_prob = torch.where(rows, log_prob, 0)
        return -log_prob.sum() * world / everyone.clamp(min=1)

    def _step(
        self, optimizer: LightningOptimizer, module: nn.Module, terms: dict[str, Tensor]
    ) -> None:
        """Step; if a gradient is not finite, report it and keep the weights."""
        parameters = [p for p in module.parameters() if p.grad is not None]
        self._average_gradients(parameters)
        scaler = self._scaler
        if scaler is not None:
            # After averaging, so that all processes see the same values.
            scaler.unscale_(optimizer.optimizer)
            self.log("loss_scale", scaler.get_scale())
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf)
        self.log("gradient_norm", norm)
        if bool(norm.isfinite()):
            self._in_a_row = 0
        else:
            optimizer.zero_grad(set_to_none=True)
            overflow = scaler is not None and all(bool(t.isfinite()) for t in terms.values())
            self._report_skipped(module, terms, overflow)
        optimizer.step()

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """The gradient scaler; None except in half precision."""
        plugin = self.trainer.precision_plugin
        return plugin.scaler if isinstance(plugin, ScaledHalf) else None

    def _average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over all processes, so that their weights stay equal."""
        if self.trainer.world_size == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        torch.distributed.all_reduce(flat)
        flat /= self.trainer.world_size
        for parameter, mean in zip(
            parameters, flat.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = mean.view_as(parameter)

    def _report_skipped(self, module: nn.Module, terms: dict[str, Tensor], overflow: bool) -> None:
        """Count a skipped step, and report it unless half precision is adjusting its scale."""
        kind = "steps to find the scale of the loss" if overflow else "steps skipped"
        self.counts[kind] += 1
        self._in_a_row += 1
        skipped = self.counts["steps skipped"]
        seldom = skipped < 5 or skipped % 100 == 0
        if not overflow and seldom and self.trainer.is_global_zero:
            bad = [name for name, term in terms.items() if not bool(term.isfinite())]
            lost = [name for name, p in module.named_parameters() if not p.isfinite().all()]
            where = ", ".join(bad) or "no term of the loss, only in gradients"
            print(
                f"step {self.global_step}: skipped, NaN or infinity in {where}"
                + (f"; weights lost: {', '.join(lost[:3])}" if lost else ""),
                file=sys.stderr,
            )
        if self._in_a_row >= TOLERATED:
            if self.trainer.is_global_zero:
                print(f"{TOLERATED} steps in a row were skipped: training stops", file=sys.stderr)
            self.trainer.should_stop = True

    def _train_discriminator(
        self, optimizer: torch.optim.Optimizer, poses: Tensor, betas: Tensor, number: int
    ) -> Tensor:
        assert self.discriminator is not None
        assert self.sources.mocap is not None
        self.discriminator.requires_grad_(True)
        count = self.config.batch_size * self.config.num_samples
        generator = self._generator(7, number, on_device=False)
        real = self.sources.mocap.draw(count, generator, self.device)
        with torch.autocast(self.device.type, enabled=False):
            fake = self.discriminator(poses.detach(), betas.detach())
            loss = discriminator_loss(fake, self.discriminator(*map(self._mine, real)))
        optimizer.zero_grad()
        (self.config.loss_weights.discriminator * loss).backward()
        parameters = list(self.discriminator.parameters())
        self._average_gradients(parameters)
        if bool(
            nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).isfinite()
        ):
            optimizer.step()
        return loss.detach()

    def _log_step(self, loss: Tensor, terms: dict[str, Tensor], images: ImageBatch) -> None:
        self.counts["unreadable images"] += sum(fault != "" for fault in images.faults)
        self.log("loss", loss.detach(), prog_bar=True)
        self.log_dict({f"loss_{name}": term.detach() for name, term in terms.items()})
        if self.batches is None or not self.batches.pace.steps:
            return
        pace = self.batches.pace
        self.log("step_s", pace.step_s, prog_bar=True)
        self.log("wait_s", pace.wait_s, prog_bar=True)
        self.log("images_per_s", self.config.batch_size / max(pace.step_s, 1e-9), prog_bar=True)

    # --- validation ------------------------------------------------------------------------------

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Errors, likelihood and pictures of fixed held-out images."""
        config = self.config
        tally = Tally()
        shown = False
        generator = torch.Generator(self.device).manual_seed(seed_of(config.seed, 8))
        for dataset in self.sources.validation.values():
            share = max(1, config.val_images // len(self.sources.validation))
            for images in batches_of(dataset, 50, images=share):
                images = images.to(self.device)
                with torch.autocast(self.device.type, enabled=False):
                    judged = judge_batch(
                        self.model,
                        self.body,
                        images,
                        PROTOCOL,
                        counts=(1, config.val_samples),
                        generator=generator,
                    )
                    tally.add(judged.values)
                    if not shown and self.pictures is not None and self.trainer.is_global_zero:
                        shown = True
                        path = self.pictures / f"step_{self.global_step:06d}.png"
                        sheet_of_predictions(path, self.model, self.body, images, SHOWN)
        for name in (
            "mode_mpjpe_mm",
            "mode_pa_mpjpe_mm",
            f"best_of_{config.val_samples}_mpjpe_mm",
            "nll_nats",
            "entropy_nats",
        ):
            if tally.count(name):
                self.log(
                    f"val_{name}",
                    tally.mean(name),
                    prog_bar=name == "mode_mpjpe_mm",
                    sync_dist=True,
                    batch_size=1,
                )
        if self.batches is not None:
            self.batches.pace.pause()


def _vectors(posterior: PosePosterior, rotation: Tensor) -> Tensor:
    """Vectors (B, D) of rotations (B, 24, 3, 3), without a gradient to the mode of the head."""
    centre = None if posterior.centre is None else posterior.centre.detach()
    return posterior.prior.space.to_vector(rotation, centre)
