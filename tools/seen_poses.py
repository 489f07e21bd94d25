"""What the shipped priors have seen: subjects of the data, and densities of unusual poses.

    python -m tools.seen_poses --data cmu_mocap.npz

Computes the tables of ``docs/concepts/what-the-priors-have-seen.md`` and writes them there:
the poses of each subject, how far people lean, and the log-densities of named poses next to those
of held-out subjects. Takes a minute on one core.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.command_line import fail, interruptible, positive
from examples.whole_files import write_text
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.files.numpy_file import read_npz
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import SMPL_24

__all__ = [
    "NAMED_POSES",
    "NamedPose",
    "log_densities",
    "main",
    "named_poses",
    "nearest_standing",
    "posed",
]

PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "what-the-priors-have-seen.md"
MARKS = ("<!-- {name}: written by tools/seen_poses.py -->", "<!-- end of {name} -->")
PARTS = ("training", "validation", "test")
HEADINGS = 24
NEEDED = {"poses", "split", "subject", "subject_names"}

ACTIVITIES = {
    "01": "climbing, hanging and swinging on playground equipment",
    "02": "walking, running, jumping, punching, sword play, washing",
    "03": "walking on uneven terrain",
    "05": "modern dance",
    "09": "running",
    "10": "kicking a ball",
    "11": "kicking a ball",
    "127": "running, jumping, ducking and rolling",
    "13": "jumping jacks, bending, squats",
    "14": "everyday behaviour: boxing, drinking, washing windows, sweeping",
    "16": "walking, running, jumping",
    "17": "styles of walking, boxing",
    "29": "nursery rhymes and animals in pantomime",
    "35": "walking, running",
    "49": "modern dance and gymnastics, with a cartwheel",
    "60": "salsa",
    "94": "Indian dance",
    "S1": "walking, running, jumping, basketball, football, directing traffic",
}
"""Activities of CMU's subjects, from the descriptions of the database."""

Turns = Mapping[str, tuple[float, float, float]]
# In the data a quarter of the swing of an arm belongs to the collar.
STANDING: Turns = {
    "left_collar": (0, 0, -18),
    "right_collar": (0, 0, 18),
    "left_shoulder": (0, 0, -52),
    "right_shoulder": (0, 0, 52),
    "left_elbow": (0, -20, 0),
    "right_elbow": (0, 20, 0),
}
ARMS_UP: Turns = {
    "left_collar": (0, 0, 20),
    "right_collar": (0, 0, -20),
    "left_shoulder": (0, 0, 60),
    "right_shoulder": (0, 0, -60),
    "left_elbow": (0, 0, 0),
    "right_elbow": (0, 0, 0),
}


@dataclass(frozen=True)
class NamedPose:
    """A pose by name.

    Args:
        name: The name.
        turns: Rotation vectors in degrees of the joints that differ from those of a standing
            person. Without any rotation a body stands with its arms stretched to the sides; x
            points to its left, y up and z forward.
        root: Rotation vector of the root in degrees.
    """

    name: str
    turns: Turns
    root: tuple[float, float, float] = (0, 0, 0)


def _both(joint: str, turn: tuple[float, float, float]) -> Turns:
    """The same turn of the left and the right joint, mirrored."""
    x, y, z = turn
    return {f"left_{joint}": (x, y, z), f"right_{joint}": (x, -y, -z)}


