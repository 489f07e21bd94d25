"""``flowprior view``: the interactive viewer of fits, in the browser."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flowprior.command.options import add_body, add_prior, body_from, natural, verb
from flowprior.results import Fits
from flowprior.view.viewer import serve

if TYPE_CHECKING:
    from flowprior.command.options import Verbs

__all__ = ["add_parser"]


def add_parser(verbs: "Verbs") -> None:
    """Add the verb to the command line."""
    parser = verb(
        verbs,
        "view",
        run,
        "show fits in the browser",
        "Serve an interactive viewer of the results of flowprior fit until Ctrl-C.",
    )
    parser.add_argument("results", type=Path, metavar="DIR", help="folder, or its fits.npz")
    add_prior(parser)
    add_body(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=natural, default=8080, metavar="N", help="port (default: %(default)s)"
    )
    parser.add_argument("--dark", action="store_true", help="dark page")


def run(args: argparse.Namespace) -> int:
    """Serve the viewer; returns the exit code."""
    fits = Fits.load(args.results)
    body = body_from(args.body)
    page = {"host": args.host, "port": args.port, "dark": args.dark}
    serve(fits, prior=args.prior, body=body, **page)
    return 0
