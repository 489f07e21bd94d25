"""Scales of uncertainty: ends, NaN, legends, and vision without all colours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprior.view.colours import HEX_STOPS, Scale, confidence_scale, hex_colour, legend_html

# Machado et al., A Physiologically-based Model for Simulation of Color Vision Deficiency, 2009,
# severity 1: linear RGB to linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
SCALE = Scale(0.0, 200.0, "Spread, mm")


@pytest.mark.parametrize("vision", VISION)
def test_lightness_rises_steadily_for_every_kind_of_vision(vision):
    rgb = SCALE.colours(np.linspace(0, 200, 41)) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
    lightness = 116 * np.cbrt(seen @ [0.2126, 0.7152, 0.0722]) - 16
    assert (np.diff(lightness) > 0.3).all()
    assert lightness[-1] - lightness[0] > 40


@given(value=st.floats(-1e6, 1e6))
def test_values_beyond_the_ends_have_the_colours_of_the_ends(value):
    inside = float(np.clip(value, 0, 200))
    assert (SCALE.colours(value) == SCALE.colours(inside)).all()


def test_the_ends_are_the_first_and_the_last_stop():
    first, last = SCALE.colours([0, 200])
    assert (hex_colour(first), hex_colour(last)) == (HEX_STOPS[0], HEX_STOPS[-1])
    certain, uncertain = confidence_scale(100).colours([1, 0])
    assert (hex_colour(certain), hex_colour(uncertain)) == (HEX_STOPS[0], HEX_STOPS[-1])


def test_nan_is_grey():
    red, green, blue = SCALE.colours(np.nan).astype(int)
    assert max(red, green, blue) - min(red, green, blue) < 12
    assert SCALE.colours(np.full((2, 3), np.nan)).shape == (2, 3, 3)


def test_a_legend_has_the_label_the_colours_and_the_ticks():
    legend = legend_html(confidence_scale(50))
    assert "within 50 mm" in legend
    assert all(colour in legend for colour in HEX_STOPS)
    assert confidence_scale(50).ticks() == ["100 %", "75 %", "50 %", "25 %", "0 %"]
    assert SCALE.ticks(3) == ["0", "100", "200"]
    assert "<b>" not in legend_html(Scale(0, 1, "<b>"))


@pytest.mark.parametrize("ends", [(1, 1), (0, np.nan), (-np.inf, 0)])
def test_a_scale_without_a_range_is_an_error(ends):
    with pytest.raises(ValueError, match="must be finite and differ"):
        Scale(*ends, "x")