NAMED_POSES = (
    NamedPose("standing, arms down", {}),
    NamedPose("arms stretched to the sides", dict.fromkeys(STANDING, (0, 0, 0))),
    NamedPose("arms overhead", ARMS_UP),
    NamedPose(
        "walking",
        {
            "left_hip": (-25, 0, 0),
            "right_hip": (15, 0, 0),
            "left_knee": (10, 0, 0),
            "right_knee": (30, 0, 0),
        },
    ),
    NamedPose(
        "sitting on a chair",
        {**_both("hip", (-85, 0, 0)), **_both("knee", (85, 0, 0))},
    ),
    NamedPose(
        "squatting",
        {
            **_both("hip", (-110, 15, 10)),
            **_both("knee", (130, 0, 0)),
            **_both("ankle", (-25, 0, 0)),
            "spine1": (20, 0, 0),
        },
        (20, 0, 0),
    ),
    NamedPose("kneeling", {**_both("knee", (90, 0, 0)), **_both("ankle", (40, 0, 0))}),
    NamedPose(
        "sitting cross-legged",
        {**_both("hip", (-80, 35, 45)), **_both("knee", (125, 0, 0))},
    ),
    NamedPose("sitting on the floor, legs stretched", {**_both("hip", (-85, 0, 5))}),
    NamedPose(
        "on all fours",
        {
            **_both("hip", (-85, 0, 0)),
            **_both("knee", (90, 0, 0)),
            "left_shoulder": (0, -85, 0),
            "right_shoulder": (0, 85, 0),
            "neck": (-25, 0, 0),
        },
        (85, 0, 0),
    ),
    NamedPose("lying on the back, arms down", {}, (-90, 0, 0)),
    NamedPose("lying on the face, arms down", {}, (90, 0, 0)),
    NamedPose(
        "lying on the side, curled up",
        {
            **_both("hip", (-100, 0, 0)),
            **_both("knee", (110, 0, 0)),
            "spine1": (25, 0, 0),
            "spine2": (15, 0, 0),
        },
        (0, 0, 90),
    ),
    NamedPose("handstand", ARMS_UP, (180, 0, 0)),
    NamedPose(
        "bridge",
        {
            **ARMS_UP,
            **_both("hip", (35, 0, 0)),
            **_both("knee", (80, 0, 0)),
            "spine1": (-25, 0, 0),
            "spine2": (-25, 0, 0),
            "spine3": (-25, 0, 0),
        },
        (-90, 0, 0),
    ),
    NamedPose("front splits", {"left_hip": (-85, 0, 0), "right_hip": (75, 0, 0)}),
    NamedPose("side splits", {**_both("hip", (0, 0, 80))}),
    NamedPose(
        "arms crossed behind the back",
        {
            "left_shoulder": (0, 45, -70),
            "right_shoulder": (0, -45, 70),
            "left_elbow": (0, -90, 0),
            "right_elbow": (0, 90, 0),
        },
    ),
    NamedPose("a knee bent backwards (impossible)", {"left_knee": (-60, 0, 0)}),
    NamedPose("an elbow bent backwards (impossible)", {"left_elbow": (0, 60, 0)}),
    NamedPose(
        "head turned to the back (impossible)",
        {"neck": (0, 90, 0), "head": (0, 90, 0)},
    ),
)
"""Poses whose densities the page lists, from common ones to impossible ones."""


def posed(turns: Turns, base: Tensor | None = None) -> Tensor:
    """Rotations (24, 3, 3) of a pose: the given turns in degrees, otherwise those of the base."""
    matrix = torch.eye(3).repeat(SMPL_24.num_joints, 1, 1) if base is None else base.clone()
    for joint, turn in turns.items():
        vector = torch.deg2rad(torch.tensor(turn, dtype=torch.float32))
        matrix[SMPL_24.index(joint)] = rotations.rotvec_to_matrix(vector)
    return matrix


def named_poses(standing: Tensor | None = None) -> Tensor:
    """The poses of `NAMED_POSES`, (N, 24, 3, 3), in the world: y up, facing +z.

    Args:
        standing: (24, 3, 3) rotations of a standing person, for the joints that a pose does not
            name; a pose set by hand if None.
    """
    base = posed(STANDING) if standing is None else standing
    return torch.stack([posed({**each.turns, "pelvis": each.root}, base) for each in NAMED_POSES])


@torch.no_grad()
def nearest_standing(world: Tensor) -> Tensor:
    """The pose (24, 3, 3) among (N, 24, 3, 3) that is closest to standing, without its root."""
    body = BodyModel()
    below = torch.cat([torch.eye(3).expand(len(world), 1, 3, 3), world[:, 1:]], dim=1)
    wanted = body.keypoints(posed(STANDING), SMPL_24)
    error = (body.keypoints(below, SMPL_24) - wanted).norm(dim=-1).mean(dim=-1)
    return below[error.argmin()]


@torch.no_grad()
def log_densities(prior: PosePrior, world: Tensor) -> Tensor:
    """Log-densities of poses under the marginal of a prior.

    Args:
        prior: Prior over the 24 joints of people seen by a level camera, or the 23 below the root.
        world: (N, 24, 3, 3), y up.

    Returns:
        (N,) nats. With a root, the mean density over `HEADINGS` directions of view.
    """
    posterior = prior.given()
    if prior.space.joints < SMPL_24.num_joints:
        return posterior.log_prob(world[:, 1:])
    turn = torch.zeros(HEADINGS, 3)
    turn[:, 1] = torch.linspace(0, 2 * math.pi, HEADINGS + 1)[:-1]
    camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ rotations.rotvec_to_matrix(turn)
    log_prob = torch.stack(
        [
            posterior.log_prob(torch.cat([(each @ world[:, 0])[:, None], world[:, 1:]], dim=1))
            for each in camera
        ]
    )
    return log_prob.logsumexp(dim=0) - math.log(HEADINGS)


