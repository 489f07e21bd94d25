"""The sequences of 3DPW: people in front of a moving camera, with poses of gendered SMPL models.

A ``.pkl`` file of ``sequenceFiles`` holds one sequence with P people and T frames (von Marcard et
al., *Recovering Accurate 3D Human Pose in The Wild Using IMUs and a Moving Camera*, 2018). Files
have poses and joints in the world frame; this module returns them in the camera frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from examples.data.annotations import Annotations, sift
from examples.data.columns import Columns, FloatArray, as_array, num_entries
from examples.data.files import files_of_type
from flowprior import rotations
from flowprior.files.numpy_file import read_pickle
from flowprior.files.report import Report
from flowprior.fitting.focal_lengths import check_camera_matrix
from flowprior.skeleton import BODY_25, COCO_18, PROHMR_44, SMPL_24, shared_joints

__all__ = ["Sequence3DPW", "inspect", "matches", "read", "read_sequence"]

KEYS = ("sequence", "poses", "betas", "genders", "cam_poses", "campose_valid", "poses2d")
PER_FRAME_KEYS = ("poses", "poses2d", "campose_valid", "jointPositions")
NUM_BETAS = 10
BOX_FACTOR = 1.2
KIND = "3DPW sequence"

_COCO_FROM, _COCO_TO = map(list, shared_joints(COCO_18, BODY_25))
_SMPL_FROM, _SMPL_TO = map(list, shared_joints(SMPL_24, BODY_25))


@dataclass(frozen=True)
class Sequence3DPW:
    """One sequence, the frames of one person after those of another.

    Args:
        name: Its name.
        annotations: N rows.
        person: (N,) int64, number of the person.
        frame: (N,) int64, number of the frame; unusable frames are missing.
        intrinsics: (3, 3) float32 camera matrix in pixels; None if the file has none.
    """

    name: str
    annotations: Annotations
    person: NDArray[np.int64]
    frame: NDArray[np.int64]
    intrinsics: FloatArray | None


def read(path: Path | str, images: Path | None = None) -> tuple[Annotations, Report]:
    """Read one sequence, or a folder of them such as ``sequenceFiles/test``.

    Args:
        path: A ``.pkl`` file, or a folder with such files in it.
        images: The folder that contains ``imageFiles``; None does not check for images.

    Returns:
        The people in usable frames, and the report.

    Raises:
        FileNotFoundError: There is nothing at ``path``, no such file in it, or no folder
            ``images``.
        ValueError: A file is damaged or not a sequence of 3DPW.
    """
    path = Path(path)
    if not path.is_dir():
        sequence, report = read_sequence(path, images)
        return sequence.annotations, report
    files = files_of_type(path, ".pkl")
    if not files:
        raise FileNotFoundError(f"no .pkl file in the folder {path}")
    report = Report(str(path), f"{KIND}s", "person", facts={"sequences": str(len(files))})
    parts = []
    for file in files:
        sequence, found = read_sequence(file, images)
        parts.append(sequence.annotations)
        report.absorb(found)
    return Annotations.concatenate(parts), report


def matches(path: Path) -> bool:
    """Whether a file is a sequence of 3DPW, or a folder contains one."""
    if path.is_dir():
        first = min(files_of_type(path, ".pkl"), default=None)
        return first is not None and matches(first)
    if path.suffix.lower() != ".pkl" or not path.is_file():
        return False
    try:
        content = read_pickle(path)
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() >= set(KEYS)


def inspect(path: Path, images: Path | None = None) -> Report:
    """The report of `read` on a file or folder."""
    return read(path, images)[1]


def read_sequence(path: Path | str, images: Path | None = None) -> tuple[Sequence3DPW, Report]:
    """Read one sequence.

    A row is a person in a frame. The box is 1.2 times the square around the 2D keypoints with
    positive confidence. ``keypoints_2d`` are OpenPose's 18, ``keypoints_3d`` the joints of SMPL,
    both among the first 25 of PROHMR-44; the extra 19, which ProHMR evaluates on, need the surface
    of the body and are not annotated here.

    Frames with an invalid camera pose or without 2D keypoints are left out.

    Args:
        path: The ``.pkl`` file.
        images: As in `read`.

    Returns:
        The sequence, and the report.

    Raises:
        FileNotFoundError: The file or the folder ``images`` does not exist.
        ValueError: The file is damaged or not a sequence of 3DPW; the message names the fault.
    """
    path = Path(path)
    content = read_pickle(path)
    if not isinstance(content, dict) or not content.keys() >= set(KEYS):
        found = ", ".join(sorted(map(str, content))) if isinstance(content, dict) else "no keys"
        raise ValueError(f"{path}: expected the keys {', '.join(KEYS)}, found {found}")
    report = Report(str(path), KIND, "person")
    genders = Columns(content, str(path), length_of="genders").text("genders")
    for key in ("betas", *PER_FRAME_KEYS):
        if num_entries(content.get(key, genders)) != len(genders):
            raise ValueError(
                f"{path}: expected {key} to have an entry for each of the {len(genders)} people "
                "that genders has"
            )
    everyone = [
        _read_person(f"{path}, person {person}", content, person, gender, report)
        for person, gender in enumerate(genders)
    ]
    frame = np.concatenate([frames for _, frames in everyone] or [np.zeros(0, np.int64)])
    person = np.repeat(np.arange(len(everyone)), [len(frames) for _, frames in everyone])
    rows, keep = sift(
        Annotations.concatenate(rows for rows, _ in everyone),
        report,
        images,
        lambda row: _place(int(frame[row]), int(person[row])),
    )
    intrinsics = _intrinsics(path, content, report)
    name = str(content["sequence"])
    return Sequence3DPW(name, rows, person[keep], frame[keep], intrinsics), report


def _read_person(
    source: str, content: Mapping[str, Any], person: int, gender: str, report: Report
) -> tuple[Annotations, NDArray[np.int64]]:
    """Rows of one person with a valid camera and a box, and their frames."""
    own = {key: content[key][person] for key in PER_FRAME_KEYS if key in content}

    def place(frame: int) -> str:
        return _place(frame, person)

    columns = Columns({**own, "cam_poses": content["cam_poses"]}, source, place, "poses")
    pose, camera = columns.numbers("poses", 72), columns.numbers("cam_poses", 4, 4)
    detected = columns.numbers("poses2d", 3, COCO_18.num_joints).transpose(0, 2, 1)
    joints = columns.numbers("jointPositions", 3 * SMPL_24.num_joints)
    valid = columns.flags("campose_valid", report)

    sound = np.isfinite(camera).all(axis=(1, 2), keepdims=True)
    turn = np.where(sound, camera, 0)[:, :3, :3]
    gram = np.einsum("tij,tik->tjk", turn, turn)
    proper = (np.abs(gram - np.eye(3)) < 1e-2).all(axis=(1, 2)) & (np.linalg.det(turn) > 0)
    # Not `LEAST_CONF`: published figures use boxes around everything that OpenPose reports.
    seen = np.isfinite(detected).all(axis=-1) & (detected[..., 2] > 0)
    keep = np.ones(len(columns), np.bool_)
    for reason, bad in (
        ("camera pose not valid", ~valid),
        ("camera pose is no rotation", ~proper),
        ("no 2D keypoint", ~seen.any(axis=1)),
    ):
        report.leave_out(reason, map(place, np.flatnonzero(keep & bad).tolist()))
        keep &= ~bad
    report.rows += len(columns)
    frames = np.flatnonzero(keep)
    n = len(frames)
    pose, camera, detected, joints = (column[frames] for column in (pose, camera, detected, joints))
    seen = seen[frames]

    keypoints_2d = np.zeros((n, PROHMR_44.num_joints, 3), np.float32)
    keypoints_2d[:, _COCO_TO] = detected[:, _COCO_FROM]
    keypoints_3d = np.zeros((n, PROHMR_44.num_joints, 4), np.float32)
    if "jointPositions" in columns:
        world = joints.reshape(n, SMPL_24.num_joints, 3)
        there = world @ camera[:, :3, :3].transpose(0, 2, 1) + camera[:, None, :3, 3]
        keypoints_3d[:, _SMPL_TO, :3] = there[:, _SMPL_FROM]
        keypoints_3d[:, _SMPL_TO, 3] = 1
    low = np.where(seen[..., None], detected[..., :2], np.inf).min(axis=1)
    high = np.where(seen[..., None], detected[..., :2], -np.inf).max(axis=1)
    root = rotations.rotvec_to_matrix(torch.from_numpy(pose[:, :3]).double())
    root = rotations.matrix_to_rotvec(torch.from_numpy(camera[:, :3, :3]).double() @ root)
    betas = _betas(source, content["betas"][person], len(columns))[frames]
    rows = Annotations(
        imgname=np.array(
            [f"imageFiles/{content['sequence']}/image_{frame:05d}.jpg" for frame in frames], np.str_
        ),
        center=(low + high) / 2,
        box_size=BOX_FACTOR * (high - low).max(axis=1),
        global_orient=root.float().numpy(),
        body_pose=pose[:, 3:],
        betas=betas,
        has_body_pose=np.ones(n, np.bool_),
        has_betas=np.ones(n, np.bool_),
        keypoints_2d=keypoints_2d,
        keypoints_3d=keypoints_3d,
        gender=np.full(n, gender),
    )
    return rows, frames


def _betas(source: str, betas: object, frames: int) -> FloatArray:
    """The first 10 coefficients of each frame: files have 10 to 300, once or for each frame."""
    array = as_array(betas, "betas", source)
    fits = array.ndim == 1 or (array.ndim == 2 and len(array) in (1, frames))
    if array.dtype.kind not in "fiu" or not fits or array.shape[-1] < NUM_BETAS:
        raise ValueError(
            f"{source}: expected at least {NUM_BETAS} betas, once or for each of {frames} frames, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return np.broadcast_to(array[..., :NUM_BETAS], (frames, NUM_BETAS)).astype(np.float32)


def _intrinsics(path: Path, content: Mapping[str, Any], report: Report) -> FloatArray | None:
    if "cam_intrinsics" not in content:
        return None
    matrix = as_array(content["cam_intrinsics"], "cam_intrinsics", str(path))
    if matrix.shape != (3, 3) or matrix.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: expected cam_intrinsics of shape (3, 3), got {matrix.dtype} of {matrix.shape}"
        )
    check_camera_matrix(matrix, path)
    report.facts["focal length"] = f"{matrix[0, 0]:.1f} px"
    return matrix.astype(np.float32)


def _place(frame: int, person: int) -> str:
    return f"frame {frame} of person {person}"
