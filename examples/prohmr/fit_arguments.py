"""How is fitted, in the words of a command line: the same in every program of this example."""

import argparse

from examples.fitting.settings import overridden
from examples.prohmr.fits import FitOptions
from flowprior.fitting import FRAMES, KeypointWeights, MultiviewWeights

__all__ = ["add_fit_arguments", "fit_options"]

VIEWS_PREFIX = "views."


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a command line say how is fitted; for `fit_options`.

    Read it with ``parse_intermixed_args``: the words ``key=value`` may stand anywhere.
    """
    parser.add_argument("--fit", action="store_true", help="fit to 2D keypoints (and over views)")
    parser.add_argument(
        "--frame", choices=FRAMES, default="crop", help="camera of the fits (%(default)s)"
    )
    parser.add_argument("--theta", action="store_true", help="fit theta, not the flow's latent")
    parser.add_argument(
        "--steps", type=int, default=150, metavar="N", help="of each fit, at most (%(default)s)"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="weights of the fits")


def fit_options(args: argparse.Namespace, *, use_hips: bool) -> FitOptions:
    """How is fitted, from the words of a command line; see `add_fit_arguments`.

    Args:
        args: What was given.
        use_hips: Whether hips count, unless the words say so.

    Raises:
        ValueError: A key is unknown, a value is none, or there are words but no ``--fit``.
    """
    if args.settings and not args.fit:
        raise ValueError(f"{' '.join(args.settings)}: weights of fits, but there is no --fit")
    apart: dict[bool, list[str]] = {True: [], False: []}
    for word in args.settings:
        apart[word.startswith(VIEWS_PREFIX)].append(word.removeprefix(VIEWS_PREFIX))
    return FitOptions(
        keypoints=overridden(KeypointWeights(use_hips=use_hips), apart[False]),
        views=overridden(MultiviewWeights(), apart[True]),
        frame=args.frame,
        theta=args.theta,
        max_iterations=args.steps,
    )
