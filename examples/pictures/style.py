"""Colours and fonts of all pictures.

Colours have one meaning: pink is the mode, purple and yellow are samples, grey is the ground truth
and hidden joints. The right side of a person is darker.
"""

import colorsys
from typing import Any, TypeAlias

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

__all__ = [
    "DASHES",
    "FLOOR",
    "HIDDEN",
    "INK",
    "LEFT",
    "MIDDLE",
    "MODE",
    "ON_PHOTO",
    "REGRESSOR",
    "RIGHT",
    "SAMPLES",
    "STYLE",
    "TRUTH",
    "UNCERTAINTY",
    "Array",
    "Image",
    "shade",
]

Array: TypeAlias = NDArray[np.floating[Any]]
Image: TypeAlias = NDArray[np.uint8]

MODE = "#e8488a"
SAMPLES = ("#7a4fb5", "#eeb11d")
TRUTH = "#77777d"
REGRESSOR = "#2f7f95"
INK = "#2b2b33"
LEFT, RIGHT, MIDDLE = "#3fa7b8", "#1f5f7a", "#2f7f95"
HIDDEN = "#b4b4bc"
ON_PHOTO = ("#2fd0e6", "#ff8a3d", "#f5f5f7")
"""Colours of left, right and middle of the body over a photograph."""
FLOOR = "#efeff3"
DASHES = (0, (5, 2))
UNCERTAINTY = "plasma"
"""The matplotlib colour map of spreads: dark for low, bright for high spread."""

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9a9aa3",
    "text.color": INK,
    "xtick.color": "#5a5a63",
    "ytick.color": "#5a5a63",
    "savefig.facecolor": "white",
}


def shade(colour: str, factor: float) -> str:
    """Darken (factor below 1) or lighten (factor above 1) a colour."""
    hue, light, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    return str(to_hex(colorsys.hls_to_rgb(hue, min(1.0, light * factor), saturation)))
