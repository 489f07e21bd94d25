"""Colours of uncertainty: a scale from certain (blue) to uncertain (yellow), and its legend.

Along the scale, lightness rises steadily and the hue changes from blue to yellow, so values can be
told apart with protanopia, deuteranopia and in greyscale.
"""

import html
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CONFIDENCE", "STOPS", "UNKNOWN", "Scale", "hex_colour", "legend_html"]

Array: TypeAlias = NDArray[Any]

STOPS = ("#1f4fa8", "#56739c", "#8a9185", "#c4b457", "#ffe03d")
"""Colours at equal distances, from certain to uncertain."""

UNKNOWN = "#9a9aa2"
"""The colour of a value that is NaN."""


@dataclass(frozen=True)
class Scale:
    """A range of values and the colours of its ends.

    Args:
        certain: The value with the first colour.
        uncertain: The value with the last colour; values beyond the ends have the colour of the
            end.
        label: What the values are, with their unit.
        percent: Whether values are shares, to be shown as percentages.

    Raises:
        ValueError: The ends are equal or not finite.
    """

    certain: float
    uncertain: float
    label: str
    percent: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite([self.certain, self.uncertain]).all() or self.certain == self.uncertain:
            raise ValueError(
                f"the ends of a scale must be finite and differ, got {self.certain} and "
                f"{self.uncertain}"
            )

    def colours(self, values: ArrayLike) -> Array:
        """Colours of values.

        Args:
            values: (...) numbers; NaN is drawn in `UNKNOWN`.

        Returns:
            (..., 3) RGB, uint8.
        """
        value = np.asarray(values, dtype=float)
        share = np.clip((value - self.certain) / (self.uncertain - self.certain), 0, 1)
        known = np.isfinite(share)
        stops = np.array([_rgb(stop) for stop in STOPS])
        places = np.linspace(0, 1, len(stops))
        flat = np.where(known, share, 0.0)
        rgb = np.stack([np.interp(flat, places, stops[:, axis]) for axis in range(3)], axis=-1)
        return np.rint(np.where(known[..., None], rgb, _rgb(UNKNOWN))).astype(np.uint8)

    def ticks(self, count: int = 5) -> list[str]:
        """Labels at equal distances, from certain to uncertain."""
        values = np.linspace(self.certain, self.uncertain, count)
        return [f"{100 * value:.0f} %" if self.percent else f"{value:.0f}" for value in values]


def confidence_scale(distance_mm: float) -> Scale:
    """Scale of the probability that a joint lies within a distance of its estimate."""
    return Scale(1.0, 0.0, f"Probability that the joint is within {distance_mm:.0f} mm", True)


CONFIDENCE = confidence_scale(100.0)
"""The scale of ``joint_confidence`` at its usual distance."""


def hex_colour(rgb: ArrayLike) -> str:
    """A colour (3,) of 0 to 255 as CSS writes it, such as "#1f4fa8"."""
    red, green, blue = (int(value) for value in np.asarray(rgb))
    return f"#{red:02x}{green:02x}{blue:02x}"


def legend_html(scale: Scale) -> str:
    """A legend as HTML without a style sheet, for the panel of the interactive viewer."""
    ticks = "".join(f"<span>{html.escape(tick)}</span>" for tick in scale.ticks())
    bar = f"height:.8em;border-radius:.2em;background:linear-gradient(to right,{','.join(STOPS)})"
    return (
        '<div style="padding:.3em 1em;font-size:.8em">'
        f"<div>{html.escape(scale.label)}</div>"
        f'<div style="{bar}"></div>'
        f'<div style="display:flex;justify-content:space-between">{ticks}</div></div>'
    )


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return red, green, blue
