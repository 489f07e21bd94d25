"""AMASS clips: ``*_poses.npz`` of the SMPL-H release, ``*_stageii.npz`` of the SMPL-X release.

Mahmood et al., *AMASS: Archive of Motion Capture as Surface Shapes*, 2019.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from examples.data.files import files_of_type, npz_keys, number_array, numbered
from examples.data.motion import (
    LARGEST_BETA,
    MEAN_BETAS,
    Float32,
    Motion,
    check_rotvecs,
    frames_at_rate,
    parse_gender,
    z_up_to_y_up,
)
from examples.data.pose_forms import read_rotations, to_rotvecs
from flowprior.files.limits import require_path
from flowprior.files.numpy_file import read_npz
from flowprior.files.report import Report
from flowprior.keypoint_files.people import FARTHEST_M
from flowprior.skeleton import SMPL_24

__all__ = ["holds_clips", "read_amass"]

BODY_JOINTS = 22  # joints that SMPL, SMPL-H and SMPL-X share
KEYS = {
    "poses", "root_orient", "pose_body", "trans", "betas", "gender",
    "mocap_framerate", "mocap_frame_rate", "mocap_time_length", "surface_model_type",
}  # fmt: skip


def holds_clips(path: Path) -> bool:
    """Whether a file is a clip, or all archives in and below a folder are clips.

    Reads names of arrays only. A folder may also contain damaged files and files of shapes.
    """
    if not path.is_dir():
        return _is_clip(path, npz_keys(path))
    found = False
    for file in files_of_type(path, ".npz", below=True):
        keys = npz_keys(file)
        if _is_clip(file, keys):
            found = True
        elif keys and not _names_a_shape(file):
            return False
    return found


def _is_clip(path: Path, keys: frozenset[str]) -> bool:
    # A file of annotations may have poses too, beside its images.
    return (
        not _names_a_shape(path)
        and _has_poses(keys)
        and len(keys & KEYS) > 1
        and "imgname" not in keys
    )


def read_amass(
    path: Path | str, rate_hz: float | None = None, pelvis: ArrayLike = (0.0, 0.0, 0.0)
) -> tuple[list[Motion], Report]:
    """Read AMASS clips, z up turned to y up.

    Args:
        path: A clip; or a folder with clips anywhere below it, one folder per subject. In a folder,
            files of shapes (``shape.npz``, ``*_stagei.npz``) are skipped, and a clip that
            cannot be read is left out as one row.
        rate_hz: Subsample to this frame rate; None keeps all frames. Clips without a recorded
            frame rate are then left out.
        pelvis: (3,) of the body model at rest, metres, for an exact ``transl``; see `z_up_to_y_up`.

    Returns:
        One motion per clip that has a usable frame, in the order of the names; and the report,
        of the frames that were looked at.

    Raises:
        FileNotFoundError: ``path`` does not exist or contains no ``.npz`` file.
        ValueError: The file is not a clip, or no file below the folder is; the message says what
            it holds.
    """
    path = require_path(path)
    if path.is_file():
        motion, report = _read_clip(path, path.parent.name, rate_hz, pelvis)
        return [motion] if len(motion) else [], report
    files = files_of_type(path, ".npz", below=True)
    if not files:
        raise FileNotFoundError(
            f"no .npz file in or below the folder {path}: expected AMASS clips, in a folder for "
            "each subject"
        )
    clips = [file for file in files if not _has_no_motion(file)]
    if not clips:
        keys = ", ".join(sorted(frozenset().union(*map(npz_keys, files))))
        raise ValueError(
            f"{path}: expected AMASS files with the key poses, found {keys or 'no key'}"
        )
    report = Report(str(path), "AMASS clips", unit="frame")
    motions: list[Motion] = []
    rates: Counter[str] = Counter()
    # No progress bar unless the output is a terminal.
    for file in tqdm(clips, desc="reading clips", unit="clip", disable=None, ncols=88):
        name = file.relative_to(path).as_posix()
        try:
            subject = file.parent.relative_to(path).as_posix()
            motion, found = _read_clip(file, subject, rate_hz, pelvis)
        except ValueError as error:
            report.rows += 1
            reason = str(error).removeprefix(str(file)).lstrip(": ")
            report.leave_out("clip that cannot be read", [f"{name}: {reason}"])
            continue
        found.source = name
        report.absorb(found)
        rates[found.facts["frame rate"]] += 1
        if len(motion):
            motions.append(motion)
    report.facts |= {
        "clips": f"{len(clips)}, {len(motions)} with a usable frame",
        "subjects": str(len({motion.subject for motion in motions})),
        "frame rates": _counts(rates),
        "genders": _counts(Counter(motion.gender for motion in motions)),
    }
    if len(files) > len(clips):
        report.facts["files without motion"] = str(len(files) - len(clips))
    return motions, report


def _has_no_motion(path: Path) -> bool:
    """Whether an intact file contains a person's shape only, or is not an AMASS file."""
    keys = npz_keys(path)
    return _names_a_shape(path) or (bool(keys) and not _has_poses(keys))


def _names_a_shape(path: Path) -> bool:
    """Whether the name of a file is that of a shape without motion."""
    return path.name.lower() == "shape.npz" or path.stem.lower().endswith("stagei")


def _has_poses(keys: frozenset[str]) -> bool:
    return "poses" in keys or keys >= {"root_orient", "pose_body"}


