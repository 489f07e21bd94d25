"""What a fit varies of a pose, and what its prior asks for that: latents, densities, angles.

Every form starts at the pose its prior likes best and has a penalty that is 0 there, so the same
fit runs with any of them. Forms over the body alone leave the root to six numbers of its own, about
which they have no opinion; a fit then has to try several headings.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.fitting.mixture import PoseMixture
from flowprior.flow import standard_normal_log_prob
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import RotationSpace

__all__ = ["AnglePose", "DensityPose", "LatentPose", "PoseVariables", "facing"]

BODY_JOINTS = 23


class PoseVariables(Protocol):
    """The pose of P people as numbers (P, size)."""

    @property
    def size(self) -> int:
        """Numbers of one person."""

    @property
    def free_root(self) -> bool:
        """Whether the first six numbers are the root's 6D vector, which the prior knows nothing of.

        Then the fit has to be started in several headings.
        """

    @property
    def kick(self) -> float:
        """By how much the numbers below the root must change to make another pose of it."""

    def start(self, people: int) -> Tensor:
        """(P, size) where to start: the pose the prior likes best, facing the camera."""

    def select(self, rows: Tensor) -> "PoseVariables":
        """The variables of some of the people, whose numbers may repeat."""

    def theta(self, x: Tensor) -> Tensor:
        """Numbers (P, size) -> theta (P, 24, 6) in layout "columns"."""

    def penalty(self, x: Tensor) -> Tensor:
        """Numbers (P, size) -> penalty (P,)."""


def facing(degrees: Tensor) -> Tensor:
    """6D vectors (n, 6) of roots of upright people in a camera frame with y down.

    Args:
        degrees: (n,) turn about the vertical; 0 faces the camera.
    """
    vector = torch.zeros(len(degrees), 3, dtype=degrees.dtype, device=degrees.device)
    vector[:, 1] = torch.deg2rad(degrees)
    upright = vector.new_tensor([1.0, -1.0, -1.0])[:, None]
    return rotations.matrix_to_rot6d(upright * rotations.rotvec_to_matrix(vector))


@dataclass(frozen=True)
class _FlowPose:
    """What both forms over a flow share.

    Args:
        posterior: Of P contexts, or of a prior without; over SMPL's 24 joints, or the 23 below the
            root.
    """

    posterior: PosePosterior

    def __post_init__(self) -> None:
        space = self.posterior.prior.space
        if not isinstance(space, RotationSpace) or space.joints not in (24, 23):
            raise ValueError(
                "expected a prior over the rotations of SMPL's 24 joints, or of the 23 below the "
                f"root, got one over poses of shape {tuple(space.event_shape)}"
            )

    @property
    def prior(self) -> PosePrior:
        """The prior."""
        return self.posterior.prior

    @property
    def space(self) -> RotationSpace:
        """What its vectors are."""
        space = self.prior.space
        assert isinstance(space, RotationSpace)
        return space

    @property
    def free_root(self) -> bool:
        """Whether the prior is over the body alone."""
        return self.space.joints == BODY_JOINTS

    def _some(self, rows: Tensor) -> PosePosterior:
        return self.posterior[rows] if self.posterior.batch_shape else self.posterior

    def _with_root(self, x: Tensor) -> Tensor:
        """(P, size) of the prior's own start -> with the root before it, if that is free."""
        if not self.free_root:
            return x
        return torch.cat([facing(x.new_zeros(len(x))), x], dim=-1)

    def _split(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        return (x[:, None, :6], x[:, 6:]) if self.free_root else (None, x)

    def _theta(self, root: Tensor | None, pose: Tensor) -> Tensor:
        if self.space.layout != "columns":
            pose = rotations.matrix_to_rot6d(self.space.to_matrix(pose))
        return pose if root is None else torch.cat([root, pose], dim=1)


@dataclass(frozen=True)
class LatentPose(_FlowPose):
    """The latent z of a flow, with ||z||^2: the original's fit.

    Args:
        posterior: As above; the penalty is -2 log p(theta | c), less its least value, for flows
            whose volume does not depend on theta.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, section 3.6.
    """

    @property
    def size(self) -> int:
        """Latents, and six numbers of a free root."""
        return self.space.features + 6 * self.free_root

    @property
    def kick(self) -> float:
        """A standard deviation of the latent."""
        return 1.0

    def start(self, people: int) -> Tensor:
        """The latent 0."""
        flow = self.prior.flow
        zero = torch.zeros(people, self.space.features, dtype=flow.dtype, device=flow.device)
        return self._with_root(zero)

    def select(self, rows: Tensor) -> "LatentPose":
        """The variables of some of the people."""
        return LatentPose(self._some(rows))

    def theta(self, x: Tensor) -> Tensor:
        """Numbers (P, size) -> theta (P, 24, 6)."""
        root, z = self._split(x)
        return self._theta(root, self.posterior.decode(z, check=False))

    def penalty(self, x: Tensor) -> Tensor:
        """||z||^2 (P,)."""
        return self._split(x)[1].square().sum(dim=-1)


@dataclass(frozen=True)
class DensityPose(_FlowPose):
    """Theta itself, with -2 log p(theta | c) less its value at the mode.

    Any prior serves, also one whose volume depends on theta. For the flows of `LatentPose` it is
    the same objective in other variables.

    Args:
        posterior: As above.
    """

    @property
    def size(self) -> int:
        """6D vectors of the joints."""
        return 6 * self.space.joints + 6 * self.free_root

    @property
    def kick(self) -> float:
        """In entries of rotation matrices."""
        return 0.25

    def start(self, people: int) -> Tensor:
        """The mode."""
        with torch.no_grad():
            mode = self.posterior.mode().flatten(start_dim=-2)
        return self._with_root(mode.expand(people, -1).clone())

    def select(self, rows: Tensor) -> "DensityPose":
        """The variables of some of the people."""
        return DensityPose(self._some(rows))

    def theta(self, x: Tensor) -> Tensor:
        """Numbers (P, size) -> theta (P, 24, 6)."""
        root, flat = self._split(x)
        return self._theta(root, flat.unflatten(-1, (self.space.joints, 6)))

    def penalty(self, x: Tensor) -> Tensor:
        """-2 log p (P,), from its value at the latent 0."""
        flow, context = self.prior.flow, self.posterior.context
        vector = self._vector(x)
        if flow.has_exact_mode and self.space.flat:
            return flow(vector, context)[0].square().sum(dim=-1)
        log_prob = flow.log_prob(vector, context) + self.space.log_volume(vector)
        zero = torch.zeros_like(vector)
        with torch.no_grad():
            decoded, log_abs_det = flow.inverse(zero, context)
            peak = standard_normal_log_prob(zero) - log_abs_det
            peak = peak + self.space.log_volume(decoded)
        return 2 * (peak - log_prob)

    def _vector(self, x: Tensor) -> Tensor:
        flat = self._split(x)[1]
        return self.space.to_vector(flat.unflatten(-1, (self.space.joints, 6)))


@dataclass(frozen=True)
class AnglePose:
    """Rotation vectors of the body's joints, with a classical prior, and a free root.

    Args:
        mean_pose: (69,) rotation vectors to start from, radians.
        kind: "none" for no prior, "isotropic" for the squared distance from the mean pose,
            "mixture" for SMPLify's Gaussian mixture.
        mixture: The mixture.

    References:
        Bogo et al., *Keep it SMPL*, 2016.
    """

    mean_pose: Tensor
    kind: str
    mixture: PoseMixture | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("none", "isotropic", "mixture"):
            raise ValueError(f'expected "none", "isotropic" or "mixture", got {self.kind!r}')
        if (self.kind == "mixture") != (self.mixture is not None):
            raise ValueError('a mixture belongs to kind "mixture", and to no other')

    @property
    def size(self) -> int:
        """Root and angles."""
        return 6 + 3 * BODY_JOINTS

    @property
    def free_root(self) -> bool:
        """Always."""
        return True

    @property
    def kick(self) -> float:
        """Radians."""
        return 0.25

    def start(self, people: int) -> Tensor:
        """The mean pose, facing the camera."""
        root = facing(self.mean_pose.new_zeros(people))
        return torch.cat([root, self.mean_pose.expand(people, -1)], dim=-1)

    def select(self, rows: Tensor) -> "AnglePose":
        """The same for everybody."""
        return self

    def theta(self, x: Tensor) -> Tensor:
        """Numbers (P, size) -> theta (P, 24, 6)."""
        matrix = rotations.rotvec_to_matrix(x[:, 6:].unflatten(-1, (BODY_JOINTS, 3)))
        return torch.cat([x[:, None, :6], rotations.matrix_to_rot6d(matrix)], dim=1)

    def penalty(self, x: Tensor) -> Tensor:
        """That of its kind (P,)."""
        if self.mixture is not None:
            return 2 * self.mixture.energy(x[:, 6:])
        if self.kind == "isotropic":
            return (x[:, 6:] - self.mean_pose).square().sum(dim=-1)
        return x.new_zeros(len(x))
