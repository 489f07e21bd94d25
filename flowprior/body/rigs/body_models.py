"""Adapters of the package ``body-models`` (Apache-2.0; the model files have their own licences)."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior import rotations
from flowprior.body.rigs.inverse import nearest_coefficients
from flowprior.body.rigs.rig import numpy_of, skeleton_of, to_bone_axes

__all__ = ["CoefficientRig", "RotationRig", "rig_of"]

Array: TypeAlias = NDArray[np.float64]

NEEDED = (
    *("parameter_spec", "forward_skeleton", "forward_vertices", "joint_names", "parents"),
    *("common_joints", "skinning_spec", "rest_vertices"),
)
_PHALANGES = {"mcp": 1, "pip": 2, "dip": 3}
_THUMB = {"cmc": 1, "mcp": 2, "ip": 3}


def rig_of(model: Any) -> "RotationRig | CoefficientRig":  # noqa: ANN401, an optional package
    """The adapter of a model.

    Raises:
        TypeError: If the model lacks the interface of the package, or is not on PyTorch.
        ValueError: If its rotations have a form other than vectors or matrices.
    """
    missing = [name for name in NEEDED if not hasattr(model, name)]
    kind = type(model).__name__
    if missing:
        raise TypeError(f"expected a model of body-models, but {kind} has no {', '.join(missing)}")
    if not isinstance(model.rest_vertices, Tensor):
        raise TypeError(
            f"{kind} computes with {type(model.rest_vertices).__name__}: create it from "
            "body_models.<model>.torch"
        )
    pose = {name: spec for name, spec in model.parameter_spec.items() if spec.role == "pose"}
    if all(spec.rotation_type is None for spec in pose.values()):
        return CoefficientRig(model)
    odd = {spec.rotation_type for spec in pose.values()} - {"axis_angle", "matrix", "rotmat"}
    if odd:
        raise ValueError(
            f"{kind} has rotations as {', '.join(map(str, odd))}: create it with "
            "rotation_type='axis_angle'"
        )
    return RotationRig(model)


def meaning(joint: str) -> str:
    """The meaning in `flowprior.skeleton` of one of the package's common joints."""
    for side in ("left", "right"):
        for finger in ("index", "middle", "ring", "pinky", "thumb"):
            part = joint.removeprefix(f"{side}_{finger}_")
            number = (_THUMB if finger == "thumb" else _PHALANGES).get(part)
            if number is not None:
                return f"{side}_{finger}{number}"
    return joint


class _ModelRig(nn.Module):
    """What both adapters share.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401, an optional package
        super().__init__()
        self.model = model
        self.name = type(model).__name__
        meanings = {native: meaning(str(joint)) for joint, native in model.common_joints.items()}
        self.skeleton = skeleton_of(
            self.name,
            model.joint_names,
            model.parents,
            meanings,
            getattr(model, "_SIDE_AFFIXES", None),
        )
        self.faces = numpy_of(model.skinning_spec.triangles).astype(np.int64)
        self.num_vertices = int(model.num_vertices)
        self.regressors: Mapping[str, Array] = {}
        specs = model.parameter_spec.items()
        self._identity = {name: spec for name, spec in specs if spec.role == "identity"}
        self._pose = {name: spec for name, spec in specs if spec.role == "pose"}

    @property
    def default_betas(self) -> Tensor:
        """The identity parameters of the model, one after the other."""
        like = self.model.rest_vertices
        values = [
            torch.full((int(np.prod(spec.dims)),), float(spec.default))
            for spec in self._identity.values()
        ]
        return torch.cat([torch.zeros(0), *values]).to(like)

    def _shape(self, betas: Tensor) -> dict[str, Tensor]:
        widths = [int(np.prod(spec.dims)) for spec in self._identity.values()]
        parts = betas.split(widths, dim=1)
        return dict(zip(self._identity, parts, strict=True))

    def _turned(
        self, root: Tensor, joints: Tensor, vertices: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Turn posed points about the root joint: rotations (N, 3, 3)."""
        index = self.skeleton.root
        centre = joints[:, index : index + 1]
        joints = (joints - centre) @ root.mT + centre
        if vertices is not None:
            vertices = (vertices - centre) @ root.mT + centre
        return joints, vertices


