r"""Train ProHMR: p(theta | image), betas and camera.

Without --data it paints a data set first (python -m examples.prohmr.embedded) and trains the small
configuration on it. With a folder of the paper's data sets:

    python -m examples.prohmr.train --config paper --data FOLDER body=SMPL_NEUTRAL.pkl \
        keypoint_regressor=SMPL_to_J19.pkl

The same command goes on where it was stopped, however it was stopped, and ends at the weights an
unbroken training has. It is also the command for several processes:

    torchrun --nproc-per-node 2 -m examples.prohmr.train ...
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy

from examples.command_line import DEVICES, device_of, fail
from examples.prohmr.config import Config, config_path, read_config
from examples.prohmr.embedded import is_complete, write_dataset
from examples.prohmr.module import ProHMRModule
from examples.prohmr.precision import ScaledHalf
from examples.prohmr.sources import Sources, read_sources
from examples.training.checkpoints import WholeFiles, not_written
from examples.training.folder import checkpoint_of, claim_folder
from examples.training.resuming import Checkpoints
from examples.training.seeds import seed_of
from examples.whole_files import write_json
from flowprior._console import escape_unencodable
from flowprior.body import BodyModel

__all__ = ["load_body", "main"]

MODEL_FILE = "model.safetensors"
IMAGES = 16_000
# What a training that goes on may change: none of it has a say in the weights.
FREE = (
    *("val_every", "val_images", "val_samples", "checkpoint_every", "log_every", "logger"),
    *("workers", "validation"),
)


class AveragedGradients(DDPStrategy):
    """Processes whose step averages the gradients itself: model and discriminator each have one."""

    def configure_ddp(self) -> None:
        """Leave the module as it is: every process makes the same one, from the same seed."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.prohmr.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Written to --out: config.yaml, checkpoints/ (last.ckpt, previous.ckpt, "
        "best.ckpt), logs/,\npictures/, and at the end\nmodel.safetensors and results.json.\n"
        "Exit code: 0 done, 1 ended because steps came to nothing or a "
        "file could not be written, 2 bad arguments or data, "
        "130 interrupted.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="the folder of the data sets; painted images in --out if left out",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/prohmr"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--config",
        default="small",
        metavar="FILE",
        help="a YAML file with every setting, or small or paper (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the file's")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the file's")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="any setting instead of the file's"
    )
    return parser.parse_intermixed_args(argv)


def load_body(path: str, regressor: str) -> BodyModel:
    """The body of the settings: "embedded" or a file, and its regressor of keypoints or "none".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no body.
    """
    regressors = {} if regressor == "none" else {"PROHMR-19": regressor}
    return BodyModel(None if path == "embedded" else path, regressors=regressors)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    args = parse_args(argv)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        on_gpu = device_of(args.device).type == "cuda"
        config = read_config(
            config_path(args.config), args.overrides, steps=args.steps, seed=args.seed
        )
        if config.batch_size % processes:
            raise ValueError(
                f"batch_size {config.batch_size} cannot be shared by {processes} processes"
            )
        replaced = claim_folder(args.out, config, FREE)
        data = args.data or _painted(args.out / "data", config.seed)
        sources = read_sources(data, config.datasets, config.validation, config.mocap)
        torch.manual_seed(seed_of(config.seed, 0))
        body = load_body(config.body, config.keypoint_regressor)
        module = ProHMRModule(config.make(), config, sources, body, args.out / "pictures")
    except (OSError, ValueError) as error:
        return fail(error)
    checkpoints = Checkpoints(
        args.out / "checkpoints",
        config,
        every=config.checkpoint_every,
        validate_every=min(config.val_every, config.steps) if sources.validation else None,
        monitor="val_mode_mpjpe_mm",
    )
    trainer = make_trainer(config, args.out, on_gpu, checkpoints)
    if trainer.is_global_zero:
        if replaced:
            print(replaced, file=sys.stderr)
        print(f"{sources}\ndevice {'cuda' if on_gpu else 'cpu'}, processes {processes}", flush=True)
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Workers are a setting, and validation reads its images itself.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*logging interval.*")
        # Lightning's own use of PyTorch.
        warnings.filterwarnings("ignore", message=".*treespec.*")
        try:
            trainer.fit(module, ckpt_path=checkpoint_of(args.out))
        except SystemExit:  # how Lightning ends what is interrupted
            if not trainer.interrupted:
                raise
            print("\ninterrupted; the same command continues", file=sys.stderr)
            return 130
        except OSError as error:
            print(f"\n{not_written(error)}", file=sys.stderr)
            return 1
    if trainer.global_step < config.steps:
        return 1
    try:
        if trainer.is_global_zero:
            seconds = time.perf_counter() - start
            finish(args.out, config, sources, module, checkpoints.metrics, seconds)
    except OSError as error:
        print(f"\n{not_written(error)}", file=sys.stderr)
        return 1
    return 0


