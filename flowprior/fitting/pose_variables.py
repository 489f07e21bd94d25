"""Pose variables of a fit, with the penalty of their prior: latents, densities, angles.

All forms start at the most likely pose, where the penalty of a flow is 0, so one fit serves them
all. Forms that model the body only represent the root by six free numbers without a penalty; a fit
then tries several headings.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.files.model_folder import BUNDLED
from flowprior.fitting.mixture import PoseMixture
from flowprior.fitting.solver import with_spare
from flowprior.keypoints import keypoint_context
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import RotationSpace
from flowprior.skeleton import BODY_25, COCO_17, PROHMR_44, Skeleton, shared_joints
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = [
    "DEFAULT_PRIOR",
    "POSE_WEIGHTS",
    "AnglePose",
    "DensityPose",
    "LatentPose",
    "PoseVariables",
    "Prior",
    "facing",
    "latent_or_density",
    "pretrained",
    "variables_of",
]

BODY_JOINTS = 23

DEFAULT_PRIOR = "flowprior/people"
"""Name of the prior of a fit if none is given; it ships with the library."""

POSE_WEIGHTS = {"flow": 16.0, "mixture": 30.0, "isotropic": 1000.0, "none": 0.0}
"""Weights of the pose penalty by kind of prior, chosen on the validation subjects.

That of a flow belongs to :meth:`KeypointWeights.of_noise`: it is the variance of a keypoint."""

CONTEXT_SETS = {3 * each.num_joints: each for each in (COCO_17, BODY_25, PROHMR_44)}


@runtime_checkable
class PoseVariables(Protocol):
    """The poses of P people as variables x (P, size), with a penalty."""

    @property
    def size(self) -> int:
        """Number of variables per person."""

    @property
    def free_root(self) -> bool:
        """Whether the first six variables are the 6D rotation of the root, without a penalty.

        A fit then starts from several headings.
        """

    @property
    def kick(self) -> float:
        """Size of a perturbation of the variables below the root that changes the pose visibly."""

    def start(self, people: int) -> Tensor:
        """Initial x (P, size): the most likely pose, facing the camera."""

    def select(self, rows: Tensor) -> "PoseVariables":
        """The variables of the people ``rows`` (n,), which may repeat."""

    def theta(self, x: Tensor) -> Tensor:
        """Convert x (P, size) to theta (P, 24, 6) in layout "columns"."""

    def penalty(self, x: Tensor) -> Tensor:
        """Penalty (P,) of x (P, size)."""


def facing(degrees: Tensor) -> Tensor:
    """Root rotations of upright people in a camera frame with y down.

    Args:
        degrees: (n,) rotation about the vertical axis, degrees; 0 faces the camera.

    Returns:
        (n, 6) in layout "columns".
    """
    vector = torch.zeros(len(degrees), 3, dtype=degrees.dtype, device=degrees.device)
    vector[:, 1] = torch.deg2rad(degrees)
    upright = vector.new_tensor([1.0, -1.0, -1.0])[:, None]
    return rotations.matrix_to_rot6d(upright * rotations.rotvec_to_matrix(vector))


@dataclass(frozen=True)
class _FlowPose:
    """Base of the forms over a flow.

    Args:
        posterior: Posterior over SMPL's 24 joints or the 23 below the root, over these without the
            two hands, or over the 15 joints of a hand, with P contexts or a single one for all.

    Raises:
        ValueError: The posterior is over other joints, or not over rotations.
    """

    posterior: PosePosterior

    def __post_init__(self) -> None:
        space = self.posterior.prior.space
        known = (24, 23, 22, 21, HAND_JOINTS)
        if not isinstance(space, RotationSpace) or space.joints not in known:
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
        """The space of the flow's vectors."""
        space = self.prior.space
        assert isinstance(space, RotationSpace)
        return space

    @property
    def free_root(self) -> bool:
        """Whether the prior models only the joints of the body below the root."""
        return self.space.joints in (BODY_JOINTS, BODY_JOINTS - 2)

    def _some(self, rows: Tensor) -> PosePosterior:
        return self.posterior[rows] if self.posterior.batch_shape else self.posterior

    def _with_root(self, x: Tensor) -> Tensor:
        """Prepend the root, if it is free, to the start (P, D) of the flow's variables."""
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
    """The latent z of a flow, with the energy of its base as penalty.

    With a normal base the penalty is ||z||^2, as in ProHMR. For flows whose log-determinant does
    not depend on theta, it is -2 log p(theta | c) relative to its minimum.

    Args:
        posterior: Posterior over SMPL's 24 joints or the 23 below the root, over these without the
            two hands, or over the 15 joints of a hand, with P contexts or a single one for all.

    Raises:
        ValueError: The posterior is over other joints, or not over rotations.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, section 3.6.
    """

    @property
    def size(self) -> int:
        """Number of latents, plus six for a free root."""
        return self.space.features + 6 * self.free_root

    @property
    def kick(self) -> float:
        """One standard deviation of the latent."""
        return 1.0

    def start(self, people: int) -> Tensor:
        """The latent 0 (P, size)."""
        flow = self.prior.flow
        zero = torch.zeros(people, self.space.features, dtype=flow.dtype, device=flow.device)
        return self._with_root(zero)

    def select(self, rows: Tensor) -> "LatentPose":
        """The variables of the people ``rows`` (n,)."""
        return LatentPose(self._some(rows))

    def theta(self, x: Tensor) -> Tensor:
        """Convert x (P, size) to theta (P, 24, 6), (P, 22, 6) or, of a hand, (P, 15, 6)."""
        root, z = self._split(x)
        return self._theta(root, self.posterior.decode(z, check=False))

    def penalty(self, x: Tensor) -> Tensor:
        """-2 log p(z) (P,), relative to its minimum."""
        return self.posterior.energy(self._split(x)[1])


