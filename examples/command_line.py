"""Helpers for command-line programs: device selection, integer arguments, error exits."""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import torch

from flowprior._console import escape_unencodable

__all__ = [
    "DEVICES",
    "device_of",
    "fail",
    "interruptible",
    "natural",
    "positive",
]

Arguments = ParamSpec("Arguments")

DEVICES = ("auto", "cpu", "cuda")
"""Choices of ``--device``."""


def device_of(choice: str) -> torch.device:
    """Select the device of a command line.

    Args:
        choice: One of `DEVICES`; "auto" selects a GPU if one is available.

    Raises:
        ValueError: No GPU is available, or the choice is unknown.
    """
    if choice not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}, got {choice!r}")
    if choice == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def fail(error: Exception | str) -> int:
    """Print an error message; returns the exit code for bad arguments or data."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def interruptible(
    what: str,
) -> Callable[[Callable[Arguments, int]], Callable[Arguments, int]]:
    """Decorate the ``main`` of a program: Ctrl-C ends it with a message and exit code 130.

    Its output escapes characters that the console or pipe cannot encode.

    Args:
        what: The state after an interruption, for the message.
    """

    def wrap(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
        @functools.wraps(main)
        def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
            escape_unencodable()
            try:
                return main(*args, **kwargs)
            except KeyboardInterrupt:
                print(f"\ninterrupted; {what}", file=sys.stderr)
                return 130

        return run

    return wrap


def natural(text: str) -> int:
    """Parse a whole number of at least 0, such as the seed of a random generator."""
    return _at_least(0, text)


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _at_least(1, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not least <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text}")
    return value