def make_trainer(
    config: Config, out: Path, on_gpu: bool, checkpoints: Checkpoints
) -> lightning.Trainer:
    """Lightning's trainer for these settings.

    Args:
        config: All settings.
        out: Folder of the results.
        on_gpu: Whether to train on GPUs.
        checkpoints: Writes them, and says how often to validate.

    Returns:
        The trainer.
    """
    escape_unencodable()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    strategy: Strategy | str = "auto"
    if processes > 1:
        strategy = AveragedGradients(process_group_backend="nccl" if on_gpu else "gloo")
    half = [ScaledHalf("cuda" if on_gpu else "cpu")] if config.precision == "16-mixed" else []
    logger: Logger | bool = False
    if config.logger == "csv":
        logger = CSVLogger(out, "logs")
    elif config.logger == "tensorboard":
        logger = TensorBoardLogger(out, "logs")
    return lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=devices,
        num_nodes=processes // devices,
        strategy=strategy,
        sync_batchnorm=processes > 1 and on_gpu,
        precision=None if half else config.precision,  # type: ignore[arg-type]
        max_steps=config.steps,
        max_epochs=-1,
        val_check_interval=checkpoints.validate_every or config.steps,
        check_val_every_n_epoch=None,
        limit_val_batches=None if checkpoints.validate_every else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_every,
        logger=logger,
        enable_checkpointing=False,  # the callback below does it
        callbacks=[
            TQDMProgressBar(refresh_rate=1 if sys.stderr.isatty() else 100),
            checkpoints,
        ],
        plugins=[WholeFiles(), *half],
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def finish(
    out: Path,
    config: Config,
    sources: Sources,
    module: ProHMRModule,
    metrics: dict[str, float],
    seconds: float,
) -> None:
    """Write the model and what was reached."""
    module.model.eval().cpu().save(out / MODEL_FILE)
    pace = module.batches.pace if module.batches is not None else None
    step_s = pace.step_s if pace is not None else 0.0
    results = {
        "data": {
            "shares": dict(sources.train.shares),
            "rows": dict(sources.train.lengths),
            "missing": list(sources.missing),
        },
        "steps": config.steps,
        "seconds_of_last_run": round(seconds, 1),
        "step_s": step_s,
        "of_which_waiting_for_images_s": pace.wait_s if pace is not None else 0.0,
        "images_per_s": config.batch_size / step_s if step_s else 0.0,
        "faults": module.counts,
        "torch": torch.__version__,
        "metrics": metrics,
    }
    write_json(out / "results.json", results)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
    print(f"{config.steps} steps; {shown or 'no validation'}")
    if step_s and pace is not None:
        print(
            f"{1000 * step_s:.0f} ms a step, {1000 * pace.wait_s:.0f} of them waiting for images; "
            f"{config.batch_size / step_s:.0f} images a second"
        )
    for name, count in module.counts.items():
        if count:
            print(f"{name}: {count}")
    print(f"results are in {out}")


def _painted(folder: Path, seed: int) -> Path:
    """The embedded data set, made by the first process where it is not there yet."""
    if int(os.environ.get("RANK", "0")) == 0:
        if not is_complete(folder):
            print(f"painting {IMAGES} images into {folder}", flush=True)
            write_dataset(folder, IMAGES, seed=seed, progress=sys.stderr.isatty())
    else:
        while not is_complete(folder):
            time.sleep(1.0)
    return folder


if __name__ == "__main__":
    sys.exit(main())
