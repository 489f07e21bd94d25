"""Colours of confidences: blue for certain, yellow for uncertain, grey for unknown."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["STOPS", "UNKNOWN", "confidence_colours"]

STOPS = ((31, 79, 168), (86, 115, 156), (138, 145, 133), (196, 180, 87), (255, 224, 61))
"""Colours (RGB) at equal distances, from a confidence of 1 to 0.

Lightness rises steadily, so that they can be told apart without colour vision.
"""

UNKNOWN = (154, 154, 162)
"""Colour of NaN."""


def confidence_colours(confidence: ArrayLike) -> NDArray[np.uint8]:
    """Colours (..., 3) of confidences (...) from 0 to 1."""
    value: NDArray[Any] = np.asarray(confidence, np.float64)
    known = np.isfinite(value)
    place = np.clip(1 - np.where(known, value, 1), 0, 1) * (len(STOPS) - 1)
    columns = [np.interp(place, np.arange(len(STOPS)), column) for column in np.transpose(STOPS)]
    rgb = np.stack(columns, axis=-1)
    return np.rint(np.where(known[..., None], rgb, UNKNOWN)).astype(np.uint8)
