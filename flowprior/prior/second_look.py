"""Warnings about numbers that can hardly be meant: degrees, millimetres, another 6D layout."""

import math
import sys
import warnings

import torch
from torch import Tensor

from flowprior.rotations import matching_layouts

__all__ = ["SecondLook"]

# No pose needs more: four whole turns, a body as long as a street, a camera that still sees it.
MOST_RADIANS = 8 * math.pi
MOST_SPREAD_M = 100.0
MOST_DISTANCE_M = 1000.0

LOOKS = 16
ROWS = 256


class SecondLook:
    """Looks at the first inputs of each kind, on the CPU, and warns at most once about each.

    A warning is about units or layout, which no shape tells. It never changes a result. Later
    inputs are not looked at, nor are those on a GPU, whose values the host would have to wait for,
    or in a graph that is being compiled.
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
                f"theta has rotation vectors of up to {longest:.0f}, more than four whole turns: "
                "they are taken for radians, torch.deg2rad makes them of degrees",
            )

    def rot6d(self, x: Tensor, layout: str) -> None:
        """Warn if 6D vectors (..., J, 6) are rotations, but in another layout only."""
        if not self._looks("rot6d", x):
            return
        try:
            found = matching_layouts(_few(x, 2))
        except RuntimeError:  # vmap cannot look at values
            return
        if found and layout not in found:
            names = " or ".join(repr(name) for name in found)
            self._warn(
                "rot6d",
                f"theta has 6D vectors that are rotations in layout {names}, but not in "
                f"{layout!r}, in which they are read: give layout={found[0]!r} where the prior or "
                f"body is made, or rotations.rot6d_to_matrix(theta, {found[0]!r}) as theta",
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
                f"theta has keypoints {spread:.0f} apart in one pose: they are taken for metres, "
                "theta / 1000 makes them of millimetres",
            )

    def transl(self, transl: Tensor) -> None:
        """Warn if translations (..., 3) lead too far away for metres."""
        if not self._looks("transl", transl):
            return
        farthest = _number(_few(transl, 1).abs().amax())
        if MOST_DISTANCE_M < farthest < math.inf:
            self._warn(
                "transl",
                f"transl moves the body by {farthest:.0f}: it is taken for metres, transl / 1000 "
                "makes them of millimetres",
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
    """Some rows of (..., event): enough to see, few enough to cost nothing."""
    value = value.detach()
    return value.flatten(end_dim=-event_ndim - 1)[:ROWS] if value.ndim > event_ndim else value


def _number(value: Tensor) -> float:
    """A number to compare; NaN, which no comparison holds for, where values cannot be seen."""
    try:
        return float(value)
    except RuntimeError:  # vmap
        return math.nan


def _level_of_caller() -> int:
    """How far up the stack, from who calls ``warnings.warn``, the first foreign frame is."""
    level, frame = 0, sys._getframe(1)
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    return level + 1


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("flowprior", "torch")
