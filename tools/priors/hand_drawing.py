"""Training examples of hands: poses of a right hand, and what is known of each."""

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.skeleton import MANO_16, MANO_21
from flowprior.skeleton.whole_body_sets import FINGERS
from tools.priors.drawing import EXACT, Examples, choose
from tools.priors.hand_chain import HandChain

__all__ = ["FINGERS", "TIPS", "draw_hands", "finger_joints", "points_of"]

TIPS = tuple(MANO_21.index(finger) for finger in FINGERS)
BETAS = 10

SHARES = {"rotations": 0.35, "joints_3d": 0.40, "both": 0.10, "nothing": 0.15}
POINT_SHARES = {"all": 0.3, "tips": 0.3, "fingers": 0.2, "scattered": 0.2}
FARTHEST_NOISE_M = 0.005
AVERAGE = 0.5  # share of hands of average shape


def finger_joints(finger: str) -> list[int]:
    """Rotations, 0 to 14, of a finger."""
    return [MANO_16.index(f"{finger}{n}") - 1 for n in (1, 2, 3)]


def points_of(finger: str) -> list[int]:
    """Points, 0 to 20, of a finger, with its tip."""
    return [*(joint + 1 for joint in finger_joints(finger)), MANO_21.index(finger)]


@torch.no_grad()
def draw_hands(
    rotvecs: Tensor,
    chain: HandChain,
    generator: torch.Generator,
) -> Examples:
    """Draw hands of random shape and what is known of them.

    Args:
        rotvecs: (N, 15, 3) poses.
        chain: The right hand.
        generator: Source of everything random.
    """
    count = len(rotvecs)
    theta = rotations.rotvec_to_matrix(rotvecs)
    betas = torch.randn(count, BETAS, generator=generator)
    betas = betas * (torch.rand(count, 1, generator=generator) >= AVERAGE)
    points = chain(theta, betas)
    kinds = choose(tuple(SHARES.values()), count, generator).unbind(dim=1)
    which = dict(zip(SHARES, kinds, strict=True))

    share = torch.rand(count, 1, generator=generator)
    fingers = torch.rand(count, len(FINGERS), generator=generator) < share
    scattered = torch.rand(count, chain.joints, generator=generator) < share
    at_random = torch.rand(count, 1, generator=generator) < 0.3
    known = torch.where(at_random, scattered, fingers.repeat_interleave(3, dim=1))
    known &= (which["rotations"] | which["both"])[:, None]

    seen = torch.zeros(len(POINT_SHARES), count, chain.scored, dtype=torch.bool)
    seen[0] = True
    seen[1, :, list(TIPS)] = True
    seen[2] = torch.zeros(count, chain.scored, dtype=torch.bool)
    for number, finger in enumerate(FINGERS):
        seen[2, :, points_of(finger)] = fingers[:, number, None]
    seen[3] = torch.rand(count, chain.scored, generator=generator) < share
    chosen = choose(tuple(POINT_SHARES.values()), count, generator).int().argmax(dim=1)
    placed = seen[chosen, torch.arange(count)]
    placed[:, 0] = True  # the origin
    placed &= (which["joints_3d"] | which["both"])[:, None]
    size = FARTHEST_NOISE_M * torch.rand(count, 1, 1, generator=generator)
    size = size * (torch.rand(count, 1, 1, generator=generator) >= EXACT)
    noise = size * torch.randn(points.shape, generator=generator)
    return Examples(
        theta,
        known,
        points,
        theta.new_zeros(count, 17, 3),
        torch.where(placed[..., None], points + noise, torch.nan),
        theta,
    )
