"""Train p(3D pose | 2D keypoints), or another method to compare it with.

A stopped training resumes with the same command, and ends at the weights of an unbroken training.
The command also starts under torchrun, as one of several processes:

    torchrun --nproc-per-node 2 -m examples.lifting.train ...
"""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from examples.command_line import device_of, fail
from examples.data.virtual_views import Views
from examples.lifting.config import CONFIGS, Config
from examples.lifting.methods import FlowLifter, TrainedLifter
from examples.lifting.module import LiftingModule, make_lifter
from examples.lifting.sources import Sources, load_sources
from examples.training.checkpoints import save_weights
from examples.training.folder import claim_folder
from examples.training.seeds import seed_of
from examples.training.trainer import Outcome, Trainer, add_arguments, settings_of

__all__ = ["main"]

WEIGHTS_FILE = "lifter.safetensors"
# Settings without influence on the weights, which a resumed training may change.
FREE = ("val_every", "val_views", "checkpoint_every", "log_every", "logger")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.lifting.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Files in --out: config.yaml, checkpoints/ (last.ckpt, previous.ckpt, "
        "best.ckpt), logs/; at the\nend lifter.safetensors, results.json and, for a flow, "
        "model.safetensors.\nExit code: 0 done, 1 a file could not be written, "
        "2 bad arguments or data, 130 interrupted.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="a folder with VideoPose3D's Human3.6M archives or one of them, an .npz file with "
        "joints17, or a folder of AMASS files (default: embedded procedural poses)",
    )
    add_arguments(parser, CONFIGS, "default", Path("outputs/lifting"))
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    args = parse_args(argv)
    try:
        device = device_of(args.device)
        on_gpu = device.type == "cuda"
        if on_gpu:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        config = settings_of(Config, CONFIGS, args)
        sources = load_sources(
            args.data, config.view_options, device, config.seed, config.recording
        )
        replaced = claim_folder(args.out, config, FREE)
        lifter = make_lifter(config, sources.parts["train"], device)
        val = sources.parts.get("val")
        trainer = Trainer(
            config,
            args.out,
            on_gpu=on_gpu,
            monitor=None if val is None else monitored(lifter),
            strategy=functools.partial(
                DDPStrategy, find_unused_parameters=lifter.regressor_share > 0
            ),
            devices=config.devices,
            clip=config.clip,
            refresh_every=1000,
        )
    except (OSError, ValueError, ModuleNotFoundError) as error:
        return fail(str(error).strip())
    generator = torch.Generator(device).manual_seed(seed_of(config.seed, 3))
    held_out = None if val is None else val.held_out(config.val_views, generator)
    module = LiftingModule(lifter, config, sources.parts["train"], held_out)
    trainer.announce(sources, replaced, None if sources.report.clean else sources.report)
    return trainer.fit(module, lambda: save(args.out, sources, module.lifter, held_out))


def monitored(lifter: TrainedLifter) -> str:
    """The metric of the best checkpoint: a frozen regressor's error no longer changes."""
    return "val_nll_nats" if lifter.regressor_share else "val_mpjpe_mm"


def save(out: Path, sources: Sources, lifter: TrainedLifter, held_out: Views | None) -> Outcome:
    """Calibrate and write the weights; returns the training data for ``results.json``."""
    lifter = lifter.eval()
    fitted = {} if held_out is None else lifter.calibrate(held_out)
    lifter = lifter.cpu()
    save_weights(out / WEIGHTS_FILE, lifter)
    if isinstance(lifter, FlowLifter):
        lifter.model.save(out)
    more = {"calibration": fitted} if fitted else {}
    return Outcome({"source": sources.source, "subjects": sources.subjects}, more)


if __name__ == "__main__":
    sys.exit(main())
