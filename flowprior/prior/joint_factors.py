"""Conformal factors of joints: what makes radii contain the truth as often as they claim."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowprior.skeleton import SMPL_24

__all__ = ["LEVELS", "JointFactors", "JointScores", "factors_in", "fit_factors", "numbered"]

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Levels 0.05, 0.1, ..., 0.95 at which factors are fitted."""

# Quantiles that stand for the scores of one person, and for the difference of a new person.
QUANTILES = 100
NODES = 15
# Share of a joint's variance between people that is replaced by the mean over the joints: three
# people say little about the variance of one joint.
SHARED = 0.5
LEAST_SCORE = 1e-6


@dataclass(frozen=True, eq=False)
class JointScores:
    """Errors of a prior's answers on N poses of known people, and the radii that it claims.

    Attributes:
        errors_mm: (N, 24) distances of SMPL's joints from the answer.
        radii_mm: (L, N, 24) radii at :data:`LEVELS`.
        errors_degrees: (N, J) angles of the rotations.
        radii_degrees: (L, N, J).
        groups: N people, as numbers or names.
    """

    errors_mm: Tensor
    radii_mm: Tensor
    errors_degrees: Tensor
    radii_degrees: Tensor
    groups: tuple[object, ...]

    def __add__(self, other: "JointScores") -> "JointScores":
        """The poses of both, also of another prior, as in cross-fitting: people have names."""
        return JointScores(
            torch.cat((self.errors_mm, other.errors_mm)),
            torch.cat((self.radii_mm, other.radii_mm), dim=1),
            torch.cat((self.errors_degrees, other.errors_degrees)),
            torch.cat((self.radii_degrees, other.radii_degrees), dim=1),
            self.groups + other.groups,
        )

    def of(self, people: Collection[object]) -> "JointScores":
        """The poses of some people."""
        rows = [index for index, name in enumerate(self.groups) if name in people]
        return JointScores(
            self.errors_mm[rows],
            self.radii_mm[:, rows],
            self.errors_degrees[rows],
            self.radii_degrees[:, rows],
            tuple(self.groups[row] for row in rows),
        )


class JointFactors(nn.Module):
    r"""Factors by which radii of joints are multiplied, for each joint and level.

    They are part of a prior: :meth:`flowprior.ConditionalPosePrior.calibrate_joints` fits them,
    the model file stores them, and :meth:`flowprior.PosePosterior.joint_uncertainty` applies them.

    Args:
        positions: (L, 24) factors of the positions of SMPL's joints, at each of the levels.
        rotations: (L, J) factors of the rotations of the prior's joints.
        people: Number of people they were fitted on.
        levels: (L,) ascending, in (0, 1); :data:`LEVELS` if None.
    """

    positions: Tensor
    rotations: Tensor
    people: Tensor
    levels: Tensor

    def __init__(
        self,
        positions: Tensor,
        rotations: Tensor,
        people: int | Tensor,
        levels: Tensor | None = None,
    ) -> None:
        super().__init__()
        if levels is None:
            levels = torch.tensor(LEVELS)
        self.register_buffer("levels", levels)
        self.register_buffer("positions", positions)
        self.register_buffer("rotations", rotations)
        self.register_buffer("people", torch.as_tensor(people))

    def __repr__(self) -> str:
        return f"JointFactors(people={int(self.people)})"

    @classmethod
    def fit(cls, scores: JointScores) -> "JointFactors":
        """Fit factors to the scores of at least two people; see :func:`fit_factors`.

        Raises:
            ValueError: If there are fewer people.
        """
        people = numbered(scores.groups, len(scores.errors_mm))
        joints = scores.errors_degrees.shape[-1]
        below = SMPL_24.num_joints - joints  # 1 without a root
        flip = [joint - below for joint in SMPL_24.flip[below:]]
        return cls(
            fit_factors(scores.errors_mm, scores.radii_mm, people, LEVELS, SMPL_24.flip),
            fit_factors(scores.errors_degrees, scores.radii_degrees, people, LEVELS, flip),
            int(people.max()) + 1,
        )

    def at(self, kind: str, count: int) -> Tensor:
        """Factors for ascending distances of samples.

        Args:
            kind: ``"positions"`` or ``"rotations"``.
            count: Number n of samples; sample k has the level k / (n - 1).

        Returns:
            (n, J), interpolated linearly in the level and constant beyond the outermost levels.
        """
        table: Tensor = getattr(self, kind)
        wanted = torch.linspace(0, 1, count, dtype=table.dtype, device=table.device)
        levels = self.levels.to(table)
        upper = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
        low, high = levels[upper - 1], levels[upper]
        share = ((wanted - low) / (high - low)).clamp(0, 1)
        return torch.lerp(table[upper - 1], table[upper], share[:, None])


