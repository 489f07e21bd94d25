"""Results of fits: SMPL parameters, cameras, errors, and how each problem ended."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting.objective import KeypointObjective
from flowprior.fitting.posterior import SPREAD, FitPosterior, FitSamples
from flowprior.fitting.solver import Solution
from flowprior.fitting.whole_body_pose import parts_of
from flowprior.prior.uncertainty import JointUncertainty
from flowprior.skeleton import Skeleton

__all__ = ["Fits", "ViewFits"]


@dataclass(frozen=True)
class Fits:
    """Fits of P people, from :func:`fit_keypoints`.

    Args:
        theta: (P, J, 3, 3) rotations of the body's J joints, 24 of SMPL, 52 or 55 with fingers; the
            root is relative to the camera (y down).
        betas: (P, 10) shape.
        transl: (P, 3) metres, camera frame.
        focal_px: (P,) focal length, pixels of the image.
        principal_point_px: (P, 2) pixels of the image.
        keypoints_2d: (P, K, 2) projected keypoints of the fitted bodies, pixels of the image; those
            of BODY-67 if keypoints with fingers were fitted.
        penalty: (P,) pose penalty: where latents were optimised, -2 log p(z) relative to its
            minimum.
        error_px: (P,) mean distance between fitted and detected keypoints, weighted by confidence,
            pixels; NaN without a detected keypoint.
        error: (P,) the same relative to the side of the box around the detected keypoints.
        variables: (P, D) optimised variables.
        solution: Result of the solver: objective, status and number of iterations of each person.
        start_value: (P,) objective at the start.
        objective: The objective, with body, keypoints and prior; needed for the uncertainty.
    """

    theta: Tensor
    betas: Tensor
    transl: Tensor
    focal_px: Tensor
    principal_point_px: Tensor
    keypoints_2d: Tensor
    penalty: Tensor
    error_px: Tensor
    error: Tensor
    variables: Tensor
    solution: Solution
    start_value: Tensor
    objective: KeypointObjective = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.theta)

    def posterior(self, *, spread: float = SPREAD) -> FitPosterior:
        """The posterior around the fits: what the keypoints and the prior leave open.

        Args:
            spread: Factor on standard deviations, see :class:`FitPosterior`.

        Raises:
            ValueError: The fits had no prior, or ``spread`` is not positive.
        """
        return FitPosterior(self.objective, self.variables, spread=spread)

    def posterior_samples(
        self, num_samples: int, *, generator: torch.Generator | None = None
    ) -> FitSamples:
        """Draw n bodies for each person from :meth:`posterior`; see :meth:`FitPosterior.sample`."""
        return self.posterior().sample(num_samples, generator=generator)

    def joint_uncertainty(
        self,
        *,
        num_samples: int = 200,
        skeleton: Skeleton | None = None,
        generator: torch.Generator | None = None,
    ) -> JointUncertainty:
        """How far each joint may lie from the fits; see :meth:`FitPosterior.joint_uncertainty`."""
        return self.posterior().joint_uncertainty(
            num_samples=num_samples, skeleton=skeleton, generator=generator
        )

    @property
    def global_orient(self) -> Tensor:
        """(P, 1, 3, 3) rotation of the root, relative to the camera."""
        return self.theta[:, :1]

    @property
    def body_pose(self) -> Tensor:
        """(P, 23, 3, 3) rotations of the body, relative to the parents; 21 beside fingers."""
        return self.theta[:, parts_of(self.objective.body)["body_pose"]]

    @property
    def left_hand_pose(self) -> Tensor:
        """(P, 15, 3, 3) rotations of the left hand in MANO's order, identities if it is flat.

        Raises:
            ValueError: The body has no fingers.
        """
        return self._part("left_hand_pose")

    @property
    def right_hand_pose(self) -> Tensor:
        """(P, 15, 3, 3) rotations of the right hand, as `left_hand_pose`."""
        return self._part("right_hand_pose")

    @property
    def hands_seen(self) -> Tensor:
        """(P, 2) bool, whether keypoints of the left and the right fingers were fitted."""
        return self.objective.hands_seen

    @property
    def hands(self) -> list[tuple[str, str]]:
        """How the left and the right hand of each of the P people was found: "fitted", "at rest".

        A hand at rest was not visible; its uncertainty is that of the prior of the fingers.
        """
        words = ("at rest", "fitted")
        return [(words[left], words[right]) for left, right in self.hands_seen.int().tolist()]

    @property
    def status(self) -> list[str]:
        """How each of the P problems ended, :attr:`Status.label`."""
        return self.solution.labels()

    def smpl_params(self) -> dict[str, Tensor]:
        """SMPL parameters with the argument names of smplx, for ``pose2rot=False``.

        Returns:
            ``global_orient`` (P, 1, 3, 3) and ``body_pose`` (P, 23, 3, 3) rotation matrices,
            ``betas`` (P, 10), ``transl`` (P, 3) metres, camera frame. SMPL rotates about the
            pelvis, before the translation. With fingers, ``body_pose`` has 21 joints, and
            ``left_hand_pose`` and ``right_hand_pose`` have 15 each; SMPL-X's ``jaw_pose`` and its
            eyes are identities.
        """
        parts = parts_of(self.objective.body)
        return {
            **{name: self.theta[:, joints] for name, joints in parts.items()},
            "betas": self.betas,
            "transl": self.transl,
        }

    def rotation_vectors(self, *, flat_hand_mean: bool = True) -> dict[str, Tensor]:
        """The parameters of `smpl_params` with rotation vectors, as smplx takes them by default.

        Args:
            flat_hand_mean: As the option of ``smplx.create``: if True, zero is the flat hand; if
                False, the mean of the hands in the body's file is subtracted.

        Returns:
            (P, 3 n) for each part of n joints; ``betas`` and ``transl``. A model of smplx with
            fingers needs ``use_pca=False``.

        Raises:
            ValueError: The body has no mean of the hands.
        """
        body = self.objective.body
        parts = parts_of(body)
        flat = flat_hand_mean or "left_hand_pose" not in parts
        if isinstance(body, BodyModel):
            split = body.split(self.theta, flat_hand_mean=flat)
        else:
            vectors = rotations.matrix_to_rotvec(self.theta)
            split = {name: vectors[:, joints].flatten(1) for name, joints in parts.items()}
        return split | {"betas": self.betas, "transl": self.transl}

    def _part(self, name: str) -> Tensor:
        body, parts = self.objective.body, parts_of(self.objective.body)
        if name not in parts:
            raise ValueError(f"{body.name} has no {name}; its parts are {', '.join(parts)}")
        return self.theta[:, parts[name]]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as NumPy arrays, for ``numpy.savez``.

        Returns:
            The arrays of `smpl_params`; with fingers, ``hands`` (P, 2) as text, see `hands`;
            ``focal_px`` (P,), ``principal_point_px`` (P, 2),
            ``keypoints_2d_fit`` (P, K, 2) pixels; ``objective``, ``pose_penalty``, ``error_px``,
            ``error``, ``iterations`` and ``status`` (P,), the last as text.
        """
        tensors = self.smpl_params() | {
            "focal_px": self.focal_px,
            "principal_point_px": self.principal_point_px,
            "keypoints_2d_fit": self.keypoints_2d,
            "objective": self.solution.value,
            "pose_penalty": self.penalty,
            "error_px": self.error_px,
            "error": self.error,
            "iterations": self.solution.iterations,
        }
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        if "left_hand_pose" in arrays:
            arrays["hands"] = np.array(self.hands, dtype=np.str_).reshape(-1, 2)
        return arrays | {"status": np.array(self.status, dtype=np.str_)}


