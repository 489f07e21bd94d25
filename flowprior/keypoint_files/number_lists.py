"""Lists of numbers in JSON."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["number_list"]


def number_list(value: object) -> NDArray[np.float64] | None:
    """A list (n,) as an array, if it contains numbers only."""
    if not isinstance(value, list) or any(
        isinstance(entry, bool) or not isinstance(entry, int | float) for entry in value
    ):
        return None
    try:
        return np.array(value, np.float64)
    except OverflowError:  # JSON integers may have any length
        return None
