"""Warnings about implausible values: degrees, millimetres, another 6D layout."""

import math
import sys
import warnings

import torch
from torch import Tensor

from flowprior.rotations import matching_layouts

__all__ = ["SecondLook"]

# Generous limits that no pose exceeds: four turns, a body of 100 m, a distance of 1 km.
MOST_RADIANS = 8 * math.pi
MOST_SPREAD_M = 100.0
MOST_DISTANCE_M = 1000.0

LOOKS = 16
ROWS = 256


class SecondLook:
    """Checks the units and layout of the first inputs and warns at most once about each kind.

    Shapes do not reveal units or layout, so it checks values. It never changes a result. It skips
    later inputs, inputs on a GPU, which would have to synchronise, and graphs under compilation.
    """

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def rotvec(self, rotvec: Tensor) -> None:
        """Warn if rotation vectors (..., J, 3) are too long for radians."""
        if not self._looks("rotvec", rotvec):
            return
        longest = _number(_few(rotvec, 2).norm(dim=-1).amax())
        if MOST_RADIANS < longest < math.inf:
            self._warn(
                "rotvec",
                f"theta has rotation vectors of up to {longest:.0f} radians, more than four turns: "
                "torch.deg2rad(theta) converts degrees",
            )

    def rot6d(self, x: Tensor, layout: str) -> None:
        """Warn if 6D vectors (..., J, 6) are rotations in another layout only."""
        if not self._looks("rot6d", x):
            return
        try:
            found = matching_layouts(_few(x, 2))
        except RuntimeError:  # vmap cannot read values
            return
        if found and layout not in found:
            names = " or ".join(repr(name) for name in found)
            self._warn(
                "rot6d",
                f"theta has 6D vectors that are rotations in layout {names}, but not in layout "
                f"{layout!r} of this prior or body: create it with layout={found[0]!r}, or pass "
                f"rotations.rot6d_to_matrix(theta, {found[0]!r})",
            )

    def points(self, points: Tensor) -> None:
        """Warn if the keypoints (..., J, 3) of one pose are too far apart for metres."""
        if not self._looks("points", points):
            return
        few = _few(points, 2)
        spread = _number((few.amax(dim=-2) - few.amin(dim=-2)).amax())
        if MOST_SPREAD_M < spread < math.inf:
            self._warn(
                "points",
                f"theta has keypoints {spread:.0f} m apart in one pose: theta / 1000 converts "
                "millimetres to metres",
            )

    def transl(self, transl: Tensor) -> None:
        """Warn if translations (..., 3) are too long for metres."""
        if not self._looks("transl", transl):
            return
        farthest = _number(_few(transl, 1).abs().amax())
        if MOST_DISTANCE_M < farthest < math.inf:
            self._warn(
                "transl",
                f"transl moves the body by {farthest:.0f} m: transl / 1000 converts millimetres to "
                "metres",
            )

    def _looks(self, kind: str, value: Tensor) -> bool:
        if torch.compiler.is_compiling():
            return False
        left = self._left.get(kind, LOOKS)
        if left == 0 or value.device.type != "cpu" or not value.numel():
            return False
        self._left[kind] = left - 1
        return True

    def _warn(self, kind: str, message: str) -> None:
        self._left[kind] = 0
        warnings.warn(message, UserWarning, stacklevel=_level_of_caller())


def _few(value: Tensor, event_ndim: int) -> Tensor:
    """At most ``ROWS`` rows of (..., event), which cost almost nothing to check."""
    value = value.detach()
    return value.flatten(end_dim=-event_ndim - 1)[:ROWS] if value.ndim > event_ndim else value


def _number(value: Tensor) -> float:
    """The value as a float; NaN, which fails every comparison, under vmap."""
    try:
        return float(value)
    except RuntimeError:  # vmap
        return math.nan


def _level_of_caller() -> int:
    """The ``stacklevel`` of the first frame outside flowprior and torch."""
    level, frame = 0, sys._getframe(1)
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    return level + 1


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("flowprior", "torch")