@dataclass(frozen=True)
class ViewFits:
    """Fits of G people to up to V views each, from :func:`fit_views`.

    Args:
        theta: (G, V, 24, 3, 3) joint rotations in each view; the root is relative to its camera.
        body_pose: (G, 23, 3, 3) mean over the views of the rotations below the root.
        betas: (G, 10) shape, common to all views.
        transl: (G, V, 3) metres, in the frame of each camera.
        first: (G, V, 24, 3, 3) initial rotations, the mode of the prior in each view.
        first_betas: (G, 10) initial shape, the mean over the views.
        disagreement: (G, 2) mean angle between the views and their mean rotation, before and after
            the fit, radians.
        mask: (G, V) bool, which views exist.
        solution: Result of the solver.
    """

    theta: Tensor
    body_pose: Tensor
    betas: Tensor
    transl: Tensor
    first: Tensor
    first_betas: Tensor
    disagreement: Tensor
    mask: Tensor
    solution: Solution

    def __len__(self) -> int:
        return len(self.theta)

    @property
    def global_orient(self) -> Tensor:
        """(G, V, 1, 3, 3) rotation of the root, relative to each camera."""
        return self.theta[:, :, :1]

    @property
    def status(self) -> list[str]:
        """How each of the G problems ended, :attr:`Status.label`."""
        return self.solution.labels()

    @property
    def together(self) -> Tensor:
        """(G, V, 24, 3, 3) rotations of the one fitted body, with the root of each view."""
        return self._with_body(self.theta, self.body_pose)

    @property
    def averaged(self) -> Tensor:
        """(G, V, 24, 3, 3) the initial rotations averaged on SO(3): the baseline without a fit."""
        below = self.first[:, :, 1:].transpose(1, 2)
        return self._with_body(
            self.first, rotations.mean_rotation(below, self.mask[:, None].to(below.dtype))
        )

    def smpl_params(self) -> dict[str, Tensor]:
        """SMPL parameters of each person in each view, with the argument names of smplx.

        Returns:
            ``global_orient`` (G, V, 1, 3, 3) and ``body_pose`` (G, V, 23, 3, 3) rotation matrices,
            ``betas`` (G, V, 10), ``transl`` (G, V, 3) metres in the frame of each camera. Views
            that do not exist (see ``mask``) repeat the first view's evidence.
        """
        views = self.theta.shape[1]
        return {
            "global_orient": self.global_orient,
            "body_pose": self.together[:, :, 1:],
            "betas": self.betas[:, None].expand(-1, views, -1),
            "transl": self.transl,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as NumPy arrays, for ``numpy.savez``.

        Returns:
            ``global_orient`` (G, V, 1, 3, 3), ``body_pose`` (G, 23, 3, 3), ``betas`` (G, 10),
            ``transl`` (G, V, 3) metres, ``views`` (G, V) bool, ``disagreement`` (G, 2) radians,
            ``objective`` (G,) and ``status`` (G,) as text.
        """
        tensors = {
            "global_orient": self.global_orient,
            "body_pose": self.body_pose,
            "betas": self.betas,
            "transl": self.transl,
            "views": self.mask,
            "disagreement": self.disagreement,
            "objective": self.solution.value,
        }
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        return arrays | {"status": np.array(self.status, dtype=np.str_)}

    def _with_body(self, theta: Tensor, body_pose: Tensor) -> Tensor:
        below = body_pose[:, None].expand(-1, theta.shape[1], -1, -1, -1)
        return torch.cat([theta[:, :, :1], below], dim=2)