def factors_in(
    tensors: Mapping[str, Tensor], prefix: str, device: torch.device | str
) -> JointFactors | None:
    """Factors of the shapes and dtypes in a state dictionary; None if it has none."""
    names = [prefix + name for name in ("positions", "rotations", "people", "levels")]
    if any(name not in tensors for name in names):
        return None
    return JointFactors(*(torch.zeros_like(tensors[name], device=device) for name in names))


def numbered(groups: Tensor | Sequence[object], count: int) -> Tensor:
    """Number the people of ``count`` rows: (count,) from 0 on.

    Raises:
        ValueError: If there is not one for each row, or there are fewer than two people.
    """
    rows = groups.flatten().tolist() if isinstance(groups, Tensor) else list(groups)
    if len(rows) != count:
        raise ValueError(f"groups must say whose each of the {count} poses is, got {len(rows)}")
    names = {name: index for index, name in enumerate(dict.fromkeys(rows))}
    if len(names) < 2:
        raise ValueError(
            f"groups holds {len(names)} people; the spread between people takes at least two, and "
            "nine or more for 90 % regions that do not rest on its assumed shape"
        )
    return torch.tensor([names[name] for name in rows])


def fit_factors(
    errors: Tensor, radii: Tensor, groups: Tensor, levels: Sequence[float], flip: Sequence[int]
) -> Tensor:
    r"""Fit factors such that radii contain the truth of a new person as often as they claim.

    The score of a pose and joint at level q is its error over the q-radius. A factor is the
    q-quantile of the scores of a person nobody has seen. Its logarithm is modelled as that of a
    known person plus a difference: the scores within people are pooled without their people's own
    quantiles, each person with the same weight, and the difference follows the Student's t of
    G - 1 degrees of freedom with which a new group is predicted from G others, whose scale is
    :math:`\tau \sqrt{1 + 1 / G}` with the standard deviation :math:`\tau` between people. With
    many people that is the pooled quantile. Left and right joints share their factors.

    Args:
        errors: (N, J) distances of the truth from the mode.
        radii: (L, N, J) radii of the levels; rows without spread, such as those of known joints,
            are left out.
        groups: (N,) numbers of people from 0 on.
        levels: L levels.
        flip: The joint opposite to each of the J.

    Returns:
        (L, J); 1 where no person has a spread.

    References:
        Dunn, Wasserman and Ramdas, *Distribution-Free Prediction Sets for Two-Layer Hierarchical
        Models*, 2023, for conformal prediction with groups; there, 90 % regions without an assumed
        shape take nine groups. Vovk et al., *Algorithmic Learning in a Random World*, 2005.
    """
    people = int(groups.max()) + 1
    grid = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    difference = _t_quantiles(people - 1)
    opposite = list(flip)
    result = []
    for level, radius in zip(levels, radii.double(), strict=True):
        spread = radius > 0
        score = (errors.double() / radius).clamp(min=LEAST_SCORE).log()
        score = torch.where(spread, score, torch.nan)
        score = torch.cat([score, score[:, opposite]])  # (2 N, J)
        owner = groups.repeat(2)
        each = torch.stack([score[owner == g].nanquantile(grid, dim=0) for g in range(people)])
        own = torch.stack([score[owner == g].nanquantile(level, dim=0) for g in range(people)])
        seen = own.isfinite().sum(dim=0)  # (J,)
        centre = own.nanmean(dim=0)
        variance = (own - centre).square().nansum(dim=0) / (seen - 1).clamp(min=1)
        variance = torch.where(seen > 1, variance, torch.nan)
        shared = (1 - SHARED) * variance + SHARED * variance.nanmean()
        tau = torch.where(seen > 1, shared, variance.nanmean()).nan_to_num().sqrt()
        scale = tau * (1 + 1 / seen.clamp(min=1)).sqrt()
        within = (each - own[:, None] + centre).flatten(0, 1)  # (G Q, J)
        pool = within + scale * difference[:, None, None]
        found = pool.flatten(0, 1).nanquantile(level, dim=0).exp()
        result.append(torch.where(seen > 0, found, 1.0))
    return torch.stack(result).float()


def _t_quantiles(degrees_of_freedom: int) -> Tensor:
    """Quantiles of Student's t at the middles of :data:`NODES` equal parts.

    With t = sqrt(nu) tan(phi), the density of phi is proportional to cos(phi)^(nu - 1).
    """
    phi = torch.linspace(-math.pi / 2, math.pi / 2, 20001, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(phi.cos().clamp(min=0) ** (degrees_of_freedom - 1), phi)
    wanted = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
    angle = phi[1 + torch.searchsorted(mass, wanted * mass[-1])]
    return math.sqrt(degrees_of_freedom) * angle.tan()
