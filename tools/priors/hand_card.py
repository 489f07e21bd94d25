"""Model card of the prior over hands."""

from collections.abc import Mapping
from typing import Any

__all__ = ["hand_card"]

USAGE = """```python
import torch

from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel, hand_points
from flowprior.fitting import inverse_kinematics
from flowprior.skeleton import MANO_21

prior = ConditionalPosePrior.from_pretrained("flowprior/hands-procedural")
with torch.no_grad():
    poses = prior.given().sample(8)  # (8, 15, 6): generation
    known = torch.ones(15, dtype=torch.bool)
    known[:3] = False  # the index finger
    fingers = prior.given(rotations=poses[0], known=known).sample(10)  # (10, 15, 6): completion

points = hand_points(BodyModel(hands=True), poses)  # (8, 21, 3)
tips = [MANO_21.index(name) for name in ("thumb", "index", "middle", "ring", "pinky")]
sparse = torch.full_like(points, torch.nan)
sparse[:, tips] = points[:, tips]
hands = inverse_kinematics(prior, sparse)  # from the fingertips
```"""

DESCRIPTION = """Poses of a right hand: p(theta | what is known) over the 15 finger joints of MANO
and SMPL-H, given some of the rotations, 3D points in the wrist's frame, both or nothing. For left
hands, mirror rotation vectors (x, y, z) to (x, -y, -z) and points (x, y, z) to (-x, y, z);
`BlockPrior(body, "mirrored", hand)` does so.

{kind}

**Evidence**, all of it optional, in part or as a whole:

* rotations of any of the joints, which the answer keeps exactly; the density is then that of the
  others;
* 21 points in the order of `flowprior.skeleton.MANO_21` (joints, then fingertips), metres from the
  wrist, in the axes of the wrist's rotation; NaN where unknown. The network has learned the
  proportions of the embedded body's hand, of average or random shape; for other hands refine with
  `inverse_kinematics(..., body=...)`.

**Theta**, (15, 6): 6D vectors in layout "columns" and MANO's order (index, middle, little, ring
finger, thumb). Zero rotation is the flat hand: add the file's mean to MANO poses of the other
convention.

**Figures** on {count} hands of average shape that were not used for training; distances are means
over the 15 joints, or over the joints and the tip that the unknown rotations move:

{table}

Trained for {steps} steps of {batch} examples, and the flow alone for {flow_steps} more, seed
{seed}, within {minutes} minutes on {where}: `{command}`. Rotations have noise
of 1 degree about each axis, in training and in the NLL."""

PROCEDURAL = """**These hands are procedural, not captured.** There was no free capture of hands,
so the poses were drawn within published joint ranges, with published couplings (DIP about 2/3 of
PIP, neighbouring fingers drawn along, hands that close as a whole), and without fingers that run
into each other. How often hands are open, closed or pointing is a choice of the authors. So the
prior knows which poses are possible, and roughly how fingers move together; it does not know how
often people use them. Do not take its densities for statistics of people. Train it on captured
poses where you have some:
`python -m tools.priors hands --data poses.npz --flat-hand-mean --out DIR`.

**Not for**: sign language, musicians' or injured hands, hands that hold objects, statements on what
is normal for a person."""

CAPTURED = """Trained on the poses of `{source}`."""

DATA = (
    "Procedural poses of `tools/priors/hand_poses.py`, which names the sources of its joint ranges "
    "(e-hand.com, eatonhand.com, gpnotebook) and couplings (Rijpkema and Girard 1991; Haeger-Ross "
    "and Schieber 2000; Santello et al. 1998), on the embedded hand of average or random shape. "
    "The papers are the usual references for these couplings; apart from the 2/3, no number is "
    "theirs. "
)


def hand_card(
    figures: Mapping[str, float], source: str | None, training: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of the model card.

    Args:
        figures: Figures on test poses, by name.
        source: Name of the file of captured poses; None for procedural ones.
        training: ``steps``, ``flow_steps``, ``batch``, ``seed``, ``minutes``, ``command``,
            ``count``, ``temperature``, ``where``.
    """
    rows = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    table = "\n".join(["| figure | value |", "|---|---|", *rows])
    kind = PROCEDURAL if source is None else CAPTURED.format(source=source)
    data = DATA if source is None else f"Poses of `{source}`. "
    return {
        "license": "mit" if source is None else None,
        "description": DESCRIPTION.format(kind=kind, table=table, **training),
        "data": f"{data}Temperature of the base: {training['temperature']:.2f}.",
        "metrics": {name: float(f"{value:.4g}") for name, value in figures.items()},
        "usage": USAGE,
    }