@dataclass(frozen=True)
class DensityPose(_FlowPose):
    """The vector of theta in the flow's space, with the penalty -2 log p(theta | c).

    The penalty is relative to the latent 0. It serves any prior, including those whose
    log-determinant depends on theta. For the flows of `LatentPose` the objective is the same in
    other variables. On SO(3) the vectors are those of the chart around the posterior's centre: the
    lengths of 6D vectors, on which the density does not depend, would be variables without a
    minimum. Beyond the chart, the penalty continues to grow with the vector.

    Args:
        posterior: As for `LatentPose`.

    Raises:
        ValueError: As for `LatentPose`.
    """

    @property
    def size(self) -> int:
        """Number of features of the flow, plus six for a free root."""
        return self.space.features + 6 * self.free_root

    @property
    def kick(self) -> float:
        """In radians, or entries of rotation matrices."""
        return 0.25

    def start(self, people: int) -> Tensor:
        """The mode (P, size)."""
        with torch.no_grad():
            mode = self.space.to_vector(self.posterior.mode(), self.posterior.centre)
        return self._with_root(mode.expand(people, -1).clone())

    def select(self, rows: Tensor) -> "DensityPose":
        """The variables of the people ``rows`` (n,)."""
        return DensityPose(self._some(rows))

    def theta(self, x: Tensor) -> Tensor:
        """Convert x (P, size) to theta (P, 24, 6), (P, 22, 6) or, of a hand, (P, 15, 6)."""
        root, vector = self._split(x)
        return self._theta(root, self.space.to_pose(vector, self.posterior.centre))

    def penalty(self, x: Tensor) -> Tensor:
        """-2 log p (P,), relative to its value at the latent 0."""
        flow, context = self.prior.flow, self.posterior.context
        z, log_abs_det = flow(self._split(x)[1], context)
        energy = flow.energy(z, context)
        if flow.has_closed_entropy:
            return energy
        with torch.no_grad():
            _, log_abs_det_at_zero = flow.inverse(torch.zeros_like(z), context)
        return energy - 2 * (log_abs_det + log_abs_det_at_zero)


