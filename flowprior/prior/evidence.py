"""Evidence: whatever is known of a person, as one context vector."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_tensor
from flowprior._precision import at_least_float32
from flowprior.keypoints import keypoint_context
from flowprior.prior.spaces import PoseSpace, RotationSpace
from flowprior.skeleton import BODY_25, COCO_17, MANO_21, SMPL_24, mapping

__all__ = ["KINDS", "Evidence"]

KINDS = ("keypoints_2d", "joints_3d", "rotations")
"""Kinds of evidence, in the order of their numbers in a context."""

FRAMES = {24: "camera", 23: "root", 15: "wrist"}
"""Frame of 3D joints, by the number of joints of the prior: a body with its root or without it, or
the fingers of a hand."""

POINTS = {24: SMPL_24, 23: SMPL_24, 15: MANO_21}
"""Joint set of the 3D joints, by the number of joints of the prior."""

_COCO_FROM_BODY_25 = mapping(BODY_25, COCO_17)


class Evidence:
    """Converts evidence of several kinds to the context of a prior.

    Each kind has its own part of the context, with a flag for every keypoint or joint, in the order
    of :data:`KINDS`. What is not known is zero, with the flag zero.

    * ``keypoints_2d``: (x, y, 1) per keypoint of COCO's 17, relative to the square around them, see
      :func:`flowprior.keypoints.keypoint_context`; 51 numbers.
    * ``joints_3d``: (x, y, z, 1) per joint of SMPL's 24, in metres; 96 numbers. A prior with a root
      takes them in the camera's axes (x right, y down, z forward) at any place: they are centred on
      the mean of the known ones. A prior without a root takes them in the root's frame: the pelvis
      at the origin, in the axes of its rotation. A prior over the 15 joints of a hand takes the 21
      points of :data:`flowprior.skeleton.MANO_21` in the wrist's frame, see
      :func:`flowprior.body.hand_points`; 84 numbers. The wrist is the origin, so it is known where
      any other point is.
    * ``rotations``: six numbers of the rotation in layout "columns" and a flag per joint of the
      prior; 7 J numbers.

    Args:
        kinds: Kinds of evidence, among :data:`KINDS`.
        space: The pose space of the prior, over joint rotations.

    Attributes:
        kinds: The kinds, in the order of :data:`KINDS`.
        frame: ``"camera"``, ``"root"`` or ``"wrist"``, the frame of ``joints_3d``; None without
            that kind.
        points: The joint set of ``joints_3d``.

    Raises:
        ValueError: If a kind is unknown or repeated, there is none, or the space does not fit.
    """

    def __init__(self, kinds: Sequence[str], space: PoseSpace) -> None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds or len(set(kinds)) < len(kinds) or isinstance(kinds, str):
            raise ValueError(f"evidence must be some of {KINDS}, each once, got {kinds!r}")
        if not isinstance(space, RotationSpace):
            raise ValueError("only a prior over joint rotations takes evidence, not over points")
        if "joints_3d" in kinds and space.joints not in FRAMES:
            raise ValueError(
                "3D joints are evidence for 24 or 23 joints of SMPL or 15 of a hand, the prior has "
                f"{space.joints}"
            )
        self.kinds = tuple(kind for kind in KINDS if kind in kinds)
        self.space = space
        self.frame = FRAMES[space.joints] if "joints_3d" in kinds else None
        self.points = POINTS.get(space.joints, SMPL_24)

    def __repr__(self) -> str:
        return f"Evidence(kinds={self.kinds}, joints={self.space.joints})"

    @property
    def context_features(self) -> int:
        """Width C of the context."""
        return sum(self._widths[kind] for kind in self.kinds)

    def context(
        self,
        *,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
        rotations: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """The context of evidence; what is left out is unknown.

        Args:
            keypoints_2d: (*batch, 17, 3) in COCO's order or (*batch, 25, 3) in BODY-25's: x and y
                in pixels, y down, and confidence. A keypoint counts above a confidence of 0.1. For
                another joint set, select COCO's with :func:`flowprior.skeleton.mapping`.
            joints_3d: (*batch, 24, 3) in SMPL's order, or (*batch, 21, 3) in MANO's for a hand,
                metres, in the frame :attr:`frame`; NaN where unknown.
            rotations: (*batch, J, k) in any form that the prior's space accepts. Unknown joints may
                hold any values.
            known: (*batch, J) bool, the joints whose rotations are known; if None, those without
                NaN.

        Returns:
            (*batch, C), with the batch shapes of the arguments broadcast; (C,) without evidence.

        Raises:
            TypeError: If an argument is not a tensor.
            ValueError: If the prior was not trained with a kind, or a shape or unit does not fit.
        """
        given = {"keypoints_2d": keypoints_2d, "joints_3d": joints_3d, "rotations": rotations}
        self._require_kinds(kind for kind, value in given.items() if value is not None)
        if known is not None and rotations is None:
            raise ValueError("known says which rotations are known, but rotations is missing")
        parts: dict[str, Tensor] = {}
        if keypoints_2d is not None:
            parts["keypoints_2d"] = keypoint_context(at_least_float32(_coco(keypoints_2d)))
        if joints_3d is not None:
            parts["joints_3d"] = self._joint_numbers(joints_3d)
        if rotations is not None:
            parts["rotations"] = self._rotation_numbers(*self.known_rotations(rotations, known))
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts.values()))
        like = next(iter(parts.values()), torch.zeros(()))
        return torch.cat(
            [
                parts[kind].expand(*batch, self._widths[kind])
                if kind in parts
                else like.new_zeros(*batch, self._widths[kind])
                for kind in self.kinds
            ],
            dim=-1,
        )

    def known_rotations(self, rotations: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """Poses (*batch, J, 6) with the identity where unknown, and known joints (*batch, J)."""
        require_tensor("rotations", rotations)
        joints = self.space.joints
        shape = tuple(rotations.shape)
        event = 2 if shape[-2:] in ((joints, 6), (joints, 3)) else 3
        if event == 3 and shape[-3:] != (joints, 3, 3):
            raise ValueError(
                f"rotations has shape {shape}; accepted are 6D (..., {joints}, 6), matrices "
                f"(..., {joints}, 3, 3), rotation vectors (..., {joints}, 3)"
            )
        start = len(shape) - event + 1
        finite = ~rotations.isnan().flatten(start_dim=start).any(dim=-1)
        if known is None:
            known = finite
        else:
            require_tensor("known", known)
            known = known.bool()
            if known.shape[-1:] != (joints,):
                raise ValueError(
                    f"known must be (..., {joints}), one flag per joint, got {tuple(known.shape)}"
                )
        batch = torch.broadcast_shapes(known.shape, shape[:start])
        known = known.expand(batch)
        flags = known.reshape(*batch, *(1,) * (event - 1))
        rest = self._identity(rotations, event)
        # Values of unknown joints may be anything, also no rotations.
        return self.space.as_pose(torch.where(flags, rotations, rest)), known

    @property
    def _widths(self) -> dict[str, int]:
        return {
            "keypoints_2d": 3 * COCO_17.num_joints,
            "joints_3d": 4 * self.points.num_joints,
            "rotations": 7 * self.space.joints,
        }

    def _require_kinds(self, kinds: Iterable[str]) -> None:
        foreign = [kind for kind in kinds if kind not in self.kinds]
        if foreign:
            raise ValueError(
                f"this prior was not trained with {' and '.join(foreign)}; its evidence is "
                f"{', '.join(self.kinds)}"
            )

    def _joint_numbers(self, joints: Tensor) -> Tensor:
        require_tensor("joints_3d", joints)
        if joints.shape[-2:] != (self.points.num_joints, 3) or not joints.is_floating_point():
            order = "SMPL's order" if self.points == SMPL_24 else f"the order of {self.points.name}"
            raise ValueError(
                f"joints_3d must be (..., {self.points.num_joints}, 3) in {order}, metres, NaN "
                f"where unknown, got {tuple(joints.shape)} of {joints.dtype}"
            )
        joints = at_least_float32(joints)
        known = ~joints.isnan().any(dim=-1, keepdim=True)
        joints = torch.where(known, joints, 0)
        if self.points == MANO_21:  # the wrist is the origin of the others
            wrist = known[..., :1, :] | known.any(dim=-2, keepdim=True)
            known = torch.cat((wrist, known[..., 1:, :]), dim=-2)
        self.space.second_look.points(joints)
        if self.frame == "camera":
            number = known.sum(dim=-2, keepdim=True).clamp(min=1)
            joints = torch.where(known, joints - joints.sum(dim=-2, keepdim=True) / number, 0)
        return torch.cat((joints, known.to(joints.dtype)), dim=-1).flatten(start_dim=-2)

    def _rotation_numbers(self, pose: Tensor, known: Tensor) -> Tensor:
        flags = known[..., None].to(pose.dtype)
        columns = rotations.matrix_to_rot6d(self.space.to_matrix(pose))
        return torch.cat((columns * flags, flags), dim=-1).flatten(start_dim=-2)

    def _identity(self, like: Tensor, event: int) -> Tensor:
        """No rotation, in the form of rotations with that many axes per pose."""
        if event == 3:
            return torch.eye(3, dtype=like.dtype, device=like.device)
        if like.shape[-1] == 3:
            return like.new_zeros(3)
        eye = torch.eye(3, dtype=like.dtype, device=like.device)
        return rotations.matrix_to_rot6d(eye, self.space.layout)


def _coco(keypoints: Tensor) -> Tensor:
    require_tensor("keypoints_2d", keypoints)
    number = keypoints.shape[-2] if keypoints.ndim > 1 else 0
    if number == COCO_17.num_joints:
        return keypoints
    if number == BODY_25.num_joints:
        return keypoints[..., list(_COCO_FROM_BODY_25), :]
    raise ValueError(
        "keypoints_2d must be (..., 17, 3) in COCO's order or (..., 25, 3) in BODY-25's, got "
        f"{tuple(keypoints.shape)}; flowprior.skeleton.mapping converts other joint sets"
    )
