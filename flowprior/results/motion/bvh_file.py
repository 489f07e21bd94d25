"""Motions as BVH: a tree of joints, and the angles of each frame."""

import os

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flowprior.body import Body
from flowprior.files.whole_file import write_whole
from flowprior.results.motion.clip import Clip, Up, as_columns, clip_of
from flowprior.results.motion.euler import euler_angles

__all__ = ["write_bvh"]

TIP = 0.5
"""Length of the end of a limb, whose joint has no children, relative to the bone before it."""
_DIGITS = 6


def write_bvh(
    path: str | os.PathLike[str],
    theta: Tensor,
    transl: Tensor,
    body: Body,
    betas: Tensor | None,
    fps: float,
    *,
    up: Up = "-y",
    order: str = "ZXY",
    scale: float = 1.0,
) -> None:
    """Write the motion of a person as BVH, upright with y up, atomically.

    The offsets of the joints are those of this person's shape. The rest pose is that of the body,
    the T-pose of SMPL, in which every joint has the axes of the world: the angles are those of
    theta, without rest orientations. The root has six channels, its position and its rotation, the
    other joints three. Angles are degrees and do not jump by full turns; the channels stand in the
    order in which the rotations are multiplied, and the joints depth first.

    Args:
        path: The file.
        theta: (T, J, k) rotations relative to the parent: matrices, rotation vectors or 6D.
        transl: (T, 3) metres.
        body: The body, whose joints follow from rotations and offsets, as those of SMPL's family.
        betas: (B,) shape of the person, one for all frames; the average shape if None.
        fps: Frames per second, any positive number.
        up: The axis that points up in the motion: "-y" in the axes of a camera, as in fits; "y" or
            "z" in a world. The file has y up; who faced the camera faces +z.
        order: Order of the three rotations, such as "ZXY" or "XYZ".
        scale: Units of the file per metre: 100 for centimetres.

    Raises:
        TypeError: A tensor is expected, and something else given.
        ValueError: Shapes do not match, a frame is not finite, the rate or the scale is not
            positive, the order is unknown, or the body's joints have rest orientations.
        OSError: The file cannot be written.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    clip = clip_of(theta, transl, body, betas, fps, up)
    parents, names = body.skeleton.parents, body.skeleton.joint_names
    _require_offsets(body, clip, parents)
    lines: list[str] = ["HIERARCHY"]
    written = _add_joint(lines, 0, 0, clip.rest * scale, parents, names, order)
    angles = np.rad2deg(euler_angles(clip.rotation, order))
    columns = [clip.root * scale, angles[:, written].reshape(len(clip), -1)]
    lines += ["MOTION", f"Frames: {len(clip)}", f"Frame Time: {1 / clip.fps:.10g}"]
    lines.append(as_columns(np.concatenate(columns, axis=1), _DIGITS))
    write_whole(path, ("\n".join(lines) + "\n").encode("ascii"))


def _add_joint(
    lines: list[str],
    joint: int,
    depth: int,
    rest: NDArray[np.float64],
    parents: tuple[int, ...],
    names: tuple[str, ...],
    order: str,
) -> list[int]:
    """Append a joint and all below it; returns them in the order of the file."""
    indent = "\t" * depth
    root = parents[joint] < 0
    # The channels of the root contain its position.
    offset = np.zeros(3) if root else rest[joint] - rest[parents[joint]]
    channels = [f"{axis}rotation" for axis in order]
    if root:
        channels = [f"{axis}position" for axis in "XYZ"] + channels
    lines += [
        f"{indent}{'ROOT' if root else 'JOINT'} {names[joint]}",
        f"{indent}{{",
        f"{indent}\tOFFSET {as_columns([offset], _DIGITS)}",
        f"{indent}\tCHANNELS {len(channels)} {' '.join(channels)}",
    ]
    children = [other for other, parent in enumerate(parents) if parent == joint]
    written = [joint]
    for child in children:
        written += _add_joint(lines, child, depth + 1, rest, parents, names, order)
    if not children:
        lines += [
            f"{indent}\tEnd Site",
            f"{indent}\t{{",
            f"{indent}\t\tOFFSET {as_columns([TIP * offset], _DIGITS)}",
            f"{indent}\t}}",
        ]
    lines.append(f"{indent}}}")
    return written


def _require_offsets(body: Body, clip: Clip, parents: tuple[int, ...]) -> None:
    """Check that rotations and offsets alone give the joints, as a program that reads BVH has it.

    Raises:
        ValueError: They do not.
    """
    import torch

    rotation = clip.rotation[:1]
    place, turn = np.zeros((1, len(parents), 3)), rotation.copy()
    place[:, 0] = clip.root[:1]
    for joint, parent in enumerate(parents):
        if parent >= 0:
            offset = clip.rest[joint] - clip.rest[parent]
            place[:, joint] = place[:, parent] + turn[:, parent] @ offset
            turn[:, joint] = turn[:, parent] @ rotation[:, joint]
    like = body.faces.device
    betas = torch.from_numpy(clip.betas).to(like, torch.float32) if len(clip.betas) else None
    found = body(
        torch.from_numpy(rotation).to(like, torch.float32),
        betas,
        torch.from_numpy(clip.transl[:1]).to(like, torch.float32),
    ).joints
    away = float(np.abs(found.detach().cpu().numpy() - place).max())
    if away > 1e-3:
        raise ValueError(
            f"the joints of {body.name} do not follow from rotations and fixed offsets (they are "
            f"up to {1000 * away:.0f} mm away), so BVH cannot hold its motion"
        )
