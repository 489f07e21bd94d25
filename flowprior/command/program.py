"""The command line of ``flowprior`` and ``python -m flowprior``."""

import argparse
import os
import sys
from collections.abc import Sequence

from flowprior import __version__
from flowprior._console import escape_unencodable
from flowprior.command import convert, fit, info, sample, view

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES = (
    "Exit codes: 0 done; 1 error, explained on standard error; 2 wrong usage; 3 done, but some "
    "files could not be read; 130 interrupted, with everything finished so far kept."
)
"""Exit codes of all verbs, for the help."""

VERBS = (fit, sample, view, info, convert)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        argv: The arguments; those of the process if None.

    Returns:
        The exit code, see `EXIT_CODES`. Wrong usage exits with 2.
    """
    escape_unencodable()
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe; keep Python from raising again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, ImportError) as error:
        print(f"flowprior: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flowprior: interrupted", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowprior",
        description="Fit bodies to photos, videos and 2D keypoints, with calibrated uncertainty; "
        "sample, inspect and convert pose priors.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"flowprior {__version__}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="VERB")
    for module in VERBS:
        module.add_parser(verbs)
    return parser
