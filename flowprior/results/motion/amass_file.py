"""Motions as the npz files of AMASS, which Blender's add-ons for SMPL read.

References:
    Mahmood et al., *AMASS: Archive of Motion Capture as Surface Shapes*, 2019.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior.body import BodyModel
from flowprior.files.numpy_file import read_npz
from flowprior.files.whole_file import whole_file
from flowprior.results.motion.clip import Up, clip_of, require_rate
from flowprior.results.motion.speed import implausible_speed
from flowprior.rotations import matrix_to_rotvec, rotvec_to_matrix

__all__ = ["POSE_JOINTS", "AmassMotion", "read_amass", "write_amass"]

POSE_JOINTS = {"smpl": 24, "smplh": 52, "smplx": 55}
"""Number of joints in ``poses`` by model."""

_BODY = 22
_FACE = {"smpl": 0, "smplh": 0, "smplx": 3}  # jaw and eyes stand before the hands
_RATES = ("mocap_frame_rate", "mocap_framerate", "fps")
_NEEDED = ("trans", "gender", "betas", "poses")
_EMBEDDED_SHAPES = 16


@dataclass(frozen=True)
class AmassMotion:
    """A motion from a file of AMASS.

    Args:
        theta: (T, J, 3) rotation vectors relative to the parent, J as in :data:`POSE_JOINTS`; zero
            is the flat hand.
        transl: (T, 3) metres.
        betas: (B,) shape coefficients of SMPL.
        gender: "female", "male" or "neutral".
        fps: Frames per second, as the file says.
    """

    theta: Tensor
    transl: Tensor
    betas: Tensor
    gender: str
    fps: float


def write_amass(
    path: str | os.PathLike[str],
    theta: Tensor,
    transl: Tensor,
    body: BodyModel,
    betas: Tensor | None,
    fps: float,
    *,
    up: Up = "-y",
    model: str = "smplh",
    gender: str = "neutral",
) -> None:
    """Write the motion of a person as an npz file of AMASS with z up, atomically.

    The arrays are ``trans`` (T, 3), ``poses`` (T, 3 J) rotation vectors, ``betas``, ``gender`` (a
    text), ``mocap_frame_rate`` and ``mocap_framerate`` (programs expect one or the other),
    ``mocap_time_length`` in seconds and ``surface_model_type``. None is an object, so
    ``numpy.load`` reads the file without pickle.

    ``poses`` begins with the root and the 21 joints of the body, the same in all models. SMPL's 24
    joints end with two hands at rest, SMPL-H's 52 with 15 joints of each hand, SMPL-X's 55 with
    jaw, eyes and 15 joints of each hand. Fingers are zero, the flat hand, unless the body has them.

    Shape coefficients of the embedded body mean nothing to SMPL: ``betas`` is then zero, and
    programs show the average shape.

    Args:
        path: The file.
        theta: (T, J, k) rotations relative to the parent: matrices, rotation vectors or 6D.
        transl: (T, 3) metres.
        body: The body, of 24, 52 or 55 joints.
        betas: (B,) shape of the person, one for all frames; the average shape if None.
        fps: Frames per second, any positive number. The add-ons of Blender take every nth frame,
            with n = int(fps / 30): files of 50 frames per second play slowly there unless the
            target rate is 50.
        up: The axis that points up in the motion: "-y" in the axes of a camera, as in fits; "y" or
            "z" in a world.
        model: "smpl", "smplh" or "smplx": the number of joints of ``poses``, by which some programs
            recognise the model.
        gender: Of the body.

    Raises:
        TypeError: A tensor is expected, and something else given.
        ValueError: Shapes do not match, a frame is not finite, the rate is not positive, or model
            or body have other joints.
        OSError: The file cannot be written.
    """
    if model not in POSE_JOINTS:
        raise ValueError(f"model must be one of {', '.join(POSE_JOINTS)}, got {model!r}")
    if body.model_type not in POSE_JOINTS:
        raise ValueError(f"AMASS contains bodies, {body.name} is {body.model_type}")
    clip = clip_of(theta, transl, body, betas, fps, up, "z")
    rotvec = matrix_to_rotvec(torch.from_numpy(clip.rotation)).numpy()
    poses = np.zeros((len(clip), POSE_JOINTS[model], 3))
    poses[:, :_BODY] = rotvec[:, :_BODY]
    if "smpl" not in (model, body.model_type):
        poses[:, -30:] = rotvec[:, -30:]
    if model == body.model_type:
        poses[:] = rotvec
    embedded = body.name.startswith("embedded")
    shape = np.zeros(_EMBEDDED_SHAPES) if embedded or not len(clip.betas) else clip.betas
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            trans=clip.transl,
            gender=np.array(str(gender)),
            betas=shape,
            poses=poses.reshape(len(clip), -1),
            mocap_frame_rate=np.array(clip.fps),
            mocap_framerate=np.array(clip.fps),
            mocap_time_length=np.array(len(clip) / clip.fps),
            surface_model_type=np.array(model),
        )


def read_amass(path: str | os.PathLike[str]) -> AmassMotion:
    """Read a motion of AMASS, or of a program that writes the same keys, executing nothing in it.

    The frame rate is that of the file, whatever its value; a warning says if people would move
    implausibly fast, as with a wrong label.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: Keys are missing, which the message lists, or arrays have other shapes.
    """
    found = read_npz(path)
    missing = [name for name in _NEEDED if name not in found]
    rate = next((name for name in _RATES if name in found), None)
    if rate is None:
        missing.append(f"{_RATES[0]} or {_RATES[1]}")
    if rate is None or missing:
        listed = ", ".join(sorted(found)) or "nothing"
        raise ValueError(
            f"{Path(path)} is no motion of AMASS: it lacks {', '.join(missing)}; it contains "
            f"{listed}"
        )
    poses, trans, betas = (
        _numbers(path, name, found[name]) for name in ("poses", "trans", "betas")
    )
    frames = len(poses) if poses.ndim else 0
    if poses.ndim != 2 or poses.shape[1] // 3 not in POSE_JOINTS.values() or poses.shape[1] % 3:
        widths = " or ".join(f"{3 * count} ({name})" for name, count in POSE_JOINTS.items())
        raise ValueError(f"{Path(path)}: poses must be (T, n) with n = {widths}, got {poses.shape}")
    if trans.shape != (frames, 3) or not frames:
        raise ValueError(f"{Path(path)}: trans must be ({frames}, 3), got {trans.shape}")
    if betas.ndim != 1:
        raise ValueError(
            f"{Path(path)}: betas must be (B,), one shape for all frames, got {betas.shape}"
        )
    fps = float(np.asarray(found[rate]))
    require_rate(fps)
    gender = found["gender"]
    text = gender.item() if isinstance(gender, np.ndarray) else gender
    theta = torch.from_numpy(poses.reshape(frames, -1, 3)).float()
    transl = torch.from_numpy(trans).float()
    fault = implausible_speed(rotvec_to_matrix(theta), transl, fps)
    if fault is not None:
        warnings.warn(f"{Path(path)}: {fault}", RuntimeWarning, stacklevel=2)
    return AmassMotion(
        theta,
        transl,
        torch.from_numpy(betas).float(),
        text.decode() if isinstance(text, bytes) else str(text),
        fps,
    )


def _numbers(path: str | os.PathLike[str], name: str, value: object) -> NDArray[np.float64]:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise ValueError(f"{Path(path)}: {name} must be an array of numbers")
    return value.astype(np.float64)
