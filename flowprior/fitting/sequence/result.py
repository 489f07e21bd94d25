"""The result of a sequence fit, with its uncertainty."""

from dataclasses import dataclass, replace

from torch import Tensor

from flowprior.fitting.sequence.ball import ball_radius

__all__ = ["SequenceFit"]


@dataclass(frozen=True)
class SequenceFit:
    r"""Poses of P people in T frames, from :func:`fit_sequence`; without P for a single sequence.

    Attributes:
        theta: (P, T, 24, 6) joint rotations, layout "columns".
        rotation: (P, T, 24, 3, 3), the same.
        transl: (P, T, 3) metres.
        shape: (P, S) shape coefficients of the rig: ``betas`` of a body.
        points: (P, T, K, 3) metres, the points of the rig in the frame of the evidence.
        point_covariance: (P, T, K, 3, 3) square metres.
        rotation_std_degrees: (P, T, 24) root mean square of the angle to the true rotation,
            relative to the parent, if the model holds; 0 for joints that are held at rest.
        seen: (P, T) bool, frames with any evidence.
        swapped: (P, T) bool, frames in which left and right of the keypoints were exchanged.
        joint_covariance: (P, T, 24, 3, 3) square metres, of SMPL's joints relative to the pelvis;
            None for a rig without a body.
        samples: (P, T, S, 24, 3, 3) rotations of sampled motions, each continuous over time; None
            if none were requested.
    """

    theta: Tensor
    rotation: Tensor
    transl: Tensor
    shape: Tensor
    points: Tensor
    point_covariance: Tensor
    rotation_std_degrees: Tensor
    seen: Tensor
    swapped: Tensor
    joint_covariance: Tensor | None = None
    samples: Tensor | None = None

    def person(self, number: int) -> "SequenceFit":
        """One person of P: the same without the first axis.

        Args:
            number: Index of the person.
        """
        values: dict[str, Tensor | None] = vars(self)
        chosen = {name: None if value is None else value[number] for name, value in values.items()}
        return replace(self, **chosen)  # type: ignore[arg-type]

    def radius_mm(self, level: float = 0.9) -> Tensor:
        """Radii (P, T, K) of balls around the points with a given probability, millimetres.

        Args:
            level: The probability, between 0 and 1.

        Raises:
            ValueError: If the level is out of range.
        """
        return 1000 * ball_radius(self.point_covariance, level)

    def smpl_params(self) -> dict[str, Tensor]:
        """Parameters of SMPL with the argument names of smplx, for ``pose2rot=False``.

        Returns:
            ``global_orient`` (P, T, 1, 3, 3), ``body_pose`` (P, T, 23, 3, 3), ``betas`` (P, S) and
            ``transl`` (P, T, 3).
        """
        return {
            "global_orient": self.rotation[..., :1, :, :],
            "body_pose": self.rotation[..., 1:, :, :],
            "betas": self.shape,
            "transl": self.transl,
        }
