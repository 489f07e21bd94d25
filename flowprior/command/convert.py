"""``flowprior convert``: a ProHMR checkpoint becomes a flowprior model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flowprior.command.descriptions import describe_prior, megabytes
from flowprior.command.options import verb
from flowprior.flow import LU_FORWARDS
from flowprior.prohmr import load_prior
from flowprior.prohmr.weights import SPACES

if TYPE_CHECKING:
    from flowprior.command.options import Verbs

__all__ = ["add_parser"]


def add_parser(verbs: "Verbs") -> None:
    """Add the verb to the command line."""
    parser = verb(
        verbs,
        "convert",
        run,
        "convert a ProHMR checkpoint to a flowprior model",
        "Read a ProHMR checkpoint, executing nothing from it, and write its flow as a flowprior "
        "model.",
    )
    parser.add_argument("original", type=Path, help="checkpoint of ProHMR or its lifting model")
    parser.add_argument("prior", type=Path, help="file to write, usually .safetensors")
    parser.add_argument(
        "--space",
        choices=sorted(set(SPACES.values())),
        help="required only for sizes other than the two of ProHMR",
    )
    parser.add_argument(
        "--lu-forward",
        choices=LU_FORWARDS,
        default="exact",
        help="legacy for weights trained in August 2021 (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint; returns the exit code."""
    original, target = args.original, args.prior
    if target.exists() and not args.force:
        raise FileExistsError(f"{target} exists; --force replaces it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder")
    print(f"reading {original} ({megabytes(original)})", flush=True)
    prior = load_prior(original, space=args.space, lu_forward=args.lu_forward)
    print(f"writing {target}", flush=True)
    prior.save(target)
    print(describe_prior(prior, target))
    return 0
