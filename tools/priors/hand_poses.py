"""Procedural poses of a right hand, within published joint ranges and with published couplings.

There is no freely licensed capture of hands, so these poses are drawn, not measured.

Ranges, in degrees (e-hand.com "nor002" and eatonhand.com "clf218", tables of normal motion of the
American Society for Surgery of the Hand; gpnotebook, "movement of the hand"):

* knuckles (MCP) flex to 90 and extend to 45, of which 20 are used, and spread by 20 either way;
* middle joints (PIP) flex to 100, end joints (DIP) to 80, and neither extends;
* the thumb's MCP flexes to 55 and extends to 10, its IP flexes to 80 and extends to 15;
* the base of the thumb (CMC) moves 45 away from the palm and 60 to the side.

Couplings:

* DIP is about 2/3 of PIP, an idealisation from animation (Rijpkema and Girard, *Computer animation
  of knowledge-based human grasping*, 1991);
* fingers are not independent: a finger draws its neighbours along, the ring finger most, the index
  finger least (Haeger-Ross and Schieber, *Quantifying the independence of human finger movements*,
  2000). The strengths used here are ours;
* most hands open and close as a whole, the first principal component of grasps (Santello, Flanders
  and Soechting, *Postural hand synergies for tool use*, 1998);
* bent knuckles cannot spread, because their collateral ligaments are tight.

The papers are the usual references for these couplings; apart from the 2/3, no number is theirs.
How often hands are open, closed, relaxed or pointing is a choice of ours. Poses in which fingers
run into each other or into the palm are left out.
"""

import math

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.skeleton import MANO_16, MANO_21
from tools.priors.hand_chain import HandChain

__all__ = ["FINGERS", "FLEXION_DEGREES", "sample_hands", "wrong_way"]

FINGERS = ("index", "middle", "ring", "pinky")

FLEXION_DEGREES = {
    "mcp": (-20.0, 90.0),
    "pip": (0.0, 100.0),
    "dip": (0.0, 80.0),
    "thumb mcp": (-10.0, 55.0),
    "thumb ip": (-15.0, 80.0),
}
"""Smallest and largest flexion."""

SPREAD_DEGREES = 20.0
THUMB_ACROSS = (-30.0, 35.0)  # of the base of the thumb from the template, towards the fingers
THUMB_AWAY = (-25.0, 20.0)  # away from the palm
THUMB_TURN = (-10.0, 30.0)  # about its own axis, coupled to the movement across the palm

STYLES = {"whole": 0.55, "gesture": 0.3, "relaxed": 0.15}
# How much of a finger's closing is that of its neighbours.
DRAWN_ALONG = {"index": 0.1, "middle": 0.25, "ring": 0.35, "pinky": 0.2}
SWITCH = 0.35  # probability that a finger of a gesture differs from its neighbour
PRONATION = math.radians(65.0)  # of the thumb's pad against those of the fingers
NARROWEST_M = 0.008  # between bones of two fingers
PALM_M = 0.006  # depth of the palm's surface below the joints
BATCH = 4096


def sample_hands(count: int, generator: torch.Generator, chain: HandChain) -> Tensor:
    """Draw poses.

    Args:
        count: Number N of poses.
        generator: Source of everything random.
        chain: The right hand.

    Returns:
        Rotation vectors (N, 15, 3) in MANO's order, radians; zero is the flat hand.
    """
    found: list[Tensor] = []
    while sum(map(len, found)) < count:
        matrix = _draw(BATCH, generator, chain)
        found.append(rotations.matrix_to_rotvec(matrix[_is_free(chain(matrix))]))
    return torch.cat(found)[:count]


def wrong_way(rotvecs: Tensor, joint: str, degrees: float, chain: HandChain) -> Tensor:
    """Poses (N, 15, 3) with one finger joint, such as "index2", bent backwards by an angle."""
    finger = joint[:-1]
    axis = _flexion_axes(finger, chain)[int(joint[-1]) - 1]
    turned = rotvecs.clone()
    turned[:, MANO_16.index(joint) - 1] = -math.radians(degrees) * axis
    return turned


