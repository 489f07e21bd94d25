"""Check data files: ``python -m examples.data check PATH``."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from examples.data.registry import READERS, survey
from flowprior._console import escape_unencodable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its arguments; those of the process if None.

    Returns:
        The exit code.
    """
    escape_unencodable()
    arguments = _parser().parse_args(argv)
    try:
        found = survey(arguments.paths, arguments.images)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps({"exit_code": found.exit_code, **asdict(found)}, indent=2))
    else:
        print(found)
    return found.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.data")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    formats = "\n".join(f"  {reader.name}" for reader in READERS)
    check = commands.add_parser(
        "check",
        help="report the content and the faults of a file or folder",
        description="Report the content and the faults of a file or folder.",
        epilog=(
            f"known formats, identified by content:\n{formats}\n\n"
            "exit code: 0 no faults; 1 some rows or values cannot be used; 2 something cannot\n"
            "be read or has no known format"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file or folder")
    check.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help=(
            "folder of the images, to see which are missing; left out, that of ProHMR's "
            "configuration beside a file of its name, if there"
        ),
    )
    check.add_argument("--json", action="store_true", help="the same as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
