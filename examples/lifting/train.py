"""Train p(3D pose | 2D keypoints), or another distribution to compare it with.

The same command goes on where it was stopped, however it was stopped, and ends at the weights an
unbroken training has. It is also the command for several processes:

    torchrun --nproc-per-node 2 -m examples.lifting.train ...
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
from examples.lifting.config import CONFIGS, Config, read_config
from examples.lifting.methods import FlowLifter
from examples.lifting.module import LiftingModule, make_lifter
from examples.lifting.sources import Sources, load_sources
from examples.training.checkpoints import WholeFiles, not_written, save_weights
from examples.training.folder import checkpoint_of, claim_folder
from examples.training.resuming import Checkpoints
from examples.training.seeds import seed_of
from examples.whole_files import write_json
from flowprior._console import escape_unencodable

__all__ = ["main"]

WEIGHTS_FILE = "lifter.safetensors"
# What a training that goes on may change: none of it has a say in the weights.
FREE = ("val_every", "val_views", "checkpoint_every", "log_every", "logger")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.lifting.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Written to --out: config.yaml, checkpoints/ (last.ckpt, previous.ckpt, "
        "best.ckpt), logs/, and at\nthe end lifter.safetensors and results.json, of a flow also "
        "model.safetensors.\nExit code: 0 done, 1 a file could not be written, "
        "2 bad arguments or data, 130 interrupted.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="a folder with VideoPose3D's Human3.6M archives or one of them, an .npz file with "
        "joints17, or a folder of AMASS files; embedded procedural poses if left out",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/lifting"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--config",
        default="default",
        metavar="FILE",
        help="a YAML file with every setting, or default or paper (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the file's")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the file's")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="any setting instead of the file's"
    )
    return parser.parse_intermixed_args(argv)


def config_path(name: str) -> Path:
    """The file of a name: default, paper, or the path of a file."""
    return CONFIGS / f"{name}.yaml" if name in ("default", "paper") else Path(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    args = parse_args(argv)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        device = device_of(args.device)
        on_gpu = device.type == "cuda"
        if on_gpu:
            device = torch.device("cuda", local)
        config = read_config(
            config_path(args.config), args.overrides, steps=args.steps, seed=args.seed
        )
        if config.batch_size % processes:
            raise ValueError(
                f"batch_size {config.batch_size} cannot be shared by {processes} processes"
            )
        sources = load_sources(
            args.data, config.view_options, device, config.seed, config.recording
        )
        replaced = claim_folder(args.out, config, FREE)
        lifter = make_lifter(config, sources.parts["train"], device)
        checkpoints = Checkpoints(
            args.out / "checkpoints",
            config,
            every=config.checkpoint_every,
            validate_every=min(config.val_every, config.steps) if "val" in sources.parts else None,
            monitor="val_mpjpe_mm",
        )
        trainer = make_trainer(config, args.out, on_gpu, checkpoints)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        return fail(str(error).strip())
    val = sources.parts.get("val")
    generator = torch.Generator(device).manual_seed(seed_of(config.seed, 3))
    held_out = None if val is None else val.held_out(config.val_views, generator)
    module = LiftingModule(lifter, config, sources.parts["train"], held_out)
    if trainer.is_global_zero:
        if replaced:
            print(replaced, file=sys.stderr)
        if not sources.report.clean:
            print(sources.report, file=sys.stderr)
        print(f"{sources}; device {device}, processes {processes}", flush=True)
    start = time.perf_counter()
    with warnings.catch_warnings():
        # The views are made in the step, so there are no workers; one logs where one wants to.
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
    try:
        if trainer.is_global_zero:
            seconds = time.perf_counter() - start
            finish(args.out, sources, module, trainer.global_step, checkpoints.metrics, seconds)
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
    launched = "LOCAL_WORLD_SIZE" in os.environ
    devices: int | str = "auto" if on_gpu else 1
    nodes = 1
    if launched:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = processes // devices
    elif config.devices != "auto":
        devices = int(config.devices)
    wanted = torch.cuda.device_count() if devices == "auto" else devices
    several = processes > 1 or wanted != 1
    strategy: Strategy | str = "auto"
    if several:
        strategy = DDPStrategy(process_group_backend="nccl" if on_gpu else "gloo")
    logger: Logger | bool = False
    if config.logger == "csv":
        logger = CSVLogger(out, "logs")
    elif config.logger == "tensorboard":
        logger = TensorBoardLogger(out, "logs")
    return lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        sync_batchnorm=several and on_gpu,
        precision=config.precision,  # type: ignore[arg-type]
        max_steps=config.steps,
        max_epochs=-1,
        val_check_interval=checkpoints.validate_every or config.steps,
        check_val_every_n_epoch=None,
        limit_val_batches=None if checkpoints.validate_every else 0,
        num_sanity_val_steps=0,
        gradient_clip_val=config.clip or None,
        log_every_n_steps=config.log_every,
        logger=logger,
        enable_checkpointing=False,  # the callback below does it
        callbacks=[
            TQDMProgressBar(refresh_rate=1 if sys.stderr.isatty() else 1000),
            checkpoints,
        ],
        plugins=[WholeFiles()],
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def finish(
    out: Path,
    sources: Sources,
    module: LiftingModule,
    steps: int,
    metrics: dict[str, float],
    seconds: float,
) -> None:
    """Write the weights and what was reached."""
    lifter = module.lifter.eval().cpu()
    save_weights(out / WEIGHTS_FILE, lifter)
    if isinstance(lifter, FlowLifter):
        lifter.model.save(out)
    results = {
        "data": {"source": sources.source, "subjects": sources.subjects},
        "steps": steps,
        "seconds_of_last_run": round(seconds, 1),
        "torch": torch.__version__,
        "metrics": metrics,
    }
    write_json(out / "results.json", results)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
    print(f"{steps} steps; {shown or 'no validation'}; results are in {out}")


if __name__ == "__main__":
    sys.exit(main())
