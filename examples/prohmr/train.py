r"""Train ProHMR: p(theta | image), betas and camera.

Without --data it first renders a data set (python -m examples.prohmr.embedded) and trains the small
configuration on it. With a folder of the paper's data sets:

    python -m examples.prohmr.train --config paper --data FOLDER body=SMPL_NEUTRAL.pkl \
        keypoint_regressor=SMPL_to_J19.pkl

A stopped training resumes with the same command, and ends at the weights of an unbroken training.
The command also starts under torchrun, as one of several processes:

    torchrun --nproc-per-node 2 -m examples.prohmr.train ...
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from examples.command_line import device_of, fail
from examples.prohmr.config import CONFIGS, Config
from examples.prohmr.embedded import is_complete, write_dataset
from examples.prohmr.judging import calibrate
from examples.prohmr.module import ProHMRModule
from examples.prohmr.precision import ScaledHalf
from examples.prohmr.sources import Sources, read_sources
from examples.training.folder import claim_folder
from examples.training.seeds import seed_of
from examples.training.trainer import Outcome, Trainer, add_arguments, settings_of
from flowprior.body import BodyModel

__all__ = ["load_body", "main"]

MODEL_FILE = "model.safetensors"
IMAGES = 16_000
# Settings without influence on the weights, which a resumed training may change.
FREE = (
    *("val_every", "val_images", "val_samples", "checkpoint_every", "log_every", "logger"),
    *("workers", "validation"),
)


class AveragedGradients(DDPStrategy):
    """Processes whose step averages the gradients itself, of the model and the discriminator."""

    def configure_ddp(self) -> None:
        """Keep the module as it is: the seed gives every process the same one."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.prohmr.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Files in --out: config.yaml, checkpoints/ (last.ckpt, previous.ckpt, "
        "best.ckpt), logs/,\npictures/; at the end model.safetensors and results.json.\n"
        "Exit code: 0 done, 1 stopped because losses were not finite or a file could not be\n"
        "written, 2 bad arguments or data, 130 interrupted.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="the folder of the data sets (default: images rendered into --out)",
    )
    add_arguments(parser, CONFIGS, "small", Path("outputs/prohmr"))
    return parser.parse_intermixed_args(argv)


def load_body(path: str, regressor: str) -> BodyModel:
    """Load the body of the settings.

    Args:
        path: A file of an SMPL model, or "embedded".
        regressor: A file with its keypoint regressor, or "none".

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: A file does not contain a body or a regressor.
    """
    regressors = {} if regressor == "none" else {"PROHMR-19": regressor}
    return BodyModel(None if path == "embedded" else path, regressors=regressors)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    args = parse_args(argv)
    try:
        on_gpu = device_of(args.device).type == "cuda"
        config = settings_of(Config, CONFIGS, args)
        replaced = claim_folder(args.out, config, FREE)
        data = args.data or _rendered(args.out / "data", config.seed)
        sources = read_sources(data, config.datasets, config.validation, config.mocap)
        torch.manual_seed(seed_of(config.seed, 0))
        body = load_body(config.body, config.keypoint_regressor)
        module = ProHMRModule(config.make(), config, sources, body, args.out / "pictures")
        half = config.precision == "16-mixed"
        trainer = Trainer(
            config,
            args.out,
            on_gpu=on_gpu,
            monitor="val_mode_mpjpe_mm" if sources.validation else None,
            strategy=AveragedGradients,
            precision=ScaledHalf("cuda" if on_gpu else "cpu") if half else None,
        )
    except (OSError, ValueError, ModuleNotFoundError) as error:
        return fail(str(error).strip())
    trainer.announce(sources, replaced)
    return trainer.fit(module, lambda: save(args.out, config, sources, module))


def save(out: Path, config: Config, sources: Sources, module: ProHMRModule) -> Outcome:
    """Calibrate and write the model; returns data, speed and faults for ``results.json``."""
    model = module.model.eval()
    fitted = calibrate(model, list(sources.validation.values()), config.val_images)
    model.cpu().save(out / MODEL_FILE)
    pace = module.batches.pace if module.batches is not None else None
    step_s = pace.step_s if pace is not None else 0.0
    wait_s = pace.wait_s if pace is not None else 0.0
    data = {
        "shares": dict(sources.train.shares),
        "rows": dict(sources.train.lengths),
        "missing": list(sources.missing),
    }
    more = {
        "step_s": step_s,
        "of_which_waiting_for_images_s": wait_s,
        "images_per_s": config.batch_size / step_s if step_s else 0.0,
        "faults": module.counts,
        **({"calibration": fitted} if fitted else {}),
    }
    lines = [f"{name}: {count}" for name, count in module.counts.items() if count]
    if step_s:
        pace_line = (
            f"{1000 * step_s:.0f} ms a step, {1000 * wait_s:.0f} of them waiting for images; "
            f"{config.batch_size / step_s:.0f} images a second"
        )
        lines.insert(0, pace_line)
    return Outcome(data, more, lines)


def _rendered(folder: Path, seed: int) -> Path:
    """The embedded data set, which the first process renders if it does not exist yet."""
    if int(os.environ.get("RANK", "0")) == 0:
        if not is_complete(folder):
            print(f"rendering {IMAGES} images into {folder}", flush=True)
            write_dataset(folder, IMAGES, seed=seed, progress=sys.stderr.isatty())
    else:
        while not is_complete(folder):
            time.sleep(1.0)
    return folder


if __name__ == "__main__":
    sys.exit(main())