def _draw(count: int, generator: torch.Generator, chain: HandChain) -> Tensor:
    """Rotations (count, 15, 3, 3), fingers that collide among them."""

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def normal(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(count, *shape, generator=generator)

    closing = uniform(1)
    close = _closing(closing, generator)
    # Hooks and flat fingers bent at the knuckles: a hand's knuckles against its other joints.
    knuckles = close + normal(0.2, 1) + normal(0.06, len(FINGERS))
    pip = _spread_over("pip", close + normal(0.05, len(FINGERS)))
    mcp = _spread_over("mcp", knuckles)
    low, high = FLEXION_DEGREES["dip"]
    dip = (2 / 3 * pip + normal(6.0, len(FINGERS))).clamp(low, high)
    splay = uniform(1, low=-4.0, high=16.0) * torch.tensor([1.0, 0.1, -0.6, -1.2])
    straight = (1 - mcp / FLEXION_DEGREES["mcp"][1]).clamp(0, 1)
    spread = (straight * (splay + normal(2.5, len(FINGERS)))).clamp(-SPREAD_DEGREES, SPREAD_DEGREES)

    result = torch.eye(3).repeat(count, MANO_16.num_joints - 1, 1, 1)
    dorsal = torch.tensor([0.0, 1.0, 0.0])
    for number, finger in enumerate(FINGERS):
        axes = _flexion_axes(finger, chain)
        turns = [_turn(axes[n], each[:, number]) for n, each in enumerate((mcp, pip, dip))]
        turns[0] = _turn(dorsal, spread[:, number]) @ turns[0]
        for n, turn in enumerate(turns):
            result[:, MANO_16.index(f"{finger}{n + 1}") - 1] = turn

    # The thumb crosses the palm of a closing hand, but has a will of its own.
    across = (0.5 * closing + 0.5 * uniform(1) + normal(0.1, 1)).clamp(0, 1)[:, 0]
    away = (uniform() + 0.2 * across).clamp(0, 1)
    base = THUMB_ACROSS[0] + (THUMB_ACROSS[1] - THUMB_ACROSS[0]) * across
    lift = THUMB_AWAY[0] + (THUMB_AWAY[1] - THUMB_AWAY[0]) * away
    twist = (0.4 * base + normal(5.0)).clamp(*THUMB_TURN)
    bent = (0.6 * across + 0.4 * uniform()).clamp(0, 1)
    thumb_mcp = _spread_over("thumb mcp", bent + normal(0.12))
    thumb_ip = _spread_over("thumb ip", 0.5 * bent + 0.5 * uniform() - 0.1 + normal(0.08))
    axes, along = _flexion_axes("thumb", chain), _directions("thumb", chain)[0]
    outward = torch.linalg.cross(axes[0], along)  # the direction of flexion
    turns = [
        _turn(-outward, lift) @ _turn(axes[0], base) @ _turn(along, -twist),
        _turn(axes[1], thumb_mcp),
        _turn(axes[2], thumb_ip),
    ]
    for n, turn in enumerate(turns):
        result[:, MANO_16.index(f"thumb{n + 1}") - 1] = turn
    return result


def _closing(closing: Tensor, generator: torch.Generator) -> Tensor:
    """How far the four fingers are closed (N, 4), about 0 to 1, in hands that close (N, 1)."""
    count, number = len(closing), len(FINGERS)
    noise = torch.randn(count, number, generator=generator)
    whole = closing + 0.1 * noise
    relaxed = 0.3 + 0.05 * torch.arange(number) + 0.08 * noise
    switched = torch.rand(count, number, generator=generator) < SWITCH
    bent = (switched.cumsum(dim=1) + (closing > 0.5)) % 2 == 1
    gesture = torch.where(bent, 0.85, 0.08) + 0.08 * noise
    styles = torch.tensor(tuple(STYLES.values()))
    which = torch.multinomial(styles, count, replacement=True, generator=generator)
    close = torch.stack([whole, gesture, relaxed], dim=1)[torch.arange(count), which]
    neighbours = torch.stack(
        [close[:, [max(n - 1, 0), min(n + 1, number - 1)]].mean(dim=1) for n in range(number)],
        dim=1,
    )
    share = torch.tensor(tuple(DRAWN_ALONG[finger] for finger in FINGERS))
    return (1 - share) * close + share * neighbours


def _spread_over(joint: str, share: Tensor) -> Tensor:
    """Degrees at a share of a joint's range."""
    low, high = FLEXION_DEGREES[joint]
    # Few joints are at the very end of their range.
    return (high * share).clamp(low, high)


def _directions(finger: str, chain: HandChain) -> Tensor:
    """Directions (3, 3) of the bones of a finger of the flat hand."""
    places = [MANO_21.index(f"{finger}{n}") for n in (1, 2, 3)]
    ends = [*places[1:], MANO_21.index(finger)]
    bones = chain.rest[ends] - chain.rest[places]
    if finger != "thumb":
        # Fingertips are points of the surface, above the line of the joints.
        bones = bones * torch.tensor([1.0, 0.0, 1.0])
    return torch.nn.functional.normalize(bones, dim=-1)


def _flexion_axes(finger: str, chain: HandChain) -> Tensor:
    """Axes (3, 3) about which the joints of a finger of the flat right hand flex.

    The palm faces down (-y), the fingers point to -x, the thumb's side is +z.
    """
    along = _directions(finger, chain)
    towards = torch.tensor([0.0, -1.0, 0.0])
    if finger == "thumb":
        along = along[:1].expand(3, 3)  # a straight thumb has one axis for all joints
        towards = torch.tensor([0.0, -math.cos(PRONATION), -math.sin(PRONATION)])
    axes = torch.linalg.cross(along, towards.expand(3, 3))
    return torch.nn.functional.normalize(axes, dim=-1)


def _turn(axis: Tensor, degrees: Tensor) -> Tensor:
    """Rotations (N, 3, 3) about an axis (3,) by angles (N,)."""
    return rotations.rotvec_to_matrix(torch.deg2rad(degrees)[:, None] * axis)


def _is_free(points: Tensor) -> Tensor:
    """Whether no finger of hands (N, 21, 3) runs into another or into the palm, (N,) bool."""
    chains = []
    for finger in (*FINGERS, "thumb"):
        places = [MANO_21.index(name) for name in (f"{finger}2", f"{finger}3", finger)]
        bones = points[:, places]
        chains.append(torch.cat([bones, (bones[:, 1:] + bones[:, :-1]) / 2], dim=1))
    free = torch.ones(len(points), dtype=torch.bool)
    for first in range(len(chains)):
        for second in range(first + 1, len(chains)):
            distance = torch.cdist(chains[first], chains[second]).flatten(1).amin(dim=1)
            free &= distance > NARROWEST_M
    knuckles = points[:, [MANO_21.index(f"{finger}1") for finger in FINGERS]]
    ends = torch.cat(chains, dim=1)
    # The fingers point to -x: what lies behind the knuckles must lie below the palm.
    behind = ends[..., 0] > knuckles[..., 0].amax(dim=1, keepdim=True)
    beside = ends[..., 2] > knuckles[..., 2].amax(dim=1, keepdim=True)  # the thumb's own place
    return free & ~(behind & ~beside & (ends[..., 1] > -PALM_M)).any(dim=1)
