"""Left and right of 2D keypoints, which detectors confuse in some frames."""

import torch
from torch import Tensor

from flowprior.skeleton import Skeleton

__all__ = ["unswapped"]

FARTHEST = 0.25  # of the person's size: a jump this far says no more than a farther one
PRICE = 0.002  # of an exchanged frame, in squares of that size, so that most are not

ARM = ("shoulder", "elbow", "wrist")
LEG = ("hip", "knee", "ankle", "foot", "big_toe", "small_toe", "heel")


def unswapped(keypoints: Tensor, skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """Exchange left and right where this makes a track continuous.

    Each frame is as it is, or has its arms, its legs or all sides exchanged. The most continuous
    sequence of these four, with a small price for exchanges, follows from dynamic programming.

    Args:
        keypoints: (P, T, K, 3) pixels and confidence; 0 where unknown.
        skeleton: Their joint set.

    Returns:
        The keypoints, and (P, T) bool, where sides were exchanged.
    """
    orders = _orders(skeleton)
    tracks = [_one(track, orders) for track in keypoints]
    return torch.stack([track for track, _ in tracks]), torch.stack([at for _, at in tracks])


def _orders(skeleton: Skeleton) -> Tensor:
    """(4, K) indices of the keypoints in each state."""
    same = torch.arange(skeleton.num_joints)
    flip = torch.tensor(skeleton.flip)

    def of(part: tuple[str, ...]) -> Tensor:
        has = torch.tensor([any(name.endswith(p) for p in part) for name in skeleton.joint_names])
        return torch.where(has, flip, same)

    return torch.stack([same, of(ARM), of(LEG), flip])


def _one(track: Tensor, orders: Tensor) -> tuple[Tensor, Tensor]:
    """The same for one track (T, K, 3)."""
    seen = track[..., 2] > 0
    frames = seen.any(dim=-1).nonzero()[:, 0]
    swapped = torch.zeros(len(track), dtype=torch.bool, device=track.device)
    if len(frames) < 2:
        return track, swapped
    place = torch.where(seen[..., None], track[..., :2], torch.nan)[frames]
    low = torch.where(place.isnan(), torch.inf, place).amin(dim=1)
    high = torch.where(place.isnan(), -torch.inf, place).amax(dim=1)
    size = (high - low).amax(dim=-1).median().clamp(min=1e-6)
    states = place[:, orders] / size  # (F, 4, K, 2)
    jump = (states[1:, :, None] - states[:-1, None]).square().sum(dim=-1)
    cost = jump.nan_to_num(nan=0.0).clamp(max=FARTHEST**2).sum(dim=-1)  # (F - 1, now, before)
    # The same for all exchanges, lest a part of one be the cheaper choice.
    price = PRICE * (torch.arange(len(orders)) > 0).to(cost)
    total, came = price, []
    for step in cost:
        best = (total + step).min(dim=-1)
        total = best.values + price
        came.append(best.indices)
    state = [int(total.argmin())]
    for back in reversed(came):
        state.append(int(back[state[-1]]))
    chosen = torch.tensor(state[::-1], device=track.device)
    track = track.clone()
    track[frames] = track[frames[:, None], orders.to(track.device)[chosen]]
    swapped[frames] = chosen > 0
    return track, swapped
