"""Speeds that people do not reach, which tell a wrong frame rate."""

import torch
from torch import Tensor

from flowprior.rotations import geodesic_distance

__all__ = ["implausible_speed"]

FASTEST_M_S = 12.5  # a sprinter
FASTEST_RAD_S = 25.0
SHARE = 0.05
"""Share of the frames in which a plausible motion may be faster."""


def implausible_speed(rotation: Tensor, transl: Tensor, fps: float) -> str | None:
    """Describe a motion that is too fast for a person; None for others.

    Args:
        rotation: (T, J, 3, 3) relative to the parent; the root is not considered.
        transl: (T, 3) metres.
        fps: Frames per second.

    Returns:
        A sentence for a warning, if the root moves faster than 12.5 m/s or a joint turns faster
        than 25 rad/s in more than 5 % of the frames.
    """
    if len(transl) < 3:
        return None
    speed = fps * (transl[1:] - transl[:-1]).norm(dim=-1)
    turn = fps * geodesic_distance(rotation[1:, 1:], rotation[:-1, 1:]).amax(dim=-1)
    fast = (speed > FASTEST_M_S) | (turn > FASTEST_RAD_S)
    if not float(fast.float().mean()) > SHARE:
        return None
    reached, turned = (float(torch.quantile(each, 1 - SHARE)) for each in (speed, turn))
    return (
        f"at {fps:g} frames per second, the person would move implausibly fast ({reached:.0f} m/s "
        f"and {turned:.0f} rad/s are exceeded in 5 % of the frames): is the frame rate right?"
    )
