"""Adapter of the package ``anny`` (NAVER; code Apache-2.0, data CC0)."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior.body.rigs.rig import numpy_of, skeleton_of, to_bone_axes
from flowprior.skeleton import COCO_17

__all__ = ["AnnyRig"]

Array: TypeAlias = NDArray[np.float64]

NEEDED = ("bone_labels", "bone_parents", "phenotype_labels", "get_triangular_faces")

# anny has z up and faces -y.
UPRIGHT = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))

_SIDED = {
    "clavicle": "collar",
    "upperarm01": "shoulder",
    "lowerarm01": "elbow",
    "wrist": "wrist",
    "upperleg01": "hip",
    "lowerleg01": "knee",
    "foot": "ankle",
    **{
        f"finger{number}-{joint}": f"{finger}{joint}"
        for number, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1)
        for joint in (1, 2, 3)
    },
}
MEANINGS = {"root": "pelvis", "neck01": "neck", "head": "head"} | {
    f"{bone}.{side[0].upper()}": f"{side}_{joint}"
    for side in ("left", "right")
    for bone, joint in _SIDED.items()
}
"""Joints of anny's own rig that other joint sets have."""


class AnnyRig(nn.Module):
    """A model of ``anny``.

    Args:
        model: An ``anny.Anny`` with any rig and topology.

    Raises:
        TypeError: If the model lacks the interface of the package.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401, an optional package
        super().__init__()
        missing = [name for name in NEEDED if not hasattr(model, name)]
        if missing:
            kind = type(model).__name__
            raise TypeError(f"expected a model of anny, but {kind} has no {', '.join(missing)}")
        self.model = model
        self.name = type(model).__name__
        self.skeleton = skeleton_of(
            self.name, model.bone_labels, model.bone_parents, MEANINGS, (".L", ".R")
        )
        self.faces = numpy_of(model.get_triangular_faces()).astype(np.int64)
        self.num_vertices = len(model.template_vertices)
        self.regressors = _keypoints(model)

    @property
    def default_betas(self) -> Tensor:
        """Phenotypes of 0.5."""
        like = self.model.template_vertices
        return torch.full((len(self.model.phenotype_labels),), 0.5).to(like)

    def pose(self, rotation: Tensor, betas: Tensor, surface: bool) -> tuple[Tensor, Tensor | None]:
        """As :meth:`flowprior.body.rigs.Rig.pose`; anny always computes the surface."""
        parameters = self.native(rotation, betas)
        out = self.model(**parameters, pose_parameterization="local-bone-world")
        upright = torch.tensor(UPRIGHT).to(rotation)
        joints = out["bone_poses"][..., :3, 3] @ upright.mT
        return joints, out["vertices"] @ upright.mT if surface else None

    def native(self, rotation: Tensor, betas: Tensor) -> dict[str, Tensor]:
        """``pose_parameters`` (N, J, 4, 4), as ``"local-bone-world"``, and ``phenotype_kwargs``."""
        rest = self._rest(rotation, betas)
        upright = torch.tensor(UPRIGHT).to(rotation)
        delta = to_bone_axes(upright.mT @ rotation @ upright, rest)
        pose = torch.eye(4).to(rotation).repeat(*rotation.shape[:2], 1, 1)
        pose = torch.cat([torch.cat([delta, pose[..., :3, 3:]], dim=-1), pose[..., 3:, :]], dim=-2)
        return {"pose_parameters": pose, "phenotype_kwargs": betas}

    def _rest(self, rotation: Tensor, betas: Tensor) -> Tensor:
        """Orientations (N, J, 3, 3) of the bones where the pose is zero."""
        model = self.model
        identity = torch.eye(4).to(rotation).expand(len(betas), rotation.shape[1], 4, 4)
        phenotypes = dict(zip(model.phenotype_labels, betas.unbind(dim=1), strict=True))
        coefficients = model.get_phenotype_blendshape_coefficients(**phenotypes)
        rest = model.get_rest_model(coefficients)["rest_bone_poses"]
        _, poses = model.get_bone_transforms(identity, rest, "local-bone-world")
        return poses[..., :3, :3]


def _keypoints(model: Any) -> Mapping[str, Array]:  # noqa: ANN401
    """COCO's keypoints, which the package has as functions of the vertices."""
    try:
        from anny import KeypointsRegressor

        regressor = KeypointsRegressor.coco(model)
    except (ImportError, OSError, AssertionError, AttributeError):  # another mesh, or a stand-in
        return {}
    if not set(COCO_17.joint_names) <= set(regressor.labels):
        return {}
    rows = [regressor.labels.index(name) for name in COCO_17.joint_names]
    return {COCO_17.name: numpy_of(regressor.regression_weights)[rows].astype(np.float64)}
