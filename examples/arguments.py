"""Numbers of a command line, for ``type=`` of argparse."""

import argparse

__all__ = ["natural", "positive"]


def natural(text: str) -> int:
    """A whole number of 0 or more that a random generator takes for a seed."""
    return _at_least(0, text)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    return _at_least(1, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not least <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text}")
    return value
