"""Model card of the motion prior."""

from collections.abc import Mapping
from typing import Any

__all__ = ["motion_card"]

DESCRIPTION = """The next pose of a moving person given the last two,
p(theta_t | theta_{{t-1}}, theta_{{t-2}}, what is known), over the rotations of SMPL's joints.
`MotionPrior.from_pretrained` loads it; the guide "Motion" of the documentation describes its use.

Trained at 7.5 to 30 frames per second, with no evidence in 60 % of the batches, and with noisy 2D
keypoints or 3D joints of the next pose in the others. `fit_sequence(..., motion=prior)` takes it
beside the random walk.

**Not for**: forecasts beyond about a second, translations, hands, clips of other frame rates,
statements on what is normal for a person. Few people did few things in its clips, mostly walking
and everyday motions.

**Figures** on test people, one step ahead; degrees are means over joints:

{table}

Trained for {steps} steps of {batch} examples, seed {seed}, within {minutes} minutes on one thread
of a busy machine: `{command}`.{remark}"""

DATA = (
    "251 clips of the CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu, NSF EIA-0196217) "
    "at 30 frames per second, and their mirror images; subjects 03 and 05 were test people, 17 and "
    "127 validation people. "
)


def motion_card(figures: Mapping[str, float], training: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the model card.

    Args:
        figures: Figures on test clips, by name.
        training: ``steps``, ``batch``, ``seed``, ``minutes``, ``command``, ``temperature``,
            ``remark``, a sentence or nothing.
    """
    rows = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    table = "\n".join(["| figure | value |", "|---|---|", *rows])
    return {
        "license": "mit",
        "description": DESCRIPTION.format(table=table, **training),
        "data": f"{DATA}Temperature of the base: {training['temperature']:.2f}.",
        "metrics": {name: float(f"{value:.4g}") for name, value in figures.items()},
    }
