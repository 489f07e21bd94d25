"""RigBody: a body of another package with the interface of BodyModel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowprior._modes import lasting
from flowprior._precision import without_autocast
from flowprior.body.arrays import RegressorSource, read_regressor
from flowprior.body.inputs import as_model, spread
from flowprior.body.keypoint_sets import KeypointSets, Rows
from flowprior.body.model import BodyOutput
from flowprior.body.rigs.rig import Rig
from flowprior.prior.spaces import Rot6dSpace
from flowprior.skeleton import Skeleton

__all__ = ["RigBody"]

FLAME_ADVICE = (
    "the landmarks of FLAME are not in the file of the model but in flame_static_embedding.pkl "
    "and flame_dynamic_embedding.npy, which its mesh and joints do not need; "
)


class RigBody(nn.Module):
    """Joints, vertices and keypoints of a rig, from the rotations of its joints.

    The interface is that of :class:`~flowprior.body.BodyModel`, so fitting, pictures and the
    uncertainty of joints work with any rig. Theta is one rotation per joint of the rig, in every
    form that a prior accepts, relative to the parent and to the rest pose, see
    :class:`~flowprior.body.rigs.Rig`. A rig that is a module moves with the body; whether its
    arrays are part of a ``state_dict`` is up to its package.

    Args:
        rig: The rig; for known packages use one of the class methods.
        layout: Order of the six numbers of theta in 6D, one of
            :data:`flowprior.rotations.LAYOUTS`.
        regressors: Keypoints as linear functions of the vertices, as for ``BodyModel``.

    Attributes:
        rig: The rig.
        faces: (F, 3) int64, triangles of vertices.
        default_betas: (B,) the average shape.
        name: Name of the rig.
        num_vertices: Number V of vertices.

    Raises:
        ValueError: If a regressor does not fit.
    """

    faces: Tensor
    default_betas: Tensor

    def __init__(
        self,
        rig: Rig,
        *,
        layout: str = "columns",
        regressors: Mapping[str, RegressorSource] | None = None,
    ) -> None:
        super().__init__()
        self.rig = rig
        self.name, self.num_vertices = rig.name, rig.num_vertices
        self._space = Rot6dSpace(rig.skeleton.num_joints, layout)
        with lasting():
            average = rig.default_betas.detach().clone()
            faces = torch.from_numpy(np.array(rig.faces, np.int64)).to(average.device)
        self.register_buffer("faces", faces, persistent=False)
        self.register_buffer("default_betas", average, persistent=False)
        found = {name: np.asarray(rows, np.float64) for name, rows in rig.regressors.items()}
        for name, source in (regressors or {}).items():
            found[name] = read_regressor(name, source, self.num_vertices)
        self._keypoints = KeypointSets(
            self.name,
            self.num_vertices,
            rig.skeleton,
            regressors=found,
            advice=FLAME_ADVICE if self.name == "FLAME" else "",
        )

    @classmethod
    def from_body_models(
        cls,
        model: Any,  # noqa: ANN401, an optional package
        *,
        layout: str = "columns",
        regressors: Mapping[str, RegressorSource] | None = None,
    ) -> "RigBody":
        """A model of the package ``body-models``, on PyTorch: SMPL, SKEL, FLAME, ANNY and others.

        Models with one rotation per joint take it as it is. Models with other coefficients, such as
        SKEL, are posed by the coefficients whose rotations are nearest to theta, in the sense of
        least squares.

        Args:
            model: The model, with rotation vectors or matrices where it offers a choice.
            layout: As for `RigBody`.
            regressors: As for `RigBody`.

        Returns:
            The body. Its betas are the identity parameters of the model, one after the other.

        Raises:
            TypeError: If the model lacks the interface of the package.
            ValueError: If its rotations have another form.
        """
        from flowprior.body.rigs.body_models import rig_of

        return cls(rig_of(model), layout=layout, regressors=regressors)

    @classmethod
    def from_anny(
        cls,
        model: Any,  # noqa: ANN401, an optional package
        *,
        layout: str = "columns",
        regressors: Mapping[str, RegressorSource] | None = None,
    ) -> "RigBody":
        """A model of the package ``anny``, with any of its rigs and topologies.

        Args:
            model: An ``anny.Anny``.
            layout: As for `RigBody`.
            regressors: As for `RigBody`.

        Returns:
            The body, y up and facing +z. Its betas are the phenotypes, from 0 to 1, in the order of
            ``model.phenotype_labels``.

        Raises:
            TypeError: If the model lacks the interface of the package.
        """
        from flowprior.body.rigs.anny import AnnyRig

        return cls(AnnyRig(model), layout=layout, regressors=regressors)

    @classmethod
    def from_mhr(
        cls,
        model: Any,  # noqa: ANN401, an optional package
        *,
        layout: str = "columns",
        regressors: Mapping[str, RegressorSource] | None = None,
    ) -> "RigBody":
        """MHR, the body of SAM 3D Body: a model of the package ``mhr``, or its TorchScript file.

        Theta has one rotation for each of the 127 joints. They determine MHR's 136 pose parameters
        by the inverse of its linear map to Euler angles, see
        :class:`~flowprior.body.rigs.mhr.MhrRig`.

        Args:
            model: An ``mhr.MHR``, or what ``torch.jit.load("mhr_model.pt")`` returns.
            layout: As for `RigBody`.
            regressors: As for `RigBody`.

        Returns:
            The body in metres. Its betas are 45 coefficients of the identity and 68 scales.

        Raises:
            TypeError: If the model lacks the interface of the package.
        """
        from flowprior.body.rigs.mhr import MhrRig

        return cls(MhrRig(model), layout=layout, regressors=regressors)

    def extra_repr(self) -> str:
        """The arguments that ``repr`` shows."""
        return f"{self.name}, joints={self.num_joints}, vertices={self.num_vertices}"

    @property
    def skeleton(self) -> Skeleton:
        """The joints, in the order of theta."""
        return self.rig.skeleton

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return self.skeleton.num_joints

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints in the rig."""
        return self.skeleton.joint_names

    @property
    def parents(self) -> tuple[int, ...]:
        """Parent of each joint, -1 for the root."""
        return self.skeleton.parents

    @property
    def num_betas(self) -> int:
        """Number of shape coefficients."""
        return len(self.default_betas)

    @property
    def keypoint_sets(self) -> tuple[str, ...]:
        """Names of the joint sets that `keypoints` can return."""
        return self._keypoints.names

    @property
    def default_skeleton(self) -> Skeleton:
        """The joint set that `keypoints` returns if none is given."""
        return self._keypoints.default

    def forward(
        self, theta: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
    ) -> BodyOutput:
        """Pose the body.

        Args:
            theta: (*batch, *extra, J, k), the pose in any accepted form.
            betas: (*batch, B), or (B,) for all poses; the average shape if None.
            transl: (*batch, 3) or (*batch, *extra, 3), metres, added to every point.

        Returns:
            Joints (*batch, *extra, J, 3) and vertices (*batch, *extra, V, 3), metres.

        Raises:
            TypeError: If an argument is not a tensor.
            ValueError: If shapes, dtypes or devices do not match.
        """
        joints, vertices = self._pose(theta, betas, transl, surface=True)
        assert vertices is not None
        return BodyOutput(joints, vertices)

    def keypoints(
        self,
        theta: Tensor,
        skeleton: Skeleton | None = None,
        betas: Tensor | None = None,
        transl: Tensor | None = None,
    ) -> Tensor:
        """Pose the body and return one set of keypoints.

        Args:
            theta: (*batch, *extra, J, k), the pose in any accepted form.
            skeleton: A joint set of `keypoint_sets`; `default_skeleton` if None.
            betas: As in `forward`.
            transl: As in `forward`.

        Returns:
            (*batch, *extra, K, 3), metres.

        Raises:
            TypeError: If an argument is not a tensor, or ``skeleton`` is not a joint set.
            ValueError: If shapes, dtypes or devices do not match, or the body lacks the keypoints.
        """
        rows = self._rows(skeleton)
        joints, vertices = self._pose(theta, betas, transl, surface=len(rows.vertices) > 0)
        return _regress(rows, joints, vertices)

    def regress(self, output: BodyOutput, skeleton: Skeleton | None = None) -> Tensor:
        """Compute keypoints (..., K, 3) of a body that is already posed, as `keypoints` does."""
        return _regress(self._rows(skeleton), output.joints, output.vertices)

    def native(self, theta: Tensor, betas: Tensor | None = None) -> dict[str, Tensor]:
        """The parameters with which the rig's own package gives this pose.

        Args:
            theta: (*batch, *extra, J, k), the pose in any accepted form.
            betas: As in `forward`.

        Returns:
            The package's parameters by its names, (*batch, *extra, ...).
        """
        rotation, shape, coefficients = self._inputs(theta, betas)
        found = self.rig.native(rotation, coefficients)
        return {name: value.reshape(*shape, *value.shape[1:]) for name, value in found.items()}

    def _rows(self, skeleton: object) -> Rows:
        if skeleton is None:
            skeleton = self.default_skeleton
        if not isinstance(skeleton, Skeleton):
            raise TypeError(
                "skeleton must be a joint set of flowprior.skeleton such as BODY_25, got "
                f"{type(skeleton).__name__}"
            )
        rows = self._keypoints.rows(skeleton)
        if rows is None:
            raise ValueError(self._keypoints.missing(skeleton))
        return rows

    def _inputs(self, theta: Tensor, betas: Tensor | None) -> tuple[Tensor, torch.Size, Tensor]:
        """Rotations (N, J, 3, 3), the shape of the batch, betas (N, B)."""
        like, joints = self.default_betas, self.num_joints
        theta = as_model("theta", theta, like)
        exact = theta.shape[-3:] == (joints, 3, 3)
        rotation = theta if exact else self._space.to_matrix(theta).to(like)
        shape = rotation.shape[:-3]
        betas = like if betas is None else as_model("betas", betas, like)
        betas = spread("betas", betas, shape, self.num_betas)
        count = shape.numel()
        return rotation.reshape(count, joints, 3, 3), shape, betas.reshape(count, self.num_betas)

    def _pose(
        self, theta: Tensor, betas: Tensor | None, transl: Tensor | None, surface: bool
    ) -> tuple[Tensor, Tensor | None]:
        like = self.default_betas
        with without_autocast(like.device):
            rotation, shape, coefficients = self._inputs(theta, betas)
            joints, vertices = self.rig.pose(rotation, coefficients, surface)
            joints = joints.reshape(*shape, *joints.shape[1:])
            if vertices is not None:
                vertices = vertices.reshape(*shape, *vertices.shape[1:])
            if transl is not None:
                moved = spread("transl", as_model("transl", transl, like), shape, 3)[..., None, :]
                joints = joints + moved
                vertices = None if vertices is None else vertices + moved
        return joints, vertices


def _regress(rows: Rows, joints: Tensor, vertices: Tensor | None) -> Tensor:
    with without_autocast(joints.device):
        points = torch.einsum("kj,...jc->...kc", torch.from_numpy(rows.joints).to(joints), joints)
        if len(rows.vertices):
            assert vertices is not None
            used = vertices[..., torch.from_numpy(rows.vertices).to(vertices.device), :]
            weights = torch.from_numpy(rows.weights).to(joints)
            points = points + torch.einsum("kv,...vc->...kc", weights, used)
        return points