def subject_table(data: Mapping[str, np.ndarray]) -> str:
    """Poses and activities of each subject, as Markdown."""
    lines = ["| subject | poses | part | activities |", "|---|---|---|---|"]
    counts = np.bincount(data["subject"], minlength=len(data["subject_names"]))
    for index in np.argsort(-counts):
        if not counts[index]:
            continue
        name = str(data["subject_names"][index]).removeprefix("cmu")
        (part,) = np.unique(data["split"][data["subject"] == index])
        lines.append(
            f"| {name} | {counts[index]:,} | {PARTS[part]} | {ACTIVITIES.get(name, 'unknown')} |"
        )
    return "\n".join(lines)


def lean_table(data: Mapping[str, np.ndarray]) -> str:
    """Shares of the training poses by the angle between trunk and vertical, as Markdown."""
    poses = torch.from_numpy(data["poses"][data["split"] == 0]).reshape(-1, 24, 3)
    up = rotations.rotvec_to_matrix(poses[:, 0])[:, 1, 1]
    angle = torch.rad2deg(up.clamp(-1, 1).acos())
    edges = (0, 15, 30, 60, 90, 120, 180)
    lines = ["| lean of the pelvis | share of the training poses |", "|---|---|"]
    for low, high in itertools.pairwise(edges):
        inside = (angle >= low) & ((angle < high) if high < 180 else (angle <= high))
        lines.append(f"| {low}° to {high}° | {100 * inside.float().mean():.1f} % |")
    return "\n".join(lines)


def density_table(named: Mapping[str, Tensor], held_out: Mapping[str, Tensor]) -> str:
    """Log-densities of the named poses beside those of held-out poses, as Markdown.

    Args:
        named: (N,) log-densities of `NAMED_POSES`, by prior.
        held_out: (M,) those of held-out poses, by prior.
    """
    heads = [f"`{name}` | rank" for name in named]
    lines = ["| pose | " + " | ".join(heads) + " |", "|---" * (1 + 2 * len(named)) + "|"]
    for row, pose in enumerate(NAMED_POSES):
        cells = [pose.name]
        for name, values in named.items():
            value = values[row]
            rank = 100 * (held_out[name] < value).float().mean()
            shown = f"{rank:.0f} %" if rank >= 0.5 else ("< 0.5 %" if rank > 0 else "none lower")
            cells += [f"{value - held_out[name].median():+.0f}", shown]
        lines.append("| " + " | ".join(cells) + " |")
    for share in (0.05, 0.01, 0.0):
        cells = [
            f"held-out poses, lowest {100 * share:.0f} %" if share else "held-out poses, lowest"
        ]
        for values in held_out.values():
            cells += [f"{values.quantile(share) - values.median():+.0f}", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with its tables replaced; ValueError if it lacks the marks of one."""
    for name, table in tables.items():
        first, last = (mark.format(name=name) for mark in MARKS)
        if page.count(first) != 1 or page.count(last) != 1:
            raise ValueError(f"the page has no place for {name}: {first} ... {last}")
        before, rest = page.split(first)
        page = f"{before}{first}\n\n{table}\n\n{last}{rest.split(last)[1]}"
    return page


@interruptible("the page is as it was")
def main(argv: Sequence[str] | None = None) -> int:
    """Compute the tables and write the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.seen_poses", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="cmu_mocap.npz")
    parser.add_argument("--people", default="flowprior/people", metavar="NAME")
    parser.add_argument("--body-pose", default="flowprior/body-pose", metavar="NAME")
    parser.add_argument("--every", type=positive, default=4, metavar="N", help="of the test poses")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        data = {name: np.asarray(value) for name, value in read_npz(args.data).items()}
        if missing := sorted(NEEDED - data.keys()):
            raise ValueError(f"{args.data} has no {', '.join(missing)}")
        test = torch.from_numpy(data["poses"][data["split"] == 2]).reshape(-1, 24, 3)
        held_out = rotations.rotvec_to_matrix(test[:: args.every])
        named, others = {}, {}
        for name, source in (("body-pose", args.body_pose), ("people", args.people)):
            prior = ConditionalPosePrior.from_pretrained(source).freeze()
            named[name] = log_densities(prior, named_poses(nearest_standing(held_out)))
            others[name] = log_densities(prior, held_out)
        tables = {
            "subjects": subject_table(data),
            "lean": lean_table(data),
            "densities": density_table(named, others),
        }
        write_text(args.page, filled(args.page.read_text(encoding="utf-8"), tables))
    except (OSError, ValueError) as error:
        return fail(error)
    for table in tables.values():
        print(table, end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