@dataclass(frozen=True)
class AnglePose:
    """Rotation vectors of the 23 joints below the root, with a classical prior, and a free root.

    Args:
        mean_pose: (69,) initial rotation vectors, radians.
        kind: "none" for no prior, "isotropic" for the squared distance from the mean pose,
            "mixture" for SMPLify's Gaussian mixture.
        mixture: The mixture, for kind "mixture" only.

    Raises:
        ValueError: ``kind`` is another word, or ``mixture`` does not match it.

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
        """Six numbers of the root and 69 angles."""
        return 6 + 3 * BODY_JOINTS

    @property
    def free_root(self) -> bool:
        """True: classical priors do not model the root."""
        return True

    @property
    def kick(self) -> float:
        """Radians."""
        return 0.25

    def start(self, people: int) -> Tensor:
        """The mean pose (P, 75), facing the camera."""
        root = facing(self.mean_pose.new_zeros(people))
        return torch.cat([root, self.mean_pose.expand(people, -1)], dim=-1)

    def select(self, rows: Tensor) -> "AnglePose":
        """These variables: they are the same for all people."""
        return self

    def theta(self, x: Tensor) -> Tensor:
        """Convert x (P, size) to theta (P, 24, 6)."""
        matrix = rotations.rotvec_to_matrix(x[:, 6:].unflatten(-1, (BODY_JOINTS, 3)))
        return torch.cat([x[:, None, :6], rotations.matrix_to_rot6d(matrix)], dim=1)

    def penalty(self, x: Tensor) -> Tensor:
        """Penalty (P,) of the chosen kind."""
        if self.mixture is not None:
            return 2 * self.mixture.energy(x[:, 6:])
        if self.kind == "isotropic":
            return (x[:, 6:] - self.mean_pose).square().sum(dim=-1)
        return x.new_zeros(len(x))


Prior: TypeAlias = PosePosterior | PosePrior | PoseMixture | PoseVariables | str | None
"""Priors that :func:`fit_keypoints` accepts."""


def variables_of(prior: Prior, keypoints: Tensor, skeleton: Skeleton) -> PoseVariables:
    """Pose variables for a fit of P people with any kind of prior.

    Args:
        prior: See :func:`fit_keypoints`. A posterior whose log-determinant is independent of theta
            becomes `LatentPose`, another one `DensityPose`.
        keypoints: (P, K, 3) pixels and confidence, zeros where unseen.
        skeleton: Their joint set.

    Raises:
        TypeError: ``prior`` has another type.
        ValueError: The prior has other joints, another number of contexts, or a context that is not
            `keypoint_context` of a known joint set.
    """
    if isinstance(prior, str):
        prior = pretrained(prior, keypoints.device)
    if prior is None:
        return AnglePose(keypoints.new_zeros(3 * BODY_JOINTS), "none")
    if isinstance(prior, PoseMixture):
        mixture = prior.to(keypoints)
        return AnglePose(mixture.mean_pose, "mixture", mixture)
    if isinstance(prior, PosePrior):
        prior = _posterior_of(prior, keypoints, skeleton)
    if isinstance(prior, PosePosterior):
        if tuple(prior.batch_shape) not in ((), (len(keypoints),)):
            raise ValueError(
                f"expected a posterior with one context for each of {len(keypoints)} people, or "
                f"without batch, got batch shape {tuple(prior.batch_shape)}"
            )
        if prior.prior.space.joints == HAND_JOINTS:
            raise ValueError("expected a prior over a body, got one over a hand: pass hands_prior")
        return latent_or_density(prior)
    if isinstance(prior, PoseVariables):
        return prior
    raise TypeError(
        "expected a PosePosterior, a ConditionalPosePrior, its name, a PoseMixture, PoseVariables "
        f"or None as prior, got {type(prior).__name__}"
    )


def latent_or_density(posterior: PosePosterior) -> LatentPose | DensityPose:
    """`LatentPose` if the log-determinant is independent of theta, otherwise `DensityPose`."""
    closed = posterior.prior.flow.has_closed_entropy
    return LatentPose(posterior) if closed else DensityPose(posterior)


def pretrained(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> PosePrior:
    """The prior of that name, frozen; those that ship with the library are read once."""
    return _shipped(name, device, dtype) if name in BUNDLED else _read(name, device, dtype)


def _read(name: str, device: torch.device, dtype: torch.dtype) -> PosePrior:
    return ConditionalPosePrior.from_pretrained(name, device=device).to(dtype).freeze()


_shipped = cache(_read)


def _posterior_of(prior: PosePrior, keypoints: Tensor, skeleton: Skeleton) -> PosePosterior:
    """The posterior of a prior given keypoints (P, K, 3), as its evidence, its context or not."""
    if isinstance(prior, ConditionalPosePrior):
        prior = prior.freeze()
    with torch.no_grad():
        evidence = prior.evidence
        if evidence is not None and "keypoints_2d" not in evidence.kinds:
            return prior.given()
        if evidence is None and not prior.context_features:
            return prior(None)
        if evidence is None and prior.context_features not in CONTEXT_SETS:
            known = ", ".join(f"{width} ({each.name})" for width, each in CONTEXT_SETS.items())
            raise ValueError(
                f"the prior has a context of {prior.context_features} numbers, which is not "
                f"keypoint_context of a joint set ({known}): pass prior(context) instead"
            )
        expected = CONTEXT_SETS[prior.context_features] if evidence is None else COCO_17
        source, target = shared_joints(skeleton, expected)
        if not source:
            raise ValueError(
                f"{skeleton.name} has no joint of {expected.name}, which the prior needs"
            )
        seen = keypoints.new_zeros(len(keypoints), expected.num_joints, 3)
        seen[:, list(target)] = keypoints[:, list(source)]
        # Padded, so that a context does not depend on the number of people.
        rows = with_spare(torch.arange(len(keypoints), device=keypoints.device))
        seen = seen[rows].to(prior.flow.device, prior.flow.dtype)
        if evidence is None:
            return prior(keypoint_context(seen))[: len(keypoints)]
        return prior.given(keypoints_2d=seen)[: len(keypoints)]
