"""Adapter of MHR (Meta; code and model Apache-2.0), the body of SAM 3D Body.

MHR's pose is 136 numbers, which a linear map turns into three Euler angles per joint; hands have 27
of them each. As the pose of a prior these numbers are awkward: they wrap around, several joints
share one number, and the three angles of a shoulder are not a distance. So the pose here is, as for
every other body, one **rotation per joint**, and the adapter inverts the map: rotations, Euler
angles, the parameters nearest to them in the sense of least squares. Poses that MHR can take are
reproduced exactly; a finger that is bent sideways, say, is projected to what its joint allows.
Limits are a matter of the prior, which learns them from poses.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior.body.rigs.rig import chain, metres_per_unit, numpy_of, skeleton_of, to_bone_axes

__all__ = ["MhrRig", "euler_of_matrix", "matrix_of_euler"]

Array: TypeAlias = NDArray[np.float64]

NUM_PARAMETERS = 204
NUM_IDENTITY = 45
NUM_SCALES = 68
# The first three numbers are the translation of the root; its rotation and the joints follow.
POSE = slice(3, NUM_PARAMETERS - NUM_SCALES)
SCALES = slice(NUM_PARAMETERS - NUM_SCALES, NUM_PARAMETERS)
PER_JOINT = 7  # translation, Euler angles, logarithm of the scale

_SIDED = {
    "clavicle": "collar",
    "uparm": "shoulder",
    "lowarm": "elbow",
    "wrist": "wrist",
    "upleg": "hip",
    "lowleg": "knee",
    "foot": "ankle",
    "ball": "foot",
    **{
        f"{finger}{joint}": f"{finger}{joint}"
        for finger in ("thumb", "index", "middle", "ring", "pinky")
        for joint in (1, 2, 3)
    },
}
MEANINGS = {"root": "pelvis", "c_neck": "neck", "c_head": "head"} | {
    f"{side[0]}_{bone}": f"{side}_{joint}"
    for side in ("left", "right")
    for bone, joint in _SIDED.items()
}
"""Joints of MHR that other joint sets have."""


class MhrRig(nn.Module):
    r"""MHR posed by one rotation per joint.

    The local rotation of a joint is its rotation in the rest pose times
    :math:`R_z(c) R_y(b) R_x(a)`, where all angles (a, b, c) are linear in the pose parameters. In
    the axes of the world, theta is that rotation seen from the rest orientation of the bone. The
    parameters follow from the angles by the pseudo-inverse of the linear map.

    Args:
        model: An ``mhr.MHR``, or the TorchScript file ``mhr_model.pt`` as ``torch.jit.load``
            returns it. The unit of its output is recognised by the height of the body: MHR computes
            in centimetres.

    Raises:
        TypeError: If the model lacks the interface of the package.
        ValueError: If the rest pose has the height of no person.
    """

    rest: Tensor
    inverse: Tensor
    angles: Tensor

    def __init__(self, model: Any) -> None:  # noqa: ANN401, an optional package
        super().__init__()
        self.name = "MHR"
        try:
            character = model.character_torch
            bones = character.skeleton
            linear_map = character.parameter_transform.parameter_transform
            transform = numpy_of(linear_map)
            turns = numpy_of(bones.joint_prerotations).astype(np.float64)
            names, parents = list(bones.joint_names), numpy_of(bones.joint_parents).tolist()
            mesh = character if hasattr(character, "mesh") else model.character
            faces = numpy_of(mesh.mesh.faces)
        except AttributeError as error:
            raise TypeError(
                f"expected a model of mhr, but {type(model).__name__} lacks a part of it: {error}"
            ) from None
        self.model = model
        self.skeleton = skeleton_of("MHR", names, parents, MEANINGS, ("l_", "r_"))
        self.faces = faces.astype(np.int64).reshape(-1, 3)
        self.regressors: Mapping[str, Array] = {}
        count = len(names)
        rows = transform.astype(np.float64).reshape(count, PER_JOINT, -1)[:, 3:6, POSE]
        linear = rows.reshape(3 * count, -1)
        like = torch.zeros(0, device=getattr(linear_map, "device", None))
        rest = chain(_matrix_of_quaternion(torch.from_numpy(turns)), self.skeleton.parents)
        for name, value in {
            "rest": rest,
            "angles": torch.from_numpy(linear),
            "inverse": torch.from_numpy(np.linalg.pinv(linear)),
        }.items():
            self.register_buffer(name, value.to(like), persistent=False)
        vertices, _ = self._run(like.new_zeros(1, NUM_IDENTITY), like.new_zeros(1, NUM_PARAMETERS))
        self.num_vertices = vertices.shape[1]
        height = vertices[0, :, 1].max() - vertices[0, :, 1].min()
        self.unit = metres_per_unit(float(height), "MHR")

    @property
    def default_betas(self) -> Tensor:
        """45 coefficients of the identity and 68 scales, all zero."""
        return self.rest.new_zeros(NUM_IDENTITY + NUM_SCALES)

    def pose(self, rotation: Tensor, betas: Tensor, surface: bool) -> tuple[Tensor, Tensor | None]:
        """As :meth:`flowprior.body.rigs.Rig.pose`; MHR always computes the surface."""
        parameters = self.native(rotation, betas)
        vertices, state = self._run(parameters["identity_coeffs"], parameters["model_parameters"])
        root = self.skeleton.root
        joints, vertices = self.unit * state[..., :3], self.unit * vertices
        # The parent of all joints has no parameters.
        turn, centre = rotation[:, root], joints[:, root : root + 1]
        joints = (joints - centre) @ turn.mT + centre
        return joints, (vertices - centre) @ turn.mT + centre if surface else None

    def native(self, rotation: Tensor, betas: Tensor) -> dict[str, Tensor]:
        """``identity_coeffs`` (N, 45) and ``model_parameters`` (N, 204)."""
        angles = euler_of_matrix(to_bone_axes(rotation, self.rest.to(rotation)))
        root = self.skeleton.root
        keep = torch.ones(self.skeleton.num_joints, 1).to(angles)
        keep[root] = 0
        pose = (angles * keep).flatten(1) @ self.inverse.to(angles).mT
        transl = pose.new_zeros(len(pose), POSE.start)
        scales = betas[:, NUM_IDENTITY:]
        return {
            "identity_coeffs": betas[:, :NUM_IDENTITY],
            "model_parameters": torch.cat([transl, pose, scales], dim=1),
        }

    def theta(self, model_parameters: Tensor) -> Tensor:
        """The rotations of a pose in MHR's parameters, such as SAM 3D Body's ``mhr_model_params``.

        Args:
            model_parameters: (..., 204).

        Returns:
            (..., J, 3, 3), the input of :class:`~flowprior.body.rigs.RigBody`.
        """
        angles = model_parameters[..., POSE] @ self.angles.to(model_parameters).mT
        local = matrix_of_euler(angles.unflatten(-1, (-1, 3)))
        rest = self.rest.to(local)
        return rest @ local @ rest.mT

    def theta_of_world(self, rotation: Tensor) -> Tensor:
        """The pose from the orientations of the joints in the world, without their rest pose.

        Args:
            rotation: (..., J, 3, 3) orientations in MHR's frame, y up, such as ``pred_global_rots``
                of SAM 3D Body, whose fingers can be stale.

        Returns:
            (..., J, 3, 3), the input of :class:`~flowprior.body.rigs.RigBody`.
        """
        moved = rotation @ self.rest.to(rotation).mT
        parents = list(self.skeleton.parents)
        root = self.skeleton.root
        above = moved[..., [max(parent, 0) for parent in parents], :, :]
        identity = torch.eye(3).to(moved).expand(*moved.shape[:-3], 1, 3, 3)
        above = torch.cat([above[..., :root, :, :], identity, above[..., root + 1 :, :, :]], dim=-3)
        return above.mT @ moved

    def betas(self, identity: Tensor, model_parameters: Tensor) -> Tensor:
        """The shape (..., 113) of MHR's identity (..., 45) and parameters (..., 204)."""
        return torch.cat([identity, model_parameters[..., SCALES]], dim=-1)

    def _run(self, identity: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Vertices (N, V, 3) and the state of the skeleton (N, J, 8), in MHR's unit."""
        expression = parameters.new_zeros(len(parameters), 72)
        vertices, state = self.model(identity, parameters, expression)
        return vertices, state


def matrix_of_euler(angles: Tensor) -> Tensor:
    """Rotations Rz Ry Rx from angles (..., 3) about x, y, z: (..., 3, 3)."""
    (a, b, c), (d, e, f) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (
        (b * c, -a * f + d * e * c, d * f + a * e * c),
        (b * f, a * c + d * e * f, -d * c + a * e * f),
        (-e, d * b, a * b),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def euler_of_matrix(matrix: Tensor) -> Tensor:
    """Angles (..., 3) about x, y, z of rotations Rz Ry Rx, that about y within a quarter turn."""
    across = (matrix[..., 0, 0].square() + matrix[..., 1, 0].square()).clamp(min=1e-12).sqrt()
    return torch.stack(
        [
            torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]),
            torch.atan2(-matrix[..., 2, 0], across),
            torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]),
        ],
        dim=-1,
    )


def _matrix_of_quaternion(xyzw: Tensor) -> Tensor:
    x, y, z, w = (xyzw / xyzw.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
