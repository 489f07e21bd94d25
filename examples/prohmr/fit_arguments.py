"""Command-line options shared by the fitting programs of this example."""

import argparse

from examples.prohmr.fits import FitOptions
from examples.training.settings import with_overrides
from flowprior.fitting import FRAMES, KeypointWeights, MultiviewWeights

__all__ = ["add_fit_arguments", "fit_options"]

VIEWS_PREFIX = "views."


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line options of fits, for `fit_options`.

    Parse with ``parse_intermixed_args``: arguments ``key=value`` may stand anywhere.
    """
    parser.add_argument("--fit", action="store_true", help="fit to 2D keypoints (and over views)")
    parser.add_argument(
        "--frame", choices=FRAMES, default="crop", help="camera of the fits (%(default)s)"
    )
    parser.add_argument("--theta", action="store_true", help="fit theta, not the flow's latent")
    parser.add_argument(
        "--steps",
        type=int,
        default=150,
        metavar="N",
        help="largest number of iterations of a fit (%(default)s)",
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="weights of the fits")


def fit_options(args: argparse.Namespace, *, use_hips: bool) -> FitOptions:
    """The options of fits from the options of `add_fit_arguments`.

    Args:
        args: The parsed command line.
        use_hips: Default for the use of hips.

    Raises:
        ValueError: A key is unknown, a value is invalid, or weights are set without ``--fit``.
    """
    if args.settings and not args.fit:
        raise ValueError(f"{' '.join(args.settings)}: weights of fits, but there is no --fit")
    apart: dict[bool, list[str]] = {True: [], False: []}
    for word in args.settings:
        apart[word.startswith(VIEWS_PREFIX)].append(word.removeprefix(VIEWS_PREFIX))
    return FitOptions(
        keypoints=with_overrides(KeypointWeights(use_hips=use_hips), apart[False]),
        views=with_overrides(MultiviewWeights(), apart[True]),
        frame=args.frame,
        theta=args.theta,
        max_iterations=args.steps,
    )
