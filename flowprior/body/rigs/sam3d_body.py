"""Outputs of SAM 3D Body, in one frame."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior.files.numpy_file import read_npz

__all__ = ["Sam3dBody", "read_sam3d_body"]

# From MHR's axes (y up) to the camera's (x right, y down, z forward).
FLIP = (1.0, -1.0, -1.0)
SHAPES = {
    "pred_keypoints_3d": (70, 3),
    "pred_keypoints_2d": (70, 2),
    "pred_joint_coords": (127, 3),
    "pred_global_rots": (127, 3, 3),
    "pred_cam_t": (3,),
    "shape_params": (45,),
    "mhr_model_params": (204,),
}
OPTIONAL = ("mhr_model_params",)


@dataclass(frozen=True)
class Sam3dBody:
    """One person of SAM 3D Body, positions and rotations in the camera's axes.

    Attributes:
        keypoints_3d: (70, 3) metres, in the order of ``flowprior.skeleton.MHR_70``, relative to
            ``transl``.
        keypoints_2d: (70, 2) pixels.
        joints: (127, 3) metres, relative to ``transl``.
        orientations: (127, 3, 3) of the joints in the camera's axes, their rest pose included. The
            fingers of refined hands are stale, see ``model_parameters``.
        transl: (3,) metres, from the camera.
        identity: (45,) MHR's coefficients of the shape.
        model_parameters: (204,) MHR's parameters, which are in MHR's own axes; None in files from
            before December 2025.
    """

    keypoints_3d: Tensor
    keypoints_2d: Tensor
    joints: Tensor
    orientations: Tensor
    transl: Tensor
    identity: Tensor
    model_parameters: Tensor | None

    @property
    def orientations_y_up(self) -> Tensor:
        """The orientations (127, 3, 3) in MHR's axes, as ``MhrRig.theta_of_world`` takes them."""
        return torch.tensor(FLIP)[:, None] * self.orientations


def read_sam3d_body(source: str | os.PathLike[str] | Mapping[str, Any]) -> Sam3dBody:
    """Read one person of SAM 3D Body.

    In its output the positions are in the camera's axes, but the rotations in MHR's, y up; here all
    are in the camera's.

    Args:
        source: An ``.npz`` file of one person, or the dictionary of its estimator.

    Returns:
        The person.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If an array is missing or has a wrong shape.
    """
    is_file = isinstance(source, str | os.PathLike)
    name = os.fspath(source) if is_file else "the output"  # type: ignore[arg-type]
    content: Mapping[str, Any] = read_npz(source) if is_file else source  # type: ignore[arg-type, assignment]
    found: dict[str, Tensor] = {}
    for key, shape in SHAPES.items():
        if key not in content:
            if key in OPTIONAL:
                continue
            raise ValueError(
                f"{name} is no output of SAM 3D Body: it has no {key}, but "
                f"{', '.join(map(str, content)) or 'nothing'}"
            )
        value: NDArray[Any] = np.asarray(content[key])
        if value.shape != shape or value.dtype.kind != "f":
            raise ValueError(
                f"{name}: {key} must be numbers of shape {shape}, one person per file, got "
                f"{value.dtype} of shape {value.shape}"
            )
        found[key] = torch.from_numpy(value.astype(np.float32))
    return Sam3dBody(
        keypoints_3d=found["pred_keypoints_3d"],
        keypoints_2d=found["pred_keypoints_2d"],
        joints=found["pred_joint_coords"],
        orientations=torch.tensor(FLIP)[:, None] * found["pred_global_rots"],
        transl=found["pred_cam_t"],
        identity=found["shape_params"],
        model_parameters=found.get("mhr_model_params"),
    )