class RotationRig(_ModelRig):
    """A model of ``body-models`` with one rotation per joint.

    The package's rotations are in the axes of the bones at rest; those of `Rig` in the axes of the
    world. Where the model has no parameter for the root, its points are turned about it.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401, an optional package
        super().__init__(model)
        self._joints = self._joints_of_parameters()
        driven = {joint for joints in self._joints.values() for joint in joints}
        fixed = set(range(self.skeleton.num_joints)) - driven - {self.skeleton.root}
        if fixed:
            names = ", ".join(self.skeleton.joint_names[joint] for joint in sorted(fixed))
            raise ValueError(f"{self.name} has no rotation for {names}")
        self._turns = self.skeleton.root not in driven

    def _joints_of_parameters(self) -> dict[str, list[int]]:
        """The joints that each parameter rotates, in its order."""
        try:
            known = self.model.pose_joint_indices
        except (AttributeError, ValueError):
            known = {}
        if set(known) == set(self._pose):
            return {name: list(known[name]) for name in self._pose}
        # The parameter without a count is the root; the others follow in the order of the joints.
        found: dict[str, list[int]] = {}
        rest = [j for j in range(self.skeleton.num_joints) if j != self.skeleton.root]
        for name, spec in self._pose.items():
            encoded = 1 if spec.rotation_type == "axis_angle" else 2
            leading = spec.dims[:-encoded]
            if not leading:
                found[name] = [self.skeleton.root]
            else:
                found[name], rest = rest[: leading[0]], rest[leading[0] :]
        return found

    def pose(self, rotation: Tensor, betas: Tensor, surface: bool) -> tuple[Tensor, Tensor | None]:
        """As :meth:`flowprior.body.rigs.Rig.pose`."""
        parameters = self._arguments(rotation, betas)
        joints = self.model.forward_skeleton(**parameters)[..., :3, 3]
        vertices = self.model.forward_vertices(**parameters) if surface else None
        if self._turns:
            return self._turned(rotation[:, self.skeleton.root], joints, vertices)
        return joints, vertices

    def native(self, rotation: Tensor, betas: Tensor) -> dict[str, Tensor]:
        """The arguments of the model's ``forward_vertices``."""
        found = self._arguments(rotation, betas)
        if self._turns:  # the package turns about the origin
            root = self.skeleton.root
            joints = self.model.forward_skeleton(**found)[..., :3, 3]
            turn, centre = rotation[:, root], joints[:, root]
            spec = self.model.parameter_spec["global_rotation"]
            found["global_rotation"] = _encoded(turn, spec.rotation_type)
            found["global_translation"] = centre - (turn @ centre[..., None])[..., 0]
        return found

    def _arguments(self, rotation: Tensor, betas: Tensor) -> dict[str, Tensor]:
        shape = self._shape(betas)
        identity = torch.eye(3).to(rotation).expand_as(rotation)
        rest = self.model.forward_skeleton(**self._encode(identity), **shape)[..., :3, :3]
        return self._encode(to_bone_axes(rotation, rest)) | shape

    def _encode(self, delta: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, joints in self._joints.items():
            spec = self._pose[name]
            value = _encoded(delta[:, joints], spec.rotation_type)
            encoded = 1 if spec.rotation_type == "axis_angle" else 2
            found[name] = value if len(spec.dims) > encoded else value[:, 0]
        return found


def _encoded(matrix: Tensor, rotation_type: str) -> Tensor:
    return rotations.matrix_to_rotvec(matrix) if rotation_type == "axis_angle" else matrix


class CoefficientRig(_ModelRig):
    """A model of ``body-models`` whose joints have fewer degrees of freedom, such as SKEL.

    Theta is replaced by the nearest pose that the coefficients reach: they minimise the squared
    difference of all rotations relative to the parent. A pose of the model itself is reproduced.
    The root is turned as a whole.
    """

    def pose(self, rotation: Tensor, betas: Tensor, surface: bool) -> tuple[Tensor, Tensor | None]:
        """As :meth:`flowprior.body.rigs.Rig.pose`."""
        parameters = self._split(self._coefficients(rotation, betas)) | self._shape(betas)
        joints = self.model.forward_skeleton(**parameters)[..., :3, 3]
        vertices = self.model.forward_vertices(**parameters) if surface else None
        return self._turned(rotation[:, self.skeleton.root], joints, vertices)

    def native(self, rotation: Tensor, betas: Tensor) -> dict[str, Tensor]:
        """The arguments of the model's ``forward_vertices``."""
        found = self._split(self._coefficients(rotation, betas)) | self._shape(betas)
        root = self.skeleton.root
        centre = self.model.forward_skeleton(**found)[..., root, :3, 3]
        turn = rotation[:, root]
        found["global_rotation"] = rotations.matrix_to_rotvec(turn)
        found["global_translation"] = centre - (turn @ centre[..., None])[..., 0]
        return found

    def theta(self, betas: Tensor | None = None, **parameters: Tensor) -> Tensor:
        """The rotations of a pose given by the model's own coefficients.

        Args:
            betas: (N, B); the average shape if None.
            parameters: The pose parameters of the model, (N, n) each; zero if missing.

        Returns:
            (N, J, 3, 3), the input of `RigBody`.
        """
        given = next(iter(parameters.values()))
        if betas is None:
            betas = self.default_betas.expand(len(given), -1)
        parts = [
            parameters.get(name, given.new_zeros(len(given), spec.dims[0]))
            for name, spec in self._pose.items()
        ]
        return self._local(torch.cat(parts, dim=1), betas)

    def _widths(self) -> list[int]:
        return [int(np.prod(spec.dims)) for spec in self._pose.values()]

    def _split(self, coefficients: Tensor) -> dict[str, Tensor]:
        parts = coefficients.split(self._widths(), dim=1)
        return dict(zip(self._pose, parts, strict=True))

    def _local(self, coefficients: Tensor, betas: Tensor) -> Tensor:
        """Rotations (N, J, 3, 3) relative to parent and rest pose, of coefficients (N, Q)."""
        shape = self._shape(betas)
        zero = torch.zeros_like(coefficients)
        rest = self.model.forward_skeleton(**self._split(zero), **shape)[..., :3, :3]
        posed = self.model.forward_skeleton(**self._split(coefficients), **shape)[..., :3, :3]
        world = posed @ rest.mT
        parents = [max(parent, 0) for parent in self.skeleton.parents]
        above = world[:, parents]
        root = torch.eye(3).to(world).expand(len(world), 3, 3)
        index = self.skeleton.root
        above = torch.cat([above[:, :index], root[:, None], above[:, index + 1 :]], dim=1)
        return above.mT @ world

    def _coefficients(self, rotation: Tensor, betas: Tensor) -> Tensor:
        index = self.skeleton.root
        below = [joint for joint in range(self.skeleton.num_joints) if joint != index]

        def local(coefficients: Tensor) -> Tensor:
            return self._local(coefficients, betas)[:, below].flatten(1)

        start = rotation.new_zeros(len(rotation), sum(self._widths()))
        return nearest_coefficients(local, rotation[:, below].flatten(1), start)
