"""The command line: ``python -m flowprior convert`` and ``python -m flowprior info``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flowprior import CheckpointError, ConditionalPosePrior, __version__
from flowprior._console import escape_unencodable
from flowprior.flow import LU_FORWARDS
from flowprior.flow.base import StudentT
from flowprior.prior.spaces import RotationSpace
from flowprior.prohmr import load_prior
from flowprior.prohmr.weights import SPACES

POSES = {"rot6d": "joints in 6D", "so3": "joints on SO(3)", "points": "keypoints"}
"""Descriptions of the pose spaces, for ``info``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments; those of the process if None.

    Returns:
        The exit code: 0, 1 after an error, which is printed to standard error, or 130 after an
        interrupt. Wrong usage exits with 2.
    """
    escape_unencodable()
    args = _parser().parse_args(argv)
    try:
        if args.command == "convert":
            _convert(args.original, args.prior, args.space, args.lu_forward, args.force)
        else:
            _info(args.file)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe; keep Python from raising again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError) as error:
        print(f"flowprior: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flowprior: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowprior", description="Convert and inspect pose priors."
    )
    parser.add_argument("--version", action="version", version=f"flowprior {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    convert = commands.add_parser(
        "convert",
        help="convert a ProHMR checkpoint to a flowprior model",
        description="Read a ProHMR checkpoint, executing nothing from it, and write its flow as a "
        "flowprior model.",
    )
    convert.add_argument("original", type=Path, help="checkpoint of ProHMR or its lifting model")
    convert.add_argument("prior", type=Path, help="file to write, usually .safetensors")
    convert.add_argument(
        "--space",
        choices=sorted(set(SPACES.values())),
        help="required only for sizes other than the two of ProHMR",
    )
    convert.add_argument(
        "--lu-forward",
        choices=LU_FORWARDS,
        default="exact",
        help="legacy for weights trained in August 2021 (default: %(default)s)",
    )
    convert.add_argument("--force", action="store_true", help="replace an existing file")

    info = commands.add_parser(
        "info",
        help="describe a file",
        description="Describe a flowprior model or a ProHMR checkpoint.",
    )
    info.add_argument("file", type=Path)
    return parser


def _convert(original: Path, target: Path, space: str | None, lu_forward: str, force: bool) -> None:
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists; --force replaces it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder")
    print(f"reading {original} ({_megabytes(original)})", flush=True)
    prior = load_prior(original, space=space, lu_forward=lu_forward)
    print(f"writing {target}", flush=True)
    prior.save(target)
    _describe(prior, target)


def _info(file: Path) -> None:
    try:
        prior = ConditionalPosePrior.load(file)
    except CheckpointError as not_ours:
        try:
            prior = load_prior(file)
        except CheckpointError as not_original:
            raise CheckpointError(f"{not_ours}; nor a ProHMR checkpoint: {not_original}") from None
    _describe(prior, file)


def _describe(prior: ConditionalPosePrior, file: Path) -> None:
    config = prior.config
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in prior.parameters()})
    rows = {
        "file": f"{file} ({_megabytes(file)})",
        "pose": f"{config['joints']} {POSES[config['space']]}, {prior.flow.features} features",
        "layout": config["layout"] if isinstance(prior.space, RotationSpace) else "-",
        "context": f"{config['context_features']} features",
        "preset": config["preset"],
        "flow": f"{config['num_steps']} steps, {config['num_blocks']} blocks, "
        f"{config['hidden_features']} hidden features",
        "lu forward": config["lu_forward"],
        "base": f"{_base(prior)}, temperature {float(prior.flow.temperature):.4g}",
        "mode": _mode(prior),
        "parameters": f"{sum(p.numel() for p in prior.parameters()):,} ({', '.join(dtypes)})",
        "actnorm": "initialised" if prior.flow.is_initialized() else "not initialised: untrained",
        "provenance": ", ".join(f"{k}: {v}" for k, v in prior.provenance.items()) or "-",
    }
    for name, value in rows.items():
        print(f"{name:>12}  {value}")


def _base(prior: ConditionalPosePrior) -> str:
    base = prior.flow.base
    if isinstance(base, StudentT):
        return f"Student's t, {float(base.degrees_of_freedom):g} degrees of freedom"
    return "normal"


def _mode(prior: ConditionalPosePrior) -> str:
    """Where the mode of the prior comes from."""
    if not prior.has_exact_mode:
        return "by ascent from the decoded z = 0"
    if not prior.flow.keeps_origin:
        return "exact: the decoded z = 0"
    if prior.head is None:
        return "exact: the centre that the caller passes"
    untrained = ", not trained yet" if prior.head.is_untrained else ""
    width = prior.config["head_features"]
    return f"exact: the answer of the head ({width} hidden features{untrained})"


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
