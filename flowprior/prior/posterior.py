"""PosePrior and PosePosterior: densities over poses and their methods."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowprior._checks import require_count, require_like, require_tensor
from flowprior.flow import FlowStack, ProjectedContext
from flowprior.flow.base import StudentT
from flowprior.flow.held import HeldFlow
from flowprior.flow.projected_context import batch_shape_of, free_of
from flowprior.prior.distribution import PoseDistribution
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.evidence import Evidence
from flowprior.prior.heads import MeanHead
from flowprior.prior.joint_factors import JointFactors, factors_in
from flowprior.prior.linear_uncertainty import (
    angles_of,
    change_of_rotations,
    directions,
    lengths_of,
    move_joints,
)
from flowprior.prior.picking import ANSWERS, mean_pose, medoid
from flowprior.prior.spaces import Centre, PoseSpace, RotationSpace, So3Space
from flowprior.prior.uncertainty import (
    JointUncertainty,
    Measurement,
    PosedBody,
    assembled,
    joined,
    nearest_joints,
    require_rotations,
)
from flowprior.skeleton import Skeleton

__all__ = [
    "PosePosterior",
    "PosePrior",
]

# Samples that are posed at once to measure the uncertainty of joints.
POSED_AT_ONCE = 8192

METHODS = ("samples", "linear")
"""Ways in which :meth:`PosePosterior.joint_uncertainty` can be computed."""


class PosePrior(nn.Module):
    r"""A density p(theta | context) over poses, defined by a flow over the vectors of a pose space.

    Calling it with a context returns a :class:`PosePosterior`, which reads the context once. The
    methods ``sample``, ``log_prob`` and ``mode`` of the prior take the context with each call.
    :class:`flowprior.ConditionalPosePrior` is the trainable prior; its ``freeze`` returns a
    :class:`PosePrior` with constant weights.

    Args:
        flow: The flow over vectors.
        space: The pose space, which converts theta to vectors and back.
        encoder: Network that reads the context before the flow; None for none.
        head: Network that answers the context with the centre of the density; None for none.
        evidence: What the context is made of, for :meth:`given`; None for any other context.
        rest_joints: Joints that the prior knows nothing of, such as SMPL's hands. They are held at
            the identity, or at the origin for points, and are not part of the density.
        joint_factors: Conformal factors of the joints' radii; None without calibration.

    Raises:
        ValueError: If joints are to be held, and the flow does not keep the origin, or they are not
            joints of the space.
    """

    __call__: Callable[..., "PosePosterior"]

    def __init__(
        self,
        flow: FlowStack,
        space: PoseSpace,
        encoder: ContextEncoder | None = None,
        head: MeanHead | None = None,
        evidence: Evidence | None = None,
        rest_joints: Sequence[int] = (),
        joint_factors: JointFactors | None = None,
    ) -> None:
        super().__init__()
        self.joint_factors = joint_factors
        self.flow = flow
        self.space = space
        self.encoder = encoder
        self.head = head
        self.evidence = evidence
        self.rest_joints = tuple(sorted(set(rest_joints)))
        if any(not 0 <= joint < space.joints for joint in self.rest_joints):
            raise ValueError(
                f"rest_joints must be from 0 to {space.joints - 1}, got {tuple(rest_joints)}"
            )
        holds = bool(self.rest_joints) or (evidence is not None and "rotations" in evidence.kinds)
        if holds and not flow.keeps_origin:
            raise ValueError("only an anchored prior can hold joints: anchored=True")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *args: Any,  # noqa: ANN401
    ) -> None:
        # Factors belong to the weights: they come and go with those.
        self.joint_factors = factors_in(state_dict, prefix + "joint_factors.", self.flow.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def context_features(self) -> int:
        """Width C of the context; 0 for an unconditional prior."""
        encoder = self.encoder
        return self.flow.context_features if encoder is None else encoder.context_features

    @property
    def has_exact_mode(self) -> bool:
        """Whether the mode needs no search; see :meth:`PosePosterior.mode`."""
        return self.flow.has_exact_mode

    def forward(
        self, context: Tensor | None = None, *, centre: Tensor | None = None
    ) -> "PosePosterior":
        """Condition the prior on a context.

        Args:
            context: (*batch, C); None for an unconditional prior.
            centre: Poses (*batch, J, k) around which the density lies, in any accepted form, such
                as the answer of a regressor; the answer of the prior's head if None. With an
                anchored flow it is the mode.

        Returns:
            The posterior, whose batch is that of the context.

        Raises:
            ValueError: If the context has another width, dtype or device than the prior, if the
                centre is not a pose or has another batch, or if one of them holds NaN or infinity.
        """
        return self._posterior(self._encoded(context), centre)

    def given(
        self,
        *,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
        rotations: Tensor | None = None,
        known: Tensor | None = None,
    ) -> "PosePosterior":
        """Condition the prior on whatever is known of a person; with nothing, the marginal.

        The kinds of evidence can be combined, if the prior was trained with them: see
        ``prior.evidence``. Where rotations are known, mode and samples have exactly these, and the
        density is over the other joints: ``log_prob`` does not depend on theta at known joints.
        2D keypoints and 3D joints are taken as measurements with errors.

        Args:
            keypoints_2d: (*batch, 17, 3) in COCO's order or (*batch, 25, 3) in BODY-25's: x and y
                in pixels, y down, and confidence.
            joints_3d: (*batch, 24, 3) in SMPL's order, metres, NaN where unknown. For a prior with
                the root in the camera's axes; without it, in the root's frame. For a prior over a
                hand (*batch, 21, 3) in the order of :data:`flowprior.skeleton.MANO_21`, in the
                wrist's frame.
            rotations: (*batch, J, k) in any form that the prior's space accepts.
            known: (*batch, J) bool, the joints whose rotations are known; if None, those without
                NaN.

        Returns:
            The posterior, whose batch is that of the evidence, broadcast; () without evidence.

        Raises:
            TypeError: If an argument is not a tensor.
            ValueError: If the prior takes no evidence or was not trained with this kind, or a shape
                or unit does not fit.
        """
        evidence = self.evidence
        if evidence is None:
            raise ValueError("this prior takes a context, prior(context), not evidence")
        pose = None
        if rotations is not None and "rotations" in evidence.kinds:
            pose, known = evidence.known_rotations(rotations, known)
            rotations = pose
        told = known
        if known is not None and self.rest_joints:  # the prior has never seen their rotations
            told = known.clone()
            told[..., list(self.rest_joints)] = False
        context = evidence.context(
            keypoints_2d=keypoints_2d, joints_3d=joints_3d, rotations=rotations, known=told
        ).to(self.flow.device, self.flow.dtype)
        if pose is not None:
            pose = pose.to(context)
        return self._posterior(self._encoded(context), None, known, pose)

    def _posterior(
        self,
        features: Tensor | None,
        centre: Tensor | None,
        known: Tensor | None = None,
        pose: Tensor | None = None,
    ) -> "PosePosterior":
        """The posterior given encoded contexts (*batch, C), and poses of the known joints."""
        batch = torch.Size() if features is None else features.shape[:-1]
        given = None
        if centre is not None:
            checked = self._checked_centre(centre, batch)
            batch = checked.shape[:-2]
            given = self.space.centre(checked)
        projected = self._projected(features, known)
        if centre is not None:
            projected = projected.expand(batch)
        answer = self._answer(features) if given is None else given
        return PosePosterior(self, projected, centre=self._with_known(answer, known, pose))

    def _projected(self, features: Tensor | None, known: Tensor | None) -> ProjectedContext:
        """Project encoded contexts (*batch, C), with the joints that are held."""
        if known is None and not self.rest_joints:
            return self.flow.project_context(features)
        free = torch.ones(self.space.joints, dtype=torch.bool, device=self.flow.device)
        free[list(self.rest_joints)] = False
        free = free if known is None else free & ~known
        numbers = self.space.features // self.space.joints
        return self.flow.project_context(features, free=free.repeat_interleave(numbers, dim=-1))

    def _with_known(
        self, centre: Centre | None, known: Tensor | None, pose: Tensor | None
    ) -> Centre | None:
        """A centre with the joints that are held: known ones from poses, the others at rest."""
        if not self.rest_joints and (known is None or pose is None):
            return centre
        rest = self.space.rest.to(self.flow.device, self.flow.dtype)
        result = rest if centre is None else centre.pose
        if self.rest_joints:
            held = torch.zeros(self.space.joints, 1, dtype=torch.bool, device=result.device)
            held[list(self.rest_joints)] = True
            result = torch.where(held, rest, result)
        if known is not None and pose is not None:
            result = torch.where(known[..., None], pose, result)
        return self.space.centre(result)

    def _answer(self, features: Tensor | None) -> Centre | None:
        """The head's answer to encoded contexts (*batch, C); None without a head."""
        return None if self.head is None else self.head.centre(features).to(self.flow.dtype)

    def _encoded(self, context: Tensor | None) -> Tensor | None:
        """Check the values of a context (*batch, C) and apply the encoder, if there is one."""
        if context is not None:
            require_tensor("context", context)
            _require_finite("context", context)
        if self.encoder is None:
            return context
        if context is None:
            raise ValueError(
                f"this prior needs a context of shape (..., {self.context_features}), got None"
            )
        with self.flow.full_precision():
            return cast(Tensor, self.encoder(context))

    def _checked_centre(self, centre: Tensor, batch: torch.Size) -> Tensor:
        """Convert a centre to poses (*batch, J, k) of the flow's dtype."""
        pose = self._pose_of_centre(centre)
        if batch and pose.shape[:-2] != batch:
            raise ValueError(
                f"centre has batch shape {tuple(pose.shape[:-2])}, but the context has batch shape "
                f"{tuple(batch)}: there is one centre for each context"
            )
        pose = require_like("centre", pose, self.flow.dtype, self.flow.device)
        _require_finite("centre", pose)
        return pose

    def _pose_of_centre(self, centre: Tensor) -> Tensor:
        """Convert a centre in any accepted form to (..., J, k)."""
        require_tensor("centre", centre)
        try:
            return self.space.as_pose(centre)
        except ValueError as error:  # from the space, which knows its argument as theta
            raise ValueError(str(error).replace("theta", "centre")) from None

    def sample(
        self,
        context: Tensor | None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples (*batch, n, J, k); see :meth:`PosePosterior.sample`."""
        if isinstance(context, int):
            raise TypeError(
                f"context must be a torch.Tensor or None, got {context}: the number of samples "
                f"comes after it, sample(context, {context})"
            )
        return self(context).sample(num_samples, generator=generator)

    def log_prob(self, theta: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density (*batch, *extra) in nats; see :meth:`PosePosterior.log_prob`."""
        self._require_order("log_prob", theta, context)
        return self(context).log_prob(theta)

    def mode(self, context: Tensor | None = None) -> Tensor:
        """Most likely theta (*batch, J, k); see :meth:`PosePosterior.mode`."""
        if self.head is None or not self.flow.keeps_origin:
            return self(context).mode()
        # The flow is not needed, so its part of the context is not computed.
        context = self.flow.checked_context(self._encoded(context))
        answer = self._with_known(self._answer(context), None, None)
        return cast(Centre, answer).pose

    def smpl_params(self, theta: Tensor) -> dict[str, Tensor]:
        """Split theta into the rotation matrices that a body model takes.

        Args:
            theta: Rotations in any form that :class:`flowprior.prior.RotationSpace` accepts.

        Returns:
            ``global_orient`` (..., 1, 3, 3) and ``body_pose`` (..., J - 1, 3, 3).

        Raises:
            ValueError: If theta has another shape, or the prior is over keypoints.
        """
        if not isinstance(self.space, RotationSpace):
            raise ValueError("a prior over 3D keypoints has no joint rotations")
        matrix = self.space.to_matrix(theta)
        return {"global_orient": matrix[..., :1, :, :], "body_pose": matrix[..., 1:, :, :]}

    def _summary(self) -> str:
        space = self.space
        facts: dict[str, object] = {"context_features": self.context_features}
        facts |= {"joints": space.joints, "space": space.name}
        if isinstance(space, RotationSpace):
            facts["layout"] = space.layout
        if self.evidence is not None:
            facts["evidence"] = self.evidence.kinds
        if self.rest_joints:
            facts["rest_joints"] = self.rest_joints
        if self.flow.keeps_origin:
            facts["head"] = self.head is not None
        facts |= self.flow.base.facts()
        facts["mode"] = "exact" if self.has_exact_mode else "by ascent"
        return ", ".join(f"{name}={value!r}" for name, value in facts.items())

    def _require_order(self, verb: str, theta: object, context: object) -> None:
        """Raise ValueError if theta and context were passed in the wrong order."""
        width = self.context_features
        if not (width and isinstance(theta, Tensor) and isinstance(context, Tensor)):
            return
        sizes = (self.space.features, *self.space.event_shape)
        if theta.shape[-1:] == (width,) and width not in sizes and context.shape[-1:] != (width,):
            raise ValueError(
                f"{verb} takes theta first, then the context: {verb}(theta, context); got shapes "
                f"{tuple(theta.shape)} and {tuple(context.shape)}"
            )


class PosePosterior:
    r"""The density p(theta | context) for one batch of contexts.

    Calling a :class:`PosePrior` creates it. Indexing selects contexts: ``posterior[0]``,
    ``posterior[2:5]``, ``posterior[mask]``.

    Shapes: the batch is that of the context, (\*batch, C). One theta per context is
    (\*batch, J, k), n of them are (\*batch, n, J, k); extra axes always stand between batch and
    pose. Theta is accepted in every form of the prior's :class:`flowprior.prior.PoseSpace`, and is
    returned as (..., J, 6) for rotations and (..., J, 3) for points.

    Weights: the methods use the weights with which the context was projected, also those that
    ``torch.func.functional_call`` substitutes during one call. In-place changes of the weights
    apply to the posterior, but not to its projected context: create a new posterior after each
    optimiser step.

    Args:
        prior: The prior.
        context: The projected context.
        flow: The flow with the weights that projected the context; the prior's current weights if
            None.
        centre: The poses around which the density lies; None for the origin of the space.

    Attributes:
        prior: The prior.
        context: The projected context.
        centre: The poses around which the density lies, or None.
    """

    def __init__(
        self,
        prior: PosePrior,
        context: ProjectedContext,
        flow: HeldFlow | None = None,
        centre: Centre | None = None,
    ) -> None:
        self.prior = prior
        self.context = context
        self.centre = centre
        self._flow = HeldFlow(prior.flow) if flow is None else flow

    def __repr__(self) -> str:
        return f"PosePosterior(batch_shape={tuple(self.batch_shape)}, {self.prior._summary()})"

    def __getitem__(self, rows: Any) -> "PosePosterior":  # noqa: ANN401, as tensors are indexed
        """Select contexts of the batch.

        Args:
            rows: An int, slice, list, boolean mask or index tensor for the first batch axis, or a
                tuple of these for several axes, as tensors accept it. Indices may repeat.

        Returns:
            The posterior of the selected contexts, with the same weights.

        Raises:
            IndexError: If the index has more axes than the batch, or is out of range.
        """
        try:
            context = self.context.select(rows)
            centre = None if self.centre is None else self.centre.select(rows)
        except IndexError as error:
            raise IndexError(
                f"cannot select {rows!r} from contexts of batch shape "
                f"{tuple(self.batch_shape)}: {error}"
            ) from error
        return PosePosterior(self.prior, context, self._flow, centre)

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of contexts."""
        return batch_shape_of(self.context)

    def expand(self, batch_shape: torch.Size) -> "PosePosterior":
        """Broadcast the batch to ``batch_shape`` without copies."""
        centre = None if self.centre is None else self.centre.expand(batch_shape)
        return PosePosterior(self.prior, self.context.expand(batch_shape), self._flow, centre)

    @property
    def event_shape(self) -> tuple[int, int]:
        """Shape (J, k) of one theta."""
        return self.prior.space.event_shape

    @property
    def known(self) -> Tensor | None:
        """(*batch, J) bool: joints that are known or at rest, outside the density; None if none."""
        free, space = free_of(self.context), self.prior.space
        return None if free is None else free[..., :: space.features // space.joints] == 0

    def sample(self, num_samples: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples. They carry gradients to weights and context.

        Args:
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the prior's device; torch's global one if None.

        Returns:
            (*batch, n, J, k), also for n = 1. With ``space="rot6d"``, samples are points of the 6D
            space and not yet orthonormal; :func:`flowprior.rotations.rot6d_to_matrix` decodes them.

        Raises:
            TypeError: If ``num_samples`` is a shape; :meth:`distribution` takes shapes.
            ValueError: If ``num_samples`` is negative.
        """
        _require_no_shape("sample", num_samples)
        x = self._flow.call("sample", self.context, num_samples, generator=generator)
        return self._pose_of(x)

    def sample_and_log_prob(
        self, num_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples with their log-densities, at no extra cost.

        Args:
            num_samples: As for :meth:`sample`.
            generator: As for :meth:`sample`.

        Returns:
            Samples (*batch, n, J, k) and log-densities (*batch, n) in nats.

        Raises:
            TypeError: As :meth:`sample`.
            ValueError: As :meth:`sample`.
        """
        _require_no_shape("sample_and_log_prob", num_samples)
        flow, space = self.prior.flow, self.prior.space
        x, log_prob = self._flow.call(
            "sample_and_log_prob", self.context, num_samples, generator=generator
        )
        theta, log_prob = self._pose_of(x), log_prob + self._log_volume(log_prob)
        settled = space.settled(x)
        if settled is x or flow.depends_on_batch:  # a forward pass would move statistics
            return theta, log_prob
        moved = (settled != x).any(dim=-1)
        if _is_known_false(moved.any()):
            return theta, log_prob
        return theta, torch.where(moved, self._log_density(settled), log_prob)

    def log_prob(self, theta: Tensor, *, check: bool = True) -> Tensor:
        """Log-density, differentiable in theta, weights and context.

        With ``space="rot6d"`` it is the density of the 6D vectors, not of the rotations; with
        ``"so3"`` that of the rotations with respect to the Haar measure of mass 1.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form. Its known joints do not matter.
            check: Whether to check the values for NaN and infinity; False saves that pass in inner
                loops. Shapes, dtype and device are always checked.

        Returns:
            (*batch, *extra), in nats.

        Raises:
            ValueError: If theta does not fit the batch, or holds NaN or infinity.
        """
        return self._log_density(self._vector_of(theta, finite=check))

    def mode(self) -> Tensor:
        """Compute the most likely theta.

        It is exact if :attr:`PosePrior.has_exact_mode`: the centre itself for an anchored flow, the
        decoded z = 0 for another flow with additive couplings. Otherwise it is a local maximum,
        found by gradient ascent from the decoded z = 0 and at least as likely, and
        ``torch.compile`` leaves the ascent outside the graph.

        Returns:
            (*batch, J, k). A given centre is returned unchanged, as 6D vectors for rotations.
        """
        if self.centre is not None and self.prior.flow.keeps_origin:
            return self.centre.pose
        if self.prior.has_exact_mode:
            return self.prior.space.to_pose(self._flow.call("mode", self.context), self.centre)
        # Compiling a graph of a hundred steps takes minutes, for each new shape.
        ascend = self._ascended_mode
        return (torch.compiler.disable(ascend) if torch.compiler.is_compiling() else ascend)()

    def entropy(
        self, *, num_samples: int = 256, generator: torch.Generator | None = None
    ) -> Tensor:
        """Differential entropy in nats.

        In closed form for additive couplings, otherwise the mean negative log-density of samples.
        With ``space="so3"``, the closed form is exact up to the mass outside the ball of the chart,
        see :class:`flowprior.prior.So3Space`.

        Args:
            num_samples: Number of samples per context without a closed form.
            generator: Source of their noise; torch's global one if None.

        Returns:
            (*batch,).
        """
        draws = {"num_samples": num_samples, "generator": generator}
        entropy = cast(Tensor, self._flow.call("entropy", self.context, **draws))
        return entropy - self._log_volume(entropy)

    def encode(self, theta: Tensor, *, check: bool = True) -> Tensor:
        """Map theta to its latent.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form.
            check: As for :meth:`log_prob`.

        Returns:
            z (*batch, *extra, D), distributed as the base of the flow for theta drawn from this
            posterior.

        Raises:
            ValueError: As :meth:`log_prob`.
        """
        x = self._vector_of(theta, finite=check)
        return cast(Tensor, self._flow.call("__call__", x, self.context)[0])

    def decode(self, z: Tensor, *, check: bool = True) -> Tensor:
        """Map a latent to theta, the inverse of :meth:`encode`.

        Args:
            z: (*batch, *extra, D).
            check: As for :meth:`log_prob`.

        Returns:
            (*batch, *extra, J, k).

        Raises:
            ValueError: If z does not fit the batch, or holds NaN or infinity.
        """
        require_tensor("z", z)
        z = self._checked_vector("z", z, finite=check)
        x = self._flow.call("inverse", z, self.context)[0]
        return self._pose_of(x)

    def energy(self, z: Tensor) -> Tensor:
        """-2 log p of latents under the flow's base, relative to its minimum at z = 0.

        Without a determinant that depends on theta, this is -2 log p(theta | context) of the
        decoded theta, relative to the mode.

        Args:
            z: (*batch, *extra, D).

        Returns:
            (*batch, *extra), at least 0; ||z||^2 for a normal base.
        """
        return cast(Tensor, self._flow.call("energy", z, self.context))

    def joint_uncertainty(
        self,
        body: PosedBody,
        *,
        num_samples: int = 200,
        skeleton: Skeleton | None = None,
        betas: Tensor | None = None,
        method: str = "samples",
        calibrated: bool = True,
        generator: torch.Generator | None = None,
    ) -> JointUncertainty:
        """How far each joint may lie from the mode, in millimetres and degrees.

        Samples are drawn and posed in blocks. A result holds at most
        :data:`flowprior.prior.uncertainty.KEPT` distances for each joint, and the work needs 48
        further numbers for each sample of one context.

        Args:
            body: The body, such as :class:`flowprior.body.BodyModel`: any with joints of the prior,
                see :func:`flowprior.prior.uncertainty.on_body`. Its other joints, such as fingers,
                are at rest.
            num_samples: Number n of samples per context, at least 2. For a normal distribution,
                the 90 % radii of 200 samples have a standard error of 4 to 6 %.
            skeleton: The joint set of the positions, with K joints; the joints of the body if
                None. Joints of other sets than SMPL's take the conformal factors of the nearest
                joint of SMPL in the rest pose.
            betas: Shape of the body, (10,) or (*batch, 10); the average shape if None.
            method: ``"samples"``, or ``"linear"``: flow and forward kinematics are linearised
                around the mode, and a normal or Student's t base then has known quantiles. It is
                the same in every call; the guide page "Uncertainty of every joint" says how much
                its radii differ from those of samples.
            calibrated: Whether to apply the prior's conformal factors, if it has them.
            generator: Source of the samples; torch's global one if None.

        Returns:
            Radii, standard deviations, directions and, by methods, confidences.

        Raises:
            ValueError: If the prior is not over rotations or the body lacks its joints, there are
                fewer than two samples, the method is unknown, or ``"linear"`` cannot be used: it
                needs an anchored prior with ``space="so3"`` and the joint set of the body.
        """
        require_count("num_samples", num_samples, 2)
        if method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {method!r}")
        space, batch = require_rotations(self.prior.space), self.batch_shape
        skeleton = body.skeleton if skeleton is None else skeleton
        linear = method == "linear"
        exact = isinstance(space, So3Space) and self.prior.flow.keeps_origin
        if linear and not (exact and skeleton == body.skeleton):
            raise ValueError(
                'method="linear" needs an anchored prior with space="so3" and the joints of the '
                f"body, skeleton={body.skeleton.name}"
            )
        factors = self.prior.joint_factors if calibrated else None
        whole = self if batch else self.expand(torch.Size([1]))
        shapes = None
        if betas is not None:
            shapes = betas.expand(*batch, betas.shape[-1])
            shapes = shapes.reshape(batch.numel(), betas.shape[-1])
        parts = []
        each = 2 * self.prior.flow.features if linear else num_samples
        for rows in torch.arange(batch.numel()).split(max(1, POSED_AT_ONCE // each)):
            some = whole[torch.unravel_index(rows.to(self._flow.device), whole.batch_shape)]
            mode = space.to_matrix(some.mode())
            own = None if shapes is None else shapes[rows]
            if linear:
                parts.append(some._linear_uncertainty(mode, body, own, factors))
                continue
            measurement = Measurement(mode, body, skeleton, own)
            for start in range(0, num_samples, POSED_AT_ONCE):
                drawn = min(POSED_AT_ONCE, num_samples - start)
                measurement.add(space.to_matrix(some.sample(drawn, generator=generator)))
            parts.append(measurement.result(factors))
        return joined(parts, batch)

    def _linear_uncertainty(
        self,
        mode: Tensor,
        body: PosedBody,
        betas: Tensor | None,
        factors: JointFactors | None,
    ) -> JointUncertainty:
        """The linearised uncertainty of posteriors with batch shape (B,)."""
        size, base = self.prior.flow.features, self.prior.flow.base
        axes = directions(size).to(self._flow.device, self._flow.dtype)
        latents = torch.cat((axes, -axes)).expand(*self.batch_shape, 2 * size, size)
        x = cast(Tensor, self._flow.call("inverse", latents, self.context)[0])
        change = change_of_rotations(*x.split(size, dim=1))
        moved = move_joints(change, mode, body, betas)
        nu = base.degrees_of_freedom if isinstance(base, StudentT) else None
        scale = moved @ moved.mT
        lengths = lengths_of(change @ change.mT, nu)
        variance = 1.0 if nu is None else float(nu / (nu - 2))
        nearest = None if factors is None else nearest_joints(body, body.skeleton)
        return assembled(
            lengths_of(scale, nu), variance * scale, angles_of(lengths), factors, nearest
        )

    def pick(
        self,
        answer: str = "mode",
        *,
        num_samples: int = 100,
        log_likelihood: Callable[[Tensor], Tensor] | None = None,
        marginal: "PosePosterior | None" = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Choose one pose without knowing the truth.

        Args:
            answer: ``"mode"``, the most likely pose, in general the best choice and free;
                ``"mean"``, the mean of samples, for rotations the chordal mean on SO(3), which has
                the least squared error; ``"medoid"``, the sample with the least sum of distances to
                the others, which is a pose of the posterior also where it has several modes;
                ``"weighted"``, the mean of samples weighted by further measurements.
            num_samples: Number n of samples.
            log_likelihood: For ``"weighted"``: poses (*batch, n, J, k) -> the log-likelihood
                (*batch, n) of measurements that the context does not contain, such as minus the
                squared reprojection errors of 2D keypoints over twice their variance.
            marginal: For ``"weighted"`` with measurements that the context does contain, the
                posterior without them, such as ``prior.given()``: samples are then weighted by
                exp(log_likelihood) marginal(theta) / self(theta), which counts the measurements
                once. Its batch is () or that of this posterior.
            generator: Source of the samples; torch's global one if None.

        Returns:
            (*batch, J, k).

        Raises:
            ValueError: If the answer is unknown, ``log_likelihood`` or ``marginal`` does not belong
                to it, or a shape does not fit.
        """
        if answer not in ANSWERS:
            raise ValueError(f"answer must be one of {ANSWERS}, got {answer!r}")
        if (answer == "weighted") != (log_likelihood is not None):
            raise ValueError('a log_likelihood belongs to the answer "weighted", and to no other')
        if marginal is not None and answer != "weighted":
            raise ValueError('a marginal belongs to the answer "weighted", and to no other')
        if answer == "mode":
            return self.mode()
        require_count("num_samples", num_samples, 1)
        space, samples = self.prior.space, self.sample(num_samples, generator=generator)
        if answer == "medoid":
            return medoid(space, samples)
        weight = torch.full_like(samples[..., 0, 0], 1 / num_samples)
        if log_likelihood is not None:
            value = log_likelihood(samples)
            if value.shape != weight.shape:
                raise ValueError(
                    f"log_likelihood must return {tuple(weight.shape)} for poses "
                    f"{tuple(samples.shape)}, got {tuple(value.shape)}"
                )
            if marginal is not None:
                value = value + (marginal.expand(self.batch_shape).log_prob(samples)).to(value)
                value = value - self.log_prob(samples).to(value)
            weight = value.to(weight).softmax(dim=-1)
        mean, known = mean_pose(space, samples, weight), self.known
        return mean if known is None else torch.where(known[..., None], self.mode(), mean)

    def distribution(self, *, validate_args: bool | None = None) -> PoseDistribution:
        """The same density as a ``torch.distributions.Distribution``, with torch's conventions.

        Args:
            validate_args: Whether to check values; torch's default if None.

        Returns:
            A distribution with the batch shape of the posterior and the event shape (J, k).
        """
        return PoseDistribution(self, validate_args=validate_args)

    def _ascended_mode(self) -> Tensor:
        space = self.prior.space
        theta = space.to_pose(self._flow.call("mode", self.context), self.centre)
        if self.prior.flow.training:  # a forward pass moves statistics
            return theta
        # The ascent maximises the density of x. Encoding the pose of x may round or shorten it, so
        # the densities of the two poses are compared.
        shape = (*self.batch_shape, self.prior.flow.features)
        zero = torch.zeros(shape, dtype=self._flow.dtype, device=self._flow.device)
        start = self.decode(zero)
        with torch.no_grad():
            better, before = (
                self._log_density(space.to_vector(each, self.centre)) for each in (theta, start)
            )
        return torch.where((better >= before)[..., None, None], theta, start)

    def _log_density(self, x: Tensor) -> Tensor:
        """Log-density of the pose of x (*batch, *extra, D)."""
        log_prob = cast(Tensor, self._flow.call("log_prob", x, self.context))
        return log_prob + self._log_volume(log_prob)

    def _pose_of(self, x: Tensor) -> Tensor:
        """Convert vectors (*batch, *extra, D) to poses; known joints are exactly those given."""
        theta = self.prior.space.to_pose(x, self.centre)
        known = self.known
        if known is None or self.centre is None:
            return theta
        axes = (1,) * (theta.ndim - known.ndim - 1)
        batch, event = self.batch_shape, self.event_shape
        flags = known.reshape(*batch, *axes, event[0], 1)
        return torch.where(flags, self.centre.pose.reshape(*batch, *axes, *event), theta)

    def _log_volume(self, log_prob: Tensor) -> Tensor | float:
        """What turns log-densities (*batch, *extra) of vectors into those of poses."""
        space, known = self.prior.space, self.known
        if known is None or not space.log_volume:
            return space.log_volume
        volume = (~known).sum(dim=-1).to(log_prob.dtype) * (space.log_volume / space.joints)
        return volume.reshape((*volume.shape, *(1,) * (log_prob.ndim - volume.ndim)))

    def _vector_of(self, theta: Tensor, *, finite: bool = True) -> Tensor:
        """Convert theta in any accepted form to vectors (*batch, *extra, D)."""
        space = self.prior.space
        pose = self._checked_vector("theta", space.as_pose(theta), event=2, finite=finite)
        return space.to_vector(pose, self.centre)

    def _checked_vector(
        self, name: str, x: Tensor, *, event: int = 1, finite: bool = True
    ) -> Tensor:
        """Convert to the flow's dtype; ValueError if the batch does not fit or x is not finite."""
        batch = self.batch_shape
        if x.shape[:-event][: len(batch)] != batch:
            leading = tuple(x.shape[:-event])
            hint = ""
            if len(leading) == 2 and leading[1:] == batch:
                hint = f", as in {name}.transpose(0, 1)"
            raise ValueError(
                f"{name} has leading shape {leading}, but the context has batch shape "
                f"{tuple(batch)}: several poses for one context stand on axes after the batch{hint}"
            )
        x = require_like(name, x, self._flow.dtype, self._flow.device)
        if finite:
            _require_finite(name, x)
        return x


def _require_no_shape(verb: str, num_samples: object) -> None:
    if isinstance(num_samples, tuple | list):
        shape = tuple(num_samples)
        raise TypeError(
            f"num_samples must be a whole number, got {shape}: "
            f"posterior.distribution().sample({shape}) takes shapes, as torch.distributions does, "
            f"and posterior.{verb}(n) puts n samples on the axis after the batch"
        )


def _is_known_false(condition: Tensor) -> bool:
    """Whether a condition () is false; False if reading it would synchronise with a device."""
    if condition.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return not bool(condition)
    except RuntimeError:  # vmap cannot look at values
        return False


def _require_finite(name: str, value: Tensor) -> None:
    # On other devices the check would synchronise.
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    try:
        finite = bool(value.isfinite().all())
    except RuntimeError:  # vmap cannot look at values
        return
    if not finite:
        bad = (~value.isfinite()).sum().item()
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {value.numel()} entries")