def _read_clip(
    path: Path, subject: str, rate_hz: float | None, pelvis: ArrayLike
) -> tuple[Motion, Report]:
    content = read_npz(path, KEYS)
    poses = _clip_poses(path, content)
    model = content.get("surface_model_type")
    smplx = "smplx" in str(model) or "mocap_frame_rate" in content
    report = Report(str(path), f"AMASS clip, {'SMPL-X' if smplx else 'SMPL-H'}", unit="frame")
    if not len(poses):
        report.ignore("clip without frames", ["the clip"])
    rate = _frame_rate(content, len(poses), report)
    report.facts["frame rate"] = "unknown" if rate is None else f"{rate:.6g} Hz"

    frames = _wanted(len(poses), rate, rate_hz, report)
    rotvecs = np.zeros((len(frames), SMPL_24.num_joints, 3))
    # Beyond the body, SMPL has other joints than SMPL-H and SMPL-X.
    joints = poses.shape[1] if poses.shape[1] == SMPL_24.num_joints else BODY_JOINTS
    rotvecs[:, :joints] = to_rotvecs(poses[frames, :joints])
    rotvecs, usable = check_rotvecs(rotvecs, frames, report)
    transl = np.zeros((len(frames), 3))
    if "trans" in content:
        transl = number_array(content, "trans", (len(poses), 3), path)[frames].astype(np.float64)
        lost = usable & ~(np.abs(transl) < FARTHEST_M).all(axis=1)
        reason = f"transl of NaN, infinity or beyond {FARTHEST_M:g} m, millimetres perhaps"
        report.leave_out(reason, numbered("frame", frames[lost]))
        usable &= ~lost
    rotvecs, transl, frames = rotvecs[usable], transl[usable], frames[usable]
    global_orient, transl = z_up_to_y_up(rotvecs[:, 0], transl, pelvis)
    report.kept = len(frames)
    motion = Motion(
        global_orient.astype(np.float32),
        rotvecs[:, 1:].astype(np.float32),
        transl.astype(np.float32) if "trans" in content else None,
        np.tile(_clip_betas(content, report), (len(frames), 1)),
        _clip_gender(content, report),
        rate if rate is None or rate_hz is None else min(rate, rate_hz),
        subject,
        path.stem,
        frames,
    )
    report.facts["gender"] = motion.gender
    return motion, report


def _clip_poses(path: Path, content: Mapping[str, object]) -> NDArray[np.floating]:
    """Rotation vectors (T, J, 3) or matrices (T, J, 3, 3) of at least 22 joints."""
    if "poses" in content:
        return read_rotations(content, "poses", path)
    if "root_orient" not in content or "pose_body" not in content:
        raise ValueError(
            f"{path}: expected the key poses, or root_orient and pose_body, "
            f"found {', '.join(sorted(content)) or 'none'}"
        )
    root = number_array(content, "root_orient", (None, 3), path)
    body = number_array(content, "pose_body", (len(root), 3 * (BODY_JOINTS - 1)), path)
    poses = np.concatenate([root, body], axis=1).astype(np.float64)
    return read_rotations({"root_orient and pose_body": poses}, "root_orient and pose_body", path)


def _frame_rate(content: Mapping[str, object], num_frames: int, report: Report) -> float | None:
    """Frames per second, from either spelling of the key or from the duration."""
    rate = None
    for key in ("mocap_framerate", "mocap_frame_rate"):
        if key in content:
            rate = rate or _positive(content[key])
            if rate is None:
                where = f"{key} {content[key]!s:.40}"
                report.ignore("frame rate that is no positive number", [where])
    seconds = _positive(content.get("mocap_time_length"))
    if seconds is None or not num_frames:
        return rate
    if rate is None:
        return num_frames / seconds
    if abs(rate * seconds - num_frames) > max(1.0, 0.05 * num_frames):
        where = f"{num_frames} frames at {rate:g} Hz in {seconds:g} s"
        report.ignore("mocap_time_length that does not fit the frame rate", [where])
    return rate


def _wanted(
    num_frames: int, rate: float | None, rate_hz: float | None, report: Report
) -> NDArray[np.int64]:
    """Indices of the frames to read."""
    frames = np.arange(num_frames)
    if rate_hz is not None and rate is not None:
        frames = frames_at_rate(num_frames, rate, rate_hz)
    report.rows = len(frames)
    if rate_hz is not None and rate is None:
        reason = f"clip of unknown frame rate, not to be thinned out to {rate_hz:g} Hz"
        report.leave_out(reason, numbered("frame", frames))
        frames = frames[:0]
    return frames


def _positive(value: object) -> float | None:
    array = np.asarray(value)
    number = float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else 0.0
    return number if np.isfinite(number) and number > 0 else None


def _clip_betas(content: Mapping[str, object], report: Report) -> Float32:
    betas = np.asarray(content.get("betas"))
    numbers = betas.dtype.kind in "fiu" and betas.ndim == 1 and betas.size > 0
    if numbers and (np.abs(betas) < LARGEST_BETA).all():
        return betas.astype(np.float32)
    report.ignore(
        f"betas that are missing, of another shape, NaN or beyond {LARGEST_BETA:g}", ["the clip"]
    )
    return MEAN_BETAS


def _clip_gender(content: Mapping[str, object], report: Report) -> str:
    gender = parse_gender(content.get("gender", ""))
    if gender is None:
        found = f"{content['gender']!s:.40}" if "gender" in content else "none"
        report.ignore("unknown gender, taken for neutral", [found])
    return gender or "neutral"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in sorted(counter.items()))
