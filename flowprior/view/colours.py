"""Scales of uncertainty in the colours of `flowprior.results.colours`, and their legends."""

import html
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowprior.results.colours import STOPS, confidence_colours

__all__ = ["HEX_STOPS", "Scale", "confidence_scale", "hex_colour", "legend_html"]

Array: TypeAlias = NDArray[Any]


def hex_colour(rgb: ArrayLike) -> str:
    """A colour (3,) of 0 to 255 as CSS writes it, such as "#1f4fa8"."""
    red, green, blue = (int(value) for value in np.asarray(rgb))
    return f"#{red:02x}{green:02x}{blue:02x}"


HEX_STOPS = tuple(hex_colour(stop) for stop in STOPS)
"""Colours at equal distances, from certain to uncertain, as CSS writes them."""


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
            values: (...) numbers; NaN is grey.

        Returns:
            (..., 3) RGB, uint8.
        """
        value = np.asarray(values, dtype=float)
        share = (value - self.certain) / (self.uncertain - self.certain)
        return confidence_colours(1 - share)

    def ticks(self, count: int = 5) -> list[str]:
        """Labels at equal distances, from certain to uncertain."""
        values = np.linspace(self.certain, self.uncertain, count)
        return [f"{100 * value:.0f} %" if self.percent else f"{value:.0f}" for value in values]


def confidence_scale(distance_mm: float) -> Scale:
    """Scale of the probability that a joint lies within a distance of its estimate."""
    return Scale(1.0, 0.0, f"Probability that the joint is within {distance_mm:.0f} mm", True)


def legend_html(scale: Scale) -> str:
    """A legend as HTML without a style sheet, for the panel of the interactive viewer."""
    ticks = "".join(f"<span>{html.escape(tick)}</span>" for tick in scale.ticks())
    bar = (
        f"height:.8em;border-radius:.2em;background:linear-gradient(to right,{','.join(HEX_STOPS)})"
    )
    return (
        '<div style="padding:.3em 1em;font-size:.8em">'
        f"<div>{html.escape(scale.label)}</div>"
        f'<div style="{bar}"></div>'
        f'<div style="display:flex;justify-content:space-between">{ticks}</div></div>'
    )
